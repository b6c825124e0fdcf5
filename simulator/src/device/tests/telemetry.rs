//! Pure. Records from the report to their acknowledgement.

use records::RawRecord;

use super::*;

/// Sequence number, time, kind.
fn records(frame: &Sent) -> Vec<(u64, u64, u8)> {
    let FromDevice::Telemetry(telemetry) = frame.message() else {
        panic!("{frame:?}");
    };
    telemetry
        .records()
        .map(
            |RawRecord {
                 seq,
                 recorded_at_ms,
                 kind,
                 ..
             }| (seq, recorded_at_ms, kind),
        )
        .collect()
}

const SEQ: u64 = 3 << 32;

#[test]
fn a_report_is_sent_as_it_arises_and_forgotten_when_it_is_stored() {
    let mut bench = Bench::new();
    bench.reach_session();
    bench.pass(50);
    bench.report(&[1, 2, 3]);
    let frame = bench.take_sent();
    let at_ms = UNIX_MS + 50;
    assert_eq!(
        records(&frame),
        [(SEQ, at_ms, 1), (SEQ + 1, at_ms, 2), (SEQ + 2, at_ms, 3)]
    );
    assert_eq!(bench.device.unacknowledged(), 3);
    let firsts = bench
        .events
        .iter()
        .filter(|event| matches!(event, Event::FirstSent(_)));
    assert_eq!(firsts.count(), 3);
    bench.pass(20);
    bench.ack(&frame, AckStatus::Stored, 0);
    assert!(bench.told(Event::FrameAnswered {
        base_seq: SEQ,
        count: 3,
        status: AckStatus::Stored,
        after_ms: 20
    }));
    assert_eq!(bench.device.unacknowledged(), 0);
}

#[test]
fn what_is_malformed_is_not_sent_again() {
    let mut bench = Bench::new();
    bench.reach_session();
    bench.report(&[1]);
    let frame = bench.take_sent();
    bench.ack(&frame, AckStatus::Malformed, 0);
    assert_eq!(bench.device.unacknowledged(), 0);
    bench.pass(59_000);
    bench
        .sent
        .retain(|sent| sent.message() != FromDevice::Heartbeat);
    assert!(bench.sent.is_empty());
}

#[test]
fn no_more_frames_are_open_than_the_window_allows() {
    for (window, open) in [(0, 1), (1, 1), (2, 2), (5, 5)] {
        let mut bench = Bench::new();
        bench.reach_session_with(Terms { window, ..TERMS });
        for _ in 0..8 {
            bench.report(&[1]);
        }
        let frames = std::mem::take(&mut bench.sent);
        assert_eq!(frames.len(), open);
        // A free place takes everything that waited, in one frame; out of order is fine.
        bench.ack(&frames[open - 1], AckStatus::Stored, 0);
        assert_eq!(records(&bench.take_sent()).len(), 8 - open);
    }
}

#[test]
fn ids_of_open_questions_are_not_used_again() {
    let mut bench = Bench::new();
    bench.reach_session();
    bench.report(&[1]);
    let open = bench.take_sent();
    for _ in 0..70_000 {
        bench.report(&[1]);
        let frame = bench.take_sent();
        assert!(frame.id != 0 && frame.id != open.id);
        bench.ack(&frame, AckStatus::Stored, 0);
        bench.events.clear();
    }
}

#[test]
fn acknowledgements_are_matched_by_id_and_must_fit_their_frame() {
    let mut bench = Bench::new();
    bench.reach_session();
    bench.report(&[1]);
    let frame = bench.take_sent();
    let right = TelemetryAck {
        base_seq: SEQ,
        count: 1,
        status: AckStatus::Stored,
        retry_after_ms: 0,
    };
    for (id, ack) in [
        (frame.id + 1, right),
        (frame.id, TelemetryAck { count: 2, ..right }),
        (
            frame.id,
            TelemetryAck {
                base_seq: SEQ + 1,
                ..right
            },
        ),
    ] {
        bench.say(id, FromCluster::TelemetryAck(ack));
        assert_eq!(bench.device.unacknowledged(), 1);
    }
    bench.say(frame.id, FromCluster::TelemetryAck(right));
    assert_eq!(bench.device.unacknowledged(), 0);
}

#[test]
fn after_a_lost_connection_everything_unacknowledged_is_sent_again_as_it_was() {
    let mut bench = Bench::new();
    bench.reach_session_with(Terms { window: 8, ..TERMS });
    let mut sent = vec![];
    for kinds in [&[1, 2][..], &[3], &[4, 1, 2]] {
        bench.pass(700);
        bench.report(kinds);
        sent.push(bench.take_sent());
    }
    bench.ack(&sent[1], AckStatus::Stored, 0);
    bench.events.clear();
    bench.lose();
    bench.expect_wait(Wait::Backoff, 0);
    // The clock is set meanwhile; times of records that were sent are fixed.
    let unix_ms = Some(UNIX_MS - 50_000);
    bench.apply(Input::ClockSet { unix_ms });
    bench.back_to_session();
    let again: Vec<_> = bench.sent.iter().flat_map(records).collect();
    let expected: Vec<_> = records(&sent[0])
        .into_iter()
        .chain(records(&sent[2]))
        .collect();
    assert_eq!(again, expected);
    let firsts = |event: &Event| matches!(event, Event::FirstSent(_));
    assert!(!bench.events.iter().any(firsts));
}

