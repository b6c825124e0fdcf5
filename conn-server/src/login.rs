//! Pure. One login, from the frame that a balancer forwards to the reply that the device gets.
//!
//! ```text
//! parsed ─▶ paced ─▶ account ─▶ proof ─▶ enabled ─▶ clock ─▶ place ─▶ reserve ─▶ grant ─▶ reply
//!   │         │      (look-up)   │ nonce     │         │        │                 │  ▲
//!   ▼         ▼         ▼        ▼           ▼         ▼        ▼                 ▼  │ once more,
//! malformed  busy      busy    refused    disabled  clock_skew full, busy     not granted: elsewhere
//!
//! the same login again: … ─▶ clock ─▶ check ─▶ the same reply
//!                                       │
//!                                       ▼
//!                                 refused, busy
//! ```
//!
//! The order is the contract's order of judgement. An unknown account and a wrong proof cost the same
//! and are answered alike. A login waits at two places only, for its account and for a logic server's
//! answer, and is decided within [`DECIDED_WITHIN_MS`] whatever happens there. Whether a grant is still
//! open its logic server alone knows for certain: what it tells of attaches may be under way.

use std::net::IpAddr;

use common::epoch::Epoch;
use common::ids::{AccountId, AccountName, Nonce, Ticket};
use common::link::Asker;
use common::link::message::{self, Grant, GrantCheck, GrantVerdict};
use common::secret::DeviceKey;
use common::time::Now;
use protocols::rcu::error::MessageError;
use protocols::rcu::login::{self, LoginReply, Target};
use protocols::rcu::proof;
use rand::RngExt;

use crate::account::{Account, Found, LastLogin};
use crate::counters::Counter;
use crate::desk::{Desk, Reply, Step};
use crate::directory::OpenGrant;
use crate::nonces::Seen;
use crate::pool::{NodeId, Pick};

/// From the frame to the reply: the balancer waits a little longer.
pub const DECIDED_WITHIN_MS: u64 = 2_300;
/// For the account; what is left is enough to ask two logic servers.
const LOOKED_UP_WITHIN_MS: u64 = 400;
/// For a logic server's answer.
pub const GRANTED_WITHIN_MS: u64 = 1_000;

/// What a proof is checked against where there is no account, so that it takes as long.
const NOBODYS_KEY: DeviceKey = DeviceKey::new([0; 32]);

/// Why a logic server's answer will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    TimedOut,
    LinkDown,
}

#[derive(Debug)]
pub struct Login {
    pub asker: Asker,
    /// When the balancer asked.
    pub since_ms: u64,
    pub source: IpAddr,
    claim: Claim,
    give_up_ms: u64,
    /// Until when the account may be looked up.
    look_up_until_ms: u64,
    wait: Wait,
}

/// What a login waits for.
#[derive(Debug)]
enum Wait {
    Account,
    /// The grant that was asked for.
    Grant(Offer),
    /// Whether the grant that it got when it came before is still open.
    Check(Account, OpenGrant),
}

#[derive(Debug)]
struct Offer {
    account: Account,
    node: NodeId,
    epoch: Epoch,
    ticket: Ticket,
    expires_ms: u64,
    /// Another node was asked before.
    second: bool,
}

/// A node that did not let the account in.
#[derive(Clone, Copy)]
struct Tried {
    node: NodeId,
    full: bool,
}

/// How a login ends that was worth a grant and got none.
enum Failure {
    Full,
    Busy(Counter),
}

impl Login {
    /// parsed, paced. No login where it ends here.
    pub fn begin(
        asker: Asker,
        login: &message::Login,
        desk: &mut Desk,
        now: Now,
    ) -> (Option<Self>, Step) {
        let Ok(claim) = Claim::parse(&login.body) else {
            return (None, desk.malformed(now));
        };
        let name = claim.account.clone();
        let account = match desk.throttle.admit(login.source, name, now.ms) {
            Ok(account) => account,
            Err(throttled) => return (None, desk.throttled(throttled, now)),
        };
        let mut login = Self {
            asker,
            since_ms: now.ms,
            source: login.source,
            claim,
            give_up_ms: asker.until_ms.min(now.ms + DECIDED_WITHIN_MS),
            look_up_until_ms: 0,
            wait: Wait::Account,
        };
        let step = login.look_up(account, now);
        (Some(login), step)
    }

