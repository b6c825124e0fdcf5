//! Pure. The node's authority for its places, and for which session of an account is current here.
//!
//! A grant takes a place; a right claim turns it into a session; a shard says when that ended. An epoch takes effect
//! with the proven Attach, never with the grant, and what is said late about an older one changes nothing.
//!
//! ```text
//! claim ── ticket, source, proof ── any wrong ───▶ not_admitted
//!            │ right: the ticket is used up
//!            ├─ shutting down ───────────────────▶ draining
//!            ├─ a newer epoch was attached ──────▶ not_admitted
//!            ╰─▶ a seat; an older session ends
//! ```

use std::net::{IpAddr, SocketAddr};

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::LinkId;
use common::link::message::{
    self, End, GrantCheck, GrantVerdict, LogicInfo, LogicLoad, Revoke, RevokeReason,
    SESSIONS_PAGE_MAX, SessionPage, SessionPageAsk,
};
use common::pacing::Source;
use common::time::Now;
use protocols::rcu::attach::Attach;
use protocols::rcu::code::CloseReason;

use super::door::{Answer, Claim, Refusal, Seat, Verdict};
use super::grants::{Grant, Grants};
use super::notices::Notices;
use super::places::{Current, Full, Places};
use super::{Effect, Settings};
use crate::adapter::Evidence;
use crate::ask::Ask;
use crate::counters::{Counter, Counters};
use crate::ids::SessionId;
use crate::shard::SessionSeed;

pub(super) struct Register {
    grants: Grants,
    places: Places,
    notices: Notices,
    heartbeat_s: u16,
    advertise: Vec<SocketAddr>,
    /// Sessions admitted since the start; the last one's id.
    sessions: u64,
    draining: bool,
    counters: Counters,
}

impl Register {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            grants: Grants::default(),
            places: Places::new(settings.places_max, settings.shards),
            notices: Notices::default(),
            heartbeat_s: settings.heartbeat_s,
            advertise: settings.advertise.clone(),
            sessions: 0,
            draining: false,
            counters: Counters::default(),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Places in use and in all.
    pub(super) fn load(&self) -> LogicLoad {
        LogicLoad {
            places_used: self.places.used(),
            places_max: self.places.max(),
            draining: self.draining,
        }
    }

