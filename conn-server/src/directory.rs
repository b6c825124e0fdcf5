//! Pure. Who is where: the current session of every account on the logic servers of this conn
//! server, and the grants that are still open.
//!
//! The newest attached epoch of an account is its current session. Sessions are learnt from the
//! nodes alone: from the pages that a node sends after the hello (so a restarted conn server knows
//! all again), and from what it tells afterwards. A node that is cut off keeps its sessions here
//! until it is back and has listed what it still holds: an older epoch that attaches elsewhere
//! meanwhile must still be recognised as older. What is kept is bounded by the number of accounts.

use std::collections::HashMap;

use common::epoch::Epoch;
use common::ids::{AccountId, Ticket};
use common::link::message::{GRANTS_PER_ACCOUNT_MAX, Held};

use crate::pool::NodeId;

/// An account's current session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// In the life in which it last confirmed it.
    pub node: NodeId,
    pub epoch: Epoch,
    /// Of the account, when the session was granted.
    account_version: u32,
}

/// A grant that its node acknowledged and that was neither used nor dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenGrant {
    pub node: NodeId,
    pub epoch: Epoch,
    pub account_version: u32,
    pub expires_ms: u64,
    /// `None`: another conn server made it, or this one before its restart.
    pub ticket: Option<Ticket>,
}

/// A session that must be closed because a newer one of its account lives on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outdated {
    pub node: NodeId,
    pub account_id: AccountId,
    /// Sessions of the account with an epoch below this one.
    pub below: Epoch,
}

#[derive(Debug, Default)]
struct Entry {
    session: Option<Session>,
    /// Oldest first.
    grants: Vec<OpenGrant>,
}

impl Entry {
    fn drop_grants(&mut self, drop: impl Fn(&OpenGrant) -> bool) {
        self.grants.retain(|grant| !drop(grant));
        if self.grants.is_empty() {
            // An attached account keeps no room for grants: there are many of those.
            self.grants = Vec::new();
        }
    }
}

#[derive(Debug, Default)]
pub struct Directory {
    accounts: HashMap<AccountId, Entry>,
    sessions: usize,
}

impl Directory {
    /// The node is not coming back: its number is another's from now on.
    pub fn forgotten(&mut self, node: NodeId) {
        self.retain(|entry| {
            entry.drop_grants(|grant| grant.node.is(node));
            entry.session.take_if(|session| session.node.is(node));
        });
    }

    /// The node begins to list what it holds. Its open grants are in that list; none is made for it
    /// before the list is complete.
    pub fn adoption_began(&mut self, node: NodeId) {
        self.retain(|entry| entry.drop_grants(|grant| grant.node.is(node)));
    }

    /// The list is complete: what was known of the node's earlier lives and is not in it is gone.
    pub fn adoption_ended(&mut self, node: NodeId) {
        self.retain(|entry| {
            entry
                .session
                .take_if(|session| session.node.is(node) && session.node != node);
        });
    }

    /// A session began, or is listed. Tells which session, there or elsewhere, has to end for it.
    pub fn attached(&mut self, node: NodeId, held: Held) -> Option<Outdated> {
        let entry = self.accounts.entry(held.account_id).or_default();
        entry.drop_grants(|grant| grant.epoch == held.epoch);
        let attached = Session {
            node,
            epoch: held.epoch,
            account_version: held.account_version,
        };
        let (older, newer) = match entry.session {
            None => {
                entry.session = Some(attached);
                self.sessions += 1;
                return None;
            }
            // A node lets none in that is older than its own session: that one has ended, though
            // its end may have been told while the link was down.
            Some(current) if current.node.is(node) => (current, attached),
            Some(current) if current.epoch > attached.epoch => (attached, current),
            Some(current) => (current, attached),
        };
        entry.session = Some(newer);
        (!older.node.is(newer.node)).then_some(Outdated {
            node: older.node,
            account_id: held.account_id,
            below: newer.epoch,
        })
    }

