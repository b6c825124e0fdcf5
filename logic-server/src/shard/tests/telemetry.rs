//! Pure. Telemetry, its acks, and the batches between them.

use protocols::rcu::code::AckStatus;
use protocols::rcu::kind;
use protocols::rcu::telemetry::TelemetryAck;
use records::Flaw;

use super::bench::*;
use crate::batch::Flawed;
use crate::shard::*;

#[test]
fn stored_is_said_when_the_batch_comes_back_and_not_before() {
    let mut bench = Bench::attached(settings());
    bench.receive(0, &telemetry(4, 10, 3));
    bench.tick();
    assert_eq!(bench.batches.len(), 1);
    bench.pass(10_000);
    assert_eq!(bench.take_heard(), []);

    let batch = bench.batches.remove(0);
    assert_eq!(batch.shard, ShardIndex(3));
    assert_eq!(batch.rows.len(), 3);
    let outcome = BatchOutcome::Stored;
    bench.apply(Input::Finished { batch, outcome });
    assert_eq!(bench.take_heard(), [stored(4, 10, 3)]);
}

#[test]
fn a_row_is_what_the_device_sent_under_the_account_of_the_grant() {
    let mut bench = Bench::attached(settings());
    bench.now.unix_ms += 50;
    bench.receive(0, &telemetry(4, (1 << 63) - 2, 2));
    bench.tick();
    let batch = &bench.batches[0];
    for (row, seq) in batch.rows.iter().zip([i64::MAX - 1, i64::MAX]) {
        assert_eq!(row.account_id, AccountId(1_001));
        assert_eq!((row.seq, row.kind, row.flaw), (seq, 200, None));
        assert_eq!(row.recorded_at_ms, 1_767_225_600_001);
        assert_eq!(row.received_at_ms, 1_767_225_600_050);
        assert_eq!(batch.payload(row), (seq as u64).to_le_bytes());
    }
}

#[test]
fn what_a_session_sends_first_and_after_it_was_told_to_wait_may_be_a_repetition() {
    let settings = settings();
    let window = settings.window;
    let mut bench = Bench::attached(settings);
    let mut sent = 0;
    let mut repeats = |bench: &mut Bench, outcome| {
        sent += 1;
        bench.receive(0, &telemetry(sent, sent.into(), 2));
        bench.tick();
        let rows = &bench.batches[0].rows;
        let is_first = rows[0].may_be_there;
        assert_eq!(
            rows[1].may_be_there, is_first,
            "a frame is one or the other"
        );
        bench.finish(outcome);
        is_first
    };
    let stored = || BatchOutcome::Stored;
    for _ in 0..2 {
        for nth in 0..window {
            assert!(repeats(&mut bench, stored()), "frame {nth}");
        }
        for _ in 0..3 {
            assert!(!repeats(&mut bench, stored()), "it was never sent before");
        }
        let retry_after_ms = 1_000;
        repeats(&mut bench, BatchOutcome::Overloaded { retry_after_ms });
    }
}

#[test]
fn a_record_with_a_flaw_is_named_and_the_others_are_not() {
    let mut bench = Bench::attached(settings());
    let mut body = vec![0; 16];
    body.push(2);
    body.extend_from_slice(&[1, 3, 0, 0, 0, 0, 9, 9, 9]);
    body.extend_from_slice(&[5, 2, 0, 0, 0, 0, 1, 0]);
    bench.receive(0, &frame_of(kind::TELEMETRY, 9, &body));
    bench.tick();
    let flaws: Vec<_> = bench.batches[0].rows.iter().map(|row| row.flaw).collect();
    assert_eq!(flaws, [Some(Flaw::Length), None]);
    let explained = Explained {
        account_id: AccountId(1_001),
        what: Counter::RecordsFlawed,
        record: Some(Flawed {
            seq: 0,
            kind: 1,
            flaw: Flaw::Length,
        }),
    };
    assert_eq!(bench.explained, [explained]);
    bench.commit();
    assert_eq!(bench.take_heard(), [stored(9, 0, 2)]);
}

#[test]
fn a_frame_that_cannot_be_cut_is_malformed_at_once_and_takes_no_place() {
    let mut bench = Bench::attached(settings());
    for id in 1..=9 {
        let mut body = vec![3; 16];
        body.extend_from_slice(&[1, 200]);
        bench.receive(0, &frame_of(kind::TELEMETRY, id, &body));
        let ack = TelemetryAck {
            base_seq: 0x0303_0303_0303_0303,
            count: 1,
            status: AckStatus::Malformed,
            retry_after_ms: 0,
        };
        assert_eq!(bench.take_heard(), [Heard::Ack { id, ack }]);
    }
    bench.receive(0, &telemetry(10, 1, 1));
    bench.commit();
    assert_eq!(bench.take_heard(), [stored(10, 1, 1)]);
    assert_eq!(bench.shard.counters().of(Counter::TelemetryMalformed), 9);
}

