//! Pure. Properties of the whole format: what is written is read back, however it is cut; what
//! is not written by the contract's rules is refused without a panic; a proof covers every bit.

use proptest::collection::vec;
use proptest::prelude::*;

use super::attach::{
    Attach, AttachReply, AttachVerdict, Challenge, Credential, RESUMPTION_BYTES_MAX, Resume,
    ResumeChallenge, ResumeProof, Terms,
};
use super::close::{Close, Redirect, RedirectReason};
use super::code::{AckStatus, CloseReason, CommandStatus};
use super::command::{Command, CommandId, CommandReply};
use super::error::MessageError;
use super::frame::{self, FRAME_BYTES_MAX, Frame, Parsed};
use super::login::{Login, LoginReply, LoginVerdict, Target};
use super::message::{FromCluster, FromDevice, HeartbeatReply};
use super::telemetry::{RECORDED_AT_MS_MAX, SEQ_END, TelemetryAck, TelemetryWriter};
use common::ids::{AccountName, Nonce};
use common::secret::{DeviceKey, Secret, SessionKey};

const KEY: DeviceKey = Secret::new([7; 32]);
const SESSION_KEY: SessionKey = Secret::new([9; 32]);

/// The variable parts of which one message of each shape is made.
#[derive(Debug)]
struct Parts {
    account: AccountName,
    firmware: String,
    host: std::net::IpAddr,
    bytes_16: [u8; 16],
    long: [u64; 2],
    medium: u32,
    short: [u16; 3],
    pick: prop::sample::Index,
    flag: bool,
    payload: Vec<u8>,
    writer: TelemetryWriter,
}

prop_compose! {
    fn parts()(
        account in "[A-Za-z0-9._:-]{1,32}",
        firmware in "[ -~]{0,32}",
        host: std::net::IpAddr,
        bytes_16: [u8; 16],
        long: [u64; 2],
        medium: u32,
        short: [u16; 3],
        pick: prop::sample::Index,
        flag: bool,
        payload in vec(any::<u8>(), 0..300),
        writer in telemetry(),
    ) -> Parts {
        let account = account.parse().expect("an account");
        Parts { account, firmware, host, bytes_16, long, medium, short, pick, flag, payload, writer }
    }
}

prop_compose! {
    fn telemetry()(
        base_seq in 0..SEQ_END - 255,
        base_time_ms in 0..=RECORDED_AT_MS_MAX,
        records in vec((any::<u8>(), any::<u32>(), vec(any::<u8>(), 0..=255)), 1..40),
    ) -> TelemetryWriter {
        let mut writer = TelemetryWriter::default();
        writer.begin(base_seq, base_time_ms);
        for (kind, offset_ms, payload) in records {
            let at = (base_time_ms + u64::from(offset_ms)).min(RECORDED_AT_MS_MAX);
            writer.push_raw(at, kind, &payload).expect("room for 40");
        }
        writer
    }
}

impl Parts {
    fn nonce(&self) -> Nonce {
        Nonce(self.bytes_16)
    }

    fn credentials(&self) -> [Credential; 2] {
        [
            Credential::Ticket(Secret::new(self.bytes_16)),
            Credential::Challenge(Challenge(self.bytes_16)),
        ]
    }

    fn one_of<T: Copy>(&self, all: &[T]) -> T {
        *self.pick.get(all)
    }

