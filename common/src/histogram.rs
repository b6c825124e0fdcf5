//! Pure. How often which size occurred: the same bounds for everything, powers of two.
//!
//! ```text
//! bucket   0   1   2    3     4  …    26         27
//! holds    ≤1  ≤2  ≤4   ≤8   ≤16  …   ≤67,108,864  everything beyond
//! ```
//!
//! In microseconds that is from one to 67 seconds, in milliseconds to 18 hours, and for rows more
//! than any batch has; a bound is at most twice what it stands for. Few enough to be shown for every
//! node.

/// With the one beyond all bounds.
pub const BUCKETS: usize = 28;

/// Sizes in one unit, which whoever shows them knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Histogram {
    /// As it was published.
    pub fn of(buckets: [u64; BUCKETS], sum: u64) -> Self {
        Self { buckets, sum }
    }

    pub fn record(&mut self, size: u64) {
        self.buckets[bucket(size)] += 1;
        self.sum = self.sum.saturating_add(size);
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Of all sizes.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How many are in each bucket, with the highest size that it holds; `None`: there is none.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = (0..BUCKETS - 1).map(|index| Some(1 << index)).chain([None]);
        bounds.zip(self.buckets)
    }

    /// In the order of the buckets.
    pub fn counts(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }
}

/// Which bucket a size is in.
pub fn bucket(size: u64) -> usize {
    // The exponent of the next power of two: 3 and 4 are in bucket 2.
    let exponent = u64::BITS - size.saturating_sub(1).leading_zeros();
    (exponent as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        for size in (0..100).chain([1 << 26, (1 << 26) + 1, u64::MAX]) {
            let mut histogram = Histogram::default();
            histogram.record(size);
            let mut within = histogram.buckets();
            let (bound, _) = within.find(|(_, count)| *count == 1).unwrap_or_default();
            let expected = (0..27).map(|n| 1 << n).find(|&bound| size <= bound);
            assert_eq!(bound, expected, "{size}");
        }
    }

    #[test]
    fn two_together_are_their_sum() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.record(3);
        other.record(3);
        other.record(100);
        one.merge(&other);
        assert_eq!((one.count(), one.sum()), (3, 106));
        assert_eq!(one, Histogram::of(*one.counts(), 106));
    }
}
