//! Pure. A device's own idea of the time: an offset over the driver's monotonic clock, so that a
//! test can break it without touching a timer.

use protocols::rcu::telemetry::RECORDED_AT_MS_MAX;

/// A device follows the cluster's time when it is further off than this.
const FOLLOW_MS: u64 = 2_000;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// Unix time minus the monotonic clock; `None`: the time is not known.
    offset_ms: Option<i64>,
}

impl Clock {
    /// The Unix time at a moment of the monotonic clock, also one before the time was known.
    pub(super) fn unix_ms(&self, at_ms: u64) -> Option<u64> {
        let unix_ms = self.offset_ms?.saturating_add_unsigned(at_ms);
        Some(u64::try_from(unix_ms).unwrap_or(0).min(RECORDED_AT_MS_MAX))
    }

    /// Sets the time and says by how much it was off; nothing happens where `unix_ms` is no time
    /// of this protocol.
    pub(super) fn set(&mut self, unix_ms: u64, now_ms: u64) -> Option<i64> {
        if !(1..=RECORDED_AT_MS_MAX).contains(&unix_ms) {
            return None;
        }
        let offset_ms = unix_ms.cast_signed().saturating_sub_unsigned(now_ms);
        let before_ms = self.offset_ms.replace(offset_ms);
        Some(offset_ms.saturating_sub(before_ms.unwrap_or(0)))
    }

    /// Follows the cluster's time where it is off, or not known, by more than 2 s.
    pub(super) fn follow(&mut self, server_time_ms: u64, now_ms: u64) -> Option<i64> {
        match self.unix_ms(now_ms) {
            Some(unix_ms) if unix_ms.abs_diff(server_time_ms) <= FOLLOW_MS => None,
            _ => self.set(server_time_ms, now_ms),
        }
    }

    pub(super) fn forget(&mut self) {
        self.offset_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_with_the_monotonic_clock_and_back_from_when_it_was_set() {
        let mut clock = Clock::default();
        assert_eq!(clock.unix_ms(5), None);
        assert_eq!(clock.set(1_000_000, 500), Some(999_500));
        assert_eq!(clock.unix_ms(500), Some(1_000_000));
        assert_eq!(clock.unix_ms(700), Some(1_000_200));
        assert_eq!(clock.unix_ms(100), Some(999_600));
    }

    #[test]
    fn it_follows_beyond_two_seconds_only() {
        let mut clock = Clock::default();
        clock.set(1_000_000, 0);
        for server_time_ms in [998_000, 1_000_000, 1_002_000] {
            assert_eq!(clock.follow(server_time_ms, 0), None);
        }
        assert_eq!(clock.follow(1_002_001, 0), Some(2_001));
        assert_eq!(clock.follow(900_000, 0), Some(-102_001));
        clock.forget();
        assert!(clock.follow(900_001, 0).is_some());
        assert_eq!(clock.unix_ms(0), Some(900_001));
    }

    #[test]
    fn a_time_that_is_none_changes_nothing() {
        let mut clock = Clock::default();
        assert_eq!(clock.set(0, 7), None);
        assert_eq!(clock.set(u64::MAX, 7), None);
        assert_eq!(clock.unix_ms(7), None);
        assert!(clock.set(1, u64::MAX >> 2).is_some());
        assert_eq!(clock.unix_ms(0), Some(0));
    }
}
