//! Pure. Pacing, not banning: what a login must pass before its proof is looked at.
//!
//! Limits are per source and in all, and never per account alone: else whoever knows a device's name
//! could lock it out. What wrong proofs slow down is this account from this source.

use std::net::IpAddr;

use common::ids::AccountName;
use common::pacing::{Buckets, Limit, Pacer, Rate, Source, jittered};
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// After [`WRONG_PROOFS_FREE`] wrong proofs of one account from one source, one in this time.
const WRONG_PROOF_INTERVAL_MS: u32 = 10_000;
const WRONG_PROOFS_FREE: u32 = 10;

/// A [`Rate`] counts whole events a second. On a clock that runs ten times slower, one a second is
/// one in ten seconds.
const WRONG_PROOFS: Rate = Rate {
    per_s: 1,
    burst: WRONG_PROOFS_FREE,
};
const SLOWER: u64 = WRONG_PROOF_INTERVAL_MS as u64 / 1_000;

/// How many logins, and how many sources and guessed accounts are remembered.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub in_all: Rate,
    pub per_source: Rate,
    pub sources_max: usize,
    pub guesses_max: usize,
}

/// Why a login has to come back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Source,
    InAll,
    WrongProofs,
}

/// `busy`, for at least so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    pub why: Why,
    pub retry_after_ms: u32,
}

#[derive(Debug)]
pub struct Throttle {
    pacer: Pacer,
    wrong_proofs: Buckets<(Source, AccountName)>,
    random: SmallRng,
}

impl Throttle {
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            pacer: Pacer::new(limits.in_all, limits.per_source, limits.sources_max, seed),
            wrong_proofs: Buckets::new(WRONG_PROOFS, limits.guesses_max),
            random: SmallRng::seed_from_u64(!seed),
        }
    }

    /// Sources and guessed accounts that are remembered.
    pub fn remembered(&self) -> (usize, usize) {
        (self.pacer.sources(), self.wrong_proofs.len())
    }

    /// Lets a login on to the look-up of its account, and gives the name back for it.
    pub fn admit(
        &mut self,
        source: IpAddr,
        account: AccountName,
        now_ms: u64,
    ) -> Result<AccountName, Throttled> {
        let guess = (Source::from(source), account);
        if !self.wrong_proofs.has_room(&guess, now_ms / SLOWER) {
            return Err(Throttled {
                why: Why::WrongProofs,
                retry_after_ms: jittered(WRONG_PROOF_INTERVAL_MS, &mut self.random),
            });
        }
        let (source, account) = guess;
        match self.pacer.admit(source, now_ms) {
            Ok(()) => Ok(account),
            Err(paced) => Err(Throttled {
                why: match paced.limit {
                    Limit::Source => Why::Source,
                    Limit::InAll => Why::InAll,
                },
                retry_after_ms: paced.retry_after_ms,
            }),
        }
    }

    /// The proof was wrong, or there is no such account.
    pub fn proof_was_wrong(&mut self, source: IpAddr, account: AccountName, now_ms: u64) {
        self.wrong_proofs
            .take((source.into(), account), now_ms / SLOWER);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const WIDE: Limits = Limits {
        in_all: Rate::UNLIMITED,
        per_source: Rate::UNLIMITED,
        sources_max: 64,
        guesses_max: 64,
    };

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    fn address(host: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, host])
    }

    /// One wrong login, where it is let so far.
    fn guess(throttle: &mut Throttle, host: u8, account: &str, now_ms: u64) -> bool {
        let admitted = throttle.admit(address(host), name(account), now_ms);
        if let Ok(account) = admitted {
            throttle.proof_was_wrong(address(host), account, now_ms);
            return true;
        }
        false
    }

    #[test]
    fn ten_wrong_proofs_are_free_then_one_in_ten_seconds() {
        let mut throttle = Throttle::new(WIDE, 1);
        let start = 1_000_000;
        let judged = (0..120_000)
            .step_by(100)
            .filter(|ms| guess(&mut throttle, 1, "a", start + ms));
        assert_eq!(judged.count(), 10 + 11);
    }

    #[test]
    fn guessing_slows_neither_other_sources_nor_other_accounts() {
        let mut throttle = Throttle::new(WIDE, 1);
        for _ in 0..100 {
            guess(&mut throttle, 1, "a", 1_000_000);
        }
        let told = throttle
            .admit(address(1), name("a"), 1_000_000)
            .unwrap_err();
        assert_eq!(told.why, Why::WrongProofs);
        assert!((10_000..=12_500).contains(&told.retry_after_ms));
        assert!(throttle.admit(address(2), name("a"), 1_000_000).is_ok());
        assert!(throttle.admit(address(1), name("b"), 1_000_000).is_ok());
    }

    #[test]
    fn who_is_slowed_down_takes_no_room_from_its_source() {
        let limits = Limits {
            per_source: Rate {
                per_s: 1,
                burst: 20,
            },
            ..WIDE
        };
        let mut throttle = Throttle::new(limits, 1);
        let judged = (0..1_000).filter(|_| guess(&mut throttle, 1, "a", 1_000_000));
        assert_eq!(judged.count(), 10);
        let others = (0..20).filter(|n| guess(&mut throttle, 1, &format!("b{n}"), 1_000_000));
        assert_eq!(others.count(), 10);
    }

    proptest! {
        /// However guesses are spread in time, no (source, account) is judged more often than the
        /// free ones and one in each interval, while memory holds all pairs; and memory is bounded.
        #[test]
        fn no_pair_is_judged_faster_than_its_limit(
            seed: u64,
            guesses in prop::collection::vec((0u8..4, 0u8..4, 0u64..3_000), 1..600),
        ) {
            let mut throttle = Throttle::new(WIDE, seed);
            let start = 1_000_000;
            let mut now_ms = start;
            let mut judged = HashMap::<(u8, u8), u64>::new();
            for (host, account, gap_ms) in guesses {
                now_ms += gap_ms;
                let wrong = guess(&mut throttle, host, &account.to_string(), now_ms);
                let count = judged.entry((host, account)).or_default();
                *count += u64::from(wrong);
                let allowed = u64::from(WRONG_PROOFS_FREE) + (now_ms - start) / 10_000 + 1;
                prop_assert!(*count <= allowed);
                prop_assert!(throttle.wrong_proofs.len() <= WIDE.guesses_max);
            }
        }
    }
}
