//! Pure. The short connection.

use std::collections::BTreeSet;

use protocols::rcu::frame;
use protocols::rcu::kind;

use super::*;

#[test]
fn it_resolves_takes_an_address_at_random_and_logs_in() {
    let mut firsts = BTreeSet::new();
    for seed in 0..50 {
        let mut bench = Bench::seeded(Settings::default(), seed);
        bench.power_on();
        bench.resolve(&balancers());
        firsts.insert(bench.take_connect());
        bench.connected();
        let sent = bench.take_sent();
        let FromDevice::Login(login) = sent.message() else {
            panic!("{sent:?}");
        };
        assert_eq!(login.account, "rcu-000001");
        assert_eq!(login.firmware, "sim-1.0");
        assert_eq!(login.sent_at_ms, UNIX_MS);
        assert!(login.verify(&KEY));
        assert_ne!(sent.id, 0);
    }
    assert_eq!(firsts, balancers().into_iter().collect());
}

#[test]
fn after_ok_it_disconnects_and_goes_where_it_was_sent() {
    let mut bench = Bench::new();
    let nonce = bench.reach_login();
    let conn = bench.device.conn().unwrap();
    bench.grant(nonce);
    assert_eq!(bench.disconnects, [conn]);
    bench.follow_grant(nonce);
}

#[test]
fn a_key_that_it_is_given_signs_its_next_login() {
    let mut bench = Bench::new();
    bench.reach_login();
    let key = Secret::new([0x77; 32]);
    bench.apply(Input::KeySet { key });
    // The answer to the login before is proven with the old key, and not believed.
    bench.lose();
    bench.take_connect();
    bench.connected();
    let sent = bench.take_sent();
    let FromDevice::Login(login) = sent.message() else {
        panic!("{sent:?}");
    };
    assert!(login.verify(&key));
}

#[test]
fn a_reply_in_pieces_is_a_reply() {
    let mut bench = Bench::new();
    let nonce = bench.reach_login();
    let mut bytes = vec![];
    let target = Target {
        host: "2001:db8::17",
        port: 20_000,
        ticket: TICKET,
        ticket_ttl_s: 30,
    };
    LoginReply::ok(UNIX_MS, target, nonce, &KEY).encode(1, &mut bytes);
    for byte in &bytes {
        bench.say_bytes(std::slice::from_ref(byte));
    }
    assert_eq!(bench.take_connect(), address("[2001:db8::17]:20000"));
}

/// Status, the cluster's wait → what the device does.
#[test]
fn every_status_is_obeyed_as_its_table_says() {
    let told = |nonce| LoginReply::disabled(0, UNIX_MS, nonce, &KEY).verdict;
    type Verdict = fn(Nonce) -> LoginVerdict<'static>;
    let plain: [(Verdict, Wait, Wait); 3] = [
        (|_| LoginVerdict::Refused, Wait::Backoff, Wait::Told),
        (|_| LoginVerdict::Full, Wait::Backoff, Wait::Told),
        (|_| LoginVerdict::Busy, Wait::Backoff, Wait::Told),
    ];
    for (verdict, unnamed, named) in plain {
        for (retry_after_ms, expected) in [(0, unnamed), (7_000, named)] {
            let mut bench = Bench::new();
            let nonce = bench.reach_login();
            let asked = bench.peer;
            bench.say(1, login_reply(verdict(nonce), retry_after_ms));
            bench.expect_wait(expected, 7_000);
            if expected == Wait::Told {
                // The same address: another would not know the place in the queue.
                assert!(!bench.took_resolve());
                assert_eq!(Some(bench.take_connect()), asked);
            } else {
                assert!(bench.took_resolve());
            }
        }
    }
    for retry_after_ms in [0, 7_000] {
        let mut bench = Bench::new();
        bench.reach_login();
        bench.say(1, login_reply(LoginVerdict::Malformed, retry_after_ms));
        bench.expect_wait(Wait::Longest, 0);
        assert!(bench.took_resolve());

        let mut bench = Bench::new();
        let nonce = bench.reach_login();
        assert_eq!(told(nonce).status().name(), "disabled");
        let reply = LoginReply::disabled(retry_after_ms, UNIX_MS, nonce, &KEY);
        bench.say(1, FromCluster::LoginReply(reply));
        bench.expect_wait(Wait::Longest, 0);
        assert!(bench.took_resolve());
    }
}

#[test]
fn an_unknown_status_is_busy() {
    let mut bench = Bench::new();
    bench.reach_login();
    let mut body = vec![200];
    body.extend_from_slice(&9_000_u32.to_le_bytes());
    body.extend_from_slice(&UNIX_MS.to_le_bytes());
    let mut bytes = vec![];
    frame::write(kind::LOGIN_REPLY, 1, &mut bytes, |out| {
        out.extend_from_slice(&body)
    });
    bench.say_bytes(&bytes);
    bench.expect_wait(Wait::Told, 9_000);
}

