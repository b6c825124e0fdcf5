#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use common::config::Policy;
use common::epoch::NodeNumber;
use common::link::LinkId;
use common::link::message::LogicLoad;
use common::pacing::Rate;
use common::secret::Secret;
use protocols::rcu::code::LoginStatus;
use protocols::rcu::frame::HEADER_BYTES;
use protocols::rcu::login::LoginVerdict;
use rand::SeedableRng;
use rand::rngs::{SmallRng, StdRng};

use super::*;
use crate::counters::Counters;
use crate::desk::Rules;
use crate::directory::Directory;
use crate::epochs::Epochs;
use crate::nonces::Nonces;
use crate::pool::NodePool;
use crate::throttle::{Limits, Throttle};

const NOW: Now = Now {
    ms: 1_000_000,
    unix_ms: 1_800_000_000_000,
};
const KEY: DeviceKey = Secret::new([7; 32]);
const ACCOUNT: Account = Account {
    id: AccountId(5),
    key: KEY,
    version: 1,
    enabled: true,
};
const NONCE: Nonce = Nonce([9; 16]);
const ASKER: Asker = Asker {
    link: LinkId(1),
    request: 1,
    until_ms: u64::MAX,
};

/// A desk with nodes that have so many places free of ten.
fn desk(in_all: Rate, free: &[u32]) -> Desk {
    let limits = Limits {
        in_all,
        per_source: Rate::UNLIMITED,
        sources_max: 16,
        guesses_max: 16,
    };
    let mut epochs = Epochs::new(NodeNumber::new(0).unwrap(), Epoch::ZERO);
    let mark = epochs.mark_to_store(NOW.unix_ms);
    epochs.mark_stored(mark);
    let mut pool = NodePool::new(Policy::Fill);
    for (index, free) in (0..).zip(free) {
        let link = LinkId(100 + u64::from(index));
        let name = format!("logic-{index}").parse().unwrap();
        let node = pool.link_up(link, name, index).unwrap().node;
        pool.advertised(
            node,
            vec![SocketAddr::from(([127, 0, 0, 1], 20_000 + index))],
        );
        pool.reported(node, load(*free));
        pool.adopted(node);
    }
    Desk {
        rules: Rules {
            grant_ttl_ms: 30_000,
            clock_skew_max_ms: 300_000,
            source_exact: true,
            heartbeat_s: None,
        },
        throttle: Throttle::new(limits, 1),
        nonces: Nonces::new(16),
        pool,
        directory: Directory::default(),
        epochs,
        counters: Counters::default(),
        tickets: StdRng::seed_from_u64(1),
        waits: SmallRng::seed_from_u64(1),
    }
}

fn load(free: u32) -> LogicLoad {
    LogicLoad {
        places_used: 10 - free,
        places_max: 10,
        draining: false,
    }
}

/// The body of a Login as a balancer forwards it.
fn forwarded(sent_at_ms: u64, nonce: Nonce, key: &DeviceKey) -> message::Login {
    let account = "rcu-000001".parse().unwrap();
    let mut frame = vec![];
    login::Login::sign(&account, "1.2.0", sent_at_ms, nonce, key).encode(1, &mut frame);
    message::Login {
        source: [10, 0, 0, 1].into(),
        body: frame.split_off(HEADER_BYTES),
    }
}

fn right() -> message::Login {
    forwarded(NOW.unix_ms, NONCE, &KEY)
}

/// A login up to the question to a logic server, or to its end.
fn judge(login: &message::Login, found: Found, desk: &mut Desk) -> (Option<Login>, Step) {
    let (login, step) = Login::begin(ASKER, login, desk, NOW);
    let Some(mut login) = login else {
        return (None, step);
    };
    assert!(matches!(step, Step::LookUp { .. }));
    let step = login.account_found(found, desk, NOW);
    (Some(login), step)
}

fn reply(step: &Step) -> LoginReply<'_> {
    let Step::Reply(reply) = step else {
        panic!("no reply but {step:?}");
    };
    LoginReply::decode_body(&reply.body).unwrap()
}