    /// A session ended. The end of an older one changes nothing.
    pub fn session_ended(&mut self, node: NodeId, account_id: AccountId, epoch: Epoch) {
        self.change(account_id, |entry| {
            entry
                .session
                .take_if(|session| session.node.is(node) && session.epoch == epoch);
        });
    }

    /// A node acknowledged a grant, or listed it.
    pub fn granted(&mut self, account_id: AccountId, grant: OpenGrant) {
        let grants = &mut self.accounts.entry(account_id).or_default().grants;
        let at = grants.partition_point(|open| open.epoch < grant.epoch);
        grants.insert(at, grant);
        if grants.len() > GRANTS_PER_ACCOUNT_MAX {
            grants.remove(0);
        }
    }

    /// A grant expired or was dropped.
    pub fn grant_closed(&mut self, node: NodeId, account_id: AccountId, epoch: Epoch) {
        self.change(account_id, |entry| {
            entry.drop_grants(|grant| grant.node.is(node) && grant.epoch == epoch);
        });
    }

    /// The account changed: every node drops the grants of its older versions. Their sessions are
    /// gone when the nodes say so.
    pub fn revoked(&mut self, account_id: AccountId, below_version: u32) {
        self.change(account_id, |entry| {
            entry.drop_grants(|grant| grant.account_version < below_version);
        });
    }

    pub fn session(&self, account_id: AccountId) -> Option<Session> {
        self.accounts.get(&account_id)?.session
    }

    /// All that a node holds, in the order of the accounts.
    pub fn held_by(&self, node: NodeId) -> Vec<Held> {
        let of_account = |(&account_id, entry): (&AccountId, &Entry)| {
            let session = entry.session.filter(|session| session.node.is(node));
            let session = session.map(|it| (it.epoch, it.account_version));
            let grants = entry.grants.iter().filter(|grant| grant.node.is(node));
            let grants = grants.map(|it| (it.epoch, it.account_version));
            let held = session.into_iter().chain(grants);
            held.map(move |(epoch, account_version)| Held {
                account_id,
                epoch,
                account_version,
            })
            .collect::<Vec<_>>()
        };
        let mut held: Vec<_> = self.accounts.iter().flat_map(of_account).collect();
        held.sort_unstable_by_key(|held| (held.account_id, held.epoch));
        held
    }

    /// The grant of this epoch, where it is still open.
    pub fn open_grant(
        &self,
        account_id: AccountId,
        epoch: Epoch,
        now_ms: u64,
    ) -> Option<&OpenGrant> {
        let mut grants = self.accounts.get(&account_id)?.grants.iter();
        grants.find(|grant| grant.epoch == epoch && grant.expires_ms > now_ms)
    }

    /// Where the account holds a place already, best first: its session's node, then those of its
    /// open grants from the newest on.
    pub fn places(&self, account_id: AccountId, now_ms: u64) -> impl Iterator<Item = NodeId> + '_ {
        let entry = self.accounts.get(&account_id).into_iter();
        entry.flat_map(move |entry| {
            let session = entry.session.iter().map(|session| session.node);
            let grants = entry.grants.iter().rev();
            let open = grants.filter(move |grant| grant.expires_ms > now_ms);
            session.chain(open.map(|grant| grant.node))
        })
    }

    /// Accounts that anything is known of.
    pub fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// Accounts with a session.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// Changes one account's entry and keeps the books.
    fn change(&mut self, account_id: AccountId, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.accounts.get_mut(&account_id) else {
            return;
        };
        let before = entry.session.is_some();
        change(entry);
        self.sessions -= usize::from(before && entry.session.is_none());
        if entry.session.is_none() && entry.grants.is_empty() {
            self.accounts.remove(&account_id);
        }
    }

    /// The same for every account.
    fn retain(&mut self, change: impl Fn(&mut Entry)) {
        let sessions = &mut self.sessions;
        self.accounts.retain(|_, entry| {
            let before = entry.session.is_some();
            change(entry);
            *sessions -= usize::from(before && entry.session.is_none());
            entry.session.is_some() || !entry.grants.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
