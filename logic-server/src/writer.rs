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
//! Lines of `sessions` ([`Lines`]) go with whatever is written next. Those that the store refuses are found by
//! halves, and dropped alone.
//!
//! A row whose key is in the store already is a repetition, and the first is kept. One that says the same is
//! what the contract wants of a device that got no answer. One that says something else shows a device that
//! uses its numbers again: its records are not what the device believes is stored, and somebody has to
//! know. So the store counts both, each account is told of once, and its session is told how many.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use common::ids::AccountId;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::batch::{Batch, BatchOutcome, Row};
use crate::counters::{Counter, Counters};
use crate::presence::{Lines, Presence};

/// Accounts that are told of because their records contradict earlier ones. Beyond it a fleet has one mistake, and
/// the others are only counted.
pub const CONTRADICTING_TOLD_MAX: usize = 1_000;

/// How much waits for the store, and for how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Records in one transaction, and lines of `sessions`; batches are grouped up to it, and never cut for it.
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
    /// [`Writer::next_deadline`] has come, or there are lines of `sessions`.
    Tick,
    /// Nothing more will come: nothing is waited for.
    Close,
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
    /// All rows and these lines of `sessions`, as it is tried first.
    Whole(Vec<Presence>),
    /// Lines of `sessions`.
    Lines(Vec<Presence>),
    /// Rows that are written carefully.
    Rows(Range<usize>),
}

impl Part {
    /// The first half and the second.
    ///
    /// # Errors
    /// There is nothing to divide.
    fn halves(self) -> Result<[Self; 2], Self> {
        match self {
            Self::Lines(mut lines) if lines.len() > 1 => {
                let second = lines.split_off(lines.len() / 2);
                Ok([lines, second].map(Self::Lines))
            }
            Self::Rows(rows) if rows.len() > 1 => {
                let middle = rows.start + rows.len() / 2;
                Ok([rows.start..middle, middle..rows.end].map(Self::Rows))
            }
            whole => Err(whole),
        }
    }
}

/// What one transaction has to write.
#[derive(Debug)]
pub struct Work {
    batches: Vec<Waiting>,
    /// What is still to be written, the next at the end; never empty outside the writer.
    parts: Vec<Part>,
}

