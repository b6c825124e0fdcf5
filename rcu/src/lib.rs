//! What the command does without a cluster: it explains frames. A library, so that a fuzz target
//! can call it.

pub mod explain;
