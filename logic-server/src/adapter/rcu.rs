//! Pure. The cluster's own protocol, docs/protocol.md.

use common::ids::CommandId;
use protocols::rcu::attach::{AttachReply, AttachVerdict, Credential, Terms};
use protocols::rcu::close::Close;
use protocols::rcu::code::AckStatus;
use protocols::rcu::command::Command;
use protocols::rcu::error::MessageError;
use protocols::rcu::frame::{
    self, FRAME_BYTES_BEFORE_ATTACH_MAX, FRAME_BYTES_MAX, FRAME_BYTES_TO_DEVICE_MAX, Frame,
    FrameError, HEADER_BYTES, Parsed,
};
use protocols::rcu::message::{FromDevice, HeartbeatReply};
use protocols::rcu::telemetry::{Records, TelemetryAck};

use super::{Adapter, Cut, Evidence, Heard, Receipt, Reply, Word};
use crate::counters::Counter;

pub(crate) struct Rcu;

impl Adapter for Rcu {
    type Frame<'a> = Frame<'a>;
    type Records<'a> = Records<'a>;

    const BYTES_BEFORE_ADMISSION_MAX: usize = FRAME_BYTES_BEFORE_ATTACH_MAX;
    const FRAME_BYTES_MAX: usize = FRAME_BYTES_MAX;
    /// Header, command_id, deadline_ms, code and the payload's own length take the rest of a frame.
    const ORDER_BYTES_MAX: usize = FRAME_BYTES_TO_DEVICE_MAX - HEADER_BYTES - 8 - 8 - 2 - 2;

    #[inline]
    fn cut(bytes: &[u8], frame_bytes_max: usize) -> Result<Cut<Frame<'_>>, Counter> {
        match frame::parse(bytes, frame_bytes_max) {
            Ok(Parsed::Frame { frame, consumed }) => Ok(Cut::Frame { frame, consumed }),
            Ok(Parsed::Incomplete { needed }) => Ok(Cut::More { needed }),
            Err(FrameError::Magic) => Err(Counter::FrameMagic),
            Err(FrameError::Version) => Err(Counter::FrameVersion),
            Err(FrameError::Length) => Err(Counter::FrameLength),
            Err(FrameError::Crc) => Err(Counter::FrameCrc),
        }
    }

    #[inline]
    fn read<'a>(frame: &Self::Frame<'a>) -> Result<Heard<'a, Self::Records<'a>>, Counter> {
        let frame_id = frame.id;
        match FromDevice::decode(frame) {
            Ok(FromDevice::Telemetry(telemetry)) => Ok(Heard::Records {
                receipt: Receipt {
                    base_seq: telemetry.base_seq(),
                    frame_id,
                    count: telemetry.count(),
                },
                records: telemetry.records(),
            }),
            Ok(FromDevice::Heartbeat) => Ok(Heard::Alive { frame_id }),
            Ok(FromDevice::CommandReply(reply)) => Ok(Heard::Answer(Reply {
                frame_id,
                command_id: Some(reply.command_id),
                status: reply.status,
                more: reply.more,
                payload: reply.payload,
            })),
            Ok(FromDevice::Attach(attach)) => Ok(Heard::Claim {
                frame_id,
                evidence: Evidence::Ticket(attach),
            }),
            Ok(FromDevice::Resume(_)) => Ok(Heard::Claim {
                frame_id,
                evidence: Evidence::Resumption,
            }),
            Ok(FromDevice::Login(_) | FromDevice::ResumeProof(_))
            | Err(MessageError::WrongDirection) => Err(Counter::FrameState),
            Err(MessageError::UnknownKind) => Ok(Heard::Unknown),
            Err(MessageError::TelemetryCannotBeCut {
                base_seq, count, ..
            }) => Ok(Heard::Malformed {
                receipt: Receipt {
                    base_seq,
                    frame_id,
                    count,
                },
            }),
            Err(MessageError::Body(_)) => Err(Counter::FrameBody),
        }
    }

    #[inline]
    fn write(word: &Word<'_>, out: &mut Vec<u8>) {
        match *word {
            Word::Alive { frame_id, unix_ms } => {
                let server_time_ms = unix_ms;
                HeartbeatReply { server_time_ms }.encode(frame_id, out);
            }
            Word::Stored(receipt) => acknowledge(receipt, AckStatus::Stored, 0, out),
            Word::Malformed(receipt) => acknowledge(receipt, AckStatus::Malformed, 0, out),
            Word::NotNow {
                receipt,
                retry_after_ms,
            } => acknowledge(receipt, AckStatus::Overloaded, retry_after_ms, out),
            Word::Order { frame_id, order } => {
                let command = Command {
                    command_id: CommandId(order.command_id),
                    deadline_ms: order.deadline_ms,
                    code: order.code,
                    payload: &order.payload,
                };
                command.encode(frame_id, out);
            }
            Word::Welcome {
                frame_id,
                terms,
                unix_ms,
            } => {
                let promised = Terms {
                    heartbeat_s: terms.heartbeat_s,
                    window: terms.window,
                    resume_ttl_s: 0,
                    resumption: &[],
                };
                let credential = Credential::Ticket(terms.ticket);
                AttachReply::ok(unix_ms, promised, credential, terms.session_key)
                    .encode(frame_id, out);
            }
            Word::NotAdmitted { frame_id, unix_ms } => {
                turn_away(frame_id, AttachVerdict::NotAdmitted, 0, unix_ms, out);
            }
            Word::Draining {
                frame_id,
                retry_after_ms,
                unix_ms,
            } => turn_away(
                frame_id,
                AttachVerdict::Draining,
                retry_after_ms,
                unix_ms,
                out,
            ),
            Word::Goodbye {
                reason,
                retry_after_ms,
            } => {
                let close = Close {
                    reason,
                    retry_after_ms,
                };
                close.encode(out);
            }
        }
    }
}

fn acknowledge(receipt: Receipt, status: AckStatus, retry_after_ms: u32, out: &mut Vec<u8>) {
    let ack = TelemetryAck {
        base_seq: receipt.base_seq,
        count: receipt.count,
        status,
        retry_after_ms,
    };
    ack.encode(receipt.frame_id, out);
}

fn turn_away(
    frame_id: u16,
    verdict: AttachVerdict<'_>,
    retry_after_ms: u32,
    server_time_ms: u64,
    out: &mut Vec<u8>,
) {
    let reply = AttachReply {
        retry_after_ms,
        server_time_ms,
        verdict,
    };
    reply.encode(frame_id, out);
}
