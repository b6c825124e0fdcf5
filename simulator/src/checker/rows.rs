//! Reads the rows of one account after the other from the database and has them judged. It reads the
//! schema of config/schema and nothing else of the servers.

use std::time::Duration;

use common::database::{Client, Database, DatabaseError, DatabaseUrl, Postgres, Sqlite};
use common::ids::AccountName;
use futures_core::future::BoxFuture;
use sqlx::postgres::PgRow;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqliteRow};
use sqlx::{FromRow, PgPool, query_as};
use thiserror::Error;

use super::rebuild::{
    DiagnosisColumns, FuelColumns, GpsColumns, GyroscopeColumns, Misfit, Rebuilt, custom,
    dead_letter,
};
use super::{Judge, Row, Verdict};
use crate::history::History;

/// Who waits for the verdict waits for the database, too.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum CheckError {
    #[error("cannot open the database {path}")]
    Open { path: String, source: sqlx::Error },
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("cannot read the rows of {account}")]
    Read {
        account: AccountName,
        source: sqlx::Error,
    },
}

/// Where the rows are.
#[derive(Clone, Debug)]
pub enum Source {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl From<&Database> for Source {
    fn from(database: &Database) -> Self {
        match database {
            Database::Sqlite(sqlite) => Self::from(sqlite),
            Database::Postgres(postgres) => Self::from(postgres),
        }
    }
}

impl From<&Sqlite> for Source {
    fn from(sqlite: &Sqlite) -> Self {
        Self::Sqlite(sqlite.reader().clone())
    }
}

impl From<&Postgres> for Source {
    fn from(postgres: &Postgres) -> Self {
        Self::Postgres(postgres.pool().clone())
    }
}

/// Opens a database that others may be writing; it only reads, and changes nothing in it.
///
/// # Errors
/// There is no such database, or its schema is of another version.
pub fn open(url: &DatabaseUrl) -> BoxFuture<'_, Result<Source, CheckError>> {
    Box::pin(open_source(url))
}

async fn open_source(url: &DatabaseUrl) -> Result<Source, CheckError> {
    if let Some(path) = url.sqlite_path() {
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let opened = SqlitePool::connect_with(options).await;
        return opened
            .map(Source::Sqlite)
            .map_err(|source| CheckError::Open {
                path: path.display().to_string(),
                source,
            });
    }
    let client = Client {
        name: "checker",
        connections_max: 1,
        connect_deadline: CONNECT_DEADLINE,
    };
    Ok(Source::from(&Database::connect(url, client).await?))
}

/// Judges a run: what the devices know against what `database` holds of this run. `kinds` are
/// the record kinds of which each must have a row.
///
/// # Errors
/// The database cannot be read. What is wrong with the rows is in the verdict.
pub fn check<'a>(
    database: &'a Source,
    histories: &'a [History],
    kinds: &[u8],
) -> BoxFuture<'a, Result<Verdict, CheckError>> {
    let mut judge = Judge::new(kinds);
    Box::pin(async move {
        for history in histories {
            judge_one(database, history, &mut judge)
                .await
                .map_err(|source| CheckError::Read {
                    account: history.account().clone(),
                    source,
                })?;
        }
        Ok(judge.finish())
    })
}

async fn judge_one(
    database: &Source,
    history: &History,
    judge: &mut Judge,
) -> Result<(), sqlx::Error> {
    match id_of(database, history.account()).await? {
        Some(id) => {
            let first_seq = history.first_seq().cast_signed();
            let rows = rows(database, Range { id, first_seq }).await?;
            judge.judge(history, &rows);
        }
        None => judge.judge_unknown(history),
    }
    Ok(())
}

async fn id_of(database: &Source, account: &AccountName) -> Result<Option<i64>, sqlx::Error> {
    let found: Option<(i64,)> = match database {
        Source::Sqlite(pool) => {
            let id = query_as("SELECT id FROM accounts WHERE name = ?");
            id.bind(account.as_str()).fetch_optional(pool).await?
        }
        Source::Postgres(pool) => {
            let id = query_as("SELECT id FROM accounts WHERE name = $1");
            id.bind(account.as_str()).fetch_optional(pool).await?
        }
    };
    Ok(found.map(|(id,)| id))
}

