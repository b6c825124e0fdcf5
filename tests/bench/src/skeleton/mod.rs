//! The least that a full login can cost on this machine with three tiers in three processes:
//!
//! ```text
//!            Login                 batched link            batched link
//! device ───────────────▶ front ────────────────▶ conn ────────────────▶ logic
//!        ◀─── LoginReply                                                   ▲
//!        ──────────────────── Attach · AttachReply ────────────────────────┘
//! ```
//!
//! The same frames and keyed hashes as the cluster's, one mio loop a process, each link written
//! once a turn. No store, no encryption between the tiers, no limits, no deadlines: whatever is
//! slower than this pays for something that this does not do.

pub(crate) mod conn;
pub(crate) mod front;
mod link;
pub(crate) mod logic;

use std::net::SocketAddr;
use std::time::Duration;

use crate::error::Result;
use crate::process::Helper;

const START_MAX: Duration = Duration::from_secs(10);

/// The three processes, while they run.
pub(crate) struct Skeleton {
    pub(crate) front: SocketAddr,
    processes: [Helper; 3],
}

impl Skeleton {
    /// `accounts` as in the fleet.
    pub(crate) fn start(accounts: u32) -> Result<Self> {
        let logic = Helper::start(["logic"])?;
        let logic_link = logic.hear_address(START_MAX)?.to_string();
        let accounts = accounts.to_string();
        let conn = Helper::start(["conn", "--logic", &logic_link, "--accounts", &accounts])?;
        let conn_link = conn.hear_address(START_MAX)?.to_string();
        let front = Helper::start(["front", "--conn", &conn_link])?;
        Ok(Self {
            front: front.hear_address(START_MAX)?,
            processes: [front, conn, logic],
        })
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Helper::pid).collect()
    }
}
