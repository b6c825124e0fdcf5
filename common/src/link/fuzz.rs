//! What fuzz targets do with the bytes of a link. It stands here because nothing of `wire`,
//! `framing` and `handshake` is for anybody outside of `link`; built with the feature `fuzz` alone.
//!
//! Each function takes any bytes, panics where the link does what it must not, and says whether
//! the bytes got as far as they can.

use super::framing::{
    Assembly, FramingError, PREAMBLE_BYTES, Preamble, SEALED_BYTES_MAX, VERDICT_BYTES, Verdict,
    Versions, split_frame,
};
use super::handshake;
use super::keys::Key;
use super::wire::{self, LENGTH_BYTES, MESSAGE_BYTES_MAX};
use crate::secret::Secret;

/// The cluster key that [`first_flight`] listens with.
pub const CLUSTER_KEY: Secret<32> = Secret::new([7; 32]);

/// What follows the length of a message: what can be decoded is made again byte for byte.
pub fn message(bytes: &[u8]) -> bool {
    let Some(envelope) = bounded(bytes).and_then(|bytes| wire::decode(bytes).ok()) else {
        return false;
    };
    made_again(bytes, |out| wire::encode(&envelope, out))
}

/// The same for the first words of a dialler.
pub fn hello(bytes: &[u8]) -> bool {
    let Some(hello) = bounded(bytes).and_then(|bytes| wire::decode_hello(bytes).ok()) else {
        return false;
    };
    made_again(bytes, |out| wire::encode_hello(&hello, out))
}

/// And for the listener's answer to them.
pub fn welcome(bytes: &[u8]) -> bool {
    let Some(welcome) = bounded(bytes).and_then(|bytes| wire::decode_welcome(bytes).ok()) else {
        return false;
    };
    made_again(bytes, |out| wire::encode_welcome(&welcome, out))
}

/// What a listener says in the clear.
pub fn verdict(bytes: &[u8; VERDICT_BYTES]) -> bool {
    let Some((verdict, versions)) = Verdict::decode(bytes) else {
        return false;
    };
    assert_eq!(verdict.encode(versions), *bytes);
    true
}

/// What a stranger can say to a listener before it is known: the preamble, and the first Noise
/// message, without its length. What opens was made with the key, over this very preamble: with
/// any bit of either altered it opens no more.
pub fn first_flight(bytes: &[u8]) -> bool {
    let Some((preamble, noise)) = bytes.split_first_chunk::<PREAMBLE_BYTES>() else {
        return false;
    };
    let Some(said) = Preamble::decode(preamble) else {
        return false;
    };
    assert_eq!(said.encode(), *preamble);
    let ours = Versions::OURS;
    let common = ours.common(said.versions);
    assert_eq!(common, said.versions.common(ours), "both sides pick alike");
    let speaks =
        |versions: Versions, version| (versions.oldest..=versions.newest).contains(&version);
    assert!(common.is_none_or(|it| speaks(ours, it) && speaks(said.versions, it)));
    if common.is_none() || said.key != Key::new(CLUSTER_KEY).id() {
        return false;
    }
    let opens = |preamble: &[u8], noise: &[u8]| {
        let listener = handshake::listener(&CLUSTER_KEY, preamble);
        handshake::hear(listener, noise).is_ok()
    };
    if !opens(preamble, noise) {
        return false;
    }
    let bit = noise.iter().map(|&byte| usize::from(byte)).sum::<usize>() % (8 * bytes.len());
    let mut altered = bytes.to_vec();
    altered[bit / 8] ^= 1 << (bit % 8);
    let (preamble, noise) = altered.split_at(PREAMBLE_BYTES);
    assert!(!opens(preamble, noise), "bit {bit} is not authenticated");
    true
}

/// The bytes of [`first_flight`] as a dialler says them; every time others.
pub fn dial() -> Vec<u8> {
    let preamble = Preamble {
        versions: Versions::OURS,
        key: Key::new(CLUSTER_KEY).id(),
    };
    let preamble = preamble.encode();
    let mut noise = handshake::dialler(&CLUSTER_KEY, &preamble);
    [preamble.to_vec(), handshake::say(&mut noise)].concat()
}

/// Frames as they come from a socket, whose seal is no seal here, cut into segments of these
/// lengths over and over: the messages in them are those of the whole stream, and what is kept of
/// it is bounded.
pub fn stream(received: &[u8], segments: &[u8]) -> bool {
    let (messages, end) = assembled(received, segments);
    assert_eq!((&messages, end), (&cut(received).0, cut(received).1));
    !messages.is_empty()
}

/// How a stream ended: in the middle of something, or with a message that is too long.
type End = Result<(), usize>;

/// As a connection does it: whole frames at the front of what has come, then whole messages.
fn assembled(received: &[u8], segments: &[u8]) -> (Vec<Vec<u8>>, End) {
    let mut assembly = Assembly::default();
    let mut messages = vec![];
    let mut unread = vec![];
    let mut lengths = segments.iter().cycle();
    let mut rest = received;
    while !rest.is_empty() {
        let length = lengths.next().map_or(rest.len(), |&it| usize::from(it) + 1);
        let (segment, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        unread.extend_from_slice(segment);
        let mut frames: &[u8] = &unread;
        while let Some((sealed, after)) = split_frame(frames) {
            frames = after;
            let open = |room: &mut [u8]| {
                room.copy_from_slice(sealed);
                Ok(sealed.len())
            };
            let taken = assembly.add(sealed.len(), open).and_then(|()| {
                assembly.take_each(|message| {
                    messages.push(message.to_vec());
                    Ok::<(), FramingError>(())
                })
            });
            match taken {
                Ok(()) => {}
                Err(FramingError::Length(length)) => return (messages, Err(length)),
                Err(FramingError::Sealed) => unreachable!("everything opens here"),
            }
            assert!(assembly.kept_bytes() <= LENGTH_BYTES + MESSAGE_BYTES_MAX + SEALED_BYTES_MAX);
        }
        let done = unread.len() - frames.len();
        unread.drain(..done);
        assert!(
            unread.len() < 2 + SEALED_BYTES_MAX,
            "a whole frame is taken"
        );
    }
    (messages, Ok(()))
}

/// The same by the drawing in `framing.rs`, from all bytes at once.
fn cut(received: &[u8]) -> (Vec<Vec<u8>>, End) {
    let mut content = vec![];
    let mut rest = received;
    while let [high, low, after @ ..] = rest {
        let length = usize::from(*high) << 8 | usize::from(*low);
        if after.len() < length {
            break;
        }
        content.extend_from_slice(&after[..length]);
        rest = &after[length..];
    }
    let mut messages = vec![];
    let mut rest = &content[..];
    while let [a, b, c, d, after @ ..] = rest {
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        if length > 1_048_576 {
            return (messages, Err(length));
        }
        if after.len() < length {
            break;
        }
        messages.push(after[..length].to_vec());
        rest = &after[length..];
    }
    (messages, Ok(()))
}

/// More is refused by its length, before anything is decoded.
fn bounded(bytes: &[u8]) -> Option<&[u8]> {
    (bytes.len() <= MESSAGE_BYTES_MAX).then_some(bytes)
}

/// Asserts that `encode` makes these bytes behind their length.
fn made_again(bytes: &[u8], encode: impl FnOnce(&mut Vec<u8>)) -> bool {
    let mut again = vec![];
    encode(&mut again);
    let (length, again) = again.split_at(LENGTH_BYTES);
    assert_eq!(length, (bytes.len() as u32).to_le_bytes());
    assert_eq!(again, bytes, "decoded and made again");
    true
}
