//! The judge can fail: each class of finding is provoked, in rows of its own and in a database
//! that was tampered with.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use common::database::{Client, Database};
use common::secret::Secret;
use protocols::rcu::code::{AckStatus, AttachStatus};
use records::{Record, Row as Columns};
use servers::{Role, TestDatabase};

use super::rows::{Source, check, open};
use super::*;
use crate::device::{Device, Event, Identity, SentRecord, Settings};
use crate::drive::{Drive, KINDS, Report, Vehicle};

const FIRST_SEQ: u64 = 5 << 32;
const UNIX_MS: u64 = 1_767_225_600_000;

/// A device's history and the records in it.
struct Ride {
    history: History,
    records: Vec<(u64, u64, u8, Vec<u8>)>,
}

/// A ride of some reports, all of it acknowledged.
fn ride(account: &str, seed: u64) -> Ride {
    let identity = Identity {
        account: account.parse().unwrap(),
        key: Secret::new([1; 32]),
    };
    let vehicle = Vehicle::of(&identity.account, UNIX_MS);
    let device = Device::new(identity, Arc::new(Settings::default()), 5, seed);
    let mut history = History::new(&device);
    history.note(&Event::AttachAnswered {
        status: AttachStatus::Ok,
        resumed: false,
    });
    let mut drive = Drive::new(vehicle, seed);
    let mut report = Report::default();
    let mut records = vec![];
    for nth in 0..40 {
        drive.report(nth * 5_000, &mut report);
        let at_ms = UNIX_MS + nth * 5_000;
        let base_seq = FIRST_SEQ + records.len() as u64;
        let mut count = 0;
        for (measured, seq) in report.measurements().zip(base_seq..) {
            history.note(&Event::FirstSent(SentRecord {
                seq,
                recorded_at_ms: at_ms,
                kind: measured.kind,
                digest: digest(at_ms, measured.kind, measured.payload),
            }));
            records.push((seq, at_ms, measured.kind, measured.payload.to_vec()));
            count += 1;
        }
        history.note(&Event::FrameAnswered {
            base_seq,
            count,
            status: AckStatus::Stored,
            after_ms: 3,
        });
    }
    Ride { history, records }
}

/// The rows that a cluster without a fault makes of a ride.
fn rows(ride: &Ride) -> Vec<Row> {
    ride.records
        .iter()
        .map(|(seq, at_ms, kind, payload)| Row {
            table: "telemetry",
            seq: seq.cast_signed(),
            recorded_at_ms: at_ms.cast_signed(),
            record: Ok(Rebuilt {
                kind: *kind,
                payload: payload.clone(),
            }),
            dead_letter: false,
        })
        .collect()
}

fn verdict(ride: &Ride, rows: &[Row]) -> Verdict {
    let mut judge = Judge::new(&KINDS);
    judge.judge(&ride.history, rows);
    judge.finish()
}

/// The only class found, and how often.
fn only(verdict: &Verdict, class: Class) -> u64 {
    assert!(!verdict.holds());
    let all = [
        Class::Missing,
        Class::Duplicate,
        Class::NotSent,
        Class::Altered,
        Class::CalledMalformed,
        Class::NeverAttached,
        Class::UnknownAccount,
        Class::KindWithoutRow,
    ];
    for other in all.into_iter().filter(|other| *other != class) {
        assert_eq!(verdict.count(other), 0, "{verdict}");
    }
    verdict.count(class)
}

#[test]
fn a_run_without_a_fault_holds() {
    let ride = ride("a", 1);
    let verdict = verdict(&ride, &rows(&ride));
    assert!(verdict.holds(), "{verdict}");
    let sent = ride.records.len() as u64;
    assert_eq!(verdict.numbers.acknowledged, sent);
    assert_eq!(verdict.numbers.rows, sent);
    assert!(verdict.to_string().contains("holds"));
}

#[test]
fn a_missing_row_is_found() {
    let ride = ride("a", 1);
    let mut rows = rows(&ride);
    rows.remove(17);
    let verdict = verdict(&ride, &rows);
    assert_eq!(only(&verdict, Class::Missing), 1);
    let seq = FIRST_SEQ + 17;
    assert!(verdict.first(Class::Missing)[0].contains(&seq.to_string()));
    assert!(verdict.to_string().contains("FAILS"));
}

