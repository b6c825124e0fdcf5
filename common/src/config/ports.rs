//! Whether this machine lets a process listen where its configuration says, found out before anything
//! is started, and for all addresses at once.

use std::net::SocketAddr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::process::Purpose;

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
            .find(|(_, other)| address.port() != 0 && *other == address);
        let mistake = match (taken, attempt(address)) {
            (Some((other, _)), _) => Some(format!("is {other} already")),
            (None, Ok(_)) => None,
            (None, Err(error)) => why(error, purpose),
        };
        tried.push((key, address));
        mistakes.extend(mistake.map(|mistake| format!("{key}: {address} {mistake}")));
    }
    mistakes
}

/// Binds as a listener would, and listens not: nobody is let in to be sent away.
fn attempt(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
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
    fn an_address_that_two_keys_want_is_told() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let told = mistakes(
            [("listen", address), ("link_listen", address)],
            Purpose::Check,
        );
        assert_eq!(told, [format!("link_listen: {address} is listen already")]);
    }
}
