//! A server's end of a stream, as the product's own rules about output and parting see it.

use logic_server::wire::output::Output;
use logic_server::wire::{Reading, Sink, Wire};

use crate::network::{Delivery, Network, Read, Side, Stream};

/// What a loop reads away at a time of a connection on its way out.
const AWAY_BYTES: usize = 4_096;

/// A session's socket.
#[derive(Debug)]
pub struct Socket {
    pub stream: Stream,
    pub output: Output,
}

impl Socket {
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            output: Output::default(),
        }
    }
}

/// The network as the kernel of a server offers it for one stream.
#[derive(Debug)]
pub struct Kernel<'a> {
    pub network: &'a mut Network,
    pub deliveries: &'a mut Vec<Delivery>,
    pub stream: Stream,
    pub now_ms: u64,
}

impl Sink for Kernel<'_> {
    fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        self.network.write(
            self.stream,
            Side::Server,
            bytes,
            self.now_ms,
            self.deliveries,
        )
    }
}

impl Wire for Kernel<'_> {
    fn shut_down_writing(&mut self) -> Option<()> {
        self.network
            .shut_down(self.stream, Side::Server, self.now_ms, self.deliveries)
    }

    fn read_away(&mut self) -> Reading {
        let read = self.network.read(
            self.stream,
            Side::Server,
            AWAY_BYTES,
            self.now_ms,
            self.deliveries,
        );
        match read {
            Read::Bytes(bytes) => Reading::Bytes(bytes.len()),
            Read::Nothing => Reading::Nothing,
            Read::End | Read::Reset => Reading::Gone,
        }
    }
}
