//! The frames of a stream, from the pieces in which it comes.

use protocols::rcu::frame::{self, Parsed};

use crate::network::Side;

use super::words;

/// One direction of one stream.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// What came is no frame, and nothing behind it can be cut into frames.
    is_garbage: bool,
}

/// So much of what is no frame is shown.
const GARBAGE_SHOWN: usize = 16;

impl Pieces {
    /// What is whole now, in words.
    pub(super) fn push(&mut self, piece: &[u8], from: Side) -> Vec<String> {
        if self.is_garbage {
            return vec![format!("{} more bytes", piece.len())];
        }
        self.bytes.extend_from_slice(piece);
        let mut said = vec![];
        let mut at = 0;
        loop {
            match frame::parse(&self.bytes[at..], frame::FRAME_BYTES_MAX) {
                Ok(Parsed::Frame { frame, consumed }) => {
                    said.push(words::frame(&frame, from));
                    at += consumed;
                }
                Ok(Parsed::Incomplete { .. }) => break,
                Err(error) => {
                    let rest = &self.bytes[at..];
                    let shown: String = rest
                        .iter()
                        .take(GARBAGE_SHOWN)
                        .map(|byte| format!("{byte:02x}"))
                        .collect();
                    said.push(format!("no frame ({error}), {} bytes: {shown}", rest.len()));
                    self.is_garbage = true;
                    break;
                }
            }
        }
        self.bytes.drain(..at);
        said
    }

    /// Bytes of a frame that never became whole.
    pub(super) fn rest(&self) -> usize {
        if self.is_garbage { 0 } else { self.bytes.len() }
    }
}

#[cfg(test)]
mod tests {
    use protocols::rcu::close::Close;
    use protocols::rcu::code::{AckStatus, CloseReason};
    use protocols::rcu::telemetry::TelemetryAck;

    use super::*;

    fn said_by_a_server() -> Vec<u8> {
        let mut bytes = vec![];
        let ack = TelemetryAck {
            base_seq: 5,
            count: 3,
            status: AckStatus::Stored,
            retry_after_ms: 0,
        };
        ack.encode(9, &mut bytes);
        let close = Close {
            reason: CloseReason::Idle,
            retry_after_ms: 700,
        };
        close.encode(&mut bytes);
        bytes
    }

    #[test]
    fn frames_are_told_however_they_are_cut() {
        let bytes = said_by_a_server();
        let whole = [
            "TelemetryAck stored seq 5..=7 #9",
            "Close idle, again in 700 ms",
        ];
        for step in [1, 7, bytes.len()] {
            let mut pieces = Pieces::default();
            let said: Vec<_> = bytes
                .chunks(step)
                .flat_map(|piece| pieces.push(piece, Side::Server))
                .collect();
            assert_eq!(said, whole, "in pieces of {step}");
            assert_eq!(pieces.rest(), 0);
        }
    }

    #[test]
    fn half_a_frame_is_not_told_and_known() {
        let bytes = said_by_a_server();
        let mut pieces = Pieces::default();
        assert_eq!(
            pieces.push(&bytes[..bytes.len() - 1], Side::Server).len(),
            1
        );
        assert!(pieces.rest() > 0);
    }

    #[test]
    fn garbage_is_shown_once_and_then_counted() {
        let mut pieces = Pieces::default();
        let said = pieces.push(&[0xAB; 20], Side::Client);
        assert_eq!(said.len(), 1);
        assert!(said[0].ends_with(&"ab".repeat(GARBAGE_SHOWN)), "{said:?}");
        assert_eq!(pieces.push(&[0; 3], Side::Client), ["3 more bytes"]);
    }

    #[test]
    fn a_frame_of_the_other_direction_is_told_as_such() {
        let said = Pieces::default().push(&said_by_a_server(), Side::Client);
        assert!(said[0].contains("other direction"), "{said:?}");
    }
}
