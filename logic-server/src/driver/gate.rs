//! The gate's loop: accepts, reads what comes before a session, hands admitted sockets to shards.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::ids::AccountId;
use common::link::{Hub, LinkId};
use common::logging::repeats::Repeats;
use common::time::Now;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tracing::field::display;

use super::linger::Lingering;
use super::listen::{Accept, Listeners};
use super::pace::{Inputs, Pace};
use super::pressure::Pressure;
use super::socket;
use super::{EVENTS_PER_TURN, MESSAGES_PER_TURN, ToGate, ToShard, Turns, WAKER};
use crate::clock::Clock;
use crate::gate::{Core, Effect, Input};
use crate::ids::{ConnId, ListenerIndex, ShardIndex};
use crate::mailbox::{Inbox, Mailbox, mailbox};
use crate::shard;
use crate::stats::{Figures, GateFigures, ShardFigures};
use crate::threads;
use crate::wire::Reading;

/// Refused connections that linger; beyond it the oldest is closed at once. They cost nobody a
/// session, so they may not take the descriptors of those that have one.
const LINGERING_MAX: usize = 1_024;

/// What is read away of a lingering connection at a time; a pending one is far below it.
const BUFFER_BYTES: usize = 4_096;

/// Where the loop reaches the others.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) shards: Vec<Mailbox<ToShard>>,
    pub(crate) hub: Hub,
}

/// Everything that the gate's thread owns.
#[derive(Debug)]
pub(crate) struct GateLoop {
    poll: Poll,
    inbox: Inbox<ToGate>,
    clock: Clock,
    core: Core,
    effects: Vec<Effect>,
    /// To the shards, at the end of the turn; empty between turns, kept for its memory.
    posts: Vec<(ShardIndex, ToShard)>,
    listeners: Listeners,
    pending: Slab<Pending>,
    lingering: Lingering,
    pressure: Pressure,
    /// Sockets that may be open at the gate and the shards together.
    sockets_max: u64,
    peers: Peers,
    links: Vec<LinkId>,
    buffer: Box<[u8]>,
    figures: Arc<GateFigures>,
    shard_figures: Vec<Arc<ShardFigures>>,
    explained: Repeats<(IpAddr, Option<AccountId>, &'static str)>,
    stopping: bool,
}

/// A connection that is not attached.
#[derive(Debug)]
struct Pending {
    stream: TcpStream,
    /// In the poll; not yet while the core judges the address alone.
    registered: bool,
    /// So much of it may still be read.
    readable_bytes: usize,
}

/// A gate's poll and mailbox, made before the loops so that they can know each other.
#[derive(Debug)]
pub(crate) struct Seat {
    poll: Poll,
    inbox: Inbox<ToGate>,
}

impl Seat {
    pub(crate) fn new() -> io::Result<(Self, Mailbox<ToGate>)> {
        let poll = Poll::new()?;
        let (mailbox, inbox) = mailbox(poll.registry(), WAKER)?;
        Ok((Self { poll, inbox }, mailbox))
    }
}

impl GateLoop {
    pub(crate) fn new(
        seat: Seat,
        clock: Clock,
        core: Core,
        listeners: Vec<(ListenerIndex, TcpListener)>,
        sockets_max: u64,
        peers: Peers,
        figures: &Figures,
    ) -> io::Result<Self> {
        let Seat { poll, inbox } = seat;
        Ok(Self {
            listeners: Listeners::new(poll.registry(), listeners)?,
            poll,
            inbox,
            clock,
            core,
            effects: Vec::new(),
            posts: Vec::new(),
            pending: Slab::new(),
            lingering: Lingering::new(LINGERING_MAX),
            pressure: Pressure::default(),
            sockets_max,
            peers,
            links: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into(),
            figures: figures.gate.clone(),
            shard_figures: figures.shards.clone(),
            explained: Repeats::at_debug(),
            stopping: false,
        })
    }

