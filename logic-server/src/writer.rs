//! Pure. Which batches are written together, and what happens when the store fails.
//!
//! ```text
//!             ┌──────────── retry, with backoff ────────────┐
//! Submit ─▶ queue ─▶ Write (one at a time) ─▶ Done ─ Failed ─┤
//!             │                                ├─ Committed ─┼─▶ Finished(Stored)
//!             │                                ╰─ Refused ───┼─▶ the first of it: written carefully
//!             ╰─ too many bytes, too long ───────────────────┴─▶ Finished(Overloaded)
//! ```
//!
//! One write is under way; what comes meanwhile goes into the next, so a slow store gets fewer and
//! larger transactions. A COMMIT of unknown outcome is a failure: rows are unique in the store,
//! and are written again.
//!
//! Of a group that has something which the store refuses for good, the first batches are kept, and the
//! others go back to the queue. Those kept are written carefully: within one transaction the store puts
//! the records that it refuses into dead_letter, and the others where they belong. Their batches are
//! stored like any other. To ask from here which records are refused would take a dozen transactions for
//! each: a fleet of which one record in a hundred is refused would stall everybody.
//!
//! ```text
//! a b c d e f   refused ─▶ a b c: lines of sessions, then rows, carefully     d e f: back to the queue
//! ```
//!
//! A row whose key is in the store already is a repetition, and the first is kept. One that says the same is
//! what the contract wants of a device that got no answer. One that says something else shows a device that
//! uses its numbers again: its records are not what the device believes is stored, and somebody has to
//! know. So the store counts both, each account is told of once, and its session is told how many.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::ops::Range;

use common::ids::AccountId;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::batch::{Batch, BatchOutcome, Presence, Row};
use crate::counters::{Counter, Counters};

/// Accounts that are told of because their records contradict earlier ones. Beyond it a fleet has one mistake, and
/// the others are only counted.
pub const CONTRADICTING_TOLD_MAX: usize = 1_000;

/// How much waits for the store, and for how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Records in one transaction; batches are grouped up to it, and never cut for it.
    pub group_rows_max: usize,
    /// Records that are written carefully in one transaction; not 0. Each may cost the store a statement
    /// and more.
    pub careful_rows_max: usize,
    /// Bytes of batches that wait or are being written; what comes beyond is `overloaded`.
    pub queue_bytes_max: usize,
    /// From its submission a batch is tried this long, then it is `overloaded`.
    pub keep_ms_max: u64,
    /// Wait after the first failure; doubled with each, with jitter.
    pub retry_ms_min: u64,
    pub retry_ms_max: u64,
    /// What a device is told to wait that gets `overloaded`, before it is spread.
    pub overload_retry_ms: u32,
    /// Lines of `sessions` kept while the store is away; beyond it the oldest are dropped, and the
    /// next start repairs the table.
    pub presence_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            group_rows_max: 20_000,
            careful_rows_max: 512,
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
    /// All of it is durable.
    Committed(Written),
    /// The store found a value that it will never take (SQLSTATE classes 22 and 23, but for
    /// 23505); nothing of the work is stored. `why` is what the store said.
    Refused { why: String },
    /// Anything else, also a COMMIT of unknown outcome: nothing is known of it.
    Failed,
}

/// What the rows of a write came to. All others are new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Those of a careful write that the database refused, and that are in dead_letter now. Those with a flaw of
    /// their own are not counted.
    pub refused: u64,
    /// Those whose key was there before them, also within this write, and that say the same.
    pub alike: u64,
    /// Likewise, and they say something else than the one that is kept; by account.
    pub contradicting: BTreeMap<AccountId, u64>,
    /// Why those that were there could not be compared; then all of them count as `alike`.
    pub uncompared: Option<String>,
}

impl Written {
    /// Of a write in which nothing was there before.
    pub const fn refusing(refused: u64) -> Self {
        Self {
            refused,
            alike: 0,
            contradicting: BTreeMap::new(),
            uncompared: None,
        }
    }

    /// Of rows that were there already, and of those that say something else, by the accounts' ids.
    pub(crate) fn repeated(&mut self, rows: u64, contradicting: Vec<(i64, i64)>) {
        let mut contradicts = 0;
        for (account_id, rows) in contradicting {
            let rows = rows.unsigned_abs();
            contradicts += rows;
            *self.contradicting.entry(AccountId(account_id)).or_default() += rows;
        }
        self.alike += rows.saturating_sub(contradicts);
    }
}

