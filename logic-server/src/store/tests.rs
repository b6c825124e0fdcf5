//! The store against a real SQLite file and a real PostgreSQL: the same tests on both, and what only
//! one of them can do in a file of its own.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use common::database::{Client, Database};
use common::epoch::Epoch;
use common::ids::AccountId;
use protocols::rcu::code::CloseReason;
use records::{Custom, Diagnosis, Fuel, Gps, Gyroscope, Record, Unknown};
use servers::{PostgresServer, Role, TestDatabase};
use tempfile::TempDir;

use super::*;
use crate::batch::{Batch, Row};
use crate::ids::ShardIndex;
use crate::presence::{EndReason, Lines, Presence};
use crate::writer::{Effect, Input, Settings, Writer};

mod on_postgres_alone;
mod on_sqlite_alone;

macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Bench::sqlite().await).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Bench::postgres().await).await;
            })*
        }
    };
}

on_both!(
    each_kind_goes_to_its_table_and_flawed_records_are_set_aside,
    every_field_fits_its_column_at_its_limits,
    batches_of_every_size_arrive_whole,
    sessions_of_every_number_begin_and_end,
    a_record_that_comes_again_is_stored_once_and_the_first_is_kept,
    what_comes_again_is_told_apart_by_what_it_says,
    what_comes_again_carefully_is_told_apart_too,
    a_value_that_the_database_never_takes_is_refused_and_nothing_is_stored,
    of_a_careful_work_what_is_refused_is_set_aside_and_the_rest_is_stored,
    of_a_careful_work_the_first_of_a_key_is_kept,
    a_careful_work_may_be_refused_whole_and_come_again,
    a_careful_work_with_nothing_to_refuse_is_stored,
    what_dead_letter_refuses_too_is_refused_and_nothing_is_stored,
    sessions_begin_end_and_are_repaired_after_a_crash,
);

const PATIENCE: Duration = Duration::from_secs(10);

const COMMITTED: WriteResult = WriteResult::Committed(Written::refusing(0));

/// Of rows that were there already, so many say the same, and so many of account 1 something else.
fn repeated(refused: u64, alike: u64, contradicting: u64) -> WriteResult {
    let contradicting = (contradicting > 0).then_some((AccountId(1), contradicting));
    WriteResult::Committed(Written {
        refused,
        alike,
        contradicting: contradicting.into_iter().collect(),
        uncompared: None,
    })
}

/// Whatever was there already.
fn is_committed(result: &WriteResult) -> bool {
    matches!(result, WriteResult::Committed(_))
}

/// Of a database on a server of a test's own.
const NAME: &str = "rcu";

