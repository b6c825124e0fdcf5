//! The fake internet between devices and servers: what TCP promises, and not a bit more.
//!
//! ```text
//!  write ──▶ unsent ──▶ flight ─ ─ ─ ─ ─ ─▶ arrived ──▶ read
//!           ╰─ sender's kernel ─╯ network   ╰ receiver's kernel
//!           at most `send_bytes` in both    at most `receive_bytes` with the flight
//! ```
//!
//! A stream arrives in order and whole, or ends. It may be cut into any pieces, be late, stall, be
//! reset (what was under way is lost, or not; both sides are told), fall silent in one direction or
//! both (nobody is told anything), or lose a side that never says goodbye. Nobody is handed bytes: a
//! side is told that its end is worth a look, and reads. Who does not read closes the window, and
//! then a write of the other side is taken in part or not at all. Who closes while bytes wait unread,
//! or arrive later, answers with a reset, and a reset may destroy what the other side has not read.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::fingerprint::Fingerprint;
use crate::plan::{Class, Plan};
use crate::process::Process;

/// A TCP connection, for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream(pub u64);

/// Who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Device {
        index: usize,
        conn: simulator::device::ConnId,
    },
    /// A device that does not keep the contract; `visit` counts its connections.
    Hostile { index: usize, visit: u64 },
    /// Sends what it recorded, and reads nothing.
    Replayer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Client,
    Server,
}

/// What a read gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    Bytes(Vec<u8>),
    Nothing,
    /// The other side sends nothing more.
    End,
    Reset,
}

/// What travels, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// Something that left, or that came.
#[derive(Debug)]
pub struct Seen {
    pub stream: Stream,
    pub to: Side,
    pub arrival: Arrival,
    /// It has just been sent, and arrives then, if nothing holds it up.
    pub arrives_at_ms: Option<u64>,
    /// It came to a side that is still there.
    pub is_heard: bool,
}

/// An end of a stream is worth a look: there is something to read, or room, or the end.
#[derive(Debug)]
pub struct Delivery {
    pub at_ms: u64,
    pub stream: Stream,
    pub to: Side,
}

#[derive(Debug)]
pub struct Connection {
    pub client: Client,
    pub server: Process,
    pub source: IpAddr,
    /// By the side that it leads to.
    lanes: [Lane; 2],
    ends: [End; 2],
    /// What happened to it is not the doing of its two sides.
    is_hurt: bool,
}

impl Connection {
    /// When the last of what is on its way has arrived; a stall holds it up.
    pub fn arrives_by_ms(&self) -> u64 {
        let last = self.lanes.iter().map(|lane| lane.last_at_ms);
        last.max().unwrap_or_default()
    }

    /// Both sides listen, and hear each other.
    pub fn is_whole(&self) -> bool {
        let is_whole = |lane: &Lane| !lane.is_silent && lane.fin == Fin::No && lane.end.is_none();
        self.ends == [End::Open; 2] && self.lanes.iter().all(is_whole)
    }
}

/// One side of a stream, as its kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// Its process is done with it.
    Closed,
    /// Its host lost power; from then on it knows nothing of the stream.
    Vanished {
        answers_at_ms: u64,
    },
}

