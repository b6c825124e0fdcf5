//! One read, one write, and a session's socket.

use std::io::{self, Read, Write};

use mio::event::Event;
use mio::net::TcpStream;

use crate::wire::output::Output;
use crate::wire::{self, Reading};

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

impl wire::Sink for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        write(self, bytes)
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
    output: Output,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            closed: false,
            queued: false,
            output: Output::default(),
        }
    }

    /// Sends, and keeps what the kernel does not take. Returns the bytes that wait now; `None`:
    /// the device went.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Option<usize> {
        self.output.send(bytes, &mut self.stream)
    }

    /// Goes on where the kernel was full. Returns whether that was the last of what waited; `None`: the device went.
    pub(super) fn flush(&mut self) -> Option<bool> {
        self.output.flush(&mut self.stream)
    }

    /// The socket and what it still has to send.
    pub(super) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.output.into_rest())
    }
}
