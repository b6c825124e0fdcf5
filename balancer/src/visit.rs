//! Pure. One device at the door, from its first byte to the end of its connection.
//!
//! ```text
//! Reading ── a Login ──▶ Asked ── the reply ──┬──▶ Saying ── said ──▶ Leaving ──▶ over
//!    │                     ╰──── more bytes ──┤                        its end, 64 KiB, 1 s
//!    ╰── something else, or too late ─ Close ─╯
//! ```
//!
//! A socket closed while bytes wait in it sends a reset, which overtakes the reply and destroys it.
//! So after our last word the sending side is shut and we read on, for a moment, until the device
//! closes.

use std::ops::Range;

use protocols::rcu::code::CloseReason;
use protocols::rcu::limit::{LINGER_BYTES_MAX, LINGER_MS};

use crate::intake::{self, Breach, INTAKE_BYTES, Intake};
use crate::route::End;

/// A reply is smaller than any socket's buffer; a device that does not take it is not waited for.
const WRITE_MS: u64 = 1_000;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Read on, until [`Visit::deadline_ms`].
    Wait,
    /// The Login's body lies there in [`Visit::bytes`].
    Ask { frame_id: u16, body: Range<usize> },
    /// Send this, shut down the sending side, and call [`Visit::said`].
    Say(Vec<u8>),
    /// Close. What it came to.
    Over(End),
}

/// A connection of the front door.
#[derive(Debug)]
pub struct Visit {
    phase: Phase,
    deadline_ms: Option<u64>,
    /// What came; after the Login, what comes and is dropped.
    bytes: Vec<u8>,
    /// So much of a Login is there.
    length: usize,
    /// The device may send more.
    is_open: bool,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Reading,
    /// The Login is on its way to the core.
    Asked,
    Saying(End),
    Leaving {
        how: End,
        dropped: usize,
    },
}

impl Visit {
    /// Of a connection whose Login must be complete by then; milliseconds of any monotonic clock.
    pub fn new(deadline_ms: u64) -> Self {
        Self {
            phase: Phase::Reading,
            deadline_ms: Some(deadline_ms),
            bytes: vec![0; INTAKE_BYTES],
            length: 0,
            is_open: true,
        }
    }

    /// Where the next bytes go; `None`: nothing is to be read.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        match self.phase {
            _ if !self.is_open => None,
            Phase::Reading => self.bytes.get_mut(self.length..),
            Phase::Asked | Phase::Leaving { .. } => Some(&mut self.bytes),
            Phase::Saying(_) => None,
        }
    }

    /// Until when the present phase may last: then [`Visit::late`] is due.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// What came, with the Login where [`Step::Ask`] said.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// So many bytes are in the room; 0: the device sends nothing more.
    pub fn read(&mut self, count: usize, now_ms: u64) -> Step {
        if count == 0 {
            self.is_open = false;
        }
        match self.phase {
            Phase::Reading if count == 0 => Step::Over(End::Gone),
            Phase::Reading => {
                self.length += count;
                self.judge(now_ms)
            }
            // That it has shut down its sending side is no reason not to answer it.
            Phase::Asked if count == 0 => Step::Wait,
            Phase::Asked => self.breach(Breach::More, now_ms),
            Phase::Saying(_) => Step::Wait,
            Phase::Leaving { how, .. } if count == 0 => Step::Over(how),
            Phase::Leaving { how, dropped } => {
                let dropped = dropped + count;
                self.phase = Phase::Leaving { how, dropped };
                match dropped < LINGER_BYTES_MAX {
                    true => Step::Wait,
                    false => Step::Over(how),
                }
            }
        }
    }

    /// The connection broke.
    pub fn lost(&mut self) -> Step {
        Step::Over(match self.phase {
            Phase::Reading | Phase::Asked => End::Gone,
            Phase::Saying(how) | Phase::Leaving { how, .. } => how,
        })
    }

    /// The core answers; `None`: it is gone.
    pub fn replied(&mut self, frame: Option<Vec<u8>>, now_ms: u64) -> Step {
        match (self.phase, frame) {
            (Phase::Asked, Some(frame)) => self.say(frame, End::Replied, now_ms),
            (Phase::Asked | Phase::Reading, _) => Step::Over(End::Gone),
            (Phase::Saying(_) | Phase::Leaving { .. }, _) => Step::Wait,
        }
    }

    /// Our last word is with the kernel, and the sending side is shut.
    pub fn said(&mut self, now_ms: u64) -> Step {
        match self.phase {
            Phase::Saying(how) if self.is_open => {
                self.phase = Phase::Leaving { how, dropped: 0 };
                self.deadline_ms = Some(now_ms + LINGER_MS);
                Step::Wait
            }
            Phase::Saying(how) => Step::Over(how),
            Phase::Reading | Phase::Asked | Phase::Leaving { .. } => Step::Wait,
        }
    }

    /// The deadline has passed.
    pub fn late(&mut self, now_ms: u64) -> Step {
        match self.phase {
            Phase::Reading => {
                let close = intake::close(CloseReason::AttachTimeout);
                self.say(close, End::AttachTimeout, now_ms)
            }
            Phase::Asked => Step::Wait,
            Phase::Saying(how) | Phase::Leaving { how, .. } => Step::Over(how),
        }
    }

    fn judge(&mut self, now_ms: u64) -> Step {
        match intake::judge(&self.bytes[..self.length]) {
            Intake::Incomplete => Step::Wait,
            Intake::Login { frame_id, body } => {
                self.phase = Phase::Asked;
                // The core answers in its own time, whatever happens.
                self.deadline_ms = None;
                Step::Ask { frame_id, body }
            }
            Intake::Breach(breach) => self.breach(breach, now_ms),
        }
    }

    fn breach(&mut self, breach: Breach, now_ms: u64) -> Step {
        let close = intake::close(CloseReason::ProtocolError);
        self.say(close, End::ProtocolError(breach), now_ms)
    }

    fn say(&mut self, frame: Vec<u8>, how: End, now_ms: u64) -> Step {
        self.phase = Phase::Saying(how);
        self.deadline_ms = Some(now_ms + WRITE_MS);
        Step::Say(frame)
    }
}

