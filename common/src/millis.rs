//! Pure. Lengths of time as the cores and the messages count them.

use std::time::Duration;

/// Whole milliseconds; `u64::MAX` for what is longer than that many.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
