//! The highest epoch that a process knows of, shared by all its links.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::epoch::Epoch;

/// Every message is stamped with it, wherever it is sent from, and what comes in may raise it.
#[derive(Debug, Default)]
pub(super) struct HighestEpoch(AtomicI64);

impl HighestEpoch {
    pub(super) fn observe(&self, epoch: Epoch) {
        self.0.fetch_max(epoch.to_i64(), Ordering::Relaxed);
    }

    pub(super) fn load(&self) -> Epoch {
        Epoch::from_i64(self.0.load(Ordering::Relaxed)).unwrap_or(Epoch::ZERO)
    }
}