#[cfg(test)]
mod tests {
    use common::ids::Nonce;
    use common::secret::Secret;
    use protocols::rcu::login::Login;

    use super::*;

    fn login() -> Vec<u8> {
        let account = "a-1".parse().expect("a name");
        let mut frame = Vec::new();
        Login::sign(&account, "1.0", 0, Nonce([1; 16]), &Secret::new([2; 32]))
            .encode(7, &mut frame);
        frame
    }

    fn hear(visit: &mut Visit, bytes: &[u8], now_ms: u64) -> Step {
        let room = visit.room().expect("it reads");
        room[..bytes.len()].copy_from_slice(bytes);
        visit.read(bytes.len(), now_ms)
    }

    fn asked() -> Visit {
        let mut visit = Visit::new(5_000);
        let step = hear(&mut visit, &login(), 0);
        assert!(matches!(step, Step::Ask { frame_id: 7, .. }));
        visit
    }

    fn replied() -> Visit {
        let mut visit = asked();
        let step = visit.replied(Some(b"reply".to_vec()), 100);
        assert_eq!(step, Step::Say(b"reply".to_vec()));
        visit
    }

    #[test]
    fn a_login_in_pieces_is_asked_when_its_last_byte_is_there() {
        let mut visit = Visit::new(5_000);
        let frame = login();
        let (last, first) = frame.split_last().expect("a frame");
        for byte in first {
            assert_eq!(hear(&mut visit, &[*byte], 1), Step::Wait);
        }
        let Step::Ask { frame_id, body } = hear(&mut visit, &[*last], 2) else {
            panic!("not asked");
        };
        assert_eq!((frame_id, &visit.bytes()[body]), (7, &frame[12..]));
        assert_eq!(visit.deadline_ms(), None);
    }

    #[test]
    fn a_breach_and_a_late_login_are_told_and_lingered_for() {
        let mut breach = Visit::new(5_000);
        let close = intake::close(CloseReason::ProtocolError);
        assert_eq!(hear(&mut breach, b"G", 0), Step::Say(close));
        assert_eq!(breach.said(0), Step::Wait);
        assert_eq!(
            breach.late(1_000),
            Step::Over(End::ProtocolError(Breach::Magic))
        );

        let mut late = Visit::new(5_000);
        assert_eq!(hear(&mut late, b"R", 0), Step::Wait);
        let close = intake::close(CloseReason::AttachTimeout);
        assert_eq!(late.late(5_000), Step::Say(close));
        assert_eq!(late.said(5_000), Step::Wait);
        assert_eq!(late.read(0, 5_001), Step::Over(End::AttachTimeout));
    }

    #[test]
    fn more_after_the_login_is_a_breach_and_a_shut_side_is_none() {
        let mut more = asked();
        let close = intake::close(CloseReason::ProtocolError);
        assert_eq!(hear(&mut more, b"x", 1), Step::Say(close));
        // A reply that comes all the same is not sent behind the Close.
        assert_eq!(more.replied(Some(vec![1]), 2), Step::Wait);

        let mut shut = asked();
        assert_eq!((shut.read(0, 1), shut.room()), (Step::Wait, None));
        assert_eq!(shut.replied(Some(vec![1]), 2), Step::Say(vec![1]));
        assert_eq!(shut.said(3), Step::Over(End::Replied));
    }

    #[test]
    fn nothing_is_read_while_the_last_word_is_said_and_what_follows_is_dropped() {
        let mut visit = replied();
        assert_eq!(visit.room(), None);
        assert_eq!(visit.deadline_ms(), Some(100 + WRITE_MS));
        assert_eq!(visit.said(200), Step::Wait);
        assert_eq!(visit.deadline_ms(), Some(200 + LINGER_MS));
        let mut dropped = 0;
        while dropped + INTAKE_BYTES < LINGER_BYTES_MAX {
            assert_eq!(visit.read(INTAKE_BYTES, 300), Step::Wait);
            dropped += INTAKE_BYTES;
        }
        assert_eq!(visit.read(INTAKE_BYTES, 300), Step::Over(End::Replied));
    }

    #[test]
    fn a_device_that_does_not_take_its_reply_is_not_waited_for() {
        assert_eq!(replied().late(1_100), Step::Over(End::Replied));
    }

    #[test]
    fn whoever_goes_is_gone_until_there_is_a_last_word() {
        assert_eq!(Visit::new(5_000).read(0, 0), Step::Over(End::Gone));
        assert_eq!(Visit::new(5_000).lost(), Step::Over(End::Gone));
        assert_eq!(asked().lost(), Step::Over(End::Gone));
        assert_eq!(asked().replied(None, 1), Step::Over(End::Gone));
        assert_eq!(replied().lost(), Step::Over(End::Replied));
    }
}
