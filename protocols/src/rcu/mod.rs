//! Pure. The contract with devices (docs/protocol.md), both directions, strict.
//!
//! ```text
//! bytes ──frame::parse──▶ Frame ──FromDevice::decode──▶ Login · Attach · Telemetry · …
//!                                                        Telemetry::records ──▶ RawRecord
//!                                                        Record::decode     ──▶ Gps · Fuel · … or a Flaw
//! ```
//!
//! - [`frame`]: the header, its limits and its checksum; finds frames in a byte stream.
//! - [`message`]: every message as a struct, by direction; [`error`]: what a wrong one means to the cluster.
//! - [`login`], [`attach`], [`telemetry`], [`command`], [`close`]: the messages, by noun.
//! - [`code`]: statuses and reasons with their numbers and names.
//! - [`proof`]: the keyed hashes that both sides make and check.
//!
//! Decoding borrows from the frame and allocates nothing for telemetry. Encoding appends to a
//! `Vec<u8>`; a value that the format cannot hold is a bug of the caller and panics.

pub mod attach;
mod body;
pub mod close;
pub mod code;
pub mod command;
pub mod error;
pub mod frame;
pub mod login;
pub mod message;
pub mod proof;
pub mod telemetry;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod vectors;

/// The balancer's port where nothing else is configured.
pub const PORT_PLAIN: u16 = 10_000;

/// What the contract fixes about time; section 2, 3 and 5. And how long our ends of a connection outlive it.
pub mod limit {
    /// A Login, an Attach or a resumption is complete this long after the connection was accepted.
    pub const FIRST_FRAME_MS: u64 = 5_000;
    /// Either side gives the other up after this many heartbeats of silence.
    pub const SILENT_HEARTBEATS: u64 = 3;
    /// This many times `window` frames beyond the window in a row end the connection.
    pub const OVERLOADED_WINDOWS: u32 = 3;
    /// After its last word to a device a server reads on, this long and this much: to close at once would be
    /// wrong wherever the device is still sending, for the kernel answers unread bytes with a reset, and that
    /// destroys what the device has not read yet.
    pub const LINGER_MS: u64 = 1_000;
    pub const LINGER_BYTES_MAX: usize = 64 << 10;
}

/// Frame kinds, section 3 of the contract.
pub mod kind {
    pub const LOGIN: u8 = 0x01;
    pub const LOGIN_REPLY: u8 = 0x02;
    pub const ATTACH: u8 = 0x03;
    pub const ATTACH_REPLY: u8 = 0x04;
    pub const HEARTBEAT: u8 = 0x05;
    pub const HEARTBEAT_REPLY: u8 = 0x06;
    pub const TELEMETRY: u8 = 0x07;
    pub const TELEMETRY_ACK: u8 = 0x08;
    pub const RESUME: u8 = 0x09;
    pub const RESUME_CHALLENGE: u8 = 0x0A;
    pub const RESUME_PROOF: u8 = 0x0B;
    pub const COMMAND: u8 = 0x21;
    pub const COMMAND_REPLY: u8 = 0x22;
    pub const REDIRECT: u8 = 0x2D;
    pub const CLOSE: u8 = 0x2F;
}
