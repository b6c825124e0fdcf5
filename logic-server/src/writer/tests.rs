//! The writer against a store that fails in every way it knows.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use common::epoch::Epoch;
use common::ids::AccountId;
use protocols::rcu::code::CloseReason;

use super::*;
use crate::ids::ShardIndex;
use crate::presence::{EndReason, WAIT_MS};

/// A batch of rows with these sequence numbers, each with its number for a payload.
fn batch(id: u64, seqs: impl IntoIterator<Item = i64>) -> Batch {
    let mut batch = Batch::new(ShardIndex(0));
    batch.id = id;
    for seq in seqs {
        let start = batch.arena.len() as u32;
        batch.arena.extend_from_slice(&seq.to_le_bytes());
        batch.rows.push(Row {
            account_id: AccountId(1),
            seq,
            recorded_at_ms: seq,
            received_at_ms: 0,
            payload: start..start + 8,
            kind: 99,
            flaw: None,
            may_be_there: false,
        });
    }
    batch
}

fn attached(account: i64) -> Presence {
    Presence::Attached {
        account_id: AccountId(account),
        epoch: Epoch::at_ms(1),
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
        at_ms: 0,
    }
}

fn ended(account: i64) -> Presence {
    Presence::Ended {
        account_id: AccountId(account),
        epoch: Epoch::at_ms(1),
        at_ms: 1,
        reason: EndReason::Closed(CloseReason::Idle),
    }
}

/// What one write asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wrote {
    seqs: Vec<i64>,
    is_careful: bool,
    presence: Vec<Presence>,
}

fn look(work: &Work) -> Wrote {
    for (row, payload) in work.rows() {
        assert_eq!(payload, row.seq.to_le_bytes());
    }
    Wrote {
        seqs: work.rows().map(|(row, _)| row.seq).collect(),
        is_careful: work.is_careful(),
        presence: work.presence().to_vec(),
    }
}

/// A writer, its store in the test's hand, and what it said so far.
struct Bench {
    writer: Writer,
    lines: Lines,
    now_ms: u64,
    at_store: Option<Work>,
    finished: Vec<(u64, BatchOutcome)>,
    /// Of the finished batches.
    contradicting: Vec<(AccountId, u64)>,
    told: Vec<(AccountId, u64)>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self {
            writer: Writer::new(settings, 7),
            lines: Lines::new(1_000),
            now_ms: 0,
            at_store: None,
            finished: vec![],
            contradicting: vec![],
            told: vec![],
        }
    }

    fn apply(&mut self, input: Input) {
        let mut effects = vec![];
        self.writer
            .apply(input, self.now_ms, &mut self.lines, &mut effects);
        for effect in effects {
            match effect {
                Effect::Write(work) => {
                    assert!(self.at_store.is_none(), "one write at a time");
                    self.at_store = Some(work);
                }
                Effect::Finished { batch, outcome } => {
                    self.contradicting.extend(batch.contradicting);
                    self.finished.push((batch.id, outcome));
                }
                Effect::Contradicts {
                    account_id,
                    records,
                } => self.told.push((account_id, records)),
            }
        }
    }

    fn submit(&mut self, batch: Batch) {
        self.apply(Input::Submit(batch));
    }

    fn tell(&mut self, lines: impl IntoIterator<Item = Presence>) {
        for line in lines {
            if self.lines.push(line, self.now_ms) {
                self.apply(Input::Tick);
            }
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        self.writer.next_deadline(&self.lines)
    }

    fn is_idle(&self) -> bool {
        self.writer.is_idle(&self.lines)
    }

    /// What is at the store; the test says what became of it.
    fn done(&mut self, result: WriteResult) -> Wrote {
        let work = self.at_store.take().expect("a write is under way");
        let wrote = look(&work);
        self.apply(Input::Done { work, result });
        wrote
    }

    fn refuse(&mut self) -> Wrote {
        self.done(WriteResult::Refused { why: "no".into() })
    }

    /// Lets time pass until a write is under way or nothing is left to do.
    fn wait(&mut self) {
        while self.at_store.is_none() {
            let Some(at_ms) = self.next_deadline() else {
                return;
            };
            self.now_ms = self.now_ms.max(at_ms);
            self.apply(Input::Tick);
        }
    }
}