/// The rows of one account and one run.
#[derive(Clone, Copy)]
struct Range {
    id: i64,
    first_seq: i64,
}

async fn rows(database: &Source, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    let mut rows = gps(database, range).await?;
    rows.extend(fuel(database, range).await?);
    rows.extend(gyroscope(database, range).await?);
    rows.extend(diagnosis(database, range).await?);
    rows.extend(customs(database, range).await?);
    rows.extend(dead_letters(database, range).await?);
    Ok(rows)
}

/// A column as the statement gives it, whichever database it is.
#[derive(Clone, Copy)]
enum Column {
    /// As it stands: reals, text, bytes.
    Plain(&'static str),
    /// As 64 bits.
    Integer(&'static str),
    /// As 0 or 1.
    Flag(&'static str),
}
use Column::{Flag, Integer as Int, Plain};

/// `seq`, `recorded_at` in Unix milliseconds, and these columns.
async fn select<T>(
    database: &Source,
    table: &'static str,
    columns: &[Column],
    range: Range,
) -> Result<Vec<T>, sqlx::Error>
where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let columns = |text: fn(&Column) -> String| columns.iter().map(text).collect::<String>();
    match database {
        Source::Sqlite(pool) => {
            let columns = columns(|column| match column {
                Plain(name) | Int(name) | Flag(name) => format!(", {name}"),
            });
            let sql = format!(
                "SELECT seq, recorded_at{columns} FROM {table} WHERE account_id = ? AND seq >= ?"
            );
            let rows = query_as(&sql).bind(range.id).bind(range.first_seq);
            rows.fetch_all(pool).await
        }
        Source::Postgres(pool) => {
            let columns = columns(|column| match column {
                Plain(name) => format!(", {name}"),
                Int(name) => format!(", {name}::bigint"),
                Flag(name) => format!(", {name}::integer::bigint"),
            });
            let sql = format!(
                "SELECT seq, (extract(epoch FROM recorded_at) * 1000)::bigint{columns} \
                 FROM {table} WHERE account_id = $1 AND seq >= $2"
            );
            let rows = query_as(&sql).bind(range.id).bind(range.first_seq);
            rows.fetch_all(pool).await
        }
    }
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

async fn gps(database: &Source, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    type Columns = (i64, i64, Real, Real, Real, Real, Real, Integer, Real);
    let rows: Vec<Columns> = select(
        database,
        "telemetry_gps",
        &[
            Plain("latitude"),
            Plain("longitude"),
            Plain("altitude_m"),
            Plain("speed_m_s"),
            Plain("heading_deg"),
            Int("satellites"),
            Plain("hdop"),
        ],
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

async fn fuel(database: &Source, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    let rows: Vec<(i64, i64, Real, Integer, Integer)> = select(
        database,
        "telemetry_fuel",
        &[Plain("level_percent"), Int("rate_ml_h"), Int("used_ml")],
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

async fn gyroscope(database: &Source, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    type Columns = (i64, i64, Real, Real, Real, Real, Real, Real);
    let rows: Vec<Columns> = select(
        database,
        "telemetry_gyroscope",
        &[
            Plain("rate_x_deg_s"),
            Plain("rate_y_deg_s"),
            Plain("rate_z_deg_s"),
            Plain("acceleration_x_g"),
            Plain("acceleration_y_g"),
            Plain("acceleration_z_g"),
        ],
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

async fn diagnosis(database: &Source, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    type Columns = (i64, i64, Integer, Real, Real, Integer, i64, i64, String);
    let rows: Vec<Columns> = select(
        database,
        "telemetry_diagnosis",
        &[
            Int("rpm"),
            Plain("coolant_c"),
            Plain("battery_v"),
            Int("odometer_m"),
            Flag("malfunction_lamp"),
            Int("flags"),
            Plain("trouble_codes"),
        ],
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

async fn customs(database: &Source, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    let rows: Vec<(i64, i64, i64, Integer, Vec<u8>)> = select(
        database,
        "telemetry_custom",
        &[Int("kind"), Int("channel"), Plain("payload")],
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

async fn dead_letters(database: &Source, range: Range) -> Result<Vec<Row>, sqlx::Error> {
    let rows: Vec<(i64, i64, i64, Vec<u8>)> = select(
        database,
        "dead_letter",
        &[Int("kind"), Plain("payload")],
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
