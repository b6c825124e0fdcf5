//! Rows per second into SQLite, batches of 5,000 gps records: the store of the logic server beside
//! raw rusqlite, which has its values ready and in the order of the key (LIMITS.md, G7).
//!
//! Both write to a file with the schema and the pragmas of [`Database`], each batch committed.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use common::database::Database;
use common::device::record::{Gps, Record};
use common::ids::AccountId;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use logic_server::batch::{Batch, Row};
use logic_server::ids::ShardIndex;
use logic_server::store::Store;
use logic_server::writer::{Effect, Input, Settings, Work, WriteResult, Writer};
use rusqlite::{Connection, params};
use tokio::runtime::Runtime;

const ROWS: usize = 5_000;
const DEVICES: u64 = 10_000;
const RECORDS_PER_FRAME: usize = 16;
const COLUMNS: usize = 11;

/// A record as both writers get it, and as raw columns.
struct Sample {
    account: i64,
    seq: i64,
    recorded_at_ms: i64,
    gps: Gps,
}

/// The samples of one batch: frames of 16 from devices that follow no order.
fn samples(batch: u64) -> Vec<Sample> {
    let mut chance = batch;
    (0..ROWS)
        .map(|index| {
            if index % RECORDS_PER_FRAME == 0 {
                chance = chance
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
            }
            let seq = (batch as i64) * ROWS as i64 + index as i64;
            Sample {
                account: (chance >> 33).wrapping_rem(DEVICES) as i64,
                seq,
                recorded_at_ms: 1_700_000_000_000 + seq * 10,
                gps: Gps {
                    latitude: Some(525_200_000 + index as i32),
                    longitude: Some(134_050_000 - index as i32),
                    altitude_cm: Some(3_400),
                    speed_cm_s: Some(1_389),
                    heading: Some((index % 36_000) as u16),
                    satellites: Some(9),
                    hdop: None,
                },
            }
        })
        .collect()
}

fn work(batch: u64) -> Work {
    let mut arena = Vec::new();
    let rows = samples(batch)
        .into_iter()
        .map(|sample| {
            let start = arena.len() as u32;
            Record::Gps(sample.gps).encode_payload(&mut arena);
            Row {
                account_id: AccountId(sample.account),
                seq: sample.seq,
                recorded_at_ms: sample.recorded_at_ms,
                received_at_ms: sample.recorded_at_ms + 40,
                payload: start..arena.len() as u32,
                kind: Gps::KIND,
                flaw: None,
            }
        })
        .collect();
    let batch = Batch {
        id: batch,
        shard: ShardIndex(0),
        rows,
        arena,
        acks: Vec::new(),
        presence: Vec::new(),
        opened_at_ms: 0,
    };
    let mut effects = Vec::new();
    Writer::new(Settings::default(), 0).apply(Input::Submit(batch), 0, &mut effects);
    match effects.pop() {
        Some(Effect::Write(work)) => work,
        other => panic!("an idle writer writes, not {other:?}"),
    }
}

fn store(runtime: &Runtime, path: &Path, batches: u64) -> Duration {
    let database = runtime.block_on(Database::open(path)).expect("a database");
    let node = "bench".parse().expect("a name");
    let store = Store::new(&database, &node, Duration::from_secs(60));
    let works: Vec<_> = (0..batches).map(work).collect();
    let start = Instant::now();
    for work in &works {
        let result = runtime.block_on(store.write(work));
        assert_eq!(result, WriteResult::Committed);
    }
    let time = start.elapsed();
    runtime.block_on(database.close());
    time
}

fn raw(runtime: &Runtime, path: &Path, batches: u64) -> Duration {
    // For the schema alone.
    let database = runtime.block_on(Database::open(path)).expect("a database");
    runtime.block_on(database.close());
    let connection = Connection::open(path).expect("the database");
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        .expect("set");
    let text = format!(
        "INSERT INTO telemetry_gps (account_id, recorded_at, seq, received_at, latitude, longitude, \
         altitude_m, speed_m_s, heading_deg, satellites, hdop) VALUES ({}) ON CONFLICT DO NOTHING",
        ["?"; COLUMNS].join(",")
    );
    let batches: Vec<_> = (0..batches)
        .map(|batch| {
            let mut samples = samples(batch);
            samples.sort_by_key(|sample| (sample.account, sample.recorded_at_ms, sample.seq));
            samples
        })
        .collect();
    let start = Instant::now();
    for batch in &batches {
        connection.execute_batch("BEGIN IMMEDIATE").expect("begun");
        let mut insert = connection.prepare_cached(&text).expect("prepared");
        for Sample {
            account,
            seq,
            recorded_at_ms,
            gps,
        } in batch
        {
            let real =
                |value: Option<i32>, per_unit: f64| value.map(|value| f64::from(value) / per_unit);
            let values = params![
                account,
                recorded_at_ms,
                seq,
                recorded_at_ms + 40,
                real(gps.latitude, 1e7),
                real(gps.longitude, 1e7),
                real(gps.altitude_cm, 100.0),
                real(gps.speed_cm_s.map(i32::from), 100.0),
                real(gps.heading.map(i32::from), 100.0),
                gps.satellites,
                real(gps.hdop.map(i32::from), 10.0),
            ];
            insert.execute(values).expect("inserted");
        }
        drop(insert);
        connection.execute_batch("COMMIT").expect("committed");
    }
    start.elapsed()
}

fn rows(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut group = criterion.benchmark_group("sqlite_rows");
    group
        .throughput(Throughput::Elements(ROWS as u64))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10);
    type Write = fn(&Runtime, &Path, u64) -> Duration;
    for (name, write) in [("rusqlite", raw as Write), ("store", store as Write)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|batches| {
                let directory = tempfile::tempdir().expect("a directory");
                write(
                    &runtime,
                    &directory.path().join("rcu.db"),
                    black_box(batches),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);
