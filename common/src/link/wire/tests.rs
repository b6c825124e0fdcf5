use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::ids::AccountId;
use crate::secret::Secret;

const EPOCH: Epoch = Epoch::ZERO;

fn held(account: i64, epoch: i64) -> Held {
    Held {
        account_id: AccountId(account),
        epoch: Epoch::from_i64(epoch).expect("positive"),
        account_version: 3,
    }
}

fn order() -> Order {
    Order {
        command_id: 7,
        deadline_ms: 8,
        code: 1,
        payload: b"hi".to_vec(),
    }
}

/// Every message, and every variant of those that have several, with the bytes of its body.
fn golden() -> Vec<(Message, &'static str)> {
    let load = LogicLoad {
        places_used: 1,
        places_max: 2,
        draining: true,
    };
    let grant = Grant {
        account_id: AccountId(5),
        account: "a-1".parse().expect("a name"),
        account_version: 6,
        session_key: Secret::new([0x11; 32]),
        ticket: Secret::new([0x22; 16]),
        source: Some("10.0.0.1".parse().expect("an address")),
        epoch: Epoch::from_i64(9).expect("positive"),
        ttl_ms: 30_000,
        heartbeat_s: Some(60),
    };
    vec![
        (Ping.into(), ""),
        (
            Login {
                source: "10.0.0.1".parse().expect("an address"),
                body: vec![1, 2, 3],
            }
            .into(),
            "000000000a0000010300000000000000010203",
        ),
        (
            Login {
                source: "2001:db8::1".parse().expect("an address"),
                body: vec![],
            }
            .into(),
            "0100000020010db80000000000000000000000010000000000000000",
        ),
        (
            LoginAnswer { body: vec![5, 0] }.into(),
            "02000000000000000500",
        ),
        (
            ConnLoad {
                places_free: 1,
                places_max: 2,
                logins_open: 3,
            }
            .into(),
            "010000000200000003000000",
        ),
        (
            LogicInfo {
                advertise: vec![
                    "10.0.0.1:20000".parse().expect("an address"),
                    "[::1]:20000".parse().expect("an address"),
                ],
                load,
            }
            .into(),
            "0200000000000000000000000a000001204e0100000000000000000000000000000000000001204e010000000200000001",
        ),
        (
            grant.clone().into(),
            "05000000000000000300000000000000612d310600000011111111111111111111111111111111111111111111111111111111111111112222222222222222222222222222222201000000000a000001090000000000000030750000013c00",
        ),
        (
            Grant {
                source: None,
                heartbeat_s: None,
                ..grant
            }
            .into(),
            "05000000000000000300000000000000612d31060000001111111111111111111111111111111111111111111111111111111111111111222222222222222222222222222222220009000000000000003075000000",
        ),
        (
            GrantAnswer {
                verdict: GrantVerdict::Granted,
                load,
            }
            .into(),
            "00000000010000000200000001",
        ),
        (
            GrantAnswer {
                verdict: GrantVerdict::Full,
                load,
            }
            .into(),
            "01000000010000000200000001",
        ),
        (
            GrantAnswer {
                verdict: GrantVerdict::Draining,
                load,
            }
            .into(),
            "02000000010000000200000001",
        ),
        (
            GrantCheck {
                account_id: AccountId(5),
                epoch: Epoch::try_from(9).expect("small"),
            }
            .into(),
            "05000000000000000900000000000000",
        ),
        (GrantCheckAnswer { is_open: true }.into(), "01"),
        (load.into(), "010000000200000001"),
        (
            Adopt {
                sessions: vec![held(1, 2)],
                grants: vec![held(4, 5), held(6, 7)],
                last: true,
            }
            .into(),
            "0100000000000000010000000000000002000000000000000300000002000000000000000400000000000000050000000000000003000000060000000000000007000000000000000300000001",
        ),
        (
            Attached {
                sessions: vec![held(1, 2)],
            }
            .into(),
            "01000000000000000100000000000000020000000000000003000000",
        ),
        (
            Ended {
                sessions: vec![(AccountId(1), EPOCH)],
                grants: vec![(AccountId(2), EPOCH)],
            }
            .into(),
            "010000000000000001000000000000000000000000000000010000000000000002000000000000000000000000000000",
        ),
        (
            End {
                account_id: AccountId(1),
                below: Epoch::from_i64(2).expect("positive"),
            }
            .into(),
            "01000000000000000200000000000000",
        ),
        (
            Revoke {
                account_id: AccountId(1),
                below_version: 2,
                why: RevokeReason::Disabled,
            }
            .into(),
            "01000000000000000200000000000000",
        ),
        (
            Revoke {
                account_id: AccountId(1),
                below_version: u32::MAX,
                why: RevokeReason::KeyRotated,
            }
            .into(),
            "0100000000000000ffffffff01000000",
        ),
        (
            Command {
                account_id: AccountId(1),
                order: order(),
            }
            .into(),
            "010000000000000007000000000000000800000000000000010002000000000000006869",
        ),
        (
            CommandAnswer::Replied {
                status: 1,
                more: true,
                payload: vec![9],
            }
            .into(),
            "000000000101010000000000000009",
        ),
        (CommandAnswer::NotAttached.into(), "01000000"),
        (CommandAnswer::Busy.into(), "02000000"),
        (CommandAnswer::Lost.into(), "03000000"),
        (CommandAnswer::Expired.into(), "04000000"),
        (CommandAnswer::TooLarge.into(), "05000000"),
        (
            AccountCommand {
                account: "a-1".parse().expect("a name"),
                order: order(),
            }
            .into(),
            "0300000000000000612d3107000000000000000800000000000000010002000000000000006869",
        ),
    ]
    .into_iter()
    .chain(golden_for_operators())
    .collect()
}

