//! A connection from a chosen loopback address.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::sources::Source;

/// Ports that somebody else has are passed over, this many at most.
const TRIES: u16 = 100;
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Begins a connection to `target` from `source`, or from another port of the same address where
/// somebody else has that one.
pub(crate) fn connect(source: Source, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = from_free_port(source, |source| {
        let socket = bound(source, Type::STREAM.nonblocking())?;
        match socket.connect(&target.into()) {
            Err(error) if !is_under_way(&error) => Err(error),
            _ => Ok(socket),
        }
    })?;
    Ok(TcpStream::from_std(socket.into()))
}

/// The same, and waits until the connection stands. The socket blocks.
pub(crate) fn connect_and_wait(
    source: Source,
    target: SocketAddr,
) -> io::Result<std::net::TcpStream> {
    let socket = from_free_port(source, |source| {
        let socket = bound(source, Type::STREAM)?;
        socket.connect_timeout(&target.into(), CONNECT_MAX)?;
        Ok(socket)
    })?;
    Ok(socket.into())
}

fn from_free_port(
    source: Source,
    attempt: impl Fn(SocketAddrV4) -> io::Result<Socket>,
) -> io::Result<Socket> {
    let mut refused = None;
    for further in 0..TRIES {
        match attempt(source.after(further).socket_addr()) {
            Err(error) if is_taken(&error) => refused = Some(error),
            done => return done,
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

fn bound(source: SocketAddrV4, type_: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, type_.cloexec(), Some(Protocol::TCP))?;
    // Else a port whose last connection is over, but not yet forgotten, could not be named.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::V4(source).into())?;
    Ok(socket)
}

fn is_under_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}
