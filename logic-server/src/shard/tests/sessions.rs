//! Pure. How sessions begin, what frames they bear, and how they end.

use common::link::message::{CommandAnswer, Message, Order, SessionLook, SessionState};
use common::secret::Secret;
use protocols::rcu::attach::{Attach, Challenge, Resume, ResumeProof};
use protocols::rcu::code::AttachStatus;
use protocols::rcu::frame::FRAME_BYTES_MAX;
use protocols::rcu::kind;

use super::bench::*;
use super::commands::order;
use crate::shard::*;
use crate::wheel::TICK_MS;

#[test]
fn attach_reply_comes_first_and_then_what_came_with_the_attach() {
    let mut bench = Bench::new(settings());
    let mut unread = heartbeat(5);
    unread.extend_from_slice(&telemetry(6, 1, 1)[..20]);
    bench.apply(Input::Adopt {
        slot: Slot(0),
        seed: seed(1),
        unread: &unread,
    });
    bench.receive(0, &telemetry(6, 1, 1)[20..]);
    bench.commit();
    assert_eq!(
        bench.take_heard(),
        [
            Heard::Attached { id: 77 },
            Heard::Heartbeat {
                id: 5,
                server_time_ms: 1_767_225_600_000
            },
            stored(6, 1, 1),
        ]
    );
}

#[test]
fn an_unknown_kind_is_ignored_and_counted_and_heard() {
    let mut bench = Bench::attached(settings());
    bench.pass(179_000);
    bench.receive(0, &frame_of(0x1F, 13, &[1, 2]));
    bench.receive(0, &frame_of(0x30, 0, &[]));
    bench.pass(179_000);
    assert_eq!(bench.take_heard(), []);
    assert_eq!(bench.closed, []);
    assert_eq!(bench.shard.counters().of(Counter::FrameUnknown), 2);
}

#[test]
fn a_frame_that_is_wrong_ends_the_connection_with_protocol_error() {
    let mut crc = heartbeat(1);
    crc[11] ^= 1;
    let mut version = heartbeat(1);
    version[2] = 2;
    let mut length = heartbeat(1);
    length[6..8].copy_from_slice(&16_385_u16.to_le_bytes());
    let attach = Attach::sign(Secret::new([1; 16]), &Secret::new([2; 32]));
    let mut wrong_state = vec![vec![]; 3];
    attach.encode(1, &mut wrong_state[0]);
    Resume { resumption: b"x" }.encode(1, &mut wrong_state[1]);
    ResumeProof::sign(Challenge([0; 16]), b"x", &Secret::new([2; 32]))
        .encode(1, &mut wrong_state[2]);

    let mut cases = vec![
        (b"GET / HTTP/1.1\r\n".to_vec(), Counter::FrameMagic),
        (version[..3].to_vec(), Counter::FrameVersion),
        (length, Counter::FrameLength),
        (crc, Counter::FrameCrc),
        (frame_of(kind::HEARTBEAT, 1, &[0]), Counter::FrameBody),
        (heartbeat(0), Counter::FrameBody),
        (frame_of(kind::TELEMETRY, 1, &[0; 16]), Counter::FrameBody),
        (
            frame_of(kind::COMMAND_REPLY, 1, &[0; 9]),
            Counter::FrameBody,
        ),
        (frame_of(kind::LOGIN, 1, &[]), Counter::FrameBody),
    ];
    cases.extend(wrong_state.into_iter().map(|it| (it, Counter::FrameState)));
    let of_cluster = [0x02, 0x04, 0x06, 0x08, 0x0A, 0x21, 0x2D, 0x2F];
    cases.extend(of_cluster.map(|kind| (frame_of(kind, 1, &[]), Counter::FrameState)));

    for (bytes, counter) in cases {
        let mut bench = Bench::attached(settings());
        // What came before it in the same segment counts.
        let mut stream = telemetry(1, 1, 1);
        stream.extend_from_slice(&bytes);
        stream.extend_from_slice(&heartbeat(2));
        bench.receive(0, &stream);
        assert_eq!(bench.take_heard(), [CLOSE_PROTOCOL_ERROR], "{bytes:x?}");
        assert_eq!(bench.closed, [Slot(0)]);
        assert_eq!(bench.shard.counters().of(counter), 1, "{}", counter.name());
        assert_eq!(bench.shard.counters().of(Counter::ClosedProtocolError), 1);
        let explained: Vec<_> = bench.explained.iter().map(|it| it.what).collect();
        assert_eq!(explained, [counter, Counter::ClosedProtocolError]);
        bench.receive(0, &heartbeat(3));
        bench.tick();
        assert_eq!(bench.batches[0].rows.len(), 1);
        bench.commit();
        assert_eq!(bench.take_heard(), [], "its ack finds nobody");
        assert_eq!(bench.shard.counters().of(Counter::AckDropped), 1);
    }
}

