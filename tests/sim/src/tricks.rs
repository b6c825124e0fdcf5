//! What a device does that does not keep the contract, and what the contract has it told.
//!
//! Written from docs/protocol.md: section 1 "What the cluster does with wrong frames", sections 3 to 6.

use protocols::rcu::attach::{Attach, Resume, ResumeProof};
use protocols::rcu::code::{AckStatus, AttachStatus, CloseReason, CommandStatus, LoginStatus};
use protocols::rcu::command::{CommandId, CommandReply};
use protocols::rcu::frame::{self, BODY_BYTES_MAX, FRAME_BYTES_BEFORE_ATTACH_MAX, HEADER_BYTES};
use protocols::rcu::kind;
use protocols::rcu::message::FromCluster;
use rand::RngExt;
use rand::rngs::SmallRng;

/// A frame that cannot be read on after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    Magic,
    Version,
    Length,
    Crc,
}

/// On the short connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AtDoor {
    /// Connects and goes.
    Nothing,
    Wrong(Wrong),
    OtherKind,
    /// Half a Login, and then silence.
    Half,
    /// Two Logins.
    Twice,
    Malformed,
    WrongProof,
    Unknown,
    /// The login of before, byte by byte.
    Replay,
}

/// On the long connection, before AttachReply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AtGate {
    Nothing,
    Wrong(Wrong),
    OtherKind,
    /// Half an Attach, and then silence.
    Half,
    /// Its own ticket with a wrong proof; afterwards the right one.
    WrongProof,
    /// Another's ticket, from its own address.
    Stolen,
    /// Another's ticket, from the other's address.
    StolenNearby,
    /// Its own ticket from an address that never logged in, or from another device's.
    Elsewhere,
    /// A resumption where there is none.
    Resume,
    /// What follows the Attach without waiting fills the 512 bytes.
    EarlyFits,
    /// It does not fit.
    EarlyTooMuch,
    /// An Attach that was used.
    Replay,
}

/// After AttachReply `ok`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InSession {
    /// Goes, and comes again.
    Leaves,
    Wrong(Wrong),
    /// A kind of the cluster's.
    WrongDirection,
    /// A kind of before AttachReply.
    WrongState,
    UnknownKind,
    HeartbeatWithBody,
    ShortTelemetry,
    MalformedTelemetry,
    /// Four windows of frames at once.
    Overrun,
    ReplyToNothing,
    /// Says nothing at all.
    Mute,
    /// Begins a frame and does not end it.
    HalfFrame,
    /// Asks and never reads.
    Deaf,
}

/// What a device that does not keep the contract is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trick {
    Door(AtDoor),
    Gate(AtGate),
    Session(InSession),
}

const WRONG: [Wrong; 4] = [Wrong::Magic, Wrong::Version, Wrong::Length, Wrong::Crc];

impl Trick {
    /// Every one there is.
    pub fn all() -> Vec<Self> {
        use {AtDoor as D, AtGate as G, InSession as S};
        let door = [
            D::Nothing,
            D::OtherKind,
            D::Half,
            D::Twice,
            D::Malformed,
            D::WrongProof,
            D::Unknown,
            D::Replay,
        ];
        let gate = [
            G::Nothing,
            G::OtherKind,
            G::Half,
            G::WrongProof,
            G::Stolen,
            G::StolenNearby,
            G::Elsewhere,
            G::Resume,
            G::EarlyFits,
            G::EarlyTooMuch,
            G::Replay,
        ];
        let session = [
            S::Leaves,
            S::WrongDirection,
            S::WrongState,
            S::UnknownKind,
            S::HeartbeatWithBody,
            S::ShortTelemetry,
            S::MalformedTelemetry,
            S::Overrun,
            S::ReplyToNothing,
            S::Mute,
            S::HalfFrame,
            S::Deaf,
        ];
        let mut all = vec![];
        all.extend(WRONG.map(|wrong| Self::Door(D::Wrong(wrong))));
        all.extend(WRONG.map(|wrong| Self::Gate(G::Wrong(wrong))));
        all.extend(WRONG.map(|wrong| Self::Session(S::Wrong(wrong))));
        all.extend(door.map(Self::Door));
        all.extend(gate.map(Self::Gate));
        all.extend(session.map(Self::Session));
        all
    }

    pub fn draw(rng: &mut SmallRng) -> Self {
        let all = Self::all();
        all[rng.random_range(0..all.len())]
    }
}

/// What came from the cluster, as far as the contract's tables go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    LoginReply(LoginStatus),
    AttachReply(AttachStatus),
    HeartbeatReply,
    Ack(AckStatus),
    ResumeChallenge,
    Command,
    Redirect,
    Close(CloseReason),
}

