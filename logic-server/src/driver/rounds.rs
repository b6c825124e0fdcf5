//! Pure. Sockets that had more to read than one read takes, and when each is read again.
//!
//! ```text
//! full read ─▶ waiting ── PAUSE_MS ──▶ round: each once ── full again ──▶ waiting
//! ```
//!
//! What floods is left to its kernel's buffer meanwhile, and TCP slows its sender down: so a session
//! costs its loop one full read in a pause, however fast it sends, and the others wait no longer for it.

use std::collections::VecDeque;

use crate::ids::Slot;

/// Between two reads of a socket that fills them. With reads of 16 KiB 1.6 MB/s, more than a cellular
/// link brings, and at most a fiftieth of a loop's time.
const PAUSE_MS: u64 = 10;

#[derive(Debug, Default)]
pub(super) struct Rounds {
    waiting: VecDeque<Slot>,
    /// Of the round under way, at the front.
    due: usize,
    next_at_ms: u64,
}

impl Rounds {
    pub(super) fn push(&mut self, slot: Slot, now_ms: u64) {
        if self.waiting.is_empty() {
            self.next_at_ms = now_ms + PAUSE_MS;
        }
        self.waiting.push_back(slot);
    }

    /// One whose device has closed its side: what is left has an end, and is to be read before an answer
    /// to it meets nobody, for then the kernel throws the rest away.
    pub(super) fn push_closed(&mut self, slot: Slot) {
        self.waiting.push_front(slot);
        self.due += 1;
    }

    /// The next one that is to be read now.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<Slot> {
        if self.due == 0 && now_ms >= self.next_at_ms {
            self.due = self.waiting.len();
            self.next_at_ms = now_ms + PAUSE_MS;
        }
        self.due = self.due.checked_sub(1)?;
        self.waiting.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When one is to be read; in the past where a round is under way.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        match (self.due, self.is_empty()) {
            (0, true) => None,
            (0, false) => Some(self.next_at_ms),
            _ => Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_due(rounds: &mut Rounds, now_ms: u64) -> Vec<u32> {
        std::iter::from_fn(|| rounds.next(now_ms))
            .map(|slot| slot.0)
            .collect()
    }

    #[test]
    fn each_is_read_once_in_a_pause() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.next_deadline(), None);
        rounds.push(Slot(1), 1_000);
        rounds.push(Slot(2), 1_004);
        assert_eq!(rounds.next_deadline(), Some(1_010));
        assert!(all_due(&mut rounds, 1_009).is_empty());
        assert_eq!(all_due(&mut rounds, 1_010), [1, 2]);
        // Full again at once.
        rounds.push(Slot(1), 1_010);
        assert!(all_due(&mut rounds, 1_019).is_empty());
        assert_eq!(all_due(&mut rounds, 1_020), [1]);
        assert!(rounds.is_empty());
        assert_eq!(rounds.next_deadline(), None);
    }

    #[test]
    fn whoever_has_closed_does_not_wait() {
        let mut rounds = Rounds::default();
        rounds.push(Slot(1), 1_000);
        rounds.push_closed(Slot(2));
        assert_eq!(rounds.next_deadline(), Some(0));
        assert_eq!(all_due(&mut rounds, 1_000), [2]);
        assert_eq!(rounds.next_deadline(), Some(1_010));
        assert_eq!(all_due(&mut rounds, 1_010), [1]);
    }

    #[test]
    fn a_round_that_takes_several_turns_goes_on_at_once_and_takes_no_newcomers() {
        let mut rounds = Rounds::default();
        (1..=3).for_each(|slot| rounds.push(Slot(slot), 0));
        assert_eq!(rounds.next(10), Some(Slot(1)));
        rounds.push(Slot(1), 10);
        assert_eq!(rounds.next_deadline(), Some(0));
        assert_eq!(all_due(&mut rounds, 11), [2, 3]);
        assert_eq!(rounds.next_deadline(), Some(20));
        assert_eq!(all_due(&mut rounds, 20), [1]);
    }
}