/// Tables that take no 13, and a dead_letter that takes no payload of one byte, as SQLite has them.
const REFUSES_13: &str = "
    DROP TABLE telemetry_custom;
    CREATE TABLE telemetry_custom (
        account_id INTEGER NOT NULL, recorded_at INTEGER NOT NULL,
        seq INTEGER NOT NULL, received_at INTEGER NOT NULL, kind INTEGER NOT NULL,
        channel INTEGER CONSTRAINT unlucky CHECK (channel <> 13),
        payload BLOB NOT NULL, PRIMARY KEY (account_id, recorded_at, seq)
    ) STRICT, WITHOUT ROWID;
    DROP TABLE telemetry_fuel;
    CREATE TABLE telemetry_fuel (
        account_id INTEGER NOT NULL, recorded_at INTEGER NOT NULL,
        seq INTEGER NOT NULL, received_at INTEGER NOT NULL, level_percent REAL,
        rate_ml_h INTEGER, used_ml INTEGER CONSTRAINT unlucky CHECK (used_ml <> 13),
        PRIMARY KEY (account_id, recorded_at, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER short BEFORE INSERT ON dead_letter WHEN length(NEW.payload) = 1
    BEGIN SELECT RAISE(ABORT, 'short'); END";

/// The same, as PostgreSQL has them.
const ALTER_TO_REFUSE_13: &str = "
    ALTER TABLE telemetry_custom ADD CONSTRAINT unlucky CHECK (channel <> 13);
    ALTER TABLE telemetry_fuel ADD CONSTRAINT unlucky CHECK (used_ml <> 13);
    ALTER TABLE dead_letter ADD CONSTRAINT short CHECK (length(payload) <> 1)";

struct Bench {
    _held: Held,
    /// As a logic server has it.
    database: Database,
    /// The same, as its owner has it.
    owner: Database,
    store: Store,
}

/// What goes when the test is over.
#[allow(dead_code, reason = "held for its Drop")]
enum Held {
    Directory(TempDir),
    Database(TestDatabase),
    Server,
}

/// Of what both databases spell differently, as SQLite spells it.
const FUNCTIONS: &str = "
    CREATE FUNCTION ms(timestamptz) RETURNS bigint LANGUAGE sql AS 'SELECT (extract(epoch FROM $1) * 1000)::bigint';
    CREATE FUNCTION hex(bytea) RETURNS text LANGUAGE sql AS 'SELECT upper(encode($1, ''hex''))'";

impl Bench {
    async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu.db");
        let database = Database::open(&path).await.unwrap();
        Self::on(database.clone(), database, Held::Directory(directory))
    }

    async fn postgres() -> Self {
        let test = TestDatabase::new();
        let urls = [Role::Telemetry, Role::Owner].map(|role| test.url(role));
        let bench = Self::connect(urls, Held::Database(test)).await;
        bench.run(FUNCTIONS).await;
        bench
    }

    /// On one that was made there.
    async fn of_server(server: &PostgresServer) -> Self {
        let urls = [Role::Telemetry, Role::Owner].map(|role| server.tcp_url(NAME, role));
        Self::connect(urls, Held::Server).await
    }

    /// Another that uses the same database.
    async fn again(&self) -> Self {
        let Held::Database(test) = &self._held else {
            panic!("a bench of PostgreSQL");
        };
        let database = connect(&test.url(Role::Telemetry)).await;
        Self::on(database, self.owner.clone(), Held::Server)
    }

    async fn connect([url, owner]: [String; 2], held: Held) -> Self {
        Self::on(connect(&url).await, connect(&owner).await, held)
    }

    fn on(database: Database, owner: Database, held: Held) -> Self {
        let store = Store::new(&database, &"logic-1".parse().unwrap(), PATIENCE);
        Self {
            _held: held,
            database,
            owner,
            store,
        }
    }

    async fn write(&self, batch: Batch) -> WriteResult {
        self.store.write(&work(batch)).await
    }

    async fn tell(&self, lines: Vec<Presence>) -> WriteResult {
        self.store.write(&work_of(lines)).await
    }

    async fn refuse_13(&self) {
        self.run(match self.database {
            Database::Sqlite(_) => REFUSES_13,
            Database::Postgres(_) => ALTER_TO_REFUSE_13,
        })
        .await;
    }

    fn hurried(&self) -> Store {
        let name = "logic-1".parse().unwrap();
        Store::new(&self.database, &name, Duration::from_millis(200))
    }

    async fn run(&self, statements: &str) {
        match &self.owner {
            Database::Sqlite(sqlite) => {
                let done = sqlx::raw_sql(statements).execute(sqlite.writer()).await;
                done.unwrap();
            }
            Database::Postgres(postgres) => {
                let done = sqlx::raw_sql(statements).execute(postgres.pool()).await;
                done.unwrap();
            }
        }
    }

    /// The rows that the query gives, each as one text. `ms(…)` and `host(…)` are nothing to SQLite.
    async fn rows(&self, query: &str) -> Vec<String> {
        match &self.owner {
            Database::Sqlite(sqlite) => {
                let query = query.replace("ms(", "(").replace("host(", "(");
                let rows = sqlx::query_scalar(&query);
                rows.fetch_all(sqlite.reader()).await.unwrap()
            }
            Database::Postgres(postgres) => {
                let rows = sqlx::query_scalar(query);
                rows.fetch_all(postgres.pool()).await.unwrap()
            }
        }
    }

    async fn count(&self, table: &str) -> i64 {
        let count = self
            .rows(&format!("SELECT CAST(count(*) AS text) FROM {table}"))
            .await;
        count[0].parse().unwrap()
    }
}

fn client() -> Client<'static> {
    Client {
        name: "logic-1",
        connections_max: CONNECTIONS_MAX,
        connect_deadline: PATIENCE,
    }
}

