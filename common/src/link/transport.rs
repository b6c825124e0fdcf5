//! The encrypted stream of an established link: `framing` with a cipher.

use super::framing::{Assembly, FramingError, SEALED_BYTES_MAX, split_frame};

/// What the cipher adds to a frame.
const TAG_BYTES: usize = 16;

/// Both directions of a link after its handshake.
#[derive(Debug)]
pub(super) struct Transport {
    noise: snow::TransportState,
    assembly: Assembly,
}

impl Transport {
    pub(super) fn new(noise: snow::TransportState) -> Self {
        Self {
            noise,
            assembly: Assembly::default(),
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
            self.assembly.add(sealed.len(), |room| {
                let opened = self.noise.read_message(sealed, room);
                opened.map_err(|_| FramingError::Sealed)
            })?;
            self.assembly.take_each(&mut message)?;
        }
        Ok(received.len() - rest.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::link::handshake;
    use crate::link::wire::MESSAGE_BYTES_MAX;
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
    fn a_message_of_the_greatest_length_passes_and_one_byte_more_does_not() {
        let (mut a, mut b) = pair();
        let mut sealed = Vec::new();
        let greatest = vec![vec![3; MESSAGE_BYTES_MAX]];
        a.seal(&stream(&greatest), &mut sealed);
        assert_eq!(
            open(&mut b, &sealed).expect("opened"),
            (sealed.len(), greatest)
        );

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
        }
    }
}
