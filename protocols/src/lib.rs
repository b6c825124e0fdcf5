//! Pure. What devices and the cluster say to one another, as bytes, both directions: one module for each protocol.
//!
//! - [`rcu`]: the cluster's own contract with devices, docs/protocol.md.
//!
//! What a record means once it is read stands in `records`; what a message means for a session, in the servers.

pub mod rcu;
