//! A device, and thousands of them; the checker that compares what they sent with what is stored.
//!
//! - [`device`]: one device of the contract, pure: what happened in, what to do out.
//! - [`drive`]: what its sensors say, pure.
//! - [`keys`]: who the devices are.
//! - [`driver`]: a fleet of them over real sockets, in one thread.
//! - [`history`]: what each remembers of its records.
//! - [`checker`]: the judge.

pub mod checker;
pub mod device;
pub mod digest;
pub mod drive;
pub mod driver;
pub mod history;
pub mod keys;