    /// account, proof, enabled, clock.
    pub fn account_found(&mut self, found: Found, desk: &mut Desk, now: Now) -> Step {
        let account = match found {
            Found::Account(account) => Some(account),
            Found::Unknown => None,
            Found::Failed => return desk.busy(Counter::LookUpFailed, now),
        };
        let why = match account {
            Some(_) => Counter::WrongProof,
            None => Counter::UnknownAccount,
        };
        let key = account.map_or(NOBODYS_KEY, |account| account.key);
        let proven = self.claim.verify(&key);
        let Some(account) = account.filter(|_| proven) else {
            let guessed = self.claim.account.clone();
            desk.throttle.proof_was_wrong(self.source, guessed, now.ms);
            return desk.refused(why, now);
        };
        let open = match desk.nonces.seen(account.id, self.claim.nonce, now.ms) {
            None => None,
            Some(Seen::Undecided) => return desk.busy(Counter::Replayed, now),
            Some(Seen::Granted(epoch)) => {
                let open = desk.directory.open_grant(account.id, epoch, now.ms);
                let Some(open) = open.cloned() else {
                    return desk.refused(Counter::Replayed, now);
                };
                Some(open)
            }
        };
        if !account.enabled {
            return desk.disabled(self.claim.nonce, &key, now);
        }
        // A device without a clock sends 0, which is decades off.
        if now.unix_ms.abs_diff(self.claim.sent_at_ms) > desk.rules.clock_skew_max_ms {
            return desk.clock_skew(self.claim.nonce, &key, now);
        }
        if let Some(open) = open {
            return self.check(account, open, desk, now);
        }
        desk.nonces.remember(account.id, self.claim.nonce, now.ms);
        self.ask(account, None, desk, now)
    }

    /// A logic server answered: reply, or place once more.
    pub fn grant_answered(&mut self, verdict: GrantVerdict, desk: &mut Desk, now: Now) -> Step {
        let Wait::Grant(offer) = self.waited() else {
            return desk.busy(Counter::NoNode, now);
        };
        let (full, why) = match verdict {
            GrantVerdict::Granted => return self.accept(&offer, desk, now),
            GrantVerdict::Full => (true, Counter::GrantRefusedFull),
            GrantVerdict::Draining => (false, Counter::GrantRefusedDraining),
        };
        self.ask_elsewhere(&offer, full, why, desk, now)
    }

    /// A logic server knows whether the grant is still open: the same ticket, for what is left of
    /// its time.
    pub fn grant_checked(&mut self, is_open: bool, desk: &mut Desk, now: Now) -> Step {
        let Wait::Check(account, open) = self.waited() else {
            return desk.busy(Counter::NoNode, now);
        };
        let reply = is_open.then(|| self.reply_ok(&account, &open, desk, now));
        match reply.flatten() {
            Some(reply) => {
                desk.counters.count(Counter::Repeated);
                Step::Reply(reply)
            }
            None => desk.refused(Counter::Replayed, now),
        }
    }

    /// A logic server did not answer: place once more.
    pub fn grant_lost(&mut self, lost: Lost, desk: &mut Desk, now: Now) -> Step {
        let why = match lost {
            Lost::TimedOut => Counter::GrantTimedOut,
            Lost::LinkDown => Counter::GrantLinkLost,
        };
        let Wait::Grant(offer) = self.waited() else {
            return desk.busy(why, now);
        };
        self.ask_elsewhere(&offer, false, why, desk, now)
    }

    /// Ends it `busy` wherever it stands. A grant that comes nevertheless expires unused.
    pub fn abandon(&mut self, why: Counter, desk: &mut Desk, now: Now) -> Step {
        match self.waited() {
            Wait::Grant(offer) => self.fail(&offer.account, Failure::Busy(why), desk, now),
            Wait::Account | Wait::Check(..) => desk.busy(why, now),
        }
    }

