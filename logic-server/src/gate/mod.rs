//! Pure. Who may come in: grants, tickets, places, and connections that are not attached yet.
//!
//! The gate is the node's authority for its places and for which session of an account is current
//! here. A grant takes a place; a right Attach turns it into a session; a shard says when that
//! ended. An epoch takes effect with the proven Attach, never with the grant, and what is said
//! late about an older one changes nothing.
//!
//! Everything is bounded: connections that are not attached by number, bytes and time; grants by
//! places and by account; sessions by places.

mod attach;
mod grants;
mod notices;
mod pending;
mod places;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use common::device::code::CloseReason;
use common::device::frame::FRAME_BYTES_BEFORE_ATTACH_MAX;
use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::LinkId;
use common::link::message::{
    self, End, GrantAnswer, GrantCheck, GrantCheckAnswer, GrantVerdict, LogicInfo, LogicLoad,
    Message, Revoke, RevokeReason, SESSIONS_PAGE_MAX, SessionPage, SessionPageAsk,
};
use common::pacing::Source;
use common::time::Now;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::ask::{Answer, Ask};
use crate::counters::{Counter, Counters};
use crate::ids::{ConnId, SessionId, ShardIndex};
use crate::shard::SessionSeed;
use grants::{Grant, Grants};
use notices::Notices;
use pending::Pending;
use places::{Current, Full, Places};

/// A byte more than the contract allows before AttachReply: enough to see that there is more.
pub const READ_BYTES_MAX: usize = FRAME_BYTES_BEFORE_ATTACH_MAX + 1;

/// How many may come in, and how long they may take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Loops that take sessions; at least 1.
    pub shards: u16,
    /// Accounts with a session or an open grant, each once.
    pub places_max: u32,
    /// Connections that are not attached; beyond it the oldest is dropped. At least 1.
    pub pending_max: usize,
    /// From the accept to the whole Attach.
    pub first_frame_ms: u64,
    /// Where a grant does not say.
    pub heartbeat_s: u16,
    /// Where devices reach this node, one address per family.
    pub advertise: Vec<SocketAddr>,
    /// Devices that are sent away at shutdown are told to come back within this time, spread evenly.
    pub shutdown_spread_ms: u32,
}

/// What happens to the gate.
#[derive(Debug)]
pub enum Input<'a> {
    /// A device connected.
    Accepted {
        conn: ConnId,
        source: IpAddr,
    },
    /// Bytes of a connection that is not attached. The driver reads at most
    /// [`READ_BYTES_MAX`] of it in all.
    Received {
        conn: ConnId,
        bytes: &'a [u8],
    },
    /// The device went.
    Disconnected {
        conn: ConnId,
    },
    /// A link to a conn server is up: it is told who this is and what it holds.
    LinkUp {
        link: LinkId,
    },
    LinkDown {
        link: LinkId,
    },
    Grant {
        link: LinkId,
        request: u64,
        grant: message::Grant,
    },
    GrantCheck {
        link: LinkId,
        request: u64,
        check: GrantCheck,
    },
    End(End),
    Revoke(Revoke),
    /// Of an account's session.
    Ask(Ask),
    /// A page of the sessions, for somebody who looks at them.
    SessionPageAsk {
        link: LinkId,
        request: u64,
        ask: SessionPageAsk,
    },
    /// A shard let go of a session.
    SessionEnded {
        account_id: AccountId,
        epoch: Epoch,
    },
    /// No grants and no sessions any more.
    Shutdown,
    /// The end of a turn, and [`Core::next_deadline`] has come.
    Tick,
}

/// What the gate asks for.
#[derive(Debug)]
pub enum Effect {
    /// Send this (nothing, where it is empty), linger, close. The gate has forgotten the connection.
    Refuse {
        conn: ConnId,
        reply: Vec<u8>,
    },
    /// The connection is this shard's from now on, with what was read of it and not looked at.
    Admit {
        conn: ConnId,
        shard: ShardIndex,
        seed: SessionSeed,
        unread: Vec<u8>,
    },
    /// To a shard: close this session.
    EndSession {
        shard: ShardIndex,
        session: SessionId,
        reason: CloseReason,
        retry_after_ms: u32,
    },
    /// To a shard, which answers.
    Ask {
        shard: ShardIndex,
        session: SessionId,
        ask: Ask,
    },
    Answer {
        link: LinkId,
        request: u64,
        message: Message,
    },
    Notice {
        link: LinkId,
        message: Message,
    },
    /// A notice to every conn server.
    Broadcast {
        message: Message,
    },
    /// For whoever looks for one device: why this one was not let in.
    Explain {
        source: IpAddr,
        /// `Some`: its ticket was this account's.
        account_id: Option<AccountId>,
        why: Counter,
    },
}

/// The node's gate.
pub struct Core {
    settings: Settings,
    pending: Pending,
    grants: Grants,
    places: Places,
    notices: Notices,
    /// Sessions admitted since the start; the last one's id.
    sessions: u64,
    draining: bool,
    counters: Counters,
    rng: SmallRng,
}

/// Tickets and session keys are in there.
impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

impl Core {
    /// `seed` governs the spread of retry times.
    ///
    /// # Panics
    /// No shard.
    pub fn new(settings: Settings, seed: u64) -> Self {
        assert!(settings.shards > 0, "a shard at least");
        Self {
            pending: Pending::new(settings.pending_max),
            grants: Grants::default(),
            places: Places::new(settings.places_max, settings.shards),
            notices: Notices::default(),
            sessions: 0,
            draining: false,
            counters: Counters::default(),
            rng: SmallRng::seed_from_u64(seed),
            settings,
        }
    }