/// What the writer asks for.
#[derive(Debug)]
pub enum Effect {
    /// To be carried out in one transaction and given back by [`Input::Done`]; one at a time.
    Write(Work),
    /// To go back to the batch's shard.
    Finished { batch: Batch, outcome: BatchOutcome },
    /// Somebody should hear of it: a device uses its numbers again. Once for an account.
    Contradicts { account_id: AccountId, records: u64 },
}

/// A batch that is not finished.
#[derive(Debug)]
struct Waiting {
    batch: Batch,
    bytes: usize,
    submitted_ms: u64,
}

/// A part of a work that is one transaction.
#[derive(Debug)]
enum Part {
    /// Everything, as it is tried first.
    Whole,
    Presence,
    /// Rows that are written carefully.
    Rows(Range<usize>),
}

impl Part {
    fn is_divisible(&self) -> bool {
        matches!(self, Self::Rows(rows) if rows.len() > 1)
    }
}

/// What one transaction has to write.
#[derive(Debug)]
pub struct Work {
    batches: Vec<Waiting>,
    /// Of batches that were given up before.
    presence: Vec<Presence>,
    /// What is still to be written, the next at the end; never empty outside the writer.
    parts: Vec<Part>,
}

impl Work {
    /// The rows to insert, with their payloads. A row with a flaw goes to dead_letter.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, &[u8])> {
        let rows = match self.parts.last() {
            Some(Part::Whole) => 0..usize::MAX,
            Some(Part::Rows(rows)) => rows.clone(),
            Some(Part::Presence) | None => 0..0,
        };
        self.all_rows().skip(rows.start).take(rows.len())
    }

    /// Whether the rows that the database refuses are to be put into dead_letter as well, with what it
    /// said, and the others to be stored all the same.
    pub fn is_careful(&self) -> bool {
        matches!(self.parts.last(), Some(Part::Rows(_)))
    }

    /// How many rows [`Work::rows`] has.
    pub fn rows_len(&self) -> usize {
        match self.parts.last() {
            Some(Part::Whole) => self.row_count(),
            Some(Part::Rows(rows)) => rows.len(),
            Some(Part::Presence) | None => 0,
        }
    }

    /// Lines of `sessions` to insert or end, in order.
    pub fn presence(&self) -> impl Iterator<Item = &Presence> {
        let is_due = matches!(self.parts.last(), Some(Part::Whole | Part::Presence));
        self.all_presence().filter(move |_| is_due)
    }

    fn all_rows(&self) -> impl Iterator<Item = (&Row, &[u8])> {
        self.batches.iter().flat_map(|Waiting { batch, .. }| {
            let rows = batch.rows.iter();
            rows.map(|row| (row, batch.payload(row)))
        })
    }

    fn all_presence(&self) -> impl Iterator<Item = &Presence> {
        let of_batches = self.batches.iter().flat_map(|it| &it.batch.presence);
        self.presence.iter().chain(of_batches)
    }

    fn clear_presence(&mut self) {
        self.presence.clear();
        for waiting in &mut self.batches {
            waiting.batch.presence.clear();
        }
    }

    /// Each account to the first batch that has a row of it: there its session is told.
    fn note_contradicting(&mut self, mut accounts: BTreeMap<AccountId, u64>) {
        for Waiting { batch, .. } in &mut self.batches {
            for row in &batch.rows {
                if accounts.is_empty() {
                    return;
                }
                if let Some(records) = accounts.remove(&row.account_id) {
                    *batch.contradicting.entry(row.account_id).or_default() += records;
                }
            }
        }
    }

    fn row_count(&self) -> usize {
        self.batches.iter().map(|it| it.batch.rows.len()).sum()
    }

    /// Its next part is in the store.
    fn part_committed(&mut self) -> Option<Part> {
        let part = self.parts.pop();
        if matches!(part, Some(Part::Whole | Part::Presence)) {
            self.clear_presence();
        }
        part
    }

    /// How many of the first batches have no more rows than these together; one at least.
    fn first_batches(&self, rows_max: usize) -> usize {
        let mut rows = 0;
        let fit = self.batches.iter().take_while(|it| {
            rows += it.batch.rows.len();
            rows <= rows_max
        });
        fit.count().max(1).min(self.batches.len())
    }

    /// What was refused as a whole is written in parts.
    fn write_carefully(&mut self, rows_max: usize) {
        let rows = self.row_count();
        let starts = (0..rows).step_by(rows_max).rev();
        let of_rows = starts.map(|start| Part::Rows(start..rows.min(start + rows_max)));
        self.parts = of_rows.collect();
        if self.all_presence().next().is_some() {
            self.parts.push(Part::Presence);
        }
    }

    /// Nothing is known of what it wrote: it may be there.
    fn doubt(&mut self) {
        let rows = self.batches.iter_mut().flat_map(|it| &mut it.batch.rows);
        rows.for_each(|row| row.may_be_there = true);
    }

    /// Where the next part may have been too much for one transaction, it becomes two.
    fn halve(&mut self) {
        if let Some(Part::Rows(rows)) = self.parts.pop_if(|part| part.is_divisible()) {
            let middle = rows.start + rows.len() / 2;
            let halves = [middle..rows.end, rows.start..middle];
            self.parts.extend(halves.map(Part::Rows));
        }
    }
}

