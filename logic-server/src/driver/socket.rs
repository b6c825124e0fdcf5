//! One read, one write, and the output that the kernel did not take.

use std::io::{self, Read, Write};

use mio::event::Event;
use mio::net::TcpStream;

/// What one read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// So many bytes. The kernel may hold more where they fill the buffer; where they do not, it
    /// is drained, and an edge will tell of what comes.
    Bytes(usize),
    Nothing,
    /// The device went, or the network did.
    Gone,
}

pub(super) fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Reading {
    loop {
        return match stream.read(buffer) {
            Ok(0) => Reading::Gone,
            Ok(count) => Reading::Bytes(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Reading::Nothing,
            Err(_) => Reading::Gone,
        };
    }
}

/// How many of the bytes the kernel took; `None`: the device went.
pub(super) fn write(stream: &mut TcpStream, bytes: &[u8]) -> Option<usize> {
    loop {
        return match stream.write(bytes) {
            Ok(count) => Some(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(0),
            Err(_) => None,
        };
    }
}

/// Whether a read is worth while: bytes, the end of them, or an error that the read will tell.
pub(super) fn is_readable(event: &Event) -> bool {
    event.is_readable() || event.is_read_closed() || event.is_error()
}

/// A session's socket. There is one for every session of the node: kept small.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    /// The device has closed its side: what is left is to be read to its end.
    pub(super) closed: bool,
    /// To be read in one of the next turns: an event of it needs no read of its own.
    pub(super) queued: bool,
    /// Only while there is some.
    unsent: Option<Box<Unsent>>,
}

/// What the device has not read yet.
#[derive(Debug)]
struct Unsent {
    bytes: Vec<u8>,
    /// Of these bytes the kernel has so many.
    taken: usize,
}

/// The memory goal counts it once for every session; in debug builds mio adds to it.
const _: () = assert!(cfg!(debug_assertions) || size_of::<Socket>() <= 16);

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            closed: false,
            queued: false,
            unsent: None,
        }
    }

    /// Sends, and keeps what the kernel does not take. Returns the bytes that wait now; `None`:
    /// the device went.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Option<usize> {
        if let Some(unsent) = &mut self.unsent {
            // The kernel was full and has not said otherwise yet.
            unsent.bytes.extend_from_slice(bytes);
            return Some(unsent.bytes.len() - unsent.taken);
        }
        let taken = write(&mut self.stream, bytes)?;
        let rest = &bytes[taken..];
        if !rest.is_empty() {
            self.unsent = Some(Box::new(Unsent {
                bytes: rest.to_vec(),
                taken: 0,
            }));
        }
        Some(rest.len())
    }

    /// Goes on where the kernel was full; `None`: the device went.
    pub(super) fn flush(&mut self) -> Option<()> {
        if let Some(unsent) = &mut self.unsent {
            unsent.taken += write(&mut self.stream, &unsent.bytes[unsent.taken..])?;
            if unsent.taken == unsent.bytes.len() {
                self.unsent = None;
            }
        }
        Some(())
    }

    /// The socket and what it still has to send.
    pub(super) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        let unsent = self.unsent.map(|unsent| {
            let mut bytes = unsent.bytes;
            bytes.drain(..unsent.taken);
            bytes
        });
        (self.stream, unsent.unwrap_or_default())
    }
}
