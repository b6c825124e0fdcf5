//! How the figures of one thread come to be read by others: a store each at the end of a turn, and
//! nobody is asked.

mod board;

pub use board::{Board, Figure, Snapshot};

use std::sync::atomic::{AtomicU64, Ordering};

use crate::histogram::{self, BUCKETS, Histogram};

/// What one core counted, for others to read. The figures are not of the very same moment.
#[derive(Debug)]
pub struct Published<const N: usize>([AtomicU64; N]);

impl<const N: usize> Published<N> {
    /// A store is all that a figure costs.
    pub fn publish(&self, figures: &[u64; N]) {
        for (shown, figure) in self.0.iter().zip(figures) {
            shown.store(*figure, Ordering::Relaxed);
        }
    }

    pub fn read(&self) -> [u64; N] {
        std::array::from_fn(|index| self.0[index].load(Ordering::Relaxed))
    }
}

impl<const N: usize> Default for Published<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

/// A histogram that one thread records in, or publishes, and others read.
#[derive(Debug, Default)]
pub struct PublishedHistogram {
    buckets: Published<BUCKETS>,
    sum: AtomicU64,
}

impl PublishedHistogram {
    /// For a shell that has no histogram of its own: this size, so many times.
    pub fn record(&self, size: u64, times: u64) {
        self.buckets.0[histogram::bucket(size)].fetch_add(times, Ordering::Relaxed);
        self.sum.fetch_add(size * times, Ordering::Relaxed);
    }

    pub fn publish(&self, histogram: &Histogram) {
        self.buckets.publish(histogram.counts());
        self.sum.store(histogram.sum(), Ordering::Relaxed);
    }

    pub fn read(&self) -> Histogram {
        Histogram::of(self.buckets.read(), self.sum.load(Ordering::Relaxed))
    }
}

/// A loop that is so late has lost its way: a turn takes milliseconds, and seconds at the very worst.
const STUCK_MS: u64 = 10_000;

/// When a loop, or a task, should have come round, for whoever looks whether it is alive. In a turn: when that
/// began; asleep: when it is to wake by itself. A store each, and nobody is woken for it.
#[derive(Debug)]
pub struct Round {
    due_ms: AtomicU64,
}

/// Nothing is due before the first turn.
impl Default for Round {
    fn default() -> Self {
        Self {
            due_ms: AtomicU64::new(u64::MAX),
        }
    }
}

impl Round {
    /// `now_ms`: monotonic, like all that it is told.
    pub fn begins(&self, now_ms: u64) {
        self.due_ms.store(now_ms, Ordering::Relaxed);
    }

    /// The loop sleeps, `None`: until somebody wakes it. Or it has ended.
    pub fn ends(&self, wakes_ms: Option<u64>) {
        let due_ms = wakes_ms.unwrap_or(u64::MAX);
        self.due_ms.store(due_ms, Ordering::Relaxed);
    }

    /// What is to be told where it has stood still for too long.
    pub fn stuck(&self, name: &str, now_ms: u64) -> Option<String> {
        let late_ms = now_ms.saturating_sub(self.due_ms.load(Ordering::Relaxed));
        (late_ms > STUCK_MS).then(|| format!("{name} has stood still for {late_ms} ms"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_in_either_way_is_read() {
        let (shown, recorded) = (PublishedHistogram::default(), PublishedHistogram::default());
        let mut histogram = Histogram::default();
        for size in [0, 1, 2, 900, u64::MAX >> 8] {
            histogram.record(size);
            recorded.record(size, 1);
        }
        shown.publish(&histogram);
        assert_eq!(shown.read(), histogram);
        assert_eq!(recorded.read(), histogram);
    }

    #[test]
    fn a_loop_is_stuck_in_a_turn_or_asleep_beyond_its_time_and_not_at_rest() {
        let round = Round::default();
        let is_stuck = |now_ms| round.stuck("loop", now_ms).is_some();
        assert!(!is_stuck(u64::MAX), "it has not begun");
        round.begins(5_000);
        assert!(!is_stuck(5_000 + STUCK_MS));
        let told = round.stuck("loop", 5_001 + STUCK_MS);
        assert_eq!(told.as_deref(), Some("loop has stood still for 10001 ms"));
        round.ends(None);
        assert!(!is_stuck(u64::MAX), "it sleeps until it is woken");
        round.ends(Some(8_000));
        assert!(!is_stuck(8_000 + STUCK_MS));
        assert!(is_stuck(8_001 + STUCK_MS));
    }
}
