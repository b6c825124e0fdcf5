//! Pure. Which connections may stay that have no reply yet.
//!
//! When there are too many, the oldest that has not said a whole Login goes: a device that means
//! it has spoken long before a thousand others came. Who has said it stays until it is answered.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use common::pacing::{Limit, Source};

/// A device's connection; the later one has the greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// And where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub id: ConnectionId,
    pub source: IpAddr,
}

/// What to do with a connection that was just accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    /// Admitted; this older one, which already counts no more, goes.
    InPlaceOf(Connection, Limit),
    TurnedAway(Limit),
}

#[derive(Debug)]
pub struct Pending {
    max: usize,
    per_source_max: usize,
    sources_of: HashMap<ConnectionId, IpAddr>,
    /// Those that have not said a Login yet, the oldest first.
    unknown: BTreeSet<ConnectionId>,
    by_source: HashMap<Source, OfSource>,
}

#[derive(Debug, Default)]
struct OfSource {
    connections: usize,
    unknown: BTreeSet<ConnectionId>,
}

impl Pending {
    pub fn new(max: usize, per_source_max: usize) -> Self {
        Self {
            max,
            per_source_max,
            sources_of: HashMap::new(),
            unknown: BTreeSet::new(),
            by_source: HashMap::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.sources_of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sources_of.is_empty()
    }

    pub fn accept(&mut self, connection: ConnectionId, address: IpAddr) -> Admission {
        let source = Source::from(address);
        let of_source = self.by_source.get(&source);
        let limit = if of_source.is_some_and(|it| it.connections >= self.per_source_max) {
            Some(Limit::Source)
        } else if self.len() >= self.max {
            Some(Limit::InAll)
        } else {
            None
        };
        let oldest = match limit {
            None => None,
            Some(Limit::Source) => of_source.and_then(|it| it.unknown.first()),
            Some(Limit::InAll) => self.unknown.first(),
        };
        match (limit, oldest.copied()) {
            (None, _) => {
                self.insert(connection, address);
                Admission::Admitted
            }
            (Some(limit), Some(id)) => {
                let gone = self.remove(id).expect("it is in both");
                self.insert(connection, address);
                Admission::InPlaceOf(Connection { id, source: gone }, limit)
            }
            (Some(limit), None) => Admission::TurnedAway(limit),
        }
    }

    /// It has said a whole Login. Returns its source; `None`: it had to go meanwhile.
    pub fn known(&mut self, connection: ConnectionId) -> Option<IpAddr> {
        let address = *self.sources_of.get(&connection)?;
        self.unknown.remove(&connection);
        if let Some(of_source) = self.by_source.get_mut(&address.into()) {
            of_source.unknown.remove(&connection);
        }
        Some(address)
    }

    /// It has ended, one way or another. Returns its source; `None`: it had to go before.
    pub fn remove(&mut self, connection: ConnectionId) -> Option<IpAddr> {
        let address = self.sources_of.remove(&connection)?;
        let source = Source::from(address);
        self.unknown.remove(&connection);
        if let Some(of_source) = self.by_source.get_mut(&source) {
            of_source.unknown.remove(&connection);
            of_source.connections -= 1;
            if of_source.connections == 0 {
                self.by_source.remove(&source);
            }
        }
        Some(address)
    }

    /// Removes all that have not said a Login.
    pub fn take_unknown(&mut self) -> Vec<ConnectionId> {
        let unknown: Vec<_> = self.unknown.iter().copied().collect();
        for &connection in &unknown {
            self.remove(connection);
        }
        unknown
    }

    fn insert(&mut self, connection: ConnectionId, address: IpAddr) {
        self.sources_of.insert(connection, address);
        self.unknown.insert(connection);
        let of_source = self.by_source.entry(address.into()).or_default();
        of_source.unknown.insert(connection);
        of_source.connections += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(host: u32) -> IpAddr {
        IpAddr::V4(host.into())
    }

    fn id(number: u64) -> ConnectionId {
        ConnectionId(number)
    }

    fn in_place_of(number: u64, source: IpAddr, limit: Limit) -> Admission {
        let id = id(number);
        Admission::InPlaceOf(Connection { id, source }, limit)
    }

    #[test]
    fn the_oldest_unknown_goes_first() {
        let mut pending = Pending::new(3, 10);
        (1..=3).for_each(|n| assert_eq!(pending.accept(id(n), source(1)), Admission::Admitted));
        assert_eq!(pending.known(id(1)), Some(source(1)));
        assert_eq!(
            pending.accept(id(4), source(2)),
            in_place_of(2, source(1), Limit::InAll)
        );
        pending.known(id(3));
        pending.known(id(4));
        assert_eq!(
            pending.accept(id(5), source(2)),
            Admission::TurnedAway(Limit::InAll)
        );
        pending.remove(id(3));
        assert_eq!(pending.accept(id(6), source(2)), Admission::Admitted);
    }

    #[test]
    fn a_source_at_its_limit_loses_its_own() {
        let mut pending = Pending::new(10, 2);
        pending.accept(id(1), source(9));
        pending.accept(id(2), source(1));
        pending.accept(id(3), source(1));
        assert_eq!(
            pending.accept(id(4), source(1)),
            in_place_of(2, source(1), Limit::Source)
        );
        pending.known(id(3));
        pending.known(id(4));
        assert_eq!(
            pending.accept(id(5), source(1)),
            Admission::TurnedAway(Limit::Source)
        );
        assert_eq!(pending.accept(id(6), source(2)), Admission::Admitted);
    }

    #[test]
    fn who_had_to_go_is_not_known_any_more() {
        let mut pending = Pending::new(1, 1);
        pending.accept(id(1), source(1));
        pending.accept(id(2), source(2));
        assert_eq!(pending.known(id(1)), None);
    }

    proptest! {
        #[test]
        fn neither_limit_is_ever_exceeded_and_nothing_is_left_behind(
            steps in prop::collection::vec((0u8..4, 0u64..40, 0u32..4), 0..400),
        ) {
            let mut pending = Pending::new(8, 3);
            let mut next = 0;
            for (step, pick, host) in steps {
                match step {
                    0 | 1 => {
                        pending.accept(id(next), source(host));
                        next += 1;
                    }
                    2 => {
                        pending.known(id(next.saturating_sub(pick)));
                    }
                    _ => {
                        pending.remove(id(next.saturating_sub(pick)));
                    }
                }
                prop_assert!(pending.len() <= 8);
                let mut counted = 0;
                for of_source in pending.by_source.values() {
                    prop_assert!((1..=3).contains(&of_source.connections));
                    counted += of_source.connections;
                }
                prop_assert_eq!(counted, pending.len());
            }
            for n in 0..next {
                pending.remove(id(n));
            }
            prop_assert!(pending.is_empty() && pending.unknown.is_empty());
            prop_assert!(pending.by_source.is_empty());
        }
    }
}
