//! A sequence of operations on the writer: batches, a store that commits, fails, fails after the
//! commit, and refuses poisoned records, time, and more batches than there is room for.
//!
//! The store is a set of rows. Held against it: a batch is finished once; `Stored` means that every
//! row of it is there, or in dead_letter because the store refuses it (P1); what is written carefully is
//! bounded; lines of `sessions` keep their order; what waits is bounded, in bytes and in time (P6).

use std::collections::{BTreeMap, BTreeSet};

use common::epoch::Epoch;
use common::ids::AccountId;
use logic_server::batch::{Ack, Batch, BatchOutcome, Row};
use logic_server::counters::{Counter, Counters};
use logic_server::ids::{SessionId, ShardIndex, Slot};
use logic_server::presence::{EndReason, Lines, Presence};
use logic_server::writer::{Effect, Input, Settings, Work, WriteResult, Writer, Written};
use protocols::rcu::code::CloseReason;

use crate::choices::Choices;

pub fn writer(data: &[u8]) {
    run(data);
}

/// The same; tells what the writer counted.
pub fn run(data: &[u8]) -> Counters {
    let mut choices = Choices::new(data);
    let mut model = Model::new(&mut choices);
    while choices.next_step() {
        model.step(&mut choices);
        model.check();
    }
    model.settle();
    model.writer.counters().clone()
}

struct Submitted {
    /// Sequence numbers of its rows, which no other batch has.
    seqs: Vec<i64>,
    bytes: usize,
    at_ms: u64,
}

struct Model {
    writer: Writer,
    waiting: Lines,
    lines_max: usize,
    settings: Settings,
    now_ms: u64,
    unfinished: BTreeMap<u64, Submitted>,
    /// At the store.
    work: Option<Work>,
    /// What the store will never take.
    poison: BTreeSet<i64>,
    /// With their payloads.
    rows: BTreeMap<i64, Vec<u8>>,
    dead_letter: BTreeMap<i64, Vec<u8>>,
    /// What the writer was told of all rows together, and new ones beside it.
    told: Written,
    new: u64,
    /// Rows that contradict others, as finished batches have it.
    handed_on: u64,
    /// That the one account contradicts itself.
    is_told: bool,
    /// Lines of `sessions` submitted, by number from 1 on, and those in the store.
    lines: i64,
    written: BTreeSet<i64>,
    last_batch: u64,
    last_seq: i64,
}

