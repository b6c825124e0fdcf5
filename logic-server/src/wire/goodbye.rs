//! Pure. Closing so that the last frame arrives: send it, shut down writing, read on for a moment,
//! close.

use std::collections::VecDeque;

use protocols::rcu::limit::{LINGER_BYTES_MAX, LINGER_MS};
use slab::Slab;

use super::{Reading, Wire};

/// A connection on its way out.
#[derive(Debug)]
pub struct Goodbye {
    unsent: Vec<u8>,
    sent: usize,
    /// All is sent, and the device has been told that nothing follows.
    is_shut: bool,
    drained: usize,
    deadline_ms: u64,
}

impl Goodbye {
    /// `unsent` is sent first.
    pub fn new(unsent: Vec<u8>, now_ms: u64) -> Self {
        Self {
            unsent,
            sent: 0,
            is_shut: false,
            drained: 0,
            deadline_ms: now_ms + LINGER_MS,
        }
    }

    /// Sends what is left, then reads away what comes; `None`: it can be closed. To be called when
    /// the kernel has room, or something to read.
    pub fn go_on(&mut self, wire: &mut impl Wire) -> Option<()> {
        if self.sent < self.unsent.len() {
            self.sent += wire.write(&self.unsent[self.sent..])?;
        }
        if self.sent < self.unsent.len() {
            return Some(());
        }
        if !self.is_shut {
            wire.shut_down_writing()?;
            self.is_shut = true;
        }
        loop {
            match wire.read_away() {
                Reading::Bytes(count) => {
                    self.drained += count;
                    if self.drained > LINGER_BYTES_MAX {
                        return None;
                    }
                }
                Reading::Nothing => return Some(()),
                Reading::Gone => return None,
            }
        }
    }

    /// Whether it still has something to send.
    pub fn waits_for_room(&self) -> bool {
        !self.is_shut
    }
}

/// Connections on their way out, each with what it is reached by. Nobody but the kernel knows of
/// them any more.
#[derive(Debug)]
pub struct Lingering<S> {
    closing: Slab<(S, Goodbye)>,
    /// By deadline, the oldest first; entries of connections that went earlier are still in it.
    deadlines: VecDeque<(u64, usize)>,
    connections_max: usize,
}

impl<S> Lingering<S> {
    /// Beyond `connections_max` the oldest is closed at once.
    pub fn new(connections_max: usize) -> Self {
        Self {
            closing: Slab::new(),
            deadlines: VecDeque::new(),
            connections_max,
        }
    }

    pub fn len(&self) -> usize {
        self.closing.len()
    }

    pub fn is_empty(&self) -> bool {
        self.closing.is_empty()
    }

    /// The key of the one that is inserted next.
    pub fn vacant_key(&self) -> usize {
        self.closing.vacant_key()
    }

    /// Takes a connection that could not be closed at once. Deadlines come in their order.
    pub fn insert(&mut self, connection: S, goodbye: Goodbye) -> usize {
        let deadline_ms = goodbye.deadline_ms;
        let key = self.closing.insert((connection, goodbye));
        self.deadlines.push_back((deadline_ms, key));
        key
    }

    pub fn get_mut(&mut self, key: usize) -> Option<&mut (S, Goodbye)> {
        self.closing.get_mut(key)
    }

    pub fn remove(&mut self, key: usize) -> Option<S> {
        let removed = self.closing.try_remove(key);
        removed.map(|(connection, _)| connection)
    }

    /// Where there are too many: the oldest, to be closed.
    pub fn pop_surplus(&mut self) -> Option<S> {
        while self.closing.len() > self.connections_max {
            let (deadline_ms, key) = self.deadlines.pop_front()?;
            if let Some(connection) = self.remove_due(key, deadline_ms) {
                return Some(connection);
            }
        }
        None
    }