impl Heard {
    pub fn of(message: &FromCluster<'_>) -> Self {
        match message {
            FromCluster::LoginReply(reply) => Self::LoginReply(reply.verdict.status()),
            FromCluster::AttachReply(reply) => Self::AttachReply(reply.status()),
            FromCluster::HeartbeatReply(_) => Self::HeartbeatReply,
            FromCluster::TelemetryAck(ack) => Self::Ack(ack.status),
            FromCluster::ResumeChallenge(_) => Self::ResumeChallenge,
            FromCluster::Command(_) => Self::Command,
            FromCluster::Redirect(_) => Self::Redirect,
            FromCluster::Close(close) => Self::Close(close.reason),
        }
    }

    /// What any session may be told at any time, whatever its device does.
    fn comes_uncalled(self) -> bool {
        match self {
            Self::Command | Self::Redirect => true,
            Self::Close(reason) => matches!(
                reason,
                CloseReason::Replaced
                    | CloseReason::Disabled
                    | CloseReason::Shutdown
                    | CloseReason::SlowReader
                    | CloseReason::CloneSuspected
            ),
            _ => false,
        }
    }
}

/// What the contract has a device told on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// One of these comes; where there is none, the connection ends without a frame.
    pub one_of: Vec<Heard>,
    /// These may come as well.
    pub beside: Vec<Heard>,
    /// It is a session by now.
    pub is_session: bool,
}

/// What an answer is to what is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Due,
    Beside,
    /// It ends the session for a reason of the cluster's own.
    Uncalled,
    Wrong,
}

impl Due {
    fn one(heard: Heard) -> Self {
        Self {
            one_of: vec![heard],
            beside: vec![],
            is_session: false,
        }
    }

    fn nothing() -> Self {
        Self {
            one_of: vec![],
            beside: vec![],
            is_session: false,
        }
    }

    fn protocol_error() -> Self {
        Self::one(Heard::Close(CloseReason::ProtocolError))
    }

    /// Under overload a tier may answer `busy` or `full` without looking further.
    fn login_replies(statuses: &[LoginStatus]) -> Self {
        let overload = [LoginStatus::Busy, LoginStatus::Full];
        let statuses = statuses.iter().chain(&overload);
        Self {
            one_of: statuses.map(|status| Heard::LoginReply(*status)).collect(),
            ..Self::nothing()
        }
    }

    /// A Login as it should be.
    pub fn login() -> Self {
        Self::login_replies(&[
            LoginStatus::Ok,
            LoginStatus::Refused,
            LoginStatus::Disabled,
            LoginStatus::ClockSkew,
        ])
    }

    /// An Attach as it should be.
    pub fn attach() -> Self {
        let statuses = AttachStatus::ALL.iter();
        Self {
            one_of: statuses.map(|status| Heard::AttachReply(*status)).collect(),
            ..Self::nothing()
        }
    }

    fn not_admitted() -> Self {
        Self::one(Heard::AttachReply(AttachStatus::NotAdmitted))
    }

    pub fn at_door(trick: AtDoor) -> Self {
        match trick {
            AtDoor::Nothing => Self::nothing(),
            AtDoor::Wrong(_) | AtDoor::OtherKind => Self::protocol_error(),
            AtDoor::Half => Self::one(Heard::Close(CloseReason::AttachTimeout)),
            // The first may be answered before the second is there.
            AtDoor::Twice => {
                let mut due = Self::login();
                due.one_of.push(Heard::Close(CloseReason::ProtocolError));
                due
            }
            AtDoor::Malformed => Self::login_replies(&[LoginStatus::Malformed]),
            AtDoor::WrongProof | AtDoor::Unknown => Self::login_replies(&[LoginStatus::Refused]),
            AtDoor::Replay => Self::login_replies(&[
                LoginStatus::Ok,
                LoginStatus::Refused,
                LoginStatus::Disabled,
                LoginStatus::ClockSkew,
            ]),
        }
    }

    pub fn at_gate(trick: AtGate) -> Self {
        match trick {
            AtGate::Nothing => Self::nothing(),
            AtGate::Wrong(_) | AtGate::OtherKind => Self::protocol_error(),
            AtGate::Half => Self::one(Heard::Close(CloseReason::AttachTimeout)),
            AtGate::WrongProof
            | AtGate::Stolen
            | AtGate::StolenNearby
            | AtGate::Elsewhere
            | AtGate::Resume
            | AtGate::Replay => Self::not_admitted(),
            AtGate::EarlyFits => Self {
                beside: vec![Heard::HeartbeatReply],
                ..Self::attach()
            },
            // The Attach may be answered before the rest is there.
            AtGate::EarlyTooMuch => {
                let mut due = Self::attach();
                due.one_of.push(Heard::Close(CloseReason::ProtocolError));
                due.beside.push(Heard::HeartbeatReply);
                due
            }
        }
    }