async fn connect(url: &str) -> Database {
    Database::connect(&url.parse().unwrap(), client())
        .await
        .unwrap()
}

fn work(batch: Batch) -> Work {
    first_write(Input::Submit(batch), vec![])
}

/// Of nothing but lines of `sessions`.
fn work_of(lines: Vec<Presence>) -> Work {
    first_write(Input::Close, lines)
}

fn first_write(input: Input, told: Vec<Presence>) -> Work {
    let mut lines = Lines::new(told.len());
    told.into_iter().for_each(|line| _ = lines.push(line, 0));
    let mut effects = Vec::new();
    Writer::new(Settings::default(), 0).apply(input, 0, &mut lines, &mut effects);
    match effects.pop() {
        Some(Effect::Write(work)) => work,
        other => panic!("an idle writer writes, not {other:?}"),
    }
}

/// As it is written when it was refused as a whole.
fn careful(batch: Batch) -> Work {
    let mut writer = Writer::new(Settings::default(), 0);
    let (mut lines, mut effects) = (Lines::new(0), Vec::new());
    writer.apply(Input::Submit(batch), 0, &mut lines, &mut effects);
    let Some(Effect::Write(work)) = effects.pop() else {
        panic!("an idle writer writes");
    };
    let result = WriteResult::Refused { why: "no".into() };
    writer.apply(Input::Done { work, result }, 0, &mut lines, &mut effects);
    match effects.pop() {
        Some(Effect::Write(work)) if work.is_careful() => work,
        other => panic!("what was refused is written carefully, not {other:?}"),
    }
}

fn empty() -> Batch {
    Batch {
        id: 0,
        shard: ShardIndex(0),
        rows: vec![],
        arena: vec![],
        acks: vec![],
        contradicting: Default::default(),
        opened_at_ms: 0,
    }
}

/// Puts a record behind the batch's rows, recorded at second `seq`.
fn put(batch: &mut Batch, account: i64, seq: i64, kind: u8, payload: &[u8]) {
    let start = batch.arena.len() as u32;
    batch.arena.extend_from_slice(payload);
    batch.rows.push(Row {
        account_id: AccountId(account),
        seq,
        recorded_at_ms: seq * 1_000,
        received_at_ms: 77,
        payload: start..batch.arena.len() as u32,
        kind,
        flaw: Record::decode(kind, payload).err(),
        may_be_there: false,
    });
}

fn put_record(batch: &mut Batch, account: i64, seq: i64, record: Record<'_>) {
    let mut payload = Vec::new();
    record.encode_payload(&mut payload);
    put(batch, account, seq, record.kind(), &payload);
}

fn custom(channel: u16) -> Record<'static> {
    Record::Custom(Custom {
        channel,
        data: &[0xAB],
    })
}

