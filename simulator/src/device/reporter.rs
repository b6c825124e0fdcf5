//! Pure. When a device measures: first after a random part of its interval, then at every
//! interval with a tenth of jitter, so that a fleet that starts at once does not report at once.

use rand::RngExt;
use rand::rngs::SmallRng;

#[derive(Debug, Default)]
pub(super) struct Reporter {
    /// 0: it does not measure of itself.
    interval_ms: u64,
    next_ms: Option<u64>,
    stopped: bool,
}

impl Reporter {
    /// Begins, or begins anew with another interval.
    pub(super) fn start(&mut self, interval_ms: u32, now_ms: u64, rng: &mut SmallRng) {
        self.interval_ms = interval_ms.into();
        let measures = interval_ms > 0 && !self.stopped;
        self.next_ms = measures.then(|| now_ms + rng.random_range(0..=self.interval_ms));
    }

    /// The device is off.
    pub(super) fn pause(&mut self) {
        self.next_ms = None;
    }

    /// For good.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.pause();
    }

    /// Whether a report is due; the next one follows after an interval from now.
    pub(super) fn is_due(&mut self, now_ms: u64, rng: &mut SmallRng) -> bool {
        if self.next_ms.is_none_or(|next_ms| next_ms > now_ms) {
            return false;
        }
        let jitter_ms = self.interval_ms / 10;
        let interval_ms =
            rng.random_range(self.interval_ms - jitter_ms..=self.interval_ms + jitter_ms);
        self.next_ms = Some(now_ms + interval_ms);
        true
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.next_ms
    }
}