    /// One of each message that a device sends.
    fn device_messages(&self) -> Vec<FromDevice<'_>> {
        let [a, _] = self.long;
        let challenge = Challenge(self.bytes_16);
        vec![
            FromDevice::Login(Login::sign(
                &self.account,
                &self.firmware,
                a,
                self.nonce(),
                &KEY,
            )),
            FromDevice::Attach(Attach::sign(Secret::new(self.bytes_16), &SESSION_KEY)),
            FromDevice::Heartbeat,
            FromDevice::Telemetry(self.writer.telemetry().expect("records")),
            FromDevice::Resume(Resume {
                resumption: &self.payload,
            }),
            FromDevice::ResumeProof(ResumeProof::sign(challenge, &self.payload, &SESSION_KEY)),
            FromDevice::CommandReply(CommandReply {
                command_id: CommandId(a),
                status: self.one_of(CommandStatus::ALL),
                more: self.flag,
                payload: &self.payload,
            }),
        ]
    }

    /// One of each message that the cluster sends, and of each status with fields of its own.
    fn cluster_messages<'a>(&'a self, host: &'a str) -> Vec<FromCluster<'a>> {
        let [a, b] = self.long;
        let [c, d, e] = self.short;
        let target = Target {
            host,
            port: c,
            ticket: Secret::new(self.bytes_16),
            ticket_ttl_s: d,
        };
        let terms = Terms {
            heartbeat_s: c,
            window: d,
            resume_ttl_s: e.max(1),
            resumption: &self.payload[..self.payload.len().min(RESUMPTION_BYTES_MAX)],
        };
        let without_resumption = Terms {
            resume_ttl_s: 0,
            resumption: &[],
            ..terms
        };
        let [ticket, challenge] = self.credentials();
        let login_reply = |verdict| {
            FromCluster::LoginReply(LoginReply {
                retry_after_ms: self.medium,
                server_time_ms: a,
                verdict,
            })
        };
        let attach_reply = |verdict| {
            FromCluster::AttachReply(AttachReply {
                retry_after_ms: self.medium,
                server_time_ms: a,
                verdict,
            })
        };
        let reason = RedirectReason::from_code(self.bytes_16[0]);
        vec![
            FromCluster::LoginReply(LoginReply::ok(a, target, self.nonce(), &KEY)),
            FromCluster::LoginReply(LoginReply::disabled(self.medium, a, self.nonce(), &KEY)),
            FromCluster::LoginReply(LoginReply::clock_skew(self.medium, a, self.nonce(), &KEY)),
            login_reply(self.one_of(&[
                LoginVerdict::Refused,
                LoginVerdict::Full,
                LoginVerdict::Busy,
                LoginVerdict::Malformed,
            ])),
            FromCluster::AttachReply(AttachReply::ok(a, terms, ticket, &SESSION_KEY)),
            FromCluster::AttachReply(AttachReply::ok(
                a,
                without_resumption,
                challenge,
                &SESSION_KEY,
            )),
            attach_reply(self.one_of(&[
                AttachVerdict::NotAdmitted,
                AttachVerdict::Full,
                AttachVerdict::Draining,
            ])),
            FromCluster::HeartbeatReply(HeartbeatReply { server_time_ms: a }),
            FromCluster::TelemetryAck(TelemetryAck {
                base_seq: a,
                count: self.bytes_16[1],
                status: self.one_of(AckStatus::ALL),
                retry_after_ms: self.medium,
            }),
            FromCluster::ResumeChallenge(ResumeChallenge {
                challenge: Challenge(self.bytes_16),
            }),
            FromCluster::Command(Command {
                command_id: CommandId(a),
                deadline_ms: b,
                code: c,
                payload: &self.payload,
            }),
            FromCluster::Redirect(Redirect::sign(reason, self.medium, target, &SESSION_KEY)),
            FromCluster::Redirect(Redirect {
                reason,
                retry_after_ms: self.medium,
                target: None,
            }),
            FromCluster::Close(Close {
                reason: self.one_of(CloseReason::ALL),
                retry_after_ms: self.medium,
            }),
        ]
    }

    /// All of them as frames.
    fn frames(&self, host: &str) -> Vec<Vec<u8>> {
        let encoded = |encode: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            encode(&mut bytes);
            bytes
        };
        let from_device = self.device_messages();
        let from_device = from_device
            .iter()
            .map(|message| encoded(&|out| message.encode(1, out)));
        let from_cluster = self.cluster_messages(host);
        let from_cluster = from_cluster
            .iter()
            .map(|message| encoded(&|out| message.encode(1, out)));
        from_device.chain(from_cluster).collect()
    }
}

/// What is accepted is the one way to write it, but for statuses and reasons that are not listed.
fn check_strict(frame: &Frame<'_>) -> Result<(), TestCaseError> {
    let mut written = Vec::new();
    if let Ok(message) = FromDevice::decode(frame) {
        message.encode(frame.id, &mut written);
        prop_assert_eq!(whole(&written), *frame);
    } else if let Ok(message) = FromCluster::decode(frame) {
        message.encode(frame.id, &mut written);
        let written = whole(&written);
        prop_assert_eq!((written.kind, written.id), (frame.kind, frame.id));
        prop_assert_eq!(written.body.len(), frame.body.len());
        prop_assert_eq!(written.body == frame.body, is_listed(&message, frame.body));
    }
    Ok(())
}

