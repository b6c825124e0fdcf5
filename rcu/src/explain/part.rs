//! Pure. One frame, or what stands in its place: its lines, its verdict, what comes of it.

use std::fmt;

use protocols::rcu::close::Close;
use protocols::rcu::code::{AckStatus, CloseReason};
use protocols::rcu::error::MessageError;
use protocols::rcu::frame::{
    self, BODY_BYTES_MAX, FRAME_BYTES_BEFORE_ATTACH_MAX, FRAME_BYTES_MAX,
    FRAME_BYTES_TO_DEVICE_MAX, Frame, HEADER_BYTES, MAGIC, Parsed, VERSION,
};
use protocols::rcu::kind;
use protocols::rcu::message::{FromCluster, FromDevice};
use protocols::rcu::telemetry::TelemetryAck;
use serde::Serialize;

use super::crc;
use super::field::{Field, Lines, Stop, Told, Walk, count, text};
use super::hex::hex;
use super::message::{self, Direction};
use super::proofs::{Proofs, Verdict};

/// What was found at one place of the bytes.
#[derive(Debug)]
pub(super) struct Part {
    /// Where it begins, and where the next part does.
    pub(super) at: usize,
    pub(super) next_at: usize,
    title: String,
    lines: Lines,
    /// What is wrong with it; empty where nothing is.
    pub(super) wrong: Vec<String>,
    /// What its receiver does, and answers; hints.
    then: Vec<String>,
}

const BEGINNING: &str = "a frame begins with 52 43, \"RC\"";

/// What the header says, right or not.
struct Header {
    kind: u8,
    frame_bytes: usize,
}

impl Part {
    /// The part at the front of `bytes`, which begin at `at`.
    pub(super) fn of(bytes: &[u8], at: usize, proofs: Option<&mut Proofs>) -> Self {
        let proof = proofs.and_then(|proofs| match frame::parse(bytes, FRAME_BYTES_MAX) {
            Ok(Parsed::Frame { frame, .. }) => proofs.hear(&frame),
            _ => None,
        });
        let mut walk = Walk::new(bytes, proof);
        let header = walk_header(&mut walk, bytes).ok();
        let lost = !MAGIC.starts_with(&bytes[..bytes.len().min(2)]);
        let (title, length, then) = match header {
            _ if lost => {
                // Of two bytes or more the walk says so beside them.
                if bytes.len() < MAGIC.len() {
                    walk.wrong(format!("byte 0, magic: {BEGINNING}"));
                }
                walk.not_read();
                ("no frame".to_owned(), bytes.len(), no_frame(bytes))
            }
            Some(header) if header.frame_bytes > FRAME_BYTES_MAX => {
                walk.not_read();
                (title(header.kind), bytes.len(), too_long(bytes))
            }
            Some(header) => {
                if message::walk_body(&mut walk, header.kind).is_err() {
                    walk.skip_rest("", |_| "not read any further".to_owned());
                }
                let title = format!("{}, {} bytes", title(header.kind), header.frame_bytes);
                match bytes.get(..header.frame_bytes) {
                    Some(whole) => (title, whole.len(), outcome(whole, header.kind, proof)),
                    None => (title, bytes.len(), incomplete(&mut walk, bytes)),
                }
            }
            None => (
                "part of a header".to_owned(),
                bytes.len(),
                incomplete(&mut walk, bytes),
            ),
        };
        let (lines, wrong) = walk.finish();
        Self {
            at,
            next_at: at + length,
            title,
            lines,
            wrong,
            then,
        }
    }
}

/// For programs.
#[derive(Debug, Serialize)]
pub(super) struct Object<'a> {
    at: usize,
    bytes: usize,
    title: &'a str,
    right: bool,
    fields: Vec<Field<'a>>,
    wrong: &'a [String],
    then: &'a [String],
}

impl Part {
    pub(super) fn object(&self) -> Object<'_> {
        Object {
            at: self.at,
            bytes: self.next_at - self.at,
            title: &self.title,
            right: self.wrong.is_empty(),
            fields: self.lines.fields(),
            wrong: &self.wrong,
            then: &self.then,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        write!(f, "{}", self.lines)?;
        self.then
            .iter()
            .try_for_each(|then| writeln!(f, "  {then}"))
    }
}

fn title(kind: u8) -> String {
    match message::name(kind) {
        Some((name, Direction::ToCluster)) => format!("{name}, device to cluster"),
        Some((name, Direction::ToDevice)) => format!("{name}, cluster to device"),
        None => format!("kind 0x{kind:02x}, not listed"),
    }
}