    /// Runs until it is told to stop and the last refused connection is closed.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut sleep = None;
        let mut turns = Turns::default();
        let mut pace = Pace::default();
        while !(self.stopping && self.lingering.len() == 0) {
            match self.poll.poll(&mut events, sleep) {
                Ok(()) => {}
                // A turn all the same: signals that keep coming may not keep its timers from firing.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("the gate's poll failed: {error}"),
            }
            let began_us = turns.begin(self.clock);
            let now = self.clock.now();
            self.figures.round.begins(now.ms);
            let inputs = self.turn(&events, now);
            turns.end(began_us, self.clock, &self.figures.turn_us);
            let left_work = self.inbox.has_more() || self.listeners.has_more();
            let deadlines = [
                self.core.next_deadline(),
                self.lingering.next_deadline(),
                self.listeners.next_deadline(),
            ];
            sleep = super::sleep(left_work, now, deadlines);
            self.figures.round.ends(super::wakes_ms(now, sleep));
            match self.pressure.turned(self.core.shed(), now.ms) {
                Some(rest) => threads::rest(rest),
                None => {
                    let (all, heartbeats) = (inputs, 0);
                    let rest = pace.turned(Inputs { all, heartbeats }, now.ms);
                    super::rest(rest, sleep);
                }
            }
        }
        self.figures.round.ends(None);
    }

    /// Returns how many messages, events and connections there were.
    fn turn(&mut self, events: &Events, now: Now) -> u64 {
        let messages = self.work_off_messages(now);
        for event in events {
            let token = event.token();
            if token == WAKER
                || self.listeners.ready(token)
                || self.lingering.ready(token, &mut self.buffer)
            {
                continue;
            }
            if socket::is_readable(event) {
                self.read(token.0, event.is_read_closed(), now);
            }
        }
        let accepted = self.accept(now);
        self.apply(Input::Tick, now);
        self.hand_over();
        self.lingering.expire(now.ms);
        self.publish();
        messages + accepted + events.iter().count() as u64
    }

    /// Returns how many there were.
    fn work_off_messages(&mut self, now: Now) -> u64 {
        for taken in 0..MESSAGES_PER_TURN {
            let Some(message) = self.inbox.next() else {
                return taken;
            };
            let input = match message {
                ToGate::Input(input) => input,
                ToGate::Stop => {
                    self.stopping = true;
                    self.listeners.close();
                    continue;
                }
            };
            match input {
                Input::LinkUp { link } => self.links.push(link),
                Input::LinkDown { link } => self.links.retain(|&other| other != link),
                _ => {}
            }
            let shutdown = matches!(input, Input::Shutdown);
            self.apply(input, now);
            if shutdown {
                self.figures.ends.store(true, Ordering::Relaxed);
                // Behind whatever was admitted before.
                for shard in (0..self.peers.shards.len() as u16).map(ShardIndex) {
                    self.post(shard, ToShard::Input(shard::Input::Shutdown));
                }
            }
        }
        MESSAGES_PER_TURN
    }

    /// Returns how many connections there were.
    fn accept(&mut self, now: Now) -> u64 {
        let accepts_max = self.pressure.accepts_max(now.ms);
        for accepted in 0..accepts_max {
            match self.listeners.accept(now.ms) {
                Accept::Connection(..) if self.sockets() >= self.sockets_max => {
                    count(&self.figures.dropped_at_limit);
                }
                Accept::Connection(stream, listener, source) => {
                    let key = self.pending.insert(Pending {
                        stream,
                        registered: false,
                        readable_bytes: self.core.read_bytes_max(listener),
                    });
                    let conn = conn_id(key);
                    let accepted = Input::Accepted {
                        conn,
                        listener,
                        source,
                    };
                    self.apply(accepted, now);
                    self.watch(key, now);
                }
                Accept::Dropped => count(&self.figures.dropped_without_descriptor),
                Accept::Nothing => return accepted,
            }
        }
        accepts_max
    }

    /// Waits for bytes of a connection that the core did not refuse at once.
    fn watch(&mut self, key: usize, now: Now) {
        let Some(pending) = self.pending.get_mut(key) else {
            return;
        };
        let registry = self.poll.registry();
        if registry
            .register(&mut pending.stream, Token(key), Interest::READABLE)
            .is_ok()
        {
            pending.registered = true;
        } else {
            self.gone(key, now);
        }
    }

    fn read(&mut self, key: usize, closed: bool, now: Now) {
        // Once more where the device has closed its side: no further edge tells of that.
        for _ in 0..=usize::from(closed) {
            let Some(pending) = self.pending.get_mut(key) else {
                return;
            };
            let room = pending.readable_bytes.min(self.buffer.len());
            let buffer = &mut self.buffer[..room];
            if buffer.is_empty() {
                return;
            }
            match socket::read(&mut pending.stream, buffer) {
                Reading::Bytes(count) => {
                    pending.readable_bytes -= count;
                    let input = Input::Received {
                        conn: conn_id(key),
                        bytes: &buffer[..count],
                    };
                    self.core.apply(input, now, &mut self.effects);
                    self.carry_out(now);
                }
                Reading::Nothing => return,
                Reading::Gone => return self.gone(key, now),
            }
        }
    }

