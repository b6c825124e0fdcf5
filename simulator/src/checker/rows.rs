//! Reads the rows of one account after the other from the SQLite database and has them judged.
//! It reads the schema of config/schema/sqlite and nothing else of the servers.

use std::path::Path;

use common::ids::AccountName;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqliteRow};
use sqlx::{FromRow, SqliteConnection, query_as, query_scalar};
use thiserror::Error;

use super::rebuild::{
    DiagnosisColumns, FuelColumns, GpsColumns, GyroscopeColumns, Misfit, Rebuilt, custom,
    dead_letter,
};
use super::{Judge, Row, Verdict};
use crate::history::History;

#[derive(Debug, Error)]
pub enum CheckError {
    #[error("cannot open the database {path}")]
    Open { path: String, source: sqlx::Error },
    #[error("cannot read the rows of {account}")]
    Read {
        account: AccountName,
        source: sqlx::Error,
    },
}

/// Opens a database that others may be writing; it only reads.
///
/// # Errors
/// There is no such file, or it is no database.
pub async fn open(path: &Path) -> Result<SqlitePool, CheckError> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    SqlitePool::connect_with(options)
        .await
        .map_err(|source| CheckError::Open {
            path: path.display().to_string(),
            source,
        })
}

/// Judges a run: what the devices know against what `database` holds of this run. `kinds` are
/// the record kinds of which each must have a row.
///
/// # Errors
/// The database cannot be read. What is wrong with the rows is in the verdict.
pub async fn check(
    database: &SqlitePool,
    histories: &[History],
    kinds: &[u8],
) -> Result<Verdict, CheckError> {
    let mut judge = Judge::new(kinds);
    for history in histories {
        judge_one(database, history, &mut judge)
            .await
            .map_err(|source| CheckError::Read {
                account: history.account().clone(),
                source,
            })?;
    }
    Ok(judge.finish())
}

async fn judge_one(
    database: &SqlitePool,
    history: &History,
    judge: &mut Judge,
) -> Result<(), sqlx::Error> {
    let mut database = database.acquire().await?;
    let id: Option<i64> = query_scalar("SELECT id FROM accounts WHERE name = ?")
        .bind(history.account().as_str())
        .fetch_optional(&mut *database)
        .await?;
    match id {
        Some(id) => {
            let first_seq = history.first_seq().cast_signed();
            let rows = rows(&mut database, Range { id, first_seq }).await?;
            judge.judge(history, &rows);
        }
        None => judge.judge_unknown(history),
    }
    Ok(())
}

/// The rows of one account and one run.
#[derive(Clone, Copy)]
struct Range {
    id: i64,
    first_seq: i64,
}

async fn rows(database: &mut SqliteConnection, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    let mut rows = gps(database, range).await?;
    rows.extend(fuel(database, range).await?);
    rows.extend(gyroscope(database, range).await?);
    rows.extend(diagnosis(database, range).await?);
    rows.extend(customs(database, range).await?);
    rows.extend(dead_letters(database, range).await?);
    Ok(rows)
}

/// The columns of a statement, after `seq` and `recorded_at`.
async fn select<T>(
    database: &mut SqliteConnection,
    sql: &'static str,
    range: Range,
) -> Result<Vec<T>, sqlx::Error>
where
    T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
{
    query_as(sql)
        .bind(range.id)
        .bind(range.first_seq)
        .fetch_all(database)
        .await
}

fn telemetry(
    table: &'static str,
    (seq, recorded_at_ms): (i64, i64),
    record: Result<Rebuilt, Misfit>,
) -> Row {
    Row {
        table,
        seq,
        recorded_at_ms,
        record,
        dead_letter: false,
    }
}

type Real = Option<f64>;
type Integer = Option<i64>;

async fn gps(database: &mut SqliteConnection, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    type Columns = (i64, i64, Real, Real, Real, Real, Real, Integer, Real);
    let rows: Vec<Columns> = select(
        database,
        "SELECT seq, recorded_at, latitude, longitude, altitude_m, speed_m_s, heading_deg,
                satellites, hdop
         FROM telemetry_gps WHERE account_id = ? AND seq >= ?",
        range,
    )
    .await?;
    let row =
        |(seq, at, latitude, longitude, altitude_m, speed_m_s, heading_deg, satellites, hdop)| {
            let columns = GpsColumns {
                latitude,
                longitude,
                altitude_m,
                speed_m_s,
                heading_deg,
                satellites,
                hdop,
            };
            telemetry("telemetry_gps", (seq, at), columns.rebuild())
        };
    Ok(rows.into_iter().map(row).collect())
}

