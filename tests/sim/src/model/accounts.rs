//! F23: what a change of an account ends, and by when.

use std::collections::{BTreeMap, BTreeSet};

use common::ids::AccountId;
use common::link::message::Grant;

use super::Broken;
use super::sessions::Sessions;

/// A change of an account is in effect everywhere within this, from the heal where it was cut off.
pub(super) const REVOKED_MS: u64 = 5_000;

/// What was granted to an account under a version below this one is over since then.
#[derive(Clone, Copy, Debug)]
struct Revoked {
    below_version: u32,
    since_ms: u64,
}

#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// By account, the oldest first.
    revoked: BTreeMap<AccountId, Vec<Revoked>>,
    /// Of them, those that are not known to be in effect everywhere.
    in_doubt: BTreeMap<AccountId, Revoked>,
    removed: BTreeSet<AccountId>,
}

impl Accounts {
    /// It was switched off, given a new key, or removed (`u32::MAX`).
    pub(super) fn changed(&mut self, account_id: AccountId, below_version: u32, now_ms: u64) {
        let revoked = Revoked {
            below_version,
            since_ms: now_ms,
        };
        self.revoked.entry(account_id).or_default().push(revoked);
        // Of two changes within the time both must be in effect when the later one is.
        self.in_doubt.insert(account_id, revoked);
        if below_version == u32::MAX {
            self.removed.insert(account_id);
        }
    }

    /// Whether a change of it may not be in effect everywhere.
    pub(super) fn is_in_doubt(&self, account_id: AccountId) -> bool {
        self.in_doubt.contains_key(&account_id)
    }

    /// Those that are gone for good.
    pub(super) fn removed(&self) -> &BTreeSet<AccountId> {
        &self.removed
    }

    /// Whether what was granted under this version may be over.
    pub(super) fn is_revoked(&self, account_id: AccountId, version: u32) -> bool {
        let mut revoked = self.revoked.get(&account_id).into_iter().flatten();
        revoked.any(|it| version < it.below_version)
    }

    /// No grant is asked for under a version that was over so long ago.
    pub(super) fn check_version(
        &self,
        grant: &Grant,
        within_ms: u64,
        now_ms: u64,
    ) -> Result<(), Broken> {
        let version = grant.account_version;
        let is_over =
            |it: &&Revoked| version < it.below_version && now_ms > it.since_ms + within_ms;
        let mut revoked = self.revoked.get(&grant.account_id).into_iter().flatten();
        match revoked.find(is_over) {
            Some(it) => {
                let account_id = grant.account_id;
                let what =
                    format_args!("a grant to {account_id} of version {version} after {it:?}");
                Err(Broken::new("F23", what))
            }
            None => Ok(()),
        }
    }

    /// What has to be in effect everywhere by now is.
    pub(super) fn check(
        &mut self,
        now_ms: u64,
        healed_at_ms: u64,
        sessions: &Sessions,
    ) -> Result<(), Broken> {
        let is_due = |it: &Revoked| now_ms > it.since_ms.max(healed_at_ms) + REVOKED_MS;
        let due = self.in_doubt.extract_if(.., |_, revoked| is_due(revoked));
        for (account_id, revoked) in due {
            let mut stale = sessions.of_account(account_id);
            if let Some(session) = stale.find(|it| it.account_version < revoked.below_version) {
                let what = format_args!("{session:?} lives, {revoked:?}");
                return Err(Broken::new("F23", what));
            }
        }
        Ok(())
    }
}