async fn each_kind_goes_to_its_table_and_flawed_records_are_set_aside(bench: Bench) {
    let mut batch = empty();
    put_record(
        &mut batch,
        1,
        10,
        Record::Gps(Gps {
            latitude: Some(525_200_000),
            longitude: None,
            altitude_cm: Some(-250),
            speed_cm_s: Some(1_389),
            heading: Some(9_050),
            satellites: Some(9),
            hdop: None,
        }),
    );
    put_record(
        &mut batch,
        1,
        11,
        Record::Fuel(Fuel {
            level: Some(9_950),
            rate_ml_h: None,
            used_ml: Some(5),
        }),
    );
    put_record(&mut batch, 2, 12, custom(7));
    put_record(
        &mut batch,
        2,
        13,
        Record::Unknown(Unknown {
            kind: 200,
            payload: &[1, 2],
        }),
    );
    put(&mut batch, 3, 14, Gps::KIND, &[9; 3]);
    assert_eq!(bench.write(batch).await, COMMITTED);

    let gps = "SELECT account_id || '|' || ms(recorded_at) || '|' || seq || '|' || ms(received_at) || '|' || \
               latitude || '|' || coalesce(CAST(longitude AS text), 'NULL') || '|' || altitude_m || '|' || \
               speed_m_s || '|' || heading_deg || '|' || satellites || '|' || \
               coalesce(CAST(hdop AS text), 'NULL') FROM telemetry_gps";
    assert_eq!(
        bench.rows(gps).await,
        ["1|10000|10|77|52.52|NULL|-2.5|13.89|90.5|9|NULL"]
    );
    let fuel = "SELECT seq || '|' || level_percent || '|' || coalesce(CAST(rate_ml_h AS text), 'NULL') || '|' || \
                used_ml FROM telemetry_fuel";
    assert_eq!(bench.rows(fuel).await, ["11|99.5|NULL|5"]);
    let custom = "SELECT seq || '|' || kind || '|' || coalesce(CAST(channel AS text), 'NULL') || '|' || \
                  hex(payload) FROM telemetry_custom ORDER BY seq";
    assert_eq!(bench.rows(custom).await, ["12|5|7|AB", "13|200|NULL|0102"]);
    let dead = "SELECT account_id || '|' || ms(recorded_at) || '|' || seq || '|' || ms(received_at) || '|' || \
                kind || '|' || hex(payload) || '|' || reason FROM dead_letter";
    assert_eq!(bench.rows(dead).await, ["3|14000|14|77|1|090909|length"]);
}

/// Every integer column is as wide as its field.
async fn every_field_fits_its_column_at_its_limits(bench: Bench) {
    let mut batch = empty();
    for (seq, byte) in [(1, 0xFE), (2, 0x00), (3, 0x7F)] {
        put(
            &mut batch,
            1,
            seq,
            Fuel::KIND,
            &[&[0, 0], &[byte; 4][..], &[byte & 0x7F; 8]].concat(),
        );
        put(&mut batch, 1, seq + 10, 3, &[byte; 12]);
        put(
            &mut batch,
            1,
            seq + 20,
            4,
            &[&[byte; 11][..], &[0]].concat(),
        );
        put(&mut batch, 1, seq + 30, 5, &[byte; 4]);
        put(&mut batch, 1, seq + 40, 255, &[byte; 255]);
        let mut gps = [0; 18];
        gps[12..14].fill(byte);
        gps[16..].fill(byte);
        put(&mut batch, 1, seq + 50, Gps::KIND, &gps);
    }
    assert_eq!(bench.write(batch).await, COMMITTED);
    let largest = "SELECT max(rate_ml_h) || '|' || (SELECT max(rpm) || '|' || max(odometer_m) || '|' || max(flags) \
                   FROM telemetry_diagnosis) || '|' || (SELECT max(channel) || '|' || max(kind) \
                   FROM telemetry_custom) || '|' || (SELECT max(satellites) FROM telemetry_gps) \
                   FROM telemetry_fuel";
    let largest = bench.rows(largest).await;
    assert_eq!(largest, ["4278124286|65278|4278124286|254|65278|255|254"]);
    assert_eq!(bench.count("dead_letter").await, 0);
}

async fn batches_of_every_size_arrive_whole(bench: Bench) {
    let mut expected = 0;
    let largest = bulk::RECORDS_MAX as i64;
    for rows in [
        1,
        2,
        3,
        255,
        largest - 1,
        largest,
        largest + 1,
        3 * largest + 7,
    ] {
        let mut batch = empty();
        for row in 0..rows {
            put_record(&mut batch, rows, row, custom(1));
        }
        expected += rows;
        assert_eq!(bench.write(batch).await, COMMITTED);
        assert_eq!(bench.count("telemetry_custom").await, expected);
    }
}

