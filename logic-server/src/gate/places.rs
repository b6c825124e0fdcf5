//! Pure. The node's places, and its map account → current session.
//!
//! A place is in use by an account that has a session or an open grant, once, however many. The
//! logic server is the authority for them: a grant that finds none free is refused.
//!
//! ```text
//!            grant           attach                 session ended
//!   ──▶ (no place) ──▶ granted ──▶ attached and granted ──▶ granted ──▶ (no place)
//!                           ╰─────▶ attached ────────────────────────────▶
//! ```

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::Bound;

use common::epoch::Epoch;
use common::ids::AccountId;

use crate::ids::{SessionId, ShardIndex};

/// The current session of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) session: SessionId,
    pub(super) shard: ShardIndex,
    pub(super) epoch: Epoch,
    pub(super) account_version: u32,
}

#[derive(Clone, Copy)]
struct Place {
    /// `None`: only granted.
    session: Option<NonZeroU64>,
    /// The newest that was attached while the place was held: an older grant comes too late, even
    /// when that session is over.
    epoch: Epoch,
    account_version: u32,
    shard: ShardIndex,
    grants: u8,
}

// LIMITS.md G2: 256 bytes an idle session in all of the process. A B-tree is filled to about two
// thirds, and has no moments in which it doubles.
const _: () = assert!(size_of::<(AccountId, Place)>() <= 40);

impl Place {
    const FREE: Self = Self {
        session: None,
        epoch: Epoch::ZERO,
        account_version: 0,
        shard: ShardIndex(0),
        grants: 0,
    };

    fn current(&self) -> Option<Current> {
        self.session.map(|session| Current {
            session: SessionId(session.get()),
            shard: self.shard,
            epoch: self.epoch,
            account_version: self.account_version,
        })
    }
}

/// Every place is in use, and none by the account that asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

pub(super) struct Places {
    places: BTreeMap<AccountId, Place>,
    max: u32,
    /// Sessions by shard.
    sessions: Vec<u32>,
}

impl Places {
    pub(super) fn new(max: u32, shards: u16) -> Self {
        Self {
            places: BTreeMap::new(),
            max,
            sessions: vec![0; shards.into()],
        }
    }

    pub(super) fn max(&self) -> u32 {
        self.max
    }

    pub(super) fn used(&self) -> u32 {
        self.places.len() as u32
    }

    pub(super) fn current(&self, account_id: AccountId) -> Option<Current> {
        self.places.get(&account_id)?.current()
    }

    /// A grant of the account is open.
    pub(super) fn grant_opened(&mut self, account_id: AccountId) -> Result<(), Full> {
        let is_full = self.used() >= self.max;
        match self.places.get_mut(&account_id) {
            Some(place) => place.grants += 1,
            None if is_full => return Err(Full),
            None => {
                let place = Place {
                    grants: 1,
                    ..Place::FREE
                };
                self.places.insert(account_id, place);
            }
        }
        Ok(())
    }

    /// A grant of the account is not open any more.
    pub(super) fn grant_closed(&mut self, account_id: AccountId) {
        let place = self.places.get_mut(&account_id);
        let place = place.expect("an open grant has a place");
        place.grants = place.grants.checked_sub(1).expect("a grant was open");
        self.free_if_unused(account_id);
    }

    /// Whether a session of this epoch would be the account's newest here.
    pub(super) fn is_newest(&self, account_id: AccountId, epoch: Epoch) -> bool {
        self.places
            .get(&account_id)
            .is_none_or(|place| epoch > place.epoch)
    }

    /// Makes this the account's current session; returns the one that it replaces. The account
    /// must have a place, and the session be its newest.
    pub(super) fn attached(&mut self, account_id: AccountId, current: Current) -> Option<Current> {
        let place = self.places.get_mut(&account_id);
        let place = place.expect("its grant holds a place");
        let replaced = place.current();
        place.session = NonZeroU64::new(current.session.0);
        place.epoch = current.epoch;
        place.account_version = current.account_version;
        place.shard = current.shard;
        self.sessions[usize::from(current.shard.0)] += 1;
        if let Some(replaced) = replaced {
            self.sessions[usize::from(replaced.shard.0)] -= 1;
        }
        replaced
    }

    /// Whether it was the current one. An older one's end comes late and changes nothing.
    pub(super) fn session_ended(&mut self, account_id: AccountId, epoch: Epoch) -> bool {
        let Some(place) = self.places.get_mut(&account_id) else {
            return false;
        };
        if place.session.is_none() || place.epoch != epoch {
            return false;
        }
        place.session = None;
        self.sessions[usize::from(place.shard.0)] -= 1;
        self.free_if_unused(account_id);
        true
    }

    /// The shard with the fewest sessions.
    pub(super) fn idlest_shard(&self) -> ShardIndex {
        let shards = (0_u16..).zip(&self.sessions);
        let (shard, _) = shards
            .min_by_key(|&(_, sessions)| sessions)
            .unwrap_or((0, &0));
        ShardIndex(shard)
    }

    /// Accounts after this one, in order, with their session if they have one.
    pub(super) fn after(
        &self,
        account_id: Option<AccountId>,
    ) -> impl Iterator<Item = (AccountId, Option<Current>)> {
        let start = account_id.map_or(Bound::Unbounded, Bound::Excluded);
        self.places
            .range((start, Bound::Unbounded))
            .map(|(&account_id, place)| (account_id, place.current()))
    }

    fn free_if_unused(&mut self, account_id: AccountId) {
        let is_unused = |place: &Place| place.session.is_none() && place.grants == 0;
        if self.places.get(&account_id).is_some_and(is_unused) {
            self.places.remove(&account_id);
        }
    }
}
