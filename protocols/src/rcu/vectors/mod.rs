//! Pure. Every vector of the contract, both ways: made from its fields byte for byte, decoded to
//! them, and given the verdict that it states.

mod records;

use std::collections::BTreeMap;

use serde_json::Value;

use super::attach::{
    Attach, AttachReply, AttachVerdict, Challenge, Credential, Resume, ResumeChallenge,
    ResumeProof, Terms,
};
use super::close::{Close, Redirect, RedirectReason};
use super::code::{AckStatus, CloseReason, CommandStatus, LoginStatus};
use super::command::{Command, CommandId, CommandReply};
use super::error::MessageError;
use super::frame::{self, FRAME_BYTES_MAX, Frame, FrameError, Parsed};
use super::kind;
use super::login::{Login, LoginReply, LoginVerdict, Target};
use super::message::{FromCluster, FromDevice, HeartbeatReply};
use super::proof::{self, LoginCount};
use super::telemetry::TelemetryAck;
use common::ids::{AccountName, Nonce};
use common::secret::{DeviceKey, Secret, SessionKey};

const VECTORS: &str = include_str!("../../../../docs/rcu-v1-vectors.json");

/// A vector's fields, with readers that panic on what is not there: a vector that this test does
/// not understand is a failure.
struct Fields(Value);

impl Fields {
    fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    fn text(&self, name: &str) -> &str {
        self.0[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name} of {}", self.0))
    }

    fn number<T: TryFrom<u64>>(&self, name: &str) -> T {
        let number = self.0[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} of {}", self.0));
        T::try_from(number).ok().expect("a number of this width")
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        hex(self.text(name))
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name)
            .try_into()
            .expect("an array of this length")
    }

    /// A physical value as the wire's integer.
    fn scaled<T: TryFrom<i64>>(&self, name: &str, per_unit: f64) -> Option<T> {
        scaled(&self.0[name], per_unit)
    }

    fn records(&self) -> Vec<Fields> {
        let records = self.0["records"].as_array().expect("records");
        records.iter().cloned().map(Fields).collect()
    }
}

fn scaled<T: TryFrom<i64>>(value: &Value, per_unit: f64) -> Option<T> {
    // Whole numbers are taken as they are: the largest are not doubles.
    let wire = match value.as_i64() {
        Some(whole) if per_unit == 1.0 => whole,
        _ => (value.as_f64().expect("a number") * per_unit).round() as i64,
    };
    Some(T::try_from(wire).ok().expect("a number of this width"))
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).expect("a hex digit") as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

struct Vectors {
    key: DeviceKey,
    session_key: SessionKey,
    by_name: BTreeMap<String, Fields>,
}

impl Vectors {
    fn load() -> Self {
        let file = Fields(serde_json::from_str(VECTORS).expect("JSON"));
        let vectors = file.0["vectors"].as_array().expect("vectors");
        let by_name: BTreeMap<_, _> = vectors
            .iter()
            .map(|vector| {
                (
                    Fields(vector.clone()).text("name").to_owned(),
                    Fields(vector.clone()),
                )
            })
            .collect();
        assert_eq!(by_name.len(), vectors.len(), "names are unique");
        Self {
            key: Secret::new(file.array("key")),
            session_key: Secret::new(file.array("session_key")),
            by_name,
        }
    }

    fn named(&self, name: &str) -> &Fields {
        self.by_name
            .get(name)
            .unwrap_or_else(|| panic!("no vector {name:?}"))
    }

    fn fields(&self, name: &str) -> Fields {
        Fields(self.named(name).0["fields"].clone())
    }

    fn nonce(&self) -> Nonce {
        Nonce(self.fields("login").array("nonce"))
    }
}

fn whole(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    match frame::parse(bytes, FRAME_BYTES_MAX)? {
        Parsed::Frame { frame, consumed } => {
            assert_eq!(consumed, bytes.len());
            Ok(frame)
        }
        Parsed::Incomplete { .. } => panic!("a vector is a whole frame"),
    }
}

fn from_device<'a>(bytes: &'a [u8]) -> Result<FromDevice<'a>, MessageError> {
    FromDevice::decode(&whole(bytes).expect("a right header"))
}

fn from_cluster<'a>(bytes: &'a [u8]) -> Result<FromCluster<'a>, MessageError> {
    FromCluster::decode(&whole(bytes).expect("a right header"))
}

/// Made from its fields, the message is the frame; the frame is the message; and nobody takes
/// it for one of the other direction.
fn check_from_device(message: FromDevice<'_>, id: u16, bytes: &[u8], name: &str) {
    let mut made = Vec::new();
    message.encode(id, &mut made);
    assert_eq!(made, bytes, "{name}");
    assert_eq!(from_device(bytes), Ok(message), "{name}");
    assert_eq!(
        from_cluster(bytes),
        Err(MessageError::WrongDirection),
        "{name}"
    );
}

