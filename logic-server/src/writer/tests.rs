//! The writer against a store that fails in every way it knows.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use common::device::code::CloseReason;
use common::epoch::Epoch;
use common::ids::AccountId;

use super::*;
use crate::batch::EndReason;
use crate::ids::ShardIndex;

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
    set_aside: Option<(i64, String)>,
    presence: Vec<Presence>,
}

fn look(work: &Work) -> Wrote {
    for (row, payload) in work.rows() {
        assert_eq!(payload, row.seq.to_le_bytes());
    }
    Wrote {
        seqs: work.rows().map(|(row, _)| row.seq).collect(),
        set_aside: work
            .set_aside()
            .map(|(row, _, reason)| (row.seq, reason.into())),
        presence: work.presence().copied().collect(),
    }
}

/// A writer, its store in the test's hand, and what it said so far.
struct Bench {
    writer: Writer,
    now_ms: u64,
    at_store: Option<Work>,
    finished: Vec<(u64, BatchOutcome)>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self {
            writer: Writer::new(settings, 7),
            now_ms: 0,
            at_store: None,
            finished: vec![],
        }
    }

    fn apply(&mut self, input: Input) {
        let mut effects = vec![];
        self.writer.apply(input, self.now_ms, &mut effects);
        for effect in effects {
            match effect {
                Effect::Write(work) => {
                    assert!(self.at_store.is_none(), "one write at a time");
                    self.at_store = Some(work);
                }
                Effect::Finished { batch, outcome } => self.finished.push((batch.id, outcome)),
            }
        }
    }

    fn submit(&mut self, batch: Batch) {
        self.apply(Input::Submit(batch));
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
            let Some(at_ms) = self.writer.next_deadline() else {
                return;
            };
            self.now_ms = self.now_ms.max(at_ms);
            self.apply(Input::Tick);
        }
    }
}

const OVERLOADED: BatchOutcome = BatchOutcome::Overloaded {
    retry_after_ms: 2_000,
};

#[test]
fn what_comes_during_a_write_goes_into_the_next() {
    let mut bench = Bench::new(Settings::default());
    for id in 0..4 {
        bench.submit(batch(id, [id as i64]));
    }
    assert_eq!(bench.done(WriteResult::Committed).seqs, [0]);
    assert_eq!(bench.done(WriteResult::Committed).seqs, [1, 2, 3]);
    let stored = [0, 1, 2, 3].map(|id| (id, BatchOutcome::Stored));
    assert_eq!(bench.finished, stored);
    assert!(bench.writer.is_idle());
    assert_eq!(bench.writer.queue_bytes(), 0);
}

/// Found by the fuzz target `writer`: a node that shut down then left without them.
#[test]
fn lines_of_sessions_that_wait_for_a_retry_keep_the_writer_from_being_idle() {
    let mut bench = Bench::new(Settings {
        keep_ms_max: 0,
        ..Settings::default()
    });
    // What the store did not take in time leaves its lines behind; they are tried alone.
    let mut given_up = batch(0, [1]);
    given_up.presence.push(ended(1));
    bench.submit(given_up);
    assert_eq!(bench.finished, [(0, OVERLOADED)]);
    let lines = bench.done(WriteResult::Failed);
    assert_eq!((lines.seqs.len(), lines.presence), (0, vec![ended(1)]));
    assert!(!bench.writer.is_idle());
    bench.wait();
    assert_eq!(bench.done(WriteResult::Committed).presence, [ended(1)]);
    assert!(bench.writer.is_idle());
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
        assert_eq!(bench.done(WriteResult::Committed).seqs.len(), rows);
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
    bench.done(WriteResult::Committed);
    assert_eq!(bench.finished, [(0, BatchOutcome::Stored)]);
}

#[test]
fn a_refused_record_is_found_and_set_aside_and_the_rest_is_stored() {
    let mut bench = Bench::new(Settings::default());
    let mut first = batch(0, 0..4);
    first.presence.push(attached(1));
    bench.submit(first);
    let (mut stored, mut set_aside, mut presence) = (vec![], vec![], vec![]);
    while let Some(work) = &bench.at_store {
        let wrote = look(work);
        if wrote.seqs.contains(&2) {
            bench.refuse();
        } else {
            stored.extend(wrote.seqs);
            set_aside.extend(wrote.set_aside);
            presence.extend(wrote.presence);
            bench.done(WriteResult::Committed);
        }
    }
    stored.sort_unstable();
    assert_eq!(stored, [0, 1, 3]);
    assert_eq!(set_aside, [(2, "refused by the database: no".to_owned())]);
    assert_eq!(presence, [attached(1)]);
    assert_eq!(bench.finished, [(0, BatchOutcome::Stored)]);
    assert_eq!(bench.writer.counters().of(Counter::RecordsRefused), 1);
}

#[test]
fn lines_of_sessions_that_are_refused_are_given_up_and_the_records_are_not() {
    let mut bench = Bench::new(Settings::default());
    let mut first = batch(0, [5]);
    first.presence.push(attached(1));
    bench.submit(first);
    assert_eq!(bench.refuse().seqs, [5]);
    assert_eq!(bench.refuse().presence, [attached(1)]);
    let last = bench.done(WriteResult::Committed);
    assert_eq!((last.seqs, last.presence), (vec![5], vec![]));
    assert_eq!(bench.finished, [(0, BatchOutcome::Stored)]);
    assert_eq!(bench.writer.counters().of(Counter::PresenceDropped), 1);
}

