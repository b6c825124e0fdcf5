//! Pure. Connections that are not attached: a few bytes each, a few seconds, and not too many.
//!
//! Where there are too many, the oldest goes of the source that has the most: an address that opens one
//! connection after the other pushes out its own, and no device that is about to attach.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use common::pacing::Source;

use crate::adapter::Protocol;
use crate::ids::ConnId;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has not shown a whole first frame.
    Reading,
    /// It claims to be somebody, and whether it is has been asked.
    Asked,
}

/// A connection that is not attached.
pub(super) struct Connection {
    pub(super) protocol: Protocol,
    pub(super) source: IpAddr,
    pub(super) state: State,
    /// What came of the first frame, or behind it; nothing while nothing came.
    pub(super) bytes: Vec<u8>,
    /// Its place in the order of arrival.
    pub(super) arrival: u64,
}

/// All of them have the same time, so the oldest is the first to be late.
pub(super) struct Pending {
    connections: BTreeMap<ConnId, Connection>,
    by_arrival: BTreeMap<u64, (ConnId, u64)>,
    /// Their arrivals; of no source that has none.
    by_source: BTreeMap<Source, BTreeSet<u64>>,
    /// How many a source has, and its oldest; the next to give way is the last.
    by_count: BTreeSet<(usize, Reverse<u64>)>,
    arrivals: u64,
    max: usize,
}

impl Pending {
    pub(super) fn new(max: usize) -> Self {
        Self {
            connections: BTreeMap::new(),
            by_arrival: BTreeMap::new(),
            by_source: BTreeMap::new(),
            by_count: BTreeSet::new(),
            arrivals: 0,
            max,
        }
    }

    /// Takes a connection; returns the one that gives way where there are too many.
    pub(super) fn accept(
        &mut self,
        conn: ConnId,
        protocol: Protocol,
        source: IpAddr,
        late_at_ms: u64,
    ) -> Option<(ConnId, IpAddr)> {
        let connection = Connection {
            protocol,
            source,
            state: State::Reading,
            bytes: vec![],
            arrival: self.arrivals,
        };
        self.by_arrival.insert(self.arrivals, (conn, late_at_ms));
        self.of_source(
            source,
            |arrivals, arrival| arrivals.insert(arrival),
            self.arrivals,
        );
        self.arrivals += 1;
        let double = self.connections.insert(conn, connection);
        assert!(double.is_none(), "{conn:?} is in use");
        (self.connections.len() > self.max).then(|| self.shed())
    }

    fn shed(&mut self) -> (ConnId, IpAddr) {
        let most = self.by_count.last();
        let oldest = most.and_then(|(_, Reverse(arrival))| self.by_arrival.get(arrival));
        let &(conn, _) = oldest.expect("one was just accepted");
        let shed = self.forget(conn).expect("it is in both");
        (conn, shed.source)
    }

    fn of_source(
        &mut self,
        source: IpAddr,
        change: fn(&mut BTreeSet<u64>, u64) -> bool,
        arrival: u64,
    ) {
        let source = Source::from(source);
        let arrivals = self.by_source.entry(source).or_default();
        let rank = |arrivals: &BTreeSet<u64>| {
            let oldest = arrivals.first()?;
            Some((arrivals.len(), Reverse(*oldest)))
        };
        let before = rank(arrivals);
        change(arrivals, arrival);
        let after = rank(arrivals);
        if after.is_none() {
            self.by_source.remove(&source);
        }
        if let Some(rank) = before {
            self.by_count.remove(&rank);
        }
        self.by_count.extend(after);
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.connections.values().map(|it| it.bytes.len()).sum()
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.connections.get_mut(&conn)
    }

    /// `None`: it is not there.
    pub(super) fn forget(&mut self, conn: ConnId) -> Option<Connection> {
        let connection = self.connections.remove(&conn)?;
        self.by_arrival.remove(&connection.arrival);
        self.of_source(
            connection.source,
            |arrivals, arrival| arrivals.remove(&arrival),
            connection.arrival,
        );
        Some(connection)
    }

    /// The next connection whose time is over; it stays until it is forgotten.
    pub(super) fn next_late(&self, now_ms: u64) -> Option<ConnId> {
        let (_, &(conn, late_at_ms)) = self.by_arrival.first_key_value()?;
        (late_at_ms <= now_ms).then_some(conn)
    }

    pub(super) fn next_late_ms(&self) -> Option<u64> {
        self.by_arrival
            .first_key_value()
            .map(|(_, &(_, late_at_ms))| late_at_ms)
    }
}