#[test]
fn a_gap_an_older_record_and_a_far_one_begin_a_new_frame() {
    let mut bench = Bench::new();
    bench.report(&[1]);
    bench.apply(Input::ClockSet {
        unix_ms: Some(UNIX_MS - 5_000),
    });
    bench.report(&[2]);
    bench.apply(Input::ClockSet {
        unix_ms: Some(UNIX_MS + (1 << 33)),
    });
    bench.report(&[3]);
    bench.reach_session_with(Terms { window: 8, ..TERMS });
    let frames: Vec<_> = bench.sent.iter().map(|sent| records(sent).len()).collect();
    assert_eq!(frames, [1, 1, 1]);
}

#[test]
fn a_frame_holds_255_records_and_16_kilobytes() {
    let mut bench = Bench::new();
    bench.report(&[1; 300]);
    let payload = [9; 255];
    let measurement = Measurement {
        kind: 200,
        payload: &payload,
    };
    bench.apply(Input::Report {
        measurements: &[measurement; 100],
    });
    bench.reach_session_with(Terms { window: 8, ..TERMS });
    let frames: Vec<_> = bench.sent.iter().map(|sent| records(sent).len()).collect();
    assert_eq!(frames[0], 255);
    assert_eq!(frames.iter().sum::<usize>(), 400);
    assert!(bench.sent.iter().all(|sent| sent.body.len() <= 16_384));
}

#[test]
fn records_from_before_the_time_was_known_get_it_computed_back() {
    let mut bench = Bench::new();
    bench.apply(Input::ClockSet { unix_ms: None });
    bench.report(&[1]);
    bench.pass(400);
    bench.report(&[2]);
    bench.pass(600);
    bench.apply(Input::ClockSet {
        unix_ms: Some(UNIX_MS),
    });
    bench.reach_session();
    assert_eq!(
        records(&bench.take_sent()),
        [(SEQ, UNIX_MS - 1_000, 1), (SEQ + 1, UNIX_MS - 600, 2)]
    );
}

#[test]
fn a_time_that_was_computed_back_is_fixed_by_the_first_sending() {
    let mut bench = Bench::new();
    bench.apply(Input::ClockSet { unix_ms: None });
    bench.report(&[1]);
    let unix_ms = Some(UNIX_MS);
    bench.apply(Input::ClockSet { unix_ms });
    bench.reach_session();
    let first = bench.take_sent();
    let unix_ms = Some(UNIX_MS + 60_000);
    bench.apply(Input::ClockSet { unix_ms });
    bench.lose();
    bench.expect_wait(Wait::Backoff, 0);
    bench.back_to_session();
    assert_eq!(bench.take_sent().body, first.body);
}

#[test]
fn what_is_sent_again_goes_before_what_waits() {
    let mut bench = Bench::new();
    bench.reach_session_with(Terms { window: 1, ..TERMS });
    bench.report(&[1]);
    let first = bench.take_sent();
    bench.report(&[2]);
    bench.ack(&first, AckStatus::Overloaded, 100);
    bench.pass(100);
    let again = records(&bench.take_sent());
    let kinds: Vec<u8> = again.iter().map(|(_, _, kind)| *kind).collect();
    assert_eq!(kinds, [1, 2]);
}

#[test]
fn where_that_is_impossible_the_time_is_0_and_each_has_a_frame_of_its_own() {
    let mut bench = Bench::with(Settings {
        report_interval_ms: 0,
        battery_clock: false,
        ..Settings::default()
    });
    bench.apply(Input::PowerOn);
    bench.apply(Input::ClockSet { unix_ms: None });
    bench.report(&[1, 2]);
    bench.apply(Input::PowerCut);
    bench.apply(Input::ClockSet {
        unix_ms: Some(UNIX_MS),
    });
    bench.reach_session_with(Terms { window: 8, ..TERMS });
    let frames: Vec<_> = bench.sent.iter().flat_map(records).collect();
    assert_eq!(bench.sent.len(), 2);
    assert_eq!(frames, [(SEQ, 0, 1), (SEQ + 1, 0, 2)]);
    // And after a start the numbers are another boot's.
    bench.sent.clear();
    bench.report(&[3]);
    assert_eq!(records(&bench.take_sent())[0].0, 4 << 32);
}