/// Gives the place back and tells what the node was asked for.
fn asked(step: Step, desk: &mut Desk) -> (LinkId, Grant) {
    let Step::Ask {
        reservation, grant, ..
    } = step
    else {
        panic!("not asked but {step:?}");
    };
    let link = reservation.link();
    desk.pool.give_back(reservation);
    (link, *grant)
}

#[test]
fn the_order_of_judgement_is_the_contracts() {
    // Every combination of what can be wrong: the reply is the one that the contract judges first.
    for wrong in 0..1_u32 << 8 {
        let is = |bit: u32| wrong & (1 << bit) != 0;
        let (malformed, paced, unknown, wrong_proof) = (is(0), is(1), is(2), is(3));
        let (replayed, disabled, skewed, full) = (is(4), is(5), is(6), is(7));

        let rate = Rate { per_s: 1, burst: 1 };
        let mut desk = desk(
            if paced { rate } else { Rate::UNLIMITED },
            &[if full { 0 } else { 1 }],
        );
        if paced {
            let other = "other".parse().unwrap();
            assert!(
                desk.throttle
                    .admit([10, 0, 0, 2].into(), other, NOW.ms)
                    .is_ok()
            );
        }
        if replayed {
            desk.nonces.remember(ACCOUNT.id, NONCE, NOW.ms);
            desk.nonces.granted(ACCOUNT.id, NONCE, Epoch::at_ms(3));
        }
        let sent_at_ms = if skewed { 0 } else { NOW.unix_ms };
        let key = if wrong_proof {
            Secret::new([8; 32])
        } else {
            KEY
        };
        let mut login = forwarded(sent_at_ms, NONCE, &key);
        if malformed {
            login.body.push(0);
        }
        let found = if unknown {
            Found::Unknown
        } else {
            Found::Account(Account {
                enabled: !disabled,
                ..ACCOUNT
            })
        };
        let (_, step) = judge(&login, found, &mut desk);
        let expected = match () {
            () if malformed => LoginStatus::Malformed,
            () if paced => LoginStatus::Busy,
            () if unknown || wrong_proof || replayed => LoginStatus::Refused,
            () if disabled => LoginStatus::Disabled,
            () if skewed => LoginStatus::ClockSkew,
            () if full => LoginStatus::Full,
            () => {
                asked(step, &mut desk);
                continue;
            }
        };
        let Step::Reply(Reply { why: Some(why), .. }) = step else {
            panic!("no reply with a reason but {step:?}");
        };
        let expected_why = match expected {
            LoginStatus::Busy => Counter::PacedInAll,
            LoginStatus::Refused if unknown => Counter::UnknownAccount,
            LoginStatus::Refused if wrong_proof => Counter::WrongProof,
            LoginStatus::Refused => Counter::Replayed,
            status => Counter::of_status(status),
        };
        assert_eq!(why, expected_why, "{wrong:#010b}");
        assert_eq!(desk.counters.of(why), 1, "{wrong:#010b}");
        let reply = reply(&step);
        assert_eq!(reply.status(), expected, "{wrong:#010b}");
        assert!(reply.verify(NONCE, &KEY), "{wrong:#010b}");
        let told_when = matches!(expected, LoginStatus::Busy | LoginStatus::Full);
        assert_eq!(reply.retry_after_ms > 0, told_when, "{wrong:#010b}");
        assert_eq!(reply.server_time_ms, NOW.unix_ms);
    }
}

