//! The time as all loops and tasks of a node see it.

use std::time::{Duration, Instant};

use common::millis::millis;
use common::process::clock::unix_ms;
use common::time::Now;

/// Monotonic milliseconds since its making, the same for whoever has a copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            ms: millis(self.start.elapsed()),
            unix_ms: unix_ms(),
        }
    }

    /// Monotonic microseconds, to measure by.
    pub(crate) fn us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) async fn sleep_until(&self, at_ms: u64) {
        let wait_ms = at_ms.saturating_sub(self.now().ms);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }

    /// What `future` gives; `None`: not by `at_ms`.
    pub(crate) async fn by<T>(&self, at_ms: u64, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            given = future => Some(given),
            () = self.sleep_until(at_ms) => None,
        }
    }
}
