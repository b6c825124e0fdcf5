//! `rcu db drop`: the end of old days, while a cluster writes.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use common::database::{
    Database, DatabaseUrl, Lease, Patience, Postgres, Waiting, is_lock_timeout,
};
use common::process::EXIT_FAILED;
use common::process::output::{self, OutputError};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{Failure, connect, waits};

/// Rows that are removed in one transaction, where they have no partition to go with.
const ROWS_AT_A_TIME: i64 = 10_000;

/// Removes the days before a date from all five tables, without stopping a cluster that runs.
///
/// Every partition of an earlier day goes, and what is of earlier days without a partition. For a table that is in
/// use it waits half a second at most, lets the others pass, and tries again: for two and a half minutes, then it
/// says who uses it and ends; run it again. Undated records, dead letters and sessions stay.
#[derive(Args)]
pub(super) struct Days {
    /// The first day that stays (UTC), today at the latest.
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = date)]
    before: String,
    /// Only shows what would go.
    #[arg(long)]
    dry_run: bool,
}

/// Of one table and one day.
#[derive(Debug, sqlx::FromRow)]
struct Part {
    /// As SQL names it.
    part: String,
    size: String,
}

/// A default partition, and what it holds of the days that go.
#[derive(Debug, sqlx::FromRow)]
struct Rest {
    part: String,
    rows: i64,
}

/// A date that there is, as it was written.
fn date(text: &str) -> Result<String, &'static str> {
    let midnight = format!("{text}T00:00:00Z");
    match text.len() == 10 && humantime::parse_rfc3339(&midnight).is_ok() {
        true => Ok(text.to_owned()),
        false => Err("a date is YYYY-MM-DD"),
    }
}

impl Days {
    pub(super) async fn drop(&self, url: &DatabaseUrl) -> Result<ExitCode, Failure> {
        let database = connect(url).await?;
        let Database::Postgres(postgres) = &database else {
            return Err("it is PostgreSQL".into());
        };
        let told = |line: String| output::print(&(line + "\n"));
        let all = self.drop_with(postgres, &Patience::default(), told).await;
        database.close().await;
        Ok(match all? {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(EXIT_FAILED),
        })
    }

    /// Whether all of it went.
    async fn drop_with(
        &self,
        postgres: &Postgres,
        patience: &Patience,
        mut told: impl FnMut(String) -> Result<(), OutputError>,
    ) -> Result<bool, Failure> {
        let mut lease = postgres.lease().await?;
        if !is_past(&mut lease, &self.before).await? {
            return Err("days to come are not removed: --before is today at the latest".into());
        }
        let parts = parts(&mut lease, &self.before).await?;
        for Part { part, size } in &parts {
            if self.dry_run {
                told(format!("{part}  {size}"))?;
                continue;
            }
            if let Some(waiting) = remove(&mut lease, part, patience, &mut told).await? {
                told(format!("{part} stays: {}", stays(&waiting)))?;
                return Ok(false);
            }
            told(format!("{part}  {size}  removed"))?;
        }
        let rests = rests(&mut lease, &self.before).await?;
        for Rest { part, rows } in &rests {
            if !self.dry_run {
                empty(&mut lease, part, &self.before).await?;
            }
            let removed = if self.dry_run { "" } else { "  removed" };
            told(format!(
                "{part}  {rows} records of days without a partition{removed}"
            ))?;
        }
        if parts.is_empty() && rests.is_empty() {
            told(format!("there is nothing of a day before {}", self.before))?;
        }
        Lease::give_back(lease);
        Ok(true)
    }
}

fn stays(waiting: &Waiting) -> String {
    let mut text = format!("it was in use at each of {} tries", waiting.tries);
    if !waiting.who.is_empty() {
        let _ = write!(text, ", by {}", waiting.who.join(", "));
    }
    text + "; what stands above is gone, run it again for the rest"
}

async fn is_past(connection: &mut PgConnection, before: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT $1::date <= (now() AT TIME ZONE 'UTC')::date")
        .bind(before)
        .fetch_one(connection)
        .await
}

/// Day by day, so that what is left after an interruption is whole days.
async fn parts(connection: &mut PgConnection, before: &str) -> Result<Vec<Part>, sqlx::Error> {
    sqlx::query_as(
        "SELECT part.oid::regclass::text AS part, pg_size_pretty(pg_total_relation_size(part.oid)) AS size \
         FROM pg_inherits JOIN pg_class AS parent ON parent.oid = inhparent \
            JOIN pg_class AS part ON part.oid = inhrelid \
         WHERE parent.relname LIKE 'telemetry\\_%' AND parent.relkind = 'p' AND part.relkind = 'r' \
            AND pg_table_is_visible(parent.oid) AND part.relname ~ '_[0-9]{8}$' \
            AND to_date(right(part.relname, 8), 'YYYYMMDD') < $1::date \
         ORDER BY right(part.relname, 8), part.relname",
    )
    .bind(before)
    .fetch_all(connection)
    .await
}

