//! Pure. A login at the front door.
//!
//! ```text
//!            malformed           busy              busy                    busy
//!              ▲                   ▲                 ▲                       ▲
//! Login ──▶ parsed ──▶ paced ──▶ room ──▶ picked ──┴▶ first try ──▶ second try ──▶ reply
//!                                                     │ answer, relayed  │ answer, relayed
//!                                                     └──────────────────┴──▶ reply
//! ```
//!
//! A try lasts 2.5 s at most. It fails when its time is over or its link breaks, and when a conn
//! server answers `full` while another is known to have room; the second try goes to another conn
//! server. So a login is answered within 6 s of its last byte whatever happens behind the door.
//!
//! When all conn servers are full, logins are still forwarded, a bounded number at a time: a
//! device may take over the place of its own old session, which only a logic server can know.

use std::collections::BTreeMap;
use std::net::IpAddr;

use common::config::Policy;
use common::histogram::Histogram;
use common::link::message::{self, LoginAnswer, Message};
use common::link::{LinkEvent, LinkId, Peer, Role};
use common::pacing::{Limit, Pacer, Rate, jittered};
use common::time::Now;
use protocols::rcu::code::LoginStatus;
use protocols::rcu::login::{Login, LoginReply, LoginVerdict};
use protocols::rcu::{frame, kind};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::conns::Conns;
use crate::counters::{Counter, Counters, Gauge};
use crate::intake::Breach;
use crate::pending::{Admission, Connection, ConnectionId, Pending};

/// One try at one conn server.
pub const TRY_MS: u32 = 2_500;

/// When a device shall ask again that met nobody behind the door: by then a link is up again.
const RETRY_AFTER_NO_ANSWER_MS: u32 = 2_000;

/// And one that found every place in use: places come free slowly.
const RETRY_AFTER_FULL_MS: u32 = 10_000;

/// What the core needs to know of the settings.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// What was dialled, in the order of the configuration.
    pub conn_servers: Vec<String>,
    pub policy: Policy,
    pub connections_max: usize,
    pub connections_per_source_max: usize,
    /// Logins being decided; at least as many as there may be connections.
    pub logins_open_max: usize,
    /// Of them, those that are tried though every conn server is full.
    pub logins_at_full_max: usize,
    pub in_all: Rate,
    pub per_source: Rate,
    pub sources_max: usize,
}

/// Everything that can happen to a balancer.
#[derive(Debug)]
pub enum Input {
    /// A device has connected. Later ones have greater ids.
    Accepted {
        connection: ConnectionId,
        source: IpAddr,
    },
    /// It has said a whole Login frame, and nothing else.
    Login {
        connection: ConnectionId,
        source: IpAddr,
        frame_id: u16,
        body: Vec<u8>,
    },
    /// It is over, for whatever reason but [`Effect::Drop`].
    Ended {
        connection: ConnectionId,
        how: End,
    },
    /// A device was turned away unseen, because the process had no descriptor for it.
    Unseen,
    Link(LinkEvent),
    /// Those that wait are answered `busy`, those that have said nothing yet are dropped.
    Shutdown,
    /// [`Core::next_deadline`] has come.
    Tick,
}

/// How a device's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the reply sent.
    Replied,
    /// With `Close(attach_timeout)`.
    AttachTimeout,
    /// With `Close(protocol_error)`.
    ProtocolError(Breach),
    /// The device left before its reply.
    Gone,
}

/// What a balancer wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Close it without a word. It is forgotten: no `Ended` follows.
    Drop { connection: ConnectionId },
    /// Send this frame and close it. It may have gone meanwhile.
    Reply {
        connection: ConnectionId,
        frame: Vec<u8>,
    },
    Request {
        link: LinkId,
        id: u64,
        deadline_ms: u32,
        login: message::Login,
    },
    /// For whoever looks for one device: why this one was not let in; a counter's name, or a breach's.
    Explain { source: IpAddr, why: &'static str },
}

/// The decisions of a balancer.
///
/// How it is called: [`Core::apply`] with each thing that happens, in the order in which it happened, then its
/// effects are carried out, in order and whole, before the next; [`Input::Tick`] once [`Core::next_deadline`] has
/// passed, which every input may have moved. Links: `Up` before anything else of a link, `Down` last. A connection
/// gets one `Accepted` and at most one `Login`, and `Ended` unless an effect dropped it before. After
/// [`Input::Shutdown`] nobody new is let in; it is done when [`Core::pending`] is 0.
#[derive(Debug)]
pub struct Core {
    settings: RouteSettings,
    pending: Pending,
    conns: Conns,
    pacer: Pacer,
    random: SmallRng,
    /// The tries under way, by the id of their request. Ids grow and every try lasts equally
    /// long, so the first one is due first.
    tries: BTreeMap<u64, Try>,
    /// How many of them are at a conn server that is full.
    tries_at_full: usize,
    last_id: u64,
    counters: Counters,
    /// From a whole Login to its reply.
    login_ms: Histogram,
    shutting_down: bool,
}

