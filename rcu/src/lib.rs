//! What the command does without a cluster: it explains frames. A library, so that a fuzz target
//! can call it, with what it shares with the rest.

pub mod columns;
pub mod explain;
