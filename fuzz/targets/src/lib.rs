//! What the fuzz targets do: plain functions of any bytes, which panic where the product does what
//! the contract or its own rules forbid. They build on stable Rust: `fuzz/fuzz_targets` hands them
//! to libFuzzer, `tests/` to the stored corpus and to fresh bytes.
//!
//! Decoders, against [`contract`], a second reading of docs/protocol.md:
//! - [`device_stream`], [`device_message`], [`record`]: what devices and cluster say to each other.
//! - [`intake`], [`explain`]: the front door's first look, and `rcu explain`.
//! - [`link`]: what processes say to one another, before and after they know each other.
//! - [`settings`]: configuration files and keys.
//!
//! Sequences of operations, each with a model beside the core:
//! - [`gate`], [`shard`], [`writer`]: the logic server.
//! - [`login`], [`pool`], [`nonces`], [`pacing`]: the conn server.
//! - [`route`]: the balancer. [`wheel`]: the timers of sessions.

#![allow(
    clippy::unwrap_used,
    reason = "a target panics where something is not as it has to be"
)]

pub mod choices;
pub mod contract;
pub mod device_message;
pub mod device_stream;
pub mod explain;
pub mod gate;
pub mod intake;
pub mod link;
pub mod login;
pub mod nonces;
pub mod pacing;
pub mod pool;
pub mod record;
pub mod route;
pub mod settings;
pub mod shard;
pub mod wheel;
pub mod writer;

/// A target: its name, which is that of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("device_message", device_message::device_message),
    ("device_stream", device_stream::device_stream),
    ("explain", explain::explain),
    ("gate", gate::gate),
    ("intake", intake::intake),
    ("link_first_flight", link::first_flight),
    ("link_message", link::message),
    ("link_stream", link::stream),
    ("login", login::login),
    ("nonces", nonces::nonces),
    ("pacing", pacing::pacing),
    ("pool", pool::pool),
    ("record", record::record),
    ("route", route::route),
    ("settings", settings::settings),
    ("shard", shard::shard),
    ("wheel", wheel::wheel),
    ("writer", writer::writer),
];
