//! What a running balancer tells of itself: figures that its front publishes after each turn, and
//! that anybody may read without asking it.

use std::net::SocketAddr;

use common::figures::{self, Snapshot};
use common::ids::NodeName;
use common::link::Hub;
use common::link::message::Figures;
use common::metrics::{Gathered, Source};

use crate::counters::{Counter, Gauge};
use crate::route::Core;

/// A snapshot.
pub type Stats = Snapshot<Counter, Gauge>;

/// Where the front publishes.
pub(crate) type Board = figures::Board<Counter, Gauge>;

/// What the core counted and holds.
pub(crate) fn publish(board: &Board, core: &Core) {
    let counters = core.counters().figures();
    board.publish(|gauge| core.gauge(gauge), counters, core.login_ms());
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
        let help = "From a whole Login to its reply.";
        self.board.gather(&mut figures, &self.missing(), help);
    }

    fn stuck(&self) -> Vec<String> {
        let stuck = self.board.stuck().into_iter();
        stuck.map(|told| format!("{}: {told}", self.node)).collect()
    }

    fn missing(&self) -> Vec<String> {
        let mut missing = vec![];
        if self.board.snapshot().gauge(Gauge::ConnServers) == 0 {
            missing.push("no conn server is linked".to_owned());
            missing.extend(self.hub.not_linked());
        }
        missing.extend(self.board.is_ending().map(ToOwned::to_owned));
        let named = missing.iter().map(|why| format!("{}: {why}", self.node));
        named.collect()
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
        Figures::new(uptime_ms, self.addresses.clone(), stats.named())
    }
}