impl Work {
    /// The rows to insert, with their payloads. A row with a flaw goes to dead_letter.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, &[u8])> {
        let rows = match self.parts.last() {
            Some(Part::Whole(_)) => 0..usize::MAX,
            Some(Part::Rows(rows)) => rows.clone(),
            Some(Part::Lines(_)) | None => 0..0,
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
            Some(Part::Whole(_)) => self.row_count(),
            Some(Part::Rows(rows)) => rows.len(),
            Some(Part::Lines(_)) | None => 0,
        }
    }

    /// Lines of `sessions` to insert or end, in order.
    pub fn presence(&self) -> &[Presence] {
        match self.parts.last() {
            Some(Part::Whole(lines) | Part::Lines(lines)) => lines,
            Some(Part::Rows(_)) | None => &[],
        }
    }

    fn all_rows(&self) -> impl Iterator<Item = (&Row, &[u8])> {
        self.batches.iter().flat_map(|Waiting { batch, .. }| {
            let rows = batch.rows.iter();
            rows.map(|row| (row, batch.payload(row)))
        })
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

    /// Takes it apart: its batches, and the lines that are not in the store.
    fn into_unwritten(self) -> (Vec<Waiting>, Vec<Presence>) {
        let lines = self.parts.into_iter().rev().flat_map(|part| match part {
            Part::Whole(lines) | Part::Lines(lines) => lines,
            Part::Rows(_) => vec![],
        });
        (self.batches, lines.collect())
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
        let of_lines = self.parts.pop().and_then(|part| match part {
            Part::Whole(lines) if !lines.is_empty() => Some(Part::Lines(lines)),
            _ => None,
        });
        self.parts = of_rows.chain(of_lines).collect();
    }

    /// Nothing is known of what it wrote: it may be there.
    fn doubt(&mut self) {
        let rows = self.batches.iter_mut().flat_map(|it| &mut it.batch.rows);
        rows.for_each(|row| row.may_be_there = true);
    }

    /// Makes two of the next part; `false`: it is one thing.
    fn halve(&mut self) -> bool {
        let Some(part) = self.parts.pop() else {
            return false;
        };
        match part.halves() {
            Ok([first, second]) => self.parts.extend([second, first]),
            Err(part) => {
                self.parts.push(part);
                return false;
            }
        }
        true
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
///
/// How it is called: [`Writer::apply`] with each thing that happens, then its effects are carried out; one
/// [`Effect::Write`] is under way at a time, and its work comes back by [`Input::Done`] whatever became of it.
/// [`Input::Tick`] once [`Writer::next_deadline`] has passed, and when there are lines where there were none. Each
/// batch that was submitted comes back once, by [`Effect::Finished`]. After [`Input::Close`] it is done when
/// [`Writer::is_idle`].
#[derive(Debug)]
pub struct Writer {
    settings: Settings,
    state: State,
    /// In the order in which they were submitted.
    queue: VecDeque<Waiting>,
    /// Of all batches that are not finished.
    bytes: usize,
    /// Writes that failed, one after another.
    failures: u32,
    /// Accounts that were told of by [`Effect::Contradicts`].
    told: BTreeSet<AccountId>,
    /// Rows of the next group: few after one that was refused, because of a large one most would have
    /// been written in vain; doubled with each that commits.
    group_rows: usize,
    is_closed: bool,
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
            failures: 0,
            told: BTreeSet::new(),
            is_closed: false,
            counters: Counters::default(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// `now_ms` is monotonic. `lines` are those of the node, which only this takes some of.
    pub fn apply(
        &mut self,
        input: Input,
        now_ms: u64,
        lines: &mut Lines,
        effects: &mut Vec<Effect>,
    ) {
        match input {
            Input::Submit(batch) => self.submit(batch, now_ms, effects),
            Input::Done { work, result } => self.done(work, result, now_ms, effects),
            Input::Tick => {}
            Input::Close => self.is_closed = true,
        }
        self.give_up_overdue(now_ms, lines, effects);
        self.write_next(now_ms, lines, effects);
        let dropped = lines.take_dropped();
        self.counters.add(Counter::PresenceDropped, dropped);
    }

    /// When [`Input::Tick`] is due; monotonic milliseconds.
    pub fn next_deadline(&self, lines: &Lines) -> Option<u64> {
        let has_queue = !self.queue.is_empty() || !lines.is_empty();
        let (resting, write_ms) = match &self.state {
            State::Writing => (None, None),
            State::Ready => (None, self.lines_due_at_ms(lines)),
            State::Resting { work, until_ms } => {
                let has_work = work.is_some() || has_queue;
                (work.as_ref(), has_work.then_some(*until_ms))
            }
        };
        let oldest = resting
            .and_then(|work| work.batches.first())
            .or(self.queue.front());
        let give_up_ms = oldest.map(|it| it.submitted_ms + self.settings.keep_ms_max);
        write_ms.into_iter().chain(give_up_ms).min()
    }

    /// Nothing waits and nothing is being written. What rests after a failure waits, too, though
    /// it may be lines of `sessions` alone, which are not counted in bytes.
    pub fn is_idle(&self, lines: &Lines) -> bool {
        let is_at_rest = match &self.state {
            State::Ready => true,
            State::Writing => false,
            State::Resting { work, .. } => work.is_none(),
        };
        is_at_rest && self.bytes == 0 && lines.is_empty()
    }

    /// Bytes of batches that wait or are being written.
    pub fn queue_bytes(&self) -> usize {
        self.bytes
    }

    /// What it keeps, by name, for whoever checks that all of it is bounded.
    pub fn held(&self, lines: &Lines) -> [(&'static str, usize); 4] {
        [
            ("batches", self.queue.len()),
            ("batch_bytes", self.bytes),
            ("presence", lines.len()),
            ("contradicting_told", self.told.len()),
        ]
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn submit(&mut self, batch: Batch, now_ms: u64, effects: &mut Vec<Effect>) {
        let waiting = Waiting {
            bytes: batch.bytes(),
            batch,
            submitted_ms: now_ms,
        };
        let bytes = self.bytes + waiting.bytes;
        // A batch that is larger than the whole queue may have it alone.
        let is_full = bytes > self.settings.queue_bytes_max && self.bytes > 0;
        self.bytes = bytes;
        match is_full {
            true => self.give_up(waiting, effects),
            false => self.queue.push_back(waiting),
        }
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
                if let Some(Part::Whole(_)) = work.parts.pop() {
                    let doubled = self.group_rows.saturating_mul(2);
                    self.group_rows = doubled.min(self.settings.group_rows_max);
                }
                self.go_on(work, effects);
            }
            WriteResult::Refused { .. } => {
                self.counters.count(Counter::WriteRefused);
                match work.parts.last() {
                    Some(Part::Whole(_)) => self.keep_first(&mut work),
                    Some(Part::Lines(_)) => {
                        if !work.halve() {
                            self.counters.count(Counter::PresenceDropped);
                            work.parts.pop();
                        }
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

    fn write_next(&mut self, now_ms: u64, lines: &mut Lines, effects: &mut Vec<Effect>) {
        let kept = match &mut self.state {
            State::Writing => return,
            State::Resting { until_ms, .. } if now_ms < *until_ms => return,
            State::Resting { work, .. } => work.take(),
            State::Ready => None,
        };
        match kept.or_else(|| self.group(now_ms, lines)) {
            Some(work) => {
                self.state = State::Writing;
                effects.push(Effect::Write(work));
            }
            None => self.state = State::Ready,
        }
    }

    /// What waits, as much as goes into one transaction.
    fn group(&mut self, now_ms: u64, lines: &mut Lines) -> Option<Work> {
        let are_lines_due = self.lines_due_at_ms(lines).is_some_and(|ms| ms <= now_ms);
        if self.queue.is_empty() && !are_lines_due {
            return None;
        }
        let mut work = Work {
            batches: vec![],
            parts: vec![Part::Whole(lines.take(self.settings.group_rows_max))],
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

    fn lines_due_at_ms(&self, lines: &Lines) -> Option<u64> {
        let due_ms = lines.due_at_ms()?;
        Some(if self.is_closed { 0 } else { due_ms })
    }

    /// A work at the store cannot be called back; everything else that is too old is given up.
    fn give_up_overdue(&mut self, now_ms: u64, lines: &mut Lines, effects: &mut Vec<Effect>) {
        let keep_ms_max = self.settings.keep_ms_max;
        let is_overdue = |it: &Waiting| now_ms >= it.submitted_ms + keep_ms_max;

        if let State::Resting { work, .. } = &mut self.state
            && let Some(stale) = work.take_if(|work| work.batches.first().is_some_and(is_overdue))
        {
            let (batches, unwritten) = stale.into_unwritten();
            lines.put_back(unwritten);
            self.put_back(batches);
        }
        while let Some(waiting) = self.queue.pop_front_if(|it| is_overdue(it)) {
            self.give_up(waiting, effects);
        }
    }

    /// Batches that were at the store wait again, at the head of the queue. The parts of their work are forgotten:
    /// what is still worth it is tried as a whole.
    fn put_back(&mut self, batches: Vec<Waiting>) {
        for waiting in batches.into_iter().rev() {
            self.queue.push_front(waiting);
        }
    }

    /// The devices will send it again.
    fn give_up(&mut self, waiting: Waiting, effects: &mut Vec<Effect>) {
        self.counters.count(Counter::BatchOverloaded);
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
