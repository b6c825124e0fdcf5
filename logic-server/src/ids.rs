//! Pure. By which names gate, shards and drivers speak of the same thing, and the time of a turn.

use std::fmt;

/// A session on this node: chosen by the gate, never used twice while the process lives, so that
/// what comes late for an old session is never taken for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a shard's driver keeps the socket of a session: small, dense, used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which loop of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardIndex(pub u16);

/// Which listener of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerIndex(pub u8);

impl ListenerIndex {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where the gate's driver keeps a connection that is not attached: small, dense, used again
/// after the gate has let go of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u32);
