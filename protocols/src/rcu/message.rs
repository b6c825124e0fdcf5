//! Pure. Every message of the contract, by direction.

use super::attach::{Attach, AttachReply, Resume, ResumeChallenge, ResumeProof};
use super::body::Reader;
use super::close::{Close, Redirect};
use super::command::{Command, CommandReply};
use super::error::MessageError;
use super::frame::{self, Frame};
use super::kind;
use super::login::{Login, LoginReply};
use super::telemetry::{Telemetry, TelemetryAck};

/// Device to cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromDevice<'a> {
    Login(Login<'a>),
    Attach(Attach),
    Heartbeat,
    Telemetry(Telemetry<'a>),
    Resume(Resume<'a>),
    ResumeProof(ResumeProof),
    CommandReply(CommandReply<'a>),
}

/// Cluster to device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromCluster<'a> {
    LoginReply(LoginReply<'a>),
    AttachReply(AttachReply<'a>),
    HeartbeatReply(HeartbeatReply),
    TelemetryAck(TelemetryAck),
    ResumeChallenge(ResumeChallenge),
    Command(Command<'a>),
    Redirect(Redirect<'a>),
    Close(Close),
}

const ID: MessageError = MessageError::Body("id");

impl<'a> FromDevice<'a> {
    /// Decodes the body. Whoever asks chooses an id that is not 0; a reply's id is for the
    /// asker to match.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, MessageError> {
        let body = frame.body;
        match frame.kind {
            kind::LOGIN
            | kind::ATTACH
            | kind::HEARTBEAT
            | kind::TELEMETRY
            | kind::RESUME
            | kind::RESUME_PROOF
                if frame.id == 0 =>
            {
                Err(ID)
            }
            kind::TELEMETRY => Telemetry::decode_body(body).map(Self::Telemetry),
            kind::HEARTBEAT => Reader::new(body).end().map(|()| Self::Heartbeat),
            kind::COMMAND_REPLY => CommandReply::decode_body(body).map(Self::CommandReply),
            kind::LOGIN => Login::decode_body(body).map(Self::Login),
            kind::ATTACH => Attach::decode_body(body).map(Self::Attach),
            kind::RESUME => Resume::decode_body(body).map(Self::Resume),
            kind::RESUME_PROOF => ResumeProof::decode_body(body).map(Self::ResumeProof),
            kind::LOGIN_REPLY
            | kind::ATTACH_REPLY
            | kind::HEARTBEAT_REPLY
            | kind::TELEMETRY_ACK
            | kind::RESUME_CHALLENGE
            | kind::COMMAND
            | kind::REDIRECT
            | kind::CLOSE => Err(MessageError::WrongDirection),
            _ => Err(MessageError::UnknownKind),
        }
    }

    /// Appends the frame.
    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        match self {
            Self::Login(login) => login.encode(id, out),
            Self::Attach(attach) => attach.encode(id, out),
            Self::Heartbeat => frame::write(kind::HEARTBEAT, id, out, |_| ()),
            Self::Telemetry(telemetry) => telemetry.encode(id, out),
            Self::Resume(resume) => resume.encode(id, out),
            Self::ResumeProof(proof) => proof.encode(id, out),
            Self::CommandReply(reply) => reply.encode(id, out),
        }
    }
}

impl<'a> FromCluster<'a> {
    /// Decodes the body. Statuses and reasons that are not listed become what the contract has
    /// a device take them for.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, MessageError> {
        let body = frame.body;
        match frame.kind {
            kind::LOGIN_REPLY => LoginReply::decode_body(body).map(Self::LoginReply),
            kind::ATTACH_REPLY => AttachReply::decode_body(body).map(Self::AttachReply),
            kind::HEARTBEAT_REPLY => HeartbeatReply::decode_body(body).map(Self::HeartbeatReply),
            kind::TELEMETRY_ACK => TelemetryAck::decode_body(body).map(Self::TelemetryAck),
            kind::RESUME_CHALLENGE => ResumeChallenge::decode_body(body).map(Self::ResumeChallenge),
            kind::COMMAND if frame.id == 0 => Err(ID),
            kind::COMMAND => Command::decode_body(body).map(Self::Command),
            kind::REDIRECT | kind::CLOSE if frame.id != 0 => Err(ID),
            kind::REDIRECT => Redirect::decode_body(body).map(Self::Redirect),
            kind::CLOSE => Close::decode_body(body).map(Self::Close),
            kind::LOGIN
            | kind::ATTACH
            | kind::HEARTBEAT
            | kind::TELEMETRY
            | kind::RESUME
            | kind::RESUME_PROOF
            | kind::COMMAND_REPLY => Err(MessageError::WrongDirection),
            _ => Err(MessageError::UnknownKind),
        }
    }

    /// Appends the frame. Redirect and Close bear id 0 whatever `id` is.
    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        match self {
            Self::LoginReply(reply) => reply.encode(id, out),
            Self::AttachReply(reply) => reply.encode(id, out),
            Self::HeartbeatReply(reply) => reply.encode(id, out),
            Self::TelemetryAck(ack) => ack.encode(id, out),
            Self::ResumeChallenge(challenge) => challenge.encode(id, out),
            Self::Command(command) => command.encode(id, out),
            Self::Redirect(redirect) => redirect.encode(out),
            Self::Close(close) => close.encode(out),
        }
    }
}

/// Answers a Heartbeat; the device follows the time where it is more than 2 s off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatReply {
    pub server_time_ms: u64,
}

impl HeartbeatReply {
    fn decode_body(body: &[u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let server_time_ms = body.u64()?;
        body.end()?;
        Ok(Self { server_time_ms })
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::HEARTBEAT_REPLY, id, out, |out| {
            out.extend_from_slice(&self.server_time_ms.to_le_bytes());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_not_zero_where_somebody_asks_and_zero_where_nobody_does() {
        let wrong = Err(MessageError::Body("id"));
        let heartbeat = Frame {
            kind: kind::HEARTBEAT,
            id: 0,
            body: &[],
        };
        assert_eq!(FromDevice::decode(&heartbeat).map(|_| ()), wrong);
        let close = Frame {
            kind: kind::CLOSE,
            id: 1,
            body: &[2, 0, 0, 0, 0],
        };
        assert_eq!(FromCluster::decode(&close).map(|_| ()), wrong);
        // A reply with id 0 answers nothing, and is ignored like any other that does not fit.
        let reply = Frame {
            kind: kind::COMMAND_REPLY,
            id: 0,
            body: &[0; 12],
        };
        assert!(FromDevice::decode(&reply).is_ok());
    }

    #[test]
    fn unlisted_statuses_are_what_the_contract_has_a_device_take_them_for() {
        let decode = |kind, body: &[u8]| {
            let frame = Frame { kind, id: 0, body };
            match FromCluster::decode(&frame).expect("a message") {
                FromCluster::LoginReply(reply) => reply.status().name(),
                FromCluster::AttachReply(reply) => reply.status().name(),
                FromCluster::TelemetryAck(ack) => ack.status.name(),
                FromCluster::Close(close) => close.reason.name(),
                other => panic!("{other:?}"),
            }
        };
        let status = |length: usize, at: usize| {
            let mut body = vec![0; length];
            body[at] = 200;
            body
        };
        assert_eq!(decode(kind::LOGIN_REPLY, &status(13, 0)), "busy");
        assert_eq!(decode(kind::ATTACH_REPLY, &status(13, 0)), "not_admitted");
        assert_eq!(decode(kind::TELEMETRY_ACK, &status(14, 9)), "overloaded");
        assert_eq!(decode(kind::CLOSE, &status(5, 0)), "idle");
    }

    #[test]
    fn flags_are_zero_or_one() {
        let mut reply = [0; 12];
        reply[9] = 2;
        let frame = Frame {
            kind: kind::COMMAND_REPLY,
            id: 1,
            body: &reply,
        };
        assert_eq!(FromDevice::decode(&frame), Err(MessageError::Body("more")));
        let frame = Frame {
            kind: kind::REDIRECT,
            id: 0,
            body: &[1, 0, 0, 0, 0, 2],
        };
        assert_eq!(
            FromCluster::decode(&frame),
            Err(MessageError::Body("has_target"))
        );
    }
}
