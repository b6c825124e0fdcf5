//! Rows per second into SQLite, batches of 5,000 gps records: the store of the logic server beside
//! raw rusqlite, which has its values ready and in the order of the key (LIMITS.md, G7).
//!
//! Both write to a file with the schema and the pragmas of [`Database`], each batch committed. And
//! the same rows in batches of 50 through the writer, 1.6 % of which SQLite refuses.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use common::database::Database;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use logic_server::store::Store;
use logic_server::writer::{WriteResult, Written};
use rusqlite::{Connection, params};
use tokio::runtime::Runtime;

#[path = "samples/mod.rs"]
mod samples;

use samples::{IS_REFUSED, ROWS, Sample, refused, samples, work, write_all};

const COLUMNS: usize = 11;

fn store(runtime: &Runtime, path: &Path, batches: u64) -> Duration {
    let database = runtime.block_on(Database::open(path)).expect("a database");
    let node = "bench".parse().expect("a name");
    let store = Store::new(&database, &node, Duration::from_secs(60));
    let works: Vec<_> = (0..batches).map(work).collect();
    let start = Instant::now();
    for work in &works {
        let result = runtime.block_on(store.write(work));
        assert_eq!(result, WriteResult::Committed(Written::default()));
    }
    let time = start.elapsed();
    runtime.block_on(database.close());
    time
}

/// Through the writer, small batches of which some rows are refused.
fn refused_rows(runtime: &Runtime, path: &Path, batches: u64) -> Duration {
    let database = runtime.block_on(Database::open(path)).expect("a database");
    let trigger = format!(
        "CREATE TRIGGER refused BEFORE INSERT ON telemetry_gps WHEN NEW.{IS_REFUSED} \
         BEGIN SELECT RAISE(FAIL, 'refused'); END"
    );
    let writer = database.sqlite().expect("a file").writer();
    let made = sqlx::raw_sql(&trigger).execute(writer);
    runtime.block_on(made).expect("a trigger");
    let node = "bench".parse().expect("a name");
    let store = Store::new(&database, &node, Duration::from_secs(60));
    let works: Vec<_> = (0..batches).map(refused).collect();
    let start = Instant::now();
    for batches in works {
        write_all(batches, |work| runtime.block_on(store.write(work)));
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
    for (name, write) in [
        ("rusqlite", raw as Write),
        ("store", store as Write),
        ("refused", refused_rows as Write),
    ] {
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
