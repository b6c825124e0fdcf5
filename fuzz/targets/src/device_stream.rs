//! A byte stream of frames, cut anywhere: whoever reads it piece by piece finds the same frames
//! as who has all of it, and finds what is wrong with the first byte that shows it.
//!
//! ```text
//! 0       1        2      3 …
//! | limit | length | mode | pieces of the stream
//!         of a segment
//! ```

use protocols::rcu::frame::{self, FrameError, HEADER_BYTES, Header, Parsed};

use crate::choices::Choices;
use crate::contract::{self, End, Frame};

/// Enough for a frame of any length and the beginning of another.
const STREAM_BYTES_MAX: usize = 40_000;

/// How long a frame may be: before attach, to a device, after attach, and others.
const LIMITS: [usize; 6] = [512, 1_024, 16_396, 65_547, 12, 11];

pub fn device_stream(data: &[u8]) {
    let mut choices = Choices::new(data);
    let limit = choices.pick(&LIMITS);
    let segment = usize::from(choices.u8()) + 1;
    let stream = match choices.u8() % 2 {
        0 => choices.rest().to_vec(),
        _ => pieces(&mut choices),
    };
    let expected = contract::frames(&stream, limit);
    assert_eq!(read(&stream, segment, limit), expected);

    // An error stays the same whatever follows it, and is there as soon as its byte is.
    let (frames, end) = expected;
    let whole: usize = frames.iter().map(|it| HEADER_BYTES + it.body.len()).sum();
    let first_wrong = match end {
        End::Incomplete { .. } => return,
        End::Magic if stream[whole] == b'R' => 2,
        End::Magic => 1,
        End::Version => 3,
        End::Length => HEADER_BYTES,
        End::Crc => {
            HEADER_BYTES + usize::from(u16::from_le_bytes([stream[whole + 6], stream[whole + 7]]))
        }
    };
    let shown = whole + first_wrong;
    assert_eq!(read(&stream[..shown], segment, limit).1, end);
    let before = read(&stream[..shown - 1], segment, limit).1;
    assert!(
        matches!(before, End::Incomplete { .. }),
        "{before:?} before the byte that shows it"
    );
}

/// As the product reads: what has come and is not a whole frame yet is kept.
fn read(stream: &[u8], segment: usize, limit: usize) -> (Vec<Frame>, End) {
    let mut frames = vec![];
    let mut kept: Vec<u8> = vec![];
    for bytes in stream.chunks(segment) {
        kept.extend_from_slice(bytes);
        loop {
            match frame::parse(&kept, limit) {
                Ok(Parsed::Frame { frame, consumed }) => {
                    assert_eq!(consumed, HEADER_BYTES + frame.body.len());
                    frames.push(Frame {
                        kind: frame.kind,
                        id: frame.id,
                        body: frame.body.to_vec(),
                    });
                    kept.drain(..consumed);
                }
                Ok(Parsed::Incomplete { needed }) => {
                    assert!(needed > kept.len(), "nothing more is needed");
                    break;
                }
                Err(error) => return (frames, wrong(error)),
            }
        }
    }
    let header = Header::parse(&kept).expect("the start was right");
    let needed = header.map_or(HEADER_BYTES, |header| header.frame_bytes());
    (frames, End::Incomplete { needed })
}

fn wrong(error: FrameError) -> End {
    match error {
        FrameError::Magic => End::Magic,
        FrameError::Version => End::Version,
        FrameError::Length => End::Length,
        FrameError::Crc => End::Crc,
    }
}

/// Frames with a right crc, and what a bad network or a bad device makes of them.
fn pieces(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut stream = vec![];
    while choices.next_step() && stream.len() < STREAM_BYTES_MAX {
        let (kind, id) = (choices.u8(), choices.u16());
        let length = match choices.below(4) {
            0 => 0,
            1 | 2 => usize::from(choices.u8()),
            _ => usize::from(choices.u16()),
        };
        let mut body = choices.bytes(length).to_vec();
        if choices.once_in(8) {
            body.resize(length.min(16_384), kind);
        }
        let mut frame = contract::sealed(kind, id, &body);
        match choices.below(8) {
            0 => {
                let at = choices.below(frame.len() as u32) as usize;
                frame[at] ^= 1 << choices.below(8);
            }
            1 => frame.truncate(choices.below(frame.len() as u32) as usize),
            2 => frame.extend_from_slice(choices.bytes(3)),
            _ => {}
        }
        stream.extend(frame);
    }
    stream
}
