//! Where a process says what happens to it.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Overrides what a command logs, for example `RCU_LOG=debug` or `RCU_LOG=logic_server=trace`.
pub const FILTER_VARIABLE: &str = "RCU_LOG";

/// Logs to standard error: `filter` decides what, unless [`FILTER_VARIABLE`] is set.
///
/// # Errors
/// The variable holds no valid filter.
pub fn to_stderr(filter: &str) -> Result<(), String> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(wanted) => EnvFilter::try_new(&wanted)
            .map_err(|error| format!("{FILTER_VARIABLE}={wanted}: {error}"))?,
        Err(_) => EnvFilter::new(filter),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}
