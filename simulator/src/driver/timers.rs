//! Pure. Who is due: a heap of deadlines that tolerates old ones.
//!
//! Most deadlines move further away all the time (silence, unanswered frames). Moving one in a
//! heap costs more than finding, when it comes up, that it is not due after all. So a device has
//! at most one entry that counts, the earliest it ever asked for, and re-arms when that comes up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    /// By index: the entry that counts.
    armed: Vec<Option<u64>>,
}

impl Timers {
    pub(super) fn new(count: usize) -> Self {
        Self {
            heap: BinaryHeap::new(),
            armed: vec![None; count],
        }
    }

    /// The index is to come up at `deadline_ms`, or before.
    pub(super) fn arm(&mut self, index: usize, deadline_ms: u64) {
        let Some(armed) = self.armed.get_mut(index) else {
            return;
        };
        if armed.is_none_or(|armed_ms| armed_ms > deadline_ms) {
            *armed = Some(deadline_ms);
            self.heap.push(Reverse((deadline_ms, index)));
        }
    }

    /// The next index that has come up; it is no longer armed.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<usize> {
        while let Some(&Reverse((deadline_ms, index))) = self.heap.peek()
            && deadline_ms <= now_ms
        {
            self.heap.pop();
            let armed = self.armed.get_mut(index)?;
            if *armed == Some(deadline_ms) {
                *armed = None;
                return Some(index);
            }
        }
        None
    }

    pub(super) fn next_ms(&self) -> Option<u64> {
        self.heap
            .peek()
            .map(|Reverse((deadline_ms, _))| *deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_asked_for_comes_up_once() {
        let mut timers = Timers::new(3);
        timers.arm(0, 50);
        timers.arm(1, 40);
        timers.arm(0, 30);
        timers.arm(0, 90);
        assert_eq!(timers.next_ms(), Some(30));
        assert_eq!(timers.pop(29), None);
        assert_eq!(timers.pop(100), Some(0));
        assert_eq!(timers.pop(100), Some(1));
        // The entry at 50 does not count any more.
        assert_eq!(timers.pop(100), None);
        timers.arm(0, 60);
        assert_eq!(timers.pop(100), Some(0));
        assert_eq!(timers.next_ms(), None);
    }
}
