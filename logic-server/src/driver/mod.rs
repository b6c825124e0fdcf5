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
//! here and done in the next turn, which then does not sleep. A loop reads the clock once a turn
//! and makes no system call for a frame but to read and to write: what a turn has for one socket
//! is one write.

pub(crate) mod gate;
mod linger;
pub(crate) mod listen;
pub(crate) mod shard;
mod socket;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::Token;
use mio::net::TcpStream;

use crate::gate as gate_core;
use crate::ids::Now;
use crate::shard as shard_core;
use crate::shard::SessionSeed;

/// Readiness that one turn looks at; the kernel keeps the rest.
const EVENTS_PER_TURN: usize = 256;

/// Messages that one turn takes from the loop's mailbox.
const MESSAGES_PER_TURN: usize = 1_024;

/// Sets the tokens of a loop's waker and listeners apart from those of sockets.
const OWN_TOKEN_BIT: usize = 1 << (usize::BITS - 1);

const fn own_token(index: usize) -> Token {
    Token(OWN_TOKEN_BIT | index)
}

const WAKER: Token = own_token(0);

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

/// The time as all loops of a node see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            ms: millis(self.start.elapsed()),
            // A wall clock before 1970 is no time at all.
            unix_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, millis),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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

/// Ends the process where `work` panics: a node with a dead loop would answer some devices and be
/// deaf to others, and no supervisor would know.
pub(crate) fn or_abort<T>(work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| std::process::abort())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

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
    }

    #[test]
    fn a_panic_in_a_loop_ends_the_process() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "driver::tests::panics_in_a_thread"])
            .output()
            .unwrap()
            .status;
        // By abort, not by a failed test.
        assert_eq!(status.code(), None, "{status}");
    }

    #[test]
    #[ignore = "ends the process: run by the test above, in one of its own"]
    fn panics_in_a_thread() {
        let thread = std::thread::spawn(|| or_abort(|| panic!("on purpose")));
        let _ = thread.join();
    }
}
