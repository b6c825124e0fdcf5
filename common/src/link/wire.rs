//! Pure. Messages as bytes: the only file that knows bincode, which runs after authentication, with
//! fixed-width integers and a limit.
//!
//! ```text
//! 0        4        5      13            17      25       27
//! │ length │ class  │ id   │ deadline_ms │ epoch │ number │ body …
//!   u32      u8       u64    u32           u64     u16      bincode, little-endian throughout
//! ```
//!
//! `length` counts what follows it. `number` is the message's, from `for_each_link_message!`; a
//! message that changes gets a new one, and [`VERSION`] grows.

use bincode::Options;
use serde::{Deserialize, Serialize};

use super::message::*;
use super::peer::{Class, Role};
use crate::epoch::Epoch;
use crate::ids::NodeName;

/// The link version that this build speaks, and the one before it, which it still understands.
/// They grow together when a message or the hello changes.
///
/// 2: what operators ask, with numbers from 40 on. 3: what of a session can be seen (56, 57).
pub const VERSION: u16 = 3;
pub const VERSION_OLDEST: u16 = 2;

/// Of a message with its envelope, without `length`.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Of `length`.
pub(super) const LENGTH_BYTES: usize = 4;

/// A message with what goes beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) class: Class,
    /// Of the request and its answers; 0 in a notice.
    pub(super) id: u64,
    /// How long the asker still waits; 0 but in a request.
    pub(super) deadline_ms: u32,
    /// The highest that the sender knew.
    pub(super) epoch: Epoch,
    pub(super) message: Message,
}

#[derive(Serialize, Deserialize)]
struct Header {
    class: u8,
    id: u64,
    deadline_ms: u32,
    epoch: i64,
    number: u16,
}

/// The first encrypted words of each side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The version agreed on: said again under encryption, so that nobody on the way can lower it.
    pub(super) version: u16,
    pub(super) role: Role,
    pub(super) node: NodeName,
}

/// What the listener answers to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Welcome {
    Hello(Hello),
    /// The key does not admit the role, or the listener wants none of it.
    RoleRefused,
}

/// The peer sent what this version of the link does not have.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("a message of class {0}")]
    Class(u8),
    #[error("message number {0}")]
    Number(u16),
    #[error("a negative epoch")]
    Epoch,
    #[error("a message that cannot be decoded")]
    Body(#[from] bincode::Error),
}

/// Appends `length` and all the rest.
pub(super) fn encode(envelope: &Envelope, out: &mut Vec<u8>) {
    let header = Header {
        class: match envelope.class {
            Class::Request => 0,
            Class::Answer => 1,
            Class::Notice => 2,
        },
        id: envelope.id,
        deadline_ms: envelope.deadline_ms,
        epoch: envelope.epoch.to_i64(),
        number: number(&envelope.message),
    };
    append(out, |out| {
        write(&header, out);
        write_body(&envelope.message, out);
    });
}

/// From what follows `length`.
pub(super) fn decode(bytes: &[u8]) -> Result<Envelope, WireError> {
    let mut rest = bytes;
    let header: Header = options().deserialize_from(&mut rest)?;
    Ok(Envelope {
        class: match header.class {
            0 => Class::Request,
            1 => Class::Answer,
            2 => Class::Notice,
            other => return Err(WireError::Class(other)),
        },
        id: header.id,
        deadline_ms: header.deadline_ms,
        epoch: Epoch::from_i64(header.epoch).ok_or(WireError::Epoch)?,
        message: read_body(header.number, rest)?,
    })
}

pub(super) fn encode_hello(hello: &Hello, out: &mut Vec<u8>) {
    append(out, |out| write(hello, out));
}

pub(super) fn decode_hello(bytes: &[u8]) -> Result<Hello, WireError> {
    Ok(options().deserialize(bytes)?)
}

pub(super) fn encode_welcome(welcome: &Welcome, out: &mut Vec<u8>) {
    append(out, |out| write(welcome, out));
}

pub(super) fn decode_welcome(bytes: &[u8]) -> Result<Welcome, WireError> {
    Ok(options().deserialize(bytes)?)
}

/// The number, the writer and the reader of every message, from the one list in `message.rs`.
macro_rules! codec {
    ($($number:literal $name:ident,)*) => {
        pub(super) fn number(message: &Message) -> u16 {
            match message { $(Message::$name(_) => $number,)* }
        }

        fn write_body(message: &Message, out: &mut Vec<u8>) {
            match message { $(Message::$name(body) => write(body, out),)* }
        }

        fn read_body(number: u16, body: &[u8]) -> Result<Message, WireError> {
            match number {
                $($number => Ok(Message::$name(options().deserialize(body)?)),)*
                other => Err(WireError::Number(other)),
            }
        }

        #[cfg(test)]
        const NUMBERS: &[u16] = &[$($number,)*];
    };
}
for_each_link_message!(codec);

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(MESSAGE_BYTES_MAX as u64)
}

fn write(value: &impl Serialize, out: &mut Vec<u8>) {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .serialize_into(out, value)
        .expect("a Vec takes all bytes and our messages hold nothing that serde refuses");
}

/// Writes what `body` writes behind its length. A message that is too long is our own bug: pages are bounded.
fn append(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; LENGTH_BYTES]);
    body(out);
    let length = out.len() - start - LENGTH_BYTES;
    assert!(
        length <= MESSAGE_BYTES_MAX,
        "a link message of {length} bytes"
    );
    out[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
}

#[cfg(test)]
mod tests;
