//! Pure. Which loopback address a device connects from.
//!
//! Beyond some 9,000 connections from one address to one destination the kernel spends its time
//! looking for a free port, and a cluster that paces by source should meet many of them. Login
//! and Attach of a device must come from the same one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// More connections from one address to one destination fall off a cliff.
pub const DEVICES_PER_SOURCE_MAX: u32 = 9_000;

/// From here on: 127.0.0.0/16 is left to servers.
const FIRST: u32 = 0x7F01_0000;
/// 127.255.255.255 is a broadcast address.
const COUNT: u32 = 0x00FE_FFFF;

/// The address for the device with this index; `None` where `target` is not on IPv4 loopback and
/// the kernel chooses.
pub(super) fn source(
    index: usize,
    devices_per_source: u32,
    target: &SocketAddr,
) -> Option<SocketAddr> {
    let IpAddr::V4(target) = target.ip() else {
        return None;
    };
    if !target.is_loopback() {
        return None;
    }
    let devices_per_source = devices_per_source.clamp(1, DEVICES_PER_SOURCE_MAX) as usize;
    let nth = (index / devices_per_source) as u32 % COUNT;
    Some(SocketAddr::new(Ipv4Addr::from_bits(FIRST + nth).into(), 0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn ip(index: usize, devices_per_source: u32) -> IpAddr {
        let target = "127.0.0.1:20000".parse().unwrap();
        source(index, devices_per_source, &target).unwrap().ip()
    }

    #[test]
    fn an_address_serves_so_many_devices_and_no_more() {
        for (devices_per_source, most) in [(0, 1), (1, 1), (7, 7), (20_000, 9_000)] {
            let mut devices: HashMap<IpAddr, usize> = HashMap::new();
            for index in 0..30_000 {
                let ip = ip(index, devices_per_source);
                assert!(ip.is_loopback());
                *devices.entry(ip).or_default() += 1;
            }
            assert_eq!(devices.values().copied().max(), Some(most));
        }
        assert_eq!(ip(300, 1).to_string(), "127.1.1.44");
        assert!(ip(usize::MAX >> 1, 1).is_loopback());
    }

    #[test]
    fn elsewhere_the_kernel_chooses() {
        for target in ["192.0.2.1:10000", "[::1]:10000"] {
            assert_eq!(source(3, 1, &target.parse().unwrap()), None);
        }
    }
}
