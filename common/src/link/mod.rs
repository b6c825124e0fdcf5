//! Messages between the tiers, and the encrypted connection that carries them.

mod hub;
mod keys;
pub mod message;
mod peer;

pub use hub::{Hub, HubSettings};
pub use keys::{Key, KeyError, KeyId, Keys, read_keys, secret_from_hex, write_key};
pub use peer::{Class, LinkEvent, LinkId, Peer, Role};