    pub fn in_session(trick: InSession) -> Self {
        let due = match trick {
            InSession::Leaves | InSession::Deaf => Self::nothing(),
            InSession::Wrong(_)
            | InSession::WrongDirection
            | InSession::WrongState
            | InSession::HeartbeatWithBody
            | InSession::ShortTelemetry => Self::protocol_error(),
            InSession::MalformedTelemetry => Self::one(Heard::Ack(AckStatus::Malformed)),
            InSession::UnknownKind | InSession::ReplyToNothing => Self::one(Heard::HeartbeatReply),
            InSession::Overrun => Self {
                beside: vec![
                    Heard::Ack(AckStatus::Stored),
                    Heard::Ack(AckStatus::Overloaded),
                    Heard::Close(CloseReason::ProtocolError),
                ],
                ..Self::one(Heard::HeartbeatReply)
            },
            InSession::Mute | InSession::HalfFrame => Self::one(Heard::Close(CloseReason::Idle)),
        };
        Self {
            is_session: true,
            ..due
        }
    }

    pub fn fit(&self, heard: Heard) -> Fit {
        if self.one_of.contains(&heard) {
            Fit::Due
        } else if self.beside.contains(&heard) {
            Fit::Beside
        } else if self.is_session && heard.comes_uncalled() {
            Fit::Uncalled
        } else {
            Fit::Wrong
        }
    }
}

// ---- bytes ------------------------------------------------------------------------------------

/// A frame as it should be, around any body.
pub fn framed(kind: u8, id: u16, body: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    frame::write(kind, id, &mut out, |out| out.extend_from_slice(body));
    out
}

pub fn heartbeat(id: u16) -> Vec<u8> {
    framed(kind::HEARTBEAT, id, &[])
}

pub fn attach(attach: &Attach) -> Vec<u8> {
    let mut out = vec![];
    attach.encode(1, &mut out);
    out
}

/// Telemetry of one custom record.
pub fn telemetry(id: u16, seq: u64, recorded_at_ms: u64, payload: &[u8]) -> Vec<u8> {
    let mut body = telemetry_head(seq, recorded_at_ms, 1);
    body.extend(record(payload));
    framed(kind::TELEMETRY, id, &body)
}

fn telemetry_head(seq: u64, time_ms: u64, count: u8) -> Vec<u8> {
    let mut body = seq.to_le_bytes().to_vec();
    body.extend(time_ms.to_le_bytes());
    body.push(count);
    body
}

/// The kind of what `record` makes.
pub const RECORD_KIND: u8 = 5;

fn record(payload: &[u8]) -> Vec<u8> {
    let mut record = vec![RECORD_KIND, payload.len() as u8, 0, 0, 0, 0];
    record.extend_from_slice(payload);
    record
}

/// A frame that is wrong in its header, or has a wrong crc. `body_max`: the longest allowed here.
pub fn wrong(wrong: Wrong, body_max: usize, rng: &mut SmallRng) -> Vec<u8> {
    let mut bytes = framed(kind::HEARTBEAT, 1, &[]);
    match wrong {
        Wrong::Magic => {
            bytes = (0..rng.random_range(1..=200))
                .map(|_| rng.random())
                .collect();
            bytes[0] = if bytes[0] == b'R' { b'S' } else { bytes[0] };
        }
        Wrong::Version => bytes[2] = rng.random_range(2..=255),
        Wrong::Length => {
            let length = rng.random_range(body_max + 1..=usize::from(u16::MAX)) as u16;
            bytes[6..8].copy_from_slice(&length.to_le_bytes());
            bytes.extend(vec![0; rng.random_range(0..=1_000)]);
        }
        Wrong::Crc => bytes[8 + rng.random_range(0..4)] ^= 1 << rng.random_range(0..8),
    }
    bytes
}

/// The longest body before AttachReply.
pub const EARLY_BODY_MAX: usize = FRAME_BYTES_BEFORE_ATTACH_MAX - HEADER_BYTES;
/// The longest body in a session.
pub const SESSION_BODY_MAX: usize = BODY_BYTES_MAX;

/// Any kind that may not begin a short connection.
pub fn not_a_login(rng: &mut SmallRng) -> Vec<u8> {
    let kinds = [
        kind::LOGIN_REPLY,
        kind::ATTACH,
        kind::HEARTBEAT,
        kind::TELEMETRY,
        kind::RESUME,
        kind::COMMAND_REPLY,
        kind::CLOSE,
        UNKNOWN_KIND,
    ];
    let body = vec![7; rng.random_range(0..=100)];
    framed(kinds[rng.random_range(0..kinds.len())], 1, &body)
}