/// A login that a conn server is deciding.
#[derive(Debug)]
struct Try {
    asked: Asked,
    link: LinkId,
    at_full: bool,
    attempt: Attempt,
    due_at: u64,
}

/// A login as the device sent it.
#[derive(Debug)]
struct Asked {
    connection: ConnectionId,
    frame_id: u16,
    login: message::Login,
    since_ms: u64,
}

/// Which of its two tries a login is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    First,
    /// The conn server that failed it.
    After(LinkId),
}

impl Core {
    pub fn new(settings: RouteSettings, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        Self {
            pending: Pending::new(
                settings.connections_max,
                settings.connections_per_source_max,
            ),
            conns: Conns::new(settings.policy),
            pacer: Pacer::new(
                settings.in_all,
                settings.per_source,
                settings.sources_max,
                rand::RngExt::random(&mut random),
            ),
            settings,
            random,
            tries: BTreeMap::new(),
            tries_at_full: 0,
            last_id: 0,
            counters: Counters::default(),
            login_ms: Histogram::default(),
            shutting_down: false,
        }
    }

    pub fn apply(&mut self, input: Input, now: Now, effects: &mut Vec<Effect>) {
        match input {
            Input::Accepted { connection, source } => self.accepted(connection, source, effects),
            Input::Login {
                connection,
                source,
                frame_id,
                body,
            } => {
                let source = source.to_canonical();
                let asked = Asked {
                    connection,
                    frame_id,
                    login: message::Login { source, body },
                    since_ms: now.ms,
                };
                self.login(asked, now, effects);
            }
            Input::Ended { connection, how } => self.ended(connection, how, effects),
            Input::Unseen => self.counters.count(Counter::NoDescriptor),
            Input::Link(event) => self.link(event, now, effects),
            Input::Shutdown => self.shut_down(now, effects),
            Input::Tick => self.tick(now, effects),
        }
    }

    /// When a Tick has something to do; `None`: nothing is under way.
    pub fn next_deadline(&self) -> Option<u64> {
        self.tries.values().next().map(|first| first.due_at)
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Milliseconds from a whole Login to its reply.
    pub fn login_ms(&self) -> &Histogram {
        &self.login_ms
    }

    /// Connections without a reply, or not closed yet after it.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    pub fn logins_open(&self) -> usize {
        self.tries.len()
    }

