//! The loops that own the devices' sockets: one for those that are not attached, one per core for
//! sessions. They move bytes and carry out what [`crate::gate`] and [`crate::shard`] decide.
//!
//! ```text
//! listeners ─accept─▶ gate loop ─Admit: socket and unread bytes─▶ shard loop ─batches─▶ writer task
//!                      │    ▲ ▲                                     │     ▲                 │
//!                      │    │ └── sessions that ended ──────────────┘     └── outcomes ─────┘
//!     conn servers ◀─ Hub ──┘ grants, ends, commands
//! ```
//!
//! epoll is edge-triggered: what a turn leaves undone because its budget is used up is remembered
//! here and done in the next turn, which then does not sleep; what a device has sent beyond its own
//! budget is left to the kernel for a moment ([`rounds`]). A loop reads the clock once a turn
//! and makes no system call for a frame but to read and to write: what a turn has for one socket
//! is one write. Where much comes it turns about once a millisecond ([`pace`]).

pub(crate) mod gate;
mod linger;
mod listen;
mod pace;
mod pressure;
mod rounds;
pub(crate) mod shard;
mod socket;

use std::time::Duration;

use common::figures::PublishedHistogram;
use common::millis::millis;
use common::time::Now;
use mio::Token;
use mio::net::TcpStream;

use crate::clock::Clock;
use crate::gate as gate_core;
use crate::shard as shard_core;
use crate::shard::SessionSeed;
use crate::threads;

/// What the socket of a session takes, but for what belongs to the kernel.
pub(crate) const SOCKET_BYTES: usize = size_of::<socket::Socket>();

/// Readiness that one turn looks at; the kernel keeps the rest.
const EVENTS_PER_TURN: usize = 256;

/// Messages that one turn takes from the loop's mailbox.
const MESSAGES_PER_TURN: u64 = 1_024;

/// Two looks at the clock took 300 ns where this was measured, the twentieth part of a turn with one
/// frame: only one turn in so many is timed.
const TURNS_PER_TIMED: u32 = 8;

/// Sets the tokens of a loop's waker and listeners apart from those of sockets.
const OWN_TOKEN_BIT: usize = 1 << (usize::BITS - 1);

const fn own_token(index: usize) -> Token {
    Token(OWN_TOKEN_BIT | index)
}

const WAKER: Token = own_token(0);

/// Times the turns of a loop, as far as that costs nothing to speak of.
#[derive(Debug, Default)]
struct Turns {
    until_timed: u32,
}

impl Turns {
    /// When the turn began, if it is one that is timed; microseconds.
    fn begin(&mut self, clock: Clock) -> Option<u64> {
        let is_timed = self.until_timed == 0;
        self.until_timed = match is_timed {
            true => TURNS_PER_TIMED - 1,
            false => self.until_timed - 1,
        };
        is_timed.then(|| clock.us())
    }

    fn end(&self, began_us: Option<u64>, clock: Clock, turn_us: &PublishedHistogram) {
        if let Some(began_us) = began_us {
            turn_us.record(clock.us().saturating_sub(began_us), 1);
        }
    }
}

/// To the gate's loop.
#[derive(Debug)]
pub(crate) enum ToGate {
    Input(gate_core::Input<'static>),
    /// End when the last refused connection is closed.
    Stop,
}

/// To a shard's loop.
#[derive(Debug)]
pub(crate) enum ToShard {
    /// A socket of the gate's, with what was read of it beyond Attach.
    Adopt {
        stream: TcpStream,
        seed: SessionSeed,
        unread: Vec<u8>,
    },
    Input(shard_core::Input<'static>),
    /// End at once, whatever is open.
    Stop,
}

/// How long a loop may sleep: not at all where it left work, else until the first deadline.
fn sleep<const N: usize>(
    left_work: bool,
    now: Now,
    deadlines: [Option<u64>; N],
) -> Option<Duration> {
    if left_work {
        return Some(Duration::ZERO);
    }
    let first = deadlines.into_iter().flatten().min()?;
    Some(Duration::from_millis(first.saturating_sub(now.ms)))
}

/// Rests as [`pace`] says, but no longer than the loop may sleep; not at all where it left work.
fn rest(rest: Option<Duration>, sleep: Option<Duration>) {
    if let Some(rest) = rest
        && sleep != Some(Duration::ZERO)
    {
        threads::rest(sleep.map_or(rest, |sleep| sleep.min(rest)));
    }
}

/// When a loop wakes by itself that sleeps so long.
fn wakes_ms(now: Now, sleep: Option<Duration>) -> Option<u64> {
    Some(now.ms.saturating_add(millis(sleep?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_sleeps_until_its_first_deadline_and_not_at_all_over_work() {
        let now = Now {
            ms: 1_000,
            unix_ms: 0,
        };
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(sleep(false, now, [None, None]), None);
        assert_eq!(sleep(false, now, [Some(1_500), Some(1_200)]), ms(200));
        assert_eq!(sleep(false, now, [Some(900)]), ms(0));
        assert_eq!(sleep(true, now, [Some(1_500)]), ms(0));
        assert_eq!(wakes_ms(now, ms(200)), Some(1_200));
        assert_eq!(wakes_ms(now, None), None);
    }
}
