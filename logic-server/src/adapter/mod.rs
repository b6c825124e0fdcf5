//! Pure. What a protocol's messages mean for a connection and its session: the words that doors and sessions hear and
//! say, and the only match on protocols.
//!
//! ```text
//! bytes ──cut──▶ frame ──read──▶ Heard ──▶ door, session ──▶ Word ──write──▶ bytes
//! ```
//!
//! An adapter is these three functions over a codec of `protocols`, a variant of [`Protocol`] and an arm of
//! `with_adapter!`. Admission, window, batches, acknowledgement after the commit, silence, commands, presence and
//! counters are shared: door and sessions know no protocol.

#[cfg(test)]
mod lines;
mod rcu;

use common::ids::{CommandId, Ticket};
use common::link::message::Order;
use common::secret::SessionKey;
use protocols::rcu::attach::Attach;
use protocols::rcu::code::{CloseReason, CommandStatus};
use records::RawRecord;

use crate::counters::Counter;

#[cfg(test)]
pub(crate) use lines::Lines;
pub(crate) use rcu::Rcu;

/// What a device speaks: the listener that its connection came by names it, and its session keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// docs/protocol.md
    Rcu,
    #[cfg(test)]
    Lines,
}

/// `$body` with `$A` as the adapter of a protocol: it is matched once, and what follows is code of one type.
macro_rules! with_adapter {
    ($protocol:expr, $A:ident => $body:expr) => {
        match $protocol {
            $crate::adapter::Protocol::Rcu => {
                type $A = $crate::adapter::Rcu;
                $body
            }
            #[cfg(test)]
            $crate::adapter::Protocol::Lines => {
                type $A = $crate::adapter::Lines;
                $body
            }
        }
    };
}
pub(crate) use with_adapter;

/// A protocol, from the side of the cluster. It keeps nothing: what it needs to know stands in the bytes.
pub(crate) trait Adapter {
    type Frame<'a>: Copy;
    /// Of one frame, walked twice.
    type Records<'a>: Iterator<Item = RawRecord<'a>> + Clone;

    /// What a device may send before it is admitted: its claim, and what it sends behind that without waiting.
    const BYTES_BEFORE_ADMISSION_MAX: usize;
    /// The longest frame of a session.
    const FRAME_BYTES_MAX: usize;
    /// The longest payload of an order that fits into a frame to a device.
    const ORDER_BYTES_MAX: usize;

    /// What stands at the front of `bytes`, of which there is at least one; no frame is longer than
    /// `frame_bytes_max`.
    ///
    /// # Errors
    /// The stream cannot be read on: what that is counted as.
    fn cut(bytes: &[u8], frame_bytes_max: usize) -> Result<Cut<Self::Frame<'_>>, Counter>;

    /// # Errors
    /// The device broke the protocol: what that is counted as.
    fn read<'a>(frame: &Self::Frame<'a>) -> Result<Heard<'a, Self::Records<'a>>, Counter>;

    /// Appends the word's bytes; nothing, where the protocol has no such word.
    fn write(word: &Word<'_>, out: &mut Vec<u8>);
}

/// What stands at the front of a byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut<F> {
    /// Not a whole frame yet. `needed` is more than there is: so many bytes in all are worth another look, and all that
    /// come are (`usize::MAX`) where a frame does not say how long it is.
    More { needed: usize },
    /// A frame, and the bytes that it took.
    Frame { frame: F, consumed: usize },
}

/// What a frame of a device says; `R`: its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard<'a, R> {
    /// "I am this one." Before admission, and only there.
    Claim { frame_id: u16, evidence: Evidence },
    /// "I am here."
    Alive { frame_id: u16 },
    /// To be stored, and acknowledged as a whole.
    Records { receipt: Receipt, records: R },
    /// Cannot be cut into records: refused for good.
    Malformed { receipt: Receipt },
    /// To an order.
    Answer(Reply<'a>),
    /// Something that a later version of the protocol may say.
    Unknown,
}

/// What a device shows for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Of a login at the front door.
    Ticket(Attach),
    /// Of a session that it had.
    Resumption,
}

/// What the answer to a frame of records has to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Of the first record; the others follow it.
    pub(crate) base_seq: u64,
    pub(crate) frame_id: u16,
    pub(crate) count: u8,
}

/// What a device says to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    /// Of the order's frame.
    pub(crate) frame_id: u16,
    /// Where the protocol repeats it: then any order's frame of the connection will do.
    pub(crate) command_id: Option<CommandId>,
    pub(crate) status: CommandStatus,
    /// Further replies to the same order follow.
    pub(crate) more: bool,
    pub(crate) payload: &'a [u8],
}

/// What the cluster has to say to a device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word<'a> {
    /// To a claim: the session has begun.
    Welcome {
        frame_id: u16,
        terms: Terms<'a>,
        unix_ms: u64,
    },
    /// To a claim: not with this evidence.
    NotAdmitted { frame_id: u16, unix_ms: u64 },
    /// To a claim: this server takes nobody any more.
    Draining {
        frame_id: u16,
        retry_after_ms: u32,
        unix_ms: u64,
    },
    /// To a sign of life.
    Alive { frame_id: u16, unix_ms: u64 },
    /// Durable: the device may forget the records.
    Stored(Receipt),
    /// Not to be sent again.
    Malformed(Receipt),
    /// Nothing of the frame is stored: to be sent again, after this wait.
    NotNow {
        receipt: Receipt,
        retry_after_ms: u32,
    },
    /// Do this; its payload is no longer than [`Adapter::ORDER_BYTES_MAX`].
    Order { frame_id: u16, order: &'a Order },
    /// The last word; 0: whenever the device likes.
    Goodbye {
        reason: CloseReason,
        retry_after_ms: u32,
    },
}

/// On what terms a device is admitted, and what proves to it that it is by the right server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) heartbeat_s: u16,
    /// How many frames of records may be unanswered at once.
    pub(crate) window: u16,
    pub(crate) ticket: Ticket,
    pub(crate) session_key: &'a SessionKey,
}

impl Protocol {
    #[inline]
    pub(crate) fn write(self, word: &Word<'_>, out: &mut Vec<u8>) {
        with_adapter!(self, A => A::write(word, out))
    }

    pub(crate) fn order_bytes_max(self) -> usize {
        with_adapter!(self, A => A::ORDER_BYTES_MAX)
    }

    /// So much of a connection is read before it is admitted: a byte more than may come, to see that there is more.
    pub fn read_bytes_max(self) -> usize {
        with_adapter!(self, A => A::BYTES_BEFORE_ADMISSION_MAX + 1)
    }
}