/// Removes a partition, as soon as nobody uses its table; `Some`: somebody did at every try.
async fn remove(
    connection: &mut PgConnection,
    part: &str,
    patience: &Patience,
    told: &mut impl FnMut(String) -> Result<(), OutputError>,
) -> Result<Option<Waiting>, Failure> {
    for tries in 1.. {
        let Err(error) = try_to_remove(connection, part, patience).await else {
            break;
        };
        if !is_lock_timeout(&error) {
            return Err(error.into());
        }
        let waiting = Waiting::of(patience, tries, connection).await;
        if !patience.allows(tries, &error) {
            return Ok(Some(waiting));
        }
        told(waits(&waiting))?;
        patience.pause().await;
    }
    Ok(None)
}

async fn try_to_remove(
    connection: &mut PgConnection,
    part: &str,
    patience: &Patience,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    transaction.execute(&*patience.statement("LOCAL")).await?;
    transaction.execute(&*format!("DROP TABLE {part}")).await?;
    transaction.commit().await
}

async fn rests(connection: &mut PgConnection, before: &str) -> Result<Vec<Rest>, sqlx::Error> {
    let defaults: Vec<String> = sqlx::query_scalar(
        "SELECT part.oid::regclass::text FROM pg_inherits JOIN pg_class AS parent ON parent.oid = inhparent \
            JOIN pg_class AS part ON part.oid = inhrelid \
         WHERE parent.relname LIKE 'telemetry\\_%' AND parent.relkind = 'p' \
            AND pg_table_is_visible(parent.oid) AND part.relname LIKE '%\\_default' \
         ORDER BY part.relname",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut rests = vec![];
    for part in defaults {
        let count = format!("SELECT count(*) FROM {part} WHERE recorded_at < $1::timestamptz");
        let count = sqlx::query_scalar(&count).bind(midnight(before));
        let rows = count.fetch_one(&mut *connection).await?;
        if rows > 0 {
            rests.push(Rest { part, rows });
        }
    }
    Ok(rests)
}

/// Some rows at a time: batches are written in between.
async fn empty(connection: &mut PgConnection, part: &str, before: &str) -> Result<(), sqlx::Error> {
    let delete = format!(
        "DELETE FROM {part} WHERE ctid = ANY(ARRAY( \
            SELECT ctid FROM {part} WHERE recorded_at < $1::timestamptz LIMIT {ROWS_AT_A_TIME}))"
    );
    loop {
        let deleted = sqlx::query(&delete).bind(midnight(before));
        if deleted.execute(&mut *connection).await?.rows_affected() == 0 {
            return Ok(());
        }
    }
}

/// Of UTC, as the days are.
fn midnight(day: &str) -> String {
    format!("{day} 00:00:00+00")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, Instant};

    use servers::{Role, TestDatabase};

    use super::*;

    const HASTY: Patience = Patience {
        lock_timeout: Duration::from_millis(100),
        pause: Duration::from_millis(1_200),
        tries_max: 3,
    };

    fn before(before: &str, dry_run: bool) -> Days {
        let before = before.to_owned();
        Days { before, dry_run }
    }

    async fn sql(database: &Database, statements: &str) {
        let Database::Postgres(postgres) = database else {
            panic!("it is PostgreSQL");
        };
        sqlx::raw_sql(statements)
            .execute(postgres.pool())
            .await
            .unwrap();
    }

    /// A record of each of the four last days, one of a day without a partition, one without a date.
    async fn site() -> (TestDatabase, Database, [String; 4]) {
        let test = TestDatabase::new();
        let url: DatabaseUrl = test.url(Role::Owner).parse().unwrap();
        let database = connect(&url).await.unwrap();
        sql(
            &database,
            "SELECT rcu_ensure_partition(current_date - n) FROM generate_series(0, 3) AS n; \
             INSERT INTO telemetry_fuel (account_id, recorded_at, seq, received_at) \
             SELECT 1, current_date - n, n, now() FROM unnest(ARRAY[0, 1, 2, 3, 300]) AS n; \
             INSERT INTO telemetry_fuel (account_id, recorded_at, seq, received_at) VALUES (1, 'epoch', 9, now())",
        )
        .await;
        let Database::Postgres(postgres) = &database else {
            panic!("it is PostgreSQL");
        };
        let days: Vec<String> =
            sqlx::query_scalar("SELECT (current_date - n)::text FROM generate_series(0, 3) AS n")
                .fetch_all(postgres.pool())
                .await
                .unwrap();
        (test, database, days.try_into().unwrap())
    }

    async fn drop_with(database: &Database, days: &Days) -> Result<(bool, Vec<String>), Failure> {
        let Database::Postgres(postgres) = database else {
            panic!("it is PostgreSQL");
        };
        let mut lines = vec![];
        let told = |line| {
            lines.push(line);
            Ok(())
        };
        let all = days.drop_with(postgres, &HASTY, told).await?;
        Ok((all, lines))
    }

    async fn numbers(database: &Database) -> Vec<i64> {
        let Database::Postgres(postgres) = database else {
            panic!("it is PostgreSQL");
        };
        let numbers = sqlx::query_scalar("SELECT seq FROM telemetry_fuel ORDER BY seq");
        numbers.fetch_all(postgres.pool()).await.unwrap()
    }

    #[tokio::test]
    async fn all_of_the_days_before_goes_and_nothing_else() {
        let (_test, database, [today, yesterday, ..]) = site().await;
        let (all, shown) = drop_with(&database, &before(&yesterday, true))
            .await
            .unwrap();
        assert!(all && shown.len() == 11, "{shown:#?}");
        assert_eq!(numbers(&database).await, [0, 1, 2, 3, 9, 300]);
        let (all, lines) = drop_with(&database, &before(&yesterday, false))
            .await
            .unwrap();
        assert!(all && lines.len() == 11, "{lines:#?}");
        assert!(
            lines[10].contains("telemetry_fuel_default  1 records"),
            "{lines:#?}"
        );
        assert_eq!(numbers(&database).await, [0, 1, 9]);
        let (all, lines) = drop_with(&database, &before(&yesterday, false))
            .await
            .unwrap();
        assert!(all && lines[0].contains("there is nothing"), "{lines:#?}");
        // What comes late is taken.
        sql(
            &database,
            "INSERT INTO telemetry_fuel (account_id, recorded_at, seq, received_at) \
             VALUES (1, current_date - 2, 2, now())",
        )
        .await;
        let future = before("9999-01-01", false);
        assert!(drop_with(&database, &future).await.is_err());
        drop_with(&database, &before(&today, false)).await.unwrap();
        assert_eq!(numbers(&database).await, [0, 9]);
    }

    /// An analyst's long SELECT has the table: batches go on all the while, with a short wait at each try; the
    /// analyst is named; and when he is gone it is done.
    #[tokio::test]
    async fn behind_a_long_select_writes_go_on_and_days_go_later() {
        let (test, database, [today, ..]) = site().await;
        let url: DatabaseUrl = test.url(Role::Owner).parse().unwrap();
        let reading = connect(&url).await.unwrap();
        sql(&reading, "BEGIN; SELECT count(*) FROM telemetry_fuel").await;
        let writing = connect(&url).await.unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let writes = async {
            let (mut longest, mut writes) = (Duration::ZERO, 0_u32);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let begun = Instant::now();
                writes += 1;
                let insert = format!(
                    "INSERT INTO telemetry_fuel (account_id, recorded_at, seq, received_at) \
                     VALUES (2, now(), {writes}, now())"
                );
                sql(&writing, &insert).await;
                longest = longest.max(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (longest, writes)
        };
        let days = before(&today, false);
        let dropping = async {
            let done = drop_with(&database, &days).await.unwrap();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            done
        };
        let ((all, lines), (longest, writes)) = tokio::join!(dropping, writes);
        assert!(!all, "{lines:#?}");
        let last = lines.last().unwrap();
        assert!(
            last.contains("at each of 3 tries, by rcu_owner (rcu db"),
            "{lines:#?}"
        );
        assert!(longest < HASTY.pause && writes > 50, "{longest:?} {writes}");
        sql(&reading, "COMMIT").await;
        let (all, lines) = drop_with(&database, &days).await.unwrap();
        assert!(all, "{lines:#?}");
    }

    #[test]
    fn a_date_is_one_that_there_is() {
        assert_eq!(date("2026-02-28"), Ok("2026-02-28".into()));
        for wrong in [
            "2026-02-30",
            "20260228",
            "2026-2-28",
            "yesterday",
            "2026-02-28T",
            "",
        ] {
            assert!(date(wrong).is_err(), "{wrong}");
        }
    }
}
