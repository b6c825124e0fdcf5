//! Pure. What stands between bytes on a socket and messages: the cleartext preamble, and the
//! stream of encrypted frames that follows it.
//!
//! ```text
//! dialler ▶  "RCUL" · oldest u16 · newest u16 · key id [8]   u16 │ Noise -> psk, e
//! listener ◀ "RCUL" · verdict u8 · oldest u16 · newest u16   u16 │ Noise <- e, ee    (where accepted)
//! both       u16 │ sealed        u16 │ sealed        u16 │ sealed …
//!                  └ a stream ──────────────┴──────────────┘
//!                    u32 length │ message … u32 length │ message …
//! ```
//!
//! Version and key are said in the clear, so that a wrong one is named on both sides instead of
//! failing as noise. Integers are little-endian but for the length before a sealed frame, which
//! follows Noise's custom of network order. Messages and frames know nothing of each other: many
//! small messages share a frame, a large one takes several.

use super::keys::KeyId;
use super::wire::{LENGTH_BYTES, MESSAGE_BYTES_MAX, VERSION, VERSION_OLDEST};

const MAGIC: [u8; 4] = *b"RCUL";
pub(super) const PREAMBLE_BYTES: usize = 16;
pub(super) const VERDICT_BYTES: usize = 9;

/// Noise's own limit for a frame, tag included.
pub(super) const SEALED_BYTES_MAX: usize = 65_535;

/// What a dialler says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preamble {
    pub(super) versions: Versions,
    pub(super) key: KeyId,
}

/// The link versions that a process speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) oldest: u16,
    pub(super) newest: u16,
}

impl Versions {
    pub(super) const OURS: Self = Self {
        oldest: VERSION_OLDEST,
        newest: VERSION,
    };

    /// The newest that both speak.
    pub(super) fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..={}", self.oldest, self.newest)
    }
}

/// What a listener says to a [`Preamble`], with its own versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    KeyUnknown,
    VersionUnknown,
    /// The first Noise frame does not open with the key of that id.
    HandshakeFailed,
}

impl Preamble {
    pub(super) fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.versions.oldest.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.versions.newest.to_le_bytes());
        bytes[8..].copy_from_slice(&self.key.0);
        bytes
    }

    /// `None`: whoever this is, it does not speak link.
    pub(super) fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Option<Self> {
        let [m0, m1, m2, m3, o0, o1, n0, n1, key @ ..] = *bytes;
        ([m0, m1, m2, m3] == MAGIC).then_some(Self {
            versions: Versions {
                oldest: u16::from_le_bytes([o0, o1]),
                newest: u16::from_le_bytes([n0, n1]),
            },
            key: KeyId(key),
        })
    }
}

impl Verdict {
    pub(super) fn encode(self, versions: Versions) -> [u8; VERDICT_BYTES] {
        let mut bytes = [0; VERDICT_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = match self {
            Self::Accepted => 0,
            Self::KeyUnknown => 1,
            Self::VersionUnknown => 2,
            Self::HandshakeFailed => 3,
        };
        bytes[5..7].copy_from_slice(&versions.oldest.to_le_bytes());
        bytes[7..].copy_from_slice(&versions.newest.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; VERDICT_BYTES]) -> Option<(Self, Versions)> {
        let [m0, m1, m2, m3, verdict, o0, o1, n0, n1] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return None;
        }
        let verdict = match verdict {
            0 => Self::Accepted,
            1 => Self::KeyUnknown,
            2 => Self::VersionUnknown,
            3 => Self::HandshakeFailed,
            _ => return None,
        };
        let versions = Versions {
            oldest: u16::from_le_bytes([o0, o1]),
            newest: u16::from_le_bytes([n0, n1]),
        };
        Some((verdict, versions))
    }
}

/// The peer's bytes are not what its transport may say. Nothing after them can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FramingError {
    #[error("a frame that does not open with the link's key")]
    Sealed,
    #[error("a message of {0} bytes")]
    Length(usize),
}

/// Puts messages together again from what the frames held.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// Not yet a whole message: at most one message and one frame.
    bytes: Vec<u8>,
}