#[test]
fn a_record_in_two_rows_is_found() {
    let ride = ride("a", 1);
    let mut rows = rows(&ride);
    let mut again = rows[3].clone();
    again.dead_letter = true;
    rows.push(again);
    assert_eq!(only(&verdict(&ride, &rows), Class::Duplicate), 1);
}

#[test]
fn a_record_that_was_never_sent_is_found() {
    let ride = ride("a", 1);
    let mut rows = rows(&ride);
    let mut other = rows[3].clone();
    other.seq = (FIRST_SEQ + 1_000_000).cast_signed();
    rows.push(other.clone());
    other.seq = -1;
    rows.push(other);
    assert_eq!(only(&verdict(&ride, &rows), Class::NotSent), 2);
}

#[test]
fn another_time_kind_or_payload_is_found() {
    let ride = ride("a", 1);
    type Alteration = fn(&mut Row);
    let alterations: [Alteration; 5] = [
        |row| row.recorded_at_ms += 1,
        |row| row.recorded_at_ms = -1,
        |row| row.record.as_mut().unwrap().kind = 77,
        |row| row.record.as_mut().unwrap().payload[0] ^= 1,
        |row| row.record = Err(Misfit::Lamp),
    ];
    for alter in alterations {
        let mut rows = rows(&ride);
        alter(&mut rows[5]);
        assert_eq!(only(&verdict(&ride, &rows), Class::Altered), 1);
    }
}

#[test]
fn what_was_not_acknowledged_may_be_stored_or_not_but_not_called_malformed() {
    let mut ride = ride("a", 1);
    let mut rows = rows(&ride);
    let next = FIRST_SEQ + ride.records.len() as u64;
    for seq in [next, next + 1] {
        let payload = vec![9, 9];
        ride.history.note(&Event::FirstSent(SentRecord {
            seq,
            recorded_at_ms: UNIX_MS,
            kind: 200,
            digest: digest(UNIX_MS, 200, &payload),
        }));
        ride.records.push((seq, UNIX_MS, 200, payload));
    }
    let stored = self::rows(&ride).remove(ride.records.len() - 1);
    rows.push(stored);
    let judged = verdict(&ride, &rows);
    assert!(judged.holds(), "{judged}");
    assert_eq!(judged.numbers.unanswered, 1);
    assert_eq!(judged.numbers.stored_unanswered, 1);

    ride.history.note(&Event::FrameAnswered {
        base_seq: next,
        count: 1,
        status: AckStatus::Malformed,
        after_ms: 0,
    });
    assert_eq!(only(&verdict(&ride, &rows), Class::CalledMalformed), 1);
}

#[test]
fn a_device_that_was_never_attached_and_a_kind_without_a_row_are_found() {
    let ride = ride("a", 1);
    let rows = rows(&ride);
    let identity = Identity {
        account: "idle".parse().unwrap(),
        key: Secret::new([1; 32]),
    };
    let device = Device::new(identity, Arc::new(Settings::default()), 5, 1);
    let mut judge = Judge::new(&KINDS);
    judge.judge(&ride.history, &rows);
    judge.judge(&History::new(&device), &[]);
    assert_eq!(only(&judge.finish(), Class::NeverAttached), 1);

    let mut judge = Judge::new(&[1, 200]);
    judge.judge(&ride.history, &rows);
    assert_eq!(only(&judge.finish(), Class::KindWithoutRow), 1);
}

#[test]
fn only_the_first_findings_are_shown() {
    let ride = ride("a", 1);
    let verdict = verdict(&ride, &rows(&ride)[20..]);
    assert_eq!(verdict.count(Class::Missing), 20);
    assert_eq!(verdict.first(Class::Missing).len(), 5);
    assert!(verdict.to_string().ends_with('…'));
}

// ---- a real database ----------------------------------------------------------------------------

