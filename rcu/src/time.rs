//! Times as people read them, and the ends of lists that they do not read.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

/// The end of the year 9999, the last that can be written so.
const UNIX_MS_MAX: u64 = 253_402_300_799_999;

/// Unix milliseconds as a date and a time of day, UTC.
pub(crate) fn date(unix_ms: u64) -> String {
    let since = Duration::from_millis(unix_ms.min(UNIX_MS_MAX));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

/// Whoever reads only the beginning of a list has what they wanted.
pub(crate) fn had_enough(
    error: Box<dyn std::error::Error>,
) -> Result<(), Box<dyn std::error::Error>> {
    match error.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_closes_a_list_early_had_enough() {
        let broken_pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(had_enough(broken_pipe.into()).is_ok());
        assert!(had_enough(io::Error::other("disk").into()).is_err());
    }
}
