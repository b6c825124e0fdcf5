//! What a shard asked for in one step, in the words of the contract.

use std::collections::BTreeMap;

use common::link::message::{CommandAnswer, Message};
use logic_server::batch::Batch;
use logic_server::ids::Slot;
use logic_server::presence::Presence;
use logic_server::shard::{Effects, Ended, SessionSeed};
use protocols::rcu::attach::{AttachReply, Credential};
use protocols::rcu::code::{AckStatus, AttachStatus, CloseReason};
use protocols::rcu::frame::Frame;
use protocols::rcu::message::FromCluster;

use crate::contract::{self, End};

/// A frame to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Attached {
        id: u16,
    },
    TurnedAway {
        id: u16,
    },
    Heartbeat {
        id: u16,
        server_time_ms: u64,
    },
    Ack {
        id: u16,
        base_seq: u64,
        count: u8,
        status: AckStatus,
    },
    Command {
        id: u16,
        command_id: u64,
        payload: usize,
    },
    Close(CloseReason),
}

/// The effects of a step. What is of one slot is in order.
#[derive(Debug, Default)]
pub(super) struct Happened {
    pub(super) heard: BTreeMap<u32, Vec<Heard>>,
    /// The waits that devices were told, by slot, in order; 0 where there is none to tell.
    pub(super) waits_ms: BTreeMap<u32, Vec<u32>>,
    pub(super) closes: Vec<u32>,
    pub(super) ended: Vec<Ended>,
    /// By the id of their request.
    pub(super) answers: Vec<(u64, CommandAnswer)>,
    /// In order.
    pub(super) presence: Vec<Presence>,
    pub(super) batches: Vec<Batch>,
    pub(super) done: bool,
}

impl Happened {
    /// Takes the effects out. `seeds` are the sessions that are, or are being, attached.
    pub(super) fn take(effects: &mut Effects, seed: impl Fn(Slot) -> SessionSeed) -> Self {
        let mut happened = Self {
            closes: effects.closes.iter().map(|slot| slot.0).collect(),
            ended: std::mem::take(&mut effects.ended),
            presence: std::mem::take(&mut effects.presence),
            batches: std::mem::take(&mut effects.batches),
            done: effects.done,
            ..Self::default()
        };
        let answers = effects.answers.drain(..);
        happened.answers = answers
            .map(|it| match it.message {
                Message::CommandAnswer(answer) => (it.request, answer),
                other => panic!("{other:?}"),
            })
            .collect();
        let mut covered = 0;
        for send in &effects.sends {
            assert!(!send.bytes.is_empty(), "nothing to send");
            assert_eq!(send.bytes.start, covered, "every byte goes somewhere, once");
            covered = send.bytes.end;
            let (frames, end) = contract::frames(&effects.out[send.bytes.clone()], 1_024);
            assert_eq!(end, End::Incomplete { needed: 12 }, "whole frames");
            for frame in &frames {
                let (heard, wait_ms) = listen(frame, &seed(send.slot));
                happened.heard.entry(send.slot.0).or_default().push(heard);
                happened
                    .waits_ms
                    .entry(send.slot.0)
                    .or_default()
                    .push(wait_ms);
            }
        }
        assert_eq!(covered, effects.out.len());
        effects.clear();
        happened
    }
}

fn listen(frame: &contract::Frame, seed: &SessionSeed) -> (Heard, u32) {
    assert!(contract::id_is_right(frame.kind, frame.id), "{frame:?}");
    assert_eq!(
        contract::body(frame.kind, &frame.body),
        contract::Body::Right
    );
    assert_eq!(
        contract::taken_for(frame.kind, &frame.body),
        None,
        "listed codes"
    );
    let id = frame.id;
    let decoded = FromCluster::decode(&Frame {
        kind: frame.kind,
        id,
        body: &frame.body,
    });
    match decoded.expect("it is right") {
        FromCluster::AttachReply(reply) => attach_reply(id, &reply, seed),
        FromCluster::HeartbeatReply(reply) => {
            let server_time_ms = reply.server_time_ms;
            (Heard::Heartbeat { id, server_time_ms }, 0)
        }
        FromCluster::TelemetryAck(ack) => {
            let heard = Heard::Ack {
                id,
                base_seq: ack.base_seq,
                count: ack.count,
                status: ack.status,
            };
            (heard, ack.retry_after_ms)
        }
        FromCluster::Command(command) => {
            let heard = Heard::Command {
                id,
                command_id: command.command_id.0,
                payload: command.payload.len(),
            };
            (heard, 0)
        }
        FromCluster::Close(close) => (Heard::Close(close.reason), close.retry_after_ms),
        other => panic!("{other:?} of a shard"),
    }
}

fn attach_reply(id: u16, reply: &AttachReply<'_>, seed: &SessionSeed) -> (Heard, u32) {
    let credential = Credential::Ticket(seed.ticket);
    assert!(reply.verify(credential, &seed.session_key), "its proof");
    match reply.status() {
        AttachStatus::Ok => (Heard::Attached { id }, reply.retry_after_ms),
        AttachStatus::Draining => (Heard::TurnedAway { id }, reply.retry_after_ms),
        other => panic!("{other:?} of a shard"),
    }
}
