//! The clocks of one process or device. Nobody in this world shares a clock: a time of one that is
//! taken for a time of another is far off, and found.

/// Where the true wall clock stands when a run begins: 2026-01-01T00:00:00Z.
const BEGIN_UNIX_MS: u64 = 1_767_225_600_000;

/// What a clock shows is reckoned from the world's time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// When it was started, in the world's time, and what its monotonic clock showed then.
    pub started_at_ms: u64,
    pub origin_ms: u64,
    /// What its wall clock is ahead of the true time.
    pub ahead_ms: i64,
}

impl Clock {
    /// Monotonic.
    pub fn ms(&self, world_ms: u64) -> u64 {
        world_ms - self.started_at_ms + self.origin_ms
    }

    /// When its monotonic clock shows `ms`.
    pub fn world_ms(&self, ms: u64) -> u64 {
        let since_ms = ms.saturating_sub(self.origin_ms);
        self.started_at_ms.saturating_add(since_ms)
    }

    pub fn unix_ms(&self, world_ms: u64) -> u64 {
        true_unix_ms(world_ms).saturating_add_signed(self.ahead_ms)
    }
}

pub fn true_unix_ms(world_ms: u64) -> u64 {
    BEGIN_UNIX_MS + world_ms
}
