//! The device port: the sockets that listen on it.

use std::io;
use std::net::SocketAddr;

use common::process::listen::listen;
use mio::net::TcpListener;

/// A listening socket, bound and not yet watched. `all`: those of the port.
pub(crate) fn bind(address: SocketAddr, all: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = listen(address, all)?;
    // Linux hands it on to every connection accepted: no system call for each.
    socket.set_tcp_nodelay(true)?;
    Ok(TcpListener::from_std(socket.into()))
}
