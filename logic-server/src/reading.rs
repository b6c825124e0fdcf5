//! Pure. Until when a loop has read everything that its devices sent.
//!
//! A loop that was stopped, or is behind, looks at its clock before it has read what waited for it
//! in the kernel meanwhile. A device is silent only as far as the loop has listened; so a session is
//! measured against this time and not against the clock.
//!
//! ```text
//! turn 1: poll ── now ── read all     turn 2: poll ──── now ── read all
//!                  │                           ▲
//!                  ╰── all that was sent until here is in what turn 2 reads
//! ```
//!
//! Readiness comes in the order in which it arose, a limited number at a time. A turn that leaves
//! some of it is followed by others until as much has been handed out as there are sockets: a few
//! devices that flood do not keep the silent ones for ever.

#[derive(Debug, Default)]
pub struct Reading {
    /// Everything that was sent until then has been read.
    until_ms: u64,
    /// What was sent until then is being handed out.
    asked_ms: u64,
    /// Handed out since.
    handed_out: usize,
}

impl Reading {
    /// A turn of this time has read what its poll told of, at least `handed_out` sockets where
    /// `left` says that more may wait; the loop has `sockets` in all.
    pub fn turn(&mut self, now_ms: u64, handed_out: usize, left: bool, sockets: usize) {
        self.handed_out += handed_out;
        if !left || self.handed_out >= sockets {
            self.until_ms = self.asked_ms;
            self.asked_ms = now_ms;
            self.handed_out = 0;
        }
    }

    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_read_what_was_sent_until_the_turn_before() {
        let mut reading = Reading::default();
        reading.turn(1_000, 3, false, 10);
        assert_eq!(reading.until_ms(), 0);
        reading.turn(2_000, 0, false, 10);
        assert_eq!(reading.until_ms(), 1_000);
    }

    #[test]
    fn a_pause_is_no_time_in_which_anybody_was_listened_to() {
        let mut reading = Reading::default();
        reading.turn(1_000, 0, false, 10);
        reading.turn(61_000, 0, false, 10);
        assert_eq!(reading.until_ms(), 1_000);
        reading.turn(61_001, 10, false, 10);
        assert_eq!(reading.until_ms(), 61_000);
    }

    #[test]
    fn a_loop_that_is_behind_has_read_nothing_later_than_what_it_asked_for() {
        let mut reading = Reading::default();
        reading.turn(1_000, 0, false, 1_000);
        for turn in 0..3 {
            reading.turn(2_000 + turn, 256, true, 1_000);
            assert_eq!(reading.until_ms(), 0);
        }
        // As many as there are sockets: everyone was among them.
        reading.turn(2_003, 256, true, 1_000);
        assert_eq!(reading.until_ms(), 1_000);
        reading.turn(2_004, 256, true, 1_000);
        assert_eq!(reading.until_ms(), 1_000);
        reading.turn(2_005, 5, false, 1_000);
        assert_eq!(reading.until_ms(), 2_003);
    }
}
