//! The measurements, one file each; every one returns its lines of the table.
//!
//! - [`machine`]: how fast the machine is at what servers do most.
//! - [`logins`] G1 · [`memory`] G2 · [`frames`] G3, G4 · [`crates`] G3, G4, G5, G7 · [`idle`] G11
//! - [`isolation`] P7

pub(crate) mod crates;
pub(crate) mod frames;
pub(crate) mod idle;
pub(crate) mod isolation;
pub(crate) mod logins;
pub(crate) mod machine;
pub(crate) mod memory;

use std::path::PathBuf;

use crate::cluster::Site;
use crate::error::Result;
use crate::report::Standard;

/// Frames one by one, of a bare loop.
const G3: Standard = Standard::ShareOfLimit {
    goal: 0.85,
    refused_below: 0.70,
};
/// Frames in bursts of 16, of a bare loop.
const G4: Standard = Standard::ShareOfLimit {
    goal: 0.70,
    refused_below: 0.50,
};

/// How the measurements are made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The release build of `rcu`. `None`: limits and the logic server alone are measured.
    pub(crate) rcu: Option<PathBuf>,
    /// Where criterion left its estimates of this run.
    pub(crate) criterion: PathBuf,
    /// Shorter and fewer runs: to see whether it works, not to quote.
    pub(crate) quick: bool,
}

impl Plan {
    /// A place for clusters, with accounts; `None` where no cluster is measured.
    fn site(&self, accounts: u32) -> Result<Option<Site>> {
        self.rcu
            .as_ref()
            .map(|rcu| Site::new(rcu, accounts))
            .transpose()
    }
}

/// Blocks of source addresses, 127.BLOCK.0.0/16: one for each load that may run beside another.
mod block {
    pub(super) const STORM: u8 = 101;
    pub(super) const FRAMES: u8 = 102;
    pub(super) const IDLE_CLUSTER: u8 = 103;
    pub(super) const IDLE_ALONE: u8 = 104;
    pub(super) const IDLE_BARE: u8 = 105;
    pub(super) const IDLE_BROKER: u8 = 108;
    pub(super) const QUIET: u8 = 106;
    pub(super) const PEER: u8 = 107;
}
