//! Pure. Which batches are written together, and what happens when the store fails.

use std::collections::VecDeque;

use crate::batch::{Batch, BatchOutcome, Presence, Row};
use crate::counters::Counters;

/// How much waits for the store, and for how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Records in one transaction; batches are grouped up to it.
    pub group_rows_max: usize,
    /// Bytes of batches that wait or are being written; what comes beyond is `overloaded`.
    pub queue_bytes_max: usize,
    /// From its submission a batch is retried this long, then it is `overloaded`.
    pub keep_ms_max: u64,
    /// Wait after the first failure; doubled with each, with jitter.
    pub retry_ms_min: u64,
    pub retry_ms_max: u64,
    /// What a device is told to wait that gets `overloaded`, before it is spread.
    pub overload_retry_ms: u32,
    /// `sessions` lines kept while the store is away; beyond, the oldest are dropped and the next
    /// start repairs the table.
    pub presence_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            group_rows_max: 20_000,
            queue_bytes_max: 64 << 20,
            keep_ms_max: 20_000,
            retry_ms_min: 50,
            retry_ms_max: 2_000,
            overload_retry_ms: 2_000,
            presence_max: 100_000,
        }
    }
}

/// What happens to the writer.
#[derive(Debug)]
pub enum Input {
    Submit(Batch),
    /// The work of the last [`Effect::Write`] comes back.
    Done {
        work: Work,
        result: WriteResult,
    },
    /// [`Writer::next_deadline`] has come.
    Tick,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    Committed,
    /// The store found a value that it will never take (SQLSTATE classes 22 and 23, but for
    /// 23505); nothing of the work is stored. Says what the store said.
    Refused {
        why: String,
    },
    /// Anything else, also a COMMIT of unknown outcome: nothing is known of it.
    Failed,
}

/// What the writer asks for.
#[derive(Debug)]
pub enum Effect {
    /// To be carried out in one transaction and given back by [`Input::Done`]; one at a time.
    Write(Work),
    /// To go back to the batch's shard.
    Finished { batch: Batch, outcome: BatchOutcome },
}

/// What one transaction has to write.
#[derive(Debug)]
pub struct Work {
    batches: Vec<Batch>,
    presence: Vec<Presence>,
}

impl Work {
    /// The rows to insert, with their payloads. A row with a flaw goes to dead_letter.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, &[u8])> {
        self.batches
            .iter()
            .flat_map(|batch| batch.rows.iter().map(|row| (row, batch.payload(row))))
    }

    /// A row that the store refused, to be put into dead_letter with this reason.
    pub fn set_aside(&self) -> Option<(&Row, &[u8], &str)> {
        None
    }

    /// Lines of `sessions` to insert or end, in order.
    pub fn presence(&self) -> impl Iterator<Item = &Presence> {
        self.presence
            .iter()
            .chain(self.batches.iter().flat_map(|batch| &batch.presence))
    }
}

/// The decisions of the node's one writer.
#[derive(Debug)]
pub struct Writer {
    settings: Settings,
    queue: VecDeque<Batch>,
    counters: Counters,
}

impl Writer {
    /// `seed` governs the jitter of retries.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let _ = seed;
        Self {
            settings,
            queue: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// `now_ms` is monotonic.
    pub fn apply(&mut self, input: Input, now_ms: u64, effects: &mut Vec<Effect>) {
        let _ = (&self.settings, &mut self.queue, input, now_ms, effects);
    }

    /// When [`Input::Tick`] is due; monotonic.
    pub fn next_deadline(&self) -> Option<u64> {
        None
    }

    /// Nothing waits and nothing is being written.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
