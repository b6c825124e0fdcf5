//! A shard's loop: the sockets of its sessions.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::vec::Drain;

use common::codes::Code;
use common::ids::AccountId;
use common::link::Hub;
use common::logging::repeats::Repeats;
use common::time::Now;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::linger::Lingering;
use super::pace::{Inputs, Pace};
use super::rounds::Rounds;
use super::socket::{self, Socket};
use super::{EVENTS_PER_TURN, MESSAGES_PER_TURN, ToGate, ToShard, Turns, WAKER};
use crate::ask::Answer;
use crate::batch::{Batch, BatchOutcome, Flawed};
use crate::clock::Clock;
use crate::counters::Counter;
use crate::gate;
use crate::ids::Slot;
use crate::mailbox::{Inbox, Mailbox, mailbox};
use crate::presence::Presence;
use crate::reading;
use crate::shard::{Effects, Ended, Explained, Input, Outlets, SessionSeed, Shard};
use crate::stats::ShardFigures;
use crate::wire::Reading;
use crate::writer_task::WriterEnd;

/// Bytes of one read, and one connection is read once a turn, or once a pause where it fills its reads:
/// a device that floods gets its share and no more. With the events of a turn, and as many sockets of a
/// round, that is 8 MiB.
const READ_BYTES: usize = 16 * 1_024;

/// Replies gathered before they are sent, also in the midst of a turn.
const OUT_BYTES_MAX: usize = 256 * 1_024;

/// Where the loop reaches the others.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) gate: Mailbox<ToGate>,
    pub(crate) writer: WriterEnd,
    pub(crate) hub: Hub,
    /// For batches that the writer's queue has no room for.
    pub(crate) overload_retry_ms: u32,
}

/// Everything that a shard's thread owns.
#[derive(Debug)]
pub(crate) struct ShardLoop {
    poll: Poll,
    inbox: Inbox<ToShard>,
    clock: Clock,
    core: Shard,
    effects: Effects,
    slots: Slab<Socket>,
    lingering: Lingering,
    /// Sockets that have more to read than one turn allows.
    again: Rounds,
    reading: reading::Reading,
    peers: Peers,
    buffer: Box<[u8]>,
    figures: Arc<ShardFigures>,
    /// Sockets taken over from the gate since the start.
    adopted: u64,
    explained: Repeats<(AccountId, &'static str)>,
    done: bool,
    stopping: bool,
}

/// A shard's poll and mailbox, made before the loops so that they can know each other.
#[derive(Debug)]
pub(crate) struct Seat {
    poll: Poll,
    inbox: Inbox<ToShard>,
}

impl Seat {
    pub(crate) fn new() -> io::Result<(Self, Mailbox<ToShard>)> {
        let poll = Poll::new()?;
        let (mailbox, inbox) = mailbox(poll.registry(), WAKER)?;
        Ok((Self { poll, inbox }, mailbox))
    }
}

impl ShardLoop {
    pub(crate) fn new(
        seat: Seat,
        clock: Clock,
        core: Shard,
        peers: Peers,
        figures: Arc<ShardFigures>,
    ) -> Self {
        Self {
            poll: seat.poll,
            inbox: seat.inbox,
            clock,
            core,
            effects: Effects::default(),
            slots: Slab::new(),
            // All of them were sessions, which the gate counts until they are closed.
            lingering: Lingering::new(usize::MAX),
            again: Rounds::default(),
            reading: reading::Reading::default(),
            peers,
            buffer: vec![0; READ_BYTES].into(),
            figures,
            adopted: 0,
            explained: Repeats::at_debug(),
            done: false,
            stopping: false,
        }
    }

    /// Runs until the core has said goodbye to everybody and the last socket is closed.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut sleep = None;
        let mut turns = Turns::default();
        let mut pace = Pace::default();
        while !self.has_ended() {
            match self.poll.poll(&mut events, sleep) {
                Ok(()) => {}
                // A turn all the same: signals that keep coming may not keep its timers from firing.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("a shard's poll failed: {error}"),
            }
            let began_us = turns.begin(self.clock);
            let now = self.clock.now();
            self.figures.round.begins(now.ms);
            let inputs = self.turn(&events, now);
            turns.end(began_us, self.clock, &self.figures.turn_us);
            let deadlines = [
                self.core.next_deadline(),
                self.lingering.next_deadline(),
                self.again.next_deadline(),
            ];
            sleep = super::sleep(self.inbox.has_more(), now, deadlines);
            self.figures.round.ends(super::wakes_ms(now, sleep));
            super::rest(pace.turned(inputs, now.ms), sleep);
        }
        self.figures.round.ends(None);
    }

