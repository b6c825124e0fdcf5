//! L1: a session whose device says nothing is closed `idle`, in time and not before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use protocols::rcu::frame::{self, FRAME_BYTES_MAX, Parsed};

use super::Broken;
use super::stillness::Stillness;
use crate::network::Stream;

/// Heartbeats of silence after which the cluster disconnects, and the time that it has for it.
const SILENT_HEARTBEATS: u64 = 3;
const CLOSED_WITHIN_MS: u64 = 1_000;

/// What a server has heard of a device.
#[derive(Debug)]
struct Hearing {
    node: usize,
    /// From AttachReply.
    heartbeat_ms: u64,
    /// When the last whole frame with a right checksum was read, or AttachReply left.
    heard_ms: u64,
    /// Of a frame that is not whole.
    partial: Vec<u8>,
}

impl Hearing {
    fn silent_at_ms(&self) -> u64 {
        self.heard_ms + SILENT_HEARTBEATS * self.heartbeat_ms
    }

    fn due_ms(&self) -> u64 {
        self.silent_at_ms() + CLOSED_WITHIN_MS
    }
}

#[derive(Debug, Default)]
pub(super) struct Silence {
    by_stream: BTreeMap<Stream, Hearing>,
    /// When each has to be looked at: at its due time, or at an earlier one that was put off since.
    due: BinaryHeap<Reverse<(u64, Stream)>>,
}

impl Silence {
    pub(super) fn began(&mut self, stream: Stream, node: usize, heartbeat_s: u16, now_ms: u64) {
        let hearing = Hearing {
            node,
            heartbeat_ms: 1_000 * u64::from(heartbeat_s),
            heard_ms: now_ms,
            partial: vec![],
        };
        self.due.push(Reverse((hearing.due_ms(), stream)));
        self.by_stream.insert(stream, hearing);
    }

    pub(super) fn ended(&mut self, stream: Stream) {
        self.by_stream.remove(&stream);
    }

    pub(super) fn node_died(&mut self, node: usize) {
        self.by_stream.retain(|_, hearing| hearing.node != node);
    }

    /// The server reads bytes.
    pub(super) fn read(&mut self, stream: Stream, bytes: &[u8], now_ms: u64) {
        let Some(hearing) = self.by_stream.get_mut(&stream) else {
            return;
        };
        let mut joined = std::mem::take(&mut hearing.partial);
        let mut bytes = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        // Behind a wrong frame there is nothing to hear.
        while let Ok(Parsed::Frame { consumed, .. }) = frame::parse(bytes, FRAME_BYTES_MAX) {
            hearing.heard_ms = now_ms;
            bytes = &bytes[consumed..];
        }
        hearing.partial = bytes.to_vec();
    }

    /// `Close(idle)` leaves.
    pub(super) fn closes_idle(&self, stream: Stream, now_ms: u64) -> Result<(), Broken> {
        let Some(hearing) = self.by_stream.get(&stream) else {
            return Ok(());
        };
        if now_ms < hearing.silent_at_ms() {
            return Err(Broken::new(
                "L1",
                format_args!(
                    "{stream:?} is closed idle at {now_ms} ms, was heard at {} ms",
                    hearing.heard_ms
                ),
            ));
        }
        Ok(())
    }

    pub(super) fn check(&mut self, now_ms: u64, stillness: &Stillness) -> Result<(), Broken> {
        while let Some(Reverse((due_ms, stream))) = self.due.peek().copied()
            && due_ms < now_ms
        {
            self.due.pop();
            let Some(hearing) = self.by_stream.get(&stream) else {
                continue;
            };
            // A node that stands still is looked at again, and has its second when it goes on.
            let can_ms = stillness.can_from_ms(hearing.node, hearing.silent_at_ms());
            let due_ms = can_ms.unwrap_or(now_ms) + CLOSED_WITHIN_MS;
            if due_ms < now_ms {
                return Err(Broken::new(
                    "L1",
                    format_args!(
                        "{stream:?} on node {} is silent since {} ms and not closed",
                        hearing.node, hearing.heard_ms
                    ),
                ));
            }
            self.due.push(Reverse((due_ms, stream)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use protocols::rcu::message::FromDevice;

    use super::*;

    const STREAM: Stream = Stream(4);

    fn attached() -> Silence {
        let mut silence = Silence::default();
        silence.began(STREAM, 0, 10, 1_000);
        silence
    }

    fn heartbeat() -> Vec<u8> {
        let mut frame = vec![];
        FromDevice::Heartbeat.encode(1, &mut frame);
        frame
    }

    #[test]
    fn a_silent_session_is_closed_after_three_heartbeats_and_within_a_second() {
        let mut silence = attached();
        assert!(silence.closes_idle(STREAM, 30_999).is_err());
        assert!(silence.closes_idle(STREAM, 31_000).is_ok());
        assert!(silence.check(32_000, &Stillness::default()).is_ok());
        assert!(silence.check(32_001, &Stillness::default()).is_err());
        let mut silence = attached();
        silence.ended(STREAM);
        assert!(silence.check(90_000, &Stillness::default()).is_ok());
    }

    #[test]
    fn a_whole_frame_is_a_sign_of_life_however_it_comes_and_half_a_one_is_not() {
        let mut silence = attached();
        let frame = heartbeat();
        let (begin, end) = frame.split_at(5);
        silence.read(STREAM, begin, 20_000);
        assert!(silence.closes_idle(STREAM, 31_000).is_ok());
        silence.read(STREAM, end, 21_000);
        assert!(silence.closes_idle(STREAM, 31_000).is_err());
        assert!(silence.check(52_000, &Stillness::default()).is_ok());
        assert!(silence.check(52_001, &Stillness::default()).is_err());
    }

    #[test]
    fn a_process_that_stands_still_has_its_second_when_it_goes_on() {
        let mut silence = attached();
        let mut stillness = Stillness::default();
        stillness.stopped(0);
        assert!(silence.check(40_000, &stillness).is_ok());
        stillness.went_on(0, 45_000);
        assert!(silence.check(46_000, &stillness).is_ok());
        assert!(silence.check(46_001, &stillness).is_err());
    }
}
