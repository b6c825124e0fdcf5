//! A connection between two processes of the skeleton: everything that a turn of the loop has to
//! say goes out in one write.
//!
//! ```text
//! 0              4      8
//! | bytes after  | id   | payload …      little-endian
//! ```

use std::io::{self, Read as _, Write as _};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::error::{BenchError, Result, Tried as _};
use crate::net::is_not_yet;

const LENGTH_BYTES: usize = 4;
const ID_BYTES: usize = 4;

pub(super) struct Link {
    stream: TcpStream,
    /// The beginning of a message whose end has not come.
    partial: Vec<u8>,
    outbox: Vec<u8>,
}

impl Link {
    pub(super) fn new(mut stream: TcpStream, registry: &Registry, token: Token) -> Result<Self> {
        stream.set_nodelay(true).tried("set nodelay")?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry
            .register(&mut stream, token, interest)
            .tried("register a link")?;
        Ok(Self {
            stream,
            partial: Vec::new(),
            outbox: Vec::new(),
        })
    }

    /// Puts a message into the next write.
    pub(super) fn queue(&mut self, id: u32, payload: &[&[u8]]) {
        let payload_bytes: usize = payload.iter().map(|part| part.len()).sum();
        let length = (ID_BYTES + payload_bytes) as u32;
        self.outbox.extend_from_slice(&length.to_le_bytes());
        self.outbox.extend_from_slice(&id.to_le_bytes());
        for part in payload {
            self.outbox.extend_from_slice(part);
        }
    }

    /// Writes what is queued, as far as the kernel takes it.
    pub(super) fn flush(&mut self) -> Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(sent) => drop(self.outbox.drain(..sent)),
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) => return Err(broken(error, "write to a link")),
            }
        }
        Ok(())
    }

    /// Reads all that is there and hands over each whole message.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        mut each: impl FnMut(u32, &[u8]) -> Result<()>,
    ) -> Result<()> {
        loop {
            let length = match self.stream.read(buffer) {
                Ok(0) => return Err(BenchError::LinkEnded),
                Ok(length) => length,
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) => return Err(broken(error, "read from a link")),
            };
            if self.partial.is_empty() {
                let taken = messages(&buffer[..length], &mut each)?;
                self.partial.extend_from_slice(&buffer[taken..length]);
            } else {
                self.partial.extend_from_slice(&buffer[..length]);
                let taken = messages(&self.partial, &mut each)?;
                self.partial.drain(..taken);
            }
        }
    }
}

fn broken(source: io::Error, what: &'static str) -> BenchError {
    match source.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => BenchError::LinkEnded,
        _ => BenchError::Io { what, source },
    }
}

/// Hands over the whole messages at the front of `bytes`; returns the bytes that they took.
fn messages(bytes: &[u8], each: &mut impl FnMut(u32, &[u8]) -> Result<()>) -> Result<usize> {
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((message, after)) = after.split_at_checked(length) else {
            break;
        };
        let Some((id, payload)) = message.split_first_chunk::<ID_BYTES>() else {
            return Err(BenchError::failed("a message without an id"));
        };
        each(u32::from_le_bytes(*id), payload)?;
        rest = after;
    }
    Ok(bytes.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_whatever_follows() {
        let mut bytes = Vec::new();
        for (id, payload) in [(1_u32, &b"one"[..]), (2, b"")] {
            bytes.extend_from_slice(&(4 + payload.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(payload);
        }
        let whole = bytes.len();
        bytes.extend_from_slice(&[9, 0, 0, 0, 7]);
        let mut seen = Vec::new();
        let taken = messages(&bytes, &mut |id, payload| {
            seen.push((id, payload.to_vec()));
            Ok(())
        });
        assert_eq!(taken.expect("well formed"), whole);
        assert_eq!(seen, [(1, b"one".to_vec()), (2, vec![])]);
    }
}
