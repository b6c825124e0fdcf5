//! The accounts table: looked up for logins, changed by people, followed while it changes.
//!
//! ```text
//! login ──▶ cache ──hit──▶ core                         rcu device … ──▶ store ──▶ accounts
//!             │ miss                                                          └──▶ account_changes
//!             └──▶ inquiries: look-ups, and each half second the changes ◀─────────────┘
//!                     └──▶ cache and core, in the order in which they were read
//! ```
//!
//! - [`store`]: what people do with accounts, each change with its row in `account_changes`.
//! - [`seal`]: device keys under the master key.
//! - [`inquiries`]: what the table is asked, in which order, and what is told of the answers.
//! - [`cache`]: what was looked up before, and [`freshness`]: how long it may be used. `last_logins`: what is to be noted of logins.
//! - `reader`, `writer`: the two tasks of a conn server that use the table.

use serde::Serialize;

pub mod cache;
pub mod freshness;
pub mod inquiries;
pub mod last_logins;
pub(crate) mod reader;
pub mod seal;
pub mod store;
pub(crate) mod writer;

/// Any number of rows as one bound value, for `json_each`: the statement stays the same, and so it
/// is prepared once.
fn json(rows: impl Iterator<Item = impl Serialize>) -> String {
    let rows: Vec<_> = rows.collect();
    serde_json::to_string(&rows).expect("names and numbers can be written")
}
