//! The store against a real SQLite file.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use common::database::Database;
use common::device::code::CloseReason;
use common::device::record::{Custom, Fuel, Gps, Record, Unknown};
use common::epoch::Epoch;
use common::ids::AccountId;
use tempfile::TempDir;

use super::*;
use crate::batch::{Batch, EndReason, Presence, Row};
use crate::ids::ShardIndex;
use crate::writer::{Effect, Input, Settings, Writer};

const PATIENCE: Duration = Duration::from_secs(10);

struct Bench {
    _directory: TempDir,
    database: Database,
    store: Store,
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu.db");
        let database = Database::open(&path).await.unwrap();
        let store = Store::new(&database, &"logic-1".parse().unwrap(), PATIENCE);
        Self {
            _directory: directory,
            database,
            store,
        }
    }

    async fn write(&self, batch: Batch) -> WriteResult {
        self.store.write(&work(batch)).await
    }

    /// The rows that the query gives, each as its columns in SQLite's own text.
    async fn rows(&self, query: &str) -> Vec<String> {
        sqlx::query_scalar(query)
            .fetch_all(self.database.reader())
            .await
            .unwrap()
    }

    async fn count(&self, table: &str) -> i64 {
        sqlx::query_scalar(&format!("SELECT count(*) FROM {table}"))
            .fetch_one(self.database.reader())
            .await
            .unwrap()
    }
}

fn work(batch: Batch) -> Work {
    let mut effects = Vec::new();
    Writer::new(Settings::default(), 0).apply(Input::Submit(batch), 0, &mut effects);
    match effects.pop() {
        Some(Effect::Write(work)) => work,
        other => panic!("an idle writer writes, not {other:?}"),
    }
}

