//! Closing so that the last frame arrives: send it, shut down writing, read on for a moment, close.
//!
//! To close at once would be wrong wherever the device is still sending: the kernel answers
//! unread bytes with a reset, and a reset destroys what the device has not read yet: the Close.

use std::collections::VecDeque;
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::socket::{self, Reading};

/// How long a connection may take to go.
const LINGER_MS: u64 = 1_000;

/// How much of what the device still sends is read away.
const DRAIN_BYTES_MAX: usize = 64 * 1_024;

/// Tokens with this bit belong here, but for the loop's own (see [`super::own_token`]).
const TOKEN_BIT: usize = super::OWN_TOKEN_BIT >> 1;

/// Connections on their way out. Nobody but the kernel knows of them any more.
#[derive(Debug)]
pub(super) struct Lingering {
    closing: Slab<Closing>,
    /// By deadline, the oldest first; entries of connections that went earlier are still in it.
    deadlines: VecDeque<(u64, usize)>,
    connections_max: usize,
}

#[derive(Debug)]
struct Closing {
    stream: TcpStream,
    unsent: Vec<u8>,
    sent: usize,
    /// All is sent, and the device has been told that nothing follows.
    shut: bool,
    drained: usize,
    deadline_ms: u64,
}

impl Lingering {
    /// Beyond `connections_max` the oldest is closed at once.
    pub(super) fn new(connections_max: usize) -> Self {
        Self {
            closing: Slab::new(),
            deadlines: VecDeque::new(),
            connections_max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.closing.len()
    }

    /// Closes a connection after `unsent`. `registered`: its loop has it in the poll already.
    pub(super) fn close(
        &mut self,
        registry: &Registry,
        (stream, unsent): (TcpStream, Vec<u8>),
        registered: bool,
        now_ms: u64,
        buffer: &mut [u8],
    ) {
        let deadline_ms = now_ms + LINGER_MS;
        let mut closing = Closing {
            stream,
            unsent,
            sent: 0,
            shut: false,
            drained: 0,
            deadline_ms,
        };
        if closing.go_on(buffer).is_none() {
            return;
        }
        let entry = self.closing.vacant_entry();
        let token = Token(entry.key() | TOKEN_BIT);
        let interest = match closing.shut {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        let watched = match registered {
            true => registry.reregister(&mut closing.stream, token, interest),
            false => registry.register(&mut closing.stream, token, interest),
        };
        if watched.is_err() {
            return;
        }
        self.deadlines.push_back((deadline_ms, entry.key()));
        entry.insert(closing);
        while self.closing.len() > self.connections_max {
            let Some((deadline_ms, key)) = self.deadlines.pop_front() else {
                break;
            };
            self.remove_due(key, deadline_ms);
        }
    }

    /// Takes an event of one of these; `false`: it belongs to the loop.
    pub(super) fn ready(&mut self, token: Token, buffer: &mut [u8]) -> bool {
        if token.0 & (super::OWN_TOKEN_BIT | TOKEN_BIT) != TOKEN_BIT {
            return false;
        }
        let key = token.0 & !TOKEN_BIT;
        if let Some(closing) = self.closing.get_mut(key)
            && closing.go_on(buffer).is_none()
        {
            self.closing.remove(key);
        }
        true
    }

    /// Closes those whose time is over.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some(&(deadline_ms, key)) = self.deadlines.front()
            && (deadline_ms <= now_ms || !self.closing.contains(key))
        {
            self.deadlines.pop_front();
            self.remove_due(key, deadline_ms);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.front().map(|&(deadline_ms, _)| deadline_ms)
    }

    /// The key may be another connection's by now, with a later deadline.
    fn remove_due(&mut self, key: usize, deadline_ms: u64) {
        let due = |closing: &Closing| closing.deadline_ms <= deadline_ms;
        if self.closing.get(key).is_some_and(due) {
            self.closing.remove(key);
        }
    }
}

impl Closing {
    /// Sends what is left, then reads away what comes; `None`: it can be closed.
    fn go_on(&mut self, buffer: &mut [u8]) -> Option<()> {
        if self.sent < self.unsent.len() {
            self.sent += socket::write(&mut self.stream, &self.unsent[self.sent..])?;
        }
        if self.sent < self.unsent.len() {
            return Some(());
        }
        if !self.shut {
            self.stream.shutdown(Shutdown::Write).ok()?;
            self.shut = true;
        }
        loop {
            match socket::read(&mut self.stream, buffer) {
                Reading::Bytes(count) => {
                    self.drained += count;
                    if self.drained > DRAIN_BYTES_MAX {
                        return None;
                    }
                }
                Reading::Nothing => return Some(()),
                Reading::Gone => return None,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream as Peer};
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    fn pair() -> (TcpStream, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Peer::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (TcpStream::from_std(stream), peer)
    }

    /// Works off events until nobody lingers any more; at most ten seconds.
    fn work_off(lingering: &mut Lingering, poll: &mut Poll, buffer: &mut [u8]) {
        let mut events = Events::with_capacity(16);
        for _ in 0..1_000 {
            if lingering.len() == 0 {
                return;
            }
            poll.poll(&mut events, Some(Duration::from_millis(10)))
                .unwrap();
            for event in &events {
                assert!(lingering.ready(event.token(), buffer));
            }
        }
        panic!("{} connections still linger", lingering.len());
    }

    #[test]
    fn the_last_frame_arrives_though_the_device_is_still_sending() {
        let (mut poll, mut buffer) = (Poll::new().unwrap(), [0; 1_024]);
        let mut lingering = Lingering::new(10);
        let (stream, mut peer) = pair();
        peer.write_all(&[1; 10_000]).unwrap();
        let parts = (stream, b"goodbye".to_vec());
        lingering.close(poll.registry(), parts, false, 0, &mut buffer);
        peer.write_all(&[1; 10_000]).unwrap();
        let mut heard = vec![];
        peer.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"goodbye");
        drop(peer);
        work_off(&mut lingering, &mut poll, &mut buffer);
    }

    #[test]
    fn more_than_a_socket_holds_is_sent_as_the_device_reads_it() {
        let (mut poll, mut buffer) = (Poll::new().unwrap(), [0; 1_024]);
        let mut lingering = Lingering::new(10);
        let (stream, mut peer) = pair();
        let long = vec![7; 20 << 20];
        let parts = (stream, long.clone());
        lingering.close(poll.registry(), parts, false, 0, &mut buffer);
        assert_eq!(lingering.len(), 1);
        let reader = std::thread::spawn(move || {
            let mut heard = vec![];
            peer.read_to_end(&mut heard).unwrap();
            heard
        });
        work_off(&mut lingering, &mut poll, &mut buffer);
        assert!(reader.join().unwrap() == long);
    }

    #[test]
    fn whoever_stays_or_floods_is_closed_by_time_and_by_bytes() {
        let (mut poll, mut buffer) = (Poll::new().unwrap(), [0; 1_024]);
        let mut lingering = Lingering::new(10);
        let (stays, _stays) = pair();
        lingering.close(poll.registry(), (stays, vec![1]), false, 500, &mut buffer);
        assert_eq!(lingering.next_deadline(), Some(500 + LINGER_MS));
        lingering.expire(499 + LINGER_MS);
        assert_eq!(lingering.len(), 1);
        lingering.expire(500 + LINGER_MS);
        assert_eq!((lingering.len(), lingering.next_deadline()), (0, None));

        let (floods, mut peer) = pair();
        lingering.close(poll.registry(), (floods, vec![1]), false, 0, &mut buffer);
        let flood = std::thread::spawn(move || while peer.write_all(&[0; 4_096]).is_ok() {});
        work_off(&mut lingering, &mut poll, &mut buffer);
        flood.join().unwrap();
    }

    #[test]
    fn beyond_the_limit_the_oldest_goes_at_once() {
        let (poll, mut buffer) = (Poll::new().unwrap(), [0; 1_024]);
        let mut lingering = Lingering::new(2);
        let mut peers = vec![];
        for now_ms in 0..3 {
            let (stream, peer) = pair();
            lingering.close(
                poll.registry(),
                (stream, vec![1]),
                false,
                now_ms,
                &mut buffer,
            );
            peers.push(peer);
        }
        assert_eq!(lingering.len(), 2);
        assert_eq!(lingering.next_deadline(), Some(1 + LINGER_MS));
    }
}