    /// As it is now.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        match gauge {
            Gauge::Pending => self.pending() as u64,
            Gauge::LoginsOpen => self.logins_open() as u64,
            Gauge::ConnServers => self.conns.len() as u64,
            Gauge::PlacesFree => self.conns.places_free(),
        }
    }

    /// What it keeps, by name: for metrics, and for whoever checks that all of it is bounded.
    pub fn held(&self) -> [(&'static str, usize); 4] {
        [
            ("connections", self.pending.len()),
            ("logins", self.tries.len()),
            ("conn_servers", self.conns.len()),
            ("sources", self.pacer.sources()),
        ]
    }

    pub fn conns(&self) -> &Conns {
        &self.conns
    }

    fn accepted(&mut self, connection: ConnectionId, source: IpAddr, effects: &mut Vec<Effect>) {
        self.counters.count(Counter::Connections);
        let id = connection;
        let accepted = Connection { id, source };
        if self.shutting_down {
            return self.drop(accepted, Counter::ShuttingDown, effects);
        }
        match self.pending.accept(connection, source) {
            Admission::Admitted => {}
            Admission::InPlaceOf(oldest, Limit::Source) => {
                self.drop(oldest, Counter::DroppedForSource, effects);
            }
            Admission::InPlaceOf(oldest, Limit::InAll) => {
                self.drop(oldest, Counter::DroppedInAll, effects);
            }
            Admission::TurnedAway(Limit::Source) => {
                self.drop(accepted, Counter::TurnedAwaySource, effects);
            }
            Admission::TurnedAway(Limit::InAll) => {
                self.drop(accepted, Counter::TurnedAwayInAll, effects);
            }
        }
    }

    fn drop(&mut self, it: Connection, why: Counter, effects: &mut Vec<Effect>) {
        self.counters.count(why);
        effects.push(Effect::Drop { connection: it.id });
        explain(it.source, why.name(), effects);
    }

    fn ended(&mut self, connection: ConnectionId, how: End, effects: &mut Vec<Effect>) {
        let source = self.pending.remove(connection);
        let (counted, why) = match how {
            End::Replied => return,
            End::AttachTimeout => (Counter::AttachTimeout, Counter::AttachTimeout.name()),
            End::ProtocolError(breach) => (Counter::ProtocolError, breach.name()),
            End::Gone => (Counter::Gone, Counter::Gone.name()),
        };
        self.counters.count(counted);
        if let Some(source) = source {
            explain(source, why, effects);
        }
    }

    fn login(&mut self, asked: Asked, now: Now, effects: &mut Vec<Effect>) {
        let Some(source) = self.pending.known(asked.connection) else {
            // It was dropped while its Login was on the way to us.
            return;
        };
        self.counters.count(Counter::Logins);
        if Login::decode_body(&asked.login.body).is_err() {
            explain(asked.login.source, Counter::Malformed.name(), effects);
            self.reply(&asked, 0, LoginVerdict::Malformed, now, effects);
        } else if self.shutting_down {
            self.busy(&asked, Counter::ShuttingDown, now, effects);
        } else if let Err(paced) = self.pacer.admit(source.into(), now.ms) {
            let why = match paced.limit {
                Limit::Source => Counter::PacedSource,
                Limit::InAll => Counter::PacedInAll,
            };
            self.busy_for(&asked, why, paced.retry_after_ms, now, effects);
        } else if self.tries.len() >= self.settings.logins_open_max {
            self.busy(&asked, Counter::TooManyOpen, now, effects);
        } else {
            self.forward(asked, Attempt::First, now, effects);
        }
    }

    /// Gives the login to the next conn server, or up.
    fn forward(&mut self, asked: Asked, attempt: Attempt, now: Now, effects: &mut Vec<Effect>) {
        let failed = match attempt {
            Attempt::First => None,
            Attempt::After(link) => Some(link),
        };
        let Some(pick) = self.conns.pick(failed) else {
            let why = match attempt {
                Attempt::First => Counter::NoConnServer,
                Attempt::After(_) => Counter::NoAnswer,
            };
            return self.busy(&asked, why, now, effects);
        };
        if pick.at_full && self.tries_at_full >= self.settings.logins_at_full_max {
            return self.busy(&asked, Counter::TooManyAtFull, now, effects);
        }
        self.counters.count(match attempt {
            Attempt::First => Counter::Forwarded,
            Attempt::After(_) => Counter::Retried,
        });
        self.conns.forwarded(pick.link);
        self.last_id += 1;
        effects.push(Effect::Request {
            link: pick.link,
            id: self.last_id,
            deadline_ms: TRY_MS,
            login: asked.login.clone(),
        });
        self.tries_at_full += usize::from(pick.at_full);
        self.tries.insert(
            self.last_id,
            Try {
                asked,
                link: pick.link,
                at_full: pick.at_full,
                attempt,
                due_at: now.ms + u64::from(TRY_MS),
            },
        );
    }

    fn link(&mut self, event: LinkEvent, now: Now, effects: &mut Vec<Effect>) {
        match event {
            LinkEvent::Up { link, peer } => self.link_up(link, &peer),
            LinkEvent::Down { link, .. } => self.link_down(link, now, effects),
            LinkEvent::Answer {
                link,
                id,
                message: Message::LoginAnswer(answer),
                ..
            } => self.answered(link, id, &answer, now, effects),
            LinkEvent::Notice {
                link,
                message: Message::ConnLoad(load),
                ..
            } => self.conns.report(link, load),
            // Nothing else is a conn server's to say to us; who was refused is tried again.
            LinkEvent::Answer { .. }
            | LinkEvent::Notice { .. }
            | LinkEvent::Request { .. }
            | LinkEvent::Refused { .. } => {}
        }
    }

    fn link_up(&mut self, link: LinkId, peer: &Peer) {
        let mut configured = self.settings.conn_servers.iter();
        let order = configured.position(|target| Some(target) == peer.target.as_ref());
        if peer.role == Role::Conn
            && let Some(order) = order
        {
            self.conns.up(link, order);
        }
    }

    fn link_down(&mut self, link: LinkId, now: Now, effects: &mut Vec<Effect>) {
        self.conns.down(link);
        let lost = self.tries.iter().filter(|(_, it)| it.link == link);
        let lost: Vec<u64> = lost.map(|(&id, _)| id).collect();
        for id in lost {
            self.counters.count(Counter::TriesLinkLost);
            self.fail(id, now, effects);
        }
    }

    fn answered(
        &mut self,
        link: LinkId,
        id: u64,
        answer: &LoginAnswer,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let reply = LoginReply::decode_body(&answer.body);
        let status = reply.as_ref().ok().map(LoginReply::status);
        let full = status == Some(LoginStatus::Full);
        self.conns.answered(link, full);
        let Some(open) = self.tries.get(&id).filter(|open| open.link == link) else {
            self.counters.count(Counter::AnswersIgnored);
            return;
        };
        let Some(status) = status else {
            self.counters.count(Counter::AnswersIgnored);
            return self.fail(id, now, effects);
        };
        if full && open.attempt == Attempt::First && self.conns.has_room_besides(link) {
            self.counters.count(Counter::TriesFull);
            return self.fail(id, now, effects);
        }
        if let Some(Try { asked, .. }) = self.take(id) {
            let counter = Counter::of_status(status);
            self.counters.count(counter);
            if status != LoginStatus::Ok {
                explain(asked.login.source, counter.name(), effects);
            }
            self.login_ms.record(now.ms.saturating_sub(asked.since_ms));
            let mut frame = Vec::new();
            frame::write(kind::LOGIN_REPLY, asked.frame_id, &mut frame, |body| {
                body.extend_from_slice(&answer.body);
            });
            effects.push(Effect::Reply {
                connection: asked.connection,
                frame,
            });
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some((&id, open)) = self.tries.first_key_value()
            && open.due_at <= now.ms
        {
            self.counters.count(Counter::TriesTimedOut);
            self.conns.timed_out(open.link);
            self.fail(id, now, effects);
        }
    }

    fn shut_down(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.shutting_down = true;
        for connection in self.pending.take_unknown() {
            effects.push(Effect::Drop { connection });
        }
        self.tries_at_full = 0;
        for open in std::mem::take(&mut self.tries).into_values() {
            self.busy(&open.asked, Counter::ShuttingDown, now, effects);
        }
    }

    /// A try came to nothing: one more, or none.
    fn fail(&mut self, id: u64, now: Now, effects: &mut Vec<Effect>) {
        let Some(failed) = self.take(id) else { return };
        match failed.attempt {
            Attempt::First => {
                self.forward(failed.asked, Attempt::After(failed.link), now, effects);
            }
            Attempt::After(_) => self.busy(&failed.asked, Counter::NoAnswer, now, effects),
        }
    }

    fn take(&mut self, id: u64) -> Option<Try> {
        let open = self.tries.remove(&id)?;
        self.tries_at_full -= usize::from(open.at_full);
        Some(open)
    }

    fn busy(&mut self, asked: &Asked, why: Counter, now: Now, effects: &mut Vec<Effect>) {
        let wait_ms = match why {
            Counter::TooManyAtFull => RETRY_AFTER_FULL_MS,
            _ => RETRY_AFTER_NO_ANSWER_MS,
        };
        let retry_after_ms = jittered(wait_ms, &mut self.random);
        self.busy_for(asked, why, retry_after_ms, now, effects);
    }

    fn busy_for(
        &mut self,
        asked: &Asked,
        why: Counter,
        retry_after_ms: u32,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.counters.count(why);
        explain(asked.login.source, why.name(), effects);
        self.reply(asked, retry_after_ms, LoginVerdict::Busy, now, effects);
    }

    /// A reply of our own.
    fn reply(
        &mut self,
        asked: &Asked,
        retry_after_ms: u32,
        verdict: LoginVerdict<'_>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.counters.count(Counter::of_status(verdict.status()));
        self.login_ms.record(now.ms.saturating_sub(asked.since_ms));
        let reply = LoginReply {
            retry_after_ms,
            server_time_ms: now.unix_ms,
            verdict,
        };
        let mut frame = Vec::new();
        reply.encode(asked.frame_id, &mut frame);
        effects.push(Effect::Reply {
            connection: asked.connection,
            frame,
        });
    }
}

fn explain(source: IpAddr, why: &'static str, effects: &mut Vec<Effect>) {
    let source = source.to_canonical();
    effects.push(Effect::Explain { source, why });
}

#[cfg(test)]
mod tests;
