//! What the command does without a cluster: it explains frames. A library, so that a fuzz target
//! can call it.

pub mod explain;

/// What every command ends with: 0 done, 1 failed, 2 wrong usage (clap's own).
pub const EXIT_FAILED: u8 = 1;