    /// Whose it says it is.
    pub fn account(&self) -> &AccountName {
        &self.claim.account
    }

    /// Whether its account should have been found by now.
    pub fn look_up_is_over(&self, now: Now) -> bool {
        matches!(self.wait, Wait::Account) && now.ms >= self.look_up_until_ms
    }

    /// The account changed: what it was judged by does not hold any more. A grant that comes
    /// nevertheless is of the version before, and revoked.
    pub fn judge_again(&mut self, desk: &mut Desk, now: Now) -> Step {
        if let Wait::Grant(offer) = self.waited() {
            desk.nonces.forget(offer.account.id, self.claim.nonce);
        }
        self.look_up(self.claim.account.clone(), now)
    }

    /// The account by which it was judged, and its version; `None`: it waits for that.
    pub fn rests_on(&self) -> Option<(AccountId, u32)> {
        let account = match &self.wait {
            Wait::Account => return None,
            Wait::Grant(offer) => &offer.account,
            Wait::Check(account, _) => account,
        };
        Some((account.id, account.version))
    }

    /// What it waited for; it waits no more.
    fn waited(&mut self) -> Wait {
        std::mem::replace(&mut self.wait, Wait::Account)
    }

    /// When a wait that begins now is over.
    fn wait_until(&self, now: Now, within_ms: u64) -> u64 {
        self.give_up_ms.min(now.ms + within_ms)
    }

    fn look_up(&mut self, account: AccountName, now: Now) -> Step {
        self.look_up_until_ms = self.wait_until(now, LOOKED_UP_WITHIN_MS);
        Step::LookUp {
            account,
            until_ms: self.look_up_until_ms,
        }
    }

    /// place, reserve, grant.
    fn ask(&mut self, account: Account, tried: Option<Tried>, desk: &mut Desk, now: Now) -> Step {
        let except = tried.map(|tried| tried.node);
        let held = desk
            .directory
            .places(account.id, now.ms)
            .find(|node| Some(*node) != except && desk.pool.takes_grants(*node));
        let node = match held.map_or_else(|| desk.pool.pick(except), Pick::Node) {
            Pick::Node(node) => node,
            Pick::Full => return self.fail(&account, Failure::Full, desk, now),
            Pick::Nobody if tried.is_some_and(|tried| tried.full) => {
                return self.fail(&account, Failure::Full, desk, now);
            }
            Pick::Nobody => {
                return self.fail(&account, Failure::Busy(Counter::NoNode), desk, now);
            }
        };
        let Some(epoch) = desk.epochs.next_epoch(now.unix_ms) else {
            return self.fail(&account, Failure::Busy(Counter::NoEpoch), desk, now);
        };
        let Some(reservation) = desk.pool.reserve(node) else {
            return self.fail(&account, Failure::Busy(Counter::NoNode), desk, now);
        };
        let ticket = Ticket::new(desk.tickets.random());
        let rules = &desk.rules;
        let grant = Box::new(Grant {
            account_id: account.id,
            account: self.claim.account.clone(),
            account_version: account.version,
            session_key: proof::session_key(&account.key, self.claim.nonce, &ticket),
            ticket,
            source: rules.source_exact.then_some(self.source),
            epoch,
            ttl_ms: rules.grant_ttl_ms,
            heartbeat_s: rules.heartbeat_s,
        });
        self.wait = Wait::Grant(Offer {
            account,
            node,
            epoch,
            ticket,
            expires_ms: now.ms + u64::from(rules.grant_ttl_ms),
            second: tried.is_some(),
        });
        Step::Ask {
            reservation,
            grant,
            until_ms: self.wait_until(now, GRANTED_WITHIN_MS),
        }
    }

    /// The one more try on another node; the epoch and the ticket are new, so that the grant that
    /// may still come into being on the first node is never taken for this one.
    fn ask_elsewhere(
        &mut self,
        offer: &Offer,
        full: bool,
        why: Counter,
        desk: &mut Desk,
        now: Now,
    ) -> Step {
        if !offer.second && now.ms < self.give_up_ms {
            desk.counters.count(why);
            let node = offer.node;
            return self.ask(offer.account, Some(Tried { node, full }), desk, now);
        }
        if full {
            desk.counters.count(why);
            return self.fail(&offer.account, Failure::Full, desk, now);
        }
        self.fail(&offer.account, Failure::Busy(why), desk, now)
    }