    /// What it keeps, by name.
    pub(super) fn held(&self) -> [(&'static str, usize); 4] {
        [
            ("grants", self.grants.len()),
            ("places", self.places.used() as usize),
            ("links", self.notices.links()),
            ("notices", self.notices.gathered()),
        ]
    }

    pub(super) fn next_deadlines_ms(&self) -> [Option<u64>; 2] {
        [
            self.grants.next_expiry_ms(),
            self.notices.next_deadline_ms(self.load()),
        ]
    }

    pub(super) fn let_time_pass(&mut self, now: Now) {
        while let Some(grant) = self.grants.pop_expired(now.ms) {
            self.counters.count(Counter::GrantExpired);
            self.grant_ended(&grant);
        }
    }

    /// Whether anybody may attach from there.
    pub(super) fn expects(&self, source: IpAddr) -> bool {
        self.grants.admit_from(Source::from(source))
    }

    /// The account's current session from now on, in a shard; an older one ends.
    pub(super) fn claim(&mut self, claim: &Claim, now: Now, effects: &mut Vec<Effect>) -> Verdict {
        let Evidence::Ticket(attach) = &claim.evidence else {
            return Err(Refusal::not_admitted(Counter::NotAdmittedResume, None));
        };
        let grant = self.use_up(attach, claim.source.into())?;
        let account_id = grant.account_id;
        self.sessions += 1;
        let current = Current {
            session: SessionId(self.sessions),
            shard: self.places.idlest_shard(),
            epoch: grant.epoch,
            account_version: grant.account_version,
        };
        let replaced = self.places.attached(account_id, current);
        self.places.grant_closed(account_id);
        // An older grant would never be admitted any more: its place is worth more.
        let is_older = |other: &Grant| other.epoch < grant.epoch;
        for older in self.grants.close_of_account(account_id, is_older) {
            self.counters.count(Counter::GrantSuperseded);
            self.grant_ended(&older);
        }
        self.notices.attached(account_id, &current);
        self.counters.count(Counter::Attached);
        if let Some(replaced) = replaced {
            effects.push(end_session(&replaced, CloseReason::Replaced));
        }
        Ok(Seat {
            shard: current.shard,
            seed: SessionSeed {
                session: current.session,
                protocol: claim.protocol,
                account_id,
                epoch: grant.epoch,
                session_key: grant.session_key,
                ticket: attach.ticket,
                source: claim.source,
                claim_frame_id: claim.frame_id,
                heartbeat_s: grant.heartbeat_s.unwrap_or(self.heartbeat_s),
                attached_unix_ms: now.unix_ms,
            },
        })
    }

    /// The ticket's grant. Only a right proof from an allowed address uses it up.
    fn use_up(&mut self, attach: &Attach, source: Source) -> Result<Grant, Refusal> {
        let grant = self
            .grants
            .get(&attach.ticket)
            .ok_or(Refusal::not_admitted(Counter::NotAdmittedTicket, None))?;
        let account_id = Some(grant.account_id);
        if !grant.admits_from(source) {
            let why = Counter::NotAdmittedSource;
            return Err(Refusal::not_admitted(why, account_id));
        }
        if !attach.verify(&grant.session_key) {
            let why = Counter::NotAdmittedProof;
            return Err(Refusal::not_admitted(why, account_id));
        }
        let grant = grant.clone();
        self.grants.close(&attach.ticket);

        if self.draining {
            self.grant_ended(&grant);
            return Err(Refusal {
                why: Counter::AttachDraining,
                account_id,
                answer: Answer::Draining,
            });
        }
        if !self.places.is_newest(grant.account_id, grant.epoch) {
            self.grant_ended(&grant);
            let why = Counter::NotAdmittedEpoch;
            return Err(Refusal::not_admitted(why, account_id));
        }
        Ok(grant)
    }

    pub(super) fn link_up(&mut self, link: LinkId, effects: &mut Vec<Effect>) {
        let info = LogicInfo {
            advertise: self.advertise.clone(),
            load: self.load(),
        };
        self.notices.link_up(link, info, effects);
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        self.notices.link_down(link);
    }

    pub(super) fn grant(&mut self, grant: &message::Grant, now: Now) -> GrantVerdict {
        if self.draining {
            self.counters.count(Counter::GrantDraining);
            return GrantVerdict::Draining;
        }
        let opened = Grant::new(grant, now.ms);
        if let Err(Full) = self.places.grant_opened(grant.account_id) {
            self.counters.count(Counter::GrantFull);
            return GrantVerdict::Full;
        }
        self.counters.count(Counter::Granted);
        // A grant that is repeated takes its own place.
        if let Some(same) = self.grants.close(&grant.ticket) {
            self.places.grant_closed(same.account_id);
        }
        if let Some(oldest) = self.grants.open(&grant.ticket, opened) {
            self.counters.count(Counter::GrantDropped);
            self.grant_ended(&oldest);
        }
        GrantVerdict::Granted
    }

    /// Whether the grant of this epoch may still be used.
    pub(super) fn is_open(&self, check: GrantCheck) -> bool {
        let mut open = self.grants.of_account(check.account_id);
        open.any(|grant| grant.epoch == check.epoch)
    }

    /// A newer session lives elsewhere.
    pub(super) fn end(&self, End { account_id, below }: End, effects: &mut Vec<Effect>) {
        let older = self.places.current(account_id);
        if let Some(older) = older.filter(|current| current.epoch < below) {
            effects.push(end_session(&older, CloseReason::Replaced));
        }
    }

    pub(super) fn revoke(&mut self, revoke: Revoke, effects: &mut Vec<Effect>) {
        let account_id = revoke.account_id;
        let is_over = |grant: &Grant| grant.account_version < revoke.below_version;
        for grant in self.grants.close_of_account(account_id, is_over) {
            self.counters.count(Counter::GrantRevoked);
            self.grant_ended(&grant);
        }
        let current = self.places.current(account_id);
        if let Some(current) = current.filter(|it| it.account_version < revoke.below_version) {
            let reason = match revoke.why {
                RevokeReason::Disabled => CloseReason::Disabled,
                RevokeReason::KeyRotated => CloseReason::Replaced,
            };
            effects.push(end_session(&current, reason));
        }
    }

    pub(super) fn ask(&mut self, ask: Ask) -> Effect {
        match self.places.current(ask.account_id) {
            Some(current) => Effect::Ask {
                shard: current.shard,
                session: current.session,
                ask,
            },
            None => Effect::answer(ask.unattached(&mut self.counters)),
        }
    }

    /// Only who is attached; accounts that hold no more than a grant are passed over.
    pub(super) fn session_page(&self, ask: SessionPageAsk) -> SessionPage {
        let limit = ask.limit.clamp(1, SESSIONS_PAGE_MAX) as usize;
        let places = self.places.after(ask.after);
        let mut attached = places.filter_map(|(account_id, current)| {
            let current = current?;
            Some((account_id, current.epoch))
        });
        let sessions = attached.by_ref().take(limit).collect();
        let last = attached.next().is_none();
        SessionPage { sessions, last }
    }

    #[cfg(test)]
    pub(super) fn current(&self, account_id: AccountId) -> Option<Current> {
        self.places.current(account_id)
    }

    /// A shard let go of a session, or none took it.
    pub(super) fn session_ended(&mut self, account_id: AccountId, epoch: Epoch) {
        if self.places.session_ended(account_id, epoch) {
            self.notices.session_ended(account_id, epoch);
        }
    }

    /// No grants and no sessions any more.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// Tells the conn servers what has gathered in a turn.
    pub(super) fn flush(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let load = self.load();
        let (places, grants) = (&self.places, &self.grants);
        self.notices.flush(load, places, grants, now.ms, effects);
    }

    /// A grant is over, and no session came of it.
    fn grant_ended(&mut self, grant: &Grant) {
        self.places.grant_closed(grant.account_id);
        self.notices.grant_ended(grant);
    }
}

fn end_session(current: &Current, reason: CloseReason) -> Effect {
    Effect::EndSession {
        shard: current.shard,
        session: current.session,
        reason,
        retry_after_ms: 0,
    }
}
