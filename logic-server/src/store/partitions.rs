//! Keeps the partitions of PostgreSQL ahead of the records: a day gets its own before it comes.
//!
//! A record of a day that has none is stored all the same, in the default partition, and moved when its
//! day is made. So nothing here is urgent, and what fails is tried again. A table that somebody reads for long is
//! waited for briefly: batches stand behind whoever waits.

use std::io::{self, ErrorKind};
use std::time::Duration;

use common::codes::Code;
use common::database::{Database, Lease, Patience, Postgres, UnixMs};
use common::logging::outage::Outage;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;

/// Days before today: devices that were out of reach send what is older than midnight. And a new
/// cluster's devices come with some days of records.
const DAYS_BEHIND: i32 = 3;

/// A weekend, and one day.
const DAYS_AHEAD: i32 = 3;

/// How often is looked whether it is tomorrow.
const LOOKED_EVERY: Duration = Duration::from_secs(3_600);

/// Of a day whose tables are in use; more come after [`AGAIN_AFTER`].
const TRIES_MAX: u32 = 4;

/// Long enough to move what a day has in the default partition.
const DEADLINE: Duration = Duration::from_secs(120);

/// After a failure.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Partitions {
    database: Postgres,
}

impl Partitions {
    /// `None`: the database has none.
    pub fn of(database: &Database) -> Option<Self> {
        match database {
            Database::Sqlite(_) => None,
            Database::Postgres(postgres) => Some(Self {
                database: postgres.clone(),
            }),
        }
    }

    /// Makes those around this day that are missing; returns how many. One day a transaction, so that
    /// locks are short.
    pub async fn ensure(&self, unix_ms: u64) -> Result<u32, sqlx::Error> {
        let now = UnixMs(i64::try_from(unix_ms).unwrap_or(i64::MAX));
        let mut made = 0;
        let mut lease = self.database.lease().await?;
        for day in -DAYS_BEHIND..=DAYS_AHEAD {
            made += ensure_day(&mut lease, now, day).await?;
        }
        lease.give_back();
        Ok(made)
    }

    /// Does so until it is dropped.
    pub(crate) async fn keep(self, clock: Clock) {
        let mut outage = Outage::default();
        loop {
            let ensured = timeout(DEADLINE, self.ensure(clock.now().unix_ms)).await;
            let silent = |_| Err(io::Error::from(ErrorKind::TimedOut).into());
            let wait = match ensured.unwrap_or_else(silent) {
                Ok(made) => {
                    let over = outage.worked(clock.now().ms);
                    if made > 0 || over.is_some() {
                        tracing::info!(
                            code = Code::PartitionsMade.number(),
                            made,
                            failures = over.unwrap_or(0),
                            "every day to come has its partitions"
                        );
                    }
                    LOOKED_EVERY
                }
                Err(error) => {
                    if let Some(failures) = outage.failed(clock.now().ms) {
                        tracing::warn!(
                            code = Code::PartitionsNotMade.number(),
                            %error, failures,
                            "partitions cannot be made: days without one go to the default partition"
                        );
                    }
                    AGAIN_AFTER
                }
            };
            sleep(wait).await;
        }
    }
}

/// Makes those of the day that is so many after this one.
async fn ensure_day(lease: &mut Lease, now: UnixMs, day: i32) -> Result<u32, sqlx::Error> {
    let patience = Patience {
        tries_max: TRIES_MAX,
        ..Patience::default()
    };
    let mut tries = 1;
    loop {
        let statement = "SELECT rcu_ensure_partition(($1 AT TIME ZONE 'UTC')::date + $2)";
        let made = sqlx::query_scalar(statement)
            .bind(now)
            .bind(day)
            .fetch_one(&mut **lease)
            .await;
        match made {
            Err(error) if patience.allows(tries, &error) => patience.pause().await,
            made => return made.map(i32::unsigned_abs),
        }
        tries += 1;
    }
}