fn empty() -> Batch {
    Batch {
        id: 0,
        shard: ShardIndex(0),
        rows: vec![],
        arena: vec![],
        acks: vec![],
        presence: vec![],
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

#[tokio::test]
async fn each_kind_goes_to_its_table_and_flawed_records_are_set_aside() {
    let bench = Bench::new().await;
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
            heading: Some(9_000),
            satellites: Some(9),
            hdop: None,
        }),
    );
    put_record(
        &mut batch,
        1,
        11,
        Record::Fuel(Fuel {
            level: Some(10_000),
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
    assert_eq!(bench.write(batch).await, WriteResult::Committed);

    let gps = "SELECT account_id || '|' || recorded_at || '|' || seq || '|' || received_at || '|' || \
               latitude || '|' || coalesce(longitude, 'NULL') || '|' || altitude_m || '|' || \
               speed_m_s || '|' || heading_deg || '|' || satellites || '|' || \
               coalesce(hdop, 'NULL') FROM telemetry_gps";
    assert_eq!(
        bench.rows(gps).await,
        ["1|10000|10|77|52.52|NULL|-2.5|13.89|90.0|9|NULL"]
    );
    let fuel = "SELECT seq || '|' || level_percent || '|' || coalesce(rate_ml_h, 'NULL') || '|' || \
                used_ml FROM telemetry_fuel";
    assert_eq!(bench.rows(fuel).await, ["11|100.0|NULL|5"]);
    let custom = "SELECT seq || '|' || kind || '|' || coalesce(channel, 'NULL') || '|' || \
                  hex(payload) FROM telemetry_custom ORDER BY seq";
    assert_eq!(bench.rows(custom).await, ["12|5|7|AB", "13|200|NULL|0102"]);
    let dead = "SELECT account_id || '|' || recorded_at || '|' || seq || '|' || received_at || '|' || \
                kind || '|' || hex(payload) || '|' || reason FROM dead_letter";
    assert_eq!(bench.rows(dead).await, ["3|14000|14|77|1|090909|length"]);
}

#[tokio::test]
async fn batches_of_every_size_arrive_whole() {
    let bench = Bench::new().await;
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
        assert_eq!(bench.write(batch).await, WriteResult::Committed);
        assert_eq!(bench.count("telemetry_custom").await, expected);
    }
}

#[tokio::test]
async fn sessions_of_every_number_begin_and_end() {
    let bench = Bench::new().await;
    let largest = bulk::SESSIONS_MAX as i64;
    let mut account = 0;
    for count in [1, 2, largest - 1, largest, largest + 1, 3 * largest + 7] {
        let mut begins = empty();
        let mut ends = empty();
        for _ in 0..count {
            account += 1;
            let (account_id, epoch) = (AccountId(account), Epoch::at_ms(100));
            begins.presence.push(Presence::Attached {
                account_id,
                epoch,
                source: "192.0.2.7".parse().unwrap(),
                at_ms: 100,
            });
            ends.presence.push(Presence::Ended {
                account_id,
                epoch,
                at_ms: 600,
                reason: EndReason::Closed(CloseReason::Idle),
            });
        }
        assert_eq!(bench.write(begins).await, WriteResult::Committed);
        assert_eq!(bench.count("sessions").await, account);
        assert_eq!(bench.write(ends).await, WriteResult::Committed);
        let ended = "sessions WHERE ended_at = 600 AND reason = 'idle'";
        assert_eq!(bench.count(ended).await, account);
    }
}

#[tokio::test]
async fn a_record_that_comes_again_is_stored_once_and_the_first_is_kept() {
    let bench = Bench::new().await;
    let mut batch = empty();
    put_record(&mut batch, 1, 1, custom(1));
    put_record(&mut batch, 1, 1, custom(2));
    put(&mut batch, 1, 2, Gps::KIND, &[1]);
    assert_eq!(bench.write(batch).await, WriteResult::Committed);
    let mut again = empty();
    put_record(&mut again, 1, 1, custom(3));
    put(&mut again, 1, 2, Gps::KIND, &[2]);
    put_record(&mut again, 1, 3, custom(4));
    assert_eq!(bench.write(again).await, WriteResult::Committed);
    let kept = "SELECT seq || '|' || channel FROM telemetry_custom ORDER BY seq";
    assert_eq!(bench.rows(kept).await, ["1|1", "3|4"]);
    let dead = "SELECT seq || '|' || hex(payload) FROM dead_letter";
    assert_eq!(bench.rows(dead).await, ["2|01"]);
}

#[tokio::test]
async fn a_value_that_the_database_never_takes_is_refused_and_nothing_is_stored() {
    let bench = Bench::new().await;
    let narrower = "DROP TABLE telemetry_custom;
         CREATE TABLE telemetry_custom (
             account_id INTEGER NOT NULL, recorded_at INTEGER NOT NULL, seq INTEGER NOT NULL,
             received_at INTEGER NOT NULL, kind INTEGER NOT NULL,
             channel INTEGER CONSTRAINT unlucky CHECK (channel <> 13), payload BLOB NOT NULL,
             PRIMARY KEY (account_id, recorded_at, seq)
         ) STRICT, WITHOUT ROWID";
    sqlx::raw_sql(narrower)
        .execute(bench.database.writer())
        .await
        .unwrap();
    let mut batch = empty();
    put_record(&mut batch, 1, 1, custom(1));
    put_record(&mut batch, 1, 2, custom(13));
    let refused = WriteResult::Refused {
        why: "CHECK constraint failed: unlucky".into(),
    };
    assert_eq!(bench.write(batch).await, refused);
    assert_eq!(bench.count("telemetry_custom").await, 0);
}

#[tokio::test]
async fn a_database_that_is_locked_or_full_fails_and_takes_it_later() {
    let bench = Bench::new().await;
    let mut batch = empty();
    put_record(&mut batch, 1, 1, custom(1));
    let work = work(batch);

    // Of this connection alone: the next has room again.
    sqlx::query("PRAGMA max_page_count = 1")
        .execute(bench.database.writer())
        .await
        .unwrap();
    let mut large = empty();
    (0..5_000).for_each(|seq| put_record(&mut large, 2, seq, custom(1)));
    assert_eq!(bench.write(large).await, WriteResult::Failed, "disk full");
    assert_eq!(bench.store.write(&work).await, WriteResult::Committed);

    // Given up at its deadline: the connection serves the next all the same.
    let name = "logic-1".parse().unwrap();
    let hurried = Store::new(&bench.database, &name, Duration::from_millis(20));
    let held = bench.database.writer().acquire().await.unwrap();
    assert_eq!(hurried.write(&work).await, WriteResult::Failed);
    drop(held);
    assert_eq!(bench.store.write(&work).await, WriteResult::Committed);
    assert_eq!(bench.count("telemetry_custom").await, 1);
}

#[tokio::test]
async fn sessions_begin_end_and_are_repaired_after_a_crash() {
    let bench = Bench::new().await;
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
    let mut batch = empty();
    batch.presence = vec![
        attached(1, 100),
        ended(1, 100),
        attached(1, 200),
        attached(2, 300),
    ];
    assert_eq!(bench.write(batch).await, WriteResult::Committed);
    // Of unknown outcome, so it is repeated; an end is not undone, nor moved.
    let mut again = empty();
    again.presence = vec![attached(1, 100), ended(2, 300), ended(9, 900)];
    assert_eq!(bench.write(again).await, WriteResult::Committed);

    let other = Store::new(&bench.database, &"logic-2".parse().unwrap(), PATIENCE);
    assert_eq!(other.repair(5_000).await.unwrap(), 0, "not its sessions");
    assert_eq!(bench.store.repair(5_000).await.unwrap(), 1);
    assert_eq!(bench.store.repair(6_000).await.unwrap(), 0);

    let sessions = "SELECT account_id || '|' || node || '|' || source || '|' || attached_at || '|' || \
                    coalesce(ended_at, 'NULL') || '|' || coalesce(reason, 'NULL') \
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

/// A session is found by its key: a search through those that are live would make the end of many
/// sessions quadratic.
#[tokio::test]
async fn sessions_are_ended_by_their_key() {
    let bench = Bench::new().await;
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(&format!(
        "EXPLAIN QUERY PLAN {} (?, ?, ?, ?) {}",
        sqlite::ENDED_HEAD,
        sqlite::ENDED_TAIL
    ))
    .fetch_all(bench.database.reader())
    .await
    .unwrap();
    let by_key = |(_, _, _, detail): &(i64, i64, i64, String)| {
        detail.contains("SEARCH sessions USING PRIMARY KEY (account_id=? AND epoch=?)")
    };
    assert!(plan.iter().any(by_key), "{plan:?}");
}
