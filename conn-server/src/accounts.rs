//! The accounts table: looked up for logins, changed by people, followed while it changes.
//!
//! ```text
//! login ──▶ cache ──hit──▶ core                         rcu device … ──▶ store ──▶ accounts
//!             │ miss                                                          └──▶ account_changes
//!             └──▶ inquiries: look-ups, and each half second the changes ◀─────────────┘
//!                     └──▶ cache and core, in the order in which they were read
//! ```
//!
//! - [`store`]: what people do with accounts, each change with its row in `account_changes`; [`described`]: what
//!   they see of them.
//! - [`seal`]: device keys under the master key.
//! - [`inquiries`]: what the table is asked, in which order, and what is told of the answers.
//! - [`cache`]: what was looked up before, and [`freshness`]: how long it may be used. `last_logins`: what is to be noted of logins.
//! - `reader`, `writer`: the two tasks of a conn server that use the table; `table`: the statements of
//!   both databases.

pub mod cache;
pub mod described;
pub mod freshness;
pub mod inquiries;
pub mod last_logins;
pub(crate) mod reader;
pub mod seal;
pub mod store;
pub(crate) mod table;
pub(crate) mod writer;

/// Connections to PostgreSQL that a conn server needs: one each for what is asked, for what is written,
/// and for hearing of changes.
pub const CONNECTIONS_MAX: u32 = 3;

/// For what is told of an outage.
fn millis_since(began: tokio::time::Instant) -> u64 {
    common::millis::millis(began.elapsed())
}
