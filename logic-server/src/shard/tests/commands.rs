//! Pure. Commands and their replies.

use common::link::message::{CommandAnswer, Order};
use protocols::rcu::code::CommandStatus;
use protocols::rcu::command::{CommandId, CommandReply};

use super::bench::*;
use crate::shard::*;
use crate::wheel::TICK_MS;

pub(super) fn order(command_id: u64, payload_bytes: usize) -> Order {
    Order {
        command_id,
        deadline_ms: 0,
        code: 1,
        payload: vec![1; payload_bytes],
    }
}

fn reply(id: u16, command_id: u64, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    let reply = CommandReply {
        command_id: CommandId(command_id),
        status: CommandStatus::Ok,
        more,
        payload,
    };
    reply.encode(id, &mut out);
    out
}

fn replied(more: bool, payload: &[u8]) -> CommandAnswer {
    CommandAnswer::Replied {
        status: 0,
        more,
        payload: payload.to_vec(),
    }
}

#[test]
fn a_command_is_answered_by_its_replies_and_the_last_frees_the_session_for_the_next() {
    let mut bench = Bench::attached(settings());
    bench.command(1, 50, order(42, 3));
    let sent = |id, command_id, payload: &[u8]| Heard::Command {
        id,
        command_id,
        payload: payload.to_vec(),
    };
    assert_eq!(bench.take_heard(), [sent(1, 42, &[1; 3])]);
    bench.command(1, 51, order(43, 0));
    assert_eq!(bench.take_answers(), [(51, CommandAnswer::Busy)]);

    bench.receive(0, &reply(1, 42, true, b"a"));
    bench.receive(0, &reply(1, 42, false, b"b"));
    let expected = [(50, replied(true, b"a")), (50, replied(false, b"b"))];
    assert_eq!(bench.take_answers(), expected);
    bench.command(1, 52, order(43, 0));
    assert_eq!(bench.take_heard(), [sent(2, 43, &[])]);
}

#[test]
fn a_reply_to_no_pending_command_is_ignored() {
    let mut bench = Bench::attached(settings());
    bench.receive(0, &reply(1, 42, false, b""));
    bench.command(1, 50, order(42, 0));
    bench.receive(0, &reply(2, 42, false, b""));
    bench.receive(0, &reply(1, 43, false, b""));
    bench.receive(0, &reply(0, 42, false, b""));
    assert_eq!(bench.take_answers(), []);
    bench.receive(0, &reply(1, 42, false, b""));
    bench.receive(0, &reply(1, 42, false, b""));
    assert_eq!(bench.take_answers(), [(50, replied(false, b""))]);
    assert_eq!(bench.shard.counters().of(Counter::CommandReplyIgnored), 5);
    assert_eq!(bench.closed, []);
}

/// A device that never answers holds back no other command, and the same one is sent again.
#[test]
fn a_command_whose_asker_gave_up_blocks_nothing_and_is_sent_again_when_it_is_repeated() {
    let mut bench = Bench::attached(settings());
    bench.command(1, 50, order(42, 0));
    bench.pass(9_999);
    assert_eq!(bench.take_answers(), []);
    bench.command(1, 51, order(42, 0));
    assert_eq!(bench.take_answers(), [(51, CommandAnswer::Busy)]);
    bench.pass(1 + TICK_MS);
    assert_eq!(bench.take_answers(), [(50, CommandAnswer::Expired)]);

    bench.heard.clear();
    bench.command(1, 52, order(43, 0));
    assert_eq!(bench.take_heard().len(), 1);
    // Nobody waits for this one any more.
    bench.receive(0, &reply(1, 42, true, b"half"));
    assert_eq!(bench.take_answers(), []);
    bench.receive(0, &reply(2, 43, false, b"done"));
    assert_eq!(bench.take_answers(), [(52, replied(false, b"done"))]);
    assert_eq!(bench.shard.counters().of(Counter::CommandReplyIgnored), 1);
}