const COMMITTED: WriteResult = WriteResult::Committed(Written::refusing(0));

const OVERLOADED: BatchOutcome = BatchOutcome::Overloaded {
    retry_after_ms: 2_000,
};

#[test]
fn what_comes_during_a_write_goes_into_the_next() {
    let mut bench = Bench::new(Settings::default());
    for id in 0..4 {
        bench.submit(batch(id, [id as i64]));
    }
    assert_eq!(bench.done(COMMITTED).seqs, [0]);
    assert_eq!(bench.done(COMMITTED).seqs, [1, 2, 3]);
    let stored = [0, 1, 2, 3].map(|id| (id, BatchOutcome::Stored));
    assert_eq!(bench.finished, stored);
    assert!(bench.is_idle());
    assert_eq!(bench.writer.queue_bytes(), 0);
}

#[test]
fn lines_of_sessions_go_with_a_batch_and_after_a_while_alone() {
    let mut bench = Bench::new(Settings::default());
    bench.tell([attached(1)]);
    assert_eq!(bench.next_deadline(), Some(WAIT_MS));
    bench.now_ms = WAIT_MS - 1;
    bench.submit(batch(0, [1]));
    let first = bench.done(COMMITTED);
    assert_eq!((first.seqs, first.presence), (vec![1], vec![attached(1)]));

    bench.tell([ended(1)]);
    bench.wait();
    assert_eq!(bench.now_ms, 2 * WAIT_MS - 1);
    assert_eq!(bench.done(COMMITTED).presence, [ended(1)]);
    assert!(bench.is_idle());
}

#[test]
fn when_nothing_more_will_come_lines_of_sessions_wait_for_nothing() {
    let mut bench = Bench::new(Settings::default());
    bench.tell([ended(1)]);
    bench.apply(Input::Close);
    assert_eq!(bench.done(COMMITTED).presence, [ended(1)]);
    assert!(bench.is_idle());
}

/// Found by the fuzz target `writer`: a node that shut down then left without them.
#[test]
fn lines_of_sessions_that_wait_for_a_retry_keep_the_writer_from_being_idle() {
    let mut bench = Bench::new(Settings::default());
    bench.tell([ended(1)]);
    assert!(!bench.is_idle());
    bench.wait();
    let lines = bench.done(WriteResult::Failed);
    assert_eq!((lines.seqs.len(), lines.presence), (0, vec![ended(1)]));
    assert!(!bench.is_idle());
    bench.wait();
    assert_eq!(bench.done(COMMITTED).presence, [ended(1)]);
    assert!(bench.is_idle());
}

#[test]
fn what_was_written_with_an_unknown_outcome_may_be_there() {
    let mut bench = Bench::new(Settings::default());
    bench.submit(batch(1, [1, 2]));
    bench.submit(batch(2, [3]));
    let doubted = |bench: &Bench| {
        let rows = bench.at_store.as_ref().unwrap().rows();
        rows.map(|(row, _)| row.may_be_there).collect::<Vec<_>>()
    };
    assert_eq!(doubted(&bench), [false, false]);
    bench.done(WriteResult::Failed);
    bench.wait();
    assert_eq!(doubted(&bench), [true, true]);
    bench.done(COMMITTED);
    assert_eq!(doubted(&bench), [false], "it waited, and was never written");
}

#[test]
fn a_group_ends_before_the_batch_that_is_too_much() {
    let mut bench = Bench::new(Settings {
        group_rows_max: 5,
        ..Settings::default()
    });
    bench.submit(batch(0, 0..1));
    for id in 1..4 {
        bench.submit(batch(id, 0..3));
    }
    bench.submit(batch(4, 0..9));
    for rows in [1, 3, 3, 3, 9] {
        assert_eq!(bench.done(COMMITTED).seqs.len(), rows);
    }
}