#[test]
fn the_longest_frame_passes_in_pieces_and_leaves_no_buffer() {
    let mut bench = Bench::attached(settings());
    let longest = frame_of(0x1F, 1, &vec![0; 16_384]);
    assert_eq!(longest.len(), FRAME_BYTES_MAX);
    for byte in &longest {
        bench.receive(0, &[*byte]);
    }
    assert_eq!(bench.closed, []);
    assert_eq!(bench.shard.counters().of(Counter::FrameUnknown), 1);
    assert!(!bench.shard.sessions.get(Slot(0)).unwrap().has_buffer());
}

#[test]
fn three_heartbeats_of_silence_end_the_session_and_half_a_frame_is_silence() {
    let mut bench = Bench::attached(settings());
    bench.pass(100_000);
    bench.receive(0, &heartbeat(1));
    bench.heard.clear();
    bench.pass(60_000);
    bench.receive(0, &heartbeat(2)[..11]);
    bench.pass(119_999);
    assert_eq!(bench.take_heard(), []);
    bench.pass(1 + TICK_MS);
    let close = Heard::Close {
        reason: CloseReason::Idle,
        retry_after_ms: 0,
    };
    assert_eq!(bench.take_heard(), [close]);
    assert_eq!(bench.shard.sessions(), 0);
    assert_eq!(bench.shard.next_deadline(), None);
}

#[test]
fn what_waits_to_be_read_is_no_silence() {
    let mut bench = Bench::attached(settings());
    let read_until_ms = bench.now.ms + 179_999;
    bench.now.ms += 200_000;
    for _ in 0..4 {
        bench.apply(Input::Tick { read_until_ms });
        assert_eq!(bench.closed, [], "nobody listened so long");
        let deadline_ms = bench.shard.next_deadline().expect("it is looked at again");
        assert!(deadline_ms <= bench.now.ms + 2 * TICK_MS);
        bench.now.ms += TICK_MS;
    }
    bench.receive(0, &heartbeat(1));
    bench.pass(179_999);
    assert_eq!(bench.closed, []);
    bench.pass(1 + TICK_MS);
    assert_eq!(bench.closed, [Slot(0)]);
}

#[test]
fn a_device_that_never_spoke_is_silent_since_attach_reply() {
    let mut bench = Bench::attached(settings());
    bench.pass(179_999);
    assert_eq!(bench.closed, []);
    bench.pass(1 + TICK_MS);
    assert_eq!(bench.closed, [Slot(0)]);
}

#[test]
fn every_end_is_told_to_the_gate_and_to_the_store() {
    let closed = |reason| (EndReason::Closed(reason), 1);
    let end = |session, reason| Input::End {
        session: SessionId(session),
        reason,
        retry_after_ms: 9,
    };
    let (slot, bytes) = (Slot(0), 65_537);
    for (input, (reason, closes), retry_after_ms) in [
        (
            Input::Disconnected { slot },
            (EndReason::Disconnected, 0),
            0,
        ),
        (
            end(1, CloseReason::Replaced),
            closed(CloseReason::Replaced),
            9,
        ),
        (
            end(1, CloseReason::Disabled),
            closed(CloseReason::Disabled),
            9,
        ),
        (
            end(1, CloseReason::CloneSuspected),
            closed(CloseReason::CloneSuspected),
            9,
        ),
        (
            Input::Unsent { slot, bytes },
            closed(CloseReason::SlowReader),
            0,
        ),
    ] {
        let mut bench = Bench::attached(settings());
        bench.apply(input);
        let ended = Ended {
            session: SessionId(1),
            account_id: AccountId(1_001),
            epoch: Epoch::at_ms(1),
            reason,
        };
        assert_eq!(bench.ended, [ended]);
        assert_eq!(bench.closed.len(), closes);
        if let EndReason::Closed(reason) = reason {
            let close = Heard::Close {
                reason,
                retry_after_ms,
            };
            assert_eq!(bench.take_heard(), [close]);
            assert_eq!(bench.shard.counters().of(Counter::closed(reason)), 1);
        } else {
            assert_eq!(bench.take_heard(), []);
        }
        let line = Presence::Ended {
            account_id: AccountId(1_001),
            epoch: Epoch::at_ms(1),
            at_ms: bench.now.unix_ms as i64,
            reason,
        };
        assert_eq!(bench.presence.last(), Some(&line));
    }
}

