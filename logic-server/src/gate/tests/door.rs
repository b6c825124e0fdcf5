//! Pure. The first frame of a connection.

use std::net::Ipv6Addr;

use common::link::message::GrantVerdict;
use common::secret::Secret;
use protocols::rcu::attach::{Attach, Challenge, Resume, ResumeProof};
use protocols::rcu::code::AttachStatus;

use super::bench::*;
use crate::gate::door::Claim;
use crate::gate::*;

/// A door whose register takes its time, and a connection that claims to be somebody.
fn asked() -> (Door, Vec<Effect>, Claim, Seat) {
    let (mut door, mut effects) = (Door::new(&settings(), 1), vec![]);
    let mut bench = Bench::new(settings());
    let granted = grant(1, 1);
    let seed = bench.session(1, 1);
    door.accepted(
        ConnId(4),
        (ListenerIndex(0), address(1)),
        true,
        bench.now,
        &mut effects,
    );
    let claim = door.received(ConnId(4), &attach_frame(&granted), bench.now, &mut effects);
    let seat = Seat {
        shard: ShardIndex(0),
        seed,
    };
    (door, effects, claim.unwrap(), seat)
}

#[test]
fn what_comes_while_the_register_is_asked_is_handed_on_unread() {
    let now = Bench::new(settings()).now;
    let (mut door, mut effects, claim, seat) = asked();
    let more = attach_frame(&grant(2, 2));
    let second = door.received(ConnId(4), &more, now, &mut effects);
    assert!(second.is_none(), "whoever claims is judged once");
    assert!(door.judged(&claim, Ok(seat), now, &mut effects).is_ok());
    let [Effect::Admit { conn, unread, .. }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((*conn, unread), (ConnId(4), &more));
    assert_eq!(door.len(), 0);
}

#[test]
fn a_seat_that_comes_too_late_is_given_back() {
    let now = Bench::new(settings()).now;
    for goes_by_itself in [true, false] {
        let (mut door, mut effects, claim, seat) = asked();
        match goes_by_itself {
            true => door.disconnected(ConnId(4), &mut effects),
            false => {
                let flood = vec![0; Protocol::Rcu.read_bytes_max()];
                door.received(ConnId(4), &flood, now, &mut effects);
            }
        }
        let session = seat.seed.session;
        let given_back = door.judged(&claim, Ok(seat), now, &mut effects);
        assert_eq!(given_back.err().unwrap().seed.session, session);
        assert!(!effects.iter().any(|it| matches!(it, Effect::Admit { .. })));
    }
}

#[test]
fn a_ticket_with_its_proof_admits_the_account_of_its_grant() {
    let mut bench = Bench::new(settings());
    let mut granted = grant(5, 9);
    granted.heartbeat_s = Some(30);
    bench.grant(&granted);
    bench.now.unix_ms += 3;
    let seed = bench.attach(&granted).unwrap();
    assert_eq!(seed.account_id, AccountId(5));
    assert_eq!(seed.epoch, Epoch::at_ms(9));
    assert_eq!(seed.session_key, granted.session_key);
    assert_eq!(seed.ticket, granted.ticket);
    assert_eq!(seed.source, address(1));
    assert_eq!(seed.claim_frame_id, 7);
    assert_eq!(seed.heartbeat_s, 30);
    assert_eq!(seed.attached_unix_ms, bench.now.unix_ms);

    let other = bench.session(6, 10);
    assert_ne!(other.session, seed.session);
    assert_eq!(other.heartbeat_s, 60);
}

#[test]
fn an_attach_may_come_byte_by_byte() {
    let mut bench = Bench::new(settings());
    let granted = grant(1, 1);
    bench.grant(&granted);
    let conn = bench.connect(address(1)).unwrap();
    for byte in attach_frame(&granted) {
        assert!(bench.admitted().is_none());
        bench.receive(conn, &[byte]);
    }
    assert!(bench.admitted().is_some());
}

#[test]
fn a_ticket_admits_once() {
    let mut bench = Bench::new(settings());
    bench.grant(&grant(2, 2));
    let granted = grant(1, 1);
    bench.grant(&granted);
    assert!(bench.attach(&granted).is_ok());
    assert_eq!(bench.attach(&granted).unwrap_err(), not_admitted(7));
    assert_eq!(bench.counted(Counter::NotAdmittedTicket), 1);
}

#[test]
fn a_wrong_proof_does_not_use_the_ticket_up() {
    let mut bench = Bench::new(settings());
    let granted = grant(1, 1);
    bench.grant(&granted);
    let mut wrong = granted.clone();
    wrong.session_key = Secret::new([9; 32]);
    assert_eq!(bench.attach(&wrong).unwrap_err(), not_admitted(7));
    assert_eq!(bench.counted(Counter::NotAdmittedProof), 1);
    let explained = (address(1), Some(AccountId(1)), Counter::NotAdmittedProof);
    assert_eq!(bench.explained, [explained]);
    assert!(bench.attach(&granted).is_ok());
}

#[test]
fn another_address_does_not_use_the_ticket_up() {
    let mut bench = Bench::new(settings());
    let granted = grant(1, 1);
    bench.grant(&granted);
    assert_eq!(bench.connect(address(2)), None, "it holds no grant");
    assert_eq!(bench.counted(Counter::WithoutGrant), 1);

    let mut of_other = grant(2, 2);
    of_other.source = Some(address(2));
    bench.grant(&of_other);
    let conn = bench.connect(address(2)).unwrap();
    bench.receive(conn, &attach_frame(&granted));
    assert_eq!(bench.refusals(), [(conn, not_admitted(7))]);
    assert_eq!(bench.counted(Counter::NotAdmittedSource), 1);
    let (account, from) = (Some(AccountId(1)), address(2));
    let without = (from, None, Counter::WithoutGrant);
    let not_from_there = (from, account, Counter::NotAdmittedSource);
    assert_eq!(bench.explained, [without, not_from_there]);
    assert!(bench.attach(&granted).is_ok());
}

#[test]
fn an_address_is_64_bits_of_ipv6_or_ipv4_however_it_is_written() {
    let v6 = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().unwrap());
    for (granted_to, from, admits) in [
        (v6("2001:db8:1:2::1"), v6("2001:db8:1:2:ffff::9"), true),
        (v6("2001:db8:1:2::1"), v6("2001:db8:1:3::1"), false),
        (v6("::ffff:192.0.2.1"), address(1), true),
        (address(1), v6("::ffff:192.0.2.1"), true),
        (address(1), v6("::ffff:192.0.2.2"), false),
    ] {
        let mut bench = Bench::new(settings());
        let mut granted = grant(1, 1);
        granted.source = Some(granted_to);
        bench.grant(&granted);
        let conn = bench.connect(from);
        assert_eq!(conn.is_some(), admits, "{granted_to} {from}");
        if let Some(conn) = conn {
            bench.receive(conn, &attach_frame(&granted));
            let (_, seed, _) = bench.admitted().unwrap();
            assert_eq!(seed.source, from.to_canonical());
        }
    }
}

