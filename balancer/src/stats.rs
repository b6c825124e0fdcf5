//! What a running balancer tells of itself: figures that its front publishes after each turn, and
//! that anybody may read without asking it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::figures::{Published, PublishedHistogram};
use common::histogram::Histogram;
use common::ids::NodeName;
use common::link::Hub;
use common::link::message::Figures;
use common::metrics::{Gathered, Source};

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
    /// Milliseconds from a whole Login to its reply.
    pub login_ms: Histogram,
    counters: [u64; Counter::ALL.len()],
}

impl Stats {
    /// Counted since the start.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Whole Logins since the start, whatever they were answered.
    pub fn logins(&self) -> u64 {
        self.count(Counter::Logins)
    }
}

/// A balancer's figures, for the metrics of its process; outlives it.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) node: NodeName,
    pub(crate) board: Board,
    pub(crate) hub: Hub,
}

impl Source for Metrics {
    fn gather(&self, gathered: &mut Gathered) {
        let node = self.node.to_string();
        let mut figures = gathered.node("balancer", &node);
        let stats = self.board.snapshot();
        for &counter in Counter::ALL {
            figures.counter(counter.name(), counter.help(), stats.count(counter));
        }
        for (name, help, figure) in [
            (
                "pending",
                "Connections that are not done yet.",
                stats.pending,
            ),
            (
                "logins_open",
                "Logins that conn servers are deciding.",
                stats.logins_open,
            ),
            ("conn_servers", "Conn servers linked.", stats.conn_servers),
            (
                "places_free",
                "Places free behind the conn servers, by their reports.",
                stats.places_free,
            ),
            (
                "ready",
                "1: nothing is missing that a login needs.",
                self.missing().is_empty().into(),
            ),
        ] {
            figures.gauge(name, help, figure);
        }
        let help = "From a whole Login to its reply.";
        figures.histogram("login_seconds", help, stats.login_ms, 1e3);
    }

    fn missing(&self) -> Vec<String> {
        let cells = &self.board.0;
        let mut missing = vec![];
        if cells.conn_servers.load(Ordering::Relaxed) == 0 {
            missing.push(format!("{}: no conn server is linked", self.node));
            let why = self.hub.not_linked();
            missing.extend(why.iter().map(|why| format!("{}: {why}", self.node)));
        }
        if cells.ends.load(Ordering::Relaxed) {
            missing.push(format!("{}: it ends", self.node));
        }
        missing
    }
}

/// What a balancer tells of itself, for operators.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Where devices log in.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Report {
    pub(crate) fn figures(&self, stats: &Stats, uptime_ms: u64) -> Figures {
        let gauges = [
            ("pending", stats.pending),
            ("logins_open", stats.logins_open),
            ("conn_servers", stats.conn_servers),
        ];
        let counters = Counter::ALL.iter();
        let counters = counters.map(|&counter| (counter.name(), stats.count(counter)));
        let values = gauges.into_iter().chain(counters);
        Figures::new(uptime_ms, self.addresses.clone(), values)
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
    ends: AtomicBool,
    login_ms: PublishedHistogram,
    counters: Published<{ Counter::ALL.len() }>,
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
        cells.counters.publish(core.counters().figures());
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
            pending: read(&cells.pending),
            logins_open: read(&cells.logins_open),
            conn_servers: read(&cells.conn_servers),
            places_free: read(&cells.places_free),
            login_ms: cells.login_ms.read(),
            counters: cells.counters.read(),
        }
    }
}
