//! Pure. The hybrid logical clock that orders the sessions of an account.
//!
//! ```text
//! 63      62 ……………………………… 21   20 ……… 10   9 ……… 0
//! 0       milliseconds (42)     counter (11) node (10)
//! ```
//!
//! The sign bit stays 0, so that an epoch is a positive BIGINT in the database. 42 bits of
//! Unix milliseconds last until the year 2109. Two conn servers never make the same epoch,
//! because their node numbers differ; one conn server never makes one twice, because it starts
//! above a mark that it stored before (`epoch_marks`) and counts on when the wall clock stands or falls back.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::digits;

const NODE_BITS: u32 = 10;
const COUNTER_BITS: u32 = 11;

/// When, in the order of the whole cluster, a grant was made. The newer one is current.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

/// The sign bit of what should be an epoch is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an epoch has 63 bits")]
pub struct NoEpoch;

impl TryFrom<u64> for Epoch {
    type Error = NoEpoch;

    fn try_from(value: u64) -> Result<Self, NoEpoch> {
        i64::try_from(value)
            .map(|_| Self(value))
            .map_err(|_| NoEpoch)
    }
}

impl From<Epoch> for u64 {
    fn from(epoch: Epoch) -> Self {
        epoch.0
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        digits::serialize(&self.0, to)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value: u64 = digits::deserialize(from)?;
        Self::try_from(value).map_err(D::Error::custom)
    }
}

impl Epoch {
    pub const ZERO: Self = Self(0);

    /// From a database column; `None` for a negative one.
    pub fn from_i64(value: i64) -> Option<Self> {
        u64::try_from(value).ok().map(Self)
    }

    pub fn to_i64(self) -> i64 {
        i64::try_from(self.0).expect("the sign bit of an epoch is 0")
    }

    /// The least epoch of a wall-clock time.
    pub fn at_ms(unix_ms: u64) -> Self {
        Self((unix_ms << (NODE_BITS + COUNTER_BITS)) & (u64::MAX >> 1))
    }

    /// The Unix milliseconds that this epoch claims; ahead of the wall clock after it was set back.
    pub fn unix_ms(self) -> u64 {
        self.0 >> (NODE_BITS + COUNTER_BITS)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells conn servers apart in an epoch: 0..=1023, unique among the conn servers of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeNumber(u16);

impl NodeNumber {
    pub const MAX: u16 = (1 << NODE_BITS) - 1;

    pub fn new(number: u16) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }
}

/// Makes epochs, each greater than all that it made or heard of.
#[derive(Debug)]
pub struct EpochClock {
    node: NodeNumber,
    last: Epoch,
}

impl EpochClock {
    /// `mark` is what the clock stored before its last start: everything it ever made lies below.
    pub fn new(node: NodeNumber, mark: Epoch) -> Self {
        Self { node, last: mark }
    }

    /// The next epoch. Follows the wall clock, or counts on from the highest epoch known where
    /// that lies ahead of it.
    pub fn tick(&mut self, unix_ms: u64) -> Epoch {
        let wall = Epoch::at_ms(unix_ms).0;
        // The least value of the counter's step above `last`, with our own node number in the low bits.
        let above = ((self.last.0 >> NODE_BITS) + 1) << NODE_BITS;
        self.last = Epoch(wall.max(above) | u64::from(self.node.0));
        self.last
    }

    /// Takes note of an epoch that another process knows.
    pub fn observe(&mut self, heard: Epoch) {
        self.last = self.last.max(heard);
    }

    /// The highest epoch made or heard of; goes with every link message.
    pub fn highest(&self) -> Epoch {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(node: u16) -> EpochClock {
        EpochClock::new(NodeNumber::new(node).expect("small"), Epoch::ZERO)
    }

    #[test]
    fn epochs_grow_when_the_wall_clock_stands_or_is_set_back() {
        let mut clock = clock(3);
        let mut last = Epoch::ZERO;
        for unix_ms in [1_000, 1_000, 1_000, 400, 400, 2_000, 1_999] {
            let epoch = clock.tick(unix_ms);
            assert!(epoch > last, "{epoch} after {last}");
            last = epoch;
        }
    }

    #[test]
    fn two_nodes_never_make_the_same_epoch() {
        let (mut a, mut b) = (clock(1), clock(2));
        for _ in 0..5_000 {
            let (x, y) = (a.tick(1_000), b.tick(1_000));
            assert_ne!(x, y);
            a.observe(y);
            b.observe(x);
        }
    }

    #[test]
    fn what_was_heard_is_exceeded() {
        let (mut a, mut b) = (clock(900), clock(1));
        let ahead = a.tick(10_000_000);
        b.observe(ahead);
        assert!(b.tick(5) > ahead);
    }

    #[test]
    fn an_epoch_is_a_positive_bigint() {
        let mut clock = clock(NodeNumber::MAX);
        let epoch = clock.tick((1 << 42) - 1);
        assert_eq!(Epoch::from_i64(epoch.to_i64()), Some(epoch));
        assert_eq!(epoch.unix_ms(), (1 << 42) - 1);
        assert_eq!(Epoch::from_i64(-1), None);
        assert_eq!(Epoch::try_from(1 << 63), Err(NoEpoch));
    }
}
