//! What the loops of this program share.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

use crate::error::{Result, Tried as _};

/// Listens on a free loopback port.
pub(crate) fn listen(registry: &Registry, token: Token) -> Result<TcpListener> {
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).tried("listen")?;
    registry
        .register(&mut listener, token, Interest::READABLE)
        .tried("register a listener")?;
    Ok(listener)
}

/// The address of a listener, as text.
pub(crate) fn address_of(listener: &TcpListener) -> Result<String> {
    Ok(listener.local_addr().tried("listen")?.to_string())
}

/// Waits for events; a signal is none.
pub(crate) fn wait(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> Result<()> {
    match poll.poll(events, timeout) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        done => done.tried("poll"),
    }
}

/// Has the poll tell of bytes for each of them, by its number.
pub(crate) fn watch_each(registry: &Registry, streams: &mut [TcpStream]) -> Result<()> {
    for (index, stream) in streams.iter_mut().enumerate() {
        registry
            .register(stream, Token(index), Interest::READABLE)
            .tried("register a connection")?;
    }
    Ok(())
}

/// Hands over every connection that waits to be accepted.
pub(crate) fn accept_each(
    listener: &TcpListener,
    mut each: impl FnMut(TcpStream, SocketAddr) -> Result<()>,
) -> Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, source)) => each(stream, source)?,
            Err(error) if is_not_yet(&error) => return Ok(()),
            Err(error) => return Err(error).tried("accept"),
        }
    }
}

/// The kernel has nothing to give or takes nothing now; an event will say when it does.
pub(crate) fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected | io::ErrorKind::Interrupted
    )
}
