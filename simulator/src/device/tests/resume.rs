//! Pure. Going on without a login: section 6 of the contract.

use protocols::rcu::attach::{Challenge, ResumeChallenge};

use super::*;

const CHALLENGE: Challenge = Challenge([0xC0; 16]);

/// A resumption under way: the connection is made and Resume is sent. Its session key.
fn to_resume(bench: &mut Bench) -> SessionKey {
    let key = bench.reach_session_with(RESUMABLE);
    bench.lose();
    bench.expect_wait(Wait::Backoff, 0);
    ask_to_resume(bench);
    key
}

fn ask_to_resume(bench: &mut Bench) {
    assert_eq!(bench.take_connect(), logic_server());
    bench.connected();
    let sent = bench.take_sent();
    let FromDevice::Resume(resume) = sent.message() else {
        panic!("{sent:?}");
    };
    assert_eq!(resume.resumption, RESUMABLE.resumption);
}

fn challenge(bench: &mut Bench, key: &SessionKey) -> Sent {
    let challenge = ResumeChallenge {
        challenge: CHALLENGE,
    };
    bench.say(1, FromCluster::ResumeChallenge(challenge));
    let sent = bench.take_sent();
    let FromDevice::ResumeProof(proof) = sent.message() else {
        panic!("{sent:?}");
    };
    assert!(proof.verify(CHALLENGE, RESUMABLE.resumption, key));
    sent
}

fn admit(bench: &mut Bench, id: u16, terms: Terms<'_>, key: &SessionKey) {
    let credential = Credential::Challenge(CHALLENGE);
    let reply = AttachReply::ok(bench.cluster_unix_ms(), terms, credential, key);
    bench.say(id, FromCluster::AttachReply(reply));
}

#[test]
fn a_lost_session_goes_on_under_the_same_key_with_the_next_resumption() {
    let mut bench = Bench::new();
    let key = to_resume(&mut bench);
    let proof = challenge(&mut bench, &key);
    let next = Terms {
        resumption: b"the next one",
        ..RESUMABLE
    };
    admit(&mut bench, proof.id, next, &key);
    let (status, resumed) = (protocols::rcu::code::AttachStatus::Ok, true);
    assert!(bench.told(Event::AttachAnswered { status, resumed }));

    bench.close(CloseReason::Idle, 100);
    bench.expect_wait(Wait::Told, 100);
    assert_eq!(bench.take_connect(), logic_server());
    bench.connected();
    let sent = bench.take_sent();
    assert!(
        matches!(sent.message(), FromDevice::Resume(resume) if resume.resumption == b"the next one")
    );
}

#[test]
fn silence_and_an_unanswered_frame_may_be_resumed_too() {
    for case in 0..2 {
        let mut bench = Bench::new();
        bench.reach_session_with(RESUMABLE);
        if case == 0 {
            bench.pass(180_000);
        } else {
            bench.report(&[1]);
            bench.pass(60_000);
        }
        bench.sent.clear();
        let (_, ms) = bench.take_wait();
        bench.pass(ms);
        ask_to_resume(&mut bench);
    }
}

#[test]
fn after_its_time_it_is_not_tried() {
    for (retry_after_ms, tried) in [(600_000, true), (600_001, false)] {
        let mut bench = Bench::new();
        bench.reach_session_with(RESUMABLE);
        bench.close(CloseReason::Shutdown, retry_after_ms);
        bench.expect_wait(Wait::Told, u64::from(retry_after_ms));
        assert_eq!(bench.took_resolve(), !tried);
    }
}

/// Everything that makes a resumption fail → how the device waits before it logs in.
#[test]
fn it_is_tried_once_and_whatever_fails_means_to_log_in_after_the_wait() {
    type Failure = fn(&mut Bench, SessionKey);
    let cases: [(Failure, Wait); 9] = [
        (|bench, _| bench.lose(), Wait::Backoff),
        (|bench, _| bench.pass(10_000), Wait::Backoff),
        (
            |bench, _| bench.say(1, attach_reply(AttachVerdict::NotAdmitted, 0)),
            Wait::Backoff,
        ),
        (
            |bench, _| bench.say(1, attach_reply(AttachVerdict::Draining, 800)),
            Wait::Told,
        ),
        (
            |bench, _| bench.close(CloseReason::ProtocolError, 800),
            Wait::Told,
        ),
        (
            |bench, key| {
                challenge(bench, &key);
                bench.pass(10_000);
            },
            Wait::Backoff,
        ),
        (
            |bench, key| {
                let id = challenge(bench, &key).id;
                bench.say(id, attach_reply(AttachVerdict::Full, 800));
            },
            Wait::Told,
        ),
        (
            |bench, key| {
                let id = challenge(bench, &key).id;
                admit(bench, id, RESUMABLE, &Secret::new([1; 32]));
            },
            Wait::Backoff,
        ),
        // Admitted without a challenge: nothing was proven by either side.
        (|bench, key| admit(bench, 1, RESUMABLE, &key), Wait::Backoff),
    ];
    for (failure, wait) in cases {
        let mut bench = Bench::new();
        let key = to_resume(&mut bench);
        bench.events.clear();
        failure(&mut bench, key);
        assert!(!bench.device.is_attached());
        bench.expect_wait(wait, 800);
        bench.back_to_session();
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_not_asked_twice() {
    let mut bench = Bench::new();
    bench.reach_session_with(RESUMABLE);
    bench.lose();
    bench.expect_wait(Wait::Backoff, 0);
    bench.take_connect();
    bench.lose();
    let (why, resumed) = (Fault::Unreachable, true);
    assert!(bench.events.contains(&Event::AttachFailed { why, resumed }));
    bench.expect_wait(Wait::Backoff, 0);
    assert!(bench.took_resolve());
}

#[test]
fn another_known_kind_while_waiting_for_the_challenge_is_an_error() {
    let mut bench = Bench::new();
    to_resume(&mut bench);
    bench.events.clear();
    bench.say(1, login_reply(LoginVerdict::Full, 0));
    let (why, resumed) = (Fault::WrongFrame, true);
    assert!(bench.told(Event::AttachFailed { why, resumed }));
}

#[test]
fn the_reply_has_its_own_ten_seconds_after_the_challenge() {
    let mut bench = Bench::new();
    let key = to_resume(&mut bench);
    bench.pass(9_000);
    let proof = challenge(&mut bench, &key);
    bench.pass(9_000);
    admit(&mut bench, proof.id, RESUMABLE, &key);
    assert!(bench.device.is_attached());
}

#[test]
fn a_refusal_of_another_question_while_waiting_for_the_challenge_is_an_error() {
    let mut bench = Bench::new();
    to_resume(&mut bench);
    bench.events.clear();
    bench.say(9, attach_reply(AttachVerdict::NotAdmitted, 0));
    let (why, resumed) = (Fault::WrongFrame, true);
    assert!(bench.told(Event::AttachFailed { why, resumed }));
}

#[test]
fn what_was_not_acknowledged_is_sent_again() {
    let mut bench = Bench::new();
    let key = bench.reach_session_with(RESUMABLE);
    bench.report(&[1, 2]);
    let before = bench.take_sent();
    bench.lose();
    bench.expect_wait(Wait::Backoff, 0);
    ask_to_resume(&mut bench);
    let proof = challenge(&mut bench, &key);
    admit(&mut bench, proof.id, RESUMABLE, &key);
    let again = bench.take_sent();
    assert_eq!(again.body, before.body);
}
