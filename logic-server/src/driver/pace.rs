//! Pure. Whether a loop that has much to do rests between two turns, so that more gathers for the next.
//!
//! To be woken costs a loop more than what it is woken for, and its peers as well: each turn answers in
//! writes and messages of its own. So network cards tell of packets, and so a busy loop turns: about once
//! a millisecond, while one that has little to do turns at once for whatever comes.
//!
//! But one whose devices say that they are there, and nothing else, may let them wait: each wake-up finds
//! cold caches, and a heartbeat's reply is in no hurry. The first of anything else ends that.

use std::time::Duration;

/// What devices and peers wait longer at most, where a loop is busy.
const REST: Duration = Duration::from_millis(1);

/// Over so long it is judged whether a loop is busy.
const WINDOW_MS: u64 = 64;

/// Events and messages of a window from which it is: some 1,500 a second. Fewer are not worth the wait.
const INPUTS_BUSY: u64 = 100;

/// A turn of so many takes as long as the rest: nothing is left to gather.
const INPUTS_MANY: u64 = 64;

/// What a heartbeat, or the first of anything else, waits longer at most, where there was nothing but heartbeats.
const REST_CALM: Duration = Duration::from_millis(40);

/// For so long there must have been nothing else.
const CALM_WINDOW_MS: u64 = 1_000;

/// Heartbeats of that window from which a rest gathers some: one each.
const CALM_HEARTBEATS_MIN: u64 = CALM_WINDOW_MS / REST_CALM.as_millis() as u64;

/// What a turn had to do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inputs {
    /// Events and messages.
    pub(super) all: u64,
    /// Of them, heartbeats that came alone.
    pub(super) heartbeats: u64,
}

#[derive(Debug, Default)]
pub(super) struct Pace {
    window_began_ms: u64,
    inputs: u64,
    is_busy: bool,
    calm_began_ms: u64,
    heartbeats: u64,
    is_calm: bool,
}

impl Pace {
    /// A turn that began then had this to do. Says how long to rest before the next.
    pub(super) fn turned(&mut self, inputs: Inputs, now_ms: u64) -> Option<Duration> {
        self.judge_calm(inputs, now_ms);
        self.judge_busy(inputs.all, now_ms);
        if self.is_calm && inputs.all > 0 {
            return Some(REST_CALM);
        }
        (self.is_busy && inputs.all < INPUTS_MANY).then_some(REST)
    }

    fn judge_calm(&mut self, inputs: Inputs, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.calm_began_ms);
        let is_over = passed_ms >= CALM_WINDOW_MS;
        let others = inputs.all.saturating_sub(inputs.heartbeats);
        if others > 0 {
            self.is_calm = false;
        } else if is_over {
            self.is_calm = self.heartbeats * CALM_WINDOW_MS >= CALM_HEARTBEATS_MIN * passed_ms;
        }
        if others > 0 || is_over {
            self.calm_began_ms = now_ms;
            self.heartbeats = 0;
        }
        self.heartbeats += inputs.heartbeats;
    }

    fn judge_busy(&mut self, inputs: u64, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.window_began_ms);
        if passed_ms >= WINDOW_MS {
            self.is_busy = self.inputs * WINDOW_MS >= INPUTS_BUSY * passed_ms;
            self.inputs = 0;
            self.window_began_ms = now_ms;
        }
        self.inputs += inputs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(all: u64) -> Inputs {
        let heartbeats = 0;
        Inputs { all, heartbeats }
    }

    const HEARTBEAT: Inputs = Inputs {
        all: 1,
        heartbeats: 1,
    };

    /// How many of the turns of a second end in a rest, with one turn each so many milliseconds.
    fn rests(pace: &mut Pace, second: u64, each_ms: u64, inputs: u64) -> usize {
        let turns = (second * 1_000..(second + 1) * 1_000).step_by(each_ms as usize);
        turns
            .filter(|&ms| pace.turned(others(inputs), ms).is_some())
            .count()
    }

    /// What the turns of a second with a heartbeat each say.
    fn beats(pace: &mut Pace, second: u64, each_ms: u64) -> Vec<Option<Duration>> {
        let turns = (second * 1_000..(second + 1) * 1_000).step_by(each_ms as usize);
        turns.map(|ms| pace.turned(HEARTBEAT, ms)).collect()
    }

    #[test]
    fn one_with_nothing_but_heartbeats_lets_them_gather_until_something_else_comes() {
        let mut pace = Pace::default();
        assert_eq!(pace.turned(others(1), 999), None);
        assert!(beats(&mut pace, 1, 10).iter().all(Option::is_none));
        let calm = beats(&mut pace, 2, 10);
        assert!(calm.iter().all(|rest| *rest == Some(REST_CALM)));
        assert_eq!(pace.turned(Inputs::default(), 3_000), None, "nothing came");
        assert_eq!(pace.turned(others(1), 3_010), None);
        assert!(beats(&mut pace, 4, 10).iter().all(Option::is_none));
        assert!(beats(&mut pace, 5, 10)[1..].iter().all(Option::is_some));
    }

    #[test]
    fn after_a_pause_it_is_judged_anew_whether_there_is_nothing_else() {
        let mut pace = Pace::default();
        assert_eq!(pace.turned(others(1), 999), None);
        beats(&mut pace, 1, 10);
        assert!(beats(&mut pace, 2, 10)[50..].iter().all(Option::is_some));
        assert!(beats(&mut pace, 9, 10).iter().all(Option::is_none));
        assert!(beats(&mut pace, 10, 10).iter().all(Option::is_some));
    }

    #[test]
    fn heartbeats_that_nothing_would_gather_with_are_answered_at_once() {
        let mut pace = Pace::default();
        for second in 0..9 {
            let each_ms = REST_CALM.as_millis() as u64 + 5;
            assert!(
                beats(&mut pace, second, each_ms)
                    .iter()
                    .all(Option::is_none)
            );
        }
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
        assert!(pace.turned(others(INPUTS_MANY - 1), 3_000).is_some());
    }

    #[test]
    fn what_comes_after_a_pause_is_not_kept_waiting_for_what_was_before() {
        let mut pace = Pace::default();
        assert!(rests(&mut pace, 1, 1, 5) > 900);
        assert_eq!(pace.turned(others(1), 10_000), None);
        assert_eq!(rests(&mut pace, 11, 1, 1), 0);
    }
}
