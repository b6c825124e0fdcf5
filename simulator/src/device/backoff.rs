//! Pure. How long a device waits: contract, sections 2 and 5.

use rand::RngExt;
use rand::rngs::SmallRng;

/// A device waits no longer than this, whatever it is told.
const WAIT_MS_MAX: u64 = 3_600_000;
/// Where the steps stop growing; the longest step lies between half of it and all of it.
const STEP_MS_MAX: u64 = 300_000;
/// The limit of the first step. It doubles with each, and passes [`STEP_MS_MAX`] at the ninth.
const STEP_MS: u64 = 1_000;

/// Full jitter: every step is drawn anew between nothing and its limit.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// The wait after a failed try.
    pub(super) fn step(&mut self, rng: &mut SmallRng) -> u64 {
        let limit_ms = (STEP_MS << self.attempt.min(9)).min(STEP_MS_MAX);
        self.attempt = self.attempt.saturating_add(1);
        rng.random_range(0..=limit_ms)
    }

    /// The wait where the contract says "longest step": a failed try like any other where the
    /// cluster named no wait.
    pub(super) fn longest(&mut self, retry_after_ms: u32, rng: &mut SmallRng) -> u64 {
        if retry_after_ms == 0 {
            self.attempt = self.attempt.saturating_add(1);
        }
        rng.random_range(STEP_MS_MAX / 2..=STEP_MS_MAX)
    }

    pub(super) fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// What the cluster told, within bounds; `None` where it left the wait to the backoff.
pub(super) fn told(retry_after_ms: u32) -> Option<u64> {
    (retry_after_ms > 0).then_some(WAIT_MS_MAX.min(retry_after_ms.into()))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// The largest of many draws is close to the limit, the smallest close to nothing.
    fn extremes(attempt: u32) -> (u64, u64) {
        let mut rng = SmallRng::seed_from_u64(7);
        let draw = |_| Backoff { attempt }.step(&mut rng);
        let steps: Vec<u64> = (0..2_000).map(draw).collect();
        (
            steps.iter().copied().min().unwrap_or(0),
            steps.iter().copied().max().unwrap_or(0),
        )
    }

    #[test]
    fn a_step_is_drawn_below_a_limit_that_doubles_up_to_300_s() {
        for (attempt, limit_ms) in [
            (0, 1_000),
            (1, 2_000),
            (2, 4_000),
            (8, 256_000),
            (9, 300_000),
            (70, 300_000),
            (u32::MAX, 300_000),
        ] {
            let (least, most) = extremes(attempt);
            assert!(least <= limit_ms / 100, "{least} of {limit_ms}");
            assert!(
                (limit_ms / 100 * 99..=limit_ms).contains(&most),
                "{most} of {limit_ms}"
            );
        }
    }

    #[test]
    fn attempts_grow_with_each_step_and_begin_again() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        for attempt in 0..12 {
            assert_eq!(backoff.attempt, attempt);
            backoff.step(&mut rng);
        }
        backoff.reset();
        assert!(backoff.step(&mut rng) <= 1_000);
    }

    #[test]
    fn the_longest_step_is_long_and_a_failed_try_only_where_no_wait_was_named() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            assert!((150_000..=300_000).contains(&backoff.longest(0, &mut rng)));
        }
        assert_eq!(backoff.attempt, 100);
        assert!((150_000..=300_000).contains(&backoff.longest(5, &mut rng)));
        assert_eq!(backoff.attempt, 100);
    }

    #[test]
    fn what_is_told_is_bounded_by_an_hour() {
        assert_eq!(told(0), None);
        assert_eq!(told(1), Some(1));
        assert_eq!(told(3_600_001), Some(3_600_000));
        assert_eq!(told(u32::MAX), Some(3_600_000));
    }
}