#[test]
fn a_failed_write_is_repeated_until_it_is_committed() {
    let mut bench = Bench::new(Settings::default());
    bench.submit(batch(0, [1, 2]));
    let mut last_ms = 0;
    for wait_ms in [25..=50, 50..=100, 100..=200, 200..=400] {
        assert_eq!(bench.done(WriteResult::Failed).seqs, [1, 2]);
        bench.wait();
        assert!(wait_ms.contains(&(bench.now_ms - last_ms)), "{wait_ms:?}");
        last_ms = bench.now_ms;
    }
    bench.done(COMMITTED);
    assert_eq!(bench.finished, [(0, BatchOutcome::Stored)]);
}

#[test]
fn who_contradicts_himself_is_counted_told_of_once_and_told_to_his_session() {
    let mut bench = Bench::new(Settings::default());
    let account = batch(0, 0..1).rows[0].account_id;
    let mut again = |alike, contradicts| {
        bench.submit(batch(0, 0..4));
        bench.done(WriteResult::Committed(Written {
            refused: 0,
            alike,
            contradicting: [(account, contradicts)].into(),
            uncompared: None,
        }));
    };
    again(1, 2);
    again(0, 3);
    assert_eq!(bench.told, [(account, 2)]);
    assert_eq!(bench.contradicting, [(account, 2), (account, 3)]);
    let counted = |counter| bench.writer.counters().of(counter);
    assert_eq!(counted(Counter::RecordsStored), 2);
    assert_eq!(counted(Counter::RecordsRepeated), 1);
    assert_eq!(counted(Counter::RecordsContradicting), 5);
}

#[test]
fn no_more_than_so_many_are_told_of() {
    let mut bench = Bench::new(Settings::default());
    let accounts = 1..=CONTRADICTING_TOLD_MAX as i64 + 1;
    bench.submit(batch(0, 0..4_000));
    bench.done(WriteResult::Committed(Written {
        refused: 0,
        alike: 0,
        contradicting: accounts.map(|id| (AccountId(id), 1)).collect(),
        uncompared: None,
    }));
    assert_eq!(bench.told.len(), CONTRADICTING_TOLD_MAX);
}

#[test]
fn a_refused_work_is_written_carefully_and_the_refused_records_are_counted() {
    let mut bench = Bench::new(Settings::default());
    bench.tell([attached(1)]);
    bench.submit(batch(0, 0..4));
    let whole = bench.refuse();
    assert!(!whole.is_careful);
    let lines = bench.done(COMMITTED);
    assert!(!lines.is_careful && lines.seqs.is_empty());
    assert_eq!(lines.presence, [attached(1)]);
    assert_eq!(bench.finished, []);
    let rows = bench.done(WriteResult::Committed(Written::refusing(2)));
    assert!(rows.is_careful && rows.presence.is_empty());
    assert_eq!(rows.seqs, [0, 1, 2, 3]);
    assert_eq!(bench.finished, [(0, BatchOutcome::Stored)]);
    assert_eq!(bench.writer.counters().of(Counter::RecordsRefused), 2);
}

#[test]
fn a_careful_write_has_no_more_rows_than_the_limit() {
    let mut bench = Bench::new(Settings {
        careful_rows_max: 4,
        ..Settings::default()
    });
    bench.submit(batch(0, 0..10));
    bench.refuse();
    for seqs in [0..4, 4..8, 8..10] {
        assert_eq!(bench.finished, []);
        let part = bench.done(WriteResult::Committed(Written::refusing(1)));
        assert!(part.is_careful);
        assert_eq!(part.seqs, Vec::from_iter(seqs));
    }
    assert_eq!(bench.finished, [(0, BatchOutcome::Stored)]);
    assert_eq!(bench.writer.counters().of(Counter::RecordsRefused), 3);
}

