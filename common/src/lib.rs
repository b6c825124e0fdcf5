//! What crosses a process boundary, and the shells that every process needs.
//!
//! - [`ids`], [`secret`]: names of accounts, nodes and tickets; secrets that never print.
//! - [`epoch`]: the hybrid logical clock that orders the sessions of an account.
//! - [`device`]: the contract with devices, pure, both directions.
//! - [`link`]: messages between the tiers, and the encrypted connection that carries them.

pub mod device;
pub mod epoch;
pub mod ids;
pub mod link;
pub mod secret;