#[test]
fn a_frame_beyond_the_window_is_overloaded_and_a_freed_place_takes_one() {
    let mut bench = Bench::attached(settings());
    for id in 1..=2 {
        bench.receive(0, &telemetry(id, id.into(), 1));
    }
    bench.receive(0, &telemetry(3, 3, 1));
    let heard = bench.take_heard();
    assert_eq!(heard.len(), 1);
    assert!((1_000..=2_000).contains(&overloaded_wait(&heard[0], 3)));
    // It is for the window to say, whatever is in the frame.
    bench.receive(0, &frame_of(kind::TELEMETRY, 4, &[0; 17]));
    overloaded_wait(&bench.take_heard()[0], 4);

    bench.commit();
    assert_eq!(bench.take_heard(), [stored(1, 1, 1), stored(2, 2, 1)]);
    bench.receive(0, &telemetry(5, 3, 1));
    bench.commit();
    assert_eq!(bench.take_heard(), [stored(5, 3, 1)]);
}

#[test]
fn three_windows_of_overloaded_in_a_row_end_the_connection() {
    let mut bench = Bench::attached(settings());
    let flood = |bench: &mut Bench, frames: u16| {
        for id in 1..=frames {
            bench.receive(0, &telemetry(id, id.into(), 1));
        }
    };
    // Two in the window, five beyond it; then places are freed, and the count begins again.
    flood(&mut bench, 7);
    bench.commit();
    flood(&mut bench, 7);
    assert_eq!(bench.closed, []);
    bench.heard.clear();
    bench.receive(0, &telemetry(8, 8, 1));
    let heard = bench.take_heard();
    overloaded_wait(&heard[0], 8);
    assert_eq!(heard[1], CLOSE_PROTOCOL_ERROR);
    assert_eq!(bench.closed, [Slot(0)]);
}

#[test]
fn what_the_store_cannot_take_is_overloaded_and_told_to_come_back_at_different_times() {
    let mut bench = Bench::new(settings());
    for slot in 0..20 {
        bench.adopt(slot, 1 + u64::from(slot));
        bench.receive(slot, &telemetry(1, 1, 1));
    }
    bench.heard.clear();
    bench.finish(BatchOutcome::Overloaded {
        retry_after_ms: 500,
    });
    let heard = bench.take_heard();
    let mut waits: Vec<_> = heard.iter().map(|it| overloaded_wait(it, 1)).collect();
    assert_eq!(waits.len(), 20);
    assert!(waits.iter().all(|wait_ms| (500..=1_000).contains(wait_ms)));
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 10, "{waits:?}");
    // The place is free again.
    bench.receive(0, &telemetry(2, 1, 1));
    bench.commit();
    assert_eq!(bench.take_heard(), [stored(2, 1, 1)]);
}

#[test]
fn a_batch_waits_for_the_one_before_it_or_for_its_age() {
    let mut bench = Bench::attached(Settings {
        window: 100,
        ..settings()
    });
    bench.receive(0, &telemetry(1, 1, 1));
    bench.receive(0, &telemetry(2, 2, 1));
    bench.tick();
    assert_eq!(bench.batches.len(), 1, "nothing is at the writer: at once");

    bench.receive(0, &telemetry(3, 3, 1));
    bench.pass(10);
    bench.receive(0, &telemetry(4, 4, 1));
    bench.pass(9);
    assert_eq!(bench.batches.len(), 1);
    assert_eq!(bench.shard.next_deadline(), Some(bench.now.ms + 1));
    bench.pass(1);
    assert_eq!(bench.batches.len(), 2, "20 ms after its first frame");

    bench.receive(0, &telemetry(5, 5, 1));
    bench.commit();
    assert_eq!(bench.take_heard().len(), 5);
}

#[test]
fn a_batch_is_full_by_rows_or_by_bytes_and_never_cuts_a_frame() {
    let mut bench = Bench::attached(Settings {
        window: 100,
        ..settings()
    });
    for id in 1..=3 {
        bench.receive(0, &telemetry(id, u64::from(id) * 1_000, 40));
    }
    assert_eq!(bench.batches.len(), 1);
    assert_eq!(bench.batches[0].rows.len(), 80);
    bench.receive(0, &telemetry(4, 9_000, 255));
    bench.receive(0, &telemetry(5, 10_000, 1));
    let rows: Vec<_> = bench.batches.iter().map(|it| it.rows.len()).collect();
    assert_eq!(rows, [80, 40, 255], "one that is too large goes alone");

    let mut bench = Bench::attached(Settings {
        batch: batch::Limits {
            rows_max: 1_000,
            bytes_max: 80,
            age_ms_max: 20,
        },
        ..settings()
    });
    bench.receive(0, &telemetry(1, 1, 10));
    assert_eq!(bench.batches.len(), 0);
    bench.receive(0, &telemetry(2, 11, 1));
    assert_eq!(bench.batches[0].arena.len(), 80);
}

#[test]
fn a_session_knows_how_many_of_its_records_contradicted_others() {
    let mut bench = Bench::attached(settings());
    for _ in 0..2 {
        bench.receive(0, &telemetry(4, 10, 3));
        bench.receive(0, &telemetry(5, 13, 3));
        bench.tick();
        let mut batch = bench.batches.remove(0);
        batch.contradicting = [(AccountId(1_001), 4), (AccountId(9), 1)].into();
        let outcome = BatchOutcome::Stored;
        bench.apply(Input::Finished { batch, outcome });
    }
    bench.ask(1, 4, Question::Look);
    let (_, look) = bench.take_look().expect("it is there");
    assert_eq!(look.contradicting, Some(8));
}