#[test]
fn a_granted_login_is_told_where_to_go_with_what_the_node_was_given() {
    let mut desk = desk(Rate::UNLIMITED, &[1]);
    let (login, step) = judge(&right(), Found::Account(ACCOUNT), &mut desk);
    let (link, grant) = asked(step, &mut desk);
    assert_eq!(link, LinkId(100));
    assert_eq!(grant.source, Some([10, 0, 0, 1].into()));
    assert_eq!(grant.account_version, 1);
    let step = login
        .unwrap()
        .grant_answered(GrantVerdict::Granted, &mut desk, NOW);
    let told = reply(&step);
    let LoginVerdict::Ok(signed) = told.verdict else {
        panic!("{told:?}");
    };
    assert!(told.verify(NONCE, &KEY));
    assert_eq!(
        (signed.target.host, signed.target.port),
        ("127.0.0.1", 20_000)
    );
    assert_eq!(signed.target.ticket_ttl_s, 30);
    assert_eq!(signed.target.ticket, grant.ticket);
    let session_key = proof::session_key(&KEY, NONCE, &signed.target.ticket);
    assert_eq!(session_key, grant.session_key);
    let Step::Reply(Reply { last_login, .. }) = step else {
        panic!();
    };
    let last_login = last_login.unwrap();
    assert_eq!(&*last_login.firmware, "1.2.0");
    assert_eq!(last_login.node.as_str(), "logic-0");
}

#[test]
fn the_same_login_again_gets_its_open_grant_and_reserves_nothing() {
    let mut desk = desk(Rate::UNLIMITED, &[1]);
    let (login, step) = judge(&right(), Found::Account(ACCOUNT), &mut desk);
    let (_, grant) = asked(step, &mut desk);
    let (_, again) = judge(&right(), Found::Account(ACCOUNT), &mut desk);
    assert_eq!(reply(&again).status(), LoginStatus::Busy, "undecided still");
    login
        .unwrap()
        .grant_answered(GrantVerdict::Granted, &mut desk, NOW);

    let later = Now {
        ms: NOW.ms + 12_000,
        ..NOW
    };
    let repeat = |desk: &mut Desk| {
        let (login, _) = Login::begin(ASKER, &right(), desk, later);
        let mut login = login.unwrap();
        let step = login.account_found(Found::Account(ACCOUNT), desk, later);
        (login, step)
    };
    let answered = |desk: &mut Desk, is_open| {
        let (mut login, step) = repeat(desk);
        let Step::Check { link, check, .. } = step else {
            panic!("{step:?}");
        };
        assert_eq!((link, check.epoch), (LinkId(100), grant.epoch));
        login.grant_checked(is_open, desk, later)
    };
    let step = answered(&mut desk, true);
    let LoginVerdict::Ok(signed) = reply(&step).verdict else {
        panic!("{step:?}");
    };
    assert_eq!(signed.target.ticket, grant.ticket);
    assert_eq!(signed.target.ticket_ttl_s, 18);
    let Step::Reply(Reply { last_login, .. }) = step else {
        panic!();
    };
    assert_eq!(last_login, None);

    // Used up, and what the logic server tells of the session is under way.
    let step = answered(&mut desk, false);
    assert_eq!(reply(&step).status(), LoginStatus::Refused);
    for why in [Lost::TimedOut, Lost::LinkDown] {
        let step = repeat(&mut desk).0.grant_lost(why, &mut desk, later);
        assert_eq!(reply(&step).status(), LoginStatus::Busy);
    }

    desk.directory
        .grant_closed(NodeId::new(0, 1), ACCOUNT.id, grant.epoch);
    assert_eq!(reply(&repeat(&mut desk).1).status(), LoginStatus::Refused);
}

#[test]
fn a_login_that_got_nothing_may_be_repeated() {
    let mut desk = desk(Rate::UNLIMITED, &[0]);
    for _ in 0..2 {
        let (_, step) = judge(&right(), Found::Account(ACCOUNT), &mut desk);
        assert_eq!(reply(&step).status(), LoginStatus::Full);
    }
    desk.pool.reported(NodeId::new(0, 1), load(1));
    let (_, step) = judge(&right(), Found::Account(ACCOUNT), &mut desk);
    asked(step, &mut desk);
}

