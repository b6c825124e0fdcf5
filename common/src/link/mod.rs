//! Messages between the tiers, and the encrypted connection that carries them.

pub mod message;
