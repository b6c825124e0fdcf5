//! Sockets that listen, the same for all of the product: devices, links, readers of metrics.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel completes ahead of us; it may hold the figure lower.
const BACKLOG: i32 = 4_096;

/// A socket that listens and does not block. `[::]` takes IPv4, too, whatever the machine's
/// `net.ipv6.bindv6only`, unless one of `beside`, which are listened on for the same, takes it on that port.
///
/// # Errors
/// The address is in use, or none of this machine.
pub fn listen(address: SocketAddr, beside: &[SocketAddr]) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!takes_ipv4(address, beside))?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Whether IPv4 comes in here as well.
pub fn takes_ipv4(address: SocketAddr, beside: &[SocketAddr]) -> bool {
    let of_ipv4 = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    match address.ip() {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) if ip.is_unspecified() => !beside.iter().any(of_ipv4),
        // One that stands for an IPv4 address takes nothing else.
        IpAddr::V6(ip) => ip.to_ipv4_mapped().is_some(),
    }
}

/// An IPv4 address that came by an IPv6 socket as itself.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn bound(address: SocketAddr, beside: &[SocketAddr]) -> (TcpListener, u16) {
        let listener: TcpListener = listen(address, beside).unwrap().into();
        listener.set_nonblocking(false).unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn any(port: u16) -> SocketAddr {
        SocketAddr::from(([0_u16; 8], port))
    }

    #[test]
    fn every_interface_takes_both_families() {
        let (listener, port) = bound(any(0), &[]);
        let devices = [
            TcpStream::connect(("127.0.0.1", port)).unwrap(),
            TcpStream::connect(("::1", port)).unwrap(),
        ];
        for device in devices {
            let (_, source) = listener.accept().unwrap();
            assert_eq!(canonical(source), device.local_addr().unwrap());
        }
    }

    #[test]
    fn beside_one_that_takes_ipv4_it_takes_ipv6_alone() {
        let (_ipv4, port) = bound(([0, 0, 0, 0], 0).into(), &[]);
        let beside = [([0, 0, 0, 0], port).into(), any(port)];
        let (ipv6, _) = bound(any(port), &beside);
        let device = TcpStream::connect(("::1", port)).unwrap();
        assert_eq!(ipv6.accept().unwrap().1, device.local_addr().unwrap());
        assert!(listen(any(port), &[]).is_err(), "it is taken");
    }
}