    /// The login reserved nothing that it knows of, so it may be repeated.
    fn fail(&self, account: &Account, failure: Failure, desk: &mut Desk, now: Now) -> Step {
        desk.nonces.forget(account.id, self.claim.nonce);
        match failure {
            Failure::Full => desk.full(now),
            Failure::Busy(why) => desk.busy(why, now),
        }
    }

    /// The grant stands on its node: only now is the device told to come.
    fn accept(&self, offer: &Offer, desk: &mut Desk, now: Now) -> Step {
        let account = &offer.account;
        let open = OpenGrant {
            node: offer.node,
            epoch: offer.epoch,
            account_version: account.version,
            expires_ms: offer.expires_ms,
            ticket: Some(offer.ticket),
        };
        let Some(mut reply) = self.reply_ok(account, &open, desk, now) else {
            return self.fail(account, Failure::Busy(Counter::GrantTimedOut), desk, now);
        };
        desk.nonces
            .granted(account.id, self.claim.nonce, offer.epoch);
        desk.directory.granted(account.id, open);
        reply.last_login = desk.pool.node(offer.node).map(|node| LastLogin {
            account_id: account.id,
            firmware: self.claim.firmware.clone(),
            source: self.source,
            node: node.name.clone(),
            at_unix_ms: now.unix_ms,
        });
        Step::Reply(reply)
    }

    /// The same login again: is its grant still open?
    fn check(&mut self, account: Account, open: OpenGrant, desk: &mut Desk, now: Now) -> Step {
        let Some(node) = desk.pool.node(open.node) else {
            return desk.busy(Counter::NoNode, now);
        };
        let link = node.link;
        let check = GrantCheck {
            account_id: account.id,
            epoch: open.epoch,
        };
        self.wait = Wait::Check(account, open);
        Step::Check {
            link,
            check,
            until_ms: self.wait_until(now, GRANTED_WITHIN_MS),
        }
    }

    /// `None` where the grant has run out or its node cannot be named any more.
    fn reply_ok(
        &self,
        account: &Account,
        open: &OpenGrant,
        desk: &mut Desk,
        now: Now,
    ) -> Option<Reply> {
        let address = desk.pool.node(open.node)?.address_for(self.source)?;
        // To the nearest second: what a grant lost on its way to the node is no second.
        let left_s = (open.expires_ms.saturating_sub(now.ms) + 500) / 1_000;
        let ticket_ttl_s = u16::try_from(left_s).ok().filter(|left_s| *left_s > 0)?;
        let target = Target {
            host: &address.ip().to_string(),
            port: address.port(),
            ticket: open.ticket?,
            ticket_ttl_s,
        };
        desk.counters.count(Counter::Ok);
        Some(Reply::new(&LoginReply::ok(
            now.unix_ms,
            target,
            self.claim.nonce,
            &account.key,
        )))
    }
}

/// What the device says of itself.
#[derive(Debug)]
struct Claim {
    account: AccountName,
    firmware: Box<str>,
    sent_at_ms: u64,
    nonce: Nonce,
    proof: proof::Proof,
}

impl Claim {
    fn parse(body: &[u8]) -> Result<Self, MessageError> {
        let login = login::Login::decode_body(body)?;
        let account = login.account.parse();
        Ok(Self {
            account: account.map_err(|_| MessageError::Body("account"))?,
            firmware: login.firmware.into(),
            sent_at_ms: login.sent_at_ms,
            nonce: login.nonce,
            proof: login.proof,
        })
    }

    /// In constant time.
    fn verify(&self, key: &DeviceKey) -> bool {
        let login = login::Login {
            account: self.account.as_str(),
            firmware: &self.firmware,
            sent_at_ms: self.sent_at_ms,
            nonce: self.nonce,
            proof: self.proof,
        };
        login.verify(key)
    }
}

#[cfg(test)]
mod tests;
