//! The explanation agrees with the decoder that the servers use, on every vector of the contract
//! and on everything that a few wrong bytes make of them.

use common::secret::{DeviceKey, Secret};
use protocols::rcu::error::MessageError;
use protocols::rcu::frame::{self, FRAME_BYTES_MAX, HEADER_BYTES, Parsed};
use protocols::rcu::message::{FromCluster, FromDevice};
use records::Record;
use serde_json::Value;

use super::explain;
use super::field::text as readable;
use super::hex::hex;

const VECTORS: &str = include_str!("../../../docs/rcu-v1-vectors.json");

/// Name, frame and fields of every vector that has a frame.
fn vectors() -> Vec<(String, Vec<u8>, Value)> {
    let file: Value = serde_json::from_str(VECTORS).expect("JSON");
    let vectors = file["vectors"].as_array().expect("vectors");
    vectors
        .iter()
        .filter_map(|vector| {
            let name = vector["name"].as_str().expect("a name").to_owned();
            let frame = super::hex::parse(vector["frame"].as_str()?).expect("hex");
            Some((name, frame, vector["fields"].clone()))
        })
        .collect()
}

fn frame_of(name: &str) -> Vec<u8> {
    let found = vectors().into_iter().find(|(known, ..)| known == name);
    found.unwrap_or_else(|| panic!("no vector {name:?}")).1
}

fn explained(bytes: &[u8]) -> (bool, String) {
    let explanation = explain(&hex(bytes), None).expect("hex digits");
    (explanation.is_right(), explanation.to_string())
}