/// Its rows may be too many for the deadline of a write where nearly each is refused.
#[test]
fn a_careful_write_that_fails_is_halved_until_each_row_is_alone() {
    let mut bench = Bench::new(Settings::default());
    bench.submit(batch(0, 0..4));
    bench.refuse();
    let fail = |bench: &mut Bench| {
        let wrote = bench.done(WriteResult::Failed);
        bench.wait();
        assert!(wrote.is_careful);
        wrote.seqs
    };
    assert_eq!(fail(&mut bench), [0, 1, 2, 3]);
    assert_eq!(fail(&mut bench), [0, 1]);
    assert_eq!(fail(&mut bench), [0]);
    for seqs in [vec![0], vec![1], vec![2, 3]] {
        assert_eq!(bench.finished, []);
        assert_eq!(bench.done(COMMITTED).seqs, seqs);
    }
    assert_eq!(bench.finished, [(0, BatchOutcome::Stored)]);
}

#[test]
fn a_work_that_is_tried_as_a_whole_is_not_divided_by_a_failure() {
    let mut bench = Bench::new(Settings::default());
    bench.tell([attached(1), ended(1)]);
    bench.submit(batch(0, 0..4));
    let whole = bench.done(WriteResult::Failed);
    bench.wait();
    assert_eq!(bench.refuse(), whole);
    assert_eq!(bench.done(COMMITTED).presence, whole.presence);
    assert_eq!(bench.done(COMMITTED).seqs, whole.seqs);
}

#[test]
fn a_line_that_is_refused_is_given_up_alone_and_the_records_are_not() {
    let mut bench = Bench::new(Settings::default());
    bench.tell([attached(1), attached(2), attached(3), ended(1)]);
    bench.submit(batch(0, [5]));
    let (mut written, mut transactions) = (vec![], 0);
    while bench.finished.is_empty() {
        transactions += 1;
        let work = look(bench.at_store.as_ref().unwrap());
        match work.presence.contains(&attached(2)) {
            true => bench.refuse(),
            false => {
                written.extend(work.presence);
                bench.done(COMMITTED)
            }
        };
    }
    assert_eq!(written, [attached(1), attached(3), ended(1)]);
    assert_eq!(bench.finished, [(0, BatchOutcome::Stored)]);
    assert_eq!(bench.writer.counters().of(Counter::PresenceDropped), 1);
    // The whole, four, two, each of them, the other two; and the record.
    assert_eq!(transactions, 7);
}

#[test]
fn what_cannot_even_be_set_aside_is_not_acknowledged() {
    let mut bench = Bench::new(Settings::default());
    bench.submit(batch(0, [5, 6]));
    bench.refuse();
    while bench.finished.is_empty() {
        assert!(bench.now_ms < 20_000);
        assert!(bench.refuse().is_careful);
        bench.wait();
    }
    assert_eq!(bench.finished, [(0, OVERLOADED)]);
}

#[test]
fn beyond_the_time_a_batch_is_given_up_and_its_sessions_are_written_later() {
    let mut bench = Bench::new(Settings::default());
    bench.tell([attached(1)]);
    bench.submit(batch(0, [1]));
    bench.now_ms = 15_000;
    bench.tell([ended(1)]);
    bench.submit(batch(1, [2]));
    bench.now_ms = 20_000;
    bench.done(WriteResult::Failed);
    assert_eq!(bench.finished, [(0, OVERLOADED)]);

    bench.wait();
    let wrote = bench.done(COMMITTED);
    assert_eq!(wrote.seqs, [2]);
    assert_eq!(wrote.presence, [attached(1), ended(1)]);
    assert!(bench.is_idle());
}