    fn has_ended(&self) -> bool {
        self.stopping || (self.done && self.lingering.len() == 0)
    }

    fn turn(&mut self, events: &Events, now: Now) -> Inputs {
        let before = self.heard();
        let messages = self.work_off_messages(now);
        self.read_again(now);
        for event in events {
            let token = event.token();
            if token == WAKER || self.lingering.ready(token, &mut self.buffer) {
                continue;
            }
            let slot = slot(token.0);
            if event.is_writable() {
                self.flush(slot, now);
            }
            if let Some(socket) = self.slots.get_mut(slot.index()) {
                socket.closed |= event.is_read_closed();
                let waits = socket.queued && !socket.closed;
                if !waits && socket::is_readable(event) {
                    self.read(slot, now);
                }
            }
        }
        let events = events.iter().count();
        self.tick(events, now);
        self.carry_out(now);
        self.lingering.expire(now.ms);
        self.publish();
        let all = messages + events as u64;
        let heard = self.heard();
        // An event with records is not one of a heartbeat alone, whatever else it brought.
        let heartbeats = match heard.telemetry == before.telemetry {
            true => heard.heartbeats - before.heartbeats,
            false => 0,
        };
        Inputs {
            all,
            heartbeats: heartbeats.min(events as u64),
        }
    }

    fn heard(&self) -> Heard {
        let counters = self.core.counters();
        Heard {
            heartbeats: counters.of(Counter::Heartbeats),
            telemetry: counters.of(Counter::Telemetry),
        }
    }

    fn tick(&mut self, events: usize, now: Now) {
        let left = events == EVENTS_PER_TURN || !self.again.is_empty();
        let sockets = self.slots.len() + self.lingering.len() + 1; // The waker is one of them.
        // Each of both queues is worked off by so many a turn, where it has them.
        self.reading.turn(now.ms, EVENTS_PER_TURN, left, sockets);
        let read_until_ms = self.reading.until_ms();
        let tick = Input::Tick { read_until_ms };
        self.core.apply(tick, now, &mut self.effects);
    }

    /// Returns how many there were.
    fn work_off_messages(&mut self, now: Now) -> u64 {
        for taken in 0..MESSAGES_PER_TURN {
            let Some(message) = self.inbox.next() else {
                return taken;
            };
            match message {
                ToShard::Adopt {
                    stream,
                    seed,
                    unread,
                } => self.adopt(stream, seed, &unread, now),
                ToShard::Input(input) => {
                    if let Input::Finished { batch, outcome } = &input
                        && *outcome == BatchOutcome::Stored
                    {
                        self.figures.stored(batch, now.ms);
                    }
                    self.apply(input, now);
                }
                ToShard::Stop => self.stopping = true,
            }
        }
        MESSAGES_PER_TURN
    }

    fn adopt(&mut self, stream: TcpStream, seed: SessionSeed, unread: &[u8], now: Now) {
        self.adopted += 1;
        let entry = self.slots.vacant_entry();
        let slot = slot(entry.key());
        let token = Token(entry.key());
        let socket = entry.insert(Socket::new(stream));
        let watched = self
            .poll
            .registry()
            .register(&mut socket.stream, token, Interest::READABLE);
        self.apply(Input::Adopt { slot, seed, unread }, now);
        if let Err(error) = watched {
            tracing::warn!(
                code = Code::SocketNotWatched.number(),
                %error,
                "cannot watch a session's socket"
            );
            self.gone(slot, now);
            // What was meant for it must not go to the next socket of this slot.
            self.carry_out(now);
        }
    }

    fn read_again(&mut self, now: Now) {
        for _ in 0..EVENTS_PER_TURN {
            let Some(slot) = self.again.next(now.ms) else {
                return;
            };
            if let Some(socket) = self.slots.get_mut(slot.index()) {
                socket.queued = false;
                self.read(slot, now);
            }
        }
    }