impl Model {
    fn new(choices: &mut Choices<'_>) -> Self {
        let settings = Settings {
            group_rows_max: choices.pick(&[8, 1, 100]),
            careful_rows_max: choices.pick(&[4, 1, 100]),
            queue_bytes_max: choices.pick(&[2_000, 1, 100_000]),
            keep_ms_max: choices.pick(&[1_000, 0, 20_000]),
            retry_ms_min: choices.pick(&[50, 1]),
            retry_ms_max: choices.pick(&[400, 1]),
            overload_retry_ms: 2_000,
        };
        let lines_max = choices.pick(&[1_000, 2, 0]);
        Self {
            writer: Writer::new(settings.clone(), 1),
            waiting: Lines::new(lines_max),
            lines_max,
            settings,
            now_ms: 1_000_000,
            unfinished: BTreeMap::new(),
            work: None,
            poison: BTreeSet::new(),
            rows: BTreeMap::new(),
            dead_letter: BTreeMap::new(),
            told: Written::default(),
            new: 0,
            handed_on: 0,
            is_told: false,
            lines: 0,
            written: BTreeSet::new(),
            last_batch: 0,
            last_seq: 0,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(8) {
            0..3 => self.submit(choices),
            3..7 if self.work.is_some() => match choices.below(8) {
                0 => self.done(WriteResult::Failed),
                // The COMMIT was sent, and nobody heard of it.
                1 => {
                    if self.is_taken() {
                        self.store();
                    }
                    self.done(WriteResult::Failed);
                }
                // Whatever it is, even what is written carefully.
                2 if choices.once_in(4) => self.done(refused()),
                _ => self.work_off(),
            },
            _ => {
                self.now_ms += u64::from(choices.u16()) % choices.pick(&[40, 500, 30_000]);
                self.apply(Input::Tick);
            }
        }
    }

    fn submit(&mut self, choices: &mut Choices<'_>) {
        let mut batch = Batch {
            id: self.last_batch + 1,
            shard: ShardIndex(0),
            rows: vec![],
            arena: vec![],
            acks: vec![],
            contradicting: BTreeMap::new(),
            opened_at_ms: self.now_ms,
        };
        self.last_batch += 1;
        let rows = choices.pick(&[1, 0, 2, 5, 9]);
        for _ in 0..rows {
            let (mut seq, mut payload) = (self.last_seq + 1, self.last_seq + 1);
            match choices.below(16) {
                0 | 1 => drop(self.poison.insert(seq)),
                // An earlier one once more, or its number alone.
                2 if seq > 1 => (seq, payload) = (seq - 1, seq - 1),
                3 if seq > 1 => seq -= 1,
                _ => {}
            }
            self.last_seq = self.last_seq.max(seq);
            let start = batch.arena.len() as u32;
            batch.arena.extend(payload.to_le_bytes());
            batch.rows.push(Row {
                account_id: AccountId(1),
                seq,
                recorded_at_ms: 0,
                received_at_ms: 0,
                payload: start..batch.arena.len() as u32,
                kind: 200,
                flaw: None,
                may_be_there: false,
            });
        }
        batch.acks.push(Ack {
            session: SessionId(1),
            slot: Slot(0),
            base_seq: 0,
            frame_id: 1,
            count: rows,
        });
        let lines = choices.below(3).max(u32::from(rows == 0));
        for _ in 0..lines {
            self.lines += 1;
            let line = Presence::Ended {
                account_id: AccountId(self.lines),
                epoch: Epoch::ZERO,
                at_ms: 0,
                reason: EndReason::Closed(CloseReason::Idle),
            };
            if self.waiting.push(line, self.now_ms) {
                self.apply(Input::Tick);
            }
        }
        if rows == 0 {
            return;
        }
        let submitted = Submitted {
            seqs: batch.rows.iter().map(|row| row.seq).collect(),
            bytes: batch.bytes(),
            at_ms: self.now_ms,
        };
        self.unfinished.insert(batch.id, submitted);
        self.apply(Input::Submit(batch));
    }

    /// Whether a store that works would commit it.
    fn is_taken(&self) -> bool {
        let work = self.work.as_ref().unwrap();
        work.is_careful() || !work.rows().any(|(row, _)| self.poison.contains(&row.seq))
    }

    fn work_off(&mut self) {
        let result = match self.is_taken() {
            true => WriteResult::Committed(self.store()),
            false => refused(),
        };
        self.done(result);
    }

    /// Puts into the store what the work holds now.
    fn store(&mut self) -> Written {
        let work = self.work.as_ref().unwrap();
        let mut written = Written::default();
        for (row, payload) in work.rows() {
            let table = if self.poison.contains(&row.seq) {
                assert!(work.is_careful());
                written.refused += 1;
                &mut self.dead_letter
            } else {
                &mut self.rows
            };
            match table.get(&row.seq) {
                None => drop(table.insert(row.seq, payload.to_vec())),
                Some(kept) if kept == payload => written.alike += 1,
                Some(_) => *written.contradicting.entry(row.account_id).or_default() += 1,
            }
        }
        for line in work.presence() {
            let Presence::Ended { account_id, .. } = line else {
                panic!("{line:?}");
            };
            let newest = self.written.last().copied().unwrap_or(0);
            assert!(
                self.written.contains(&account_id.0) || account_id.0 > newest,
                "line {account_id} after {newest}"
            );
            self.written.insert(account_id.0);
        }
        written
    }

    fn done(&mut self, result: WriteResult) {
        let work = self.work.take().unwrap();
        if let WriteResult::Committed(written) = &result {
            let contradicts: u64 = written.contradicting.values().sum();
            self.new += work.rows_len() as u64 - written.alike - contradicts;
            self.told.refused += written.refused;
            self.told.alike += written.alike;
            for (&account_id, rows) in &written.contradicting {
                *self.told.contradicting.entry(account_id).or_default() += rows;
            }
        }
        self.apply(Input::Done { work, result });
    }

    fn apply(&mut self, input: Input) {
        let mut effects = vec![];
        self.writer
            .apply(input, self.now_ms, &mut self.waiting, &mut effects);
        for effect in effects {
            match effect {
                Effect::Write(work) => {
                    let rows = work.rows().count();
                    assert!(rows + work.presence().len() > 0, "nothing to write");
                    assert_eq!(rows, work.rows_len());
                    let careful_rows_max = self.settings.careful_rows_max;
                    assert!(!work.is_careful() || (1..=careful_rows_max).contains(&rows));
                    assert!(self.work.replace(work).is_none(), "one at a time");
                }
                Effect::Finished { batch, outcome } => self.finished(&batch, outcome),
                Effect::Contradicts { .. } => {
                    assert!(!self.is_told, "an account is told of once");
                    self.is_told = true;
                }
            }
        }
    }

    fn finished(&mut self, batch: &Batch, outcome: BatchOutcome) {
        let submitted = self.unfinished.remove(&batch.id).expect("finished once");
        let seqs: Vec<_> = batch.rows.iter().map(|row| row.seq).collect();
        assert_eq!(seqs, submitted.seqs);
        assert_eq!(batch.acks.len(), 1);
        self.handed_on += batch.contradicting.values().sum::<u64>();
        match outcome {
            BatchOutcome::Stored => {
                for seq in seqs {
                    let is_there =
                        self.rows.contains_key(&seq) || self.dead_letter.contains_key(&seq);
                    assert!(is_there, "{seq} was called stored");
                }
            }
            BatchOutcome::Overloaded { retry_after_ms } => assert_eq!(retry_after_ms, 2_000),
        }
    }

    fn check(&self) {
        let bytes: usize = self.unfinished.values().map(|it| it.bytes).sum();
        assert_eq!(self.writer.queue_bytes(), bytes);
        let is_bounded = bytes <= self.settings.queue_bytes_max || self.unfinished.len() == 1;
        assert!(is_bounded, "{bytes} bytes wait");
        assert!(self.waiting.len() <= self.lines_max);
        let counters = self.writer.counters();
        let contradicts: u64 = self.told.contradicting.values().sum();
        for (counter, expected) in [
            (Counter::RecordsStored, self.new),
            (Counter::RecordsRefused, self.told.refused),
            (Counter::RecordsRepeated, self.told.alike),
            (Counter::RecordsContradicting, contradicts),
        ] {
            assert_eq!(counters.of(counter), expected, "{}", counter.name());
        }
        assert_eq!(self.is_told, contradicts > 0);
        assert!(self.handed_on <= contradicts);
        let next = self.writer.next_deadline(&self.waiting);
        if self.work.is_none() {
            let oldest = self.unfinished.values().map(|it| it.at_ms).min();
            let give_up_ms = oldest.map(|at_ms| at_ms + self.settings.keep_ms_max);
            assert!(
                give_up_ms.is_none_or(|it| it > self.now_ms),
                "kept too long"
            );
            assert!(give_up_ms.is_none_or(|it| next.is_some_and(|next| next <= it)));
        }
        assert!(
            next.is_none_or(|next| next > self.now_ms),
            "{next:?}: a tick in vain"
        );
        if self.writer.is_idle(&self.waiting) {
            assert!(self.unfinished.is_empty() && self.work.is_none());
            assert_eq!(self.handed_on, contradicts, "a session is not told");
            let dropped = self.writer.counters().of(Counter::PresenceDropped);
            // One that was written by a COMMIT of unknown outcome may be dropped as well.
            let lost = self.lines as u64 - self.written.len() as u64;
            assert!(lost <= dropped, "{lost} lines lost, {dropped} counted");
        }
    }

    /// With a store that works everything comes to an end.
    fn settle(&mut self) {
        self.apply(Input::Close);
        for _ in 0..10_000 {
            if self.writer.is_idle(&self.waiting) {
                return self.check();
            }
            match self.work {
                Some(_) => self.work_off(),
                None => {
                    let next = self
                        .writer
                        .next_deadline(&self.waiting)
                        .expect("something waits");
                    self.now_ms = self.now_ms.max(next);
                    self.apply(Input::Tick);
                }
            }
            self.check();
        }
        panic!("it never comes to rest");
    }
}

fn refused() -> WriteResult {
    let why = "poison".into();
    WriteResult::Refused { why }
}
