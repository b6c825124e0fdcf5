//! Pure. Commands to a device and its replies.

use common::link::message::CommandAnswer;

pub use common::ids::CommandId;

use super::body::{Reader, Sink};
use super::code::CommandStatus;
use super::error::MessageError;
use super::{frame, kind};

/// The cluster's own command codes; 0..=0x00FF are kept for it, the rest are the fleet's.
pub mod cluster_code {
    pub const PING: u16 = 1;
    /// Payload: u64, Unix milliseconds.
    pub const SET_CLOCK: u16 = 2;
    /// Payload: u32, milliseconds; 0: the device's default.
    pub const SET_REPORT_INTERVAL: u16 = 3;
    pub const READ_CONFIG: u16 = 4;
    pub const REBOOT: u16 = 5;
}

/// How a command ended, as logs and JSON have it; of one that goes on, what the device says so far.
pub fn outcome(answer: &CommandAnswer) -> &'static str {
    match answer {
        CommandAnswer::Replied { status, .. } => {
            CommandStatus::from_code(*status).map_or("unknown", CommandStatus::name)
        }
        CommandAnswer::NotAttached => "not_attached",
        CommandAnswer::Busy => "another_command",
        CommandAnswer::Lost => "lost",
        CommandAnswer::Expired => "no_answer",
        CommandAnswer::TooLarge => "too_large",
    }
}

/// "Do this."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    pub command_id: CommandId,
    /// Unix milliseconds after which it is not to be begun; 0: none.
    pub deadline_ms: u64,
    pub code: u16,
    pub payload: &'a [u8],
}

impl<'a> Command<'a> {
    pub fn decode_body(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let command = Self {
            command_id: CommandId(body.u64()?),
            deadline_ms: body.u64()?,
            code: body.u16()?,
            payload: body.bytes16()?,
        };
        body.end()?;
        Ok(command)
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::COMMAND, id, out, |out| {
            out.put(&self.command_id.0.to_le_bytes());
            out.put(&self.deadline_ms.to_le_bytes());
            out.put(&self.code.to_le_bytes());
            out.put_bytes16(self.payload);
        });
    }
}

/// "This is what came of it."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandReply<'a> {
    pub command_id: CommandId,
    pub status: CommandStatus,
    /// Further replies to the same command follow.
    pub more: bool,
    pub payload: &'a [u8],
}

impl<'a> CommandReply<'a> {
    /// Strict: the contract gives the cluster no meaning for a status that it does not list.
    pub fn decode_body(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let reply = Self {
            command_id: CommandId(body.u64()?),
            status: CommandStatus::from_code(body.u8()?).ok_or(MessageError::Body("status"))?,
            more: body.flag("more")?,
            payload: body.bytes16()?,
        };
        body.end()?;
        Ok(reply)
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::COMMAND_REPLY, id, out, |out| {
            out.put(&self.command_id.0.to_le_bytes());
            out.put(&[self.status.code(), u8::from(self.more)]);
            out.put_bytes16(self.payload);
        });
    }
}
