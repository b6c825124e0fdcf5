//! Pure. The sessions of one loop: frames in, acks and replies out, records into batches.

use std::net::IpAddr;
use std::ops::Range;

use common::device::code::CloseReason;
use common::epoch::Epoch;
use common::ids::{AccountId, Ticket};
use common::link::LinkId;
use common::link::message::{CommandAnswer, Order};
use common::secret::SessionKey;

use crate::batch::{self, Batch, BatchOutcome, EndReason};
use crate::counters::Counters;
use crate::ids::{Now, SessionId, ShardIndex, Slot};

/// What a session may do and take.
#[derive(Clone, Debug)]
pub struct Settings {
    pub shard: ShardIndex,
    /// Telemetry frames of a session that may be unanswered at once; at least 1.
    pub window: u16,
    /// Output that the kernel has not taken; beyond it the session is closed `slow_reader`.
    pub unsent_bytes_max: usize,
    pub batch: batch::Limits,
    /// What a device is told to wait whose frame is beyond its window, before it is spread.
    pub overload_retry_ms: u32,
    /// At shutdown devices are told to come back within this time, spread evenly.
    pub shutdown_spread_ms: u32,
}

/// What the gate hands over with a socket: a session that is admitted and not told so yet.
#[derive(Clone, Debug)]
pub struct SessionSeed {
    pub session: SessionId,
    pub account_id: AccountId,
    pub epoch: Epoch,
    pub session_key: SessionKey,
    pub ticket: Ticket,
    /// An IPv4-mapped address is an IPv4 address here.
    pub source: IpAddr,
    /// The Attach frame's, which AttachReply repeats.
    pub attach_frame_id: u16,
    pub heartbeat_s: u16,
    pub attached_unix_ms: u64,
}

/// What happens to a shard.
#[derive(Debug)]
pub enum Input<'a> {
    /// A socket of the gate's, now in this slot.
    Adopt {
        slot: Slot,
        seed: SessionSeed,
        unread: &'a [u8],
    },
    /// Plaintext, cut anywhere.
    Received { slot: Slot, bytes: &'a [u8] },
    /// The device went.
    Disconnected { slot: Slot },
    /// So many bytes of output wait for the kernel.
    Unsent { slot: Slot, bytes: usize },
    /// The gate ends a session.
    End {
        session: SessionId,
        reason: CloseReason,
        retry_after_ms: u32,
    },
    Command {
        session: SessionId,
        link: LinkId,
        request: u64,
        order: Order,
        deadline_at_ms: u64,
    },
    /// The writer gives a batch back.
    Finished { batch: Batch, outcome: BatchOutcome },
    /// Take no telemetry any more, flush, say goodbye.
    Shutdown,
    /// The end of a turn, and [`Shard::next_deadline`] has come.
    Tick,
}

/// Bytes for one session, in [`Effects::out`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub slot: Slot,
    pub bytes: Range<usize>,
}

/// A session is over; the gate is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub session: SessionId,
    pub account_id: AccountId,
    pub epoch: Epoch,
    pub reason: EndReason,
}

/// To whoever sent a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub link: LinkId,
    pub request: u64,
    pub answer: CommandAnswer,
}

/// What a shard asks for. The driver carries it out and clears it; kept, it stops allocating.
#[derive(Debug, Default)]
pub struct Effects {
    pub out: Vec<u8>,
    /// In order.
    pub sends: Vec<Send>,
    /// After their sends: shut down writing, linger, close. The shard has forgotten the session;
    /// the slot may be used again when the driver is done with it.
    pub closes: Vec<Slot>,
    /// To the writer.
    pub batches: Vec<Batch>,
    /// To the gate.
    pub ended: Vec<Ended>,
    /// To the links.
    pub answers: Vec<Answer>,
    /// After [`Input::Shutdown`]: every session has been told and every batch is back.
    pub done: bool,
}

impl Effects {
    pub fn clear(&mut self) {
        self.out.clear();
        self.sends.clear();
        self.closes.clear();
        self.batches.clear();
        self.ended.clear();
        self.answers.clear();
        self.done = false;
    }
}

/// The sessions of one loop.
#[derive(Debug)]
pub struct Shard {
    settings: Settings,
    counters: Counters,
}

impl Shard {
    /// `seed` governs the spread of retry times.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let _ = seed;
        Self {
            settings,
            counters: Counters::default(),
        }
    }

    pub fn apply(&mut self, input: Input<'_>, now: Now, effects: &mut Effects) {
        let _ = (&self.settings, input, now, effects);
    }

    /// When [`Input::Tick`] is due; monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        None
    }

    /// Live sessions.
    pub fn sessions(&self) -> usize {
        0
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
