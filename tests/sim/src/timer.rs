//! One timer per core: the core says when it wants to be woken, the event heap wakes it.

/// Remembers the earliest wake-up that stands in the heap, so that each is there once.
#[derive(Debug, Default)]
pub struct Timer {
    armed_at_ms: Option<u64>,
}

impl Timer {
    /// The time for which a new wake-up has to be put into the heap, if one is needed.
    pub fn arm(&mut self, deadline_ms: Option<u64>, now_ms: u64) -> Option<u64> {
        let at_ms = deadline_ms?.max(now_ms);
        if self.armed_at_ms.is_some_and(|armed| armed <= at_ms) {
            return None;
        }
        self.armed_at_ms = Some(at_ms);
        Some(at_ms)
    }

    /// A wake-up came, perhaps late. Whether it is the one that counts.
    pub fn fires(&mut self, now_ms: u64) -> bool {
        self.armed_at_ms.take_if(|at_ms| *at_ms <= now_ms).is_some()
    }
}
