//! Pure. What a device asks of the world, and what it tells about itself.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use protocols::rcu::code::{AckStatus, AttachStatus, CloseReason, CommandStatus, LoginStatus};
use protocols::rcu::command::CommandId;
use protocols::rcu::telemetry::TelemetryWriter;

/// One TCP connection of a device; it has one at a time, and never the same number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u32);

/// What one call of [`Device::apply`](super::Device::apply) wants done, in order.
/// Kept and cleared from call to call, it stops allocating.
#[derive(Debug, Default)]
pub struct Effects {
    pub list: Vec<Effect>,
    /// What [`Effect::Send`] points into.
    pub bytes: Vec<u8>,
    /// Where a Telemetry frame is put together; one serves all the devices of a driver.
    pub(super) writer: TelemetryWriter,
}

impl Effects {
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.list.push(Effect::Tell(event));
    }

    /// Sends the frame that was put together in [`Self::writer`].
    pub(super) fn send_telemetry(&mut self, conn: ConnId, id: u16) {
        let start = self.bytes.len();
        if let Some(telemetry) = self.writer.telemetry() {
            telemetry.encode(id, &mut self.bytes);
        }
        let bytes = start..self.bytes.len();
        self.push(Effect::Send { conn, bytes });
    }

    /// Sends what `encode` appends.
    pub(super) fn send(&mut self, conn: ConnId, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        encode(&mut self.bytes);
        self.push(Effect::Send {
            conn,
            bytes: start..self.bytes.len(),
        });
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Look up the cluster's name; answer with [`Input::Resolved`](super::Input::Resolved).
    Resolve,
    /// Connect; answer with `Connected` or `Disconnected`.
    Connect { conn: ConnId, address: SocketAddr },
    /// Send [`Effects::bytes`] of this range.
    Send { conn: ConnId, bytes: Range<usize> },
    /// Send what is unsent and disconnect, or give up connecting; the connection may be gone
    /// already. Nothing that happens on it afterwards concerns the device.
    Disconnect { conn: ConnId },
    /// A report is due; answer with [`Input::Report`](super::Input::Report).
    Measure,
    /// Nothing to do: for histories, statistics and tests.
    Tell(Event),
}

/// What happened to a device, as it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A right LoginReply, `after_ms` after the login was begun by connecting.
    LoginAnswered { status: LoginStatus, after_ms: u32 },
    /// An address of the round gave no right LoginReply.
    LoginFailed { why: Fault },
    /// An AttachReply; with `ok` its proof was right and the device is attached.
    AttachAnswered { status: AttachStatus, resumed: bool },
    /// No right AttachReply.
    AttachFailed { why: Fault, resumed: bool },
    /// The long connection is over.
    Ended { why: Fault },
    /// Nothing is done for `ms`.
    Waits { ms: u64, why: Wait },
    /// The clock was set, by the cluster or a command.
    ClockSet { by_ms: i64 },
    /// The record is on its way for the first time: its time is fixed now.
    FirstSent(SentRecord),
    /// A Telemetry frame of `count` records from `base_seq` on was answered.
    FrameAnswered {
        base_seq: u64,
        count: u8,
        status: AckStatus,
        after_ms: u32,
    },
    /// Measurements that became no records, because the memory for unacknowledged ones is full.
    NotRecorded { count: u32 },
    /// A command was begun, with whatever it changes.
    CommandBegun { command_id: CommandId, code: u16 },
    /// A command got its final reply, from its execution or, `repeated`, from memory.
    CommandAnswered {
        command_id: CommandId,
        status: CommandStatus,
        repeated: bool,
    },
    /// A Redirect that is obeyed.
    RedirectTaken { with_target: bool },
    /// A Redirect whose proof is wrong.
    RedirectIgnored,
    /// A pending Redirect that a Close made void.
    RedirectVoid,
    /// A frame of a kind that this protocol version does not list.
    UnknownKindIgnored { kind: u8 },
    /// An answer to no open question.
    AnswerIgnored { kind: u8 },
    /// Power went, or the device rebooted; it comes back under this boot counter.
    Restarted { boot_counter: u32 },
}

/// A record at its first sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentRecord {
    pub seq: u64,
    /// Unix milliseconds by the device's clock; 0: not known.
    pub recorded_at_ms: u64,
    pub kind: u8,
    /// [`crate::digest::digest`] of time, kind and payload.
    pub digest: u64,
}

/// Why a connection did not do what it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// It could not be made, within 10 s.
    Unreachable,
    /// No answer in time: 15 s for LoginReply, 10 s for AttachReply and ResumeChallenge, 60 s for TelemetryAck.
    Unanswered,
    /// Nothing at all was heard for three heartbeats.
    Silent,
    /// The other side disconnected without a Close.
    Lost,
    Closed(CloseReason),
    /// What came was no frame, no message, or none for this moment.
    WrongFrame,
    WrongProof,
    /// The device left, because it was redirected.
    Redirected,
    /// The device left, because it restarts.
    Restarted,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable",
            Self::Unanswered => "unanswered",
            Self::Silent => "silent",
            Self::Lost => "lost",
            Self::Closed(reason) => return write!(f, "closed ({})", reason.name()),
            Self::WrongFrame => "wrong frame",
            Self::WrongProof => "wrong proof",
            Self::Redirected => "redirected",
            Self::Restarted => "restarted",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wait {
    /// As long as the cluster said.
    Told,
    /// A step of the backoff.
    Backoff,
    /// The longest step.
    Longest,
    /// Telemetry alone waits: `overloaded`.
    Overloaded,
}
