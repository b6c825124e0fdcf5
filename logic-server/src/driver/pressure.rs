//! Pure. How many connections a gate accepts, while there are more than it can do anything with.
//!
//! A connection that is pushed out by a later one cost its accept, its place in the poll and its close for nothing, and
//! whoever opens them opens as many as it is given time for: measured, 15,000 a second of one address had the sessions
//! of the node wait 6 to 12 times as long. So while connections are pushed out, accepts are put off. What waits then
//! waits in the kernel's queue; beyond that the kernel drops attempts, and a device's own kernel repeats them after a
//! second.

use std::time::Duration;

/// Connections accepted in one turn: what is attached already is not to wait for a storm of logins.
const ACCEPTS_PER_TURN: u64 = 64;

/// The same under pressure; with the rest after each turn, 4,000 a second at most.
const ACCEPTS_PER_TURN_PRESSED: u64 = 8;

/// After a turn under pressure.
const REST_PRESSED: Duration = Duration::from_millis(2);

/// For so long after a connection was pushed out.
const PRESSED_MS: u64 = 100;

#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Connections pushed out so far.
    shed: u64,
    until_ms: u64,
}

impl Pressure {
    /// The end of a turn: so many were pushed out since the start. Says how long to rest, whatever is left.
    pub(super) fn turned(&mut self, shed: u64, now_ms: u64) -> Option<Duration> {
        if shed > self.shed {
            self.shed = shed;
            self.until_ms = now_ms + PRESSED_MS;
        }
        self.is_on(now_ms).then_some(REST_PRESSED)
    }

    pub(super) fn accepts_max(&self, now_ms: u64) -> u64 {
        match self.is_on(now_ms) {
            true => ACCEPTS_PER_TURN_PRESSED,
            false => ACCEPTS_PER_TURN,
        }
    }

    fn is_on(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_are_put_off_while_connections_are_pushed_out_and_a_moment_longer() {
        let mut pressure = Pressure::default();
        assert_eq!(pressure.turned(0, 1_000), None);
        assert_eq!(pressure.accepts_max(1_000), ACCEPTS_PER_TURN);
        assert_eq!(pressure.turned(3, 1_001), Some(REST_PRESSED));
        assert_eq!(pressure.accepts_max(1_002), ACCEPTS_PER_TURN_PRESSED);
        assert_eq!(pressure.turned(4, 1_090), Some(REST_PRESSED));
        assert_eq!(pressure.turned(4, 1_189), Some(REST_PRESSED));
        assert_eq!(pressure.turned(4, 1_190), None);
        assert_eq!(pressure.accepts_max(1_190), ACCEPTS_PER_TURN);
    }
}
