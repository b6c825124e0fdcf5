//! Pure. One attached device: its frames, and what it has open.
//!
//! An idle session has no buffers. What a read left of a frame is kept in a box of its own until
//! the rest has come, and so is a command that waits for its reply.

use std::num::NonZeroU16;

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::message::{SessionLook, SessionState};
use common::time::Now;
use protocols::rcu::code::CloseReason;
use protocols::rcu::error::MessageError;
use protocols::rcu::frame::{self, FRAME_BYTES_MAX, Frame, Parsed};
use protocols::rcu::limit::SILENT_HEARTBEATS;
use protocols::rcu::message::{FromDevice, HeartbeatReply};
use rand::rngs::SmallRng;

use super::command::UnderWay;
use super::effects::Effects;
use super::{SessionSeed, Settings};
use crate::batch::Collector;
use crate::counters::{Counter, Counters};
use crate::ids::{SessionId, Slot};

/// All that is kept of a device that says nothing.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) account_id: AccountId,
    pub(super) epoch: Epoch,
    /// When the last whole good frame came, or AttachReply went.
    heard_ms: u64,
    partial: Option<Box<Partial>>,
    /// The command under way.
    pub(super) command: Option<Box<UnderWay>>,
    /// Not 0, so that an empty slot takes no more than a session.
    heartbeat_s: NonZeroU16,
    /// Of the last Command sent.
    pub(super) command_frame_id: u16,
    /// Telemetry frames that are at the store; and on top of a full window, which is the only time that
    /// there are any, those beyond it since a place was freed.
    pub(super) frames_open: u16,
    /// So many of the next Telemetry frames may have been sent before.
    pub(super) may_repeat: u16,
    /// When it was attached, by the wall clock; for people.
    attached_unix_s: u32,
    /// Records whose number and time were used before, for something else.
    pub(super) contradicting: u32,
}

// LIMITS.md G2: 256 bytes an idle session in all of the process.
const _: () = assert!(size_of::<Option<Session>>() <= 64);

/// A frame of which more is to come.
#[derive(Debug)]
struct Partial {
    /// Grows with what has come, not with what the header promises.
    bytes: Vec<u8>,
    /// Length of the frame as far as it is known; more than there is.
    needed: usize,
}

/// What a session works with while it handles input: everything of the shard but the sessions.
pub(super) struct Turn<'a> {
    pub(super) slot: Slot,
    pub(super) now: Now,
    /// False once the shard shuts down.
    pub(super) takes_telemetry: bool,
    pub(super) settings: &'a Settings,
    pub(super) collector: &'a mut Collector,
    pub(super) counters: &'a mut Counters,
    pub(super) rng: &'a mut SmallRng,
    pub(super) effects: &'a mut Effects,
}

impl Session {
    pub(super) fn new(seed: &SessionSeed, window: u16, now: Now) -> Self {
        Self {
            id: seed.session,
            account_id: seed.account_id,
            epoch: seed.epoch,
            heard_ms: now.ms,
            partial: None,
            command: None,
            heartbeat_s: NonZeroU16::new(seed.heartbeat_s).unwrap_or(NonZeroU16::MIN),
            command_frame_id: 0,
            frames_open: 0,
            may_repeat: window,
            attached_unix_s: u32::try_from(seed.attached_unix_ms / 1_000).unwrap_or(u32::MAX),
            contradicting: 0,
        }
    }

    /// Of a frame that is not whole.
    pub(super) fn partial_bytes(&self) -> usize {
        self.partial
            .as_ref()
            .map_or(0, |partial| partial.bytes.len())
    }

    #[cfg(test)]
    pub(super) fn has_buffer(&self) -> bool {
        self.partial.is_some()
    }

    /// Nothing is heard for too long, of all that was sent until `read_until_ms`.
    pub(super) fn is_idle(&self, read_until_ms: u64) -> bool {
        read_until_ms >= self.idle_at_ms()
    }

    /// When there may be something to do though nothing comes.
    pub(super) fn next_timer_ms(&self) -> u64 {
        let command = self.command.as_ref();
        let command = command.map_or(u64::MAX, |it| it.until_ms());
        command.min(self.idle_at_ms())
    }

    fn idle_at_ms(&self) -> u64 {
        self.heard_ms + SILENT_HEARTBEATS * u64::from(self.heartbeat_s.get()) * 1_000
    }

