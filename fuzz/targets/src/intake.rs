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
        assert_eq!(judged, expected(&bytes[..length]), "after {length} bytes");
        assert!(
            !breached || judged == Intake::Breach,
            "a breach is for good"
        );
        breached = judged == Intake::Breach;
    }
}

/// By the contract: complete, one, a Login, of 512 bytes at most.
fn expected(bytes: &[u8]) -> Intake {
    let (frames, end) = contract::frames(bytes, 512);
    match (&frames[..], end) {
        ([], End::Incomplete { .. }) => Intake::Incomplete,
        ([login], End::Incomplete { .. })
            if login.kind == 0x01 && login.id != 0 && 12 + login.body.len() == bytes.len() =>
        {
            Intake::Login {
                frame_id: login.id,
                body: 12..bytes.len(),
            }
        }
        _ => Intake::Breach,
    }
}
