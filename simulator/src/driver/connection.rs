//! A socket of a device: non-blocking, from the device's own source address.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::device::ConnId;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    stream: TcpStream,
    connected: bool,
    /// What the kernel has not taken yet.
    unsent: Vec<u8>,
}

/// What a readiness event says of a connection that was being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Connecting,
    /// With this event.
    Connected,
    /// Before it.
    Open,
}

impl Connection {
    /// Begins to connect, from `source` where one is given.
    pub(super) fn open(
        id: ConnId,
        address: SocketAddr,
        source: Option<SocketAddr>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            bind(&socket, source)?;
        }
        match socket.connect(&address.into()) {
            Err(error) if !is_under_way(&error) => return Err(error),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            id,
            stream,
            connected: false,
            unsent: Vec::new(),
        })
    }

    pub(super) fn progress(&mut self) -> io::Result<Progress> {
        if self.connected {
            return Ok(Progress::Open);
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.connected = true;
                Ok(Progress::Connected)
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(Progress::Connecting),
            Err(error) => Err(error),
        }
    }

    /// Some bytes, none where there are none yet; an error is the end, and so is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends in one piece where the kernel takes it, and keeps the rest.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = if self.unsent.is_empty() {
            self.write(bytes)?
        } else {
            0
        };
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Sends what was kept.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let unsent = std::mem::take(&mut self.unsent);
        let sent = self.write(&unsent)?;
        if sent < unsent.len() {
            self.unsent = unsent;
            self.unsent.drain(..sent);
        }
        Ok(())
    }

    /// How much the kernel took.
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len();
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(length - bytes.len())
    }
}

/// Where only 127.0.0.1 is a loopback address, all devices share it.
fn bind(socket: &Socket, source: SocketAddr) -> io::Result<()> {
    match socket.bind(&source.into()) {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Ok(()),
        bound => bound,
    }
}

fn is_under_way(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::INPROGRESS)
}
