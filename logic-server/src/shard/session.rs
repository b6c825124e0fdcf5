//! Pure. One attached device: its frames, and what it has open.
//!
//! An idle session has no buffers. What a read left of a frame is kept in a box until the rest has come, and so is a
//! command that waits for its reply.

use std::num::NonZeroU16;

use common::epoch::Epoch;
use common::ids::{AccountId, CommandId};
use common::link::Asker;
use common::link::message::{Order, SessionLook, SessionState};
use common::secret::SessionKey;
use common::time::Now;
use protocols::rcu::code::CloseReason;
use protocols::rcu::limit::SILENT_HEARTBEATS;
use rand::rngs::SmallRng;

use super::effects::Effects;
use super::{SessionSeed, Settings};
use crate::adapter::{Adapter, Cut, Heard, Protocol, Word};
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
    aside: Option<Box<Aside>>,
    /// What was made from the login; the device is shown that this server has it.
    pub(super) session_key: SessionKey,
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
    pub(super) protocol: Protocol,
    /// Output waits for the kernel.
    pub(super) output_waits: bool,
}

// LIMITS.md G2: 256 bytes an idle session in all of the process.
const _: () = assert!(size_of::<Option<Session>>() <= 88);

/// What most sessions have nothing of.
#[derive(Debug, Default)]
struct Aside {
    partial: Option<Partial>,
    command: Option<UnderWay>,
    /// Records whose number and time were used before, for something else.
    contradicting: u64,
}

/// The command under way on a session.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) command_id: CommandId,
    pub(super) asker: Asker,
    /// Until the device has read what it was sent before.
    pub(super) unsent: Option<Order>,
}

impl UnderWay {
    pub(super) fn is_over(&self, now: Now) -> bool {
        self.asker.until_ms <= now.ms
    }

