//! Tier 3: the long connections.
//!
//! - [`adapter`], [`ask`], [`gate`], [`shard`], [`batch`], [`presence`], [`writer`]: the decisions, pure; [`wheel`], [`wire`],
//!   [`reading`] and [`counters`] serve them, [`ids`] names what they speak of.
//! - [`node`] starts and stops what carries them out: `driver`, the loops that own the sockets;
//!   `control`, the links to conn servers; `writer_task` and [`store`], the database. `loops` is
//!   how threads and writer come and go together; `clock`, `sync` and `threads` are what they
//!   have of the world but sockets, so that `tests/interleavings` can put its own there.

pub mod adapter;
pub mod ask;
pub mod batch;
mod bind;
mod clock;
pub mod config;
mod control;
pub mod counters;
mod driver;
pub mod gate;
pub mod ids;
mod loops;
mod mailbox;
pub mod node;
pub mod presence;
pub mod reading;
pub mod settings;
pub mod shard;
pub mod stats;
pub mod store;
mod sync;
mod threads;
pub mod wheel;
pub mod wire;
pub mod writer;
mod writer_task;

// The memory goal counts it once for every session; in debug builds mio adds to it.
const _: () = assert!(cfg!(debug_assertions) || driver::SOCKET_BYTES <= 16);

pub use config::Config;
pub use node::{Addresses, Hurry, LogicServer, StartError};
pub use settings::Settings;
pub use stats::Stats;