async fn sessions_of_every_number_begin_and_end(bench: Bench) {
    let largest = bulk::SESSIONS_MAX as i64;
    let mut account = 0;
    for count in [1, 2, largest - 1, largest, largest + 1, 3 * largest + 7] {
        let (mut begins, mut ends) = (vec![], vec![]);
        for _ in 0..count {
            account += 1;
            let (account_id, epoch) = (AccountId(account), Epoch::at_ms(100));
            begins.push(Presence::Attached {
                account_id,
                epoch,
                source: "192.0.2.7".parse().unwrap(),
                at_ms: 100,
            });
            ends.push(Presence::Ended {
                account_id,
                epoch,
                at_ms: 600,
                reason: EndReason::Closed(CloseReason::Idle),
            });
        }
        assert_eq!(bench.tell(begins).await, COMMITTED);
        assert_eq!(bench.count("sessions").await, account);
        assert_eq!(bench.tell(ends).await, COMMITTED);
        let ended = "sessions WHERE ms(ended_at) = 600 AND reason = 'idle'";
        assert_eq!(bench.count(ended).await, account);
    }
}

async fn a_record_that_comes_again_is_stored_once_and_the_first_is_kept(bench: Bench) {
    let mut batch = empty();
    put_record(&mut batch, 1, 1, custom(1));
    put_record(&mut batch, 1, 1, custom(2));
    put(&mut batch, 1, 2, Gps::KIND, &[1]);
    assert_eq!(bench.write(batch).await, repeated(0, 0, 1));
    let mut again = empty();
    put_record(&mut again, 1, 1, custom(3));
    put(&mut again, 1, 2, Gps::KIND, &[2]);
    put_record(&mut again, 1, 3, custom(4));
    assert_eq!(bench.write(again).await, repeated(0, 0, 2));
    let kept = "SELECT seq || '|' || channel FROM telemetry_custom ORDER BY seq";
    assert_eq!(bench.rows(kept).await, ["1|1", "3|4"]);
    let dead = "SELECT seq || '|' || hex(payload) FROM dead_letter";
    assert_eq!(bench.rows(dead).await, ["2|01"]);
}

async fn a_value_that_the_database_never_takes_is_refused_and_nothing_is_stored(bench: Bench) {
    bench.refuse_13().await;
    let mut batch = empty();
    put_record(&mut batch, 1, 1, custom(1));
    put_record(&mut batch, 1, 2, custom(13));
    let WriteResult::Refused { why } = bench.write(batch).await else {
        panic!("it was not refused");
    };
    assert!(
        why.contains("constraint") && why.contains("unlucky"),
        "{why}"
    );
    assert_eq!(bench.count("telemetry_custom").await, 0);
}

fn fuel(used_ml: u64) -> Record<'static> {
    Record::Fuel(Fuel {
        level: None,
        rate_ml_h: None,
        used_ml: Some(used_ml),
    })
}

async fn of_a_careful_work_what_is_refused_is_set_aside_and_the_rest_is_stored(bench: Bench) {
    bench.refuse_13().await;
    let is_refused = |seq: i64| matches!(seq % 37, 0 | 1 | 20) || seq > 290;
    let number = |seq| if is_refused(seq) { 13 } else { 1 };
    let mut batch = empty();
    // In no order of accounts, which is the one that they are written in.
    for seq in 0..300 {
        let account = 1 + seq % 7;
        match seq % 2 {
            0 => put_record(&mut batch, account, seq, custom(number(seq))),
            _ => put_record(&mut batch, account, seq, fuel(number(seq).into())),
        }
    }
    put(&mut batch, 8, 300, Gps::KIND, &[9; 3]);
    put(&mut batch, 8, 301, Gps::KIND, &[0; 18]);
    let refused: Vec<_> = (0..300).filter(|&seq| is_refused(seq)).collect();
    let written = bench.store.write(&careful(batch)).await;
    let count = refused.len() as u64;
    assert_eq!(written, WriteResult::Committed(Written::refusing(count)));

    let stored = "SELECT seq || '' FROM (SELECT seq FROM telemetry_custom UNION ALL \
                  SELECT seq FROM telemetry_fuel UNION ALL SELECT seq FROM telemetry_gps) AS stored ORDER BY seq";
    let expected = (0..300).filter(|&seq| !is_refused(seq)).chain([301]);
    let expected: Vec<_> = expected.map(|seq| seq.to_string()).collect();
    assert_eq!(bench.rows(stored).await, expected);
    let set_aside = "SELECT seq || '' FROM dead_letter WHERE reason LIKE 'refused by the database: %unlucky%' \
                     ORDER BY seq";
    let expected: Vec<_> = refused.iter().map(i64::to_string).collect();
    assert_eq!(bench.rows(set_aside).await, expected);
    let whole = "SELECT account_id || '|' || ms(recorded_at) || '|' || seq || '|' || ms(received_at) || '|' || \
                 kind || '|' || hex(payload) FROM dead_letter WHERE seq = 20";
    assert_eq!(bench.rows(whole).await, ["7|20000|20|77|5|0D00AB"]);
    let flawed = "SELECT seq || '' FROM dead_letter WHERE reason = 'length'";
    assert_eq!(bench.rows(flawed).await, ["300"]);
    assert_eq!(bench.count("dead_letter").await, refused.len() as i64 + 1);
}

