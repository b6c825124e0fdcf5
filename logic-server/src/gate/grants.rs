//! Pure. Open grants: found by ticket, by account, by source and by the time they expire.

use std::collections::{BTreeMap, BTreeSet};

use common::epoch::Epoch;
use common::ids::{AccountId, Ticket};
use common::link::message::{self, GRANTS_PER_ACCOUNT_MAX};
use common::pacing::Source;
use common::secret::SessionKey;

/// One account may come in, once, until it expires.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) account_id: AccountId,
    pub(super) account_version: u32,
    pub(super) session_key: SessionKey,
    /// `None`: from anywhere.
    pub(super) source: Option<Source>,
    pub(super) epoch: Epoch,
    pub(super) heartbeat_s: Option<u16>,
    expires_at_ms: u64,
}

impl Grant {
    pub(super) fn new(grant: &message::Grant, now_ms: u64) -> Self {
        Self {
            account_id: grant.account_id,
            account_version: grant.account_version,
            session_key: grant.session_key,
            source: grant.source.map(Source::from),
            epoch: grant.epoch,
            heartbeat_s: grant.heartbeat_s,
            expires_at_ms: now_ms + u64::from(grant.ttl_ms),
        }
    }

    pub(super) fn admits_from(&self, source: Source) -> bool {
        self.source.is_none_or(|granted| granted == source)
    }
}

type TicketBytes = [u8; 16];

/// All indices hold the same grants.
#[derive(Default)]
pub(super) struct Grants {
    by_ticket: BTreeMap<TicketBytes, Grant>,
    /// In the order of their epochs.
    by_account: BTreeMap<AccountId, Vec<TicketBytes>>,
    by_expiry: BTreeSet<(u64, TicketBytes)>,
    /// How many name this source; `None`: admit from anywhere.
    by_source: BTreeMap<Option<Source>, u32>,
}

impl Grants {
    pub(super) fn get(&self, ticket: &Ticket) -> Option<&Grant> {
        self.by_ticket.get(ticket.expose())
    }

    pub(super) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    /// Whether any grant could be used from there.
    pub(super) fn admit_from(&self, source: Source) -> bool {
        self.by_source.contains_key(&Some(source)) || self.by_source.contains_key(&None)
    }

    /// An account's grants, the oldest first.
    pub(super) fn of_account(&self, account_id: AccountId) -> impl Iterator<Item = &Grant> {
        self.by_account
            .get(&account_id)
            .into_iter()
            .flatten()
            .filter_map(|ticket| self.by_ticket.get(ticket))
    }

    /// Opens a grant; returns the oldest of its account where that has too many, which may be this one. A ticket
    /// must not be open already.
    pub(super) fn open(&mut self, ticket: &Ticket, grant: Grant) -> Option<Grant> {
        let ticket = *ticket.expose();
        let of_account = self.by_account.entry(grant.account_id).or_default();
        let epoch_of = |ticket: &TicketBytes| self.by_ticket.get(ticket).map(|it| it.epoch);
        let at = of_account.partition_point(|other| epoch_of(other) <= Some(grant.epoch));
        of_account.insert(at, ticket);
        let oldest = (of_account.len() > GRANTS_PER_ACCOUNT_MAX).then(|| of_account[0]);
        self.by_expiry.insert((grant.expires_at_ms, ticket));
        *self.by_source.entry(grant.source).or_default() += 1;
        let double = self.by_ticket.insert(ticket, grant);
        assert!(double.is_none(), "a ticket is open once");
        oldest.and_then(|oldest| self.take(oldest))
    }

    /// Uses a grant up, or takes it back.
    pub(super) fn close(&mut self, ticket: &Ticket) -> Option<Grant> {
        self.take(*ticket.expose())
    }

    /// Closes the next grant whose time is over.
    pub(super) fn pop_expired(&mut self, now_ms: u64) -> Option<Grant> {
        let &(expires_at_ms, ticket) = self.by_expiry.first()?;
        if expires_at_ms > now_ms {
            return None;
        }
        self.take(ticket)
    }

    pub(super) fn next_expiry_ms(&self) -> Option<u64> {
        self.by_expiry
            .first()
            .map(|&(expires_at_ms, _)| expires_at_ms)
    }

    /// Closes those grants of an account that `is_over` names.
    pub(super) fn close_of_account(
        &mut self,
        account_id: AccountId,
        is_over: impl Fn(&Grant) -> bool,
    ) -> Vec<Grant> {
        let of_account = self.by_account.get(&account_id);
        let mut tickets = of_account.cloned().unwrap_or_default();
        tickets.retain(|ticket| self.by_ticket.get(ticket).is_some_and(&is_over));
        tickets
            .into_iter()
            .filter_map(|ticket| self.take(ticket))
            .collect()
    }

    fn take(&mut self, ticket: TicketBytes) -> Option<Grant> {
        let grant = self.by_ticket.remove(&ticket)?;
        self.by_expiry.remove(&(grant.expires_at_ms, ticket));
        if let Some(of_account) = self.by_account.get_mut(&grant.account_id) {
            of_account.retain(|other| *other != ticket);
            if of_account.is_empty() {
                self.by_account.remove(&grant.account_id);
            }
        }
        if let Some(count) = self.by_source.get_mut(&grant.source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&grant.source);
            }
        }
        Some(grant)
    }
}
