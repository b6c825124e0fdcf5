//! What a running conn server tells of itself: figures that its owner publishes after each turn, and
//! that anybody may read without asking it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::figures::{self, Snapshot};
use common::ids::NodeName;
use common::link::Hub;
use common::metrics::{Gathered, Source};

use crate::core::Core;
use crate::counters::{Counter, Counters, Gauge};

/// A snapshot.
pub type Stats = Snapshot<Counter, Gauge>;

/// Where the owner publishes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    pub(crate) figures: figures::Board<Counter, Gauge>,
    reads_accounts: Arc<AtomicBool>,
}

impl Board {
    /// `shell`: what was counted outside the core. `reads_accounts`: the changes of the accounts are
    /// followed.
    pub(crate) fn publish(&self, core: &Core, shell: &Counters, reads_accounts: bool) {
        self.reads_accounts.store(reads_accounts, Ordering::Relaxed);
        let mut counters = core.counters().clone();
        counters.merge(shell);
        let counters = counters.figures();
        self.figures
            .publish(|gauge| core.gauge(gauge), counters, core.login_ms());
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
        let help = "From a balancer's asking to the answer.";
        let board = &self.board.figures;
        board.gather(&mut figures, &self.missing(), help);
    }

    fn stuck(&self) -> Vec<String> {
        let stuck = self.board.figures.stuck().into_iter();
        stuck.map(|told| format!("{}: {told}", self.node)).collect()
    }

    fn missing(&self) -> Vec<String> {
        let mut missing = vec![];
        if self.board.figures.snapshot().gauge(Gauge::Nodes) == 0 {
            missing.push("no logic server takes grants".to_owned());
            missing.extend(self.hub.not_linked());
        }
        if !self.board.reads_accounts.load(Ordering::Relaxed) {
            missing.push("the accounts cannot be read".to_owned());
        }
        missing.extend(self.board.figures.is_ending().map(ToOwned::to_owned));
        let named = missing.iter().map(|why| format!("{}: {why}", self.node));
        named.collect()
    }
}
