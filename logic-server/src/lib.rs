//! Tier 3: the long connections.
//!
//! - [`gate`], [`shard`], [`batch`], [`writer`]: the decisions, pure; [`wheel`] and [`counters`]
//!   serve them, [`ids`] names what they speak of.

pub mod batch;
pub mod counters;
pub mod gate;
pub mod ids;
pub mod shard;
pub mod wheel;
pub mod writer;
