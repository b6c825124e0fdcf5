//! The encrypted connections between the processes of the cluster, and what is said on them.
//!
//! ```text
//! owner task ── Hub::request, answer, notice ──▶ queue ──▶ ┌────────────┐
//!            ◀── LinkEvent: Up, Request, … Down ────────── │ connection │ ◀──▶ socket
//!                                                          └────────────┘
//! ```
//!
//! - [`message`]: what the tiers say to one another, each message with a number.
//! - `peer`: roles, what an owner hears, who may say what. `keys`: what lets a process in.
//! - `wire`: messages as bytes. `framing`: bytes as a stream of frames. `liveness`: when a link is
//!   dead. `dialler`: when it is tried again. [`stamp`]: which epochs of others count.
//! - `fuzz`: what fuzz targets do with the bytes of a link, where the feature of that name is on.
//! - `handshake`, `transport`, `connection`, `hub`: the shells around them. `call`: questions of a command.

mod call;
mod connection;
mod dialler;
mod framing;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod handshake;
mod highest;
mod hub;
mod keys;
mod liveness;
#[macro_use]
pub mod message;
mod peer;
pub mod stamp;
mod transport;
mod wire;

pub use call::{CallError, Caller, call, node_name};
pub use dialler::{ATTEMPT_MS_MAX, Dialler};
pub use hub::{HANDSHAKES_MAX, Hub, HubSettings, links_max};
pub use keys::{Key, KeyError, KeyId, Keys, read_keys, read_secret, secret_from_hex, write_key};
pub use liveness::{PAUSE_MS_MAX, SILENT_MS_MAX};
pub use peer::{Asker, Class, LinkEvent, LinkId, Peer, Role, is_public};
pub use wire::{VERSION, VERSION_OLDEST};
