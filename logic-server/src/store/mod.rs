//! Where batches become rows.
//!
//! A caller hands over [`Work`] and learns whether it is committed, refused for a value, or of
//! unknown outcome; which database it is, and how rows get there fast, is known here alone.

mod bulk;
mod copy;
mod partitions;
mod postgres;
pub mod refusal;
mod sorted;
mod sqlite;

use std::io::{self, ErrorKind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::codes::Code;
use common::database::Database;
use common::ids::NodeName;
use common::logging::outage::Outage;
use common::millis::millis;
use tokio::time::timeout;

use crate::writer::{Work, WriteResult};
pub use partitions::Partitions;
use postgres::Postgres;
use sqlite::Sqlite;

/// Connections to PostgreSQL that a logic server needs: one for batches, one for whatever else, such
/// as partitions.
pub const CONNECTIONS_MAX: u32 = 2;

/// A start that takes longer is none: somebody has to look after the database.
const REPAIR_DEADLINE: Duration = Duration::from_secs(60);

/// The telemetry database of this node.
#[derive(Debug)]
pub struct Store {
    rows: Rows,
    write_deadline: Duration,
    began: Instant,
    /// Of the writes.
    outage: Mutex<Outage>,
}

/// Where they go.
#[derive(Debug)]
enum Rows {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

#[derive(Debug, thiserror::Error)]
#[error("cannot end the sessions that the last run of this node left open")]
pub struct RepairError(#[source] sqlx::Error);

impl Store {
    /// An attempt to write takes at most `write_deadline`.
    pub fn new(database: &Database, node: &NodeName, write_deadline: Duration) -> Self {
        let rows = match database {
            Database::Sqlite(sqlite) => Rows::Sqlite(Sqlite::new(sqlite.writer().clone(), node)),
            Database::Postgres(postgres) => Rows::Postgres(Postgres::new(postgres.clone(), node)),
        };
        Self {
            rows,
            write_deadline,
            began: Instant::now(),
            outage: Mutex::default(),
        }
    }

    /// Ends the sessions that this node's last run left open when it crashed; returns how many.
    /// To be called once, before the first session.
    pub async fn repair(&self, unix_ms: u64) -> Result<u64, RepairError> {
        let repaired = async {
            match &self.rows {
                Rows::Sqlite(sqlite) => sqlite.repair(unix_ms).await,
                Rows::Postgres(postgres) => postgres.repair(unix_ms).await,
            }
        };
        let repaired = timeout(REPAIR_DEADLINE, repaired).await;
        let in_time = repaired.unwrap_or_else(|_| Err(io::Error::from(ErrorKind::TimedOut).into()));
        in_time.map_err(RepairError)
    }

    /// Writes all of it in one transaction, or nothing; where it is careful, what is refused into
    /// dead_letter. Of a record that is there already the first is kept. May be dropped at any time: then
    /// the outcome is unknown, as after [`WriteResult::Failed`].
    pub async fn write(&self, work: &Work) -> WriteResult {
        let error = match timeout(self.write_deadline, self.rows.write(work)).await {
            Ok(Ok(refused)) => {
                let over = self.outage().worked(self.now_ms());
                if let Some(failures) = over {
                    tracing::info!(
                        code = Code::BatchesTaken.number(),
                        failures,
                        "the database takes batches again"
                    );
                }
                return WriteResult::Committed { refused };
            }
            Ok(Err(Failure::Refused(why))) => {
                // Each record's own stands in dead_letter; that of lines of `sessions` nowhere else.
                tracing::debug!(why, "the database refuses a value");
                return WriteResult::Refused { why };
            }
            Ok(Err(Failure::Database(error))) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.write_deadline),
        };
        let told = self.outage().failed(self.now_ms());
        if let Some(failures) = told {
            tracing::warn!(
                code = Code::BatchesNotTaken.number(),
                error,
                failures,
                "the database does not take batches: they are kept and repeated"
            );
        }
        WriteResult::Failed
    }

    fn now_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a work is not written.
#[derive(Debug)]
enum Failure {
    /// It has a value that the database will never take.
    Refused(String),
    Database(sqlx::Error),
}

impl Rows {
    /// Returns how many rows of a careful write were refused.
    async fn write(&self, work: &Work) -> Result<u64, Failure> {
        let (written, refusal) = match self {
            Self::Sqlite(sqlite) => {
                let written = sqlite.write(work).await;
                let refusal = written.as_ref().err().and_then(sqlite::refusal);
                (written, refusal)
            }
            Self::Postgres(postgres) => {
                let written = postgres.write(work).await;
                let refusal = written.as_ref().err().and_then(postgres::refusal);
                (written, refusal)
            }
        };
        match refusal {
            Some(why) => Err(Failure::Refused(why)),
            None => written.map_err(Failure::Database),
        }
    }
}

#[cfg(test)]
mod tests;