#[test]
fn what_cannot_even_be_set_aside_is_not_acknowledged() {
    let mut bench = Bench::new(Settings::default());
    bench.submit(batch(0, [5]));
    bench.refuse();
    while bench.finished.is_empty() {
        assert_eq!(bench.refuse().seqs, [0; 0]);
        bench.wait();
    }
    assert_eq!(bench.finished, [(0, OVERLOADED)]);
}

#[test]
fn beyond_the_time_a_batch_is_given_up_and_its_sessions_are_written_later() {
    let mut bench = Bench::new(Settings::default());
    let mut first = batch(0, [1]);
    first.presence.push(attached(1));
    bench.submit(first);
    bench.now_ms = 15_000;
    let mut second = batch(1, [2]);
    second.presence.push(ended(1));
    bench.submit(second);
    bench.now_ms = 20_000;
    bench.done(WriteResult::Failed);
    assert_eq!(bench.finished, [(0, OVERLOADED)]);

    bench.wait();
    let wrote = bench.done(WriteResult::Committed);
    assert_eq!(wrote.seqs, [2]);
    assert_eq!(wrote.presence, [attached(1), ended(1)]);
    assert!(bench.writer.is_idle());
}

#[test]
fn a_batch_waits_no_longer_though_the_store_hangs() {
    let mut bench = Bench::new(Settings::default());
    bench.submit(batch(0, [1]));
    bench.submit(batch(1, [2]));
    assert_eq!(bench.writer.next_deadline(), Some(20_000));
    bench.now_ms = 20_000;
    bench.apply(Input::Tick);
    assert_eq!(bench.finished, [(1, OVERLOADED)]);
    // What is at the store may still be committed, and then it is.
    bench.now_ms = 60_000;
    bench.done(WriteResult::Committed);
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
    large.done(WriteResult::Committed);
    assert_eq!(large.finished, [(0, BatchOutcome::Stored)]);
}

/// Found by the simulated cluster: a large group with some refused records took so long to split
/// that no device waited for its answers any more.
#[test]
fn of_a_refused_group_the_batches_around_the_record_are_answered_first() {
    let mut bench = Bench::new(Settings::default());
    for id in 0..=4 {
        bench.submit(batch(id, [id as i64]));
    }
    bench.done(WriteResult::Committed);
    bench.refuse();
    bench.done(WriteResult::Committed);
    let stored = |id| (id, BatchOutcome::Stored);
    assert_eq!(bench.finished, [0, 1, 2].map(stored));
}

#[test]
fn lines_of_sessions_are_kept_within_bounds() {
    let mut bench = Bench::new(Settings {
        presence_max: 2,
        keep_ms_max: 10,
        ..Settings::default()
    });
    bench.submit(batch(0, [0]));
    for account in 1..=5 {
        let mut batch = batch(account as u64, [account]);
        batch.presence.push(attached(account));
        bench.submit(batch);
    }
    bench.now_ms = 10;
    bench.apply(Input::Tick);
    bench.done(WriteResult::Committed);
    let kept = bench.done(WriteResult::Committed);
    assert_eq!(kept.presence, [attached(4), attached(5)]);
    assert_eq!(bench.writer.counters().of(Counter::PresenceDropped), 3);
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
    fn commit(&mut self, wrote: &Wrote) {
        self.rows.extend(&wrote.seqs);
        self.dead.extend(wrote.set_aside.iter().map(|(seq, _)| seq));
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

/// Random batches against a store that commits, fails, fails after the commit, refuses or hangs.
/// Whatever happens, a batch that is said to be stored is; every batch is finished once; when the
/// faults stop, everything is.
fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut store = Store::default();
    let mut bench = Bench::new(Settings {
        group_rows_max: rng.random_range(1..40),
        queue_bytes_max: rng.random_range(100..20_000),
        keep_ms_max: rng.random_range(50..5_000),
        ..Settings::default()
    });
    let mut seqs_of = BTreeMap::new();
    let (mut next_seq, mut account) = (0, 0);
    let (mut checked, mut largest) = (0, 0);
    let queue_bytes_max = bench.writer.settings.queue_bytes_max;

    for step in 0..400 {
        let faults_are_over = step >= 300;
        if !faults_are_over && rng.random_bool(0.5) {
            let id = seqs_of.len() as u64;
            let seqs = next_seq..next_seq + rng.random_range(0..12);
            next_seq = seqs.end;
            store
                .poison
                .extend(seqs.clone().filter(|_| rng.random_bool(0.02)));
            let mut batch = batch(id, seqs.clone());
            account += 1;
            batch.presence.push(attached(account));
            if account > 1 {
                batch.presence.push(ended(account - 1));
            }
            seqs_of.insert(id, seqs);
            largest = largest.max(batch.bytes());
            bench.submit(batch);
        } else if bench.at_store.is_some() {
            let wrote = look(bench.at_store.as_ref().unwrap());
            let is_poisoned = wrote.seqs.iter().any(|seq| store.poison.contains(seq));
            let fate = rng.random_range(0..10);
            if is_poisoned {
                bench.refuse();
            } else if faults_are_over || fate < 6 {
                store.commit(&wrote);
                bench.done(WriteResult::Committed);
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
        if wrote.seqs.iter().any(|seq| store.poison.contains(seq)) {
            bench.refuse();
        } else {
            store.commit(&wrote);
            bench.done(WriteResult::Committed);
        }
        bench.wait();
    }

    assert!(bench.writer.is_idle());
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
    assert!(store.dead.is_subset(&store.poison));
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
