//! Pure. Lines of the `sessions` table on their way to the store: which sessions began, which ended and why.
//!
//! ```text
//! shards ── push ──▶ Lines ── take ──▶ Writer: into the transaction of whatever batches wait
//!                      ▲                 │
//!                      ╰── put_back ─────╯ where that came to nothing
//! ```
//!
//! They are told in order, a session's end after its beginning. Nobody waits for one, so they have no part in
//! what is acknowledged, and a limit of their own: beyond it the oldest are dropped and counted, and the next
//! start of the node repairs the table.

use std::collections::VecDeque;
use std::net::IpAddr;

use common::epoch::Epoch;
use common::ids::AccountId;
use protocols::rcu::code::CloseReason;

/// How long a line waits for batches to go with. While a fleet logs in, a commit for every few lines would
/// cost more than the logins.
pub const WAIT_MS: u64 = 250;

/// So many are kept while the store is away.
pub const LINES_MAX: usize = 100_000;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// We closed it.
    Closed(CloseReason),
    /// The device went, or the network did.
    Disconnected,
}

impl EndReason {
    /// As the `sessions` table has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed(reason) => reason.name(),
            Self::Disconnected => "disconnected",
        }
    }
}

/// A line of the `sessions` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Attached {
        account_id: AccountId,
        epoch: Epoch,
        source: IpAddr,
        at_ms: i64,
    },
    Ended {
        account_id: AccountId,
        epoch: Epoch,
        at_ms: i64,
        reason: EndReason,
    },
}

/// Lines that an empty queue keeps memory for; what a fleet that comes at once took beyond it is given back.
const LINES_KEPT: usize = 256;

/// Those of a node that no transaction has taken yet, the oldest first.
#[derive(Debug)]
pub struct Lines {
    lines: VecDeque<Presence>,
    /// Monotonic, when the first of them came.
    since_ms: u64,
    lines_max: usize,
    dropped: u64,
}

impl Lines {
    pub fn new(lines_max: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            since_ms: 0,
            lines_max,
            dropped: 0,
        }
    }

    /// Returns whether it is the first: then the writer has to hear that there are some.
    pub fn push(&mut self, line: Presence, now_ms: u64) -> bool {
        let is_first = self.lines.is_empty();
        if is_first {
            self.since_ms = now_ms;
        }
        self.lines.push_back(line);
        self.drop_oldest();
        is_first
    }

    /// When they are written, also with no batch beside them; monotonic milliseconds.
    pub fn due_at_ms(&self) -> Option<u64> {
        (!self.lines.is_empty()).then(|| self.since_ms + WAIT_MS)
    }

    /// The oldest, so many at most.
    pub(crate) fn take(&mut self, lines_max: usize) -> Vec<Presence> {
        let count = self.lines.len().min(lines_max);
        let taken = self.lines.drain(..count).collect();
        if self.lines.is_empty() {
            self.lines.shrink_to(LINES_KEPT);
        }
        taken
    }

    /// What was taken and is not in the store comes before all others, and has waited already.
    pub(crate) fn put_back(&mut self, lines: Vec<Presence>) {
        if self.lines.is_empty() {
            self.since_ms = 0;
        }
        for line in lines.into_iter().rev() {
            self.lines.push_front(line);
        }
        self.drop_oldest();
    }

    fn drop_oldest(&mut self) {
        let too_many = self.lines.len().saturating_sub(self.lines_max);
        self.lines.drain(..too_many);
        self.dropped += too_many as u64;
    }

    /// How many were dropped since it was asked last.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(account: i64) -> Presence {
        Presence::Ended {
            account_id: AccountId(account),
            epoch: Epoch::ZERO,
            at_ms: 0,
            reason: EndReason::Disconnected,
        }
    }

    #[test]
    fn the_first_starts_the_wait_and_the_oldest_go_where_there_are_too_many() {
        let mut lines = Lines::new(3);
        assert_eq!(lines.due_at_ms(), None);
        assert!(lines.push(line(1), 100));
        assert!(!lines.push(line(2), 200));
        assert_eq!(lines.due_at_ms(), Some(100 + WAIT_MS));
        lines.push(line(3), 300);
        lines.push(line(4), 400);
        assert_eq!(lines.take_dropped(), 1);
        assert_eq!(lines.take(2), [line(2), line(3)]);
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn the_memory_of_a_crowd_is_given_back_when_the_last_of_it_is_taken() {
        let mut lines = Lines::new(LINES_MAX);
        (0..10_000).for_each(|account| _ = lines.push(line(account), 100));
        lines.take(9_999);
        assert!(
            lines.lines.capacity() >= 10_000,
            "not for each that is taken"
        );
        lines.take(1);
        assert!(lines.lines.capacity() < 10_000);
        (0..10).for_each(|account| _ = lines.push(line(account), 100));
        assert_eq!(lines.take(10).len(), 10);
    }

    #[test]
    fn what_comes_back_is_the_oldest_within_the_same_limit_and_is_due() {
        let mut lines = Lines::new(3);
        (1..=3).for_each(|account| _ = lines.push(line(account), 100));
        let taken = lines.take(3);
        lines.put_back(taken);
        assert!(lines.due_at_ms().is_some_and(|due| due <= 100 + WAIT_MS));
        let taken = lines.take(2);
        lines.push(line(4), 200);
        lines.put_back(taken);
        assert_eq!(lines.take_dropped(), 1);
        assert_eq!(lines.take(9), [line(2), line(3), line(4)]);
        assert_eq!(lines.take_dropped(), 0);
    }
}
