//! What a running conn server tells of itself: figures that its owner publishes after each turn, and
//! that anybody may read without asking it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::figures::{Published, PublishedHistogram, Round};
use common::histogram::Histogram;
use common::ids::NodeName;
use common::link::Hub;
use common::metrics::{Gathered, Source};
use common::millis::millis;
use tokio::time::Instant;

use crate::core::Core;
use crate::counters::{Counter, Counters, Gauge};

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Milliseconds from a balancer's asking to the answer.
    pub login_ms: Histogram,
    gauges: [u64; Gauge::ALL.len()],
    counters: [u64; Counter::ALL.len()],
}

impl Stats {
    /// Counted since the start.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize]
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
        for &gauge in Gauge::ALL {
            figures.gauge(gauge.name(), gauge.help(), stats.gauge(gauge));
        }
        figures.ready(&self.missing());
        let help = "From a balancer's asking to the answer.";
        figures.histogram("login_seconds", help, stats.login_ms, 1e3);
    }

    fn stuck(&self) -> Vec<String> {
        let cells = &self.board.0;
        let stuck = cells
            .round
            .stuck("the loop", millis(cells.started.elapsed()));
        let told = stuck.map(|told| format!("{}: {told}", self.node));
        told.into_iter().collect()
    }

    fn missing(&self) -> Vec<String> {
        let cells = &self.board.0;
        let mut missing = vec![];
        if cells.gauges.read()[Gauge::Nodes as usize] == 0 {
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
#[derive(Clone, Debug)]
pub(crate) struct Board(Arc<Cells>);

#[derive(Debug)]
struct Cells {
    /// From when on the loop counts its milliseconds.
    started: Instant,
    round: Round,
    gauges: Published<{ Gauge::ALL.len() }>,
    reads_accounts: AtomicBool,
    ends: AtomicBool,
    login_ms: PublishedHistogram,
    counters: Published<{ Counter::ALL.len() }>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Cells {
            started: Instant::now(),
            round: Round::default(),
            gauges: Published::default(),
            reads_accounts: AtomicBool::default(),
            ends: AtomicBool::default(),
            login_ms: PublishedHistogram::default(),
            counters: Published::default(),
        }))
    }

    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    pub(crate) fn round(&self) -> &Round {
        &self.0.round
    }

    /// `shell`: what was counted outside the core. `reads_accounts`: the changes of the accounts are
    /// followed.
    pub(crate) fn publish(&self, core: &Core, shell: &Counters, reads_accounts: bool) {
        let cells = &self.0;
        cells
            .gauges
            .publish(&Gauge::figures(|gauge| core.gauge(gauge)));
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
        Stats {
            login_ms: cells.login_ms.read(),
            gauges: cells.gauges.read(),
            counters: cells.counters.read(),
        }
    }
}
