//! Pure. Records on their way to the store, and who is told when they are there.
//!
//! ```text
//! frame ─┐                     ┌─ rows ────── one per record, payload in the arena
//! frame ─┼─▶ Collector ─▶ Batch┼─ acks ────── one per frame, with the slot that waits for it
//! frame ─┘   (one per shard)   └─ presence ── sessions that began or ended meanwhile
//! ```
//!
//! A frame's records go into one batch, so that a frame is acknowledged whole or not at all. The
//! batch comes back with its outcome and brings its acks along: nobody has to remember what was
//! on its way.

use std::net::IpAddr;
use std::ops::Range;

use common::device::code::CloseReason;
use common::device::record::Flaw;
use common::epoch::Epoch;
use common::ids::AccountId;

use crate::ids::{SessionId, ShardIndex, Slot};

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records. A frame has at most 255, so a batch has at most 254 more than a lesser limit.
    pub rows_max: usize,
    /// Bytes of payload.
    pub bytes_max: usize,
    /// From its first frame until it is handed over, however little it holds.
    pub age_ms_max: u64,
}

/// One record. The payload is kept as it came, also for dead_letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub account_id: AccountId,
    pub seq: i64,
    pub recorded_at_ms: i64,
    pub received_at_ms: i64,
    /// Of the payload, in the batch's arena.
    pub payload: Range<u32>,
    pub kind: u8,
    /// `Some`: it goes to dead_letter under this name.
    pub flaw: Option<Flaw>,
}

/// A frame that waits for its TelemetryAck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub session: SessionId,
    pub slot: Slot,
    pub base_seq: u64,
    pub frame_id: u16,
    pub count: u8,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// We closed it.
    Closed(CloseReason),
    /// The device went, or the network did.
    Disconnected,
}

impl EndReason {
    /// As the `sessions` table has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed(reason) => reason.name(),
            Self::Disconnected => "disconnected",
        }
    }
}

/// A line of the `sessions` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Attached {
        account_id: AccountId,
        epoch: Epoch,
        source: IpAddr,
        at_ms: i64,
    },
    Ended {
        account_id: AccountId,
        epoch: Epoch,
        at_ms: i64,
        reason: EndReason,
    },
}

/// What goes to the store in one piece.
#[derive(Debug)]
pub struct Batch {
    /// Counts up on its shard.
    pub id: u64,
    pub shard: ShardIndex,
    pub rows: Vec<Row>,
    /// The rows' payloads, one behind the other.
    pub arena: Vec<u8>,
    pub acks: Vec<Ack>,
    pub presence: Vec<Presence>,
    /// Monotonic, when its first content came.
    pub opened_at_ms: u64,
}

impl Batch {
    /// A row's payload as it came. The row must be of this batch.
    pub fn payload(&self, row: &Row) -> &[u8] {
        &self.arena[row.payload.start as usize..row.payload.end as usize]
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Every row is durable, in its table or in dead_letter.
    Stored,
    /// The store could not take it in time: nothing is promised, and the devices send it again.
    Overloaded { retry_after_ms: u32 },
}
