//! What a running conn server tells of itself: figures that its owner publishes after each turn, and
//! that anybody may read without asking it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::Core;
use crate::counters::{Counter, Counters};

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Logic servers that take grants.
    pub nodes: usize,
    /// Accounts with a session on the logic servers.
    pub sessions: u64,
    /// Logins that are being decided.
    pub logins_open: u64,
    /// Places of the logic servers that take grants: free, and in all.
    pub places_free: u64,
    pub places_max: u64,
    counters: Vec<u64>,
}

impl Stats {
    /// Counted since the start.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).copied().unwrap_or(0)
    }

    /// Logins since the start, whatever they were answered.
    pub fn logins(&self) -> u64 {
        self.count(Counter::Logins)
    }
}

/// Where the owner publishes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    nodes: AtomicU64,
    sessions: AtomicU64,
    logins_open: AtomicU64,
    places_free: AtomicU64,
    places_max: AtomicU64,
    counters: [AtomicU64; Counter::ALL.len()],
}

impl Board {
    /// `shell`: what was counted outside the core.
    pub(crate) fn publish(&self, core: &Core, shell: &Counters) {
        let cells = &self.0;
        let figure = |cell: &AtomicU64, value: u64| cell.store(value, Ordering::Relaxed);
        let load = core.load();
        figure(&cells.nodes, core.desk().pool.ready() as u64);
        figure(&cells.sessions, core.desk().directory.sessions() as u64);
        figure(&cells.logins_open, load.logins_open.into());
        figure(&cells.places_free, load.places_free.into());
        figure(&cells.places_max, load.places_max.into());
        for ((counter, count), cell) in core.counters().iter().zip(&cells.counters) {
            figure(cell, count + shell.of(counter));
        }
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let cells = &self.0;
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Stats {
            nodes: usize::try_from(read(&cells.nodes)).unwrap_or(usize::MAX),
            sessions: read(&cells.sessions),
            logins_open: read(&cells.logins_open),
            places_free: read(&cells.places_free),
            places_max: read(&cells.places_max),
            counters: cells.counters.iter().map(read).collect(),
        }
    }
}
