//! Pure. Records on their way to the store, and who is told when they are there.
//!
//! ```text
//! frame ─┐                     ┌─ rows ── one per record, payload in the arena
//! frame ─┼─▶ Collector ─▶ Batch┤
//! frame ─┘   (one per shard)   └─ acks ── one per frame, with the slot that waits for it
//! ```
//!
//! A frame's records go into one batch, so that a frame is acknowledged whole or not at all. The
//! batch comes back with its outcome and brings its acks along: nobody has to remember what was
//! on its way.
//!
//! A batch is handed over when it is full or old; and at the end of a turn already when none is
//! at the writer. So one frame on an idle node waits for one commit and for nothing else, and
//! under load batches grow for as long as the commit before them takes.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;

use common::ids::AccountId;
use common::time::Now;
use records::{Flaw, RawRecord, Record};

use crate::adapter::Receipt;
use crate::ids::{SessionId, ShardIndex, Slot};

/// Empty batches kept for the next frames, so that a busy shard stops allocating.
const SPARE_MAX: usize = 2;

/// When a batch is full or old.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records. A frame is never cut: one with more makes a batch of its own.
    pub rows_max: usize,
    /// Bytes of payload; likewise.
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
    /// The store may have it already: it was sent before, or written with an unknown outcome. A hint, for
    /// what is faster; whatever it says, a record that is there is kept once.
    pub may_be_there: bool,
}

/// A record that goes to dead_letter for what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flawed {
    pub seq: u64,
    pub kind: u8,
    pub flaw: Flaw,
}

/// A frame that waits to be acknowledged; flat, for there is one for every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub session: SessionId,
    pub slot: Slot,
    pub base_seq: u64,
    pub frame_id: u16,
    pub count: u8,
}

impl Ack {
    pub(crate) fn receipt(&self) -> Receipt {
        Receipt {
            base_seq: self.base_seq,
            frame_id: self.frame_id,
            count: self.count,
        }
    }
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
    /// Of a batch that is stored: accounts with records that say something else than earlier ones of the same
    /// number and time, which are kept; how many.
    pub contradicting: BTreeMap<AccountId, u64>,
    /// Monotonic, when its first frame came; of no meaning before.
    pub opened_at_ms: u64,
}

impl Batch {
    /// A row's payload as it came. The row must be of this batch.
    pub fn payload(&self, row: &Row) -> &[u8] {
        &self.arena[row.payload.start as usize..row.payload.end as usize]
    }

    /// What its contents take of memory.
    pub fn bytes(&self) -> usize {
        self.arena.len()
            + mem::size_of_val(self.rows.as_slice())
            + mem::size_of_val(self.acks.as_slice())
    }

    pub(crate) fn new(shard: ShardIndex) -> Self {
        Self {
            id: 0,
            shard,
            rows: vec![],
            arena: vec![],
            acks: vec![],
            contradicting: BTreeMap::new(),
            opened_at_ms: 0,
        }
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.arena.clear();
        self.acks.clear();
        self.contradicting.clear();
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

/// Whose frame it is: from the grant, never from the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender {
    pub(crate) account_id: AccountId,
    pub(crate) session: SessionId,
    pub(crate) slot: Slot,
    /// It may be one that an earlier session sent, or this one before it was told to wait.
    pub(crate) may_repeat: bool,
}

/// Fills one batch at a time.
#[derive(Debug)]
pub(crate) struct Collector {
    limits: Limits,
    open: Batch,
    spare: Vec<Batch>,
    handed_over: u64,
    given_back: u64,
    /// Frames collected or on their way.
    unanswered: usize,
}

impl Collector {
    pub(crate) fn new(shard: ShardIndex, limits: Limits) -> Self {
        assert!(
            limits.bytes_max <= 1 << 30,
            "a row names its payload by two u32"
        );
        Self {
            limits,
            open: Batch::new(shard),
            spare: vec![],
            handed_over: 0,
            given_back: 0,
            unanswered: 0,
        }
    }