#[test]
fn a_batch_waits_no_longer_though_the_store_hangs() {
    let mut bench = Bench::new(Settings::default());
    bench.submit(batch(0, [1]));
    bench.submit(batch(1, [2]));
    assert_eq!(bench.next_deadline(), Some(20_000));
    bench.now_ms = 20_000;
    bench.apply(Input::Tick);
    assert_eq!(bench.finished, [(1, OVERLOADED)]);
    // What is at the store may still be committed, and then it is.
    bench.now_ms = 60_000;
    bench.done(COMMITTED);
    assert_eq!(bench.finished[1], (0, BatchOutcome::Stored));
}

#[test]
fn beyond_the_bytes_a_batch_is_given_up_at_once() {
    let one = batch(0, 0..10).bytes();
    let mut bench = Bench::new(Settings {
        queue_bytes_max: 3 * one,
        ..Settings::default()
    });
    for id in 0..5 {
        bench.submit(batch(id, 0..10));
    }
    assert_eq!(bench.finished, [(3, OVERLOADED), (4, OVERLOADED)]);
    assert_eq!(bench.writer.queue_bytes(), 3 * one);

    let mut large = Bench::new(Settings {
        queue_bytes_max: 1,
        ..Settings::default()
    });
    large.submit(batch(0, 0..10));
    large.done(COMMITTED);
    assert_eq!(large.finished, [(0, BatchOutcome::Stored)]);
}

/// Found by the simulated cluster: a large group with some refused records took so long to be
/// written that no device waited for its answers any more.
#[test]
fn of_a_refused_group_the_first_batches_are_written_and_answered_before_the_others() {
    let mut bench = Bench::new(Settings {
        careful_rows_max: 4,
        ..Settings::default()
    });
    bench.submit(batch(100, [100]));
    for id in 0..10_u64 {
        let first = 2 * id as i64;
        bench.submit(batch(id, first..first + 2));
    }
    bench.done(COMMITTED);
    assert_eq!(bench.refuse().seqs.len(), 20);
    assert_eq!(bench.done(COMMITTED).seqs, [0, 1, 2, 3]);
    let stored = |id| (id, BatchOutcome::Stored);
    assert_eq!(bench.finished, [100, 0, 1].map(stored));

    // The groups that follow are small, and grow with each that commits.
    assert_eq!(bench.done(COMMITTED).seqs, [4, 5, 6, 7]);
    assert_eq!(bench.done(COMMITTED).seqs, Vec::from_iter(8..16));
    assert_eq!(bench.refuse().seqs, [16, 17, 18, 19]);
    assert!(bench.done(COMMITTED).is_careful);
    assert_eq!(bench.finished.len(), 11);
    for id in 10..13_u64 {
        bench.submit(batch(id, [0, 1, 2]));
    }
    for rows in [3, 6] {
        let group = bench.done(COMMITTED);
        assert_eq!((group.seqs.len(), group.is_careful), (rows, false));
    }
}

#[test]
fn a_batch_beyond_the_limit_is_kept_alone() {
    let mut bench = Bench::new(Settings {
        careful_rows_max: 2,
        ..Settings::default()
    });
    bench.submit(batch(0, [0]));
    bench.submit(batch(1, 1..4));
    bench.submit(batch(2, [4]));
    bench.done(COMMITTED);
    assert_eq!(bench.refuse().seqs, [1, 2, 3, 4]);
    assert_eq!(bench.done(COMMITTED).seqs, [1, 2]);
    assert_eq!(bench.done(COMMITTED).seqs, [3]);
    let stored = |id| (id, BatchOutcome::Stored);
    assert_eq!(bench.finished, [0, 1].map(stored));
    assert_eq!(bench.done(COMMITTED).seqs, [4]);
}

/// What comes back is older than what came while it was at the store.
#[test]
fn lines_of_sessions_stay_in_order_around_a_work_that_is_given_up() {
    let mut bench = Bench::new(Settings::default());
    bench.tell([attached(0), attached(1)]);
    bench.submit(batch(0, [0]));
    bench.tell([ended(0), ended(1)]);
    bench.now_ms = 20_000;
    bench.done(WriteResult::Failed);
    assert_eq!(bench.finished, [(0, OVERLOADED)]);
    bench.wait();
    let all = [attached(0), attached(1), ended(0), ended(1)];
    assert_eq!(bench.done(COMMITTED).presence, all);
    assert!(bench.is_idle());
}

