//! Pure. Who may come in: connections that are not attached yet (`door`), and the grants, places and sessions that
//! decide (`register`).
//!
//! ```text
//! device ──▶ door ── is anybody expected from there? ──▶ register ◀── grants, revocations ── conn servers
//!             │  ╰── Claim ──▶ ◀── Seat, or Refusal ──╯   │  ╰── what is held, began, ended ──▶
//!             ╰─▶ shard                                   ╰─▶ shard: end, ask
//! ```
//!
//! Both run on one loop here. What passes between them is all that they know of one another.
//!
//! Everything is bounded: connections that are not attached by number, bytes and time; grants by
//! places and by account; sessions by places.

mod door;
mod grants;
mod notices;
mod pending;
mod places;
mod register;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::LinkId;
use common::link::message::{
    self, End, GrantAnswer, GrantCheck, GrantCheckAnswer, LogicLoad, Message, Revoke,
    SessionPageAsk,
};
use common::time::Now;
use protocols::rcu::code::CloseReason;

use crate::adapter::Protocol;
use crate::ask::{Answer, Ask};
use crate::counters::{Counter, Counters};
use crate::ids::{ConnId, ListenerIndex, SessionId, ShardIndex};
use crate::shard::SessionSeed;
use door::{Door, Seat};
use register::Register;

/// A port for devices; it may have several addresses.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    pub protocol: Protocol,
}

/// How many may come in, and how long they may take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// By [`ListenerIndex`].
    pub listeners: Vec<Listener>,
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
        listener: ListenerIndex,
        source: IpAddr,
    },
    /// Bytes of a connection that is not attached. The driver reads at most
    /// [`Protocol::read_bytes_max`] of it in all.
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

/// The node's gate: a door, and the register that it asks.
///
/// How it is called: [`Core::apply`] with each thing that happens, then its effects are carried out, in order; a turn
/// takes as many inputs as there are and ends with [`Input::Tick`], which tells the conn servers what the turn
/// brought. What is meant for a shard is posted behind that, so that they know of a session before its device does.
/// A connection gets one [`Input::Accepted`]; after an [`Effect::Refuse`] or an [`Effect::Admit`] of it the core has
/// forgotten it, and its id may be given anew. [`Core::next_deadline`] may have moved with every input.
pub struct Core {
    door: Door,
    register: Register,
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
    pub fn new(settings: &Settings, seed: u64) -> Self {
        assert!(settings.shards > 0, "a shard at least");
        Self {
            door: Door::new(settings, seed),
            register: Register::new(settings),
        }
    }

    /// Takes one input. Several may be taken before the effects are carried out, in order.
    /// A turn ends with [`Input::Tick`].
    pub fn apply(&mut self, input: Input<'_>, now: Now, effects: &mut Vec<Effect>) {
        let Self { door, register } = self;
        register.let_time_pass(now);
        door.let_time_pass(now, effects);
        match input {
            Input::Accepted {
                conn,
                listener,
                source,
            } => {
                let source = source.to_canonical();
                let is_expected = register.expects(source);
                door.accepted(conn, (listener, source), is_expected, now, effects);
            }
            Input::Received { conn, bytes } => {
                if let Some(claim) = door.received(conn, bytes, now, effects) {
                    let verdict = register.claim(&claim, now, effects);
                    let judged = door.judged(&claim, verdict, now, effects);
                    if let Err(Seat { seed, .. }) = judged {
                        register.session_ended(seed.account_id, seed.epoch);
                    }
                }
            }
            Input::Disconnected { conn } => door.disconnected(conn, effects),
            Input::LinkUp { link } => register.link_up(link, effects),
            Input::LinkDown { link } => register.link_down(link),
            Input::Grant {
                link,
                request,
                grant,
            } => {
                let answer = GrantAnswer {
                    verdict: register.grant(&grant, now),
                    load: register.load(),
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
                let is_open = register.is_open(check);
                effects.push(Effect::Answer {
                    link,
                    request,
                    message: GrantCheckAnswer { is_open }.into(),
                });
            }
            Input::End(end) => register.end(end, effects),
            Input::Revoke(revoke) => register.revoke(revoke, effects),
            Input::Ask(ask) => effects.push(register.ask(ask)),
            Input::SessionPageAsk { link, request, ask } => effects.push(Effect::Answer {
                link,
                request,
                message: register.session_page(ask).into(),
            }),
            Input::SessionEnded { account_id, epoch } => register.session_ended(account_id, epoch),
            Input::Shutdown => register.drain(),
            Input::Tick => register.flush(now, effects),
        }
    }

    /// When [`Input::Tick`] is due; monotonic milliseconds, 0 where it is due at once.
    pub fn next_deadline(&self) -> Option<u64> {
        let of_register = self.register.next_deadlines_ms().into_iter();
        let all = of_register.chain([self.door.next_deadline_ms()]);
        all.flatten().min()
    }

    /// So much of a connection that came by this listener is read before it is admitted.
    pub fn read_bytes_max(&self, listener: ListenerIndex) -> usize {
        self.door.protocol(listener).read_bytes_max()
    }

    /// Connections that were pushed out by later ones, since the start.
    pub fn shed(&self) -> u64 {
        self.door.counters().of(Counter::PendingShed)
    }

    /// Places in use and in all.
    pub fn load(&self) -> LogicLoad {
        self.register.load()
    }

    /// What it keeps, by name, for whoever checks that all of it is bounded.
    pub fn held(&self) -> [(&'static str, usize); 6] {
        let [grants, places, links, notices] = self.register.held();
        [
            ("connections", self.door.len()),
            ("connection_bytes", self.door.bytes()),
            grants,
            places,
            links,
            notices,
        ]
    }

    pub fn counters(&self) -> Counters {
        let mut counters = self.door.counters().clone();
        counters.merge(self.register.counters());
        counters
    }
}

impl Effect {
    fn answer(answer: Answer) -> Self {
        Self::Answer {
            link: answer.link,
            request: answer.request,
            message: answer.message,
        }
    }
}
