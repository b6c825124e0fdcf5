//! Pure. From a ticket to a session.

use protocols::rcu::frame;
use protocols::rcu::kind;

use super::*;

#[test]
fn a_right_reply_begins_the_session() {
    let mut bench = Bench::new();
    let key = bench.reach_attach();
    bench.admit(&key, TERMS);
}

#[test]
fn any_other_status_means_to_start_again_after_the_wait() {
    for verdict in [
        AttachVerdict::NotAdmitted,
        AttachVerdict::Full,
        AttachVerdict::Draining,
    ] {
        for (retry_after_ms, wait) in [(0, Wait::Backoff), (900, Wait::Told)] {
            let mut bench = Bench::new();
            bench.reach_attach();
            let conn = bench.device.conn().unwrap();
            bench.disconnects.clear();
            bench.say(1, attach_reply(verdict, retry_after_ms));
            assert_eq!(bench.disconnects, [conn]);
            bench.expect_wait(wait, 900);
            assert!(bench.took_resolve());
        }
    }
}

#[test]
fn an_unknown_status_is_not_admitted() {
    let mut bench = Bench::new();
    bench.reach_attach();
    let mut bytes = vec![];
    frame::write(kind::ATTACH_REPLY, 1, &mut bytes, |out| {
        out.push(99);
        out.extend_from_slice(&700_u32.to_le_bytes());
        out.extend_from_slice(&UNIX_MS.to_le_bytes());
    });
    bench.say_bytes(&bytes);
    bench.expect_wait(Wait::Told, 700);
    assert!(bench.took_resolve());
}

/// Everything that can go wrong → what the device calls it, and how it waits.
#[test]
fn no_right_reply_is_a_lost_connection() {
    type Failure = fn(&mut Bench);
    let cases: [(Failure, Fault, Wait); 8] = [
        (|bench| bench.lose(), Fault::Lost, Wait::Backoff),
        (|bench| bench.pass(10_000), Fault::Unanswered, Wait::Backoff),
        (
            |bench| {
                let wrong = Secret::new([9; 32]);
                let credential = Credential::Ticket(TICKET);
                let reply = AttachReply::ok(UNIX_MS, TERMS, credential, &wrong);
                bench.say(1, FromCluster::AttachReply(reply));
            },
            Fault::WrongProof,
            Wait::Backoff,
        ),
        (
            |bench| bench.say_bytes(&[0x52, 0x43, 9]),
            Fault::WrongFrame,
            Wait::Backoff,
        ),
        (
            |bench| bench.say(1, login_reply(LoginVerdict::Busy, 0)),
            Fault::WrongFrame,
            Wait::Backoff,
        ),
        (
            |bench| bench.close(CloseReason::AttachTimeout, 0),
            Fault::Closed(CloseReason::AttachTimeout),
            Wait::Backoff,
        ),
        (
            |bench| bench.close(CloseReason::Shutdown, 5_000),
            Fault::Closed(CloseReason::Shutdown),
            Wait::Told,
        ),
        (
            |bench| bench.close(CloseReason::Disabled, 5_000),
            Fault::Closed(CloseReason::Disabled),
            Wait::Longest,
        ),
    ];
    for (failure, why, wait) in cases {
        let mut bench = Bench::new();
        bench.reach_attach();
        failure(&mut bench);
        let resumed = false;
        assert!(
            bench.events.contains(&Event::AttachFailed { why, resumed }),
            "{:?}",
            bench.events
        );
        bench.expect_wait(wait, 5_000);
        assert!(bench.took_resolve());
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_a_lost_connection() {
    for lost in [true, false] {
        let mut bench = Bench::new();
        let nonce = bench.reach_login();
        bench.grant(nonce);
        bench.take_connect();
        if lost {
            bench.lose();
        } else {
            bench.pass(10_000);
        }
        let (why, resumed) = (Fault::Unreachable, false);
        assert!(bench.events.contains(&Event::AttachFailed { why, resumed }));
        bench.expect_wait(Wait::Backoff, 0);
        assert!(bench.took_resolve());
    }
}

#[test]
fn an_answer_to_another_question_is_ignored() {
    let mut bench = Bench::new();
    let key = bench.reach_attach();
    bench.say(8, attach_reply(AttachVerdict::NotAdmitted, 0));
    assert!(bench.told(Event::AnswerIgnored {
        kind: kind::ATTACH_REPLY
    }));
    bench.admit(&key, TERMS);
}

#[test]
fn frames_behind_the_reply_belong_to_the_session() {
    let mut bench = Bench::new();
    let key = bench.reach_attach();
    let mut bytes = vec![];
    AttachReply::ok(UNIX_MS, TERMS, Credential::Ticket(TICKET), &key).encode(1, &mut bytes);
    let command = Command {
        command_id: CommandId(5),
        deadline_ms: 0,
        code: 1,
        payload: b"echo",
    };
    command.encode(6, &mut bytes);
    bench.say_bytes(&bytes);
    let sent = bench.take_sent();
    assert!(matches!(sent.message(), FromDevice::CommandReply(reply) if reply.payload == b"echo"));
}

#[test]
fn the_clock_follows_the_reply() {
    for (off_ms, follows) in [
        (1_900_i64, false),
        (-1_900, false),
        (2_100, true),
        (-90_000, true),
    ] {
        let mut bench = Bench::new();
        let key = bench.reach_attach();
        let before = bench.device.unix_ms(bench.now_ms).unwrap();
        let server_time_ms = before.saturating_add_signed(off_ms);
        let reply = AttachReply::ok(server_time_ms, TERMS, Credential::Ticket(TICKET), &key);
        bench.say(1, FromCluster::AttachReply(reply));
        let expected = if follows { server_time_ms } else { before };
        assert_eq!(bench.device.unix_ms(bench.now_ms), Some(expected));
    }
}
