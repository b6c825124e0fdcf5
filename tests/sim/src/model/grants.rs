//! P4: grants as logic servers acknowledged them, and who may come in with one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::message::Grant;
use common::secret::SessionKey;
use protocols::rcu::attach::Attach;

use super::Admission;
use super::places::Places;

/// Open grants of one account on one node; a fifth drops the oldest.
const GRANTS_PER_ACCOUNT_MAX: usize = 4;

type TicketBytes = [u8; 16];

#[derive(Debug)]
struct GrantSeen {
    node: usize,
    account_id: AccountId,
    session_key: SessionKey,
    /// `None`: it admits from anywhere.
    source: Option<IpAddr>,
    epoch: Epoch,
    account_version: u32,
    expires_at_ms: u64,
    is_used: bool,
}

impl GrantSeen {
    fn admits_from(&self, source: IpAddr) -> bool {
        self.source.is_none_or(|it| it == source)
    }

    fn is_open(&self, now_ms: u64) -> bool {
        !self.is_used && now_ms < self.expires_at_ms
    }
}

/// What a session begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted {
    pub(super) epoch: Epoch,
    pub(super) account_version: u32,
}

#[derive(Debug, Default)]
pub(super) struct Grants {
    by_ticket: BTreeMap<TicketBytes, GrantSeen>,
    of_account: BTreeMap<AccountId, Vec<TicketBytes>>,
    by_expiry: BinaryHeap<Reverse<(u64, TicketBytes)>>,
}

impl Grants {
    pub(super) fn open(&mut self, node: usize, grant: &Grant, now_ms: u64, places: &mut Places) {
        let ticket = *grant.ticket.expose();
        let seen = GrantSeen {
            node,
            account_id: grant.account_id,
            session_key: grant.session_key,
            source: grant.source,
            epoch: grant.epoch,
            account_version: grant.account_version,
            expires_at_ms: now_ms + u64::from(grant.ttl_ms),
            is_used: false,
        };
        self.by_expiry.push(Reverse((seen.expires_at_ms, ticket)));
        self.by_ticket.insert(ticket, seen);
        let of_account = self.of_account.entry(grant.account_id).or_default();
        of_account.push(ticket);
        places.grant_opened(node, grant.account_id);

        let mut open: Vec<_> = of_account
            .iter()
            .filter(|ticket| {
                let grant = self.by_ticket.get(*ticket);
                grant.is_some_and(|grant| grant.node == node && !grant.is_used)
            })
            .copied()
            .collect();
        // The oldest are those of the lowest epochs, whichever was acknowledged first.
        open.sort_by_key(|ticket| self.by_ticket.get(ticket).map(|grant| grant.epoch));
        open.truncate(open.len().saturating_sub(GRANTS_PER_ACCOUNT_MAX));
        for ticket in open {
            self.forget(ticket, places);
        }
    }

    /// What the session begins with, or why it must not.
    pub(super) fn admit(
        &mut self,
        who: Admission,
        attach: Option<&Attach>,
        now_ms: u64,
        places: &mut Places,
    ) -> Result<Admitted, &'static str> {
        let Admission {
            node, account_id, ..
        } = who;
        let attach = attach.ok_or("without an Attach")?;
        let grant = self
            .by_ticket
            .get_mut(attach.ticket.expose())
            .ok_or("with a ticket that nobody granted")?;
        if grant.node != node {
            return Err("with the ticket of another node");
        }
        if grant.account_id != account_id {
            return Err("with another account's ticket");
        }
        if grant.is_used {
            return Err("with a used ticket");
        }
        if now_ms > grant.expires_at_ms {
            return Err("with an expired ticket");
        }
        if !attach.verify(&grant.session_key) {
            return Err("with a wrong proof");
        }
        if !grant.admits_from(who.source) {
            return Err("from another address than it was granted for");
        }
        if grant.epoch != who.epoch {
            return Err("under another epoch than it was granted");
        }
        grant.is_used = true;
        places.grant_closed(node, account_id);
        let epoch = grant.epoch;
        let account_version = grant.account_version;
        // An older grant on the same node cannot be used any more.
        let older: Vec<_> = self
            .of_account
            .get(&account_id)
            .into_iter()
            .flatten()
            .filter(|ticket| {
                let grant = self.by_ticket.get(*ticket);
                grant.is_some_and(|grant| grant.node == node && grant.epoch < epoch)
            })
            .copied()
            .collect();
        for ticket in older {
            self.forget(ticket, places);
        }
        Ok(Admitted {
            epoch,
            account_version,
        })
    }

    /// Whether a node holds an open grant that admits from there.
    pub(super) fn admits_from(&self, node: usize, source: IpAddr, now_ms: u64) -> bool {
        let admits = |grant: &GrantSeen| {
            grant.node == node && grant.is_open(now_ms) && grant.admits_from(source)
        };
        self.by_ticket.values().any(admits)
    }

    /// Whose grant this is and of which epoch, if it is right in every part.
    pub(super) fn is_right(
        &self,
        node: usize,
        source: IpAddr,
        attach: &Attach,
        now_ms: u64,
    ) -> Option<(AccountId, Epoch)> {
        let grant = self.by_ticket.get(attach.ticket.expose())?;
        let is_right = grant.node == node
            && grant.is_open(now_ms)
            && grant.admits_from(source)
            && attach.verify(&grant.session_key);
        is_right.then_some((grant.account_id, grant.epoch))
    }

    /// A node was told that what was granted under an older version is over.
    pub(super) fn revoked(
        &mut self,
        node: usize,
        account_id: AccountId,
        below_version: u32,
        places: &mut Places,
    ) {
        let of_account = self.of_account.get(&account_id).into_iter().flatten();
        let over: Vec<_> = of_account
            .filter(|ticket| {
                let grant = self.by_ticket.get(*ticket);
                grant.is_some_and(|it| it.node == node && it.account_version < below_version)
            })
            .copied()
            .collect();
        for ticket in over {
            self.forget(ticket, places);
        }
    }

    /// Grants whose time is over take no place any more. Those that were used stay known until a
    /// newer one is used.
    pub(super) fn expire(&mut self, now_ms: u64, places: &mut Places) {
        while let Some(Reverse((expires_at_ms, ticket))) = self.by_expiry.peek().copied()
            && expires_at_ms <= now_ms
        {
            self.by_expiry.pop();
            let grant = self.by_ticket.get(&ticket);
            if grant.is_some_and(|grant| !grant.is_used) {
                self.forget(ticket, places);
            }
        }
    }

    pub(super) fn node_died(&mut self, node: usize) {
        self.by_ticket.retain(|_, grant| grant.node != node);
        self.of_account.retain(|_, tickets| {
            tickets.retain(|ticket| self.by_ticket.contains_key(ticket));
            !tickets.is_empty()
        });
    }

    fn forget(&mut self, ticket: TicketBytes, places: &mut Places) {
        let Some(grant) = self.by_ticket.remove(&ticket) else {
            return;
        };
        if !grant.is_used {
            places.grant_closed(grant.node, grant.account_id);
        }
        if let Some(tickets) = self.of_account.get_mut(&grant.account_id) {
            tickets.retain(|other| *other != ticket);
            if tickets.is_empty() {
                self.of_account.remove(&grant.account_id);
            }
        }
    }
}