    fn read(&mut self, slot: Slot, now: Now) {
        loop {
            let Some(socket) = self.slots.get_mut(slot.index()) else {
                return;
            };
            match socket::read(&mut socket.stream, &mut self.buffer) {
                Reading::Bytes(count) => {
                    let is_full = count == self.buffer.len();
                    if is_full {
                        socket.queued = true;
                        match socket.closed {
                            true => self.again.push_closed(slot),
                            false => self.again.push(slot, now.ms),
                        }
                    }
                    // Behind the last bytes is the end, and no further edge tells of it.
                    let ends = socket.closed && !is_full;
                    let bytes = &self.buffer[..count];
                    let input = Input::Received { slot, bytes };
                    self.core.apply(input, now, &mut self.effects);
                    self.send_early(now);
                    if !ends {
                        return;
                    }
                }
                Reading::Nothing => return,
                Reading::Gone => return self.gone(slot, now),
            }
        }
    }

    fn explain(&mut self, explained: &[Explained], now: Now) {
        for it in explained {
            let (account_id, what) = (it.account_id, it.what.name());
            let Some(untold) = self.explained.tell((account_id, what), now.ms) else {
                continue;
            };
            match it.record {
                None => tracing::debug!(%account_id, what, untold, "trouble with a device"),
                Some(Flawed { seq, kind, flaw }) => {
                    let flaw = flaw.name();
                    tracing::debug!(%account_id, what, seq, kind, flaw, untold, "trouble with a device");
                }
            }
        }
    }

    fn flush(&mut self, slot: Slot, now: Now) {
        let Some(socket) = self.slots.get_mut(slot.index()) else {
            return;
        };
        match socket.flush() {
            Some(true) => self.apply(Input::Drained { slot }, now),
            Some(false) => {}
            None => self.gone(slot, now),
        }
    }

    /// The device went: what is still in the effects for it is dropped when they are carried out.
    fn gone(&mut self, slot: Slot, now: Now) {
        if self.slots.try_remove(slot.index()).is_some() {
            let input = Input::Disconnected { slot };
            self.core.apply(input, now, &mut self.effects);
        }
    }

    fn apply(&mut self, input: Input<'_>, now: Now) {
        self.core.apply(input, now, &mut self.effects);
        self.send_early(now);
    }

    /// Does not wait for the end of the turn where replies take too much memory.
    fn send_early(&mut self, now: Now) {
        if self.effects.out.len() > OUT_BYTES_MAX {
            self.carry_out(now);
        }
    }

    /// Carries out all effects, and those of what comes of it: output that the kernel does not
    /// take, devices that are found gone, batches that the writer has no room for.
    fn carry_out(&mut self, now: Now) {
        let mut back = Vec::new();
        loop {
            let mut effects = std::mem::take(&mut self.effects);
            effects.leave(&mut Turn { shard: self, now }, &mut back);
            if tracing::enabled!(tracing::Level::DEBUG) {
                self.explain(&effects.explained, now);
            }
            self.done |= effects.done;
            effects.clear();
            self.effects = effects;
            if back.is_empty() {
                return;
            }
            for input in back.drain(..) {
                match input {
                    Input::Disconnected { slot } => self.gone(slot, now),
                    Input::Unsent { slot, .. } if !self.slots.contains(slot.index()) => {}
                    input => self.core.apply(input, now, &mut self.effects),
                }
            }
        }
    }

    /// Asked of the kernel: nobody else keeps it for a session that says nothing.
    fn source(&self, slot: Slot) -> Option<SocketAddr> {
        let socket = self.slots.get(slot.index())?;
        let source = socket.stream.peer_addr().ok()?;
        Some(SocketAddr::new(source.ip().to_canonical(), source.port()))
    }

    fn publish(&self) {
        let open = (self.slots.len() + self.lingering.len()) as u64;
        let figures = &self.figures;
        figures.closed.store(self.adopted - open, Ordering::Release);
        let sessions = self.core.sessions() as u64;
        figures.sessions.store(sessions, Ordering::Relaxed);
        figures.counters.publish(self.core.counters().figures());
    }
}

/// Frames so far.
struct Heard {
    heartbeats: u64,
    telemetry: u64,
}

/// A turn's effects on their way out.
struct Turn<'a> {
    shard: &'a mut ShardLoop,
    now: Now,
}

