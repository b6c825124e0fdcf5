//! Pure. A shard with a driver that delivers at once, and what devices say and hear.

use std::net::Ipv4Addr;

use common::link::message::{CommandAnswer, Message, Order, SessionLook};
use common::link::{Asker, LinkId};
use common::secret::Secret;
use protocols::rcu::attach::Credential;
use protocols::rcu::code::{AckStatus, AttachStatus};
use protocols::rcu::frame::{self, Frame, Parsed};
use protocols::rcu::kind;
use protocols::rcu::message::{FromCluster, HeartbeatReply};
use protocols::rcu::telemetry::TelemetryAck;

use crate::shard::*;

/// What a device hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Attached {
        id: u16,
    },
    Turned {
        id: u16,
        status: AttachStatus,
        retry_after_ms: u32,
    },
    Heartbeat {
        id: u16,
        server_time_ms: u64,
    },
    Ack {
        id: u16,
        ack: TelemetryAck,
    },
    Command {
        id: u16,
        command_id: u64,
        payload: Vec<u8>,
    },
    Close {
        reason: CloseReason,
        retry_after_ms: u32,
    },
}

pub(super) const CLOSE_PROTOCOL_ERROR: Heard = Heard::Close {
    reason: CloseReason::ProtocolError,
    retry_after_ms: 0,
};

pub(super) fn settings() -> Settings {
    Settings {
        shard: ShardIndex(3),
        window: 2,
        unsent_bytes_max: 65_536,
        batch: batch::Limits {
            rows_max: 100,
            bytes_max: 10_000,
            age_ms_max: 20,
        },
        overload_retry_ms: 1_000,
        shutdown_spread_ms: 10_000,
    }
}

pub(in crate::shard) fn seed(session: u64) -> SessionSeed {
    SessionSeed {
        session: SessionId(session),
        protocol: Protocol::Rcu,
        account_id: AccountId(1_000 + session as i64),
        epoch: Epoch::at_ms(session),
        session_key: Secret::new([7; 32]),
        ticket: Secret::new([8; 16]),
        source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        claim_frame_id: 77,
        heartbeat_s: 60,
        attached_unix_ms: 1_767_225_600_005,
    }
}

/// A shard with a driver that delivers at once and keeps what it is asked for.
pub(super) struct Bench {
    pub(super) shard: Shard,
    pub(super) now: Now,
    pub(super) effects: Effects,
    /// What devices heard, in order.
    pub(super) heard: Vec<(Slot, Heard)>,
    pub(super) closed: Vec<Slot>,
    pub(super) presence: Vec<Presence>,
    pub(super) batches: Vec<Batch>,
    pub(super) ended: Vec<Ended>,
    pub(super) answers: Vec<Answer>,
    pub(super) explained: Vec<Explained>,
    pub(super) done: bool,
}

impl Bench {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            shard: Shard::new(settings, 1),
            now: Now {
                ms: 1_000_000,
                unix_ms: 1_767_225_600_000,
            },
            effects: Effects::default(),
            heard: vec![],
            closed: vec![],
            presence: vec![],
            batches: vec![],
            ended: vec![],
            answers: vec![],
            explained: vec![],
            done: false,
        }
    }

    /// With a session in slot 0.
    pub(super) fn attached(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        bench.adopt(0, 1);
        bench.commit();
        bench.heard.clear();
        bench
    }

    pub(super) fn apply(&mut self, input: Input<'_>) {
        self.shard.apply(input, self.now, &mut self.effects);
        let out = std::mem::take(&mut self.effects.out);
        for send in &self.effects.sends {
            for heard in listen(&out[send.bytes.clone()]) {
                self.heard.push((send.slot, heard));
            }
        }
        self.closed.append(&mut self.effects.closes);
        self.presence.append(&mut self.effects.presence);
        self.batches.append(&mut self.effects.batches);
        self.ended.append(&mut self.effects.ended);
        self.answers.append(&mut self.effects.answers);
        self.explained.append(&mut self.effects.explained);
        self.done |= self.effects.done;
        self.effects.clear();
    }

    pub(super) fn adopt(&mut self, slot: u32, session: u64) {
        self.apply(Input::Adopt {
            slot: Slot(slot),
            seed: seed(session),
            unread: &[],
        });
    }

    pub(super) fn receive(&mut self, slot: u32, bytes: &[u8]) {
        let slot = Slot(slot);
        self.apply(Input::Received { slot, bytes });
    }

    pub(super) fn tick(&mut self) {
        let read_until_ms = self.now.ms;
        self.apply(Input::Tick { read_until_ms });
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.unix_ms += ms;
        self.tick();
    }

    /// Ends the turn and has everything stored.
    pub(super) fn commit(&mut self) {
        self.finish(BatchOutcome::Stored);
    }

    pub(super) fn finish(&mut self, outcome: BatchOutcome) {
        self.tick();
        while !self.batches.is_empty() {
            let batch = self.batches.remove(0);
            self.apply(Input::Finished { batch, outcome });
            self.tick();
        }
    }

    pub(super) fn take_heard(&mut self) -> Vec<Heard> {
        self.heard.drain(..).map(|(_, heard)| heard).collect()
    }

    pub(super) fn command(&mut self, session: u64, request: u64, order: Order) {
        self.ask(session, request, Question::Command(order));
    }

    pub(super) fn ask(&mut self, session: u64, request: u64, question: Question) {
        self.apply(Input::Ask {
            session: SessionId(session),
            ask: Ask {
                asker: Asker {
                    link: LinkId(9),
                    request,
                    until_ms: self.now.ms + 10_000,
                },
                account_id: seed(session).account_id,
                question,
            },
        });
    }

    pub(super) fn take_answers(&mut self) -> Vec<(u64, CommandAnswer)> {
        let answers = self.answers.drain(..);
        let opened = answers.map(|it| match it.message {
            Message::CommandAnswer(answer) => (it.request, answer),
            other => panic!("{other:?}"),
        });
        opened.collect()
    }

    /// The answer to a look.
    pub(super) fn take_look(&mut self) -> Option<(Slot, SessionLook)> {
        let answer = self.answers.remove(0);
        let Message::SessionLooked(looked) = answer.message else {
            panic!("{answer:?}");
        };
        Some((answer.looked_at?, looked.look?))
    }
}

