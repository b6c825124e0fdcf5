//! Logic servers whose process stands still: so long they can neither hear nor close.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Stillness {
    stopped: BTreeSet<usize>,
    went_on_ms: BTreeMap<usize, u64>,
}

impl Stillness {
    pub(super) fn stopped(&mut self, node: usize) {
        self.stopped.insert(node);
    }

    /// It has read what waited for it.
    pub(super) fn went_on(&mut self, node: usize, now_ms: u64) {
        self.stopped.remove(&node);
        self.went_on_ms.insert(node, now_ms);
    }

    pub(super) fn died(&mut self, node: usize) {
        self.stopped.remove(&node);
        self.went_on_ms.remove(&node);
    }

    /// From when on it can do what was due at that time; `None`: it stands still.
    pub(super) fn can_from_ms(&self, node: usize, at_ms: u64) -> Option<u64> {
        let went_on_ms = self.went_on_ms.get(&node).copied().unwrap_or_default();
        (!self.stopped.contains(&node)).then_some(at_ms.max(went_on_ms))
    }
}