fn whole(bytes: &[u8]) -> Frame<'_> {
    match frame::parse(bytes, FRAME_BYTES_MAX) {
        Ok(Parsed::Frame { frame, consumed }) if consumed == bytes.len() => frame,
        other => panic!("{other:?}"),
    }
}

/// Whether the proof of a decoded message holds; `None` where it has none.
fn device_proof_holds(message: &FromDevice<'_>, parts: &Parts) -> Option<bool> {
    match message {
        FromDevice::Login(login) => Some(login.verify(&KEY)),
        FromDevice::Attach(attach) => Some(attach.verify(&SESSION_KEY)),
        FromDevice::ResumeProof(proof) => {
            Some(proof.verify(Challenge(parts.bytes_16), &parts.payload, &SESSION_KEY))
        }
        _ => None,
    }
}

fn cluster_proof_holds(message: &FromCluster<'_>, parts: &Parts) -> Option<bool> {
    match message {
        FromCluster::LoginReply(reply) => {
            use LoginVerdict::{ClockSkew, Disabled, Ok};
            matches!(reply.verdict, Ok(_) | Disabled { .. } | ClockSkew { .. })
                .then(|| reply.verify(parts.nonce(), &KEY))
        }
        FromCluster::AttachReply(reply) => matches!(reply.verdict, AttachVerdict::Ok { .. })
            .then(|| reply.verify(parts.credentials()[0], &SESSION_KEY)),
        FromCluster::Redirect(redirect) => redirect.target.map(|_| redirect.verify(&SESSION_KEY)),
        _ => None,
    }
}

