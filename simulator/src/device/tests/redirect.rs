//! Pure. Redirect: to another server, or to a new login.

use protocols::rcu::close::{Redirect, RedirectReason};

use super::*;

const NEW_TICKET: Ticket = Secret::new([0x60; 16]);

fn target() -> Target<'static> {
    Target {
        host: "2001:db8::17",
        port: 20_001,
        ticket: NEW_TICKET,
        ticket_ttl_s: 30,
    }
}

fn to_target(retry_after_ms: u32, key: &SessionKey) -> FromCluster<'static> {
    let reason = RedirectReason::Rebalancing;
    FromCluster::Redirect(Redirect::sign(reason, retry_after_ms, target(), key))
}

fn to_login(retry_after_ms: u32) -> FromCluster<'static> {
    FromCluster::Redirect(Redirect {
        reason: RedirectReason::Draining,
        retry_after_ms,
        target: None,
    })
}

/// The device attaches at the target with the key of the login.
fn expect_target(bench: &mut Bench, key: &SessionKey) {
    assert_eq!(bench.take_connect(), address("[2001:db8::17]:20001"));
    bench.connected();
    let sent = bench.take_sent();
    let FromDevice::Attach(attach) = sent.message() else {
        panic!("{sent:?}");
    };
    assert_eq!(attach.ticket, NEW_TICKET);
    assert!(attach.verify(key));
}

fn admit_at_target(bench: &mut Bench, key: &SessionKey) {
    let credential = Credential::Ticket(NEW_TICKET);
    let reply = AttachReply::ok(bench.cluster_unix_ms(), TERMS, credential, key);
    bench.say(1, FromCluster::AttachReply(reply));
    assert!(bench.device.is_attached());
}

#[test]
fn it_goes_on_as_usual_then_moves_and_sends_again_what_is_open() {
    let mut bench = Bench::new();
    let key = bench.reach_session_with(RESUMABLE);
    bench.say(0, to_target(1_500, &key));
    bench.pass(1_000);
    bench.report(&[1]);
    let open = bench.take_sent();
    bench.pass(499);
    assert!(bench.disconnects.is_empty());
    bench.pass(1);
    assert_eq!(bench.disconnects.len(), 1);
    expect_target(&mut bench, &key);
    admit_at_target(&mut bench, &key);
    assert_eq!(bench.take_sent().body, open.body);
    // The session key is the same at the target: a Redirect from there proves itself with it.
    bench.say(0, to_target(0, &key));
    expect_target(&mut bench, &key);
}

#[test]
fn without_a_wait_it_moves_at_once_and_without_a_target_to_a_login() {
    let mut bench = Bench::new();
    let key = bench.reach_session();
    bench.say(0, to_target(0, &key));
    expect_target(&mut bench, &key);

    let mut bench = Bench::new();
    bench.reach_session_with(RESUMABLE);
    bench.say(0, to_login(2_500));
    bench.pass(2_499);
    assert!(!bench.took_resolve());
    bench.pass(1);
    bench.back_to_session();
}

#[test]
fn a_wrong_proof_is_ignored() {
    let mut bench = Bench::new();
    bench.reach_session();
    bench.say(0, to_target(0, &Secret::new([5; 32])));
    assert!(bench.told(Event::RedirectIgnored));
    bench.pass(5_000);
    assert!(bench.device.is_attached());
}

#[test]
fn a_later_one_replaces_an_earlier_one() {
    let mut bench = Bench::new();
    let key = bench.reach_session();
    bench.say(0, to_target(1_000, &key));
    bench.say(0, to_login(3_000));
    bench.pass(2_999);
    assert!(bench.device.is_attached());
    bench.pass(1);
    assert!(bench.took_resolve());

    let mut bench = Bench::new();
    let key = bench.reach_session();
    bench.say(0, to_login(3_000));
    bench.say(0, to_target(1_000, &key));
    bench.pass(1_000);
    expect_target(&mut bench, &key);
}

#[test]
fn a_connection_that_ends_before_sends_it_there_at_once_unless_the_close_forbids() {
    use CloseReason::*;
    for (reason, void) in [
        (ProtocolError, true),
        (Idle, false),
        (Replaced, true),
        (Disabled, true),
        (Shutdown, false),
        (SlowReader, false),
        (AttachTimeout, true),
        (CloneSuspected, true),
    ] {
        let mut bench = Bench::new();
        let key = bench.reach_session_with(RESUMABLE);
        bench.say(0, to_target(10_000, &key));
        bench.close(reason, 7_000);
        if void {
            assert!(bench.events.contains(&Event::RedirectVoid));
            let (_, ms) = bench.take_wait();
            bench.pass(ms);
            assert!(bench.took_resolve(), "{reason}");
        } else {
            expect_target(&mut bench, &key);
        }
    }
    let mut bench = Bench::new();
    let key = bench.reach_session();
    bench.say(0, to_target(10_000, &key));
    bench.lose();
    expect_target(&mut bench, &key);

    let mut bench = Bench::new();
    bench.reach_session();
    bench.say(0, to_login(10_000));
    bench.lose();
    assert!(bench.took_resolve());
}

/// A target that cannot be reached or does not admit, and the connection that led to it with a
/// resumption in hand: neither is asked again.
#[test]
fn a_target_that_fails_means_to_log_in_after_the_backoff() {
    type Failure = fn(&mut Bench);
    let cases: [(Failure, Wait); 5] = [
        (|bench| bench.lose(), Wait::Backoff),
        (|bench| bench.pass(10_000), Wait::Backoff),
        (
            |bench| {
                bench.connected();
                bench.sent.clear();
                bench.say(1, attach_reply(AttachVerdict::NotAdmitted, 0));
            },
            Wait::Backoff,
        ),
        (
            |bench| {
                bench.connected();
                bench.sent.clear();
                bench.say(1, attach_reply(AttachVerdict::Full, 600));
            },
            Wait::Told,
        ),
        (
            |bench| {
                bench.connected();
                bench.sent.clear();
                bench.lose();
            },
            Wait::Backoff,
        ),
    ];
    for (failure, wait) in cases {
        let mut bench = Bench::new();
        let key = bench.reach_session_with(RESUMABLE);
        bench.say(0, to_target(0, &key));
        bench.take_connect();
        failure(&mut bench);
        bench.expect_wait(wait, 600);
        bench.back_to_session();
    }
}
