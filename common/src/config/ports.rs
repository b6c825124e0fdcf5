//! Whether this machine lets a process listen where its configuration says, found out before anything
//! is started, and for all addresses at once.

use std::net::SocketAddr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::purpose::Purpose;
use crate::process::listen::takes_ipv4;

/// Each address that cannot be listened on, beginning with its key. The keys may name several.
pub fn mistakes<'k>(
    wanted: impl IntoIterator<Item = (&'k str, SocketAddr)>,
    purpose: Purpose,
) -> Vec<String> {
    let mut tried: Vec<(&str, SocketAddr)> = vec![];
    let mut mistakes = vec![];
    for (key, address) in wanted {
        let taken = tried
            .iter()
            .find(|(other_key, other)| overlap((other_key, *other), (key, address)));
        let mistake = match (taken, attempt(address)) {
            (Some((other, taken)), _) if *taken == address => Some(format!("is {other} already")),
            (Some((other, taken)), _) => Some(format!("is within {other}, {taken}, already")),
            (None, Ok(_)) => None,
            (None, Err(error)) => why(error, purpose),
        };
        tried.push((key, address));
        mistakes.extend(mistake.map(|mistake| format!("{key}: {address} {mistake}")));
    }
    mistakes
}

/// Whether both cannot be listened on at once. Addresses of one key are of one port, where each family may have
/// its own listener.
fn overlap((key, address): (&str, SocketAddr), (other_key, other): (&str, SocketAddr)) -> bool {
    if address.port() != other.port() || address.port() == 0 {
        return false;
    }
    let (ip, other_ip) = (address.ip().to_canonical(), other.ip().to_canonical());
    if ip.is_ipv4() == other_ip.is_ipv4() {
        return ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified();
    }
    let takes_both = [address, other]
        .iter()
        .any(|it| it.is_ipv6() && takes_ipv4(*it, &[]));
    key != other_key && takes_both
}

/// Binds as a listener would, and listens not: nobody is let in to be sent away.
fn attempt(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        // The IPv4 side of `[::]` is judged with those that name it.
        sockopt::set_ipv6_v6only(&socket, address.ip().to_canonical().is_ipv6())?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    Ok(socket)
}

fn why(error: Errno, purpose: Purpose) -> Option<String> {
    let why = match error {
        Errno::ADDRINUSE if purpose == Purpose::Check => return None,
        Errno::ADDRINUSE => {
            "is in use: another process listens there; end it, or choose another port".into()
        }
        Errno::ADDRNOTAVAIL => "is no address of this machine".into(),
        Errno::ACCESS => {
            "needs the right to bind ports below 1024 (CAP_NET_BIND_SERVICE); choose a higher one"
                .into()
        }
        error => format!("cannot be listened on: {error}"),
    };
    Some(why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn all_that_cannot_be_listened_on_is_told_by_its_key() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap();
        let elsewhere: SocketAddr = "192.0.2.1:20000".parse().unwrap();
        let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let wanted = || [("a", taken), ("b", elsewhere), ("b", free), ("c", free)];
        let in_use = format!(
            "a: {taken} is in use: another process listens there; end it, or choose another port"
        );
        let no_address = "b: 192.0.2.1:20000 is no address of this machine".to_owned();
        assert_eq!(
            mistakes(wanted(), Purpose::Start),
            [in_use, no_address.clone()]
        );
        assert_eq!(mistakes(wanted(), Purpose::Check), [no_address]);
        drop(listener);
        assert_eq!(
            mistakes([("a", taken)], Purpose::Start),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_port_of_every_interface_is_taken_for_each_of_them() {
        let taken = |a: &str, b: &str, key: &str| {
            overlap(("a", a.parse().unwrap()), (key, b.parse().unwrap()))
        };
        for (a, b) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("127.0.0.1:1", "0.0.0.0:1"),
            ("[::]:1", "[::1]:1"),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
        ] {
            assert!(taken(a, b, "a") && taken(a, b, "b"), "{a} {b}");
        }
        for (a, b) in [("[::]:1", "0.0.0.0:1"), ("192.0.2.1:1", "[::]:1")] {
            assert!(!taken(a, b, "a") && taken(a, b, "b"), "{a} {b}");
        }
        for (a, b) in [
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("127.0.0.1:1", "127.0.0.2:1"),
            ("127.0.0.1:1", "[::1]:1"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            assert!(!taken(a, b, "a") && !taken(a, b, "b"), "{a} {b}");
        }
    }

    #[test]
    fn an_address_that_two_keys_want_is_told() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let told = mistakes(
            [("listen", address), ("link_listen", address)],
            Purpose::Check,
        );
        assert_eq!(told, [format!("link_listen: {address} is listen already")]);
        let every = SocketAddr::from(([0, 0, 0, 0], address.port()));
        let told = mistakes(
            [("listen", every), ("link_listen", address)],
            Purpose::Check,
        );
        let expected = format!("link_listen: {address} is within listen, {every}, already");
        assert_eq!(told, [expected]);
    }
}