/// What a signed body becomes when any one bit of it is flipped is not taken for genuine.
fn no_flipped_bit_holds(
    frame: &Frame<'_>,
    holds: impl Fn(&Frame<'_>) -> Option<bool>,
) -> Result<(), TestCaseError> {
    let Some(genuine) = holds(frame) else {
        return Ok(());
    };
    prop_assert!(genuine);
    let mut body = frame.body.to_vec();
    for bit in 0..body.len() * 8 {
        body[bit / 8] ^= 1 << (bit % 8);
        let forged = Frame {
            body: &body,
            ..*frame
        };
        prop_assert_ne!(holds(&forged), Some(true), "bit {} of {:?}", bit, frame);
        body[bit / 8] ^= 1 << (bit % 8);
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(parts in parts(), id in 1_u16..) {
        for message in parts.device_messages() {
            let mut bytes = Vec::new();
            message.encode(id, &mut bytes);
            let frame = whole(&bytes);
            prop_assert_eq!(frame.id, id);
            prop_assert_eq!(FromDevice::decode(&frame), Ok(message));
            prop_assert_eq!(FromCluster::decode(&frame), Err(MessageError::WrongDirection));
        }
        let host = parts.host.to_string();
        for message in parts.cluster_messages(&host) {
            let mut bytes = Vec::new();
            message.encode(id, &mut bytes);
            let frame = whole(&bytes);
            let unasked = matches!(message, FromCluster::Redirect(_) | FromCluster::Close(_));
            prop_assert_eq!(frame.id, if unasked { 0 } else { id });
            prop_assert_eq!(FromCluster::decode(&frame), Ok(message));
            prop_assert_eq!(FromDevice::decode(&frame), Err(MessageError::WrongDirection));
        }
    }

    /// Also of a body that is a byte shorter or longer: it has exactly its fields.
    #[test]
    fn a_body_has_exactly_its_fields(parts in parts()) {
        let host = parts.host.to_string();
        for bytes in parts.frames(&host) {
            let frame = whole(&bytes);
            let longer = [frame.body, &[0]].concat();
            let shorter = frame.body.split_last().map(|(_, shorter)| shorter);
            for body in shorter.into_iter().chain([&longer[..]]) {
                let frame = Frame { body, ..frame };
                prop_assert!(FromDevice::decode(&frame).is_err(), "{:?}", frame);
                prop_assert!(FromCluster::decode(&frame).is_err(), "{:?}", frame);
            }
        }
    }

    #[test]
    fn a_stream_yields_the_same_frames_however_it_is_cut(
        parts in parts(),
        cuts in vec(1_usize..200, 1..50),
    ) {
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for message in parts.device_messages() {
            let start = stream.len();
            message.encode(1, &mut stream);
            expected.push(stream[start..].to_vec());
        }
        let (mut pending, mut frames) = (Vec::new(), Vec::new());
        let (mut rest, mut cuts) = (&stream[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let cut = cuts.next().map_or(1, |&cut| cut.min(rest.len()));
            pending.extend_from_slice(&rest[..cut]);
            rest = &rest[cut..];
            loop {
                match frame::parse(&pending, FRAME_BYTES_MAX).expect("right frames") {
                    Parsed::Frame { frame, consumed } => {
                        let mut again = Vec::new();
                        frame.encode(&mut again);
                        frames.push(again);
                        pending.drain(..consumed);
                    }
                    Parsed::Incomplete { needed } => {
                        prop_assert!(needed > pending.len(), "waits for bytes that are there");
                        let frame = expected.get(frames.len()).map_or(frame::HEADER_BYTES, Vec::len);
                        prop_assert!(needed <= frame, "waits for bytes that never come");
                        break;
                    }
                }
            }
        }
        prop_assert_eq!(frames, expected);
    }

    #[test]
    fn no_stream_panics(bytes in vec(any::<u8>(), 0..600), limit in 0_usize..70_000) {
        // Most random streams end at the magic: try with a right start, too.
        let started = [b"RC\x01", &bytes[..]].concat();
        for bytes in [bytes, started] {
            match frame::parse(&bytes, limit) {
                Ok(Parsed::Frame { consumed, .. }) => prop_assert!(consumed <= limit.min(bytes.len())),
                Ok(Parsed::Incomplete { needed }) => prop_assert!(needed > bytes.len()),
                Err(_) => {}
            }
        }
    }

    /// Any bytes under any kind: refused, or a message; never a panic.
    #[test]
    fn no_body_panics(kind: u8, id: u16, body in vec(any::<u8>(), 0..100)) {
        for kind in [kind, kind % 0x30] {
            check_strict(&Frame { kind, id, body: &body })?;
        }
    }

    /// A body that was right before a few of its bytes were overwritten, or it was cut.
    #[test]
    fn a_body_is_refused_or_written_in_the_one_way(
        parts in parts(),
        overwritten in vec((any::<prop::sample::Index>(), prop_oneof![0..9_u8, any::<u8>()]), 1..4),
        cut in prop_oneof![4 => Just(0_usize), 1 => 1..9_usize],
    ) {
        let host = parts.host.to_string();
        for mut bytes in parts.frames(&host) {
            let frame = whole(&bytes);
            let (kind, id) = (frame.kind, frame.id);
            let mut body = bytes.split_off(frame::HEADER_BYTES);
            body.truncate(body.len().saturating_sub(cut));
            for (place, byte) in &overwritten {
                if !body.is_empty() {
                    let place = place.index(body.len());
                    body[place] = *byte;
                }
            }
            check_strict(&Frame { kind, id, body: &body })?;
        }
    }

    #[test]
    fn a_proof_covers_every_bit(parts in parts()) {
        for message in parts.device_messages() {
            let mut bytes = Vec::new();
            message.encode(1, &mut bytes);
            no_flipped_bit_holds(&whole(&bytes), |frame| {
                device_proof_holds(&FromDevice::decode(frame).ok()?, &parts)
            })?;
        }
        let host = parts.host.to_string();
        for message in parts.cluster_messages(&host) {
            // Of the two replies to an attachment one answers a challenge with the same bytes
            // as the ticket: the proof is the same.
            let mut bytes = Vec::new();
            message.encode(1, &mut bytes);
            no_flipped_bit_holds(&whole(&bytes), |frame| {
                cluster_proof_holds(&FromCluster::decode(frame).ok()?, &parts)
            })?;
        }
    }

}

/// Whether status or reason is one that the contract lists, or is kept as it came.
fn is_listed(message: &FromCluster<'_>, body: &[u8]) -> bool {
    let at = |i: usize| body.get(i).copied();
    match message {
        FromCluster::LoginReply(reply) => at(0) == Some(reply.status().code()),
        FromCluster::AttachReply(reply) => at(0) == Some(reply.status().code()),
        FromCluster::Close(close) => at(0) == Some(close.reason.code()),
        FromCluster::TelemetryAck(ack) => at(9) == Some(ack.status.code()),
        _ => true,
    }
}
