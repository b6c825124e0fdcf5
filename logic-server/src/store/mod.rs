//! Where batches become rows.
//!
//! A caller hands over [`Work`] and learns whether it is committed, refused for a value, or of
//! unknown outcome; which database it is, and how rows get there fast, is known here alone.

mod bulk;
pub mod refusal;
mod sqlite;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::database::Database;
use common::ids::NodeName;
use tokio::time::timeout;

use crate::writer::{Work, WriteResult};
use sqlite::Sqlite;

/// The telemetry database of this node.
#[derive(Debug)]
pub struct Store {
    sqlite: Sqlite,
    write_deadline: Duration,
    /// Since the last write that was committed one failed: said once, then counted.
    failing: AtomicBool,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot end the sessions that the last run of this node left open")]
pub struct RepairError(#[source] sqlx::Error);

impl Store {
    /// An attempt to write takes at most `write_deadline`.
    pub fn new(database: &Database, node: &NodeName, write_deadline: Duration) -> Self {
        Self {
            sqlite: Sqlite::new(database.writer().clone(), node),
            write_deadline,
            failing: AtomicBool::new(false),
        }
    }

    /// Ends the sessions that this node's last run left open when it crashed; returns how many.
    /// To be called once, before the first session.
    pub async fn repair(&self, unix_ms: u64) -> Result<u64, RepairError> {
        self.sqlite.repair(unix_ms).await.map_err(RepairError)
    }

    /// Writes all of it in one transaction, or nothing. Of a record that is there already the
    /// first is kept. May be dropped at any time: then the outcome is unknown, as after
    /// [`WriteResult::Failed`].
    pub async fn write(&self, work: &Work) -> WriteResult {
        let error = match timeout(self.write_deadline, self.sqlite.write(work)).await {
            Ok(Ok(())) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the database takes batches again");
                }
                return WriteResult::Committed;
            }
            Ok(Err(error)) => match sqlite::refusal(&error) {
                Some(why) => return WriteResult::Refused { why },
                None => error.to_string(),
            },
            Err(_) => format!("no answer within {:?}", self.write_deadline),
        };
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                error,
                "the database does not take batches: they are kept and repeated"
            );
        }
        WriteResult::Failed
    }
}

#[cfg(test)]
mod tests;