async fn of_a_careful_work_the_first_of_a_key_is_kept(bench: Bench) {
    bench.refuse_13().await;
    let mut before = empty();
    put_record(&mut before, 1, 1, custom(1));
    assert_eq!(bench.write(before).await, COMMITTED);
    let mut batch = empty();
    // There already; twice; refused and then taken; refused twice.
    for (seq, channel) in [
        (1, 2),
        (2, 3),
        (2, 4),
        (3, 13),
        (3, 5),
        (4, 13),
        (4, 13),
        (5, 6),
    ] {
        put_record(&mut batch, 1, seq, custom(channel));
    }
    let written = bench.store.write(&careful(batch)).await;
    assert_eq!(written, repeated(3, 1, 2));
    let kept = "SELECT seq || '|' || channel FROM telemetry_custom ORDER BY seq";
    assert_eq!(bench.rows(kept).await, ["1|1", "2|3", "3|5", "5|6"]);
    let dead = "SELECT seq || '' FROM dead_letter ORDER BY seq";
    assert_eq!(bench.rows(dead).await, ["3", "4"]);
}

async fn a_careful_work_may_be_refused_whole_and_come_again(bench: Bench) {
    bench.refuse_13().await;
    let mut batch = empty();
    (0..100).for_each(|seq| put_record(&mut batch, 1, seq, custom(13)));
    let work = careful(batch);
    // As after a COMMIT of unknown outcome.
    for alike in [0, 100] {
        let written = bench.store.write(&work).await;
        assert_eq!(written, repeated(100, alike, 0));
        assert_eq!(bench.count("telemetry_custom").await, 0);
        assert_eq!(bench.count("dead_letter").await, 100);
    }
}

async fn a_careful_work_with_nothing_to_refuse_is_stored(bench: Bench) {
    let mut batch = empty();
    (0..512).for_each(|seq| put_record(&mut batch, 1, seq, custom(1)));
    assert_eq!(bench.store.write(&careful(batch)).await, COMMITTED);
    assert_eq!(bench.count("telemetry_custom").await, 512);
}

async fn what_dead_letter_refuses_too_is_refused_and_nothing_is_stored(bench: Bench) {
    bench.refuse_13().await;
    let mut batch = empty();
    put_record(&mut batch, 1, 1, custom(1));
    put(&mut batch, 1, 2, Gps::KIND, &[1]);
    let WriteResult::Refused { why } = bench.store.write(&careful(batch)).await else {
        panic!("it was not refused");
    };
    assert!(why.contains("short"), "{why}");
    assert_eq!(bench.count("telemetry_custom").await, 0);
    let mut next = empty();
    put_record(&mut next, 1, 3, custom(1));
    assert_eq!(bench.write(next).await, COMMITTED);
}

