//! Pure. What a device may say at the front door: one Login, and nothing else.

use std::ops::Range;

use protocols::rcu::close::Close;
use protocols::rcu::code::CloseReason;
use protocols::rcu::frame::{
    self, FRAME_BYTES_BEFORE_ATTACH_MAX, FrameError, HEADER_BYTES, Parsed,
};
use protocols::rcu::kind;

/// One byte more than may come shows that too much came.
pub const INTAKE_BYTES: usize = FRAME_BYTES_BEFORE_ATTACH_MAX + 1;

/// What the bytes of a connection so far amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Not a whole frame yet.
    Incomplete,
    /// A whole Login frame, its body not looked at.
    Login {
        frame_id: u16,
        /// Where the body lies in the bytes.
        body: Range<usize>,
    },
    /// Something else than one Login: `Close(protocol_error)`.
    Breach(Breach),
}

common::named! {
    /// What was said instead of one Login.
    Breach {
        /// A frame that does not begin with the protocol's two bytes.
        Magic = "frame_magic",
        /// A frame of a version that is not known.
        Version = "frame_version",
        /// A frame longer than any may be here.
        Length = "frame_length",
        /// A frame whose checksum is wrong.
        Crc = "frame_crc",
        /// A whole frame of another kind.
        NoLogin = "no_login",
        /// A Login with an id of 0.
        NoId = "no_id",
        /// More bytes than a Login has.
        More = "more_than_a_login",
    }
}

impl From<FrameError> for Breach {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Magic => Self::Magic,
            FrameError::Version => Self::Version,
            FrameError::Length => Self::Length,
            FrameError::Crc => Self::Crc,
        }
    }
}

/// Judges all bytes that came; a breach is told as soon as its byte is there.
pub fn judge(bytes: &[u8]) -> Intake {
    match frame::parse(bytes, FRAME_BYTES_BEFORE_ATTACH_MAX) {
        Ok(Parsed::Incomplete { .. }) => Intake::Incomplete,
        Ok(Parsed::Frame { frame, .. }) if frame.kind != kind::LOGIN => {
            Intake::Breach(Breach::NoLogin)
        }
        Ok(Parsed::Frame { frame, .. }) if frame.id == 0 => Intake::Breach(Breach::NoId),
        Ok(Parsed::Frame { consumed, .. }) if consumed < bytes.len() => {
            Intake::Breach(Breach::More)
        }
        Ok(Parsed::Frame { frame, consumed }) => Intake::Login {
            frame_id: frame.id,
            body: HEADER_BYTES..consumed,
        },
        Err(error) => Intake::Breach(error.into()),
    }
}

/// The frame that ends a connection without a reply.
pub fn close(reason: CloseReason) -> Vec<u8> {
    let mut frame = Vec::new();
    let close = Close {
        reason,
        retry_after_ms: 0,
    };
    close.encode(&mut frame);
    frame
}

#[cfg(test)]
mod tests {
    use common::ids::Nonce;
    use common::secret::Secret;
    use protocols::rcu::login::Login;

    use super::*;

    fn login(id: u16) -> Vec<u8> {
        let account = "a-1".parse().expect("a name");
        let mut frame = Vec::new();
        Login::sign(&account, "1.0", 0, Nonce([1; 16]), &Secret::new([2; 32]))
            .encode(id, &mut frame);
        frame
    }

    #[test]
    fn a_login_is_taken_when_its_last_byte_is_there() {
        let frame = login(7);
        for length in 0..frame.len() {
            assert_eq!(judge(&frame[..length]), Intake::Incomplete, "{length}");
        }
        let body = HEADER_BYTES..frame.len();
        assert_eq!(judge(&frame), Intake::Login { frame_id: 7, body });
    }

    #[test]
    fn a_login_whose_body_is_nonsense_is_still_a_login() {
        let mut frame = Vec::new();
        frame::write(kind::LOGIN, 1, &mut frame, |body| body.extend([1, 2, 3]));
        assert!(matches!(judge(&frame), Intake::Login { .. }));
    }

    #[test]
    fn anything_else_is_a_breach() {
        let mut followed = login(1);
        followed.push(b'R');
        let mut wrong_crc = login(1);
        wrong_crc[8] ^= 1;
        let mut longest = Vec::new();
        frame::write(kind::LOGIN, 1, &mut longest, |body| body.extend([0; 500]));
        let mut too_long = Vec::new();
        frame::write(kind::LOGIN, 1, &mut too_long, |body| body.extend([0; 501]));
        let of_kind = |kind| {
            let mut frame = Vec::new();
            frame::write(kind, 1, &mut frame, |_| ());
            frame
        };
        assert!(matches!(judge(&longest), Intake::Login { .. }));
        // 513 bytes, told by the header.
        too_long.truncate(HEADER_BYTES);
        for (bytes, breach) in [
            (followed, Breach::More),
            (wrong_crc, Breach::Crc),
            (too_long, Breach::Length),
            (of_kind(kind::HEARTBEAT), Breach::NoLogin),
            (of_kind(0x77), Breach::NoLogin),
            (login(0), Breach::NoId),
            (b"G".to_vec(), Breach::Magic),
            (b"RC\x02".to_vec(), Breach::Version),
        ] {
            assert_eq!(judge(&bytes), Intake::Breach(breach));
        }
    }
}