    /// When nobody waits for it any more; monotonic.
    pub(super) fn until_ms(&self) -> u64 {
        self.asker.until_ms
    }
}

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
            aside: None,
            session_key: seed.session_key,
            heartbeat_s: NonZeroU16::new(seed.heartbeat_s).unwrap_or(NonZeroU16::MIN),
            command_frame_id: 0,
            frames_open: 0,
            may_repeat: window,
            attached_unix_s: u32::try_from(seed.attached_unix_ms / 1_000).unwrap_or(u32::MAX),
            protocol: seed.protocol,
            output_waits: false,
        }
    }

    /// Of a frame that is not whole.
    pub(super) fn partial_bytes(&self) -> usize {
        let partial = self.aside.as_ref().and_then(|aside| aside.partial.as_ref());
        partial.map_or(0, |partial| partial.bytes.len())
    }

    /// The command under way.
    pub(super) fn command(&self) -> Option<&UnderWay> {
        self.aside.as_ref()?.command.as_ref()
    }

    pub(super) fn command_mut(&mut self) -> Option<&mut UnderWay> {
        self.aside.as_mut()?.command.as_mut()
    }

    pub(super) fn begin_command(&mut self, command: UnderWay) {
        self.aside.get_or_insert_default().command = Some(command);
    }

    /// Ends the command under way where `is_over`.
    pub(super) fn end_command(
        &mut self,
        is_over: impl FnOnce(&mut UnderWay) -> bool,
    ) -> Option<UnderWay> {
        let command = self.aside.as_mut()?.command.take_if(is_over);
        self.let_go();
        command
    }

    /// So many of its records say something else than earlier ones of their number and time.
    pub(super) fn contradicted(&mut self, records: u64) {
        let aside = self.aside.get_or_insert_default();
        aside.contradicting = aside.contradicting.saturating_add(records);
    }

    /// Frees what there is nothing in.
    fn let_go(&mut self) {
        let is_empty = |aside: &mut Box<Aside>| {
            aside.partial.is_none() && aside.command.is_none() && aside.contradicting == 0
        };
        self.aside.take_if(is_empty);
    }

    #[cfg(test)]
    pub(super) fn has_buffer(&self) -> bool {
        self.aside.is_some()
    }

    /// Nothing is heard for too long, of all that was sent until `read_until_ms`.
    pub(super) fn is_idle(&self, read_until_ms: u64) -> bool {
        read_until_ms >= self.idle_at_ms()
    }

    /// When there may be something to do though nothing comes.
    pub(super) fn next_timer_ms(&self) -> u64 {
        let command = self.command();
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
            command: self.command().is_some(),
        };
        SessionLook {
            state,
            attached_unix_ms: Some(u64::from(self.attached_unix_s) * 1_000),
            contradicting: Some(self.aside.as_ref().map_or(0, |aside| aside.contradicting)),
        }
    }

    /// Handles every frame that `bytes` completes, and keeps the rest. An error closes the session.
    pub(super) fn received<A: Adapter>(
        &mut self,
        bytes: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), CloseReason> {
        let mut bytes = self.complete::<A>(bytes, turn)?;
        while !bytes.is_empty() {
            match A::cut(bytes, A::FRAME_BYTES_MAX) {
                Ok(Cut::Frame { frame, consumed }) => {
                    self.frame::<A>(&frame, turn)?;
                    bytes = &bytes[consumed..];
                }
                Ok(Cut::More { needed }) => {
                    let bytes = bytes.to_vec();
                    self.aside.get_or_insert_default().partial = Some(Partial { bytes, needed });
                    break;
                }
                Err(how) => return Err(self.broken(how, turn)),
            }
        }
        Ok(())
    }

    /// Completes the frame that was begun, if one was, and handles it; returns what follows it.
    fn complete<'b, A: Adapter>(
        &mut self,
        mut bytes: &'b [u8],
        turn: &mut Turn<'_>,
    ) -> Result<&'b [u8], CloseReason> {
        let partial = self.aside.as_mut().and_then(|aside| aside.partial.take());
        let Some(mut partial) = partial else {
            return Ok(bytes);
        };
        loop {
            let before = partial.bytes.len();
            let missing = partial.needed - before;
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            partial.bytes.extend_from_slice(part);
            match A::cut(&partial.bytes, A::FRAME_BYTES_MAX) {
                Ok(Cut::Frame { frame, consumed }) => {
                    self.frame::<A>(&frame, turn)?;
                    self.let_go();
                    return Ok(&bytes[consumed - before..]);
                }
                // The header told how long the body is, or there is nothing to go on with.
                Ok(Cut::More { needed }) => {
                    partial.needed = needed;
                    if rest.is_empty() {
                        self.aside.get_or_insert_default().partial = Some(partial);
                        return Ok(rest);
                    }
                    bytes = rest;
                }
                Err(how) => return Err(self.broken(how, turn)),
            }
        }
    }

    fn frame<A: Adapter>(
        &mut self,
        frame: &A::Frame<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), CloseReason> {
        self.heard_ms = turn.now.ms;
        match A::read(frame) {
            Ok(Heard::Records { receipt, records }) => self.records(receipt, records, turn),
            Ok(Heard::Alive { frame_id }) => {
                turn.counters.count(Counter::Heartbeats);
                let unix_ms = turn.now.unix_ms;
                self.say(&Word::Alive { frame_id, unix_ms }, turn);
                Ok(())
            }
            Ok(Heard::Answer(reply)) => {
                self.command_reply(&reply, turn);
                Ok(())
            }
            Ok(Heard::Malformed { receipt }) => self.malformed_records(receipt, turn),
            Ok(Heard::Unknown) => {
                turn.counters.count(Counter::FrameUnknown);
                Ok(())
            }
            Ok(Heard::Claim { .. }) => Err(self.broken(Counter::FrameState, turn)),
            Err(how) => Err(self.broken(how, turn)),
        }
    }

    pub(super) fn say(&self, word: &Word<'_>, turn: &mut Turn<'_>) {
        turn.effects.say(turn.slot, self.protocol, word);
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
