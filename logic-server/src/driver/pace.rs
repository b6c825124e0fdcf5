//! Pure. Whether a loop that has much to do rests between two turns, so that more gathers for the next.
//!
//! To be woken costs a loop more than what it is woken for, and its peers as well: each turn answers in
//! writes and messages of its own. So network cards tell of packets, and so a busy loop turns: about once
//! a millisecond, while one that has little to do turns at once for whatever comes.

use std::time::Duration;

/// What devices and peers wait longer at most, where a loop is busy.
const REST: Duration = Duration::from_millis(1);

/// Over so long it is judged whether a loop is busy.
const WINDOW_MS: u64 = 64;

/// Events and messages of a window from which it is: some 1,500 a second. Fewer are not worth the wait.
const INPUTS_BUSY: u64 = 100;

/// A turn of so many takes as long as the rest: nothing is left to gather.
const INPUTS_MANY: u64 = 64;

#[derive(Debug, Default)]
pub(super) struct Pace {
    window_began_ms: u64,
    inputs: u64,
    is_busy: bool,
}

impl Pace {
    /// A turn that began then had so many events and messages. Says how long to rest before the next.
    pub(super) fn turned(&mut self, inputs: u64, now_ms: u64) -> Option<Duration> {
        let passed_ms = now_ms.saturating_sub(self.window_began_ms);
        if passed_ms >= WINDOW_MS {
            self.is_busy = self.inputs * WINDOW_MS >= INPUTS_BUSY * passed_ms;
            self.inputs = 0;
            self.window_began_ms = now_ms;
        }
        self.inputs += inputs;
        (self.is_busy && inputs < INPUTS_MANY).then_some(REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the turns of a second end in a rest, with one turn each so many milliseconds.
    fn rests(pace: &mut Pace, second: u64, each_ms: u64, inputs: u64) -> usize {
        let turns = (second * 1_000..(second + 1) * 1_000).step_by(each_ms as usize);
        turns
            .filter(|&ms| pace.turned(inputs, ms).is_some())
            .count()
    }

    #[test]
    fn one_that_has_little_to_do_never_rests() {
        assert_eq!(rests(&mut Pace::default(), 7, 1, 1), 0);
        assert_eq!(rests(&mut Pace::default(), 7, 10, 15), 0);
    }

    #[test]
    fn one_that_is_busy_rests_but_after_a_turn_that_was_long() {
        let mut pace = Pace::default();
        let before_it_is_seen = WINDOW_MS as usize;
        assert_eq!(rests(&mut pace, 1, 1, 2), 1_000 - before_it_is_seen);
        assert_eq!(rests(&mut pace, 2, 1, INPUTS_MANY), 0);
        assert!(pace.turned(INPUTS_MANY - 1, 3_000).is_some());
    }

    #[test]
    fn what_comes_after_a_pause_is_not_kept_waiting_for_what_was_before() {
        let mut pace = Pace::default();
        assert!(rests(&mut pace, 1, 1, 5) > 900);
        assert_eq!(pace.turned(1, 10_000), None);
        assert_eq!(rests(&mut pace, 11, 1, 1), 0);
    }
}
