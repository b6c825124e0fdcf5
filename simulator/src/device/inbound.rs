//! Pure. The stream from the cluster: frames within a device's limits, each to the phase that
//! it meets.

use protocols::rcu::error::MessageError;
use protocols::rcu::frame::{
    FRAME_BYTES_MAX, FRAME_BYTES_TO_DEVICE_MAX, Frame, FrameError, Header, Parsed, parse,
};
use protocols::rcu::kind;
use protocols::rcu::message::FromCluster;

use super::effect::{ConnId, Effects, Event, Fault};
use super::{Device, Phase};

impl Device {
    pub(super) fn receive(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        now_ms: u64,
        effects: &mut Effects,
    ) {
        if self.conn() != Some(conn) {
            return;
        }
        let mut kept = std::mem::take(&mut self.partial);
        let mut stream = bytes;
        if !kept.is_empty() {
            kept.extend_from_slice(bytes);
            stream = &kept;
        }
        // A frame may end this connection; what follows it there is nobody's.
        while self.conn() == Some(conn) {
            match next_frame(stream) {
                Ok(Parsed::Frame { frame, consumed }) => {
                    stream = &stream[consumed..];
                    self.handle_frame(&frame, now_ms, effects);
                }
                Ok(Parsed::Incomplete { .. }) => {
                    self.partial = stream.to_vec();
                    return;
                }
                Err(_) => self.fail(Fault::WrongFrame, 0, now_ms, effects),
            }
        }
    }

    fn handle_frame(&mut self, frame: &Frame<'_>, now_ms: u64, effects: &mut Effects) {
        if let Phase::Attached(session) = &mut self.phase {
            session.hear(now_ms);
        }
        let message = match FromCluster::decode(frame) {
            Ok(message) => message,
            Err(MessageError::UnknownKind) => {
                effects.tell(Event::UnknownKindIgnored { kind: frame.kind });
                return;
            }
            Err(_) => {
                self.fail(Fault::WrongFrame, 0, now_ms, effects);
                return;
            }
        };
        if let FromCluster::Close(close) = message {
            let why = Fault::Closed(close.reason);
            self.fail(why, close.retry_after_ms, now_ms, effects);
            return;
        }
        match &self.phase {
            Phase::LoggingIn(_) => self.handle_while_logging_in(frame, message, now_ms, effects),
            Phase::Attaching(_) => self.handle_while_attaching(frame, message, now_ms, effects),
            Phase::Attached(_) => self.handle_while_attached(frame, message, now_ms, effects),
            Phase::Off | Phase::Waiting { .. } | Phase::Resolving { .. } => {}
        }
    }
}

/// The frame at the front of the stream. A Command may be as long as the protocol allows: a
/// device that cannot hold it reads it all the same, so that it can answer.
fn next_frame(stream: &[u8]) -> Result<Parsed<'_>, FrameError> {
    let frame_bytes_max = match Header::parse(stream)? {
        Some(header) if header.kind == kind::COMMAND => FRAME_BYTES_MAX,
        _ => FRAME_BYTES_TO_DEVICE_MAX,
    };
    parse(stream, frame_bytes_max)
}
