//! Tier 1, the front door: one Login in, one LoginReply out.
//!
//! ```text
//! accept ──▶ connection ── Login ──▶ front ──▶ route (pure) ──▶ conn server
//!            one task per device ◀── LoginReply ── front ◀── answer
//! ```
//!
//! Pure: [`route`] decides everything about a login, with [`pending`] (how many connections, and
//! which goes first) and [`conns`] (which conn server); [`visit`] decides about one connection, with
//! [`intake`], which judges a device's first bytes.
//! The shells [`node`], `front`, `accept` and `connection` move bytes.

mod accept;
pub mod config;
mod connection;
pub mod conns;
pub mod counters;
mod door;
mod front;
pub mod intake;
pub mod node;
pub mod pending;
pub mod route;
pub mod settings;
pub mod stats;
pub mod visit;

pub use config::Config;
pub use node::{Balancer, StartError};
pub use settings::Settings;