/// The longest frame of this kind that its receiver reads. A longer Command is read past by a
/// device, and Telemetry comes after attach.
fn frame_bytes_max(kind: u8) -> usize {
    match (kind, message::name(kind)) {
        (kind::LOGIN | kind::ATTACH | kind::RESUME | kind::RESUME_PROOF, _) => {
            FRAME_BYTES_BEFORE_ATTACH_MAX
        }
        (kind::COMMAND, _) => FRAME_BYTES_MAX,
        (_, Some((_, Direction::ToDevice))) => FRAME_BYTES_TO_DEVICE_MAX,
        _ => FRAME_BYTES_MAX,
    }
}

/// Walks the twelve bytes of the header, and has the walk end where the frame does.
fn walk_header(walk: &mut Walk<'_>, bytes: &[u8]) -> Result<Header, Stop> {
    walk.frame_bytes(HEADER_BYTES);
    walk.bytes("magic", MAGIC.len(), |magic| {
        Told::right(text(magic)).unless(magic == MAGIC, BEGINNING)
    })?;
    if !bytes.starts_with(&MAGIC) {
        return Err(Stop);
    }
    walk.u8("version", |version| {
        Told::right(version.to_string()).unless(version == VERSION, "the version is 1")
    })?;
    let kind = walk.u8("kind", |kind| Told::right(title(kind)))?;
    walk.u16("id", |id| id_of(kind, id))?;
    let length = walk.u16("length", |length| {
        let frame_bytes = HEADER_BYTES + usize::from(length);
        let max = frame_bytes_max(kind);
        Told::right(format!("{} of body", count(length.into(), "byte")))
            .unless(
                frame_bytes <= max,
                format!("a frame of this kind has at most {max} bytes, header included"),
            )
            .unless(
                usize::from(length) <= BODY_BYTES_MAX,
                format!("a body has at most {BODY_BYTES_MAX} bytes"),
            )
    })?;
    let frame_bytes = HEADER_BYTES + usize::from(length);
    let whole = bytes
        .get(..frame_bytes)
        .filter(|_| frame_bytes <= FRAME_BYTES_MAX);
    walk.u32("crc", |found| match whole {
        Some(whole) => crc_of(whole, found),
        None => Told::right(format!("0x{found:08x}, not checked")),
    })?;
    walk.frame_bytes(frame_bytes);
    Ok(Header { kind, frame_bytes })
}

fn id_of(kind: u8, id: u16) -> Told {
    let told = Told::right(id.to_string());
    match kind {
        kind::CLOSE | kind::REDIRECT => told.unless(id == 0, "Close and Redirect bear id 0"),
        kind::LOGIN
        | kind::ATTACH
        | kind::HEARTBEAT
        | kind::TELEMETRY
        | kind::RESUME
        | kind::RESUME_PROOF
        | kind::COMMAND => told.unless(id != 0, "whoever asks chooses an id that is not 0"),
        _ => told,
    }
}

fn crc_of(whole: &[u8], found: u32) -> Told {
    let expected = frame::checksum(whole);
    let wire = hex(&expected.to_le_bytes());
    let mut wrong = format!("expected 0x{expected:08x} ({wire} on the wire), found 0x{found:08x}");
    if let Some(mistake) = crc::guess(whole, found) {
        wrong.push_str(", which is ");
        wrong.push_str(mistake);
    }
    let text = if found == expected { ", right" } else { "" };
    Told::right(format!("0x{found:08x}{text}")).unless(found == expected, wrong)
}

/// What comes of a whole frame.
fn outcome(whole: &[u8], kind: u8, proof: Option<Verdict>) -> Vec<String> {
    let to_device = message::name(kind).is_some_and(|(_, to)| to == Direction::ToDevice);
    match frame::parse(whole, frame_bytes_max(kind)) {
        Ok(Parsed::Frame { frame, .. }) if to_device => at_device(&frame),
        Ok(Parsed::Frame { frame, .. }) => at_cluster(&frame, proof),
        _ if to_device => vec![DEVICE_DISCONNECTS.to_owned()],
        _ => vec![protocol_error()],
    }
}

const WAITS: &str = "its receiver waits for the rest; where a device is not attached 5 s after it \
                     connected, the cluster answers Close(attach_timeout)";
const DEVICE_DISCONNECTS: &str = "the device disconnects without a frame";

fn protocol_error() -> String {
    let close = Close {
        reason: CloseReason::ProtocolError,
        retry_after_ms: 0,
    };
    let answer = encoded(|out| close.encode(out));
    format!("the cluster answers Close(protocol_error), {answer}, and disconnects")
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    encode(&mut out);
    hex(&out)
}

