//! The load: one thread that plays many devices. The same code drives the cluster and whatever is
//! measured beside it, so that what it costs is the same on both sides.
//!
//! - [`exchange`]: one full login as bytes in, bytes out.
//! - [`sources`]: the addresses that connections come from.
//! - [`connect`]: a connection from such an address.
//! - [`logins`]: N slots, each with a full login under way.
//! - [`grants`], [`attach`]: sessions on a logic server that is measured alone.
//! - [`storm`]: logins as fast as they go, and what each cost the servers.
//! - [`idle`]: sessions that only heartbeat, in a process of their own.
//! - [`frames`]: telemetry as fast as it is acknowledged.
//! - [`quiet`]: sessions that heartbeat at an even pace, and how long each waits.
//! - [`peers`]: those that cost a server as much as they can.

pub(crate) mod attach;
pub(crate) mod connect;
pub(crate) mod exchange;
pub(crate) mod frames;
pub(crate) mod grants;
pub(crate) mod idle;
pub(crate) mod logins;
pub(crate) mod peers;
pub(crate) mod quiet;
pub(crate) mod sources;
pub(crate) mod storm;
