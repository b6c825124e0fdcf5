//! Times as people read them.

use std::time::{Duration, UNIX_EPOCH};

/// The end of the year 9999, the last that can be written so.
const UNIX_MS_MAX: u64 = 253_402_300_799_999;

/// Unix milliseconds as a date and a time of day, UTC.
pub(crate) fn date(unix_ms: u64) -> String {
    let since = Duration::from_millis(unix_ms.min(UNIX_MS_MAX));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}
