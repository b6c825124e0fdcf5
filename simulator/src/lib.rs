//! A device, and thousands of them; the checker that compares what they sent with what is stored.
//!
//! - [`device`]: one device, pure.

pub mod device;
pub mod history;
