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

use crate::writer::{Work, WriteResult, Written};
pub use partitions::Partitions;
use postgres::Postgres;
use refusal::Trouble;
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
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    outage: Outage,
    /// Of the last write.
    trouble: Option<Trouble>,
    /// Of comparing rows that were there already.
    blind: Outage,
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
            Database::Sqlite(sqlite) => Rows::Sqlite(Sqlite::new(sqlite.clone(), node)),
            Database::Postgres(postgres) => Rows::Postgres(Postgres::new(postgres.clone(), node)),
        };
        Self {
            rows,
            write_deadline,
            began: Instant::now(),
            health: Mutex::default(),
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
        let (trouble, error) = match timeout(self.write_deadline, self.rows.write(work)).await {
            Ok(Ok(written)) => {
                let over = self.worked();
                if let Some(failures) = over {
                    tracing::info!(
                        code = Code::BatchesTaken.number(),
                        failures,
                        "the database takes batches again"
                    );
                }
                if let Some(error) = &written.uncompared
                    && let Some(failures) = self.health().blind.failed(self.now_ms())
                {
                    tracing::warn!(
                        code = Code::RepetitionsNotCompared.number(),
                        error,
                        failures,
                        "records that come again cannot be compared with those that are kept"
                    );
                }
                return WriteResult::Committed(written);
            }
            Ok(Err(Failure::Refused(why))) => {
                // Each record's own stands in dead_letter; that of lines of `sessions` nowhere else.
                tracing::debug!(why, "the database refuses a value");
                self.health().trouble = None;
                return WriteResult::Refused { why };
            }
            Ok(Err(Failure::Database(trouble, error))) => (trouble, error.to_string()),
            Err(_) => {
                let error = format!("no answer within {:?}", self.write_deadline);
                (Trouble::Passing, error)
            }
        };
        if let Some(failures) = self.failed(trouble) {
            tell(trouble, &error, failures);
        }
        WriteResult::Failed
    }

    /// What is the matter with the database, as far as the last write knows.
    pub fn trouble(&self) -> Option<Trouble> {
        self.health().trouble
    }

    /// `Some`: that is to be told, with how often it failed.
    fn worked(&self) -> Option<u64> {
        let mut health = self.health();
        health.trouble = None;
        health.outage.worked(self.now_ms())
    }

    /// Likewise.
    fn failed(&self, trouble: Trouble) -> Option<u64> {
        let mut health = self.health();
        health.trouble = Some(trouble);
        health.outage.failed(self.now_ms())
    }

    fn now_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(trouble: Trouble, error: &str, failures: u64) {
    match trouble {
        Trouble::Passing => tracing::warn!(
            code = Code::BatchesNotTaken.number(),
            error,
            failures,
            "the database does not take batches: they are kept and repeated"
        ),
        Trouble::Rights => tracing::error!(
            code = Code::WriteForbidden.number(),
            error,
            failures,
            "the database does not let this server write: run roles.sql again; batches are kept and repeated"
        ),
        Trouble::Tables => tracing::error!(
            code = Code::TablesDiffer.number(),
            error,
            failures,
            "the database has not the tables that this server needs: run `rcu db migrate`; batches are kept and \
             repeated"
        ),
    }
}

/// Why a work is not written.
#[derive(Debug)]
enum Failure {
    /// It has a value that the database will never take.
    Refused(String),
    Database(Trouble, sqlx::Error),
}

impl Rows {
    async fn write(&self, work: &Work) -> Result<Written, Failure> {
        match self {
            Self::Sqlite(sqlite) => sqlite.write(work).await.map_err(|error| {
                let refused = sqlite::refusal(&error).map(Failure::Refused);
                // Its user may everything, and its tables are made when it is opened.
                refused.unwrap_or(Failure::Database(Trouble::Passing, error))
            }),
            Self::Postgres(postgres) => postgres.write(work).await.map_err(|error| {
                let refused = postgres::refusal(&error).map(Failure::Refused);
                refused.unwrap_or_else(|| Failure::Database(postgres::trouble(&error), error))
            }),
        }
    }
}

#[cfg(test)]
mod tests;
