//! L3: questions that have to be answered in time, whatever happens behind them.

use std::collections::{BTreeMap, VecDeque};

/// Who waits for an answer. All have the same time, so who asked first is due first.
#[derive(Debug)]
pub(super) struct Waits<K> {
    within_ms: u64,
    open: BTreeMap<K, u64>,
    due: VecDeque<(u64, K)>,
}

impl<K: Copy + Ord> Waits<K> {
    pub(super) fn new(within_ms: u64) -> Self {
        Self {
            within_ms,
            open: BTreeMap::new(),
            due: VecDeque::new(),
        }
    }

    pub(super) fn asked(&mut self, who: K, now_ms: u64) {
        let due_ms = now_ms + self.within_ms;
        self.open.insert(who, due_ms);
        self.due.push_back((due_ms, who));
    }

    /// It was answered, or is not there any more.
    pub(super) fn over(&mut self, who: K) {
        self.open.remove(&who);
    }

    pub(super) fn forget(&mut self, gone: impl Fn(&K) -> bool) {
        self.open.retain(|who, _| !gone(who));
    }

    /// Who has waited too long.
    pub(super) fn overdue(&mut self, now_ms: u64) -> Option<K> {
        while let Some((due_ms, who)) = self.due.front().copied()
            && due_ms < now_ms
        {
            self.due.pop_front();
            if self.open.get(&who) == Some(&due_ms) {
                return Some(who);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_answered_in_time_is_named() {
        let mut waits = Waits::new(6_000);
        waits.asked(1, 0);
        waits.asked(2, 10);
        waits.asked(3, 20);
        waits.over(1);
        assert_eq!(waits.overdue(6_010), None);
        assert_eq!(waits.overdue(6_011), Some(2));
        waits.over(3);
        // Asked again, it has its time anew.
        waits.asked(3, 5_000);
        assert_eq!(waits.overdue(11_000), None);
        assert_eq!(waits.overdue(11_001), Some(3));
    }
}
