//! Where batches become rows.
//!
//! A caller hands over [`Work`] and learns whether it is committed, refused for a value, or of
//! unknown outcome; which database it is, and how rows get there fast, is known here alone.

mod bulk;
mod sqlite;

use common::database::Database;
use common::ids::NodeName;

use crate::writer::{Work, WriteResult};
use sqlite::Sqlite;

/// The telemetry database of this node.
#[derive(Debug)]
pub struct Store {
    sqlite: Sqlite,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot end the sessions that the last run of this node left open")]
pub struct RepairError(#[source] sqlx::Error);

impl Store {
    pub fn new(database: &Database, node: &NodeName) -> Self {
        Self {
            sqlite: Sqlite::new(database.writer().clone(), node),
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
        match self.sqlite.write(work).await {
            Ok(()) => WriteResult::Committed,
            Err(error) => match sqlite::refusal(&error) {
                Some(why) => WriteResult::Refused { why },
                None => {
                    tracing::warn!(%error, "the database did not take a batch");
                    WriteResult::Failed
                }
            },
        }
    }
}

#[cfg(test)]
mod tests;