/// What operators ask, and what the tiers tell one another for it.
fn golden_for_operators() -> Vec<(Message, &'static str)> {
    let address = "10.0.0.1:20000".parse().expect("an address");
    let figures = Figures {
        software: "1".into(),
        uptime_ms: 2,
        addresses: vec![address],
        values: vec![("a".into(), 3)],
    };
    let node = NodeView {
        role: Role::Logic,
        name: Some("l".parse().expect("a name")),
        link: "x:1".into(),
        state: NodeState::Draining,
        link_version: 2,
        places: Some(Places { used: 4, max: 5 }),
        figures: Some(figures.clone()),
    };
    let down = NodeView {
        name: None,
        state: NodeState::Down,
        link_version: 0,
        places: None,
        figures: None,
        ..node.clone()
    };
    let state = SessionState {
        epoch: Epoch::from_i64(9).expect("positive"),
        source: Some(address),
        heartbeat_s: 60,
        silent_ms: 7,
        unanswered: 8,
        command: true,
    };
    let look = SessionLook {
        state,
        attached_unix_ms: Some(10),
        contradicting: Some(11),
    };
    let cursor = SessionCursor {
        node: 1,
        after: Some(AccountId(2)),
    };
    let view = |account: Option<&str>| SessionView {
        account_id: AccountId(5),
        account: account.map(|name| name.parse().expect("a name")),
        epoch: Epoch::from_i64(9).expect("positive"),
    };
    let name = || "l".parse().expect("a name");
    let account = || "a-1".parse().expect("a name");
    vec![
        (NodesAsk.into(), ""),
        (
            NodesAnswer::Page {
                nodes: vec![node.clone(), down],
                more: true,
            }
            .into(),
            "000000000200000000000000020000000101000000000000006c0300000000000000783a310400000002000104000000050000000101000000000000003102000000000000000100000000000000000000000a000001204e0100000000000000010000000000000061030000000000000002000000000300000000000000783a31010000000000000001",
        ),
        (NodesAnswer::Busy.into(), "01000000"),
        (FiguresAsk.into(), ""),
        (
            figures.into(),
            "01000000000000003102000000000000000100000000000000000000000a000001204e01000000000000000100000000000000610300000000000000",
        ),
        (
            SessionsAsk {
                node: Some(name()),
                from: Some(cursor),
                limit: 3,
            }
            .into(),
            "0101000000000000006c01010001020000000000000003000000",
        ),
        (
            SessionsAsk {
                node: None,
                from: None,
                limit: 3,
            }
            .into(),
            "000003000000",
        ),
        (
            SessionsAnswer::Page {
                node: Some(name()),
                sessions: vec![view(Some("a-1")), view(None)],
                next: Some(cursor),
            }
            .into(),
            "000000000101000000000000006c02000000000000000500000000000000010300000000000000612d3109000000000000000500000000000000000900000000000000010100010200000000000000",
        ),
        (SessionsAnswer::UnknownNode.into(), "01000000"),
        (SessionsAnswer::Busy.into(), "02000000"),
        (
            SessionsAnswer::NoAnswer(name()).into(),
            "0300000001000000000000006c",
        ),
        (
            SessionsAnswer::Unsupported(name()).into(),
            "0400000001000000000000006c",
        ),
        (
            SessionPageAsk {
                after: Some(AccountId(1)),
                limit: 2,
            }
            .into(),
            "01010000000000000002000000",
        ),
        (
            SessionPage {
                sessions: vec![(AccountId(1), EPOCH)],
                last: true,
            }
            .into(),
            "01000000000000000100000000000000000000000000000001",
        ),
        (
            SessionAsk { account: account() }.into(),
            "0300000000000000612d31",
        ),
        (
            SessionAnswer::Session {
                account_id: AccountId(5),
                node: name(),
                state,
            }
            .into(),
            "00000000050000000000000001000000000000006c090000000000000001000000000a000001204e3c000700000000000000080001",
        ),
        (
            SessionAnswer::No(NoSession::UnknownAccount).into(),
            "0100000000000000",
        ),
        (
            SessionAnswer::No(NoSession::NotAttached).into(),
            "0100000001000000",
        ),
        (
            SessionAnswer::No(NoSession::Busy).into(),
            "0100000002000000",
        ),
        (
            SessionAnswer::No(NoSession::NoAnswer).into(),
            "0100000003000000",
        ),
        (
            SessionAnswer::No(NoSession::Unsupported).into(),
            "0100000004000000",
        ),
        (
            SessionCheck {
                account_id: AccountId(5),
            }
            .into(),
            "0500000000000000",
        ),
        (
            SessionCheckAnswer { state: Some(state) }.into(),
            "01090000000000000001000000000a000001204e3c000700000000000000080001",
        ),
        (SessionCheckAnswer { state: None }.into(), "00"),
        (
            SessionShown::Session {
                account_id: AccountId(5),
                node: name(),
                look,
            }
            .into(),
            "00000000050000000000000001000000000000006c090000000000000001000000000a000001204e3c000700000000000000080001010a00000000000000010b00000000000000",
        ),
        (
            SessionShown::No(NoSession::Unsupported).into(),
            "0100000004000000",
        ),
        (
            SessionLooked { look: Some(look) }.into(),
            "01090000000000000001000000000a000001204e3c000700000000000000080001010a00000000000000010b00000000000000",
        ),
        (SessionLooked { look: None }.into(), "00"),
        (
            KickAsk { account: account() }.into(),
            "0300000000000000612d31",
        ),
        (
            KickAnswer::Kicked {
                node: name(),
                epoch: EPOCH,
            }
            .into(),
            "0000000001000000000000006c0000000000000000",
        ),
        (
            KickAnswer::No(NoSession::NotAttached).into(),
            "0100000001000000",
        ),
        (
            Kick {
                account_id: AccountId(5),
            }
            .into(),
            "0500000000000000",
        ),
        (
            Kicked {
                epoch: Some(Epoch::from_i64(9).expect("positive")),
            }
            .into(),
            "010900000000000000",
        ),
        (Kicked { epoch: None }.into(), "00"),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn notice(message: Message) -> Envelope {
    Envelope {
        class: Class::Notice,
        id: 0,
        deadline_ms: 0,
        epoch: Epoch::ZERO,
        message,
    }
}

/// What follows `length`.
fn encoded(envelope: &Envelope) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(envelope, &mut bytes);
    let rest = bytes.split_off(LENGTH_BYTES);
    assert_eq!(bytes, (rest.len() as u32).to_le_bytes());
    rest
}

const HEADER_BYTES: usize = 23;

#[test]
fn every_message_has_its_golden_bytes() {
    let mut seen = BTreeSet::new();
    for (message, body) in golden() {
        seen.insert(number(&message));
        let bytes = encoded(&notice(message.clone()));
        assert_eq!(hex(&bytes[HEADER_BYTES..]), body, "{message:?}");
        assert_eq!(decode(&bytes).expect("decoded"), notice(message));
    }
    assert_eq!(seen, NUMBERS.iter().copied().collect(), "each has one");
}

#[test]
fn the_envelope_has_its_golden_bytes() {
    let envelope = Envelope {
        class: Class::Request,
        id: 0x0102_0304_0506_0708,
        deadline_ms: 2_500,
        epoch: Epoch::from_i64(0x1112_1314_1516_1718).expect("positive"),
        message: LoginAnswer { body: vec![0xAB] }.into(),
    };
    let bytes = encoded(&envelope);
    assert_eq!(
        hex(&bytes),
        "00\
         0807060504030201\
         c4090000\
         1817161514131211\
         0b00\
         0100000000000000ab"
    );
    assert_eq!(decode(&bytes).expect("decoded"), envelope);
}

#[test]
fn the_hello_has_its_golden_bytes() {
    let hello = Hello {
        version: 1,
        role: Role::Logic,
        node: "logic-1".parse().expect("a name"),
    };
    let mut bytes = Vec::new();
    encode_hello(&hello, &mut bytes);
    let golden = "0100020000000700000000000000".to_owned() + &hex(b"logic-1");
    assert_eq!(hex(&bytes), "15000000".to_owned() + &golden);
    assert_eq!(decode_hello(&bytes[4..]).expect("decoded"), hello);

    for (welcome, expected) in [
        (Welcome::Hello(hello), "00000000".to_owned() + &golden),
        (Welcome::RoleRefused, "01000000".to_owned()),
    ] {
        bytes.clear();
        encode_welcome(&welcome, &mut bytes);
        assert_eq!(hex(&bytes[4..]), expected);
        assert_eq!(decode_welcome(&bytes[4..]).expect("decoded"), welcome);
    }
}

#[test]
fn what_is_not_a_message_is_refused() {
    let good = encoded(&notice(LoginAnswer { body: vec![7; 9] }.into()));
    for length in 0..good.len() {
        assert!(decode(&good[..length]).is_err(), "cut at {length}");
    }
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    assert!(matches!(decode(&with(0, &[3])), Err(WireError::Class(3))));
    assert!(matches!(decode(&with(20, &[0xFF])), Err(WireError::Epoch)));
    assert!(matches!(
        decode(&with(21, &[99])),
        Err(WireError::Number(99))
    ));
    // A hostile length of the vector inside: refused before memory is reserved for it.
    assert!(decode(&with(HEADER_BYTES, &[0xFF; 8])).is_err());
    let mut longer = good.clone();
    longer.push(0);
    assert!(decode(&longer).is_err(), "a byte too many");
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), number in prop::sample::select(NUMBERS)) {
        let _ = decode(&bytes);
        let _ = decode_hello(&bytes);
        let _ = decode_welcome(&bytes);
        let _ = read_body(number, &bytes);
    }
}
