//! Pure. What a loop does with a device's socket beyond reading frames: it keeps what the kernel
//! does not take ([`output`]), and parts so that the last frame arrives ([`goodbye`]).
//!
//! The loops of `driver` bring sockets, the simulated cluster brings streams of its own; what is
//! decided about either stands here.

pub mod goodbye;
pub mod output;

/// Where output goes: the kernel's side of a connection, which takes as much as it has room for.
pub trait Sink {
    /// How many of the bytes the kernel took; `None`: the device went.
    fn write(&mut self, bytes: &[u8]) -> Option<usize>;
}

/// A connection on its way out.
pub trait Wire: Sink {
    /// Tells the device that nothing follows; `None`: the device went.
    fn shut_down_writing(&mut self) -> Option<()>;

    /// Reads a piece of what came, and forgets it.
    fn read_away(&mut self) -> Reading;
}

/// What one read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// So many bytes. The kernel may hold more where they fill the buffer; where they do not, it
    /// is drained, and an edge will tell of what comes.
    Bytes(usize),
    Nothing,
    /// The device went, or the network did.
    Gone,
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A scripted kernel.
    #[derive(Debug, Default)]
    pub(crate) struct Script {
        /// How much it takes now.
        pub(crate) room: usize,
        pub(crate) taken: Vec<u8>,
        pub(crate) is_shut: bool,
        pub(crate) is_gone: bool,
        pub(crate) readings: VecDeque<Reading>,
    }

    impl Sink for Script {
        fn write(&mut self, bytes: &[u8]) -> Option<usize> {
            assert!(!self.is_shut, "written after it was shut down");
            let count = bytes.len().min(self.room);
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            (!self.is_gone).then_some(count)
        }
    }

    impl Wire for Script {
        fn shut_down_writing(&mut self) -> Option<()> {
            assert!(!self.is_shut, "shut down twice");
            self.is_shut = true;
            (!self.is_gone).then_some(())
        }

        fn read_away(&mut self) -> Reading {
            self.readings.pop_front().unwrap_or(Reading::Nothing)
        }
    }
}
