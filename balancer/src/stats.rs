//! What a running balancer tells of itself: figures that its front publishes after each turn, and
//! that anybody may read without asking it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::Counter;
use crate::route::Core;

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Connections that are not done yet.
    pub pending: u64,
    /// Logins that conn servers are deciding.
    pub logins_open: u64,
    /// Conn servers linked.
    pub conn_servers: u64,
    /// Places free behind them, by their reports.
    pub places_free: u64,
    counters: Vec<u64>,
}

impl Stats {
    /// Counted since the start.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).copied().unwrap_or(0)
    }

    /// Whole Logins since the start, whatever they were answered.
    pub fn logins(&self) -> u64 {
        self.count(Counter::Logins)
    }
}

/// Where the front publishes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    pending: AtomicU64,
    logins_open: AtomicU64,
    conn_servers: AtomicU64,
    places_free: AtomicU64,
    counters: [AtomicU64; Counter::ALL.len()],
}

impl Board {
    pub(crate) fn publish(&self, core: &Core) {
        let cells = &self.0;
        let figure = |cell: &AtomicU64, value: usize| cell.store(value as u64, Ordering::Relaxed);
        figure(&cells.pending, core.pending());
        figure(&cells.logins_open, core.logins_open());
        figure(&cells.conn_servers, core.conns().len());
        let places_free = core.conns().places_free();
        cells.places_free.store(places_free, Ordering::Relaxed);
        for ((_, count), cell) in core.counters().iter().zip(&cells.counters) {
            cell.store(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let cells = &self.0;
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Stats {
            pending: read(&cells.pending),
            logins_open: read(&cells.logins_open),
            conn_servers: read(&cells.conn_servers),
            places_free: read(&cells.places_free),
            counters: cells.counters.iter().map(read).collect(),
        }
    }
}
