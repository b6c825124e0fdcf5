//! A connection from a chosen loopback address.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::sources::Source;

/// Ports that somebody else has are passed over, this many at most.
const TRIES: u16 = 100;

/// Begins a connection to `target` from `source`, or from another port of the same address where
/// somebody else has that one.
pub(crate) fn connect(source: Source, target: SocketAddr) -> io::Result<TcpStream> {
    let mut refused = None;
    for attempt in 0..TRIES {
        match connect_from(source.after(attempt).socket_addr(), target) {
            Ok(stream) => return Ok(stream),
            Err(error) if is_taken(&error) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

fn connect_from(source: SocketAddrV4, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::IPV4,
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    // Else a port whose last connection is over, but not yet forgotten, could not be named.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::V4(source).into())?;
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}