    /// Takes one input. Several may be taken before the effects are carried out, in order.
    /// A turn ends with [`Input::Tick`].
    pub fn apply(&mut self, input: Input<'_>, now: Now, effects: &mut Vec<Effect>) {
        self.let_time_pass(now, effects);
        match input {
            Input::Accepted { conn, source } => self.accepted(conn, source, now, effects),
            Input::Received { conn, bytes } => self.received(conn, bytes, now, effects),
            Input::Disconnected { conn } => {
                if let Some(source) = self.pending.forget(conn) {
                    self.count_refusal(source, None, Counter::PendingDisconnected, effects);
                }
            }
            Input::LinkUp { link } => {
                let info = LogicInfo {
                    advertise: self.settings.advertise.clone(),
                    load: self.load(),
                };
                self.notices.link_up(link, info, effects);
            }
            Input::LinkDown { link } => self.notices.link_down(link),
            Input::Grant {
                link,
                request,
                grant,
            } => {
                let answer = GrantAnswer {
                    verdict: self.grant(&grant, now),
                    load: self.load(),
                };
                effects.push(Effect::Answer {
                    link,
                    request,
                    message: answer.into(),
                });
            }
            Input::GrantCheck {
                link,
                request,
                check,
            } => {
                let mut open = self.grants.of_account(check.account_id);
                let answer = GrantCheckAnswer {
                    is_open: open.any(|grant| grant.epoch == check.epoch),
                };
                effects.push(Effect::Answer {
                    link,
                    request,
                    message: answer.into(),
                });
            }
            Input::End(End { account_id, below }) => {
                let older = self.places.current(account_id);
                if let Some(older) = older.filter(|current| current.epoch < below) {
                    effects.push(end_session(&older, CloseReason::Replaced));
                }
            }
            Input::Revoke(revoke) => self.revoke(revoke, effects),
            Input::Ask(ask) => effects.push(match self.places.current(ask.account_id) {
                Some(current) => Effect::Ask {
                    shard: current.shard,
                    session: current.session,
                    ask,
                },
                None => {
                    let Answer {
                        link,
                        request,
                        message,
                        ..
                    } = ask.unattached(&mut self.counters);
                    Effect::Answer {
                        link,
                        request,
                        message,
                    }
                }
            }),
            Input::SessionPageAsk { link, request, ask } => effects.push(Effect::Answer {
                link,
                request,
                message: self.session_page(ask).into(),
            }),
            Input::SessionEnded { account_id, epoch } => {
                if self.places.session_ended(account_id, epoch) {
                    self.notices.session_ended(account_id, epoch);
                }
            }
            Input::Shutdown => self.draining = true,
            Input::Tick => {
                let load = self.load();
                let (places, grants) = (&self.places, &self.grants);
                self.notices.flush(load, places, grants, now.ms, effects);
            }
        }
    }

    /// When [`Input::Tick`] is due; monotonic milliseconds, 0 where it is due at once.
    pub fn next_deadline(&self) -> Option<u64> {
        [
            self.pending.next_late_ms(),
            self.grants.next_expiry_ms(),
            self.notices.next_deadline_ms(self.load()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Places in use and in all.
    pub fn load(&self) -> LogicLoad {
        LogicLoad {
            places_used: self.places.used(),
            places_max: self.settings.places_max,
            draining: self.draining,
        }
    }

    /// What it keeps, by name, for whoever checks that all of it is bounded.
    pub fn held(&self) -> [(&'static str, usize); 6] {
        [
            ("connections", self.pending.len()),
            ("connection_bytes", self.pending.bytes()),
            ("grants", self.grants.len()),
            ("places", self.places.used() as usize),
            ("links", self.notices.links()),
            ("notices", self.notices.gathered()),
        ]
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn let_time_pass(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(grant) = self.grants.pop_expired(now.ms) {
            self.counters.count(Counter::GrantExpired);
            self.grant_ended(&grant);
        }
        while let Some(conn) = self.pending.next_late(now.ms) {
            let because = (None, Counter::ClosedAttachTimeout);
            self.close(conn, CloseReason::AttachTimeout, because, effects);
        }
    }

    fn accepted(&mut self, conn: ConnId, source: IpAddr, now: Now, effects: &mut Vec<Effect>) {
        self.counters.count(Counter::Accepted);
        let source = source.to_canonical();
        if !self.grants.admit_from(Source::from(source)) {
            self.count_refusal(source, None, Counter::WithoutGrant, effects);
            return effects.push(drop_silently(conn));
        }
        let late_at_ms = now.ms + self.settings.first_frame_ms;
        if let Some((shed, source)) = self.pending.accept(conn, source, late_at_ms) {
            self.count_refusal(source, None, Counter::PendingShed, effects);
            effects.push(drop_silently(shed));
        }
    }

    /// A connection ends without a session.
    fn count_refusal(
        &mut self,
        source: IpAddr,
        account_id: Option<AccountId>,
        why: Counter,
        effects: &mut Vec<Effect>,
    ) {
        self.counters.count(why);
        effects.push(Effect::Explain {
            source,
            account_id,
            why,
        });
    }

    fn grant(&mut self, grant: &message::Grant, now: Now) -> GrantVerdict {
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

    fn revoke(&mut self, revoke: Revoke, effects: &mut Vec<Effect>) {
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

    /// Only who is attached; accounts that hold no more than a grant are passed over.
    fn session_page(&self, ask: SessionPageAsk) -> SessionPage {
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

fn drop_silently(conn: ConnId) -> Effect {
    Effect::Refuse {
        conn,
        reply: vec![],
    }
}