impl Assembly {
    /// Adds the content of a frame, which `open` writes into the room that it is given.
    pub(super) fn add(
        &mut self,
        room_bytes: usize,
        open: impl FnOnce(&mut [u8]) -> Result<usize, FramingError>,
    ) -> Result<(), FramingError> {
        let start = self.bytes.len();
        self.bytes.resize(start + room_bytes, 0);
        let opened_bytes = open(&mut self.bytes[start..])?;
        self.bytes.truncate(start + opened_bytes);
        Ok(())
    }

    /// Bytes of the message that is not whole yet.
    #[cfg(feature = "fuzz")]
    pub(super) fn kept_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Hands over each whole message, without its length.
    pub(super) fn take_each<E: From<FramingError>>(
        &mut self,
        mut message: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut done = 0;
        while let Some(next) = split_message(&self.bytes[done..])? {
            message(next)?;
            done += LENGTH_BYTES + next.len();
        }
        self.bytes.drain(..done);
        // What a large message needed is given back: links are idle most of the time.
        if self.bytes.is_empty() && self.bytes.capacity() > 2 * SEALED_BYTES_MAX {
            self.bytes = Vec::new();
        }
        Ok(())
    }
}

/// The first sealed frame without its length, and what follows it; `None`: not all of it is there.
pub(super) fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

/// The first message without its length; `None`: not all of it is there.
fn split_message(bytes: &[u8]) -> Result<Option<&[u8]>, FramingError> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES_MAX {
        return Err(FramingError::Length(length));
    }
    Ok(rest.get(..length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preamble_and_its_verdict_have_their_golden_bytes() {
        let preamble = Preamble {
            versions: Versions {
                oldest: 1,
                newest: 2,
            },
            key: KeyId([8; 8]),
        };
        assert_eq!(
            &preamble.encode(),
            b"RCUL\x01\0\x02\0\x08\x08\x08\x08\x08\x08\x08\x08"
        );
        assert_eq!(Preamble::decode(&preamble.encode()), Some(preamble));
        assert_eq!(Preamble::decode(b"GET / HTTP/1.1\r\n"), None);
        for (number, verdict) in [
            Verdict::Accepted,
            Verdict::KeyUnknown,
            Verdict::VersionUnknown,
            Verdict::HandshakeFailed,
        ]
        .into_iter()
        .enumerate()
        {
            let bytes = verdict.encode(preamble.versions);
            assert_eq!(bytes, [b'R', b'C', b'U', b'L', number as u8, 1, 0, 2, 0]);
            assert_eq!(Verdict::decode(&bytes), Some((verdict, preamble.versions)));
        }
        assert_eq!(Verdict::decode(b"RCUL\x09\x01\0\x02\0"), None);
    }

    #[test]
    fn two_neighbouring_versions_agree_and_others_do_not() {
        let versions = |oldest, newest| Versions { oldest, newest };
        for (a, b, agreed) in [
            (versions(1, 1), versions(1, 1), Some(1)),
            (versions(1, 2), versions(2, 3), Some(2)),
            (versions(2, 3), versions(1, 2), Some(2)),
            (versions(3, 4), versions(1, 2), None),
            (versions(2, 1), versions(1, 2), None),
        ] {
            assert_eq!(a.common(b), agreed, "{a} and {b}");
        }
    }

    #[test]
    fn messages_come_out_whole_and_their_memory_is_given_back() {
        let mut assembly = Assembly::default();
        let large = vec![9; MESSAGE_BYTES_MAX];
        let mut stream = (large.len() as u32).to_le_bytes().to_vec();
        stream.extend(&large);
        stream.extend([2, 0, 0, 0, 7, 7]);
        let mut out: Vec<Vec<u8>> = Vec::new();
        for part in stream.chunks(SEALED_BYTES_MAX) {
            let add = |room: &mut [u8]| {
                room[..part.len()].copy_from_slice(part);
                Ok(part.len())
            };
            assembly.add(part.len() + 16, add).expect("added");
            let take = |message: &[u8]| {
                out.push(message.to_vec());
                Ok::<(), FramingError>(())
            };
            assembly.take_each(take).expect("taken");
        }
        assert_eq!(out, [large, vec![7, 7]]);
        assert_eq!(assembly.bytes.capacity(), 0);
    }
}
