//! What a process shows to Prometheus, and whether it is ready: an HTTP port of three pages.
//!
//! ```text
//! tier ─ figures of its threads ─┐
//! tier ─ figures of its threads ─┼─ gathered when somebody asks ─▶ /metrics
//! the log's figures ─────────────┘                               ─▶ /readyz: what is missing
//!                                                                ─▶ /healthz: what stands still
//! ```
//!
//! Nothing is kept for the pages: a figure costs its thread a store, and the text is made when it is
//! asked for. Every name begins with `rcu_` and the tier, every series has the labels `tier` and
//! `node`, since several nodes may share a process; there is no other label but a histogram's `le`
//! and the code of an event. So the number of series is that of the figures times that of the nodes,
//! whatever devices do.

mod gathered;
mod page;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Deserialize;

pub use gathered::{Gathered, NodeFigures};
pub use server::{ListenError, Server};

use crate::link::is_public;

/// The table `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Where the pages are; `None`: nowhere.
    #[serde(deserialize_with = "crate::config::address")]
    pub listen: Option<SocketAddr>,
    /// Lets `listen` be an address that the whole world may reach.
    pub listen_publicly: bool,
}

impl MetricsSettings {
    /// Where it listens, with its key in the whole file.
    pub fn listened(&self) -> Option<(&'static str, SocketAddr)> {
        self.listen.map(|address| ("metrics.listen", address))
    }

    /// What is wrong, each beginning with its key.
    pub fn check(&self) -> Vec<String> {
        match self.listen {
            Some(address) if is_public(address.ip()) && !self.listen_publicly => vec![format!(
                "listen: {address} is a public address, and everybody may read the metrics: choose a \
                 private one, or set listen_publicly"
            )],
            _ => vec![],
        }
    }
}

/// Somebody who has figures: a tier that runs, or the log.
pub trait Source: std::fmt::Debug + Send + Sync {
    /// All figures of now.
    fn gather(&self, gathered: &mut Gathered);

    /// What has stood still for too long, so that only a new start helps; empty: all is alive.
    fn stuck(&self) -> Vec<String> {
        vec![]
    }

    /// What a login or a record needs and this one lacks; empty: it is ready.
    fn missing(&self) -> Vec<String> {
        vec![]
    }
}

/// All that a process shows.
type Sources = Arc<[Box<dyn Source>]>;
