//! Pure. Frames in a byte stream.
//!
//! ```text
//! 0        2         3      4      6        8       12
//! | "RC"   | version | kind | id   | length | crc   | body …
//!                                                     length bytes
//! ```
//!
//! Whatever can be refused is refused before a byte more is waited for: a wrong magic or version
//! as soon as that byte is there, a length beyond the limit as soon as the header is. So a peer
//! that sends something else than this protocol is told at once and costs no memory.

use thiserror::Error;

pub const MAGIC: [u8; 2] = *b"RC";
pub const VERSION: u8 = 1;
pub const HEADER_BYTES: usize = 12;
pub const BODY_BYTES_MAX: usize = 16_384;
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;

/// A frame that a device sends before it is attached, and what it sends ahead of AttachReply.
pub const FRAME_BYTES_BEFORE_ATTACH_MAX: usize = 512;
/// A frame to a device, unless the fleet's owner chose larger commands.
pub const FRAME_BYTES_TO_DEVICE_MAX: usize = 1_024;

/// One whole frame with a right checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub id: u16,
    pub body: &'a [u8],
}

/// What the front of a byte stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Not a whole frame yet. `needed` is its length in all, as far as it is known: the header's
    /// while that is incomplete, else header and body.
    Incomplete { needed: usize },
    /// A frame, and the bytes that it took.
    Frame { frame: Frame<'a>, consumed: usize },
}

/// The header field that is wrong. The stream cannot be read on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum FrameError {
    #[error("wrong magic")]
    Magic,
    #[error("unknown version")]
    Version,
    #[error("frame too long")]
    Length,
    #[error("wrong crc")]
    Crc,
}

/// The header of a frame whose body may not have come yet; magic and version are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: u8,
    pub id: u16,
    /// As sent; up to 65,535, whatever the limit is.
    pub body_bytes: usize,
    pub crc: u32,
}

impl Header {
    /// The header at the front of `bytes`; `None` while it is incomplete. A device that takes
    /// longer commands than other frames looks here for the limit to parse with.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return check_start(bytes).map(|()| None);
        };
        check_start(header)?;
        let [_, _, _, kind, id_0, id_1, length_0, length_1, crc @ ..] = *header;
        Ok(Some(Self {
            kind,
            id: u16::from_le_bytes([id_0, id_1]),
            body_bytes: u16::from_le_bytes([length_0, length_1]).into(),
            crc: u32::from_le_bytes(crc),
        }))
    }

    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes
    }
}

fn check_start(bytes: &[u8]) -> Result<(), FrameError> {
    let mut bytes = bytes.iter();
    for expected in MAGIC {
        if bytes.next().is_some_and(|&byte| byte != expected) {
            return Err(FrameError::Magic);
        }
    }
    match bytes.next() {
        Some(&version) if version != VERSION => Err(FrameError::Version),
        _ => Ok(()),
    }
}

/// The frame at the front of `bytes`. `frame_bytes_max` counts the header; no frame is longer
/// than [`FRAME_BYTES_MAX`] whatever it says. Allocates nothing.
pub fn parse(bytes: &[u8], frame_bytes_max: usize) -> Result<Parsed<'_>, FrameError> {
    let Some(header) = Header::parse(bytes)? else {
        return Ok(Parsed::Incomplete {
            needed: HEADER_BYTES,
        });
    };
    let needed = header.frame_bytes();
    if needed > frame_bytes_max.min(FRAME_BYTES_MAX) {
        return Err(FrameError::Length);
    }
    let Some(frame) = bytes.get(..needed) else {
        return Ok(Parsed::Incomplete { needed });
    };
    if checksum(frame) != header.crc {
        return Err(FrameError::Crc);
    }
    Ok(Parsed::Frame {
        frame: Frame {
            kind: header.kind,
            id: header.id,
            body: &frame[HEADER_BYTES..],
        },
        consumed: needed,
    })
}

/// CRC-32C of a whole frame: bytes 0..8, then the body; what its crc field should hold.
/// Bytes that are not there count for nothing.
pub fn checksum(frame: &[u8]) -> u32 {
    let (start, rest) = frame.split_at(frame.len().min(8));
    crc32c::crc32c_append(crc32c::crc32c(start), rest.get(4..).unwrap_or_default())
}

/// Appends a frame whose body `write_body` appends; length and crc are filled in afterwards.
/// A body beyond [`BODY_BYTES_MAX`] is a bug of the caller.
pub fn write(kind: u8, id: u16, out: &mut Vec<u8>, write_body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, kind]);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&[0; 6]);
    write_body(out);

    let frame = &mut out[start..];
    let body_bytes = frame.len() - HEADER_BYTES;
    assert!(body_bytes <= BODY_BYTES_MAX, "body of {body_bytes} bytes");
    frame[6..8].copy_from_slice(&(body_bytes as u16).to_le_bytes());
    let crc = checksum(frame);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
}

impl Frame<'_> {
    /// Appends this frame; see [`write()`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        write(self.kind, self.id, out, |out| {
            out.extend_from_slice(self.body)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: [u8; 12] = [
        0x52, 0x43, 0x01, 0x05, 0x03, 0x00, 0x00, 0x00, 0x5c, 0xcb, 0xd2, 0x17,
    ];

    #[test]
    fn the_checksum_is_the_one_of_the_contract() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
        // Bytes 8..12 are the crc itself and do not count.
        assert_eq!(checksum(b"12345678\0\0\0\x009"), 0xE306_9283);
    }

    #[test]
    fn a_wrong_start_is_reported_with_the_byte_that_is_wrong() {
        for (bytes, error) in [
            (&b"G"[..], FrameError::Magic),
            (b"RG", FrameError::Magic),
            (b"GET / HTTP/1.1\r\n\r\n", FrameError::Magic),
            (b"RC\x02", FrameError::Version),
        ] {
            assert_eq!(parse(bytes, FRAME_BYTES_MAX), Err(error), "{bytes:?}");
        }
        for bytes in [&b""[..], b"R", b"RC", b"RC\x01"] {
            assert_eq!(
                parse(bytes, FRAME_BYTES_MAX),
                Ok(Parsed::Incomplete { needed: 12 })
            );
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_reported_before_the_body_comes() {
        let mut header = HEARTBEAT;
        header[6..8].copy_from_slice(&500_u16.to_le_bytes());
        assert_eq!(parse(&header, 512), Ok(Parsed::Incomplete { needed: 512 }));
        assert_eq!(parse(&header, 511), Err(FrameError::Length));
        header[6..8].copy_from_slice(&16_385_u16.to_le_bytes());
        assert_eq!(parse(&header, usize::MAX), Err(FrameError::Length));
        assert_eq!(parse(&header[..11], 512).map(|_| ()), Ok(()));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let mut frame = Vec::new();
        write(7, 9, &mut frame, |out| out.extend_from_slice(b"body"));
        for bit in 0..frame.len() * 8 {
            let mut wrong = frame.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let whole = matches!(parse(&wrong, FRAME_BYTES_MAX), Ok(Parsed::Frame { .. }));
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn what_follows_a_frame_is_left_alone() {
        let mut stream = HEARTBEAT.to_vec();
        stream.extend_from_slice(b"garbage");
        let parsed = parse(&stream, FRAME_BYTES_MAX);
        let frame = Frame {
            kind: 5,
            id: 3,
            body: &[],
        };
        assert_eq!(
            parsed,
            Ok(Parsed::Frame {
                frame,
                consumed: 12
            })
        );
    }
}