/// They are not tried again with the batches that come back.
#[test]
fn lines_of_sessions_that_are_written_are_so_whatever_becomes_of_the_rows() {
    let mut bench = Bench::new(Settings::default());
    bench.tell([attached(1)]);
    bench.submit(batch(0, [0, 1]));
    bench.refuse();
    assert_eq!(bench.done(COMMITTED).presence, [attached(1)]);
    bench.now_ms = 20_000;
    bench.done(WriteResult::Failed);
    assert_eq!(bench.finished, [(0, OVERLOADED)]);
    assert!(bench.is_idle());
}

/// A fleet of which every record is refused, at a database that manages few of them in time.
#[test]
fn every_batch_is_stored_though_every_record_is_refused() {
    let mut bench = Bench::new(Settings::default());
    for id in 0..20 {
        bench.submit(batch(id, 0..50));
    }
    while let Some(work) = &bench.at_store {
        let refused = work.rows_len() as u64;
        match (work.is_careful(), refused) {
            (false, _) => bench.refuse(),
            (true, 50..) => bench.done(WriteResult::Failed),
            (true, _) => bench.done(WriteResult::Committed(Written::refusing(refused))),
        };
        bench.wait();
    }
    assert_eq!(bench.finished.len(), 20);
    let is_stored = |(_, outcome): &(u64, BatchOutcome)| *outcome == BatchOutcome::Stored;
    assert!(bench.finished.iter().all(is_stored), "{:?}", bench.finished);
    assert_eq!(bench.writer.counters().of(Counter::RecordsRefused), 1_000);
}

#[test]
fn lines_of_sessions_are_kept_within_bounds_also_those_that_come_back() {
    let mut bench = Bench::new(Settings::default());
    bench.lines = Lines::new(2);
    bench.tell([attached(1), attached(2)]);
    bench.submit(batch(0, [0]));
    bench.tell([attached(3), attached(4), attached(5)]);
    bench.now_ms = 20_000;
    bench.done(WriteResult::Failed);
    bench.wait();
    assert_eq!(bench.done(COMMITTED).presence, [attached(4), attached(5)]);
    assert_eq!(bench.writer.counters().of(Counter::PresenceDropped), 3);
    assert!(bench.is_idle());
}

/// The store of the model: rows and lines that are durable, and records that it refuses.
#[derive(Default)]
struct Store {
    rows: BTreeSet<i64>,
    dead: BTreeSet<i64>,
    poison: BTreeSet<i64>,
    presence: Vec<Presence>,
}

impl Store {
    /// How many of the rows it refuses.
    fn refused(&self, wrote: &Wrote) -> u64 {
        let is_refused = |seq: &&i64| self.poison.contains(seq);
        wrote.seqs.iter().filter(is_refused).count() as u64
    }

    fn commit(&mut self, wrote: &Wrote) {
        for seq in &wrote.seqs {
            match self.poison.contains(seq) {
                true => self.dead.insert(*seq),
                false => self.rows.insert(*seq),
            };
        }
        self.presence.extend(&wrote.presence);
    }

    /// Lines of each session, in the order in which they were first written.
    fn lines(&self, account: i64) -> Vec<Presence> {
        let mut lines = vec![];
        for line in &self.presence {
            let (Presence::Attached { account_id, .. } | Presence::Ended { account_id, .. }) = line;
            if *account_id == AccountId(account) && !lines.contains(line) {
                lines.push(*line);
            }
        }
        lines
    }
}

