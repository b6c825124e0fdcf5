//! Rows per second into PostgreSQL, batches of 5,000 gps records, each committed: the store of the logic
//! server beside raw COPY BINARY, which has its bytes ready (LIMITS.md, G5). Same table, with its
//! primary key and a partition for the day, one connection each.
//!
//! And the same rows in batches of 50 through the writer, 1.6 % of which the database refuses.
//!
//! All go to one private server with default settings, through its Unix socket.

use std::time::{Duration, Instant};

use common::database::{Client, Database, DatabaseUrl};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use logic_server::store::{Partitions, Store};
use logic_server::writer::{WriteResult, Written};
use servers::{PostgresServer, Role};
use sqlx::postgres::PgPool;
use tokio::runtime::Runtime;

#[path = "samples/mod.rs"]
mod samples;

use samples::{IS_REFUSED, ROWS, refused, samples, work, write_all};

/// What the store sends at a time.
const PIECE_BYTES: usize = 64 << 10;

const TABLES: &str =
    "telemetry_gps, telemetry_fuel, telemetry_gyroscope, telemetry_diagnosis, telemetry_custom";

const NAME: &str = "rcu";

struct Bench {
    server: PostgresServer,
    runtime: Runtime,
    database: Database,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let server = PostgresServer::start("").expect("a server");
        server.make_database(NAME).expect("a database");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let url: DatabaseUrl = server.url(NAME, Role::Telemetry).parse().expect("a URL");
        let client = Client {
            name: "bench",
            connections_max: 2,
            connect_deadline: Duration::from_secs(5),
        };
        let database = runtime.block_on(Database::connect(&url, client));
        let database = database.expect("a database");
        let partitions = Partitions::of(&database).expect("partitions");
        let today = samples::now_ms().cast_unsigned();
        runtime
            .block_on(partitions.ensure(today))
            .expect("partitions");
        let node = "bench".parse().expect("a name");
        let store = Store::new(&database, &node, Duration::from_secs(60));
        Self {
            server,
            runtime,
            database,
            store,
        }
    }

    fn pool(&self) -> &PgPool {
        match &self.database {
            Database::Postgres(postgres) => postgres.pool(),
            Database::Sqlite(_) => panic!("a bench of PostgreSQL"),
        }
    }

    /// Every measurement begins with empty tables and nothing to be written back.
    fn empty(&self) {
        self.administer(&format!("TRUNCATE {TABLES}"));
        self.administer("CHECKPOINT");
    }

    fn administer(&self, sql: &str) {
        self.server.sql(NAME, sql).expect("done");
    }

    fn store(&self, batches: u64) -> Duration {
        let works: Vec<_> = (0..batches).map(work).collect();
        let start = Instant::now();
        for work in &works {
            let result = self.runtime.block_on(self.store.write(work));
            assert_eq!(result, WriteResult::Committed(Written::default()));
        }
        start.elapsed()
    }

    /// Through the writer, small batches of which some rows are refused.
    fn refused(&self, batches: u64) -> Duration {
        let works: Vec<_> = (0..batches).map(refused).collect();
        let constraint = format!("ADD CONSTRAINT refused CHECK (NOT {IS_REFUSED})");
        self.alter(&constraint);
        let start = Instant::now();
        for batches in works {
            write_all(batches, |work| {
                self.runtime.block_on(self.store.write(work))
            });
        }
        let time = start.elapsed();
        self.alter("DROP CONSTRAINT refused");
        time
    }

    fn alter(&self, how: &str) {
        self.administer(&format!("ALTER TABLE telemetry_gps {how}"));
    }

    fn raw(&self, batches: u64) -> Duration {
        let bytes: Vec<_> = (0..batches).map(binary).collect();
        let start = Instant::now();
        for bytes in &bytes {
            self.runtime
                .block_on(copy(self.pool(), bytes))
                .expect("copied");
        }
        start.elapsed()
    }
}

async fn copy(pool: &PgPool, bytes: &[u8]) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let statement = "COPY telemetry_gps (account_id, recorded_at, seq, received_at, latitude, longitude, \
                     altitude_m, speed_m_s, heading_deg, satellites, hdop) FROM STDIN (FORMAT binary)";
    let mut copy = transaction.copy_in_raw(statement).await?;
    for piece in bytes.chunks(PIECE_BYTES) {
        copy.send(piece).await?;
    }
    copy.finish().await?;
    transaction.commit().await
}

/// A batch as COPY BINARY has it, in the order of the key.
fn binary(batch: u64) -> Vec<u8> {
    let mut samples = samples(batch);
    samples.sort_by_key(|sample| (sample.account, sample.recorded_at_ms, sample.seq));
    let mut bytes = b"PGCOPY\n\xff\r\n\0".to_vec();
    bytes.extend([0; 8]);
    for sample in samples {
        let at_us = |unix_ms: i64| unix_ms * 1_000 - 946_684_800_000_000;
        bytes.extend(11_i16.to_be_bytes());
        for value in [
            sample.account,
            at_us(sample.recorded_at_ms),
            sample.seq,
            at_us(sample.recorded_at_ms + 40),
        ] {
            bytes.extend(8_i32.to_be_bytes());
            bytes.extend(value.to_be_bytes());
        }
        let gps = sample.gps;
        let reals = [
            (gps.latitude.map(f64::from), 1e7),
            (gps.longitude.map(f64::from), 1e7),
            (gps.altitude_cm.map(f64::from), 100.0),
            (gps.speed_cm_s.map(f64::from), 100.0),
            (gps.heading.map(f64::from), 100.0),
        ];
        for (value, per_unit) in reals {
            real(&mut bytes, value.map(|value| value / per_unit));
        }
        bytes.extend(2_i32.to_be_bytes());
        bytes.extend(i16::from(gps.satellites.unwrap_or_default()).to_be_bytes());
        real(&mut bytes, gps.hdop.map(|hdop| f64::from(hdop) / 10.0));
    }
    bytes.extend((-1_i16).to_be_bytes());
    bytes
}

fn real(bytes: &mut Vec<u8>, value: Option<f64>) {
    match value {
        Some(value) => {
            bytes.extend(8_i32.to_be_bytes());
            bytes.extend(value.to_be_bytes());
        }
        None => bytes.extend((-1_i32).to_be_bytes()),
    }
}

fn rows(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut group = criterion.benchmark_group("postgres_rows");
    group
        .throughput(Throughput::Elements(ROWS as u64))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10);
    type Write = fn(&Bench, u64) -> Duration;
    for (name, write) in [
        ("copy", Bench::raw as Write),
        ("store", Bench::store as Write),
        ("refused", Bench::refused as Write),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|batches| {
                bench.empty();
                write(&bench, batches)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);
