//! What a run consists of: drawn from its seed, printed before it begins.

use std::fmt;
use std::ops::RangeInclusive;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Every rate and every limit of one run. The same seed draws the same plan.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub devices: u32,
    /// Faults are on for this long; then they heal.
    pub faults_ms: u64,
    /// From the heal until everything must be quiet and right.
    pub heal_ms: u64,

    pub logic_servers: u16,
    pub shards: u16,
    /// Places of each logic server. Together they are never fewer than the devices.
    pub places_max: u32,
    pub heartbeat_s: u16,
    pub window: u16,
    pub grant_ttl_s: u16,
    pub report_interval_ms: u32,
    pub batch_rows_max: usize,

    /// One-way delay of a piece of a TCP stream.
    pub network_ms: RangeInclusive<u64>,
    /// One-way delay of a link message.
    pub link_ms: RangeInclusive<u64>,
    /// From a write's beginning to its result.
    pub store_ms: RangeInclusive<u64>,

    pub faults: Faults,
}

/// How often something goes wrong. A mean time of `None`: this class is not part of the run.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// A device's connection is reset.
    pub reset_every_ms: Option<u64>,
    /// A device's connection falls silent for ever: neither side is told.
    pub silence_every_ms: Option<u64>,
    /// A link between two tiers breaks and is dialled again.
    pub link_every_ms: Option<u64>,
    /// A logic server is killed and starts again, empty.
    pub kill_logic_every_ms: Option<u64>,
    /// The conn server is killed and starts again, empty.
    pub kill_conn_every_ms: Option<u64>,
    /// A recorded Login or a used Attach comes once more, from the same address.
    pub replay_every_ms: Option<u64>,
    /// Of 1,000 writes: fail, and nothing is stored.
    pub write_fails: u32,
    /// Of 1,000 writes: commit, and are reported as failed.
    pub commit_unknown: u32,
    /// Of 1,000 writes: take seconds.
    pub write_stalls: u32,
    /// Of 1,000 records: the store refuses the row.
    pub poison: u32,
    /// Of 1,000 pieces of a stream: come byte by byte.
    pub byte_by_byte: u32,
    /// Of 1,000 connections: refused although the server lives.
    pub connect_fails: u32,
}

impl Plan {
    /// `devices` and `faults_ms` override what is drawn.
    pub fn draw(seed: u64, devices: Option<u32>, faults_ms: Option<u64>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let devices = devices.unwrap_or_else(|| rng.random_range(2..=60));
        let logic_servers: u16 = rng.random_range(1..=3);
        let fair = devices.div_ceil(logic_servers.into());
        let slow_links = rng.random_ratio(1, 4);
        let mut every =
            |low: u64, high: u64| rng.random_ratio(2, 3).then(|| rng.random_range(low..=high));
        let faults = Faults {
            reset_every_ms: every(300, 20_000),
            silence_every_ms: every(1_000, 60_000),
            link_every_ms: every(3_000, 60_000),
            kill_logic_every_ms: every(20_000, 120_000),
            kill_conn_every_ms: every(20_000, 120_000),
            replay_every_ms: every(500, 10_000),
            ..Faults::default()
        };
        let mut of_1000 = |high: u32| {
            if rng.random_ratio(2, 3) {
                rng.random_range(1..=high)
            } else {
                0
            }
        };
        let faults = Faults {
            write_fails: of_1000(300),
            commit_unknown: of_1000(300),
            write_stalls: of_1000(50),
            poison: of_1000(20),
            byte_by_byte: of_1000(300),
            connect_fails: of_1000(200),
            ..faults
        };
        Self {
            seed,
            devices,
            faults_ms: faults_ms.unwrap_or_else(|| rng.random_range(30_000..=240_000)),
            heal_ms: 900_000,
            logic_servers,
            shards: rng.random_range(1..=3),
            places_max: rng.random_range(fair..=2 * fair.max(1)),
            heartbeat_s: rng.random_range(5..=30),
            window: rng.random_range(1..=8),
            grant_ttl_s: rng.random_range(5..=30),
            report_interval_ms: rng.random_range(200..=10_000),
            batch_rows_max: rng.random_range(1..=5_000),
            network_ms: 1..=rng.random_range(2..=800),
            link_ms: 0..=if slow_links {
                rng.random_range(1..=400)
            } else {
                5
            },
            store_ms: 1..=rng.random_range(2..=200),
            faults,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {} | {} devices | {} logic servers of {} shards and {} places | faults {} s, then heal",
            self.seed,
            self.devices,
            self.logic_servers,
            self.shards,
            self.places_max,
            self.faults_ms / 1_000
        )?;
        writeln!(
            f,
            "  heartbeat {} s, window {}, grants {} s, a report each {} ms, batches of {}",
            self.heartbeat_s,
            self.window,
            self.grant_ttl_s,
            self.report_interval_ms,
            self.batch_rows_max
        )?;
        writeln!(
            f,
            "  network {:?} ms, links {:?} ms, store {:?} ms",
            self.network_ms, self.link_ms, self.store_ms
        )?;
        write!(f, "  {:?}", self.faults)
    }
}
