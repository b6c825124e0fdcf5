//! Pure. Where the connections of a measurement come from.
//!
//! Towards one server the kernel finds a free port slowly once some 9,000 of an address are taken,
//! and a port stays taken for a minute after its connection. So the load names address and port
//! itself: it walks through 1,000 addresses, and comes back to a port of an address only after all
//! nine million pairs.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Addresses that a load uses: 127.B.0.1 and the 999 after it that end in 1..=250.
const ADDRESSES: u64 = 1_000;
/// Ports of an address; also the most connections from one address to one server.
pub(crate) const PORTS: u64 = 9_000;
const PORT_FIRST: u16 = 33_000;
const LAST_BYTES: u64 = 250;

/// A walk through the pairs of one block of addresses, 127.B.0.0/16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources {
    block: u8,
    next: u64,
}

impl Sources {
    /// `start` is where the walk begins; any number. Loads that run at the same time have blocks
    /// of their own.
    pub(crate) fn new(block: u8, start: u64) -> Self {
        Self {
            block,
            next: start % (ADDRESSES * PORTS),
        }
    }

    /// The next address.
    pub(crate) fn next(&mut self) -> Source {
        let number = self.next;
        self.next = (number + 1) % (ADDRESSES * PORTS);
        let address = number % ADDRESSES;
        // Address by address the ports are apart, for the kernel keeps sockets of a port together.
        let port = (number / ADDRESSES + address * (PORTS / ADDRESSES)) % PORTS;
        Source {
            block: self.block,
            address: address as u16,
            port: port as u16,
        }
    }
}

/// One address of the walk, with the port that is its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    block: u8,
    address: u16,
    port: u16,
}

impl Source {
    pub(crate) fn ip(self) -> Ipv4Addr {
        *self.socket_addr().ip()
    }

    /// The same address at a port further on, for when somebody else has this one.
    pub(crate) fn after(self, ports: u16) -> Self {
        let port = (u64::from(self.port) + u64::from(ports)) % PORTS;
        Self {
            port: port as u16,
            ..self
        }
    }

    pub(crate) fn socket_addr(self) -> SocketAddrV4 {
        let [high, low] = [
            u64::from(self.address) / LAST_BYTES,
            u64::from(self.address) % LAST_BYTES + 1,
        ];
        let address = Ipv4Addr::new(127, self.block, high as u8, low as u8);
        SocketAddrV4::new(address, PORT_FIRST + self.port)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_pair_comes_back_only_after_all_others() {
        let mut sources = Sources::new(9, 8_999_990);
        let mut seen = vec![false; (ADDRESSES * PORTS) as usize];
        for turn in 0..=ADDRESSES * PORTS {
            let source = sources.next().socket_addr();
            let [_, _, high, low] = source.ip().octets();
            let address = u64::from(high) * LAST_BYTES + u64::from(low) - 1;
            let pair = address * PORTS + u64::from(source.port() - PORT_FIRST);
            let again = std::mem::replace(&mut seen[pair as usize], true);
            assert_eq!(again, turn == ADDRESSES * PORTS, "{source}");
        }
    }

    #[test]
    fn neighbours_come_from_different_addresses() {
        let mut sources = Sources::new(9, 0);
        let addresses: HashSet<_> = (0..ADDRESSES)
            .map(|_| *sources.next().socket_addr().ip())
            .collect();
        assert_eq!(addresses.len() as u64, ADDRESSES);
        assert!(addresses.contains(&Ipv4Addr::new(127, 9, 3, 250)));
    }
}
