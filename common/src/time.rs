//! Pure. The time of a turn: read once, and the same for everything that happens in it.

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic milliseconds since a start of the driver's choice; what every time-out counts in.
    pub ms: u64,
    /// Unix milliseconds; stored, shown and compared with the device's.
    pub unix_ms: u64,
}

impl Now {
    /// What is left until then; 0 when it is over.
    pub fn until(self, at_ms: u64) -> u32 {
        u32::try_from(at_ms.saturating_sub(self.ms)).unwrap_or(u32::MAX)
    }
}
