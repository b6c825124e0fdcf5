//! Pure. The addresses behind the cluster's name, tried one after the other in random order.

use std::net::SocketAddr;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

#[derive(Debug, Default)]
pub(super) struct Balancers {
    /// This round's, in the order in which they are tried.
    round: Vec<SocketAddr>,
    tried: usize,
    /// The last that DNS gave of which one gave a right LoginReply.
    worked: Vec<SocketAddr>,
}

impl Balancers {
    /// Begins a round with what DNS gave or, where it gave nothing, with what worked last.
    pub(super) fn begin(&mut self, resolved: &[SocketAddr], rng: &mut SmallRng) {
        let addresses = if resolved.is_empty() {
            &self.worked
        } else {
            resolved
        };
        self.round = addresses.to_vec();
        self.round.shuffle(rng);
        self.tried = 0;
    }

    /// The next address of the round; `None`: all have failed.
    pub(super) fn next(&mut self) -> Option<SocketAddr> {
        let address = self.round.get(self.tried).copied();
        self.tried += usize::from(address.is_some());
        address
    }

    /// One of the round gave a right LoginReply.
    pub(super) fn remember(&mut self) {
        if !self.round.is_empty() {
            self.worked = std::mem::take(&mut self.round);
        }
        self.tried = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use rand::SeedableRng;

    use super::*;

    fn addresses(hosts: std::ops::Range<u8>) -> Vec<SocketAddr> {
        hosts
            .map(|host| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), 10_000))
            .collect()
    }

    fn round(balancers: &mut Balancers) -> Vec<SocketAddr> {
        std::iter::from_fn(|| balancers.next()).collect()
    }

    #[test]
    fn a_round_takes_each_address_once_in_random_order() {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut balancers = Balancers::default();
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..100 {
            balancers.begin(&addresses(0..4), &mut rng);
            let mut tried = round(&mut balancers);
            firsts.insert(tried[0]);
            tried.sort();
            assert_eq!(tried, addresses(0..4));
        }
        assert_eq!(firsts.len(), 4);
    }

    #[test]
    fn without_dns_the_last_that_worked_are_tried() {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut balancers = Balancers::default();
        balancers.begin(&[], &mut rng);
        assert_eq!(balancers.next(), None);

        balancers.begin(&addresses(0..3), &mut rng);
        balancers.next();
        balancers.remember();
        // These never answered rightly.
        balancers.begin(&addresses(7..9), &mut rng);
        assert_eq!(round(&mut balancers).len(), 2);

        balancers.begin(&[], &mut rng);
        let mut tried = round(&mut balancers);
        tried.sort();
        assert_eq!(tried, addresses(0..3));
    }
}