#[test]
fn no_wait_is_longer_than_an_hour() {
    let mut bench = Bench::new();
    bench.reach_login();
    bench.say(1, login_reply(LoginVerdict::Full, u32::MAX));
    bench.expect_wait(Wait::Told, 3_600_000);
}

#[test]
fn after_a_named_wait_an_address_that_fails_means_to_start_again() {
    for failure in 0..3 {
        let mut bench = Bench::new();
        bench.reach_login();
        bench.say(1, login_reply(LoginVerdict::Busy, 1_000));
        bench.expect_wait(Wait::Told, 1_000);
        bench.take_connect();
        match failure {
            0 => bench.lose(),
            1 => bench.pass(10_000),
            _ => {
                bench.connected();
                bench.lose();
            }
        }
        assert!(bench.took_resolve());
    }
}

#[test]
fn clock_skew_sets_the_clock_and_asks_again_at_once_with_a_new_nonce() {
    let mut bench = Bench::new();
    bench.apply(Input::ClockSet { unix_ms: None });
    bench.power_on();
    bench.resolve(&balancers());
    let asked = bench.take_connect();
    bench.connected();
    let sent = bench.take_sent();
    let FromDevice::Login(first) = sent.message() else {
        panic!("{sent:?}");
    };
    assert_eq!(first.sent_at_ms, 0, "a device without a clock");

    bench.pass(100);
    let reply = LoginReply::clock_skew(5_000, UNIX_MS, first.nonce, &KEY);
    bench.say(1, FromCluster::LoginReply(reply));
    assert_eq!(bench.take_connect(), asked);
    assert_eq!(bench.device.unix_ms(bench.now_ms), Some(UNIX_MS));
    bench.pass(300);
    bench.connected();
    let sent = bench.take_sent();
    let FromDevice::Login(second) = sent.message() else {
        panic!("{sent:?}");
    };
    assert_eq!(second.sent_at_ms, UNIX_MS + 300);
    assert_ne!(second.nonce, first.nonce);
}

#[test]
fn a_second_clock_skew_in_a_row_backs_off() {
    for (retry_after_ms, wait) in [(0, Wait::Backoff), (4_000, Wait::Told)] {
        let mut bench = Bench::new();
        let nonce = bench.reach_login();
        let skewed = |nonce| {
            FromCluster::LoginReply(LoginReply::clock_skew(
                retry_after_ms,
                UNIX_MS + 500_000,
                nonce,
                &KEY,
            ))
        };
        bench.say(1, skewed(nonce));
        let nonce = bench.ask();
        bench.say(1, skewed(nonce));
        bench.expect_wait(wait, 4_000);
        if wait == Wait::Backoff {
            assert!(bench.took_resolve());
            bench.resolve(&balancers());
        }
        // Another status between them, and the next is the first of a row.
        bench.ask();
        bench.say(1, login_reply(LoginVerdict::Busy, 1_000));
        bench.expect_wait(Wait::Told, 1_000);
        let nonce = bench.ask();
        bench.say(1, skewed(nonce));
        bench.take_connect();
    }
}

#[test]
fn a_wrong_proof_in_any_status_takes_the_next_address_and_changes_nothing() {
    let wrong = Secret::new([8; 32]);
    let target = Target {
        host: "192.0.2.17",
        port: 20_000,
        ticket: TICKET,
        ticket_ttl_s: 30,
    };
    type Reply<'a> = &'a dyn Fn(Nonce) -> LoginReply<'a>;
    let replies: [Reply<'_>; 3] = [
        &|nonce| LoginReply::ok(UNIX_MS, target, nonce, &wrong),
        &|nonce| LoginReply::disabled(0, UNIX_MS, nonce, &wrong),
        &|nonce| LoginReply::clock_skew(0, UNIX_MS + 9_000_000, nonce, &wrong),
    ];
    for reply in replies {
        let mut bench = Bench::new();
        let nonce = bench.reach_login();
        let asked = bench.peer;
        bench.say(1, FromCluster::LoginReply(reply(nonce)));
        let why = Fault::WrongProof;
        assert!(bench.told(Event::LoginFailed { why }));
        assert_ne!(Some(bench.connects.pop().unwrap().1), asked);
        assert_eq!(bench.device.unix_ms(bench.now_ms), Some(UNIX_MS));
    }
    // A right proof of another login is a wrong one of this.
    let mut bench = Bench::new();
    bench.reach_login();
    let reply = LoginReply::ok(UNIX_MS, target, Nonce([1; 16]), &KEY);
    bench.say(1, FromCluster::LoginReply(reply));
    let why = Fault::WrongProof;
    assert!(bench.told(Event::LoginFailed { why }));
}