impl Outlets for Turn<'_> {
    fn overload_retry_ms(&self) -> u32 {
        self.shard.peers.overload_retry_ms
    }

    fn tell(&mut self, lines: Drain<'_, Presence>) {
        self.shard.peers.writer.tell(lines, self.now.ms);
    }

    fn submit(&mut self, batch: Batch) -> Result<(), Batch> {
        self.shard.peers.writer.submit(batch)
    }

    fn send(&mut self, slot: Slot, bytes: &[u8]) -> Option<Input<'static>> {
        let socket = self.shard.slots.get_mut(slot.index())?;
        match socket.send(bytes) {
            Some(0) => None,
            Some(bytes) => {
                // Told of room from now on; until now that would have been a wake-up for nothing.
                let interest = Interest::READABLE | Interest::WRITABLE;
                let token = Token(slot.index());
                let registry = self.shard.poll.registry();
                let watched = registry.reregister(&mut socket.stream, token, interest);
                Some(match watched {
                    Ok(()) => Input::Unsent { slot, bytes },
                    Err(_) => Input::Disconnected { slot },
                })
            }
            None => Some(Input::Disconnected { slot }),
        }
    }

    fn close(&mut self, slot: Slot) {
        let shard = &mut *self.shard;
        if let Some(socket) = shard.slots.try_remove(slot.index()) {
            let (registry, buffer) = (shard.poll.registry(), &mut shard.buffer);
            let parts = socket.into_parts();
            shard
                .lingering
                .close(registry, parts, true, self.now.ms, buffer);
        }
    }

    fn end(&mut self, ended: Ended) {
        let ended = gate::Input::SessionEnded {
            account_id: ended.account_id,
            epoch: ended.epoch,
        };
        self.shard.peers.gate.post(ToGate::Input(ended));
    }

    fn answer(&mut self, mut answer: Answer) {
        answer.see(|slot| self.shard.source(slot));
        let hub = &self.shard.peers.hub;
        hub.answer(answer.link, answer.request, answer.message);
    }
}