#[test]
fn without_source_check_any_address_will_do() {
    let mut bench = Bench::new(settings());
    let mut granted = grant(1, 1);
    granted.source = None;
    bench.grant(&granted);
    let conn = bench.connect(address(200)).unwrap();
    bench.receive(conn, &attach_frame(&granted));
    assert!(bench.admitted().is_some());
    assert_eq!(bench.connect(address(200)), None, "it is used up");
}

#[test]
fn an_expired_grant_does_not_admit() {
    let mut bench = Bench::new(settings());
    let granted = grant(1, 1);
    bench.grant(&granted);
    bench.now.ms += 29_999;
    let conn = bench.connect(address(1)).unwrap();
    bench.now.ms += 1;
    bench.receive(conn, &attach_frame(&granted));
    assert_eq!(bench.refusals(), [(conn, not_admitted(7))]);
    assert_eq!(bench.counted(Counter::GrantExpired), 1);
    assert_eq!(bench.connect(address(1)), None);
}

#[test]
fn resumption_is_off() {
    let mut bench = Bench::new(settings());
    bench.grant(&grant(1, 1));
    let mut resume = vec![];
    Resume { resumption: b"x" }.encode(11, &mut resume);
    assert_eq!(bench.send(&resume), Some(not_admitted(11)));
}

