//! The sockets of connections on their way out; what to do with each says [`crate::wire::goodbye`].

use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::socket;
use crate::wire::goodbye::{self, Goodbye};
use crate::wire::{Reading, Sink, Wire};

/// Tokens with this bit belong here, but for the loop's own (see [`super::own_token`]).
const TOKEN_BIT: usize = super::OWN_TOKEN_BIT >> 1;

/// Connections on their way out.
#[derive(Debug)]
pub(super) struct Lingering {
    closing: goodbye::Lingering<TcpStream>,
}

/// A socket, and the room to read away what comes.
struct Socket<'a> {
    stream: &'a mut TcpStream,
    buffer: &'a mut [u8],
}

impl Sink for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        self.stream.write(bytes)
    }
}

impl Wire for Socket<'_> {
    fn shut_down_writing(&mut self) -> Option<()> {
        self.stream.shutdown(Shutdown::Write).ok()
    }

    fn read_away(&mut self) -> Reading {
        socket::read(self.stream, self.buffer)
    }
}

impl Lingering {
    /// Beyond `connections_max` the oldest is closed at once.
    pub(super) fn new(connections_max: usize) -> Self {
        Self {
            closing: goodbye::Lingering::new(connections_max),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.closing.len()
    }

    /// Closes a connection after `unsent`. `registered`: its loop has it in the poll already.
    pub(super) fn close(
        &mut self,
        registry: &Registry,
        (mut stream, unsent): (TcpStream, Vec<u8>),
        registered: bool,
        now_ms: u64,
        buffer: &mut [u8],
    ) {
        let mut goodbye = Goodbye::new(unsent, now_ms);
        let mut socket = Socket {
            stream: &mut stream,
            buffer,
        };
        if goodbye.go_on(&mut socket).is_none() {
            return;
        }
        let token = Token(self.closing.vacant_key() | TOKEN_BIT);
        let interest = match goodbye.waits_for_room() {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let watched = match registered {
            true => registry.reregister(&mut stream, token, interest),
            false => registry.register(&mut stream, token, interest),
        };
        if watched.is_err() {
            return;
        }
        self.closing.insert(stream, goodbye);
        while self.closing.pop_surplus().is_some() {}
    }

    /// Takes an event of one of these; `false`: it belongs to the loop.
    pub(super) fn ready(&mut self, token: Token, buffer: &mut [u8]) -> bool {
        if token.0 & (super::OWN_TOKEN_BIT | TOKEN_BIT) != TOKEN_BIT {
            return false;
        }
        let key = token.0 & !TOKEN_BIT;
        if let Some((stream, goodbye)) = self.closing.get_mut(key)
            && goodbye.go_on(&mut Socket { stream, buffer }).is_none()
        {
            self.closing.remove(key);
        }
        true
    }

    /// Closes those whose time is over.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while self.closing.pop_late(now_ms).is_some() {}
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.closing.next_deadline()
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
        let due_ms = lingering.next_deadline().unwrap();
        lingering.expire(due_ms - 1);
        assert_eq!(lingering.len(), 1);
        lingering.expire(due_ms);
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
        let mut oldest = [0];
        let read = peers[0].read(&mut oldest).unwrap();
        assert_eq!((read, peers[0].read(&mut oldest).unwrap()), (1, 0));
    }
}