#[test]
fn who_is_not_let_in_is_sent_to_another_node_once() {
    type Happens = fn(&mut Login, &mut Desk) -> Step;
    let full: Happens = |login, desk| login.grant_answered(GrantVerdict::Full, desk, NOW);
    let draining: Happens = |login, desk| login.grant_answered(GrantVerdict::Draining, desk, NOW);
    let timed_out: Happens = |login, desk| login.grant_lost(Lost::TimedOut, desk, NOW);
    let link_down: Happens = |login, desk| login.grant_lost(Lost::LinkDown, desk, NOW);
    for (first, second, expected) in [
        (full, full, LoginStatus::Full),
        (full, timed_out, LoginStatus::Busy),
        (draining, full, LoginStatus::Full),
        (timed_out, draining, LoginStatus::Busy),
        (link_down, link_down, LoginStatus::Busy),
    ] {
        let mut desk = desk(Rate::UNLIMITED, &[3, 3, 3]);
        let (login, step) = judge(&right(), Found::Account(ACCOUNT), &mut desk);
        let mut login = login.unwrap();
        let (link, grant) = asked(step, &mut desk);
        assert_eq!(link, LinkId(100));
        let step = first(&mut login, &mut desk);
        let (other_link, other_grant) = asked(step, &mut desk);
        assert_eq!(other_link, LinkId(101));
        assert!(other_grant.epoch > grant.epoch);
        assert_ne!(other_grant.ticket, grant.ticket);
        let step = second(&mut login, &mut desk);
        assert_eq!(reply(&step).status(), expected);
    }
}

#[test]
fn the_only_node_that_is_full_after_all_means_full() {
    let mut desk = desk(Rate::UNLIMITED, &[1]);
    let (login, step) = judge(&right(), Found::Account(ACCOUNT), &mut desk);
    asked(step, &mut desk);
    let step = login
        .unwrap()
        .grant_answered(GrantVerdict::Full, &mut desk, NOW);
    assert_eq!(reply(&step).status(), LoginStatus::Full);
}

#[test]
fn an_account_with_a_session_takes_over_its_place_on_a_full_node() {
    let held = |node: u64| common::link::message::Held {
        account_id: ACCOUNT.id,
        epoch: Epoch::at_ms(node),
        account_version: 1,
    };
    let mut desk = desk(Rate::UNLIMITED, &[5, 0]);
    desk.directory.attached(NodeId::new(1, 1), held(1));
    let (_, step) = judge(&right(), Found::Account(ACCOUNT), &mut desk);
    assert_eq!(asked(step, &mut desk).0, LinkId(101));

    let draining = LogicLoad {
        draining: true,
        ..load(0)
    };
    desk.pool.reported(NodeId::new(1, 1), draining);
    let again = forwarded(NOW.unix_ms, Nonce([10; 16]), &KEY);
    let (_, step) = judge(&again, Found::Account(ACCOUNT), &mut desk);
    assert_eq!(
        asked(step, &mut desk).0,
        LinkId(100),
        "but not while it drains"
    );
}

#[test]
fn without_a_stored_mark_no_epoch_is_published() {
    let mut desk = desk(Rate::UNLIMITED, &[5]);
    desk.epochs = Epochs::new(NodeNumber::new(0).unwrap(), Epoch::ZERO);
    let (_, step) = judge(&right(), Found::Account(ACCOUNT), &mut desk);
    assert_eq!(reply(&step).status(), LoginStatus::Busy);
    assert_eq!(desk.counters.of(Counter::NoEpoch), 1);
    assert_eq!(desk.pool.places().0, 5, "nothing stays reserved");
}

#[test]
fn replies_told_to_many_are_spread_in_time() {
    let mut desk = desk(Rate::UNLIMITED, &[0]);
    let waits: Vec<_> = (0..1_000_u16)
        .map(|n| {
            let [a, b] = n.to_le_bytes();
            let mut nonce = [0; 16];
            nonce[..2].copy_from_slice(&[a, b]);
            let login = forwarded(NOW.unix_ms, Nonce(nonce), &KEY);
            let (_, step) = judge(&login, Found::Account(ACCOUNT), &mut desk);
            reply(&step).retry_after_ms
        })
        .collect();
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!((5_000..5_200).contains(least) && (14_800..=15_000).contains(most));
}
