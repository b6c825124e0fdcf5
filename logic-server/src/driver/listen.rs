//! The device port: accepting within a budget, and what happens without descriptors.

use std::fs::File;
use std::io;
use std::net::IpAddr;

use common::codes::Code;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::ids::ListenerIndex;

/// After an accept that failed for want of something, the next attempt.
const RETRY_MS: u64 = 100;

/// The listeners of a gate. Edge-triggered: whether connections wait is remembered here.
#[derive(Debug)]
pub(super) struct Listeners {
    listeners: Vec<Listener>,
    /// Given up for a moment to accept and close a connection when nothing else is left: it would
    /// otherwise stay in the kernel's queue, with the device waiting in vain.
    reserve: Option<File>,
    /// Without descriptors or memory: not to be tried before.
    retry_at_ms: Option<u64>,
    /// Of descriptors or memory, since the last connection that was accepted.
    in_want: bool,
}

/// What one attempt to accept gave.
#[derive(Debug)]
pub(super) enum Accept {
    /// With the listener that it came by and its source; an IPv4-mapped address is an IPv4 address.
    Connection(TcpStream, ListenerIndex, IpAddr),
    /// Closed at once: there is no descriptor for it.
    Dropped,
    /// None waits, or none can be had now.
    Nothing,
}

#[derive(Debug)]
struct Listener {
    index: ListenerIndex,
    socket: TcpListener,
    waiting: bool,
}

impl Listeners {
    /// Watches them; the i-th has the token `own_token(i + 1)`.
    pub(super) fn new(
        registry: &Registry,
        sockets: Vec<(ListenerIndex, TcpListener)>,
    ) -> io::Result<Self> {
        let mut listeners = Vec::with_capacity(sockets.len());
        for (place, (index, mut socket)) in sockets.into_iter().enumerate() {
            registry.register(&mut socket, super::own_token(place + 1), Interest::READABLE)?;
            let waiting = false;
            listeners.push(Listener {
                index,
                socket,
                waiting,
            });
        }
        Ok(Self {
            listeners,
            reserve: open_reserve(),
            retry_at_ms: None,
            in_want: false,
        })
    }

    /// Accepts no more; the ports are free.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
        self.retry_at_ms = None;
    }

    /// Takes an event of one of them; `false`: it is another's.
    pub(super) fn ready(&mut self, token: Token) -> bool {
        let of_token = self
            .listeners
            .iter_mut()
            .enumerate()
            .find(|&(index, _)| super::own_token(index + 1) == token);
        match of_token {
            Some((_, listener)) => listener.waiting = true,
            None => return false,
        }
        true
    }

    /// Whether there may be connections to accept now.
    pub(super) fn has_more(&self) -> bool {
        self.retry_at_ms.is_none() && self.listeners.iter().any(|listener| listener.waiting)
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.retry_at_ms
    }

    pub(super) fn accept(&mut self, now_ms: u64) -> Accept {
        if self.retry_at_ms.is_some_and(|at_ms| now_ms < at_ms) {
            return Accept::Nothing;
        }
        self.retry_at_ms = None;
        while let Some(listener) = self.listeners.iter_mut().find(|listener| listener.waiting) {
            let result = match listener.socket.accept() {
                Ok((stream, source)) => {
                    self.in_want = false;
                    let source = source.ip().to_canonical();
                    return Accept::Connection(stream, listener.index, source);
                }
                Err(error) if is_out_of_descriptors(&error) => {
                    if is_first(&mut self.in_want) {
                        tracing::warn!(
                            code = Code::LogicWithoutDescriptors.number(),
                            %error,
                            "out of file descriptors: connections are closed unseen"
                        );
                    }
                    accept_and_close(&listener.socket, &mut self.reserve)
                }
                Err(error) => Err(error),
            };
            match result.map_err(|error| (error.kind(), error)) {
                Ok(()) => return Accept::Dropped,
                Err((io::ErrorKind::WouldBlock, _)) => listener.waiting = false,
                Err((io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted, _)) => {}
                Err((_, error)) => {
                    if is_first(&mut self.in_want) {
                        tracing::warn!(
                            code = Code::LogicAcceptFailed.number(),
                            %error,
                            "cannot accept connections: they wait"
                        );
                    }
                    self.retry_at_ms = Some(now_ms + RETRY_MS);
                    return Accept::Nothing;
                }
            }
        }
        Accept::Nothing
    }
}

/// Closes the next connection. Without a descriptor to give, the kernel does not even say whether
/// there is one: only this finds out.
fn accept_and_close(socket: &TcpListener, reserve: &mut Option<File>) -> io::Result<()> {
    *reserve = None;
    let closed = socket.accept().map(drop);
    *reserve = open_reserve();
    closed
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Whether this is the first of a row, which alone is logged.
fn is_first(in_want: &mut bool) -> bool {
    !std::mem::replace(in_want, true)
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    /// "Too many open files", of the process and of the machine; std has no kind for them.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
