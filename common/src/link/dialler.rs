//! Pure. How long an attempt to link may take, and when the next one follows.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Connect and handshake together.
pub const ATTEMPT_MS_MAX: u64 = 3_000;

const WAIT_MS_FIRST: u64 = 100;
const WAIT_MS_MAX: u64 = 1_500;

/// What was cut off has to be told within 5 s of its heal which of its sessions are outdated. At
/// worst an attempt has just begun in vain; what is left is for the sessions to be listed.
const _: () = assert!(ATTEMPT_MS_MAX + WAIT_MS_MAX <= 4_500);

/// A link that lasted this long was a good one: the next attempt is the first again.
const GOOD_MS: u64 = 10_000;

/// One target, which is dialled for ever.
#[derive(Debug)]
pub struct Dialler {
    attempts: u32,
    random: SmallRng,
}

impl Dialler {
    /// `seed` governs the spread of the waits.
    pub fn new(seed: u64) -> Self {
        Self {
            attempts: 0,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// A link that stood for so long is over.
    pub fn lost(&mut self, lasted_ms: u64) {
        if lasted_ms >= GOOD_MS {
            self.attempts = 0;
        }
    }

    /// From the end of an attempt or of a link to the next attempt: anything up to a bound that
    /// doubles (full jitter), so that a hundred links to a restarted node do not come at once.
    pub fn next_wait_ms(&mut self) -> u64 {
        let most_ms = wait_ms_max(self.attempts);
        self.attempts += 1;
        self.random.random_range(0..=most_ms)
    }
}

fn wait_ms_max(attempts: u32) -> u64 {
    let doubled = 1u64.checked_shl(attempts).unwrap_or(u64::MAX);
    WAIT_MS_FIRST.saturating_mul(doubled).min(WAIT_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_from_100_ms_to_1500() {
        let steps: Vec<u64> = (0..6).map(wait_ms_max).collect();
        assert_eq!(steps, [100, 200, 400, 800, 1_500, 1_500]);
        assert_eq!(wait_ms_max(u32::MAX), 1_500);
    }

    #[test]
    fn waits_are_spread_below_their_bound_and_small_again_after_a_good_link() {
        let mut dialler = Dialler::new(1);
        let waits: Vec<u64> = (0..1_000).map(|_| dialler.next_wait_ms()).collect();
        let longest = waits.iter().max().copied();
        assert!(longest.is_some_and(|ms| (1_450..=1_500).contains(&ms)));
        assert!(waits.iter().any(|ms| *ms < 50));
        dialler.lost(9_999);
        assert_eq!(dialler.attempts, 1_000, "it was none");
        dialler.lost(10_000);
        assert!(dialler.next_wait_ms() <= 100);
    }
}
