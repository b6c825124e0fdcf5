//! What was looked up before, so that a login costs no query.
//!
//! How long an entry is good stands in `freshness`. Accounts that do not exist are remembered apart,
//! so that guessed names never push devices out.

use common::ids::AccountName;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::freshness::Freshness;
use crate::account::{Account, Found};

#[derive(Debug)]
pub struct AccountCache {
    known: Cache<AccountName, Entry>,
    absent: Cache<AccountName, u64>,
    freshness: Freshness,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    account: Account,
    looked_up_at_ms: u64,
}

impl AccountCache {
    pub fn new(known_max: u64, absent_max: u64) -> Self {
        // Devices log in seldom and alike: what was used last is the best guess.
        let lru = EvictionPolicy::lru();
        Self {
            known: Cache::builder()
                .max_capacity(known_max)
                .eviction_policy(lru.clone())
                .build(),
            absent: Cache::builder()
                .max_capacity(absent_max)
                .eviction_policy(lru)
                .build(),
            freshness: Freshness::default(),
        }
    }

    pub fn find(&self, name: &AccountName, now_ms: u64) -> Option<Found> {
        let is_good = |looked_up_at_ms| self.freshness.vouches_for(looked_up_at_ms, now_ms);
        if let Some(entry) = self.known.get(name) {
            return is_good(entry.looked_up_at_ms).then_some(Found::Account(entry.account));
        }
        let looked_up_at_ms = self.absent.get(name)?;
        is_good(looked_up_at_ms).then_some(Found::Unknown)
    }

    /// What was just looked up.
    pub fn keep(&self, name: AccountName, found: Found, now_ms: u64) {
        match found {
            Found::Account(account) => {
                let entry = Entry {
                    account,
                    looked_up_at_ms: now_ms,
                };
                self.known.insert(name, entry);
            }
            Found::Unknown => self.absent.insert(name, now_ms),
            Found::Failed => {}
        }
    }

    /// The account changed.
    pub fn forget(&self, name: &AccountName) {
        self.known.invalidate(name);
        self.absent.invalidate(name);
    }

    /// The database is another one.
    pub fn forget_all(&mut self) {
        let entries_max = [self.known.policy(), self.absent.policy()]
            .map(|policy| policy.max_capacity().unwrap_or_default());
        *self = Self::new(entries_max[0], entries_max[1]);
    }

    /// All changes until now were told.
    pub fn in_step(&mut self, now_ms: u64) {
        self.freshness.in_step(now_ms);
    }

    /// Whether the changes are followed: then the accounts can be read.
    pub fn follows(&self, now_ms: u64) -> bool {
        self.freshness.follows(now_ms)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use common::ids::AccountId;
    use common::secret::Secret;

    use super::*;

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    fn account(version: u32) -> Found {
        Found::Account(Account {
            id: AccountId(1),
            key: Secret::new([1; 32]),
            version,
            enabled: true,
        })
    }

    #[test]
    fn an_entry_lasts_while_the_changes_are_followed() {
        let mut cache = AccountCache::new(10, 10);
        cache.keep(name("a"), account(1), 1_000);
        cache.keep(name("b"), Found::Unknown, 1_000);
        for now_ms in (1_000..100_000).step_by(1_000) {
            cache.in_step(now_ms);
            assert_eq!(cache.find(&name("a"), now_ms + 999), Some(account(1)));
            assert_eq!(cache.find(&name("b"), now_ms + 999), Some(Found::Unknown));
        }
        assert_eq!(cache.find(&name("a"), 101_000), None, "out of step");
        assert_eq!(cache.find(&name("b"), 101_000), None);
    }

    #[test]
    fn alone_an_entry_lasts_five_seconds() {
        let cache = AccountCache::new(10, 10);
        cache.keep(name("a"), account(1), 1_000);
        assert_eq!(cache.find(&name("a"), 5_999), Some(account(1)));
        assert_eq!(cache.find(&name("a"), 6_000), None);
    }

    #[test]
    fn a_change_drops_its_entry_and_a_failure_makes_none() {
        let cache = AccountCache::new(10, 10);
        cache.keep(name("a"), account(1), 1_000);
        cache.keep(name("b"), Found::Unknown, 1_000);
        cache.keep(name("c"), Found::Failed, 1_000);
        cache.forget(&name("a"));
        cache.forget(&name("b"));
        for text in ["a", "b", "c"] {
            assert_eq!(cache.find(&name(text), 1_000), None);
        }
    }

    #[test]
    fn nothing_is_known_of_another_database() {
        let mut cache = AccountCache::new(10, 10);
        cache.in_step(1_000);
        cache.keep(name("a"), account(1), 1_000);
        cache.keep(name("b"), Found::Unknown, 1_000);
        cache.forget_all();
        for text in ["a", "b"] {
            assert_eq!(cache.find(&name(text), 1_000), None);
        }
        assert!(!cache.follows(1_000));
        cache.keep(name("a"), account(2), 1_000);
        assert_eq!(cache.find(&name("a"), 1_000), Some(account(2)));
    }

    #[test]
    fn an_account_that_was_absent_is_found_when_it_was_looked_up_again() {
        let cache = AccountCache::new(10, 10);
        cache.keep(name("a"), Found::Unknown, 1_000);
        cache.keep(name("a"), account(1), 1_001);
        assert_eq!(cache.find(&name("a"), 1_001), Some(account(1)));
    }

    #[test]
    fn guessed_names_do_not_push_devices_out() {
        let cache = AccountCache::new(10, 10);
        cache.keep(name("device"), account(1), 1_000);
        for n in 0..1_000 {
            cache.keep(name(&format!("guess-{n}")), Found::Unknown, 1_000);
        }
        assert_eq!(cache.find(&name("device"), 1_000), Some(account(1)));
        cache.absent.run_pending_tasks();
        assert!(cache.absent.entry_count() <= 10);
    }
}