/// The frames of a session's output.
fn listen(mut bytes: &[u8]) -> Vec<Heard> {
    let mut heard = vec![];
    while !bytes.is_empty() {
        let Ok(Parsed::Frame { frame, consumed }) = frame::parse(bytes, 1_024) else {
            panic!("a shard sends whole frames");
        };
        bytes = &bytes[consumed..];
        let id = frame.id;
        heard.push(match FromCluster::decode(&frame).unwrap() {
            FromCluster::AttachReply(reply) if reply.status() == AttachStatus::Ok => {
                let credential = Credential::Ticket(seed(0).ticket);
                assert!(reply.verify(credential, &seed(0).session_key));
                Heard::Attached { id }
            }
            FromCluster::AttachReply(reply) => Heard::Turned {
                id,
                status: reply.status(),
                retry_after_ms: reply.retry_after_ms,
            },
            FromCluster::HeartbeatReply(HeartbeatReply { server_time_ms }) => {
                Heard::Heartbeat { id, server_time_ms }
            }
            FromCluster::TelemetryAck(ack) => Heard::Ack { id, ack },
            FromCluster::Command(command) => Heard::Command {
                id,
                command_id: command.command_id.0,
                payload: command.payload.to_vec(),
            },
            FromCluster::Close(close) => {
                assert_eq!(id, 0);
                Heard::Close {
                    reason: close.reason,
                    retry_after_ms: close.retry_after_ms,
                }
            }
            other => panic!("{other:?}"),
        });
    }
    heard
}

pub(super) fn frame_of(kind: u8, id: u16, body: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    Frame { kind, id, body }.encode(&mut out);
    out
}

/// A Telemetry frame: records of an unknown kind, whose payload is their sequence number.
pub(super) fn telemetry(id: u16, base_seq: u64, count: u8) -> Vec<u8> {
    let mut body = vec![];
    body.extend_from_slice(&base_seq.to_le_bytes());
    body.extend_from_slice(&1_767_225_600_000_u64.to_le_bytes());
    body.push(count);
    for seq in (base_seq..).take(count.into()) {
        body.extend_from_slice(&[200, 8, 1, 0, 0, 0]);
        body.extend_from_slice(&seq.to_le_bytes());
    }
    frame_of(kind::TELEMETRY, id, &body)
}

pub(super) fn heartbeat(id: u16) -> Vec<u8> {
    frame_of(kind::HEARTBEAT, id, &[])
}

pub(super) fn stored(id: u16, base_seq: u64, count: u8) -> Heard {
    let ack = TelemetryAck {
        base_seq,
        count,
        status: AckStatus::Stored,
        retry_after_ms: 0,
    };
    Heard::Ack { id, ack }
}

/// The wait of an `overloaded` for this frame.
pub(super) fn overloaded_wait(heard: &Heard, frame_id: u16) -> u32 {
    match heard {
        Heard::Ack { id, ack } if *id == frame_id && ack.status == AckStatus::Overloaded => {
            ack.retry_after_ms
        }
        other => panic!("{other:?}"),
    }
}