#[test]
fn output_up_to_the_high_water_mark_is_waited_for() {
    let mut bench = Bench::attached(settings());
    bench.apply(Input::Unsent {
        slot: Slot(0),
        bytes: 65_536,
    });
    assert_eq!(bench.closed, []);
}

#[test]
fn the_beginning_of_a_session_is_told_at_once() {
    let mut bench = Bench::new(settings());
    bench.adopt(0, 1);
    let line = Presence::Attached {
        account_id: AccountId(1_001),
        epoch: Epoch::at_ms(1),
        source: seed(1).source,
        at_ms: 1_767_225_600_005,
    };
    assert_eq!(bench.presence, [line]);
}

#[test]
fn a_session_that_is_over_leaves_no_timer() {
    let mut bench = Bench::attached(settings());
    assert!(bench.shard.next_deadline().is_some());
    bench.apply(Input::Disconnected { slot: Slot(0) });
    bench.pass(1_000_000);
    bench.commit();
    assert_eq!(bench.shard.next_deadline(), None);
    bench.adopt(0, 2);
    bench.apply(Input::Disconnected { slot: Slot(0) });
    bench.adopt(1, 3);
    let deadline = bench.now.ms + 180_000;
    assert_eq!(bench.shard.next_deadline(), Some(deadline));
}

#[test]
fn what_comes_late_for_an_old_session_does_not_reach_the_next_in_its_slot() {
    let mut bench = Bench::attached(settings());
    bench.receive(0, &telemetry(1, 1, 1));
    bench.tick();
    bench.receive(0, &telemetry(2, 2, 1)[..20]);
    bench.apply(Input::Disconnected { slot: Slot(0) });
    bench.adopt(0, 2);
    bench.heard.clear();

    let replaced = Input::End {
        session: SessionId(1),
        reason: CloseReason::Replaced,
        retry_after_ms: 0,
    };
    bench.apply(replaced);
    bench.command(1, 5, order(1, 0));
    bench.commit();
    assert_eq!(bench.take_heard(), []);
    assert_eq!(bench.take_answers(), [(5, CommandAnswer::NotAttached)]);
    // Its window is empty, its stream begins anew, and its time is its own.
    bench.receive(0, &telemetry(1, 7, 1));
    bench.receive(0, &telemetry(2, 8, 1));
    bench.commit();
    assert_eq!(bench.take_heard(), [stored(1, 7, 1), stored(2, 8, 1)]);
    bench.pass(179_000);
    assert_eq!(bench.closed, []);
}

#[test]
fn at_shutdown_what_was_taken_is_acknowledged_and_then_everybody_is_told() {
    let mut bench = Bench::new(settings());
    for slot in 0..10 {
        bench.adopt(slot, 1 + u64::from(slot));
    }
    bench.receive(0, &telemetry(1, 1, 1));
    bench.tick();
    bench.receive(0, &telemetry(2, 2, 1));
    bench.heard.clear();

    bench.apply(Input::Shutdown);
    bench.receive(1, &telemetry(3, 3, 1));
    bench.receive(1, &heartbeat(4));
    bench.adopt(99, 99);
    bench.tick();
    let heard = bench.take_heard();
    assert_eq!(heard.len(), 2, "no telemetry is taken any more");
    assert!(matches!(heard[0], Heard::Heartbeat { id: 4, .. }));
    assert!(matches!(
        heard[1],
        Heard::Turned {
            id: 77,
            status: AttachStatus::Draining,
            retry_after_ms: 1..=10_001
        }
    ));
    assert_eq!(bench.closed, [Slot(99)]);

    assert_eq!(bench.batches.len(), 2);
    let outcome = BatchOutcome::Stored;
    let batch = bench.batches.remove(0);
    bench.apply(Input::Finished { batch, outcome });
    bench.tick();
    assert_eq!(bench.take_heard(), [stored(1, 1, 1)]);
    assert_eq!(bench.closed.len(), 1, "a batch is still open");
    let batch = bench.batches.remove(0);
    bench.apply(Input::Finished { batch, outcome });
    bench.tick();

    let heard = bench.take_heard();
    assert_eq!(heard[0], stored(2, 2, 1));
    let waits: Vec<_> = heard[1..]
        .iter()
        .map(|it| match it {
            Heard::Close {
                reason: CloseReason::Shutdown,
                retry_after_ms,
            } => *retry_after_ms,
            other => panic!("{other:?}"),
        })
        .collect();
    let even: Vec<_> = (1..=10).map(|it| it * 1_000).collect();
    assert_eq!(waits, even);
    assert_eq!(bench.shard.sessions(), 0);
    assert!(bench.done);
    assert_eq!(bench.ended.len(), 11);
}

