//! Simulated devices, as `demo` and `simulate` run them.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use simulator::device::Identity;
use simulator::driver::{self, Outcome, Simulator, SimulatorError};

/// How long devices that have stopped reporting wait for their answers.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// 2026-01-01T00:00:00Z.
const BOOT_COUNTERS_BEGIN_S: u64 = 1_767_225_600;

/// What a fleet of `identities` is started with; `every` device reports that often.
pub(crate) fn settings(
    balancers: Vec<String>,
    identities: Vec<Identity>,
    every: Duration,
) -> driver::Settings {
    driver::Settings {
        balancers,
        identities,
        device: simulator::device::Settings {
            report_interval_ms: u32::try_from(every.as_millis()).unwrap_or(u32::MAX),
            ..simulator::device::Settings::default()
        },
        boot_counter: boot_counter(),
        seed: rand::random(),
        ..driver::Settings::default()
    }
}

/// Simulated devices have no memory of their last run. Seconds since 2026 grow from run to run as a
/// boot counter must, and stay below 2^31 for 68 years.
fn boot_counter() -> u32 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = since_1970.as_secs().saturating_sub(BOOT_COUNTERS_BEGIN_S);
    u32::try_from(seconds).map_or(1, |seconds| seconds.max(1))
}

/// The devices make no more records and wait for their answers.
///
/// # Errors
/// The simulator ended by itself before.
pub(crate) async fn stop(simulator: Simulator) -> Result<Outcome, SimulatorError> {
    let stopped = tokio::task::spawn_blocking(move || simulator.stop(PATIENCE)).await;
    stopped.unwrap_or_else(|error| Err(SimulatorError::Loop(io::Error::other(error))))
}
