//! `rcu explain`: it never fails on bytes, and finds something wrong exactly where the servers or
//! a device would.
//!
//! ```text
//! 0      1 …
//! | mode | the text itself, or one frame's kind, id and body, or bytes to be written as hex digits
//! ```

use std::fmt::Write;

use common::secret::{DeviceKey, Secret};

use crate::contract::{self, Body, Direction};

/// Longer texts take long and find nothing that these do not.
const BYTES_MAX: usize = 2_048;

const KEY: DeviceKey = Secret::new([7; 32]);

pub fn explain(data: &[u8]) {
    let [mode, rest @ ..] = data else {
        return;
    };
    let rest = &rest[..rest.len().min(BYTES_MAX)];
    match (mode % 3, rest) {
        (0, text) => {
            if let Ok(explanation) = rcu::explain::explain(&String::from_utf8_lossy(text), None) {
                let told = explanation.to_string();
                assert_eq!(told.ends_with("\nok\n"), explanation.is_right());
            }
        }
        (1, [kind, id_0, id_1, body @ ..]) => {
            let id = u16::from_le_bytes([*id_0, *id_1]);
            check(&contract::sealed(*kind, id, body), mode / 3);
        }
        (_, bytes) => check(bytes, mode / 3),
    }
}

/// The verdict over one stretch of bytes, written in one of the ways that people write them.
fn check(bytes: &[u8], style: u8) {
    if bytes.is_empty() {
        return;
    }
    let text = written(bytes, style);
    let explanation = rcu::explain::explain(&text, None).expect("hex digits");
    let told = explanation.to_string();
    assert_eq!(explanation.is_right(), is_right(bytes), "{told}");
    assert_eq!(told.ends_with("\nok\n"), explanation.is_right());
    // A key finds wrong proofs, and nothing right that was wrong without it.
    let judged = rcu::explain::explain(&text, Some(KEY)).expect("hex digits");
    assert!(explanation.is_right() || !judged.is_right(), "{judged}");
}

fn written(bytes: &[u8], style: u8) -> String {
    let (before, between) =
        [("", ""), ("", " "), ("0x", ", "), ("\\x", ""), ("", ":")][usize::from(style % 5)];
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        let between = if index == 0 { "" } else { between };
        write!(text, "{between}{before}{byte:02x}").expect("a String takes all");
    }
    text
}

/// Whether every frame is whole, of a length that its receiver reads, and right to its last record.
fn is_right(bytes: &[u8]) -> bool {
    let (frames, end) = contract::frames(bytes, 16_396);
    let whole: usize = frames.iter().map(|it| 12 + it.body.len()).sum();
    end == contract::End::Incomplete { needed: 12 }
        && whole == bytes.len()
        && frames.iter().all(|frame| {
            let contract::Frame { kind, id, body } = frame;
            let direction = contract::direction(*kind);
            let frame_bytes_max = match kind {
                0x01 | 0x03 | 0x09 | 0x0B => 512,
                0x21 => 16_396,
                _ if direction == Direction::ToDevice => 1_024,
                _ => 16_396,
            };
            let records = || contract::records(body).unwrap_or_default();
            let is_right = direction == Direction::Unlisted
                || contract::id_is_right(*kind, *id)
                    && contract::body(*kind, body) == Body::Right
                    && (*kind != 0x07
                        || records()
                            .iter()
                            .all(|it| contract::flaw(it.kind, &it.payload).is_none()));
            is_right && 12 + body.len() <= frame_bytes_max
        })
}
