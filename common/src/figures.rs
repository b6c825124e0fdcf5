//! How the figures of one thread come to be read by others: a store each at the end of a turn, and
//! nobody is asked.

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
}
