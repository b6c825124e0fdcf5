//! What the servers of a run let in, and how fast: more than ever comes, or so little that a fleet
//! meets it.

use std::fmt;

use common::pacing::Rate;
use rand::RngExt;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

/// A regression that states none has those that are never met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Of a balancer: connections of one source, logins that are decided, and those while all is full.
    pub connections_per_source_max: usize,
    pub front_logins_open_max: usize,
    pub logins_at_full_max: usize,
    /// Of a conn server: logins that are decided, and guessed accounts that are remembered.
    pub logins_open_max: usize,
    pub guesses_max: usize,
    /// Sources that a balancer remembers, and a conn server.
    pub sources_max: usize,
    /// Of a logic server: connections that are not attached, where that is fewer than may wait anyhow.
    pub gate_connections_max: usize,
    /// Logins a second, from one source and in all, at each. 0: as many as come.
    pub front_per_source_per_s: u32,
    pub front_per_s: u32,
    pub conn_per_source_per_s: u32,
    pub conn_per_s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_source_max: 10_000,
            front_logins_open_max: 10_000,
            logins_at_full_max: 64,
            logins_open_max: 10_000,
            guesses_max: 10_000,
            sources_max: 10_000,
            gate_connections_max: 10_000,
            front_per_source_per_s: 0,
            front_per_s: 0,
            conn_per_source_per_s: 0,
            conn_per_s: 0,
        }
    }
}

impl Limits {
    /// What remembers by turns keeps two at least. One in three runs meets some: narrow for a fleet that
    /// comes at once, wide enough for it to come back within its time.
    pub fn draw(rng: &mut SmallRng, devices: u32, hostiles: u32) -> Self {
        let wide = Self::default();
        if !rng.random_ratio(1, 3) {
            return wide;
        }
        // Who does not keep the contract does not wait until its turn comes either.
        let per_s = (2 + devices / 10 + 2 * hostiles) as usize;
        let devices = devices as usize;
        // Of those that come at once.
        let few = 2 + devices / 8;
        let mut narrow = |wide: usize, least: usize, most: usize| {
            let drawn = rng.random_range(least..=most.max(least));
            if rng.random_ratio(1, 3) { drawn } else { wide }
        };
        Self {
            connections_per_source_max: narrow(wide.connections_per_source_max, 1, 4),
            front_logins_open_max: narrow(wide.front_logins_open_max, few, 2 * few),
            logins_at_full_max: narrow(wide.logins_at_full_max, 1, 4),
            logins_open_max: narrow(wide.logins_open_max, few, 2 * few),
            guesses_max: narrow(wide.guesses_max, 2, devices),
            sources_max: narrow(wide.sources_max, 2, devices),
            gate_connections_max: wide.gate_connections_max,
            front_per_source_per_s: narrow(0, 1, 2) as u32,
            front_per_s: narrow(0, per_s, per_s + devices / 4) as u32,
            conn_per_source_per_s: narrow(0, 1, 2) as u32,
            conn_per_s: narrow(0, per_s, per_s + devices / 4) as u32,
        }
    }
}

/// So many a second, one at once. 0: as many as come.
pub fn pace(per_s: u32) -> Rate {
    match per_s {
        0 => Rate::UNLIMITED,
        per_s => Rate { per_s, burst: 1 },
    }
}

/// Those that are narrow.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = Self::default();
        let all = [
            (
                "connections of a source",
                self.connections_per_source_max,
                wide.connections_per_source_max,
            ),
            (
                "logins at a balancer",
                self.front_logins_open_max,
                wide.front_logins_open_max,
            ),
            (
                "when all is full",
                self.logins_at_full_max,
                wide.logins_at_full_max,
            ),
            (
                "at a conn server",
                self.logins_open_max,
                wide.logins_open_max,
            ),
            ("guesses", self.guesses_max, wide.guesses_max),
            ("sources", self.sources_max, wide.sources_max),
            (
                "connections at a logic server",
                self.gate_connections_max,
                wide.gate_connections_max,
            ),
            (
                "a second of a source at a balancer",
                self.front_per_source_per_s as usize,
                0,
            ),
            ("a second at a balancer", self.front_per_s as usize, 0),
            (
                "a second of a source at a conn server",
                self.conn_per_source_per_s as usize,
                0,
            ),
            ("a second at a conn server", self.conn_per_s as usize, 0),
        ];
        let narrow = all.iter().filter(|(_, limit, wide)| limit != wide);
        let narrow: Vec<_> = narrow
            .map(|(what, limit, _)| format!("{limit} {what}"))
            .collect();
        match narrow.is_empty() {
            true => f.write_str("no narrow limits"),
            false => write!(f, "limits: {}", narrow.join(", ")),
        }
    }
}
