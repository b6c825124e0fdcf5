//! What a running conn server tells of itself: figures that its owner publishes after each turn, and
//! that anybody may read without asking it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::figures::{Published, PublishedHistogram};
use common::histogram::Histogram;
use common::ids::NodeName;
use common::link::Hub;
use common::metrics::{Gathered, Source};

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
    /// Milliseconds from a balancer's asking to the answer.
    pub login_ms: Histogram,
    counters: [u64; Counter::ALL.len()],
}

impl Stats {
    /// Counted since the start.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Logins since the start, whatever they were answered.
    pub fn logins(&self) -> u64 {
        self.count(Counter::Logins)
    }
}

/// A conn server's figures, for the metrics of its process; outlives it.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) node: NodeName,
    pub(crate) board: Board,
    pub(crate) hub: Hub,
}

impl Source for Metrics {
    fn gather(&self, gathered: &mut Gathered) {
        let node = self.node.to_string();
        let mut figures = gathered.node("conn_server", &node);
        let stats = self.board.snapshot();
        for &counter in Counter::ALL {
            figures.counter(counter.name(), counter.help(), stats.count(counter));
        }
        for (name, help, figure) in [
            (
                "nodes",
                "Logic servers that take grants.",
                stats.nodes as u64,
            ),
            (
                "sessions",
                "Accounts with a session on the logic servers.",
                stats.sessions,
            ),
            (
                "logins_open",
                "Logins that are being decided.",
                stats.logins_open,
            ),
            (
                "places_free",
                "Places free on the logic servers that take grants.",
                stats.places_free,
            ),
            (
                "places_max",
                "Places of the logic servers that take grants.",
                stats.places_max,
            ),
            (
                "ready",
                "1: nothing is missing that a login needs.",
                self.missing().is_empty().into(),
            ),
        ] {
            figures.gauge(name, help, figure);
        }
        let help = "From a balancer's asking to the answer.";
        figures.histogram("login_seconds", help, stats.login_ms, 1e3);
    }

    fn missing(&self) -> Vec<String> {
        let cells = &self.board.0;
        let mut missing = vec![];
        if cells.nodes.load(Ordering::Relaxed) == 0 {
            missing.push(format!("{}: no logic server takes grants", self.node));
            let why = self.hub.not_linked();
            missing.extend(why.iter().map(|why| format!("{}: {why}", self.node)));
        }
        if !cells.reads_accounts.load(Ordering::Relaxed) {
            missing.push(format!("{}: the accounts cannot be read", self.node));
        }
        if cells.ends.load(Ordering::Relaxed) {
            missing.push(format!("{}: it ends", self.node));
        }
        missing
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
    reads_accounts: AtomicBool,
    ends: AtomicBool,
    login_ms: PublishedHistogram,
    counters: Published<{ Counter::ALL.len() }>,
}

impl Board {
    /// `shell`: what was counted outside the core. `reads_accounts`: the changes of the accounts are
    /// followed.
    pub(crate) fn publish(&self, core: &Core, shell: &Counters, reads_accounts: bool) {
        let cells = &self.0;
        let figure = |cell: &AtomicU64, value: u64| cell.store(value, Ordering::Relaxed);
        let load = core.load();
        figure(&cells.nodes, core.desk().pool.ready() as u64);
        figure(&cells.sessions, core.desk().directory.sessions() as u64);
        figure(&cells.logins_open, load.logins_open.into());
        figure(&cells.places_free, load.places_free.into());
        figure(&cells.places_max, load.places_max.into());
        cells
            .reads_accounts
            .store(reads_accounts, Ordering::Relaxed);
        let mut counts = *core.counters().figures();
        for (count, more) in counts.iter_mut().zip(shell.figures()) {
            *count += more;
        }
        cells.counters.publish(&counts);
        cells.login_ms.publish(core.login_ms());
    }

    /// Nobody is let in any more.
    pub(crate) fn ends(&self) {
        self.0.ends.store(true, Ordering::Relaxed);
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
            login_ms: cells.login_ms.read(),
            counters: cells.counters.read(),
        }
    }
}