#[test]
fn overloaded_waits_as_told_and_then_sends_the_same_again() {
    let mut bench = Bench::new();
    bench.reach_session_with(Terms { window: 8, ..TERMS });
    bench.report(&[1]);
    let first = bench.take_sent();
    bench.report(&[2]);
    let second = bench.take_sent();
    bench.ack(&first, AckStatus::Overloaded, 5_000);
    assert_eq!(bench.take_wait(), (Wait::Overloaded, 5_000));
    // Of several the latest end counts, also where the later answer names an earlier one.
    bench.ack(&second, AckStatus::Overloaded, 1_000);
    bench.report(&[3]);
    bench.pass(4_999);
    bench
        .sent
        .retain(|sent| sent.message() != FromDevice::Heartbeat);
    assert!(bench.sent.is_empty());
    bench.pass(1);
    bench
        .sent
        .retain(|sent| sent.message() != FromDevice::Heartbeat);
    let again = records(&bench.take_sent());
    assert_eq!(again.len(), 3);
    assert_eq!(again[..1], records(&first));
    assert_eq!(again[1..2], records(&second));
}

#[test]
fn heartbeats_go_on_while_telemetry_waits() {
    let mut bench = Bench::new();
    bench.reach_session();
    bench.report(&[1]);
    let frame = bench.take_sent();
    bench.ack(&frame, AckStatus::Overloaded, 3_000_000);
    bench.pass(120_000);
    assert!(bench.device.is_attached());
    assert_eq!(bench.sent.len(), 2);
}

#[test]
fn overloaded_without_a_wait_has_a_backoff_of_its_own_that_stored_resets() {
    let longest = |overloads: usize, stored: bool| {
        (0..200)
            .map(|seed| {
                let mut bench = Bench::seeded(Settings::default(), seed);
                bench.apply(Input::StopReporting);
                bench.reach_session_with(Terms {
                    heartbeat_s: 3_600,
                    ..TERMS
                });
                let overload = |bench: &mut Bench| {
                    if bench.device.unacknowledged() == 0 {
                        bench.report(&[1]);
                    }
                    bench
                        .sent
                        .retain(|sent| sent.message() != FromDevice::Heartbeat);
                    let frame = bench.take_sent();
                    bench.ack(&frame, AckStatus::Overloaded, 0);
                    let (_, ms) = bench.take_wait();
                    bench.pass(ms);
                    ms
                };
                for _ in 0..overloads {
                    overload(&mut bench);
                }
                if stored {
                    bench
                        .sent
                        .retain(|sent| sent.message() != FromDevice::Heartbeat);
                    let frame = bench.take_sent();
                    bench.ack(&frame, AckStatus::Stored, 0);
                }
                overload(&mut bench)
            })
            .max()
            .unwrap()
    };
    assert!((800..=1_000).contains(&longest(0, false)));
    assert!((6_400..=8_000).contains(&longest(3, false)));
    assert!(longest(3, true) <= 1_000);
}

#[test]
fn a_frame_that_is_not_answered_in_60_s_means_a_lost_connection() {
    let mut bench = Bench::new();
    bench.reach_session();
    bench.report(&[1]);
    bench.pass(59_999);
    assert!(bench.device.is_attached());
    bench.pass(1);
    let why = Fault::Unanswered;
    assert!(bench.events.contains(&Event::Ended { why }));
    assert_eq!(bench.device.unacknowledged(), 1);
}

#[test]
fn a_full_memory_makes_no_more_records_and_says_so() {
    let mut bench = Bench::with(Settings {
        report_interval_ms: 0,
        records_max: 5,
        ..Settings::default()
    });
    bench.report(&[1, 2, 3]);
    bench.report(&[1, 2, 3]);
    assert!(bench.told(Event::NotRecorded { count: 1 }));
    bench.reach_session();
    let frame = bench.take_sent();
    assert_eq!(records(&frame).len(), 5);
    bench.report(&[1]);
    assert!(bench.told(Event::NotRecorded { count: 1 }));
    bench.ack(&frame, AckStatus::Stored, 0);
    bench.report(&[1]);
    // No number was spent on what was not recorded.
    assert_eq!(records(&bench.take_sent())[0].0, SEQ + 5);
}

#[test]
fn it_measures_at_its_interval_with_some_jitter_until_it_is_stopped() {
    let mut bench = Bench::with(Settings::default());
    bench.apply(Input::PowerOn);
    bench.apply(Input::Resolved { addresses: &[] });
    bench.pass(500_000);
    assert!((95..=105).contains(&bench.measures), "{}", bench.measures);
    // For good: neither a start nor another interval begins it again.
    bench.apply(Input::StopReporting);
    bench.measures = 0;
    bench.pass(100_000);
    bench.apply(Input::PowerCut);
    bench.apply(Input::PowerOn);
    bench.pass(100_000);
    assert_eq!(bench.measures, 0);
}