async fn sessions_begin_end_and_are_repaired_after_a_crash(bench: Bench) {
    let source: IpAddr = "192.0.2.7".parse().unwrap();
    let epoch = |ms| Epoch::at_ms(ms);
    let attached = |account, ms: u64| Presence::Attached {
        account_id: AccountId(account),
        epoch: epoch(ms),
        source,
        at_ms: ms as i64,
    };
    let ended = |account, ms: u64| Presence::Ended {
        account_id: AccountId(account),
        epoch: epoch(ms),
        at_ms: ms as i64 + 500,
        reason: EndReason::Closed(CloseReason::Idle),
    };
    let lines = vec![
        attached(1, 100),
        ended(1, 100),
        attached(1, 200),
        attached(2, 300),
    ];
    assert_eq!(bench.tell(lines).await, COMMITTED);
    // Of unknown outcome, so it is repeated; an end is not undone, nor moved.
    let again = vec![attached(1, 100), ended(2, 300), ended(9, 900)];
    assert_eq!(bench.tell(again).await, COMMITTED);

    let other = Store::new(&bench.database, &"logic-2".parse().unwrap(), PATIENCE);
    assert_eq!(other.repair(5_000).await.unwrap(), 0, "not its sessions");
    assert_eq!(bench.store.repair(5_000).await.unwrap(), 1);
    assert_eq!(bench.store.repair(6_000).await.unwrap(), 0);

    let sessions = "SELECT account_id || '|' || node || '|' || host(source) || '|' || ms(attached_at) || '|' || \
                    coalesce(CAST(ms(ended_at) AS text), 'NULL') || '|' || coalesce(reason, 'NULL') \
                    FROM sessions ORDER BY account_id, epoch";
    assert_eq!(
        bench.rows(sessions).await,
        [
            "1|logic-1|192.0.2.7|100|600|idle",
            "1|logic-1|192.0.2.7|200|5000|crash",
            "2|logic-1|192.0.2.7|300|800|idle",
        ]
    );
}

/// Six that are new; then of account 1 three the same, of account 2 three that say something else, two of them
/// twice in one batch, and one that is new; with one of dead_letter each way.
fn first_and_again() -> [Batch; 2] {
    let (mut first, mut again) = (empty(), empty());
    for seq in 0..2 {
        put_record(&mut first, 1, seq, custom(7));
        put_record(&mut again, 1, seq, custom(7));
        put_record(&mut first, 2, seq, custom(7));
        put_record(&mut again, 2, seq, custom(8));
    }
    put(&mut first, 1, 2, Gps::KIND, &[9; 3]);
    put(&mut again, 1, 2, Gps::KIND, &[9; 3]);
    put(&mut first, 2, 2, Gps::KIND, &[9; 3]);
    put(&mut again, 2, 2, Gps::KIND, &[8; 3]);
    let gps = |latitude| {
        Record::Gps(Gps {
            latitude,
            longitude: None,
            altitude_cm: Some(-250),
            speed_cm_s: None,
            heading: None,
            satellites: None,
            hdop: None,
        })
    };
    put_record(&mut again, 3, 1, gps(Some(525_200_001)));
    put_record(&mut again, 3, 1, gps(None));
    put_record(&mut again, 3, 1, gps(Some(525_200_001)));
    [first, again]
}

fn told_apart() -> WriteResult {
    WriteResult::Committed(Written {
        refused: 0,
        alike: 4,
        contradicting: [(AccountId(2), 3), (AccountId(3), 1)].into(),
        uncompared: None,
    })
}

/// Under the role of a logic server, who reads no record.
async fn what_comes_again_is_told_apart_by_what_it_says(bench: Bench) {
    let [first, again] = first_and_again();
    assert_eq!(bench.write(first).await, COMMITTED);
    assert_eq!(bench.write(again).await, told_apart());
    assert_eq!(bench.count("telemetry_custom").await, 4);
    assert_eq!(bench.count("telemetry_gps").await, 1);
    assert_eq!(bench.count("dead_letter").await, 2);
}

async fn what_comes_again_carefully_is_told_apart_too(bench: Bench) {
    let [first, again] = first_and_again();
    assert_eq!(bench.write(first).await, COMMITTED);
    assert_eq!(bench.store.write(&careful(again)).await, told_apart());
}