/// Random batches against a store that commits, fails, fails after the commit, refuses, hangs, or
/// manages few refused records in time.
/// Whatever happens, a batch that is said to be stored is; every batch is finished once; when the
/// faults stop, everything is.
fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut store = Store::default();
    let mut bench = Bench::new(Settings {
        group_rows_max: rng.random_range(1..40),
        careful_rows_max: rng.random_range(1..20),
        queue_bytes_max: rng.random_range(100..20_000),
        keep_ms_max: rng.random_range(50..5_000),
        ..Settings::default()
    });
    let mut seqs_of = BTreeMap::new();
    let (mut next_seq, mut account) = (0, 0);
    let (mut checked, mut largest) = (0, 0);
    let queue_bytes_max = bench.writer.settings.queue_bytes_max;
    let careful_rows_max = bench.writer.settings.careful_rows_max;
    let poison = if rng.random_bool(0.1) { 0.9 } else { 0.02 };
    let (refused_in_time, mut told) = (rng.random_range(1..5), 0);

    for step in 0..400 {
        let faults_are_over = step >= 300;
        if !faults_are_over && rng.random_bool(0.5) {
            let id = seqs_of.len() as u64;
            let seqs = next_seq..next_seq + rng.random_range(0..12);
            next_seq = seqs.end;
            store
                .poison
                .extend(seqs.clone().filter(|_| rng.random_bool(poison)));
            let batch = batch(id, seqs.clone());
            account += 1;
            bench.tell([attached(account)]);
            if account > 1 {
                bench.tell([ended(account - 1)]);
            }
            seqs_of.insert(id, seqs);
            largest = largest.max(batch.bytes());
            bench.submit(batch);
        } else if bench.at_store.is_some() {
            let wrote = look(bench.at_store.as_ref().unwrap());
            assert!(!wrote.is_careful || wrote.seqs.len() <= careful_rows_max);
            let refused = store.refused(&wrote);
            let fate = rng.random_range(0..10);
            if refused > 0 && !wrote.is_careful {
                bench.refuse();
            } else if refused <= refused_in_time && (faults_are_over || fate < 6) {
                store.commit(&wrote);
                told += refused;
                bench.done(WriteResult::Committed(Written::refusing(refused)));
            } else {
                // The outcome of a COMMIT may be unknown.
                if fate == 6 {
                    store.commit(&wrote);
                }
                bench.done(WriteResult::Failed);
            }
        } else {
            bench.now_ms += rng.random_range(0..2_000);
            bench.apply(Input::Tick);
        }

        for (id, outcome) in &bench.finished[checked..] {
            if *outcome == BatchOutcome::Stored {
                for seq in seqs_of[id].clone() {
                    let is_kept = store.rows.contains(&seq) || store.dead.contains(&seq);
                    assert!(is_kept, "{seq} of batch {id} was said to be stored");
                }
            }
        }
        checked = bench.finished.len();
        assert!(bench.writer.queue_bytes() <= queue_bytes_max.max(largest));
    }
    bench.wait();
    while bench.at_store.is_some() {
        let wrote = look(bench.at_store.as_ref().unwrap());
        let refused = store.refused(&wrote);
        if refused > 0 && !wrote.is_careful {
            bench.refuse();
        } else if refused > refused_in_time {
            bench.done(WriteResult::Failed);
        } else {
            store.commit(&wrote);
            told += refused;
            bench.done(WriteResult::Committed(Written::refusing(refused)));
        }
        bench.wait();
    }

    assert!(bench.is_idle());
    assert_eq!(bench.writer.queue_bytes(), 0);
    let finished: BTreeSet<_> = bench.finished.iter().map(|(id, _)| *id).collect();
    assert_eq!(
        finished.len(),
        bench.finished.len(),
        "a batch is finished once"
    );
    assert!(
        finished.iter().eq(seqs_of.keys()),
        "every batch is finished"
    );
    assert_eq!(bench.writer.counters().of(Counter::RecordsRefused), told);
    for account in 1..account {
        let expected = [attached(account), ended(account)];
        assert_eq!(store.lines(account), expected, "session of {account}");
    }
}

#[test]
fn stored_is_never_said_of_what_is_not() {
    for seed in 0..500 {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}