/// Keys of a slab that holds at most as many sockets as there are descriptors.
fn slot(key: usize) -> Slot {
    Slot(u32::try_from(key).expect("fewer sockets than descriptors"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{self, IpAddr, Ipv4Addr};
    use std::thread;
    use std::time::{Duration, Instant};

    use common::epoch::Epoch;
    use common::ids::AccountId;
    use common::link::{HubSettings, Keys, LinkEvent, Role};
    use common::secret::Secret;
    use protocols::rcu::frame::HEADER_BYTES;
    use protocols::rcu::message::FromDevice;
    use tokio::sync::mpsc;

    use super::*;
    use crate::adapter::Protocol;
    use crate::driver::gate as gate_driver;
    use crate::ids::{SessionId, ShardIndex};
    use crate::settings::Settings;
    use crate::stats::Figures;
    use crate::writer_task::{self, Mail};

    /// A loop without the others, which take what it says and say nothing.
    struct Alone {
        shard: ShardLoop,
        mailbox: Mailbox<ToShard>,
        figures: Figures,
        clock: Clock,
        _others: (gate_driver::Seat, Mail, mpsc::Receiver<LinkEvent>),
    }

    impl Alone {
        fn new() -> Self {
            let settings = Settings::default();
            let (figures, clock) = (Figures::new(&settings), Clock::new());
            let (seat, mailbox) = Seat::new().unwrap();
            let (gate_seat, gate) = gate_driver::Seat::new().unwrap();
            let (writer, mail) = writer_task::way();
            let (events, links) = mpsc::channel(1);
            let hub = Hub::new(HubSettings {
                role: Role::Logic,
                node: "logic-1".parse().unwrap(),
                keys: Keys::default(),
                events,
                listen_publicly: false,
            });
            let core = Shard::new(settings.shard(ShardIndex(0)), 1);
            let peers = Peers {
                gate,
                writer,
                hub,
                overload_retry_ms: 1,
            };
            let shard = ShardLoop::new(seat, clock, core, peers, figures.shards[0].clone());
            Self {
                shard,
                mailbox,
                figures,
                clock,
                _others: (gate_seat, mail, links),
            }
        }

        /// A session; returns the device's side, past AttachReply.
        fn attach(&mut self, session: u64, now: Now) -> net::TcpStream {
            let listener = net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let mut device = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let seed = SessionSeed {
                session: SessionId(session),
                protocol: Protocol::Rcu,
                account_id: AccountId(session as i64),
                epoch: Epoch::at_ms(session),
                session_key: Secret::new([7; 32]),
                ticket: Secret::new([8; 16]),
                source: IpAddr::V4(Ipv4Addr::LOCALHOST),
                claim_frame_id: 1,
                heartbeat_s: 60,
                attached_unix_ms: 1,
            };
            let stream = TcpStream::from_std(stream);
            self.shard.adopt(stream, seed, &[], now);
            self.shard.carry_out(now);
            let patience = Some(Duration::from_secs(25));
            device.set_read_timeout(patience).unwrap();
            let mut reply = [0; 512];
            assert!(device.read(&mut reply).unwrap() > HEADER_BYTES);
            device
        }

        /// One turn, with what the kernel has ready; returns how many heartbeats it took.
        fn turn(&mut self, ms: u64) -> u64 {
            let before = self.heartbeats();
            let mut events = Events::with_capacity(EVENTS_PER_TURN);
            let now = Duration::ZERO;
            self.shard.poll.poll(&mut events, Some(now)).unwrap();
            self.shard.turn(&events, at(ms));
            self.heartbeats() - before
        }

        /// What its device sent is with the kernel: at least so many bytes.
        fn wait_arrived(&self, slot: u32, bytes: usize) {
            let mut seen = vec![0; bytes];
            let stream = &self.shard.slots[slot as usize].stream;
            wait_until("bytes arrive", || {
                stream.peek(&mut seen).is_ok_and(|count| count == bytes)
            });
        }

        fn heartbeats(&self) -> u64 {
            self.shard.core.counters().of(Counter::Heartbeats)
        }
    }

    fn at(ms: u64) -> Now {
        Now { ms, unix_ms: ms }
    }

    fn heartbeats(count: usize) -> Vec<u8> {
        let mut frames = vec![];
        (0..count).for_each(|_| FromDevice::Heartbeat.encode(1, &mut frames));
        frames
    }

    /// What is stuck if it stays as it is for a minute.
    fn would_be_stuck(figures: &Figures, clock: Clock) -> Vec<String> {
        let stuck = figures.stuck(clock.now().ms + 60_000);
        let name = |told: String| told.split(' ').next().map(ToOwned::to_owned);
        stuck.into_iter().filter_map(name).collect()
    }

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(25);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_session_that_floods_is_read_once_in_a_pause_and_the_others_at_once() {
        const READS: usize = 3;
        let mut alone = Alone::new();
        let mut flooder = alone.attach(1, at(1_000));
        let mut other = alone.attach(2, at(1_000));
        let of_one_read = READ_BYTES / HEADER_BYTES;
        let flood = heartbeats(READS * of_one_read);
        flooder.write_all(&flood).unwrap();
        alone.wait_arrived(0, flood.len());
        let mut others_turn = |alone: &mut Alone, ms| {
            other.write_all(&heartbeats(1)).unwrap();
            alone.wait_arrived(1, HEADER_BYTES);
            alone.turn(ms)
        };

        assert_eq!(alone.turn(1_000), of_one_read as u64);
        for ms in 1_001..1_010 {
            assert_eq!(others_turn(&mut alone, ms), 1, "at {ms}");
        }
        assert_eq!(alone.shard.again.next_deadline(), Some(1_010));
        let of_both = others_turn(&mut alone, 1_010);
        assert!(of_both <= 2 + of_one_read as u64, "{of_both}");
        assert_eq!(others_turn(&mut alone, 1_011), 1);

        // Frames lie across reads; none is lost.
        for ms in 1_012..1_100 {
            alone.turn(ms);
        }
        assert_eq!(alone.heartbeats(), (READS * of_one_read + 11) as u64);
        assert!(alone.shard.again.is_empty());
    }

    #[test]
    fn what_a_device_sent_before_it_closed_is_read_and_then_its_end() {
        let mut alone = Alone::new();
        let mut device = alone.attach(1, at(1_000));
        device.write_all(&heartbeats(3)).unwrap();
        drop(device);
        wait_until("its end is read", || {
            alone.turn(1_000);
            alone.shard.core.sessions() == 0
        });
        assert_eq!(alone.heartbeats(), 3);
    }

    #[test]
    fn a_loop_that_stands_still_in_a_turn_is_seen_and_one_that_sleeps_is_not() {
        let Alone {
            shard,
            mailbox,
            figures,
            clock,
            _others,
        } = Alone::new();
        let running = thread::spawn(|| shard.run());

        let held = mailbox.hold();
        wait_until("the turn is seen", || {
            would_be_stuck(&figures, clock) == ["shard-0"]
        });
        assert!(figures.stuck(clock.now().ms).is_empty(), "not so soon");
        drop(held);
        wait_until("it sleeps again", || {
            would_be_stuck(&figures, clock).is_empty()
        });
        mailbox.post(ToShard::Stop);
        running.join().unwrap();
        assert!(would_be_stuck(&figures, clock).is_empty(), "it has ended");
    }
}