    /// For somebody who looks at it.
    pub(super) fn look(&self, window: u16, now: Now) -> SessionLook {
        let state = SessionState {
            epoch: self.epoch,
            source: None,
            heartbeat_s: self.heartbeat_s.get(),
            silent_ms: now.ms.saturating_sub(self.heard_ms),
            unanswered: self.unanswered(window),
            command: self.command.is_some(),
        };
        SessionLook {
            state,
            attached_unix_ms: Some(u64::from(self.attached_unix_s) * 1_000),
            contradicting: Some(self.contradicting.into()),
        }
    }

    /// Handles every frame that `bytes` completes, and keeps the rest. An error closes the session.
    pub(super) fn received(
        &mut self,
        bytes: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), CloseReason> {
        let mut bytes = self.complete(bytes, turn)?;
        while !bytes.is_empty() {
            match frame::parse(bytes, FRAME_BYTES_MAX) {
                Ok(Parsed::Frame { frame, consumed }) => {
                    self.frame(&frame, turn)?;
                    bytes = &bytes[consumed..];
                }
                Ok(Parsed::Incomplete { needed }) => {
                    let bytes = bytes.to_vec();
                    self.partial = Some(Box::new(Partial { bytes, needed }));
                    break;
                }
                Err(error) => return Err(self.broken(Counter::frame(error), turn)),
            }
        }
        Ok(())
    }

    /// Completes the frame that was begun, if one was, and handles it; returns what follows it.
    fn complete<'b>(
        &mut self,
        mut bytes: &'b [u8],
        turn: &mut Turn<'_>,
    ) -> Result<&'b [u8], CloseReason> {
        let Some(mut partial) = self.partial.take() else {
            return Ok(bytes);
        };
        loop {
            let missing = partial.needed - partial.bytes.len();
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            partial.bytes.extend_from_slice(part);
            bytes = rest;
            match frame::parse(&partial.bytes, FRAME_BYTES_MAX) {
                Ok(Parsed::Frame { frame, .. }) => {
                    self.frame(&frame, turn)?;
                    return Ok(bytes);
                }
                // The header told how long the body is, or there is nothing to go on with.
                Ok(Parsed::Incomplete { needed }) => {
                    partial.needed = needed;
                    if bytes.is_empty() {
                        self.partial = Some(partial);
                        return Ok(bytes);
                    }
                }
                Err(error) => return Err(self.broken(Counter::frame(error), turn)),
            }
        }
    }

    fn frame(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_>) -> Result<(), CloseReason> {
        self.heard_ms = turn.now.ms;
        match FromDevice::decode(frame) {
            Ok(FromDevice::Telemetry(telemetry)) => self.telemetry(frame.id, &telemetry, turn),
            Ok(FromDevice::Heartbeat) => {
                turn.counters.count(Counter::Heartbeats);
                let server_time_ms = turn.now.unix_ms;
                turn.effects.send(turn.slot, |out| {
                    HeartbeatReply { server_time_ms }.encode(frame.id, out);
                });
                Ok(())
            }
            Ok(FromDevice::CommandReply(reply)) => {
                self.command_reply(frame.id, &reply, turn);
                Ok(())
            }
            Ok(
                FromDevice::Login(_)
                | FromDevice::Attach(_)
                | FromDevice::Resume(_)
                | FromDevice::ResumeProof(_),
            )
            | Err(MessageError::WrongDirection) => Err(self.broken(Counter::FrameState, turn)),
            Err(MessageError::UnknownKind) => {
                turn.counters.count(Counter::FrameUnknown);
                Ok(())
            }
            Err(MessageError::TelemetryCannotBeCut {
                base_seq, count, ..
            }) => self.malformed_telemetry(frame.id, base_seq, count, turn),
            Err(MessageError::Body(_)) => Err(self.broken(Counter::FrameBody, turn)),
        }
    }

    /// The device broke the contract.
    fn broken(&self, how: Counter, turn: &mut Turn<'_>) -> CloseReason {
        self.explained(how, turn);
        CloseReason::ProtocolError
    }

    /// It is counted, and told to whoever looks for this device.
    pub(super) fn explained(&self, what: Counter, turn: &mut Turn<'_>) {
        turn.counters.count(what);
        turn.effects.explain(self.account_id, what);
    }
}
