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
pub(super) const TAG_BYTES: usize = 16;

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

/// The encrypted stream of an established link, both ways.
#[derive(Debug)]
pub(super) struct Transport {
    noise: snow::TransportState,
    /// Opened, and not yet a whole message: at most one message and one frame.
    opened: Vec<u8>,
}

impl Transport {
    pub(super) fn new(noise: snow::TransportState) -> Self {
        Self {
            noise,
            opened: Vec::new(),
        }
    }

    /// Appends the sealed frames of these messages, each already behind its length.
    pub(super) fn seal(&mut self, messages: &[u8], out: &mut Vec<u8>) {
        for part in messages.chunks(SEALED_BYTES_MAX - TAG_BYTES) {
            let sealed_bytes = part.len() + TAG_BYTES;
            out.extend((sealed_bytes as u16).to_be_bytes());
            let start = out.len();
            out.resize(start + sealed_bytes, 0);
            self.noise
                .write_message(part, &mut out[start..])
                .expect("the part fits a frame, and 2^64 of them are never sent");
        }
    }

    /// Takes the whole frames at the front of `received`, and hands over each message that they
    /// complete, without its length. Returns how many bytes of `received` are done with.
    pub(super) fn open<E: From<FramingError>>(
        &mut self,
        received: &[u8],
        mut message: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut rest = received;
        while let Some((sealed, after)) = split_frame(rest) {
            rest = after;
            let start = self.opened.len();
            self.opened.resize(start + sealed.len(), 0);
            let opened_bytes = self
                .noise
                .read_message(sealed, &mut self.opened[start..])
                .map_err(|_| FramingError::Sealed)?;
            self.opened.truncate(start + opened_bytes);

            let mut done = 0;
            while let Some(next) = split_message(&self.opened[done..])? {
                message(next)?;
                done += LENGTH_BYTES + next.len();
            }
            self.opened.drain(..done);
        }
        // What a large message needed is given back: links are idle most of the time.
        if self.opened.is_empty() && self.opened.capacity() > 2 * SEALED_BYTES_MAX {
            self.opened = Vec::new();
        }
        Ok(received.len() - rest.len())
    }
}

/// The first sealed frame without its length, and what follows it; `None`: not all of it is there.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
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
    use proptest::prelude::*;

    use super::*;
    use crate::link::handshake;
    use crate::secret::Secret;

    /// Two ends of one link, as after a handshake.
    fn pair() -> (Transport, Transport) {
        let key = Secret::new([7; 32]);
        let mut dialler = handshake::dialler(&key, b"p");
        let mut listener = handshake::listener(&key, b"p");
        let mut nothing = [0; 64];
        let first = handshake::say(&mut dialler);
        listener.read_message(&first, &mut nothing).expect("read");
        let second = handshake::say(&mut listener);
        dialler.read_message(&second, &mut nothing).expect("read");
        let transport = |state: snow::HandshakeState| {
            Transport::new(state.into_transport_mode().expect("finished"))
        };
        (transport(dialler), transport(listener))
    }

    fn stream(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = Vec::new();
        for message in messages {
            stream.extend((message.len() as u32).to_le_bytes());
            stream.extend(message);
        }
        stream
    }

    fn open(
        transport: &mut Transport,
        bytes: &[u8],
    ) -> Result<(usize, Vec<Vec<u8>>), FramingError> {
        let mut messages = Vec::new();
        let used = transport.open(bytes, |message| {
            messages.push(message.to_vec());
            Ok::<(), FramingError>(())
        })?;
        Ok((used, messages))
    }

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
    fn a_message_of_the_greatest_length_passes_and_one_byte_more_does_not() {
        let (mut a, mut b) = pair();
        let mut sealed = Vec::new();
        let greatest = vec![vec![3; MESSAGE_BYTES_MAX]];
        a.seal(&stream(&greatest), &mut sealed);
        assert_eq!(
            open(&mut b, &sealed).expect("opened"),
            (sealed.len(), greatest)
        );
        assert_eq!(b.opened.capacity(), 0, "given back");

        sealed.clear();
        let length = MESSAGE_BYTES_MAX as u32 + 1;
        a.seal(&length.to_le_bytes(), &mut sealed);
        let error = open(&mut b, &sealed).expect_err("refused before its bytes come");
        assert_eq!(error.to_string(), "a message of 1048577 bytes");
    }

    #[test]
    fn a_frame_altered_repeated_or_left_out_does_not_open() {
        let message = stream(&[b"one".to_vec()]);
        let frames = |a: &mut Transport| {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            a.seal(&message, &mut first);
            a.seal(&message, &mut second);
            (first, second)
        };
        let (mut a, mut b) = pair();
        let (mut first, _) = frames(&mut a);
        first[5] ^= 1;
        assert!(open(&mut b, &first).is_err(), "altered");

        let (mut a, mut b) = pair();
        let (first, _) = frames(&mut a);
        assert!(open(&mut b, &first).is_ok());
        assert!(open(&mut b, &first).is_err(), "repeated");

        let (mut a, mut b) = pair();
        let (_, second) = frames(&mut a);
        assert!(open(&mut b, &second).is_err(), "left out");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn messages_arrive_whole_and_in_order_wherever_the_stream_is_cut(
            writes in prop::collection::vec(
                prop::collection::vec(prop_oneof![9 => 0..300usize, 1 => 60_000..140_000usize], 0..6),
                1..6,
            ),
            cuts in prop::collection::vec(1..70_000usize, 1..8),
        ) {
            let (mut a, mut b) = pair();
            let (mut sent, mut sealed) = (Vec::new(), Vec::new());
            for lengths in writes {
                let messages: Vec<Vec<u8>> = lengths.iter().map(|&n| vec![n as u8; n]).collect();
                a.seal(&stream(&messages), &mut sealed);
                sent.extend(messages);
            }
            let (mut arrived, mut received) = (Vec::new(), Vec::new());
            let mut cuts = cuts.iter().cycle();
            while !sealed.is_empty() {
                let cut = cuts.next().copied().unwrap_or(1).min(sealed.len());
                received.extend(sealed.drain(..cut));
                let (used, messages) = open(&mut b, &received).expect("opened");
                received.drain(..used);
                arrived.extend(messages);
            }
            prop_assert!(received.is_empty());
            prop_assert_eq!(arrived, sent);
        }

        #[test]
        fn no_bytes_make_the_opener_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let (_, mut b) = pair();
            let _ = open(&mut b, &bytes);
            prop_assert!(b.opened.capacity() <= 2 * SEALED_BYTES_MAX);
        }
    }
}