/// Everything that makes an address fail, and why the device says it did.
#[test]
fn an_address_without_a_right_reply_makes_way_for_the_next_until_all_have_failed() {
    type Failure = fn(&mut Bench);
    let after_login: [(Failure, Fault); 6] = [
        (|bench| bench.pass(15_000), Fault::Unanswered),
        (|bench| bench.lose(), Fault::Lost),
        (
            |bench| bench.close(CloseReason::AttachTimeout, 90_000),
            Fault::Closed(CloseReason::AttachTimeout),
        ),
        (|bench| bench.say_bytes(b"HTTP/1.1 400"), Fault::WrongFrame),
        (
            |bench| bench.say(1, attach_reply(AttachVerdict::Full, 0)),
            Fault::WrongFrame,
        ),
        (
            |bench| bench.command(5, 1, 1, b"too early"),
            Fault::WrongFrame,
        ),
    ];
    for (failure, why) in after_login {
        let mut bench = Bench::new();
        bench.power_on();
        bench.resolve(&balancers());
        let mut tried = BTreeSet::new();
        for _ in 0..3 {
            tried.insert(bench.peer.unwrap());
            bench.ask();
            failure(&mut bench);
            assert!(
                bench.events.contains(&Event::LoginFailed { why }),
                "{:?}",
                bench.events
            );
        }
        assert_eq!(tried, balancers().into_iter().collect());
        assert_eq!(bench.disconnects.len(), 3);
        bench.expect_wait(Wait::Backoff, 0);
        assert!(bench.took_resolve());
    }
    type Connecting = fn(&mut Bench);
    let connecting: [Connecting; 2] = [|bench| bench.lose(), |bench| bench.pass(10_000)];
    for failure in connecting {
        let mut bench = Bench::new();
        bench.power_on();
        bench.resolve(&balancers());
        for _ in 0..3 {
            bench.take_connect();
            failure(&mut bench);
            let why = Fault::Unreachable;
            assert!(bench.events.contains(&Event::LoginFailed { why }));
        }
        bench.expect_wait(Wait::Backoff, 0);
    }
}

#[test]
fn what_it_does_not_know_and_did_not_ask_it_ignores() {
    let mut bench = Bench::new();
    let nonce = bench.reach_login();
    let mut unknown = vec![];
    frame::write(0x1F, 9, &mut unknown, |out| out.extend_from_slice(b"new"));
    bench.say_bytes(&unknown);
    assert!(bench.told(Event::UnknownKindIgnored { kind: 0x1F }));
    bench.say(77, login_reply(LoginVerdict::Refused, 0));
    assert!(bench.told(Event::AnswerIgnored {
        kind: kind::LOGIN_REPLY
    }));
    bench.grant(nonce);
    bench.follow_grant(nonce);
}

#[test]
fn when_dns_fails_the_last_addresses_that_worked_are_used() {
    let mut bench = Bench::new();
    bench.power_on();
    bench.resolve(&[]);
    bench.expect_wait(Wait::Backoff, 0);
    assert!(bench.took_resolve());
    // No answer at all is no better.
    bench.pass(10_000);
    bench.expect_wait(Wait::Backoff, 0);

    assert!(bench.took_resolve());
    bench.resolve(&balancers());
    bench.ask();
    bench.say(1, login_reply(LoginVerdict::Refused, 0));
    bench.expect_wait(Wait::Backoff, 0);
    assert!(bench.took_resolve());
    bench.resolve(&[]);
    assert!(balancers().contains(&bench.take_connect()));
}

#[test]
fn the_backoff_grows_with_failed_tries_but_not_with_named_waits() {
    let longest = |tries: usize| {
        (0..200)
            .map(|seed| {
                let mut bench = Bench::seeded(Settings::default(), seed);
                bench.apply(Input::StopReporting);
                bench.power_on();
                for _ in 0..tries {
                    bench.resolve(&[]);
                    let (_, ms) = bench.take_wait();
                    bench.pass(ms);
                }
                bench.resolve(&balancers()[..1]);
                bench.ask();
                bench.say(1, login_reply(LoginVerdict::Busy, 1));
                bench.expect_wait(Wait::Told, 1);
                bench.ask();
                bench.say(1, login_reply(LoginVerdict::Busy, 0));
                bench.take_wait().1
            })
            .max()
            .unwrap()
    };
    assert!((800..=1_000).contains(&longest(0)));
    assert!((1_600..=2_000).contains(&longest(1)));
    assert!((12_800..=16_000).contains(&longest(4)));
}

#[test]
fn a_power_cut_forgets_and_a_nonce_is_never_used_twice() {
    let mut bench = Bench::with(Settings {
        report_interval_ms: 0,
        boot_ms: 2_000,
        battery_clock: false,
        ..Settings::default()
    });
    bench.apply(Input::PowerOn);
    bench.pass(2_000);
    assert!(bench.took_resolve());
    bench.resolve(&balancers());
    let first = bench.ask();
    bench.apply(Input::PowerCut);
    assert!(bench.told(Event::Restarted { boot_counter: 4 }));
    assert_eq!(bench.device.next_deadline(bench.now_ms), None);
    bench.apply(Input::PowerOn);
    bench.pass(2_000);
    assert!(bench.took_resolve());
    bench.resolve(&balancers());
    let second = bench.ask();
    assert_ne!(first, second);
    assert_eq!(bench.device.unix_ms(bench.now_ms), None);
}