fn at_device(frame: &Frame<'_>) -> Vec<String> {
    let long = HEADER_BYTES + frame.body.len() > FRAME_BYTES_TO_DEVICE_MAX;
    match FromCluster::decode(frame) {
        Err(_) => vec![DEVICE_DISCONNECTS.to_owned()],
        Ok(FromCluster::Command(_)) if long => vec![format!(
            "longer than {FRAME_BYTES_TO_DEVICE_MAX} bytes: the device answers unsupported, \
             unless the fleet's owner chose larger commands"
        )],
        Ok(FromCluster::Command(_)) => vec!["the device answers CommandReply".to_owned()],
        Ok(_) => Vec::new(),
    }
}

fn at_cluster(frame: &Frame<'_>, proof: Option<Verdict>) -> Vec<String> {
    let id = frame.id;
    let answers = |what: &str| vec![format!("the cluster answers {what} with id {id}")];
    let ack = |base_seq, count, status| {
        let ack = TelemetryAck {
            base_seq,
            count,
            status,
            retry_after_ms: 0,
        };
        encoded(|out| ack.encode(id, out))
    };
    let is_wrong = matches!(proof, Some(Verdict::Wrong(_)));
    match FromDevice::decode(frame) {
        Ok(FromDevice::Login(_)) if is_wrong => answers("LoginReply(refused)"),
        Ok(FromDevice::Attach(_) | FromDevice::ResumeProof(_)) if is_wrong => {
            answers("AttachReply(not_admitted)")
        }
        Ok(FromDevice::Login(_)) => answers("LoginReply"),
        Ok(FromDevice::Attach(_) | FromDevice::ResumeProof(_)) => answers("AttachReply"),
        Ok(FromDevice::Heartbeat) => answers("HeartbeatReply"),
        Ok(FromDevice::Resume(_)) => answers("ResumeChallenge, or AttachReply(not_admitted),"),
        Ok(FromDevice::CommandReply(_)) => vec!["not answered".to_owned()],
        Ok(FromDevice::Telemetry(telemetry)) => {
            let ack = ack(telemetry.base_seq(), telemetry.count(), AckStatus::Stored);
            vec![format!(
                "the cluster answers TelemetryAck(stored), {ack}, when the records are durable"
            )]
        }
        Err(MessageError::TelemetryCannotBeCut {
            base_seq, count, ..
        }) => {
            let ack = ack(base_seq, count, AckStatus::Malformed);
            vec![format!(
                "the cluster answers TelemetryAck(malformed), {ack}, and stores nothing of it"
            )]
        }
        Err(MessageError::UnknownKind) => vec![
            "after attach the cluster ignores and counts it; before".to_owned(),
            protocol_error(),
        ],
        Err(MessageError::Body(field)) if frame.kind == kind::LOGIN && field != "id" => {
            answers("LoginReply(malformed)")
        }
        Err(MessageError::Body(_) | MessageError::WrongDirection) => vec![protocol_error()],
    }
}

/// Tells what is missing, unless what is there is wrong already.
fn incomplete(walk: &mut Walk<'_>, bytes: &[u8]) -> Vec<String> {
    match frame::parse(bytes, FRAME_BYTES_MAX) {
        Ok(Parsed::Incomplete { needed }) => {
            let (here, missing) = (bytes.len(), needed.saturating_sub(bytes.len()));
            walk.wrong(format!(
                "incomplete: {here} of {needed} bytes are there, {missing} are to come"
            ));
            let mut then = vec![WAITS.to_owned()];
            then.extend(big_endian_length(bytes));
            then
        }
        _ => vec![protocol_error()],
    }
}

fn no_frame(bytes: &[u8]) -> Vec<String> {
    let found = bytes
        .windows(MAGIC.len())
        .position(|window| window == MAGIC);
    let hint = found.map(|at| {
        format!(
            "\"RC\" comes {} later: too much is in front of it, or the length before was too short",
            count(at, "byte")
        )
    });
    [protocol_error()].into_iter().chain(hint).collect()
}

fn too_long(bytes: &[u8]) -> Vec<String> {
    [protocol_error()]
        .into_iter()
        .chain(big_endian_length(bytes))
        .collect()
}

/// A hint where the length fits what follows when it is read the wrong way round.
fn big_endian_length(bytes: &[u8]) -> Option<String> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = u16::from_be_bytes([header[6], header[7]]);
    (usize::from(length) == bytes.len() - HEADER_BYTES).then(|| {
        format!("read as big-endian the length is {length}, which is what follows: integers are little-endian")
    })
}
