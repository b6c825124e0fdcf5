//! Pure. Connections that are not attached: a few bytes each, a few seconds, and not too many.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::ids::ConnId;

/// A connection that has not shown a whole first frame.
pub(super) struct Connection {
    pub(super) source: IpAddr,
    /// What came of the frame; nothing while nothing came.
    pub(super) bytes: Vec<u8>,
    /// Its place in the order of arrival.
    arrival: u64,
}

/// All of them have the same time, so the oldest is the first to be late and the first to go.
pub(super) struct Pending {
    connections: BTreeMap<ConnId, Connection>,
    by_arrival: BTreeMap<u64, (ConnId, u64)>,
    arrivals: u64,
    max: usize,
}

impl Pending {
    pub(super) fn new(max: usize) -> Self {
        Self {
            connections: BTreeMap::new(),
            by_arrival: BTreeMap::new(),
            arrivals: 0,
            max,
        }
    }

    /// Takes a connection; returns the oldest where there are too many.
    pub(super) fn accept(
        &mut self,
        conn: ConnId,
        source: IpAddr,
        late_at_ms: u64,
    ) -> Option<ConnId> {
        let shed = if self.connections.len() >= self.max {
            self.by_arrival
                .first_key_value()
                .map(|(_, &(oldest, _))| oldest)
        } else {
            None
        };
        if let Some(oldest) = shed {
            self.forget(oldest);
        }
        let connection = Connection {
            source,
            bytes: vec![],
            arrival: self.arrivals,
        };
        self.by_arrival.insert(self.arrivals, (conn, late_at_ms));
        self.arrivals += 1;
        let double = self.connections.insert(conn, connection);
        assert!(double.is_none(), "{conn:?} is in use");
        shed
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

    /// Whether it was there.
    pub(super) fn forget(&mut self, conn: ConnId) -> bool {
        let Some(connection) = self.connections.remove(&conn) else {
            return false;
        };
        self.by_arrival.remove(&connection.arrival);
        true
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