#[test]
fn a_shutdown_that_waits_for_the_store_in_vain_says_goodbye_all_the_same() {
    let mut bench = Bench::new(settings());
    bench.adopt(0, 1);
    bench.receive(0, &telemetry(1, 1, 1));
    bench.apply(Input::Shutdown);
    bench.tick();
    bench.take_heard();
    assert_eq!(bench.closed, []);

    bench.apply(Input::Abandon);
    bench.adopt(1, 2);
    bench.tick();
    let heard = bench.take_heard();
    let close = |heard: &Heard| {
        let reason = CloseReason::Shutdown;
        matches!(heard, Heard::Close { reason: it, retry_after_ms: 1.. } if *it == reason)
    };
    assert!(close(&heard[0]), "{heard:?}");
    assert!(matches!(heard[1], Heard::Turned { .. }), "{heard:?}");
    assert_eq!(bench.closed, [Slot(0), Slot(1)]);
    assert!(bench.done);
    bench.commit();
    assert_eq!(bench.take_heard(), [], "nothing is acknowledged any more");
}

#[test]
fn at_shutdown_devices_that_leave_by_themselves_keep_nobody_waiting() {
    let mut bench = Bench::new(settings());
    bench.adopt(0, 1);
    bench.adopt(1, 2);
    bench.commit();
    bench.receive(0, &telemetry(1, 1, 1));
    bench.apply(Input::Shutdown);
    bench.tick();
    bench.apply(Input::Disconnected { slot: Slot(1) });
    bench.tick();
    assert!(!bench.done);
    bench.commit();
    assert_eq!(bench.closed, [Slot(0)]);
    assert!(bench.done);
}

#[test]
fn a_shard_without_sessions_is_done_at_once() {
    let mut bench = Bench::new(settings());
    bench.apply(Input::Shutdown);
    bench.tick();
    assert!(bench.done);
}

#[test]
fn a_session_that_is_looked_at_shows_when_it_was_heard_and_what_it_waits_for() {
    let mut bench = Bench::attached(settings());
    bench.pass(1_500);
    let state = SessionState {
        epoch: Epoch::at_ms(1),
        source: None,
        heartbeat_s: 60,
        silent_ms: 1_500,
        unanswered: 0,
        command: false,
    };
    let shown = |state| {
        let look = SessionLook {
            state,
            attached_unix_ms: Some(1_767_225_600_000),
            contradicting: Some(0),
        };
        Some((Slot(0), look))
    };
    bench.ask(1, 4, Question::Look);
    assert_eq!(bench.take_look(), shown(state));
    bench.ask(2, 4, Question::Look);
    assert_eq!(bench.take_look(), None);
    let order = Order {
        command_id: 5,
        deadline_ms: 0,
        code: 1,
        payload: vec![],
    };
    bench.command(1, 50, order);
    bench.ask(1, 4, Question::Look);
    let waits = SessionState {
        command: true,
        ..state
    };
    assert_eq!(bench.take_look(), shown(waits));
}

#[test]
fn a_session_that_is_kicked_is_closed_and_its_epoch_told() {
    let mut bench = Bench::attached(settings());
    bench.ask(1, 4, Question::Kick);
    bench.ask(1, 5, Question::Kick);
    let close = Heard::Close {
        reason: CloseReason::Replaced,
        retry_after_ms: 0,
    };
    assert_eq!(bench.take_heard(), [close]);
    let answers: Vec<_> = bench.answers.drain(..).map(|it| it.message).collect();
    let epochs = [Some(Epoch::at_ms(1)), None];
    let kicked: [Message; 2] = epochs.map(|epoch| Kicked { epoch }.into());
    assert_eq!(answers, kicked);
    assert_eq!(bench.shard.counters().of(Counter::Kicked), 1);
}
