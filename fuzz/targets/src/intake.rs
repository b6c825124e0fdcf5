//! A balancer's first look at a connection: one Login and nothing else, judged with each byte that
//! comes.

use balancer::intake::{INTAKE_BYTES, Intake, judge};

use crate::contract::{self, End};

pub fn intake(data: &[u8]) {
    // The first byte says whether the rest is a body to be framed or bytes as they are.
    let [mode, bytes @ ..] = data else {
        return;
    };
    let framed = contract::sealed(0x01, u16::from(*mode), &bytes[..bytes.len().min(600)]);
    let bytes = match mode % 2 {
        0 => bytes,
        _ => &framed,
    };
    let bytes = &bytes[..bytes.len().min(INTAKE_BYTES)];
    let mut breached = false;
    for length in 0..=bytes.len() {
        let judged = judge(&bytes[..length]);
        let is_breach = matches!(judged, Intake::Breach(_));
        match expected(&bytes[..length]) {
            Some(expected) => assert_eq!(judged, expected, "after {length} bytes"),
            None => assert!(is_breach, "after {length} bytes: {judged:?}"),
        }
        assert!(!breached || is_breach, "a breach is for good");
        breached = is_breach;
    }
}

/// By the contract: complete, one, a Login, of 512 bytes at most. `None`: a breach.
fn expected(bytes: &[u8]) -> Option<Intake> {
    let (frames, end) = contract::frames(bytes, 512);
    match (&frames[..], end) {
        ([], End::Incomplete { .. }) => Some(Intake::Incomplete),
        ([login], End::Incomplete { .. })
            if login.kind == 0x01 && login.id != 0 && 12 + login.body.len() == bytes.len() =>
        {
            Some(Intake::Login {
                frame_id: login.id,
                body: 12..bytes.len(),
            })
        }
        _ => None,
    }
}
