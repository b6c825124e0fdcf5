//! What a fleet runs: devices that keep the contract, each of another make, drawn for each run.

use rand::RngExt;
use rand::rngs::SmallRng;
use simulator::device::Settings;

use crate::plan::{Class, Plan};

/// The make of a device that keeps the contract.
#[derive(Clone, Debug)]
pub struct Firmware {
    pub settings: Settings,
    /// It reads up to so much later than there is something to read.
    pub reads_late_ms: u64,
    /// Of 1,000 connections: begin at a new address.
    pub roams: u32,
    /// Records that one measurement gives at most.
    pub burst_max: usize,
}

/// Records that a device keeps at most.
pub const RECORDS_MAX: usize = 2_048;

impl Firmware {
    pub fn draw(plan: &Plan, rng: &mut SmallRng) -> Self {
        let has = |class: Class, rng: &mut SmallRng| {
            rng.random_range(0..1_000) < plan.faults.of_1000(class)
        };
        let reads_late_ms = match has(Class::SlowReader, rng) {
            true => 1 << rng.random_range(4..=15),
            false => 0,
        };
        let roams = match has(Class::Roaming, rng) {
            true => rng.random_range(100..=1_000),
            false => 0,
        };
        let interval_ms = u64::from(plan.report_interval_ms) * rng.random_range(5..=20) / 10;
        Self {
            settings: Settings {
                report_interval_ms: u32::try_from(interval_ms).unwrap_or(u32::MAX),
                frame_records_max: rng.random_range(1..=20),
                frames_open_max: 1 << rng.random_range(0..=6),
                records_max: 1 << rng.random_range(6..=RECORDS_MAX.ilog2()),
                boot_ms: rng.random_range(0..=2_000),
                battery_clock: rng.random_ratio(3, 4),
                ..Settings::default()
            },
            reads_late_ms,
            roams,
            burst_max: rng.random_range(1..=4),
        }
    }
}
