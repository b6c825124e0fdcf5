//! Pure. Whatever comes, a device neither panics nor forgets what was not acknowledged.

use proptest::prelude::*;

use super::*;

/// Brings a device to a phase of its life.
fn at_phase(phase: u8) -> (Bench, Option<SessionKey>) {
    let mut bench = Bench::new();
    let mut key = None;
    match phase % 5 {
        0 => bench.power_on(),
        1 => {
            bench.reach_login();
        }
        2 => key = Some(bench.reach_attach()),
        3 => key = Some(bench.reach_session()),
        _ => key = Some(bench.reach_session_with(RESUMABLE)),
    }
    (bench, key)
}

#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    /// A frame of any kind with a right checksum.
    Frame {
        kind: u8,
        id: u16,
        body: Vec<u8>,
    },
    Report(Vec<u8>),
    Pass(u64),
    Connected,
    Lose,
    Resolved(u8),
    PowerCut,
    PowerOn,
    Clock(Option<u64>),
    Command {
        id: u64,
        code: u16,
        payload: Vec<u8>,
    },
    Close(u8, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        bytes().prop_map(Step::Bytes),
        (any::<u8>(), 0_u16..6, bytes()).prop_map(|(kind, id, body)| Step::Frame {
            kind,
            id,
            body
        }),
        (0x20_u8..0x30, 0_u16..6, bytes()).prop_map(|(kind, id, body)| Step::Frame {
            kind,
            id,
            body
        }),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Step::Report),
        (0_u64..4_000_000).prop_map(Step::Pass),
        Just(Step::Connected),
        Just(Step::Lose),
        (0_u8..4).prop_map(Step::Resolved),
        Just(Step::PowerCut),
        Just(Step::PowerOn),
        any::<Option<u64>>().prop_map(Step::Clock),
        (
            0_u64..4,
            prop_oneof![0_u16..8, Just(WORK)],
            prop::collection::vec(any::<u8>(), 0..9)
        )
            .prop_map(|(id, code, payload)| Step::Command { id, code, payload }),
        (0_u8..10, any::<u32>()).prop_map(|(reason, wait)| Step::Close(reason, wait)),
    ]
}

impl Bench {
    fn take_step(&mut self, step: &Step) {
        let conn = self.device.conn().unwrap_or(ConnId(0));
        match step {
            Step::Bytes(bytes) => self.apply(Input::Received { conn, bytes }),
            Step::Frame { kind, id, body } => {
                let (kind, id) = (*kind, *id);
                let mut bytes = vec![];
                Frame { kind, id, body }.encode(&mut bytes);
                self.apply(Input::Received {
                    conn,
                    bytes: &bytes,
                });
            }
            Step::Report(kinds) => self.report(kinds),
            Step::Pass(ms) => self.pass(*ms),
            Step::Connected => self.apply(Input::Connected { conn }),
            Step::Lose => self.apply(Input::Disconnected { conn }),
            Step::Resolved(count) => {
                let addresses = balancers();
                let count = usize::from(*count).min(addresses.len());
                self.resolve(&addresses[..count]);
            }
            Step::PowerCut => self.apply(Input::PowerCut),
            Step::PowerOn => self.apply(Input::PowerOn),
            Step::Clock(unix_ms) => self.apply(Input::ClockSet { unix_ms: *unix_ms }),
            Step::Command { id, code, payload } => {
                let mut bytes = vec![];
                let command = Command {
                    command_id: CommandId(*id),
                    deadline_ms: 0,
                    code: *code,
                    payload,
                };
                command.encode(1, &mut bytes);
                self.apply(Input::Received {
                    conn,
                    bytes: &bytes,
                });
            }
            Step::Close(reason, retry_after_ms) => {
                let reason = CloseReason::from_code(*reason).unwrap_or(CloseReason::Idle);
                let mut bytes = vec![];
                Close {
                    reason,
                    retry_after_ms: *retry_after_ms,
                }
                .encode(&mut bytes);
                self.apply(Input::Received {
                    conn,
                    bytes: &bytes,
                });
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_that_happens_panics_or_loses_a_record(
        phase in any::<u8>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let (mut bench, _) = at_phase(phase);
        let mut recorded = 0;
        let mut released = 0;
        for step in &steps {
            if let Step::Report(kinds) = step {
                recorded += kinds.len();
            }
            bench.take_step(step);
            for event in std::mem::take(&mut bench.events) {
                match event {
                    Event::NotRecorded { count } => recorded -= count as usize,
                    Event::FrameAnswered { count, status, .. }
                        if status != AckStatus::Overloaded => released += usize::from(count),
                    _ => {}
                }
            }
            prop_assert_eq!(bench.device.unacknowledged(), recorded - released);
            let deadline_ms = bench.device.next_deadline(bench.now_ms);
            // A device that is on has something to wait for.
            prop_assert!(deadline_ms.is_some() || matches!(bench.device.phase, Phase::Off));
            // And what is due stays due only until it is ticked: no driver may spin.
            if deadline_ms.is_some_and(|deadline_ms| deadline_ms <= bench.now_ms) {
                bench.pass(0);
            }
        }
    }

    #[test]
    fn any_cut_of_the_stream_is_the_same_stream(
        cuts in prop::collection::vec(1_usize..40, 0..60),
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8),
    ) {
        let stream = |bench: &mut Bench, cuts: &[usize]| {
            let mut bytes = vec![];
            for (id, payload) in (1..).zip(&payloads) {
                Command { command_id: CommandId(id), deadline_ms: 0, code: 1, payload }
                    .encode(id as u16, &mut bytes);
            }
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                bench.say_bytes(piece);
                rest = after;
            }
            bench.say_bytes(rest);
        };
        let mut whole = Bench::new();
        whole.reach_session();
        stream(&mut whole, &[]);
        let mut pieces = Bench::new();
        pieces.reach_session();
        stream(&mut pieces, &cuts);
        prop_assert_eq!(&whole.sent, &pieces.sent);
        prop_assert_eq!(&whole.events, &pieces.events);
    }

    #[test]
    fn a_flipped_bit_never_admits(bit in 0_usize..8 * 65) {
        let mut bench = Bench::new();
        let key = bench.reach_attach();
        let reply = AttachReply::ok(UNIX_MS, TERMS, Credential::Ticket(TICKET), &key);
        let mut bytes = vec![];
        reply.encode(1, &mut bytes);
        let bit = bit % (8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        bench.say_bytes(&bytes);
        prop_assert!(!bench.device.is_attached());
    }
}
