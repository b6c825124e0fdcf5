//! Pure. Accounts as logins are judged by them, and what their changes mean for sessions and grants.

use std::net::IpAddr;

use common::ids::{AccountId, AccountName, NodeName};
use common::link::message::{Held, Revoke, RevokeReason};
use common::secret::DeviceKey;

/// An account as logins are judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub key: DeviceKey,
    pub version: u32,
    pub enabled: bool,
}

/// What came of looking an account up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Account(Account),
    /// There is none of this name.
    Unknown,
    /// The database did not answer.
    Failed,
}

/// What a login got, for the accounts table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastLogin {
    pub account_id: AccountId,
    pub firmware: Box<str>,
    pub source: IpAddr,
    pub node: NodeName,
    pub at_unix_ms: u64,
}

/// A row of `account_changes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub account_id: AccountId,
    pub name: AccountName,
    /// Of the account after the change.
    pub version: u32,
    pub kind: ChangeKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Enabled,
    Disabled,
    KeyRotated,
    Removed,
}

impl ChangeKind {
    const ALL: [Self; 5] = [
        Self::Added,
        Self::Enabled,
        Self::Disabled,
        Self::KeyRotated,
        Self::Removed,
    ];

    /// As the column has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::KeyRotated => "key_rotated",
            Self::Removed => "removed",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Change {
    /// What logic servers have to end because of it.
    pub fn revocation(&self) -> Option<Revoke> {
        let (below_version, why) = match self.kind {
            ChangeKind::Added | ChangeKind::Enabled => return None,
            ChangeKind::Disabled => (self.version, RevokeReason::Disabled),
            ChangeKind::KeyRotated => (self.version, RevokeReason::KeyRotated),
            ChangeKind::Removed => (u32::MAX, RevokeReason::Disabled),
        };
        Some(Revoke {
            account_id: self.account_id,
            below_version,
            why,
        })
    }
}

/// What a logic server has to end of what it held while it was cut off, or of what the database knew
/// before it was restored. `now` is the account's version and whether it is enabled; `None`: there is none
/// of that id.
///
/// No version comes twice, so another one, lower or higher, is of another key, another state, or another
/// account.
pub fn stale(held: &Held, now: Option<(u32, bool)>) -> Option<Revoke> {
    let (below_version, why) = match now {
        None => (u32::MAX, RevokeReason::Disabled),
        Some((version, _)) if version == held.account_version => return None,
        // A version that is lower now was given before the one that is held: both end.
        Some((version, enabled)) => (
            version.max(held.account_version.saturating_add(1)),
            match enabled {
                false => RevokeReason::Disabled,
                // Re-keyed, or switched off and on again: the device may log in at once.
                true => RevokeReason::KeyRotated,
            },
        ),
    };
    Some(Revoke {
        account_id: held.account_id,
        below_version,
        why,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use common::epoch::Epoch;

    use super::*;

    #[test]
    fn a_change_ends_what_was_granted_before_it() {
        let revoked = |kind| {
            let change = Change {
                account_id: AccountId(1),
                name: "a".parse().unwrap(),
                version: 4,
                kind,
            };
            let revoke = change.revocation();
            revoke.map(|revoke| (revoke.below_version, revoke.why))
        };
        assert_eq!(revoked(ChangeKind::Added), None);
        assert_eq!(revoked(ChangeKind::Enabled), None);
        let disabled = Some((4, RevokeReason::Disabled));
        assert_eq!(revoked(ChangeKind::Disabled), disabled);
        let rotated = Some((4, RevokeReason::KeyRotated));
        assert_eq!(revoked(ChangeKind::KeyRotated), rotated);
        let removed = Some((u32::MAX, RevokeReason::Disabled));
        assert_eq!(revoked(ChangeKind::Removed), removed);
    }

    #[test]
    fn what_a_node_held_while_cut_off_is_compared_with_the_account_of_now() {
        let held = Held {
            account_id: AccountId(1),
            epoch: Epoch::ZERO,
            account_version: 3,
        };
        let why = |now| stale(&held, now).map(|revoke| (revoke.below_version, revoke.why));
        assert_eq!(why(Some((3, true))), None);
        assert_eq!(why(Some((5, true))), Some((5, RevokeReason::KeyRotated)));
        assert_eq!(why(Some((4, false))), Some((4, RevokeReason::Disabled)));
        // The table was restored: what was granted since is over, what is granted now is let be.
        assert_eq!(why(Some((2, true))), Some((4, RevokeReason::KeyRotated)));
        assert_eq!(why(Some((1, false))), Some((4, RevokeReason::Disabled)));
        assert_eq!(why(None), Some((u32::MAX, RevokeReason::Disabled)));
    }

    #[test]
    fn kinds_of_change_are_known_by_their_names() {
        for kind in ChangeKind::ALL {
            assert_eq!(ChangeKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(ChangeKind::from_name("renamed"), None);
    }
}