/// A kind that the contract does not list.
const UNKNOWN_KIND: u8 = 0x77;

/// Any frame that may not begin a long connection, right in itself.
pub fn not_an_attach(login: &[u8], rng: &mut SmallRng) -> Vec<u8> {
    let mut proof = vec![];
    ResumeProof { proof: [1; 32] }.encode(1, &mut proof);
    let frames = [
        login.to_vec(),
        heartbeat(1),
        telemetry(1, 1, 1, &[0; 10]),
        reply_to_nothing(),
        proof,
        framed(UNKNOWN_KIND, 1, &[1, 2, 3]),
        framed(kind::CLOSE, 0, &[2, 0, 0, 0, 0]),
    ];
    frames[rng.random_range(0..frames.len())].clone()
}

pub fn resume() -> Vec<u8> {
    let mut out = vec![];
    Resume {
        resumption: &[9; 64],
    }
    .encode(1, &mut out);
    out
}

/// A Login frame whose body is none.
pub fn malformed_login(login: &[u8], rng: &mut SmallRng) -> Vec<u8> {
    let mut body = login[HEADER_BYTES..].to_vec();
    match rng.random_range(0..5) {
        0 => body.push(0),
        1 => {
            body.pop();
        }
        // An account of no characters, and one with a space.
        2 => body[0] = 0,
        3 => body[1] = b' ',
        _ => body.clear(),
    }
    framed(kind::LOGIN, 1, &body)
}

/// Behind an Attach: heartbeats up to `bytes_max` with it, the last one cut off where it must be.
pub fn early(attach: &[u8], bytes_max: usize) -> Vec<u8> {
    let mut bytes = attach.to_vec();
    for id in 2.. {
        if bytes.len() >= bytes_max {
            break;
        }
        bytes.extend(heartbeat(id));
    }
    bytes.truncate(bytes_max);
    bytes
}

pub fn wrong_direction(rng: &mut SmallRng) -> Vec<u8> {
    let kinds = [
        kind::LOGIN_REPLY,
        kind::ATTACH_REPLY,
        kind::HEARTBEAT_REPLY,
        kind::TELEMETRY_ACK,
        kind::RESUME_CHALLENGE,
        kind::COMMAND,
        kind::REDIRECT,
        kind::CLOSE,
    ];
    let body = vec![0; rng.random_range(0..=40)];
    framed(kinds[rng.random_range(0..kinds.len())], 1, &body)
}

pub fn wrong_state(login: &[u8], attach: &[u8], rng: &mut SmallRng) -> Vec<u8> {
    let frames = [login.to_vec(), attach.to_vec(), resume()];
    frames[rng.random_range(0..frames.len())].clone()
}

/// A kind that is not listed, and a heartbeat behind it.
pub fn unknown_kind(rng: &mut SmallRng) -> Vec<u8> {
    let body = vec![1; rng.random_range(0..=600)];
    let mut bytes = framed(rng.random_range(0x30..=0xFF), rng.random(), &body);
    bytes.extend(heartbeat(1));
    bytes
}

fn reply_to_nothing() -> Vec<u8> {
    let reply = CommandReply {
        command_id: CommandId(0xFFFF_FFFF),
        status: CommandStatus::Ok,
        more: false,
        payload: b"nobody asked",
    };
    let mut out = vec![];
    reply.encode(9, &mut out);
    out
}

/// A reply to no command, and a heartbeat behind it.
pub fn reply_and_heartbeat() -> Vec<u8> {
    let mut bytes = reply_to_nothing();
    bytes.extend(heartbeat(1));
    bytes
}

pub fn short_telemetry(rng: &mut SmallRng) -> Vec<u8> {
    framed(kind::TELEMETRY, 1, &vec![1; rng.random_range(0..17)])
}

/// Telemetry that cannot be cut into records.
pub fn malformed_telemetry(rng: &mut SmallRng) -> Vec<u8> {
    let time_ms = 1_767_225_600_000;
    let year_10000_ms = 253_402_300_800_000;
    let body = match rng.random_range(0..5) {
        0 => telemetry_head(1, time_ms, 0),
        1 => {
            let mut body = telemetry_head(1, time_ms, 1);
            let record = record(&[0; 10]);
            body.extend(&record[..record.len() - 1]);
            body
        }
        2 => {
            let mut body = telemetry_head(1, time_ms, 1);
            body.extend(record(&[0; 10]));
            body.push(0);
            body
        }
        3 => {
            let mut body = telemetry_head(1 << 63, time_ms, 1);
            body.extend(record(&[0; 10]));
            body
        }
        _ => {
            let mut body = telemetry_head(1, year_10000_ms, 1);
            body.extend(record(&[0; 10]));
            body
        }
    };
    framed(kind::TELEMETRY, 1, &body)
}