#[test]
fn anything_but_one_attach_or_resume_is_a_protocol_error() {
    let granted = grant(1, 1);
    let mut proof = vec![];
    ResumeProof::sign(Challenge([0; 16]), b"x", &granted.session_key).encode(1, &mut proof);
    let mut id_0 = vec![];
    Attach::sign(granted.ticket, &granted.session_key).encode(0, &mut id_0);
    let mut crc = attach_frame(&granted);
    crc[11] ^= 1;
    let mut version = attach_frame(&granted);
    version[2] = 0;
    let mut too_long = frame_of(0x03, 1, &[0; 500]);
    too_long[6..8].copy_from_slice(&501_u16.to_le_bytes());

    let mut cases = vec![
        (b"GET /".to_vec(), Counter::FrameMagic),
        (version, Counter::FrameVersion),
        (too_long[..12].to_vec(), Counter::FrameLength),
        (crc, Counter::FrameCrc),
        (id_0, Counter::FrameBody),
        (frame_of(0x03, 1, &[0; 47]), Counter::FrameBody),
        (frame_of(0x03, 1, &[0; 49]), Counter::FrameBody),
        (frame_of(0x01, 1, &[]), Counter::FrameBody),
        (frame_of(0x07, 1, &[0; 17]), Counter::FrameBody),
        (frame_of(0x05, 1, &[]), Counter::FrameState),
        (proof, Counter::FrameState),
    ];
    // Those of the cluster, and unknown ones.
    let others = [
        0x02, 0x04, 0x06, 0x08, 0x0A, 0x21, 0x2D, 0x2F, 0x00, 0x1F, 0x30,
    ];
    cases.extend(others.map(|kind| (frame_of(kind, 1, &[]), Counter::FrameState)));

    for (bytes, counter) in cases {
        let mut bench = Bench::new(settings());
        bench.grant(&granted);
        assert_eq!(bench.send(&bytes), Some(PROTOCOL_ERROR), "{bytes:x?}");
        assert_eq!(bench.counted(counter), 1, "{}", counter.name());
        assert_eq!(bench.counted(Counter::ClosedProtocolError), 1);
        assert!(bench.attach(&granted).is_ok(), "the ticket is not used up");
    }
}

#[test]
fn what_follows_the_attach_goes_along_up_to_512_bytes_in_all() {
    let mut bench = Bench::new(settings());
    let granted = grant(1, 1);
    bench.grant(&granted);
    let mut bytes = attach_frame(&granted);
    let attach_bytes = bytes.len();
    bytes.resize(513, 0xAA);
    assert_eq!(bench.send(&bytes), Some(PROTOCOL_ERROR));
    assert_eq!(bench.counted(Counter::FrameEarly), 1);

    // The same in two pieces, of which the second has the end of the Attach.
    let conn = bench.connect(address(1)).unwrap();
    bench.receive(conn, &bytes[..20]);
    bench.receive(conn, &bytes[20..]);
    assert_eq!(bench.refusals(), [(conn, PROTOCOL_ERROR)]);

    let conn = bench.connect(address(1)).unwrap();
    bench.receive(conn, &bytes[..20]);
    bench.receive(conn, &bytes[20..512]);
    let (_, _, unread) = bench.admitted().unwrap();
    assert_eq!(unread, &bytes[attach_bytes..512]);
}

#[test]
fn an_attach_not_whole_within_its_time_is_too_late() {
    let mut bench = Bench::new(settings());
    let granted = grant(1, 1);
    bench.grant(&granted);
    let silent = bench.connect(address(1)).unwrap();
    bench.pass(1_000);
    let slow = bench.connect(address(1)).unwrap();
    bench.receive(slow, &attach_frame(&granted)[..40]);
    bench.pass(3_999);
    assert_eq!(bench.refusals(), []);
    let late = Heard::Close(CloseReason::AttachTimeout);
    assert_eq!(bench.core.next_deadline(), Some(bench.now.ms + 1));
    bench.pass(1);
    assert_eq!(bench.refusals(), [(silent, late)]);
    // Bytes do not extend it.
    bench.now.ms += 1_000;
    bench.receive(slow, &attach_frame(&granted)[40..]);
    assert_eq!(bench.refusals(), [(slow, late)]);
    assert!(bench.admitted().is_none());
    assert_eq!(bench.counted(Counter::ClosedAttachTimeout), 2);
}

#[test]
fn when_too_many_wait_the_oldest_of_one_address_is_dropped() {
    let mut bench = Bench::new(Settings {
        pending_max: 2,
        ..settings()
    });
    bench.grant(&grant(1, 1));
    let first = bench.connect(address(1)).unwrap();
    let gone = bench.connect(address(1)).unwrap();
    bench.apply(Input::Disconnected { conn: gone });
    bench.connect(address(1)).unwrap();
    let conn = ConnId(77);
    bench.apply(Input::Accepted {
        conn,
        listener: ListenerIndex(0),
        source: address(1),
    });
    assert_eq!(bench.refusals(), [(first, Heard::Nothing)]);
    assert_eq!(bench.counted(Counter::PendingShed), 1);
    assert_eq!(bench.counted(Counter::PendingDisconnected), 1);
    assert_eq!(
        bench.attach(&grant(1, 1)).map(|seed| seed.account_id),
        Ok(AccountId(1))
    );
}