    /// Takes a frame; returns how many of its records have a flaw, and the first of them. A batch that the frame does
    /// not fit in any more goes to `full`.
    pub(crate) fn frame<'a>(
        &mut self,
        sender: Sender,
        receipt: Receipt,
        records: impl Iterator<Item = RawRecord<'a>> + Clone,
        now: Now,
        full: &mut Vec<Batch>,
    ) -> (u64, Option<Flawed>) {
        let Receipt {
            base_seq,
            frame_id,
            count,
        } = receipt;
        let bytes: usize = records.clone().map(|record| record.payload.len()).sum();
        self.make_room(usize::from(count), bytes, full);
        if self.open.rows.is_empty() {
            self.open.opened_at_ms = now.ms;
        }

        let received_at_ms = bigint(now.unix_ms);
        let (mut flawed, mut first) = (0, None);
        self.open.rows.reserve(count.into());
        for record in records {
            let flaw = Record::decode(record.kind, record.payload).err();
            if let Some(flaw) = flaw {
                flawed += 1;
                first.get_or_insert(Flawed {
                    seq: record.seq,
                    kind: record.kind,
                    flaw,
                });
            }
            let start = self.open.arena.len() as u32;
            self.open.arena.extend_from_slice(record.payload);
            self.open.rows.push(Row {
                account_id: sender.account_id,
                seq: bigint(record.seq),
                recorded_at_ms: bigint(record.recorded_at_ms),
                received_at_ms,
                payload: start..self.open.arena.len() as u32,
                kind: record.kind,
                flaw,
                may_be_there: sender.may_repeat,
            });
        }
        self.unanswered += 1;
        self.open.acks.push(Ack {
            session: sender.session,
            slot: sender.slot,
            base_seq,
            frame_id,
            count,
        });
        (flawed, first)
    }

    /// The open batch, when it is time.
    pub(crate) fn due(&mut self, now: Now) -> Option<Batch> {
        self.due_at_ms()
            .is_some_and(|due| due <= now.ms)
            .then(|| self.cut())
    }

    /// When [`Collector::due`] has something.
    pub(crate) fn due_at_ms(&self) -> Option<u64> {
        let wait_ms = match self.is_writer_idle() {
            true => 0,
            false => self.limits.age_ms_max,
        };
        (!self.open.rows.is_empty()).then(|| self.open.opened_at_ms + wait_ms)
    }

    /// The open batch, whatever it holds; `None`: nothing.
    pub(crate) fn flush(&mut self) -> Option<Batch> {
        (!self.open.rows.is_empty()).then(|| self.cut())
    }

    /// A batch that has come back and is done with.
    pub(crate) fn give_back(&mut self, mut batch: Batch) {
        self.given_back += 1;
        self.unanswered -= batch.acks.len();
        if self.spare.len() < SPARE_MAX {
            batch.clear();
            self.spare.push(batch);
        }
    }

    /// Every frame that was taken has come back.
    pub(crate) fn is_answered(&self) -> bool {
        self.unanswered == 0
    }

    /// Rows that are collected.
    pub(crate) fn collected(&self) -> usize {
        self.open.rows.len()
    }

    /// Of their payload.
    pub(crate) fn collected_bytes(&self) -> usize {
        self.open.arena.len()
    }

    /// Empty batches that are kept.
    pub(crate) fn spare(&self) -> usize {
        self.spare.len()
    }

    fn is_writer_idle(&self) -> bool {
        self.handed_over == self.given_back
    }

    fn make_room(&mut self, rows: usize, bytes: usize, full: &mut Vec<Batch>) {
        let open = &self.open;
        let is_full = open.rows.len() + rows > self.limits.rows_max
            || open.arena.len() + bytes > self.limits.bytes_max;
        if is_full && !open.rows.is_empty() {
            full.push(self.cut());
        }
    }

    fn cut(&mut self) -> Batch {
        let next = self
            .spare
            .pop()
            .unwrap_or_else(|| Batch::new(self.open.shard));
        let mut batch = mem::replace(&mut self.open, next);
        batch.id = self.handed_over;
        self.handed_over += 1;
        batch
    }
}

/// As a BIGINT column holds it: times and sequence numbers of the contract are below 2^63.
pub(crate) fn bigint(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