    fn gone(&mut self, key: usize, now: Now) {
        self.pending.remove(key);
        let conn = conn_id(key);
        self.apply(Input::Disconnected { conn }, now);
    }

    fn apply(&mut self, input: Input<'_>, now: Now) {
        self.core.apply(input, now, &mut self.effects);
        self.carry_out(now);
    }

    fn carry_out(&mut self, now: Now) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Refuse { conn, reply } => self.refuse(conn, reply, now),
                Effect::Admit {
                    conn,
                    shard,
                    seed,
                    unread,
                } => {
                    let stream = self.release(conn);
                    count(&self.figures.admitted);
                    let adopt = ToShard::Adopt {
                        stream,
                        seed,
                        unread,
                    };
                    self.post(shard, adopt);
                }
                Effect::EndSession {
                    shard,
                    session,
                    reason,
                    retry_after_ms,
                } => {
                    let end = shard::Input::End {
                        session,
                        reason,
                        retry_after_ms,
                    };
                    self.post(shard, ToShard::Input(end));
                }
                Effect::Ask {
                    shard,
                    session,
                    ask,
                } => {
                    let ask = shard::Input::Ask { session, ask };
                    self.post(shard, ToShard::Input(ask));
                }
                Effect::Answer {
                    link,
                    request,
                    message,
                } => self.peers.hub.answer(link, request, message),
                Effect::Explain {
                    source,
                    account_id,
                    why,
                } => {
                    let cause = (source, account_id, why.name());
                    if tracing::enabled!(tracing::Level::DEBUG)
                        && let Some(untold) = self.explained.tell(cause, now.ms)
                    {
                        let (account_id, why) = (account_id.map(display), why.name());
                        tracing::debug!(%source, account_id, why, untold, "a device was not let in");
                    }
                }
                Effect::Notice { link, message } => self.peers.hub.notice(link, message),
                Effect::Broadcast { message } => {
                    for &link in &self.links {
                        self.peers.hub.notice(link, message.clone());
                    }
                }
            }
        }
        self.effects = effects;
    }

    /// Nobody may be left to tell: a connection that went is let go by the core a moment later.
    fn refuse(&mut self, conn: ConnId, reply: Vec<u8>, now: Now) {
        let Some(pending) = self.pending.try_remove(conn.0 as usize) else {
            return;
        };
        if !reply.is_empty() {
            let (registry, buffer) = (self.poll.registry(), &mut self.buffer);
            let parts = (pending.stream, reply);
            self.lingering
                .close(registry, parts, pending.registered, now.ms, buffer);
        }
    }

    /// The socket of a connection that is admitted, free for another poll. What it holds unread is
    /// told there as readiness.
    fn release(&mut self, conn: ConnId) -> TcpStream {
        let mut pending = self.pending.remove(conn.0 as usize);
        let registry = self.poll.registry();
        if let Err(error) = registry.deregister(&mut pending.stream) {
            panic!("a socket of the gate's is not in its poll: {error}");
        }
        pending.stream
    }

    fn post(&mut self, shard: ShardIndex, message: ToShard) {
        self.posts.push((shard, message));
    }

    /// The conn servers are told of a session before its device is: a device that is attached and
    /// logs in again, or whoever repeats its login, should find them knowing it.
    fn hand_over(&mut self) {
        for (shard, message) in self.posts.drain(..) {
            self.peers.shards[usize::from(shard.0)].post(message);
        }
    }

    /// Open at the gate, on their way to a shard, and at the shards.
    fn sockets(&self) -> u64 {
        let gone = |shard: &Arc<ShardFigures>| shard.closed.load(Ordering::Acquire);
        let gone: u64 = self.shard_figures.iter().map(gone).sum();
        let admitted = self.figures.admitted.load(Ordering::Relaxed);
        (self.pending.len() + self.lingering.len()) as u64 + admitted.saturating_sub(gone)
    }

    fn publish(&self) {
        self.figures
            .pending
            .store(self.pending.len() as u64, Ordering::Relaxed);
        let links = self.links.len() as u64;
        self.figures.links.store(links, Ordering::Relaxed);
        self.figures
            .counters
            .publish(self.core.counters().figures());
    }
}

/// Keys of a slab that holds at most as many connections as there are descriptors.
fn conn_id(key: usize) -> ConnId {
    ConnId(u32::try_from(key).expect("fewer connections than descriptors"))
}

fn count(figure: &AtomicU64) {
    figure.fetch_add(1, Ordering::Relaxed);
}