/// What both databases spell differently.
#[derive(Clone, Copy, Debug)]
enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    fn bytes(self, hex: &str) -> String {
        match self {
            Self::Sqlite => format!("x'{hex}'"),
            Self::Postgres => format!("'\\x{hex}'::bytea"),
        }
    }

    fn time(self, unix_ms: u64) -> String {
        match self {
            Self::Sqlite => unix_ms.to_string(),
            Self::Postgres => format!("to_timestamp({unix_ms} / 1000.0)"),
        }
    }

    /// A time, one millisecond later.
    fn later(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("{column} + 1"),
            Self::Postgres => format!("{column} + interval '1 ms'"),
        }
    }

    fn joined(self, one: &str, other: &str) -> String {
        match self {
            Self::Sqlite => format!("CAST({one} || {other} AS BLOB)"),
            Self::Postgres => format!("{one} || {other}"),
        }
    }
}

/// Builds an INSERT as a server's store does: from the columns of `records`.
struct Values(Dialect, Vec<String>);

impl Columns for Values {
    fn null(&mut self) {
        self.1.push("NULL".into());
    }
    fn integer(&mut self, value: i64) {
        self.1.push(value.to_string());
    }
    fn real(&mut self, value: f64) {
        self.1.push(format!("{value:?}"));
    }
    fn boolean(&mut self, value: bool) {
        self.1.push(value.to_string());
    }
    fn text(&mut self, value: &str) {
        self.1.push(format!("'{value}'"));
    }
    fn bytes(&mut self, value: &[u8]) {
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        self.1.push(self.0.bytes(&hex));
    }
}

const TABLES: [&str; 5] = [
    "telemetry_gps",
    "telemetry_fuel",
    "telemetry_gyroscope",
    "telemetry_diagnosis",
    "telemetry_custom",
];

struct Store {
    _held: Held,
    dialect: Dialect,
    owner: Database,
    /// The same, as the checker has it.
    database: Database,
    rides: Vec<Ride>,
}

#[allow(dead_code, reason = "held for its Drop")]
enum Held {
    Directory(tempfile::TempDir),
    Database(TestDatabase),
}

async fn connect(url: &str) -> Database {
    let client = Client {
        name: "test",
        connections_max: 2,
        connect_deadline: std::time::Duration::from_secs(5),
    };
    let url = url.parse().unwrap();
    Database::connect(&url, client).await.unwrap()
}

impl Store {
    async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu.db");
        let database = Database::open(&path).await.unwrap();
        let both = [database.clone(), database];
        Self::on(both, Dialect::Sqlite, Held::Directory(directory)).await
    }

    async fn postgres() -> Self {
        let test = TestDatabase::new();
        let both = [
            connect(&test.url(Role::Owner)).await,
            connect(&test.url(Role::Read)).await,
        ];
        Self::on(both, Dialect::Postgres, Held::Database(test)).await
    }

    async fn on([owner, database]: [Database; 2], dialect: Dialect, held: Held) -> Self {
        let store = Self {
            _held: held,
            dialect,
            owner,
            database,
            rides: vec![ride("demo-000001", 1), ride("demo-000002", 2)],
        };
        store.fill().await;
        store
    }

    /// Two devices, everything stored as it was sent, and rows of an earlier run.
    async fn fill(&self) {
        let dialect = self.dialect;
        let mut statements = String::from("BEGIN;");
        for table in TABLES.iter().chain(&["dead_letter", "accounts"]) {
            statements += &format!("DELETE FROM {table};");
        }
        let received = dialect.time(0);
        for (id, ride) in (1..).zip(&self.rides) {
            let account = ride.history.account();
            let key = dialect.bytes("00");
            statements += &format!(
                "INSERT INTO accounts (id, name, sealed_key, created_at) \
                 VALUES ({id}, '{account}', {key}, {received});"
            );
            let earlier = (4 << 32, UNIX_MS - 9, 2, vec![0; 14]);
            for (seq, at_ms, kind, payload) in ride.records.iter().chain([&earlier]) {
                let record = Record::decode(*kind, payload).unwrap();
                let mut values = Values(dialect, vec![]);
                record.columns(&mut values);
                let table = record.table();
                let columns: Vec<_> = table.columns().iter().map(|column| column.name).collect();
                statements += &format!(
                    "INSERT INTO {} (account_id, seq, recorded_at, received_at, {}) \
                     VALUES ({id}, {seq}, {}, {received}, {});",
                    table.name(),
                    columns.join(", "),
                    dialect.time(*at_ms),
                    values.1.join(", ")
                );
            }
        }
        self.run(&(statements + "COMMIT")).await;
    }

    /// How many rows changed.
    async fn run(&self, sql: &str) -> u64 {
        match &self.owner {
            Database::Sqlite(sqlite) => {
                let done = sqlx::raw_sql(sql).execute(sqlite.writer()).await;
                done.unwrap().rows_affected()
            }
            Database::Postgres(postgres) => {
                let done = sqlx::raw_sql(sql).execute(postgres.pool()).await;
                done.unwrap().rows_affected()
            }
        }
    }

    async fn verdict(&self) -> Verdict {
        let histories: Vec<_> = self.rides.iter().map(|ride| ride.history.clone()).collect();
        check(&Source::from(&self.database), &histories, &KINDS)
            .await
            .unwrap()
    }

    /// Tampers with some rows of what was sent, of which there must be `rows`; what is found then.
    async fn tampered(&self, sql: &str, rows: u64) -> Verdict {
        self.fill().await;
        assert_eq!(self.run(sql).await, rows, "{sql}");
        self.verdict().await
    }
}

macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Store::sqlite().await).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Store::postgres().await).await;
            })*
        }
    };
}

on_both!(
    a_database_without_a_fault_holds_and_earlier_runs_are_not_judged,
    every_altered_column_is_found,
    missing_rows_are_found_in_every_table,
    a_row_of_the_wrong_account_is_found_on_both_sides,
    a_record_in_two_tables_is_found_and_one_in_dead_letter_is_not_missing,
    an_account_that_is_not_there_and_a_file_that_is_not_there_are_told,
);

async fn a_database_without_a_fault_holds_and_earlier_runs_are_not_judged(store: Store) {
    let verdict = store.verdict().await;
    assert!(verdict.holds(), "{verdict}");
    let records: usize = store.rides.iter().map(|ride| ride.records.len()).sum();
    assert_eq!(verdict.numbers.rows, records as u64);
}

/// Every column of every table, changed by the least that its type can say.
async fn every_altered_column_is_found(store: Store) {
    let later = store.dialect.later("recorded_at");
    let zeros = store.dialect.bytes("0000");
    for (table, columns) in [
        (
            "telemetry_gps",
            &[
                ("latitude", "latitude + 1e-7"),
                ("longitude", "longitude + 1e-7"),
                ("altitude_m", "altitude_m + 0.01"),
                ("speed_m_s", "speed_m_s + 0.01"),
                (
                    "heading_deg",
                    "heading_deg + CASE WHEN heading_deg < 1 THEN 0.01 ELSE -0.01 END",
                ),
                ("satellites", "satellites + 1"),
                ("hdop", "NULL"),
                ("recorded_at", &later),
            ][..],
        ),
        (
            "telemetry_fuel",
            &[
                ("level_percent", "level_percent - 0.01"),
                ("rate_ml_h", "rate_ml_h + 1"),
                ("used_ml", "used_ml + 1"),
            ],
        ),
        (
            "telemetry_gyroscope",
            &[
                ("rate_x_deg_s", "rate_x_deg_s + 0.1"),
                ("rate_y_deg_s", "rate_y_deg_s + 0.1"),
                ("rate_z_deg_s", "rate_z_deg_s + 0.05"),
                ("acceleration_x_g", "NULL"),
                ("acceleration_y_g", "acceleration_y_g - 0.001"),
                ("acceleration_z_g", "-acceleration_z_g"),
            ],
        ),
        (
            "telemetry_diagnosis",
            &[
                ("rpm", "rpm + 1"),
                ("coolant_c", "coolant_c + 0.1"),
                ("battery_v", "battery_v + 0.001"),
                ("odometer_m", "odometer_m - 1"),
                ("malfunction_lamp", "NOT malfunction_lamp"),
                ("flags", "flags + 2"),
                ("trouble_codes", "trouble_codes || ' P0001'"),
            ],
        ),
        (
            "telemetry_custom",
            &[
                ("kind", "6"),
                ("channel", "channel + 1"),
                ("payload", &zeros),
            ],
        ),
    ] {
        for (column, value) in columns {
            let sql = format!(
                "UPDATE {table} SET {column} = {value} WHERE (account_id, seq) =
                 (SELECT account_id, seq FROM {table} WHERE seq >= {FIRST_SEQ} AND {column} IS NOT NULL LIMIT 1)"
            );
            let verdict = store.tampered(&sql, 1).await;
            assert_eq!(only(&verdict, Class::Altered), 1, "{table}.{column}");
        }
    }
}

