//! A logic server of the simulated cluster: gate, shards and writer, with the mailboxes between
//! their threads as queues that take a moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use common::link::LinkId;
use logic_server::adapter::Protocol;
use logic_server::ask::Ask;
use logic_server::batch::{Batch, BatchOutcome, Limits};
use logic_server::gate;
use logic_server::ids::{ConnId, SessionId, ShardIndex, Slot};
use logic_server::presence::{LINES_MAX, Lines};
use logic_server::shard::{self, SessionSeed, Shard};
use logic_server::wire::goodbye::Lingering;
use logic_server::writer::{self, Writer};
use protocols::rcu::attach::Attach;
use protocols::rcu::frame::{self, Parsed};
use protocols::rcu::message::FromDevice;
use slab::Slab;

use crate::marks::Marks;
use crate::network::Stream;
use crate::plan::Plan;
use crate::process::Tier;
use crate::shutdown::Farewell;
use crate::socket::Socket;
use crate::timer::Timer;

/// What devices are told to wait whose telemetry finds no room.
pub const OVERLOAD_RETRY_MS: u32 = 2_000;

/// Batches on their way to a writer; few, so that the limit is met.
pub const BATCHES_COMING_MAX: usize = 2;

/// Connections that the gate refused and that linger; few, so that the limit is met.
const LINGERING_MAX: usize = 16;

/// To the gate, from a shard.
pub type GateMail = shard::Ended;

/// To a shard.
#[derive(Debug)]
pub enum ShardMail {
    Adopt {
        stream: Stream,
        seed: Box<SessionSeed>,
        unread: Vec<u8>,
    },
    End {
        effect: Box<gate::Effect>,
    },
    Shutdown,
    /// The store takes too long for that.
    Abandon,
    Ask {
        session: SessionId,
        ask: Box<Ask>,
    },
    Finished {
        batch: Box<Batch>,
        outcome: BatchOutcome,
    },
}

/// Where a stream is on its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Gate(ConnId),
    /// On its way from the gate to a shard: nobody reads it.
    Moving,
    Shard(usize, Slot),
    /// On its way out, of the gate or of a shard.
    Leaving(Loop, usize),
}

/// One thread of a logic server that owns sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    Gate,
    Shard(usize),
}

/// A connection that the gate has, or that is on its way to a shard.
#[derive(Debug, Default)]
pub struct Unattached {
    /// What the gate has read of it; it reads no more than it must.
    pub heard: Vec<u8>,
}

impl Unattached {
    /// The Attach that it began with.
    pub fn attach(&self) -> Option<Attach> {
        let Ok(Parsed::Frame { frame, .. }) =
            frame::parse(&self.heard, frame::FRAME_BYTES_BEFORE_ATTACH_MAX)
        else {
            return None;
        };
        match FromDevice::decode(&frame) {
            Ok(FromDevice::Attach(attach)) => Some(attach),
            _ => None,
        }
    }
}

/// Records that are written carefully at a time: fewer than usual in some runs, so that there are more
/// than that at once although they are short.
pub fn careful_rows_max(plan: &Plan) -> usize {
    let usual = writer::Settings::default().careful_rows_max;
    plan.batch_rows_max.clamp(usual / 4, usual)
}

#[derive(Debug)]
pub struct ShardThread {
    pub core: Shard,
    pub timer: Timer,
    pub slots: Slab<Socket>,
    pub lingering: Lingering<Stream>,
    pub effects: shard::Effects,
    /// When the last mail on its way arrives: here, at the writer, at the gate.
    last_at_ms: [u64; 3],
}

impl ShardThread {
    /// A mailbox keeps its order: what is posted later does not arrive earlier.
    pub fn mailbox_at(&mut self, at_ms: u64) -> u64 {
        self.in_order(0, at_ms)
    }

    pub fn writer_at(&mut self, at_ms: u64) -> u64 {
        self.in_order(1, at_ms)
    }

    pub fn gate_at(&mut self, at_ms: u64) -> u64 {
        self.in_order(2, at_ms)
    }

    fn in_order(&mut self, mailbox: usize, at_ms: u64) -> u64 {
        let last = &mut self.last_at_ms[mailbox];
        *last = (*last).max(at_ms);
        *last
    }
}

/// One process.
#[derive(Debug)]
pub struct LogicNode {
    /// It was told to end.
    pub farewell: Option<Farewell>,
    /// Of conn servers, as the gate was told.
    pub links: Vec<LinkId>,
    pub gate: gate::Core,
    pub gate_timer: Timer,
    pub conns: Slab<Stream>,
    pub lingering: Lingering<Stream>,
    pub shards: Vec<ShardThread>,
    pub writer: Writer,
    /// Batches on their way to it.
    pub batches_coming: usize,
    /// Of `sessions`, from the shards.
    pub lines: Lines,
    pub writer_timer: Timer,
    pub places: BTreeMap<Stream, Place>,
    pub unattached: BTreeMap<Stream, Unattached>,
}

impl LogicNode {
    pub fn start(plan: &Plan, advertise: SocketAddr, seed: u64) -> Self {
        let gate = gate::Core::new(
            &gate::Settings {
                listeners: vec![gate::Listener {
                    protocol: Protocol::Rcu,
                }],
                shards: plan.shards,
                places_max: plan.places_max,
                pending_max: plan.gate_connections_max(),
                first_frame_ms: 5_000,
                heartbeat_s: plan.heartbeat_s,
                advertise: vec![advertise],
                shutdown_spread_ms: 5_000,
            },
            seed,
        );
        let shards = (0..plan.shards)
            .map(|index| ShardThread {
                core: Shard::new(
                    shard::Settings {
                        shard: ShardIndex(index),
                        window: plan.window,
                        unsent_bytes_max: plan.unsent_bytes_max,
                        batch: Limits {
                            rows_max: plan.batch_rows_max,
                            bytes_max: 1 << 20,
                            age_ms_max: 20,
                        },
                        overload_retry_ms: OVERLOAD_RETRY_MS,
                        shutdown_spread_ms: 5_000,
                    },
                    seed ^ u64::from(index + 1),
                ),
                timer: Timer::default(),
                slots: Slab::new(),
                lingering: Lingering::new(usize::MAX),
                effects: shard::Effects::default(),
                last_at_ms: [0; 3],
            })
            .collect();
        Self {
            farewell: None,
            links: vec![],
            gate,
            gate_timer: Timer::default(),
            conns: Slab::new(),
            lingering: Lingering::new(LINGERING_MAX),
            shards,
            writer: Writer::new(
                writer::Settings {
                    careful_rows_max: careful_rows_max(plan),
                    ..writer::Settings::default()
                },
                !seed,
            ),
            batches_coming: 0,
            lines: Lines::new(LINES_MAX),
            writer_timer: Timer::default(),
            places: BTreeMap::new(),
            unattached: BTreeMap::new(),
        }
    }

    /// Adds what this process counted.
    pub fn count_into(&self, marks: &mut Marks) {
        let gate = self.gate.counters();
        let shards = self.shards.iter().map(|shard| shard.core.counters());
        for counters in shards.chain([&gate, self.writer.counters()]) {
            let counted = counters.iter();
            marks.counted(Tier::Logic, counted.map(|(it, n)| (it.name(), n)));
        }
    }

    /// The connections on their way out of one of its threads.
    pub fn lingering(&mut self, of: Loop) -> &mut Lingering<Stream> {
        match of {
            Loop::Gate => &mut self.lingering,
            Loop::Shard(shard) => &mut self.shards[shard].lingering,
        }
    }
}