/// One direction of a stream.
#[derive(Debug, Default)]
struct Lane {
    unsent: Vec<u8>,
    /// The sender sends nothing more.
    fin: Fin,
    flight: VecDeque<(u64, Piece)>,
    flight_bytes: usize,
    arrived: Vec<u8>,
    /// What the reader finds behind what arrived.
    end: Option<Read>,
    /// When the last piece on its way arrives.
    last_at_ms: u64,
    is_silent: bool,
    /// The sender was told that there is no room.
    wants_room: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fin {
    #[default]
    No,
    AfterUnsent,
    Sent,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// Buffers of a kernel that is not short of memory.
const AMPLE_BYTES: usize = 64 * 1_024;

/// What is longer does not come byte by byte: it would be the run's only business.
const BYTE_BY_BYTE_MAX: usize = 2_048;

#[derive(Debug)]
pub struct Network {
    delay_ms: RangeInclusive<u64>,
    /// What a kernel keeps of a stream's output, on its way included.
    send_bytes: usize,
    /// What a kernel keeps for a reader, what is on its way included.
    receive_bytes: usize,
    byte_by_byte: u32,
    /// Some of it came so.
    came_byte_by_byte: bool,
    rng: SmallRng,
    next: u64,
    connections: BTreeMap<Stream, Connection>,
    /// What was read of it all, by whom.
    pub passed: Fingerprint,
    /// Until when a server is out of file descriptors.
    exhausted: BTreeMap<Process, u64>,
    /// Whether what travels is noted, and what was noted since somebody looked.
    pub is_watched: bool,
    pub seen: Vec<Seen>,
}

impl Network {
    pub fn new(plan: &Plan, rng: SmallRng) -> Self {
        Self {
            delay_ms: plan.network_ms.clone(),
            send_bytes: plan.send_bytes,
            receive_bytes: plan.receive_bytes,
            byte_by_byte: plan.faults.of_1000(Class::ByteByByte),
            came_byte_by_byte: false,
            rng,
            next: 0,
            connections: BTreeMap::new(),
            passed: Fingerprint::default(),
            exhausted: BTreeMap::new(),
            is_watched: false,
            seen: vec![],
        }
    }

    /// From now on streams arrive soon and whole.
    pub fn heal(&mut self) {
        self.delay_ms = 1..=20;
        self.byte_by_byte = 0;
        self.send_bytes = AMPLE_BYTES;
        self.receive_bytes = AMPLE_BYTES;
        self.exhausted.clear();
    }

    pub fn delay_ms(&mut self) -> u64 {
        self.rng.random_range(self.delay_ms.clone())
    }

    pub fn open(&mut self, client: Client, server: Process, source: IpAddr) -> Stream {
        let stream = Stream(self.next);
        self.next += 1;
        self.connections.insert(
            stream,
            Connection {
                client,
                server,
                source,
                lanes: Default::default(),
                ends: [End::Open; 2],
                is_hurt: false,
            },
        );
        stream
    }

    pub fn connection(&self, stream: Stream) -> Option<&Connection> {
        self.connections.get(&stream)
    }

    /// Live streams, in the order in which they were made.
    pub fn streams(&self) -> impl Iterator<Item = (Stream, &Connection)> {
        self.connections
            .iter()
            .map(|(stream, connection)| (*stream, connection))
    }

    /// A server can accept nobody for a while.
    pub fn exhaust(&mut self, server: Process, until_ms: u64) {
        self.exhausted.insert(server, until_ms);
    }

    pub fn is_exhausted(&self, server: Process, now_ms: u64) -> bool {
        let until_ms = self.exhausted.get(&server);
        until_ms.is_some_and(|until_ms| now_ms < *until_ms)
    }

    // ---- what the two sides do ----------------------------------------------------------------

    /// `from` sends; returns how much its kernel takes. `None`: the connection is gone.
    pub fn write(
        &mut self,
        stream: Stream,
        from: Side,
        bytes: &[u8],
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) -> Option<usize> {
        let connection = self.connections.get_mut(&stream)?;
        if connection.lanes[from as usize].end == Some(Read::Reset)
            || connection.ends[from as usize] != End::Open
        {
            return None;
        }
        let lane = &mut connection.lanes[other(from) as usize];
        let taken = bytes.len().min(lane.room(self.send_bytes));
        lane.unsent.extend_from_slice(&bytes[..taken]);
        lane.wants_room |= taken < bytes.len();
        self.pump(stream, other(from), now_ms, deliveries);
        Some(taken)
    }

    /// At most `bytes_max` of what arrived at `side`. A reset is told once, and an end each time.
    pub fn read(
        &mut self,
        stream: Stream,
        side: Side,
        bytes_max: usize,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) -> Read {
        let Some(connection) = self.connections.get_mut(&stream) else {
            return Read::Reset;
        };
        let lane = &mut connection.lanes[side as usize];
        if lane.arrived.is_empty() {
            return lane.end.clone().unwrap_or(Read::Nothing);
        }
        let count = bytes_max.min(lane.arrived.len());
        let bytes: Vec<_> = lane.arrived.drain(..count).collect();
        self.passed.bytes(stream, side, &bytes);
        // The window opens.
        self.pump(stream, side, now_ms, deliveries);
        Read::Bytes(bytes)
    }

    /// Whether bytes wait at `side` to be read.
    pub fn has_unread(&self, stream: Stream, side: Side) -> bool {
        let connection = self.connections.get(&stream);
        connection.is_some_and(|connection| !connection.lanes[side as usize].arrived.is_empty())
    }

    /// `from` sends nothing more; what it sent still arrives.
    pub fn shut_down(
        &mut self,
        stream: Stream,
        from: Side,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) -> Option<()> {
        let lane = &mut self.connections.get_mut(&stream)?.lanes[other(from) as usize];
        if lane.fin == Fin::No {
            lane.fin = Fin::AfterUnsent;
        }
        self.pump(stream, other(from), now_ms, deliveries);
        Some(())
    }

    /// `side` is done with it. Where bytes wait unread this is a reset, else the end behind what was
    /// sent.
    pub fn close(
        &mut self,
        stream: Stream,
        side: Side,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) {
        let Some(connection) = self.connections.get_mut(&stream) else {
            return;
        };
        connection.ends[side as usize] = End::Closed;
        if !connection.lanes[side as usize].arrived.is_empty() {
            self.send_reset(stream, other(side), now_ms, deliveries);
        } else {
            self.shut_down(stream, side, now_ms, deliveries);
        }
        self.forget_closed(stream);
    }

    /// An end is worth a look. Whose it is, if there is something new; `None`: nobody looks.
    pub fn arrives(
        &mut self,
        stream: Stream,
        to: Side,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) -> Option<(Client, Process)> {
        while let Some(piece) = self.next_due(stream, to, now_ms) {
            self.arrived(stream, to, piece, now_ms, deliveries);
        }
        let connection = self.connections.get_mut(&stream)?;
        let whose = (connection.client, connection.server);
        let is_open = connection.ends[to as usize] == End::Open;
        // What arrived made room in the sender's kernel.
        let lane = &mut connection.lanes[to as usize];
        if lane.wants_room && lane.room(self.send_bytes) > 0 {
            lane.wants_room = false;
            deliveries.push(Delivery {
                at_ms: now_ms,
                stream,
                to: other(to),
            });
        }
        self.forget_closed(stream);
        is_open.then_some(whose)
    }

    // ---- what goes wrong ----------------------------------------------------------------------

    /// Nobody took the connection.
    pub fn refuse(&mut self, stream: Stream, now_ms: u64, deliveries: &mut Vec<Delivery>) {
        if let Some(connection) = self.connections.get_mut(&stream) {
            connection.is_hurt = true;
            connection.ends[Side::Server as usize] = End::Closed;
            self.send_reset(stream, Side::Client, now_ms, deliveries);
        }
    }

    /// The server's process is killed: its kernel resets what it had.
    pub fn orphan(&mut self, stream: Stream, now_ms: u64, deliveries: &mut Vec<Delivery>) {
        self.refuse(stream, now_ms, deliveries);
        self.forget_closed(stream);
    }

    /// Both sides are told. What is under way is lost, or arrives before that.
    pub fn reset(&mut self, stream: Stream, now_ms: u64, deliveries: &mut Vec<Delivery>) {
        for to in [Side::Client, Side::Server] {
            let is_lost = self.rng.random_ratio(1, 2);
            let Some(connection) = self.connections.get_mut(&stream) else {
                return;
            };
            connection.is_hurt = true;
            let lane = &mut connection.lanes[to as usize];
            if is_lost {
                lane.flight.clear();
                lane.flight_bytes = 0;
            }
            self.send_reset(stream, to, now_ms, deliveries);
        }
    }

    /// Nothing arrives at `to` any more, and nobody is told.
    pub fn silence(&mut self, stream: Stream, to: Side) {
        if let Some(connection) = self.connections.get_mut(&stream) {
            connection.is_hurt = true;
            connection.lanes[to as usize].is_silent = true;
        }
    }

    /// Nothing arrives before `until_ms`; then all of it does.
    pub fn stall(&mut self, stream: Stream, until_ms: u64, deliveries: &mut Vec<Delivery>) {
        let Some(connection) = self.connections.get_mut(&stream) else {
            return;
        };
        connection.is_hurt = true;
        for to in [Side::Client, Side::Server] {
            let lane = &mut connection.lanes[to as usize];
            lane.last_at_ms = lane.last_at_ms.max(until_ms);
            for (at_ms, _) in &mut lane.flight {
                *at_ms = (*at_ms).max(until_ms);
            }
            if !lane.flight.is_empty() {
                deliveries.push(Delivery {
                    at_ms: until_ms,
                    stream,
                    to,
                });
            }
        }
    }

    /// The host of `side` loses power: the other side is told when it sends something and the host
    /// runs again, which is at `answers_at_ms`.
    pub fn vanish(&mut self, stream: Stream, side: Side, answers_at_ms: u64) {
        if let Some(connection) = self.connections.get_mut(&stream) {
            connection.is_hurt = true;
            connection.ends[side as usize] = End::Vanished { answers_at_ms };
            // What its kernel had not sent is gone.
            let lane = &mut connection.lanes[other(side) as usize];
            lane.unsent.clear();
        }
    }

    /// What it is told is late for a reason of its own.
    pub fn hurt(&mut self, stream: Stream) {
        if let Some(connection) = self.connections.get_mut(&stream) {
            connection.is_hurt = true;
        }
    }

    /// The same of every stream to a server.
    pub fn hurt_all(&mut self, server: Process) {
        let connections = self.connections.values_mut();
        for connection in connections.filter(|connection| connection.server == server) {
            connection.is_hurt = true;
        }
    }

    /// Whether something else than its two sides did anything to a stream; true of one that is gone.
    pub fn is_hurt(&self, stream: Stream) -> bool {
        let connection = self.connections.get(&stream);
        connection.is_none_or(|connection| connection.is_hurt)
    }

    // ---- how it travels -----------------------------------------------------------------------

    /// Sends on what the window allows.
    fn pump(&mut self, stream: Stream, to: Side, now_ms: u64, deliveries: &mut Vec<Delivery>) {
        let Some(connection) = self.connections.get_mut(&stream) else {
            return;
        };
        let lane = &mut connection.lanes[to as usize];
        let window = self
            .receive_bytes
            .saturating_sub(lane.flight_bytes + lane.arrived.len());
        let count = window.min(lane.unsent.len());
        let bytes: Vec<u8> = lane.unsent.drain(..count).collect();
        lane.flight_bytes += count;
        let is_last = lane.fin == Fin::AfterUnsent && lane.unsent.is_empty();
        if is_last {
            lane.fin = Fin::Sent;
        }
        for piece in self.cut_up(bytes) {
            self.fly(stream, to, Piece::Bytes(piece), now_ms, deliveries);
        }
        if is_last {
            self.fly(stream, to, Piece::Fin, now_ms, deliveries);
        }
    }

    fn send_reset(
        &mut self,
        stream: Stream,
        to: Side,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) {
        if let Some(connection) = self.connections.get_mut(&stream) {
            let lane = &mut connection.lanes[to as usize];
            lane.unsent.clear();
            lane.fin = Fin::Sent;
            self.fly(stream, to, Piece::Reset, now_ms, deliveries);
        }
    }

    fn fly(
        &mut self,
        stream: Stream,
        to: Side,
        piece: Piece,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) {
        let delay_ms = self.rng.random_range(self.delay_ms.clone());
        let Some(connection) = self.connections.get_mut(&stream) else {
            return;
        };
        let lane = &mut connection.lanes[to as usize];
        lane.last_at_ms = lane.last_at_ms.max(now_ms + delay_ms);
        let at_ms = lane.last_at_ms;
        if self.is_watched {
            self.seen.push(Seen {
                stream,
                to,
                arrival: Arrival::of(&piece),
                arrives_at_ms: Some(at_ms),
                is_heard: false,
            });
        }
        lane.flight.push_back((at_ms, piece));
        if !lane.is_silent {
            deliveries.push(Delivery { at_ms, stream, to });
        }
    }

    fn next_due(&mut self, stream: Stream, to: Side, now_ms: u64) -> Option<Piece> {
        let connection = self.connections.get_mut(&stream)?;
        let lane = &mut connection.lanes[to as usize];
        let (at_ms, _) = lane.flight.front()?;
        if lane.is_silent || *at_ms > now_ms {
            return None;
        }
        let (_, piece) = lane.flight.pop_front()?;
        if let Piece::Bytes(bytes) = &piece {
            lane.flight_bytes -= bytes.len();
        }
        Some(piece)
    }

    fn arrived(
        &mut self,
        stream: Stream,
        to: Side,
        piece: Piece,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) {
        let destroys = self.rng.random_ratio(1, 2);
        let Some(connection) = self.connections.get_mut(&stream) else {
            return;
        };
        if self.is_watched {
            self.seen.push(Seen {
                stream,
                to,
                arrival: Arrival::of(&piece),
                arrives_at_ms: None,
                is_heard: connection.ends[to as usize] == End::Open,
            });
        }
        match (connection.ends[to as usize], piece) {
            (End::Vanished { answers_at_ms }, piece) if now_ms < answers_at_ms => {
                // The sender repeats it until somebody answers.
                let lane = &mut connection.lanes[to as usize];
                if let Piece::Bytes(bytes) = &piece {
                    lane.flight_bytes += bytes.len();
                }
                lane.flight.push_front((answers_at_ms, piece));
                lane.last_at_ms = lane.last_at_ms.max(answers_at_ms);
                for (at_ms, _) in &mut lane.flight {
                    *at_ms = (*at_ms).max(answers_at_ms);
                }
                deliveries.push(Delivery {
                    at_ms: answers_at_ms,
                    stream,
                    to,
                });
            }
            (End::Vanished { .. }, Piece::Bytes(_) | Piece::Fin)
            | (End::Closed, Piece::Bytes(_)) => {
                connection.ends[to as usize] = End::Closed;
                let told = &connection.lanes[other(to) as usize];
                let knows = told.end == Some(Read::Reset)
                    || matches!(told.flight.back(), Some((_, Piece::Reset)));
                if !knows {
                    self.send_reset(stream, other(to), now_ms, deliveries);
                }
            }
            (End::Vanished { .. } | End::Closed, _) => {
                connection.ends[to as usize] = End::Closed;
            }
            (End::Open, Piece::Bytes(bytes)) => {
                let lane = &mut connection.lanes[to as usize];
                if lane.end.is_none() {
                    lane.arrived.extend(bytes);
                }
            }
            (End::Open, Piece::Fin) => {
                let end = &mut connection.lanes[to as usize].end;
                *end = Some(end.take().unwrap_or(Read::End));
            }
            (End::Open, Piece::Reset) => {
                let lane = &mut connection.lanes[to as usize];
                lane.end = Some(Read::Reset);
                if destroys {
                    lane.arrived.clear();
                }
                // What this side still wanted to send goes nowhere.
                connection.lanes[other(to) as usize].unsent.clear();
            }
        }
    }

    /// A stream that both sides have left.
    fn forget_closed(&mut self, stream: Stream) {
        let is_over = |connection: &Connection| {
            let is_left = |side: Side| {
                let lane = &connection.lanes[side as usize];
                let idle = lane.unsent.is_empty() && lane.flight.is_empty();
                connection.ends[side as usize] == End::Closed && (idle || lane.is_silent)
            };
            is_left(Side::Client) && is_left(Side::Server)
        };
        if self.connections.get(&stream).is_some_and(is_over) {
            self.connections.remove(&stream);
        }
    }

    /// Whether any stream came byte by byte.
    pub fn came_byte_by_byte(&self) -> bool {
        self.came_byte_by_byte
    }

    fn cut_up(&mut self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        if bytes.is_empty() {
            return vec![];
        }
        let is_short = bytes.len() <= BYTE_BY_BYTE_MAX;
        if self.rng.random_range(0..1_000) < self.byte_by_byte && is_short {
            self.came_byte_by_byte |= bytes.len() > 1;
            return bytes.iter().map(|byte| vec![*byte]).collect();
        }
        let mut pieces = vec![];
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let most = if self.rng.random_ratio(1, 3) {
                self.rng.random_range(1..=rest.len())
            } else {
                rest.len()
            };
            let (piece, after) = rest.split_at(most);
            pieces.push(piece.to_vec());
            rest = after;
        }
        pieces
    }
}

impl Arrival {
    fn of(piece: &Piece) -> Self {
        match piece {
            Piece::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Piece::Fin => Self::End,
            Piece::Reset => Self::Reset,
        }
    }
}

impl Lane {
    /// What the sender's kernel can take.
    fn room(&self, send_bytes: usize) -> usize {
        send_bytes.saturating_sub(self.unsent.len() + self.flight_bytes)
    }
}

pub fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    }
}