/// With the crc that belongs to it.
fn sealed(mut frame: Vec<u8>) -> Vec<u8> {
    let crc = frame::checksum(&frame);
    frame[8..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// Whether the servers, or a device, find nothing wrong with it.
fn is_right(bytes: &[u8]) -> bool {
    let Ok(Parsed::Frame { frame, consumed }) = frame::parse(bytes, FRAME_BYTES_MAX) else {
        return false;
    };
    let body = match FromDevice::decode(&frame) {
        Ok(FromDevice::Telemetry(telemetry)) => telemetry
            .records()
            .all(|raw| Record::decode(raw.kind, raw.payload).is_ok()),
        Err(MessageError::WrongDirection) => FromCluster::decode(&frame).is_ok(),
        decoded => matches!(decoded, Ok(_) | Err(MessageError::UnknownKind)),
    };
    body && consumed == bytes.len()
}

#[test]
fn every_vector_is_explained_with_its_verdict() {
    for (name, frame, fields) in vectors() {
        let (right, text) = explained(&frame);
        let expected = fields.get("error").is_none()
            && fields
                .get("dead_letter")
                .is_none_or(|set_aside| set_aside == &Value::from([0_u8; 0]))
            && fields.get("ack").is_none_or(|ack| ack == "stored");
        assert_eq!(right, expected, "{name}\n{text}");
        assert_eq!(text.ends_with("\nok\n"), expected, "{name}\n{text}");
        if let Some(answer) = fields["answer"].as_str() {
            assert!(text.contains(answer), "{name}\n{text}");
        }
        for (field, value) in fields.as_object().expect("fields") {
            // The payload of a record that is set aside is told by its fields.
            if field == "payload" && fields.get("dead_letter").is_some() {
                continue;
            }
            let shown = match value {
                Value::Number(number) => number.to_string(),
                Value::String(hex) if field == "payload" && !hex.is_empty() => {
                    readable(&super::hex::parse(hex).expect("hex"))
                }
                Value::String(value) if field != "error" && field != "ack" => value.clone(),
                _ => continue,
            };
            assert!(text.contains(&shown), "{name}: {field} = {shown}\n{text}");
        }
    }
}

#[test]
fn physical_values_are_those_of_the_vectors() {
    for (name, frame, fields) in vectors() {
        let (_, text) = explained(&frame);
        for record in fields["records"].as_array().into_iter().flatten() {
            for (field, value) in record.as_object().expect("fields") {
                let values = value
                    .as_array()
                    .cloned()
                    .unwrap_or_else(|| vec![value.clone()]);
                for value in values {
                    let shown = match value {
                        Value::Number(number) => number.to_string(),
                        Value::String(text) if text != "null" => text,
                        _ => continue,
                    };
                    let shown = shown.trim_end_matches(".0");
                    assert!(text.contains(shown), "{name}: {field} = {shown}\n{text}");
                }
            }
        }
    }
}

/// Any byte of any vector overwritten, under a right crc; any vector cut short or grown.
#[test]
fn the_verdict_is_the_decoders() {
    for (name, frame, _) in vectors() {
        let check = |bytes: &[u8]| {
            let (right, text) = explained(bytes);
            assert_eq!(right, is_right(bytes), "{name}: {}\n{text}", hex(bytes));
        };
        for place in 0..frame.len() {
            for value in [0, 1, 6, 0x40, 0x80, 0xff] {
                let mut changed = frame.clone();
                changed[place] = value;
                check(&changed);
                check(&sealed(changed));
            }
            check(&frame[..=place]);
        }
        let body = &frame[HEADER_BYTES..];
        for body in [
            &body[..body.len().saturating_sub(1)],
            &[body, &[0]].concat(),
        ] {
            let mut changed = [&frame[..HEADER_BYTES], body].concat();
            changed[6..8].copy_from_slice(&(body.len() as u16).to_le_bytes());
            check(&sealed(changed));
        }
    }
}

#[test]
fn several_frames_and_a_partial_one_are_told_apart() {
    let stream = [
        frame_of("heartbeat"),
        frame_of("close, replaced"),
        frame_of("login")[..20].to_vec(),
    ]
    .concat();
    let (right, text) = explained(&stream);
    assert!(!right);
    for expected in [
        "1 of 3, at byte 0: Heartbeat, device to cluster, 12 bytes",
        "2 of 3, at byte 12: Close, cluster to device, 17 bytes",
        "3 of 3, at byte 29: Login, device to cluster, 85 bytes",
        "wrong: 3 of 3: incomplete: 20 of 85 bytes are there, 65 are to come",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn a_right_frame_reads_like_this() {
    let expected = "\
Command, cluster to device, 37 bytes
     0  52 43                    magic           \"RC\"
     2  01                       version         1
     3  21                       kind            Command, cluster to device
     4  09 00                    id              9
     6  19 00                    length          25 bytes of body
     8  ac 6d 83 83              crc             0x83836dac, right
    12  2a 00 00 00 00 00 00 00  command_id      42
    20  88 bb da 76 9b 01 00 00  deadline_ms     1767225605000 = 2026-01-01T00:00:05.000Z
    28  01 00                    code            0x0001 ping
    30  05 00 68 65 6c 6c 6f     payload         5 bytes: \"hello\"
  the device answers CommandReply

ok
";
    assert_eq!(explained(&frame_of("command ping")).1, expected);
}

#[test]
fn a_wrong_frame_reads_like_this() {
    let expected = "\
Heartbeat, device to cluster, 12 bytes
     0  52 43                    magic           \"RC\"
     2  01                       version         1
     3  05                       kind            Heartbeat, device to cluster
     4  03 00                    id              3
     6  00 00                    length          0 bytes of body
     8  5d cb d2 17              crc             0x17d2cb5d
                                                 <-- wrong: expected 0x17d2cb5c (5ccbd217 on the wire), found 0x17d2cb5d
  the cluster answers Close(protocol_error), 5243012f00000500576e24a40100000000, and disconnects

wrong: byte 8, crc: expected 0x17d2cb5c (5ccbd217 on the wire), found 0x17d2cb5d
";
    assert_eq!(
        explained(&frame_of("heartbeat with a wrong crc")).1,
        expected
    );
}

#[test]
fn what_is_no_frame_is_not_read() {
    let expected = "\
no frame
     0  47 45                    magic           \"GE\"
                                                 <-- wrong: a frame begins with 52 43, \"RC\"
     2  54 20 2f 20 48 54 54 50                  8 bytes, not read
  the cluster answers Close(protocol_error), 5243012f00000500576e24a40100000000, and disconnects

wrong: byte 0, magic: a frame begins with 52 43, \"RC\"
";
    assert_eq!(explained(b"GET / HTTP").1, expected);
}

/// Found by the fuzz target `explain`: it was told to end in an error, and called right.
#[test]
fn one_byte_that_begins_no_frame_is_wrong() {
    let (right, text) = explained(&[0xcf]);
    assert!(!right, "{text}");
    let told = "wrong: byte 0, magic: a frame begins with 52 43, \"RC\"\n";
    assert!(text.ends_with(told), "{text}");
    let (right, text) = explained(b"R");
    assert!(!right && text.contains("1 of 12 bytes"), "{text}");
}

#[test]
fn common_mistakes_are_named() {
    let mut big_endian = frame_of("login");
    big_endian.swap(6, 7);
    let mut big_endian_crc = frame_of("heartbeat");
    big_endian_crc[8..].reverse();
    let mut seconds = frame_of("login");
    seconds[29..37].copy_from_slice(&1_767_225_600_u64.to_le_bytes());
    let mut shifted = vec![0];
    shifted.extend(frame_of("heartbeat"));
    for (bytes, hint) in [
        (big_endian, "read as big-endian the length is 73"),
        (
            big_endian_crc,
            "which is the right value in big-endian order",
        ),
        (sealed(seconds), "seconds? times are in milliseconds"),
        (shifted, "\"RC\" comes 1 byte later"),
    ] {
        let (_, text) = explained(&bytes);
        assert!(text.contains(hint), "{hint}\n{text}");
    }
}

/// What programs get says the same: every byte in a field, and the verdict.
#[test]
fn programs_get_an_object_for_each_frame() {
    for (name, frame, _) in vectors() {
        let two = [&frame[..], &frame[..]].concat();
        let explanation = explain(&hex(&two), None).expect("hex digits");
        let json = explanation.json().expect("JSON");
        let objects: Vec<Value> = json
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let right = objects.iter().all(|object| object["right"] == true);
        assert_eq!(right, explanation.is_right(), "{name}");
        if !right {
            continue;
        }
        let at: Vec<_> = objects.iter().map(|object| &object["at"]).collect();
        assert_eq!(at, [&Value::from(0), &Value::from(frame.len())], "{name}");
        for object in &objects {
            assert_eq!(object["bytes"], frame.len(), "{name}");
            let fields = object["fields"].as_array().expect("fields");
            let bytes: String = fields
                .iter()
                .filter_map(|it| it["bytes"].as_str())
                .collect();
            assert_eq!(bytes, hex(&frame), "{name}");
            assert_eq!(fields[1]["name"], "version", "{name}");
            assert_eq!(fields[1]["offset"], 2, "{name}");
        }
    }
    let wrong = explain("ff", None)
        .expect("hex digits")
        .json()
        .expect("JSON");
    let object: Value = serde_json::from_str(&wrong).expect("JSON");
    assert_eq!(object["right"], false);
    assert_eq!(
        object["wrong"].as_array().map(Vec::len),
        Some(1),
        "{object}"
    );
}

fn key() -> DeviceKey {
    let file: Value = serde_json::from_str(VECTORS).expect("JSON");
    let digits = file["key"].as_str().expect("a key");
    let bytes = super::hex::parse(digits).expect("hex");
    Secret::new(bytes.try_into().expect("32 bytes"))
}

fn judged(frames: &[Vec<u8>], key: DeviceKey) -> (bool, String) {
    let explanation = explain(&hex(&frames.concat()), Some(key)).expect("hex digits");
    (explanation.is_right(), explanation.to_string())
}

/// A device's whole life, as somebody captured it: with its key every proof is right, with another's
/// every one is wrong, and alone each says what it lacks.
#[test]
fn proofs_are_checked_by_what_came_before_them() {
    let life = [
        "login",
        "login reply, ok",
        "attach",
        "attach reply, ok",
        "redirect to a target",
        "attach at the target",
        "resume",
        "resume challenge",
        "resume proof",
        "attach reply to a resumption",
    ];
    let frames: Vec<_> = life.iter().map(|name| frame_of(name)).collect();
    let proofs = 8;
    let (right, text) = judged(&frames, key());
    assert!(right, "{text}");
    assert_eq!(text.matches("right, by this key").count(), proofs, "{text}");
    let (right, text) = judged(&frames, Secret::new([7; 32]));
    assert!(!right);
    let wrong = "<-- wrong: not what this key gives";
    assert_eq!(text.matches(wrong).count(), proofs, "{text}");
    for (frame, name) in frames.iter().zip(life).skip(1) {
        let (right, text) = judged(std::slice::from_ref(frame), key());
        let has_proof = !matches!(name, "resume" | "resume challenge");
        assert_eq!(
            text.contains("not checked: give the "),
            has_proof,
            "{name}\n{text}"
        );
        assert!(right, "{name}: what is not known is not wrong\n{text}");
    }
}

#[test]
fn common_mistakes_with_a_key_are_named() {
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::{Digest, Sha256};
    let login = frame_of("login");
    let (signed, _) = login.split_last_chunk::<32>().expect("a proof");
    let body = &signed[HEADER_BYTES..];
    let key = key();
    let bytes = &key.expose()[..];
    let digits = hex(bytes);
    let mac = |key: &[u8], parts: &[&[u8]]| -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    };
    let label: &[u8] = b"rcu1 login\0";
    let before_crc = [&signed[..8], &[0; 4]].concat();
    for (proof, hint) in [
        (
            mac(bytes, &[b"rcu1 login", body]),
            "it is made without the zero byte",
        ),
        (mac(bytes, &[body]), "it is made without the label"),
        (mac(digits.as_bytes(), &[label, body]), "hex digits as text"),
        (
            mac(bytes, &[label, &before_crc, body]),
            "over the header too",
        ),
        (
            Sha256::digest([bytes, label, body].concat()).into(),
            "a plain SHA-256",
        ),
        ([0; 32], "not what this key gives\n"),
    ] {
        let frame = sealed([signed, &proof].concat());
        let (right, text) = judged(&[frame], key);
        assert!(!right && text.contains(hint), "{hint}\n{text}");
        let answer = "the cluster answers LoginReply(refused) with id 1";
        assert!(text.contains(answer), "{text}");
    }
    let attach = frame_of("attach");
    let (signed, _) = attach.split_last_chunk::<32>().expect("a proof");
    let proof = mac(bytes, &[b"rcu1 attach\0", &signed[HEADER_BYTES..]]);
    let attach = sealed([signed, &proof].concat());
    let (_, text) = judged(&[login, attach], key);
    assert!(
        text.contains("account's key instead of the session key"),
        "{text}"
    );
}