#[test]
fn an_address_that_opens_too_many_pushes_out_its_own() {
    let mut bench = Bench::new(Settings {
        pending_max: 3,
        ..settings()
    });
    for number in 1..=4 {
        bench.grant(&message::Grant {
            source: Some(address(number)),
            ..grant(number.into(), number.into())
        });
    }
    let quiet = bench.connect(address(1)).unwrap();
    let loud = [(); 2].map(|()| bench.connect(address(2)).unwrap());
    for number in 0..5 {
        let conn = ConnId(100 + number);
        let source = address(2);
        bench.apply(Input::Accepted {
            conn,
            listener: ListenerIndex(0),
            source,
        });
        let gone = match number {
            0 | 1 => loud[number as usize],
            _ => ConnId(100 + number - 2),
        };
        assert_eq!(bench.refusals(), [(gone, Heard::Nothing)]);
    }
    assert_eq!(bench.counted(Counter::PendingShed), 5);
    // As many of each address: the oldest of all.
    bench.apply(Input::Disconnected { conn: ConnId(104) });
    bench.connect(address(3)).unwrap();
    let conn = ConnId(200);
    let source = address(4);
    bench.apply(Input::Accepted {
        conn,
        listener: ListenerIndex(0),
        source,
    });
    assert_eq!(bench.refusals(), [(quiet, Heard::Nothing)]);
}

#[test]
fn a_newer_attach_ends_the_older_session_and_an_older_one_is_not_admitted() {
    let mut bench = Bench::new(settings());
    bench.grant(&grant(9, 100));
    let old = bench.session(1, 5);
    let new = bench.session(1, 7);
    assert_eq!(bench.endings(), [(old.session, CloseReason::Replaced)]);

    let late = grant(1, 6);
    bench.grant(&late);
    assert_eq!(bench.attach(&late).unwrap_err(), not_admitted(7));
    assert_eq!(bench.counted(Counter::NotAdmittedEpoch), 1);
    assert_eq!(bench.attach(&late).unwrap_err(), not_admitted(7), "used up");
    assert_eq!(bench.counted(Counter::NotAdmittedTicket), 1);

    // The end of the old one changes nothing.
    bench.session_ended(&old);
    bench.apply(Input::End(End {
        account_id: AccountId(1),
        below: Epoch::at_ms(8),
    }));
    assert_eq!(bench.endings(), [(new.session, CloseReason::Replaced)]);
    assert_eq!(bench.places_used(), 2);
    bench.session_ended(&new);
    assert_eq!(bench.places_used(), 1);
}

#[test]
fn epochs_grow_also_when_the_newer_session_is_over() {
    let mut bench = Bench::new(settings());
    let late = grant(1, 6);
    let new = bench.session(1, 7);
    bench.grant(&late);
    bench.session_ended(&new);
    assert_eq!(bench.attach(&late).unwrap_err(), not_admitted(7));
}

#[test]
fn an_older_open_grant_is_over_with_a_newer_attach() {
    let mut bench = Bench::new(settings());
    for number in [5, 6, 8] {
        bench.grant(&grant(1, number));
    }
    bench.session(1, 7);
    assert_eq!(bench.counted(Counter::GrantSuperseded), 2);
    assert_eq!(bench.attach(&grant(1, 5)).unwrap_err(), not_admitted(7));
    assert!(bench.attach(&grant(1, 8)).is_ok());
}

#[test]
fn sessions_go_to_the_shard_with_the_fewest() {
    let mut bench = Bench::new(settings());
    let mut attach = |account, number| {
        let granted = grant(account, number);
        bench.grant(&granted);
        bench.send(&attach_frame(&granted));
        let (shard, ..) = bench.admitted().unwrap();
        // Account 9 leaves again.
        if account == 9 {
            bench.apply(Input::SessionEnded {
                account_id: granted.account_id,
                epoch: granted.epoch,
            });
        }
        shard.0
    };
    assert_eq!([attach(1, 1), attach(2, 2), attach(3, 3)], [0, 1, 0]);
    assert_eq!([attach(9, 4), attach(9, 5)], [1, 1]);
    // A session that is replaced counts no more.
    assert_eq!([attach(1, 6), attach(4, 7), attach(5, 8)], [1, 0, 0]);
}

#[test]
fn at_shutdown_a_right_attach_is_told_to_come_back() {
    let mut bench = Bench::new(settings());
    let granted = grant(1, 1);
    bench.grant(&granted);
    bench.grant(&grant(2, 2));
    bench.apply(Input::Shutdown);
    let mut wrong = granted.clone();
    wrong.session_key = Secret::new([9; 32]);
    assert_eq!(bench.attach(&wrong).unwrap_err(), not_admitted(7));
    let draining = Heard::Reply {
        id: 7,
        status: AttachStatus::Draining,
    };
    assert_eq!(bench.attach(&granted).unwrap_err(), draining);
    assert_eq!(bench.counted(Counter::AttachDraining), 1);
    assert_eq!(bench.places_used(), 1);
    assert_eq!(bench.grant(&grant(3, 3)), GrantVerdict::Draining);
}
