//! One frame with a right crc, read by the cluster and by a device: each takes what the contract
//! says, and what was decoded is made again byte for byte.
//!
//! ```text
//! 0      1    3 …
//! | kind | id | body
//! ```

use common::secret::{DeviceKey, Secret};
use protocols::rcu::attach::{Attach, ResumeProof};
use protocols::rcu::error::MessageError;
use protocols::rcu::frame::{self, BODY_BYTES_MAX, Frame, Parsed};
use protocols::rcu::login::Login;
use protocols::rcu::message::{FromCluster, FromDevice};
use protocols::rcu::telemetry::{Telemetry, TelemetryWriter};

use crate::contract::{self, Body, Direction};

/// The key of the vectors, so that proofs in the corpus are right ones.
pub const KEY: DeviceKey = Secret::new([
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
    26, 27, 28, 29, 30, 31,
]);

pub fn device_message(data: &[u8]) {
    let [kind, id_0, id_1, body @ ..] = data else {
        return;
    };
    let (kind, id) = (*kind, u16::from_le_bytes([*id_0, *id_1]));
    let body = &body[..body.len().min(BODY_BYTES_MAX)];
    let bytes = contract::sealed(kind, id, body);
    let frame = Frame { kind, id, body };
    let parsed = Parsed::Frame {
        frame,
        consumed: bytes.len(),
    };
    assert_eq!(frame::parse(&bytes, bytes.len()), Ok(parsed));
    let mut again = vec![];
    frame.encode(&mut again);
    assert_eq!(again, bytes);

    let direction = contract::direction(kind);
    let expected = match contract::body(kind, body) {
        // Whoever asks with a wrong id has asked nothing.
        _ if !contract::id_is_right(kind, id) => Body::Wrong,
        verdict => verdict,
    };
    let from_device = FromDevice::decode(&frame);
    let from_cluster = FromCluster::decode(&frame);
    match direction {
        Direction::Unlisted => {
            assert_eq!(from_device, Err(MessageError::UnknownKind));
            assert_eq!(from_cluster, Err(MessageError::UnknownKind));
        }
        Direction::ToCluster => {
            assert_eq!(from_cluster, Err(MessageError::WrongDirection));
            assert_eq!(
                verdict(from_device.as_ref().err()),
                expected,
                "{from_device:?}"
            );
            if let Ok(message) = from_device {
                let mut again = vec![];
                message.encode(id, &mut again);
                assert_eq!(again, bytes);
                look_into(&message, body);
            }
        }
        Direction::ToDevice => {
            assert_eq!(from_device, Err(MessageError::WrongDirection));
            assert_eq!(
                verdict(from_cluster.as_ref().err()),
                expected,
                "{from_cluster:?}"
            );
            if let Ok(message) = from_cluster {
                let mut body = body.to_vec();
                if let Some((at, taken_for)) = contract::taken_for(kind, &body) {
                    body[at] = taken_for;
                }
                let mut again = vec![];
                message.encode(id, &mut again);
                assert_eq!(again, contract::sealed(kind, id, &body));
            }
        }
    }
}

fn verdict(error: Option<&MessageError>) -> Body {
    match error {
        None => Body::Right,
        Some(MessageError::Body(_)) => Body::Wrong,
        Some(MessageError::TelemetryCannotBeCut { .. }) => Body::Uncuttable,
        Some(other) => panic!("{other:?} of a kind of this direction"),
    }
}

/// What a message says beyond its bytes: proofs that hold exactly where the key made them, and
/// records.
fn look_into(message: &FromDevice<'_>, body: &[u8]) {
    match message {
        FromDevice::Login(login) => {
            let account = login.account.parse().expect("an account name");
            let signed = Login::sign(
                &account,
                login.firmware,
                login.sent_at_ms,
                login.nonce,
                &KEY,
            );
            assert!(signed.verify(&KEY));
            assert_eq!(login.verify(&KEY), login.proof == signed.proof);
        }
        FromDevice::Attach(attach) => {
            let signed = Attach::sign(attach.ticket, &KEY);
            assert!(signed.verify(&KEY));
            assert_eq!(attach.verify(&KEY), attach.proof == signed.proof);
        }
        FromDevice::ResumeProof(proof) => {
            let challenge = protocols::rcu::attach::Challenge([7; 16]);
            let signed = ResumeProof::sign(challenge, body, &KEY);
            assert!(signed.verify(challenge, body, &KEY));
            let is_right = proof.verify(challenge, body, &KEY);
            assert_eq!(is_right, proof.proof == signed.proof);
        }
        FromDevice::Telemetry(telemetry) => records(telemetry, body),
        FromDevice::Heartbeat | FromDevice::Resume(_) | FromDevice::CommandReply(_) => {}
    }
}

/// The records are those of the contract's reading, and a device that sends them makes this body.
fn records(telemetry: &Telemetry<'_>, body: &[u8]) {
    let expected = contract::records(body).expect("it could be cut");
    assert_eq!(usize::from(telemetry.count()), expected.len());
    let mut writer = TelemetryWriter::default();
    writer.begin(telemetry.base_seq(), telemetry.base_time_ms());
    let mut found = 0;
    for (record, expected) in telemetry.records().zip(&expected) {
        found += 1;
        let contract::Record {
            seq,
            recorded_at_ms,
            kind,
            payload,
        } = expected;
        assert_eq!((record.seq, record.recorded_at_ms), (*seq, *recorded_at_ms));
        assert_eq!((record.kind, record.payload), (*kind, &payload[..]));
        writer
            .push_raw(record.recorded_at_ms, record.kind, record.payload)
            .expect("it was in a frame before");
    }
    assert_eq!(found, expected.len());
    assert_eq!(writer.telemetry(), Some(*telemetry));
}