fn check_from_cluster(message: FromCluster<'_>, id: u16, bytes: &[u8], name: &str) {
    let mut made = Vec::new();
    message.encode(id, &mut made);
    assert_eq!(made, bytes, "{name}");
    assert_eq!(from_cluster(bytes), Ok(message), "{name}");
    assert_eq!(
        from_device(bytes),
        Err(MessageError::WrongDirection),
        "{name}"
    );
}

#[test]
fn every_vector_holds() {
    let vectors = Vectors::load();
    let mut checked = 0;
    for (name, vector) in &vectors.by_name {
        let fields = vectors.fields(name);
        if !vector.has("frame") {
            assert_eq!(name, "nonce without a generator");
            let count = LoginCount {
                boot: fields.number("boot_counter"),
                login: fields.number("login_counter"),
            };
            let nonce = proof::nonce_without_generator(&vectors.key, count);
            assert_eq!(nonce, Nonce(fields.array("nonce")));
        } else if fields.has("error") {
            check_error(&fields, &vector.bytes("frame"), name);
        } else if fields.has("ignored") {
            let frame = vector.bytes("frame");
            assert_eq!(from_device(&frame), Err(MessageError::UnknownKind));
            assert_eq!(from_cluster(&frame), Err(MessageError::UnknownKind));
            assert_eq!(whole(&frame).expect("a frame").body, fields.bytes("body"));
        } else {
            check_message(&vectors, vector, &fields, name);
        }
        checked += 1;
    }
    assert_eq!(checked, 45, "the contract's vectors");
}

fn check_error(fields: &Fields, bytes: &[u8], name: &str) {
    match fields.text("error") {
        "crc" => assert_eq!(frame::parse(bytes, FRAME_BYTES_MAX), Err(FrameError::Crc)),
        "version" => assert_eq!(
            frame::parse(bytes, FRAME_BYTES_MAX),
            Err(FrameError::Version)
        ),
        what => {
            let Err(MessageError::Body(field)) = from_device(bytes) else {
                panic!("{name} has a wrong body");
            };
            assert_eq!(field, what, "{name}");
        }
    }
    let answer = Close {
        reason: CloseReason::ProtocolError,
        retry_after_ms: 0,
    };
    let mut made = Vec::new();
    answer.encode(&mut made);
    assert_eq!(made, fields.bytes("answer"), "{name}");
}

fn check_message(vectors: &Vectors, vector: &Fields, fields: &Fields, name: &str) {
    let bytes = &vector.bytes("frame")[..];
    let id: u16 = vector.number("id");
    let device = |message| check_from_device(message, id, bytes, name);
    let cluster = |message| check_from_cluster(message, id, bytes, name);
    match vector.number::<u8>("kind") {
        kind::LOGIN => {
            let account: AccountName = fields.text("account").parse().expect("an account");
            let login = Login::sign(
                &account,
                fields.text("firmware"),
                fields.number("sent_at_ms"),
                Nonce(fields.array("nonce")),
                &vectors.key,
            );
            assert!(login.verify(&vectors.key));
            assert_eq!(login.proof, fields.array("proof"));
            device(FromDevice::Login(login));
        }
        kind::LOGIN_REPLY => cluster(FromCluster::LoginReply(login_reply(vectors, fields))),
        kind::ATTACH => {
            let attach = Attach::sign(Secret::new(fields.array("ticket")), &vectors.session_key);
            assert!(attach.verify(&vectors.session_key));
            assert_eq!(attach.proof, fields.array("proof"));
            device(FromDevice::Attach(attach));
        }
        kind::ATTACH_REPLY => {
            let resumption = fields.has("resumption").then(|| fields.bytes("resumption"));
            let reply = attach_reply(vectors, fields, resumption.as_deref(), name);
            cluster(FromCluster::AttachReply(reply));
        }
        kind::HEARTBEAT => device(FromDevice::Heartbeat),
        kind::HEARTBEAT_REPLY => cluster(FromCluster::HeartbeatReply(HeartbeatReply {
            server_time_ms: fields.number("server_time_ms"),
        })),
        kind::TELEMETRY => records::check_telemetry(vectors, fields, id, bytes, name),
        kind::TELEMETRY_ACK => cluster(FromCluster::TelemetryAck(TelemetryAck {
            base_seq: fields.number("base_seq"),
            count: fields.number("count"),
            status: AckStatus::from_code(fields.number("status")).expect("a status"),
            retry_after_ms: fields.number("retry_after_ms"),
        })),
        kind::RESUME => device(FromDevice::Resume(Resume {
            resumption: &fields.bytes("resumption"),
        })),
        kind::RESUME_CHALLENGE => cluster(FromCluster::ResumeChallenge(ResumeChallenge {
            challenge: Challenge(fields.array("challenge")),
        })),
        kind::RESUME_PROOF => {
            let challenge = Challenge(vectors.fields("resume challenge").array("challenge"));
            let resumption = vectors.fields("resume").bytes("resumption");
            let proof = ResumeProof::sign(challenge, &resumption, &vectors.session_key);
            assert!(proof.verify(challenge, &resumption, &vectors.session_key));
            assert_eq!(proof.proof, fields.array("proof"));
            device(FromDevice::ResumeProof(proof));
        }
        kind::COMMAND => cluster(FromCluster::Command(Command {
            command_id: CommandId(fields.number("command_id")),
            deadline_ms: fields.number("deadline_ms"),
            code: fields.number("code"),
            payload: &fields.bytes("payload"),
        })),
        kind::COMMAND_REPLY => device(FromDevice::CommandReply(CommandReply {
            command_id: CommandId(fields.number("command_id")),
            status: CommandStatus::from_code(fields.number("status")).expect("a status"),
            more: fields.number::<u8>("more") == 1,
            payload: &fields.bytes("payload"),
        })),
        kind::REDIRECT => {
            let reason = RedirectReason::from_code(fields.number("reason"));
            let retry_after_ms = fields.number("retry_after_ms");
            let redirect = if fields.number::<u8>("has_target") == 1 {
                Redirect::sign(reason, retry_after_ms, target(fields), &vectors.session_key)
            } else {
                Redirect {
                    reason,
                    retry_after_ms,
                    target: None,
                }
            };
            assert!(redirect.verify(&vectors.session_key));
            assert_eq!(
                redirect.target.map(|signed| signed.proof),
                fields.has("proof").then(|| fields.array("proof"))
            );
            cluster(FromCluster::Redirect(redirect));
        }
        kind::CLOSE => cluster(FromCluster::Close(Close {
            reason: CloseReason::from_code(fields.number("reason")).expect("a reason"),
            retry_after_ms: fields.number("retry_after_ms"),
        })),
        kind => panic!("{name}: kind {kind}"),
    }
}