    /// One whose time is over, to be closed.
    pub fn pop_late(&mut self, now_ms: u64) -> Option<S> {
        while let Some(&(deadline_ms, key)) = self.deadlines.front()
            && (deadline_ms <= now_ms || !self.closing.contains(key))
        {
            self.deadlines.pop_front();
            if let Some(connection) = self.remove_due(key, deadline_ms) {
                return Some(connection);
            }
        }
        None
    }

    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.front().map(|&(deadline_ms, _)| deadline_ms)
    }

    /// All of them, to be closed.
    pub fn iter(&self) -> impl Iterator<Item = &S> {
        self.closing.iter().map(|(_, (connection, _))| connection)
    }

    /// The key may be another connection's by now, with a later deadline.
    fn remove_due(&mut self, key: usize, deadline_ms: u64) -> Option<S> {
        let (_, goodbye) = self.closing.get(key)?;
        if goodbye.deadline_ms > deadline_ms {
            return None;
        }
        self.remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Script;
    use super::*;

    #[test]
    fn it_is_shut_down_after_the_last_byte_and_closed_after_the_devices_end() {
        let (mut goodbye, mut wire) = (Goodbye::new(b"abc".to_vec(), 0), Script::default());
        wire.room = 2;
        assert_eq!(goodbye.go_on(&mut wire), Some(()));
        assert!(goodbye.waits_for_room() && !wire.is_shut);
        wire.room = 1;
        wire.readings.push_back(Reading::Bytes(9));
        assert_eq!(goodbye.go_on(&mut wire), Some(()));
        assert!(!goodbye.waits_for_room() && wire.is_shut && wire.readings.is_empty());
        wire.readings.push_back(Reading::Gone);
        assert_eq!(goodbye.go_on(&mut wire), None);
        assert_eq!(wire.taken, b"abc");
    }

    #[test]
    fn nothing_is_read_before_everything_is_sent() {
        let (mut goodbye, mut wire) = (Goodbye::new(vec![1; 2], 0), Script::default());
        wire.room = 1;
        wire.readings.push_back(Reading::Gone);
        assert_eq!(goodbye.go_on(&mut wire), Some(()));
    }

    #[test]
    fn who_floods_is_closed_after_64_kib() {
        let (mut goodbye, mut wire) = (Goodbye::new(vec![], 0), Script::default());
        wire.readings.push_back(Reading::Bytes(LINGER_BYTES_MAX));
        assert_eq!(goodbye.go_on(&mut wire), Some(()));
        wire.readings.push_back(Reading::Bytes(1));
        assert_eq!(goodbye.go_on(&mut wire), None);
    }

    #[test]
    fn who_stays_goes_when_its_time_is_over_and_not_before() {
        let mut lingering = Lingering::new(10);
        let first = lingering.insert('a', Goodbye::new(vec![], 500));
        lingering.insert('b', Goodbye::new(vec![], 600));
        assert_eq!(lingering.next_deadline(), Some(500 + LINGER_MS));
        assert_eq!(lingering.pop_late(499 + LINGER_MS), None);
        assert_eq!(lingering.remove(first), Some('a'));
        // Its key is another's by now, whose time has not come.
        assert_eq!(lingering.insert('c', Goodbye::new(vec![], 700)), first);
        assert_eq!(lingering.pop_late(600 + LINGER_MS), Some('b'));
        assert_eq!(lingering.pop_late(600 + LINGER_MS), None);
        assert_eq!(lingering.pop_late(700 + LINGER_MS), Some('c'));
        assert!(lingering.is_empty() && lingering.next_deadline().is_none());
    }

    #[test]
    fn beyond_the_limit_the_oldest_goes_at_once() {
        let mut lingering = Lingering::new(2);
        for (at_ms, name) in (0..).zip(['a', 'b', 'c']) {
            assert_eq!(lingering.pop_surplus(), None);
            lingering.insert(name, Goodbye::new(vec![], at_ms));
        }
        assert_eq!(lingering.pop_surplus(), Some('a'));
        assert_eq!(lingering.pop_surplus(), None);
    }
}