async fn fuel(database: &mut SqliteConnection, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    let rows: Vec<(i64, i64, Real, Integer, Integer)> = select(
        database,
        "SELECT seq, recorded_at, level_percent, rate_ml_h, used_ml
         FROM telemetry_fuel WHERE account_id = ? AND seq >= ?",
        range,
    )
    .await?;
    let row = |(seq, at, level_percent, rate_ml_h, used_ml)| {
        let columns = FuelColumns {
            level_percent,
            rate_ml_h,
            used_ml,
        };
        telemetry("telemetry_fuel", (seq, at), columns.rebuild())
    };
    Ok(rows.into_iter().map(row).collect())
}

async fn gyroscope(database: &mut SqliteConnection, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    type Columns = (i64, i64, Real, Real, Real, Real, Real, Real);
    let rows: Vec<Columns> = select(
        database,
        "SELECT seq, recorded_at, rate_x_deg_s, rate_y_deg_s, rate_z_deg_s,
                acceleration_x_g, acceleration_y_g, acceleration_z_g
         FROM telemetry_gyroscope WHERE account_id = ? AND seq >= ?",
        range,
    )
    .await?;
    let row = |(seq, at, rate_x, rate_y, rate_z, x, y, z)| {
        let columns = GyroscopeColumns {
            rate_deg_s: [rate_x, rate_y, rate_z],
            acceleration_g: [x, y, z],
        };
        telemetry("telemetry_gyroscope", (seq, at), columns.rebuild())
    };
    Ok(rows.into_iter().map(row).collect())
}

async fn diagnosis(database: &mut SqliteConnection, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    type Columns = (i64, i64, Integer, Real, Real, Integer, i64, i64, String);
    let rows: Vec<Columns> = select(
        database,
        "SELECT seq, recorded_at, rpm, coolant_c, battery_v, odometer_m, malfunction_lamp, flags,
                trouble_codes
         FROM telemetry_diagnosis WHERE account_id = ? AND seq >= ?",
        range,
    )
    .await?;
    let row =
        |(seq, at, rpm, coolant_c, battery_v, odometer_m, malfunction_lamp, flags, codes): Columns| {
            let columns = DiagnosisColumns {
                rpm,
                coolant_c,
                battery_v,
                odometer_m,
                malfunction_lamp,
                flags,
                trouble_codes: &codes,
            };
            telemetry("telemetry_diagnosis", (seq, at), columns.rebuild())
        };
    Ok(rows.into_iter().map(row).collect())
}

async fn customs(database: &mut SqliteConnection, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    let rows: Vec<(i64, i64, i64, Integer, Vec<u8>)> = select(
        database,
        "SELECT seq, recorded_at, kind, channel, payload
         FROM telemetry_custom WHERE account_id = ? AND seq >= ?",
        range,
    )
    .await?;
    let row = |(seq, at, kind, channel, payload): (_, _, _, _, Vec<u8>)| {
        telemetry(
            "telemetry_custom",
            (seq, at),
            custom(kind, channel, &payload),
        )
    };
    Ok(rows.into_iter().map(row).collect())
}

async fn dead_letters(
    database: &mut SqliteConnection,
    range: Range,
) -> Result<Vec<Row>, sqlx::Error> {
    let rows: Vec<(i64, i64, i64, Vec<u8>)> = select(
        database,
        "SELECT seq, recorded_at, kind, payload
         FROM dead_letter WHERE account_id = ? AND seq >= ?",
        range,
    )
    .await?;
    let row = |(seq, recorded_at_ms, kind, payload): (_, _, _, Vec<u8>)| Row {
        table: "dead_letter",
        seq,
        recorded_at_ms,
        record: dead_letter(kind, &payload),
        dead_letter: true,
    };
    Ok(rows.into_iter().map(row).collect())
}
