//! Accounts as people see them.

use sqlx::FromRow;

/// An account as people see it; its key stays sealed. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Described {
    pub id: i64,
    pub name: String,
    pub enabled: bool,
    /// Grows with every change of key or `enabled`.
    pub version: i64,
    #[sqlx(rename = "created_at")]
    pub created_at_ms: i64,
    /// As of the last login, like the three below.
    pub firmware: Option<String>,
    #[sqlx(rename = "last_login_at")]
    pub last_login_at_ms: Option<i64>,
    pub last_source: Option<String>,
    pub last_node: Option<String>,
}

/// A session that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Online {
    pub node: String,
    pub source: String,
    #[sqlx(rename = "attached_at")]
    pub attached_at_ms: i64,
}
