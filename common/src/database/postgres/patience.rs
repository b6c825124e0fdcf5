//! How a statement that needs a table for itself gets it while others use it.
//!
//! ```text
//! a SELECT of minutes ─────────────────────────────────────────▶
//! ALTER TABLE            waits ✗   pause    waits ✗   pause …
//! batches          ──▶──▶──▶│   ▶──▶──▶──▶──▶│   ▶──▶──▶
//!                          behind it        behind it
//! ```
//!
//! Whoever asks for a table stands behind those who asked before. A statement that waited for as long as
//! somebody reads would have everybody wait with it.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::migrate::MigrateError;

/// As the server says it: somebody else had the lock for longer than `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Of one try; so long others stand behind it.
    pub lock_timeout: Duration,
    /// Between two tries, in which they go on.
    pub pause: Duration,
    pub tries_max: u32,
}

impl Default for Patience {
    /// Two and a half minutes.
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_millis(500),
            pause: Duration::from_millis(2_500),
            tries_max: 50,
        }
    }
}

/// A try that did not get its lock, and after which there will be another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub tries: u32,
    pub tries_max: u32,
    /// Who has locks on the tables that the schema is made of, as `USER (PROGRAM, process NUMBER)`.
    pub who: Vec<String>,
}

impl Patience {
    /// Of a session, or with `LOCAL` of a transaction.
    pub fn statement(&self, scope: &str) -> String {
        format!(
            "SET {scope} lock_timeout = {}",
            self.lock_timeout.as_millis()
        )
    }

    /// Whether what failed so, for the how manieth time, is worth another try.
    pub fn allows(&self, tries: u32, error: &sqlx::Error) -> bool {
        tries < self.tries_max && is_lock_timeout(error)
    }

    pub async fn pause(&self) {
        tokio::time::sleep(self.pause).await;
    }
}

impl Waiting {
    pub async fn of(patience: &Patience, tries: u32, connection: &mut PgConnection) -> Self {
        let who = holders(connection).await.unwrap_or_default();
        Self {
            tries,
            tries_max: patience.tries_max,
            who,
        }
    }
}

pub fn is_lock_timeout(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == LOCK_NOT_AVAILABLE)
}

/// What the database said of a migration, where it is that which failed.
pub(super) fn of_migration(error: &MigrateError) -> Option<&sqlx::Error> {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Some(error),
        _ => None,
    }
}

/// Whoever has had a transaction open for a second or more, or of whom that cannot be seen, and locks a table.
async fn holders(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT DISTINCT format('%s (%s, process %s)', usename, application_name, pid) \
         FROM pg_locks JOIN pg_stat_activity USING (pid) JOIN pg_class ON pg_class.oid = relation \
         WHERE locktype = 'relation' AND pg_locks.database = (SELECT oid FROM pg_database \
             WHERE datname = current_database()) \
           AND granted AND pid <> pg_backend_pid() AND relkind IN ('r', 'p') \
           AND relnamespace = quote_ident(current_schema())::regnamespace \
           AND coalesce(xact_start < now() - interval '1 second', true) \
         ORDER BY 1",
    )
    .fetch_all(connection)
    .await
}