async fn missing_rows_are_found_in_every_table(store: Store) {
    for table in [
        "telemetry_gps",
        "telemetry_fuel",
        "telemetry_gyroscope",
        "telemetry_diagnosis",
        "telemetry_custom",
    ] {
        let sql = format!(
            "DELETE FROM {table} WHERE (account_id, seq) =
             (SELECT account_id, max(seq) FROM {table} WHERE account_id = 2 GROUP BY account_id)"
        );
        let verdict = store.tampered(&sql, 1).await;
        assert_eq!(only(&verdict, Class::Missing), 1, "{table}");
    }
}

async fn a_row_of_the_wrong_account_is_found_on_both_sides(store: Store) {
    let sql = format!(
        "UPDATE telemetry_custom SET account_id = 2, seq = seq + 1000
         WHERE account_id = 1 AND seq = {FIRST_SEQ} + 4"
    );
    let verdict = store.tampered(&sql, 1).await;
    assert_eq!(verdict.count(Class::Missing), 1);
    assert_eq!(verdict.count(Class::NotSent), 1);

    // Where the number exists there, the row is that device's record twice, or another content.
    store.fill().await;
    let gone = format!("DELETE FROM telemetry_gps WHERE account_id = 2 AND seq = {FIRST_SEQ}");
    assert_eq!(store.run(&gone).await, 1);
    let moved = format!(
        "UPDATE telemetry_gps SET account_id = 2 WHERE account_id = 1 AND seq = {FIRST_SEQ}"
    );
    assert_eq!(store.run(&moved).await, 1);
    let verdict = store.verdict().await;
    assert_eq!(verdict.count(Class::Missing), 1);
    assert_eq!(verdict.count(Class::Altered), 1);
}

async fn a_record_in_two_tables_is_found_and_one_in_dead_letter_is_not_missing(store: Store) {
    let payload = store
        .dialect
        .joined(&store.dialect.bytes("0100"), "payload");
    let copy = format!(
        "INSERT INTO dead_letter (account_id, recorded_at, seq, received_at, kind, payload, reason)
         SELECT account_id, recorded_at, seq, recorded_at, kind, {payload}, 'x'
         FROM telemetry_custom WHERE account_id = 1 AND seq = {FIRST_SEQ} + 4"
    );
    // The first report's cargo record is number 4.
    assert_eq!(store.run(&copy).await, 1);
    assert_eq!(only(&store.verdict().await, Class::Duplicate), 1);
    let gone =
        format!("DELETE FROM telemetry_custom WHERE account_id = 1 AND seq = {FIRST_SEQ} + 4");
    assert_eq!(store.run(&gone).await, 1);
    let verdict = store.verdict().await;
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.numbers.dead_letter, 1);
}

async fn an_account_that_is_not_there_and_a_file_that_is_not_there_are_told(store: Store) {
    let verdict = store.tampered("DELETE FROM accounts WHERE id = 1", 1).await;
    assert_eq!(verdict.count(Class::UnknownAccount), 1);
    assert!(verdict.count(Class::Missing) > 0);
    assert!(
        open(&"sqlite:/nowhere/rcu.db".parse().unwrap())
            .await
            .is_err()
    );
    assert!(!std::path::Path::new("/nowhere").exists());
}