#[derive(Debug)]
enum State {
    /// Nothing is at the store; a write begins as soon as there is something.
    Ready,
    Writing,
    /// The last write failed. What it held waits for its turn, unless it was given up.
    Resting {
        work: Option<Work>,
        until_ms: u64,
    },
}

/// The decisions of the node's one writer.
#[derive(Debug)]
pub struct Writer {
    settings: Settings,
    state: State,
    /// In the order in which they were submitted.
    queue: VecDeque<Waiting>,
    /// Of all batches that are not finished.
    bytes: usize,
    /// Of batches that were given up, older than the queue; goes with the next write.
    presence: VecDeque<Presence>,
    /// Writes that failed, one after another.
    failures: u32,
    /// Accounts that were told of by [`Effect::Contradicts`].
    told: BTreeSet<AccountId>,
    /// Rows of the next group: few after one that was refused, because of a large one most would have
    /// been written in vain; doubled with each that commits.
    group_rows: usize,
    counters: Counters,
    rng: SmallRng,
}

impl Writer {
    /// `seed` governs the jitter of retries.
    pub fn new(settings: Settings, seed: u64) -> Self {
        assert!(settings.careful_rows_max > 0, "a part has a row");
        Self {
            group_rows: settings.group_rows_max,
            settings,
            state: State::Ready,
            queue: VecDeque::new(),
            bytes: 0,
            presence: VecDeque::new(),
            failures: 0,
            told: BTreeSet::new(),
            counters: Counters::default(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// `now_ms` is monotonic.
    pub fn apply(&mut self, input: Input, now_ms: u64, effects: &mut Vec<Effect>) {
        match input {
            Input::Submit(batch) => self.submit(batch, now_ms, effects),
            Input::Done { work, result } => self.done(work, result, now_ms, effects),
            Input::Tick => {}
        }
        self.give_up_overdue(now_ms, effects);
        self.write_next(now_ms, effects);
    }

    /// When [`Input::Tick`] is due; monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let (resting, until_ms) = match &self.state {
            State::Ready | State::Writing => (None, None),
            State::Resting { work, until_ms } => {
                let has_work = work.is_some() || !self.is_queue_empty();
                (work.as_ref(), has_work.then_some(*until_ms))
            }
        };
        let oldest = resting
            .and_then(|work| work.batches.first())
            .or(self.queue.front());
        let give_up_ms = oldest.map(|it| it.submitted_ms + self.settings.keep_ms_max);
        until_ms.into_iter().chain(give_up_ms).min()
    }

    /// Nothing waits and nothing is being written. What rests after a failure waits, too, though
    /// it may be lines of `sessions` alone, which are not counted in bytes.
    pub fn is_idle(&self) -> bool {
        let is_at_rest = match &self.state {
            State::Ready => true,
            State::Writing => false,
            State::Resting { work, .. } => work.is_none(),
        };
        is_at_rest && self.bytes == 0 && self.is_queue_empty()
    }

    /// Bytes of batches that wait or are being written.
    pub fn queue_bytes(&self) -> usize {
        self.bytes
    }

    /// What it keeps, by name: for metrics, and for whoever checks that all of it is bounded.
    pub fn held(&self) -> [(&'static str, usize); 4] {
        [
            ("batches", self.queue.len()),
            ("batch_bytes", self.bytes),
            ("presence", self.presence.len()),
            ("contradicting_told", self.told.len()),
        ]
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn submit(&mut self, batch: Batch, now_ms: u64, effects: &mut Vec<Effect>) {
        let mut waiting = Waiting {
            bytes: batch.bytes(),
            batch,
            submitted_ms: now_ms,
        };
        let bytes = self.bytes + waiting.bytes;
        // A batch that is larger than the whole queue may have it alone.
        let is_full = bytes > self.settings.queue_bytes_max && self.bytes > 0;
        self.bytes = bytes;
        if !is_full {
            return self.queue.push_back(waiting);
        }
        // A session's end must not be written before its beginning, which may wait here.
        if let Some(last) = self.queue.back_mut() {
            last.batch.presence.append(&mut waiting.batch.presence);
        }
        self.give_up(waiting, effects);
    }

    fn done(
        &mut self,
        mut work: Work,
        result: WriteResult,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        self.state = State::Ready;
        match result {
            WriteResult::Committed(written) => {
                self.failures = 0;
                self.count(written, &mut work, effects);
                if let Some(Part::Whole) = work.part_committed() {
                    let doubled = self.group_rows.saturating_mul(2);
                    self.group_rows = doubled.min(self.settings.group_rows_max);
                }
                self.go_on(work, effects);
            }
            WriteResult::Refused { .. } => {
                self.counters.count(Counter::WriteRefused);
                match work.parts.last() {
                    Some(Part::Whole) => self.keep_first(&mut work),
                    Some(Part::Presence) => {
                        let dropped = work.all_presence().count() as u64;
                        self.counters.add(Counter::PresenceDropped, dropped);
                        work.parts.pop();
                        work.clear_presence();
                    }
                    // Not even dead_letter takes it.
                    Some(Part::Rows(_)) | None => return self.rest(work, now_ms),
                }
                self.go_on(work, effects);
            }
            WriteResult::Failed => {
                // Where nearly all of it is refused, a part may take longer than a write may.
                work.halve();
                self.rest(work, now_ms);
            }
        }
    }

    /// What a part of a work came to, which is still its next one.
    fn count(&mut self, written: Written, work: &mut Work, effects: &mut Vec<Effect>) {
        let Written {
            refused,
            alike,
            contradicting,
            uncompared: _,
        } = written;
        let contradicts: u64 = contradicting.values().sum();
        let stored = (work.rows_len() as u64).saturating_sub(alike + contradicts);
        self.counters.add(Counter::RecordsStored, stored);
        self.counters.add(Counter::RecordsRefused, refused);
        self.counters.add(Counter::RecordsRepeated, alike);
        self.counters
            .add(Counter::RecordsContradicting, contradicts);
        for (&account_id, &records) in &contradicting {
            if self.told.len() < CONTRADICTING_TOLD_MAX && self.told.insert(account_id) {
                effects.push(Effect::Contradicts {
                    account_id,
                    records,
                });
            }
        }
        work.note_contradicting(contradicting);
    }

    /// Of a group that was refused, puts all but the first batches back to the head of the queue.
    fn keep_first(&mut self, work: &mut Work) {
        let Settings {
            group_rows_max,
            careful_rows_max,
            ..
        } = self.settings;
        self.group_rows = careful_rows_max.min(group_rows_max);
        let kept = work.first_batches(careful_rows_max);
        self.put_back(work.batches.split_off(kept));
        work.write_carefully(careful_rows_max);
    }

    /// Writes the next part of a work, or finishes it.
    fn go_on(&mut self, work: Work, effects: &mut Vec<Effect>) {
        if !work.parts.is_empty() {
            self.state = State::Writing;
            return effects.push(Effect::Write(work));
        }
        for waiting in work.batches {
            self.counters.count(Counter::BatchStored);
            self.finish(waiting, BatchOutcome::Stored, effects);
        }
    }

    fn rest(&mut self, mut work: Work, now_ms: u64) {
        self.counters.count(Counter::WriteFailed);
        work.doubt();
        let Settings {
            retry_ms_min,
            retry_ms_max,
            ..
        } = self.settings;
        let doubled = retry_ms_min.saturating_mul(1 << self.failures.min(32));
        let wait_ms = doubled.min(retry_ms_max).max(1);
        self.failures += 1;
        self.state = State::Resting {
            work: Some(work),
            until_ms: now_ms + self.rng.random_range(wait_ms.div_ceil(2)..=wait_ms),
        };
    }

    fn write_next(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let kept = match &mut self.state {
            State::Writing => return,
            State::Resting { until_ms, .. } if now_ms < *until_ms => return,
            State::Resting { work, .. } => work.take(),
            State::Ready => None,
        };
        match kept.or_else(|| self.group()) {
            Some(work) => {
                self.state = State::Writing;
                effects.push(Effect::Write(work));
            }
            None => self.state = State::Ready,
        }
    }

    /// What waits, as much as goes into one transaction.
    fn group(&mut self) -> Option<Work> {
        if self.is_queue_empty() {
            return None;
        }
        let mut work = Work {
            batches: vec![],
            presence: mem::take(&mut self.presence).into(),
            parts: vec![Part::Whole],
        };
        let mut rows = 0;
        while let Some(waiting) = self.queue.pop_front() {
            rows += waiting.batch.rows.len();
            if rows > self.group_rows && !work.batches.is_empty() {
                self.queue.push_front(waiting);
                break;
            }
            work.batches.push(waiting);
        }
        Some(work)
    }

    fn is_queue_empty(&self) -> bool {
        self.queue.is_empty() && self.presence.is_empty()
    }

    /// A work at the store cannot be called back; everything else that is too old is given up.
    fn give_up_overdue(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let keep_ms_max = self.settings.keep_ms_max;
        let is_overdue = |it: &Waiting| now_ms >= it.submitted_ms + keep_ms_max;

        if let State::Resting { work, .. } = &mut self.state
            && let Some(stale) = work.take_if(|work| work.batches.first().is_some_and(is_overdue))
        {
            self.take_apart(stale, effects);
        }
        while let Some(waiting) = self.queue.pop_front_if(|it| is_overdue(it)) {
            self.give_up(waiting, effects);
        }
    }

    /// Puts the batches of a work back at the head of the queue. Its parts are forgotten: what is still
    /// worth it is tried as a whole again.
    fn take_apart(&mut self, work: Work, effects: &mut Vec<Effect>) {
        // Of a batch without rows, the lines of sessions may be written already, or given up.
        let (left, done) = work
            .batches
            .into_iter()
            .partition::<Vec<_>, _>(|it| !it.batch.is_empty());
        self.put_back(left);
        self.presence.extend(work.presence);
        for waiting in done {
            self.counters.count(Counter::BatchStored);
            self.finish(waiting, BatchOutcome::Stored, effects);
        }
    }

    /// Batches that were at the store wait again. What was given up meanwhile came after them.
    fn put_back(&mut self, mut batches: Vec<Waiting>) {
        if let Some(last) = batches.last_mut() {
            last.batch.presence.extend(self.presence.drain(..));
        }
        for waiting in batches.into_iter().rev() {
            self.queue.push_front(waiting);
        }
    }

    /// The devices will send it again; what it says of sessions is kept.
    fn give_up(&mut self, mut waiting: Waiting, effects: &mut Vec<Effect>) {
        self.counters.count(Counter::BatchOverloaded);
        self.presence.extend(waiting.batch.presence.drain(..));
        let too_many = self
            .presence
            .len()
            .saturating_sub(self.settings.presence_max);
        self.presence.drain(..too_many);
        self.counters.add(Counter::PresenceDropped, too_many as u64);

        let retry_after_ms = self.settings.overload_retry_ms;
        self.finish(
            waiting,
            BatchOutcome::Overloaded { retry_after_ms },
            effects,
        );
    }

    fn finish(&mut self, waiting: Waiting, outcome: BatchOutcome, effects: &mut Vec<Effect>) {
        let bytes = self.bytes.checked_sub(waiting.bytes);
        self.bytes = bytes.expect("its bytes were counted");
        let batch = waiting.batch;
        effects.push(Effect::Finished { batch, outcome });
    }
}

#[cfg(test)]
mod tests;