fn target(fields: &Fields) -> Target<'_> {
    Target {
        host: fields.text("host"),
        port: fields.number("port"),
        ticket: Secret::new(fields.array("ticket")),
        ticket_ttl_s: fields.number("ticket_ttl_s"),
    }
}

fn login_reply<'a>(vectors: &Vectors, fields: &'a Fields) -> LoginReply<'a> {
    let (nonce, key) = (vectors.nonce(), &vectors.key);
    let retry_after_ms = fields.number("retry_after_ms");
    let server_time_ms = fields.number("server_time_ms");
    let plain = |verdict| LoginReply {
        retry_after_ms,
        server_time_ms,
        verdict,
    };
    let status = LoginStatus::from_code(fields.number("status")).expect("a status");
    let reply = match status {
        LoginStatus::Ok => LoginReply::ok(server_time_ms, target(fields), nonce, key),
        LoginStatus::Refused => plain(LoginVerdict::Refused),
        LoginStatus::Disabled => LoginReply::disabled(retry_after_ms, server_time_ms, nonce, key),
        LoginStatus::ClockSkew => {
            LoginReply::clock_skew(retry_after_ms, server_time_ms, nonce, key)
        }
        LoginStatus::Full => plain(LoginVerdict::Full),
        LoginStatus::Busy => plain(LoginVerdict::Busy),
        LoginStatus::Malformed => plain(LoginVerdict::Malformed),
    };
    assert_eq!(reply.status(), status);
    assert!(reply.verify(nonce, key));
    reply
}

fn attach_reply<'a>(
    vectors: &Vectors,
    fields: &Fields,
    resumption: Option<&'a [u8]>,
    name: &str,
) -> AttachReply<'a> {
    let retry_after_ms = fields.number("retry_after_ms");
    let server_time_ms = fields.number("server_time_ms");
    let Some(resumption) = resumption else {
        return AttachReply {
            retry_after_ms,
            server_time_ms,
            verdict: match fields.number::<u8>("status") {
                1 => AttachVerdict::NotAdmitted,
                3 => AttachVerdict::Draining,
                status => panic!("{name}: status {status}"),
            },
        };
    };
    let credential = if name == "attach reply to a resumption" {
        Credential::Challenge(Challenge(
            vectors.fields("resume challenge").array("challenge"),
        ))
    } else {
        Credential::Ticket(Secret::new(vectors.fields("attach").array("ticket")))
    };
    let terms = Terms {
        heartbeat_s: fields.number("heartbeat_s"),
        window: fields.number("window"),
        resume_ttl_s: fields.number("resume_ttl_s"),
        resumption,
    };
    let reply = AttachReply::ok(server_time_ms, terms, credential, &vectors.session_key);
    assert!(reply.verify(credential, &vectors.session_key));
    reply
}

#[test]
fn device_and_conn_server_compute_the_session_key_of_the_vectors() {
    let vectors = Vectors::load();
    let ticket = Secret::new(vectors.fields("login reply, ok").array("ticket"));
    let session_key = proof::session_key(&vectors.key, vectors.nonce(), &ticket);
    assert_eq!(session_key, vectors.session_key);
}
