//! The contract's sections 1 to 3 as a shard has to keep them: each sentence a test, and a model.

#![allow(clippy::unwrap_used)]

pub(super) mod bench;
mod commands;
mod model;
mod sessions;
mod telemetry;