/// The device answers under the id of the first question where it is still at it, under that of the repeat
/// where it had finished.
#[test]
fn a_repeat_gets_its_reply_under_the_id_of_any_of_its_questions() {
    for frame_id in [1, 3] {
        let mut bench = Bench::attached(settings());
        bench.command(1, 50, order(42, 0));
        bench.pass(10_000 + TICK_MS);
        bench.command(1, 51, order(43, 0));
        bench.receive(0, &reply(2, 43, false, b""));
        bench.command(1, 52, order(42, 0));
        bench.take_answers();
        bench.receive(0, &reply(4, 42, false, b"of no question"));
        assert_eq!(bench.take_answers(), []);
        bench.receive(0, &reply(frame_id, 42, false, b"late"));
        assert_eq!(bench.take_answers(), [(52, replied(false, b"late"))]);
    }
}

#[test]
fn a_command_past_its_deadline_is_not_sent() {
    let mut bench = Bench::attached(settings());
    let mut late = order(42, 0);
    late.deadline_ms = bench.now.unix_ms - 1;
    bench.command(1, 50, late.clone());
    late.deadline_ms += 1;
    bench.command(1, 51, late);
    assert_eq!(bench.take_answers(), [(50, CommandAnswer::Expired)]);
    assert_eq!(bench.take_heard().len(), 1);
}

#[test]
fn a_command_waits_until_a_slow_device_has_read_and_what_answers_it_does_not() {
    let mut bench = Bench::attached(settings());
    let slot = Slot(0);
    bench.apply(Input::Unsent { slot, bytes: 9 });
    bench.command(1, 50, order(42, 0));
    assert_eq!(bench.take_heard(), []);
    bench.receive(0, &heartbeat(5));
    assert!(matches!(
        bench.take_heard()[..],
        [Heard::Heartbeat { id: 5, .. }]
    ));
    bench.command(1, 51, order(43, 0));
    assert_eq!(bench.take_answers(), [(51, CommandAnswer::Busy)]);
    assert_eq!(bench.shard.counters().of(Counter::CommandSent), 0);

    bench.apply(Input::Drained { slot });
    let heard = bench.take_heard();
    assert!(matches!(heard[..], [Heard::Command { command_id: 42, .. }]));
    bench.apply(Input::Drained { slot });
    assert_eq!(bench.take_heard(), [], "once");
    bench.receive(0, &reply(1, 42, false, b"done"));
    assert_eq!(bench.take_answers(), [(50, replied(false, b"done"))]);
    assert_eq!(bench.shard.counters().of(Counter::CommandSent), 1);
}

#[test]
fn a_command_whose_time_is_over_when_a_slow_device_has_read_is_not_sent() {
    let slot = Slot(0);
    let mut bench = Bench::attached(settings());
    let mut short = order(42, 0);
    short.deadline_ms = bench.now.unix_ms + 5_000;
    bench.apply(Input::Unsent { slot, bytes: 9 });
    bench.command(1, 50, short);
    bench.pass(5_001);
    bench.apply(Input::Drained { slot });
    // And where its asker gave up meanwhile.
    bench.apply(Input::Unsent { slot, bytes: 9 });
    bench.command(1, 51, order(42, 0));
    bench.pass(10_000 + TICK_MS);
    bench.apply(Input::Drained { slot });
    let expired = |request| (request, CommandAnswer::Expired);
    assert_eq!(bench.take_answers(), [expired(50), expired(51)]);
    assert_eq!(bench.take_heard(), []);
    assert_eq!(bench.shard.counters().of(Counter::CommandExpired), 2);
}

#[test]
fn a_command_fills_a_frame_to_a_device_and_no_more() {
    let mut bench = Bench::attached(settings());
    bench.command(1, 50, order(42, 993));
    assert_eq!(bench.take_answers(), [(50, CommandAnswer::TooLarge)]);
    bench.command(1, 51, order(42, 992));
    assert_eq!(bench.take_heard().len(), 1);
}

#[test]
fn a_command_whose_session_ends_is_lost() {
    let mut bench = Bench::attached(settings());
    bench.command(1, 50, order(42, 0));
    bench.apply(Input::Disconnected { slot: Slot(0) });
    assert_eq!(bench.take_answers(), [(50, CommandAnswer::Lost)]);
}

#[test]
fn a_command_never_bears_id_0() {
    let mut bench = Bench::attached(settings());
    for round in 0..=u64::from(u16::MAX) {
        bench.command(1, 50, order(round, 0));
        let heard = bench.take_heard();
        let [Heard::Command { id, .. }] = heard[..] else {
            panic!("{heard:?}");
        };
        assert_ne!(id, 0);
        bench.receive(0, &reply(id, round, false, b""));
    }
}
