//! Pure. A device of the contract (docs/protocol.md), every action of it.

mod effect;
mod settings;

use std::net::SocketAddr;

pub use effect::{ConnId, Effect, Effects, Event, Fault, SentRecord, Wait};
pub use settings::{Identity, Settings};

/// Everything that can happen to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// It starts, or starts again after [`Input::PowerCut`].
    PowerOn,
    /// Its connection is gone without a word, and what is not in non-volatile memory with it.
    PowerCut,
    /// Its clock is set by other hands, or (`None`) forgets the time.
    ClockSet {
        unix_ms: Option<u64>,
    },
    /// The answer to [`Effect::Resolve`]; empty: DNS failed.
    Resolved {
        addresses: &'a [SocketAddr],
    },
    Connected {
        conn: ConnId,
    },
    /// Any piece of the stream.
    Received {
        conn: ConnId,
        bytes: &'a [u8],
    },
    /// The connection could not be made, or the other side ended it.
    Disconnected {
        conn: ConnId,
    },
    /// What it measures now: one record each.
    Report {
        measurements: &'a [Measurement<'a>],
    },
    /// From now on it measures nothing of itself.
    StopReporting,
    /// A deadline has passed.
    Tick,
}

/// A record to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement<'a> {
    pub kind: u8,
    /// At most 255 bytes.
    pub payload: &'a [u8],
}
