//! The fake internet between devices and servers: what TCP promises, and not a bit more.
//!
//! A stream arrives in order and whole, or ends. It may be cut into any pieces, be late, be reset
//! (what was under way is lost, both sides are told) or fall silent (nobody is told anything).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use rand::RngExt;
use rand::rngs::SmallRng;

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
    /// Sends what it recorded, and reads nothing.
    Replayer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Client,
    Server,
}

/// What arrives at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    Bytes(Vec<u8>),
    /// The other side ended the stream, or it was reset.
    End,
}

/// An arrival at its time.
#[derive(Debug)]
pub struct Delivery {
    pub at_ms: u64,
    pub stream: Stream,
    pub to: Side,
    pub arrival: Arrival,
}

#[derive(Debug)]
pub struct Connection {
    pub client: Client,
    pub server: Process,
    pub source: IpAddr,
    /// When the last piece on its way arrives, by the side it goes to.
    last_at_ms: [u64; 2],
    /// Which side will hear no more: it left, or was told the end.
    gone: [bool; 2],
    is_silent: bool,
    /// Counts resets; what was sent before the last one is lost.
    is_reset: bool,
}

#[derive(Debug)]
pub struct Network {
    delay_ms: RangeInclusive<u64>,
    byte_by_byte: u32,
    rng: SmallRng,
    next: u64,
    connections: BTreeMap<Stream, Connection>,
}

impl Network {
    pub fn new(delay_ms: RangeInclusive<u64>, byte_by_byte: u32, rng: SmallRng) -> Self {
        Self {
            delay_ms,
            byte_by_byte,
            rng,
            next: 0,
            connections: BTreeMap::new(),
        }
    }

    /// From now on streams arrive soon and whole.
    pub fn heal(&mut self) {
        self.delay_ms = 1..=20;
        self.byte_by_byte = 0;
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
                last_at_ms: [0; 2],
                gone: [false; 2],
                is_silent: false,
                is_reset: false,
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

    /// `from` sends; the pieces arrive in order, each a little later than the one before.
    pub fn send(
        &mut self,
        stream: Stream,
        from: Side,
        bytes: &[u8],
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) {
        let to = other(from);
        for piece in self.cut_up(bytes) {
            self.schedule(stream, to, Arrival::Bytes(piece), now_ms, deliveries);
        }
    }

    /// `from` leaves: what it sent still arrives, then the end.
    pub fn close(
        &mut self,
        stream: Stream,
        from: Side,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) {
        self.schedule(stream, other(from), Arrival::End, now_ms, deliveries);
        self.left(stream, from);
    }

    /// What is under way is lost; both sides that still listen are told.
    pub fn reset(&mut self, stream: Stream, now_ms: u64, deliveries: &mut Vec<Delivery>) {
        let Some(connection) = self.connections.get_mut(&stream) else {
            return;
        };
        connection.is_reset = true;
        for to in [Side::Client, Side::Server] {
            let at_ms = now_ms + self.rng.random_range(self.delay_ms.clone());
            deliveries.push(Delivery {
                at_ms,
                stream,
                to,
                arrival: Arrival::End,
            });
        }
    }

    /// Nothing arrives any more, and nobody is told.
    pub fn silence(&mut self, stream: Stream) {
        if let Some(connection) = self.connections.get_mut(&stream) {
            connection.is_silent = true;
        }
    }

    /// Whose it is, if this arrival is heard. An end is heard once.
    pub fn arrives(
        &mut self,
        stream: Stream,
        to: Side,
        arrival: &Arrival,
    ) -> Option<(Client, Process)> {
        let connection = self.connections.get(&stream)?;
        if connection.gone[to as usize] || connection.is_silent {
            return None;
        }
        let whose = (connection.client, connection.server);
        match arrival {
            Arrival::Bytes(_) if connection.is_reset => return None,
            Arrival::Bytes(_) => {}
            Arrival::End => self.left(stream, to),
        }
        Some(whose)
    }

    fn left(&mut self, stream: Stream, side: Side) {
        if let Some(connection) = self.connections.get_mut(&stream) {
            connection.gone[side as usize] = true;
            if connection.gone == [true; 2] {
                self.connections.remove(&stream);
            }
        }
    }

    fn schedule(
        &mut self,
        stream: Stream,
        to: Side,
        arrival: Arrival,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) {
        let delay_ms = self.rng.random_range(self.delay_ms.clone());
        let Some(connection) = self.connections.get_mut(&stream) else {
            return;
        };
        let last_at_ms = &mut connection.last_at_ms[to as usize];
        *last_at_ms = (*last_at_ms).max(now_ms + delay_ms);
        deliveries.push(Delivery {
            at_ms: *last_at_ms,
            stream,
            to,
            arrival,
        });
    }

    fn cut_up(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        if self.rng.random_range(0..1_000) < self.byte_by_byte {
            return bytes.iter().map(|byte| vec![*byte]).collect();
        }
        let mut pieces = vec![];
        let mut rest = bytes;
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

fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    }
}
