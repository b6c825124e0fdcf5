//! Pure. Something that should work and does not, tried again and again: a line when it begins, one a
//! minute while it lasts, with how often it failed in between, and one when it is over.
//!
//! ```text
//! fails ─▶ told (1) ─ fails … fails ─▶ after a minute: told (63) ─ … ─ works ─▶ told
//! ```

/// Between two lines of one outage.
pub const TOLD_EVERY_MS: u64 = 60_000;

/// Of one thing that is tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outage {
    /// `None`: it worked the last time.
    told_at_ms: Option<u64>,
    /// Since the last line.
    failed: u64,
}

impl Outage {
    /// It failed. `Some`: it is to be told now, and so often it failed since the last line, this time
    /// counted in.
    pub fn failed(&mut self, now_ms: u64) -> Option<u64> {
        self.failed += 1;
        let is_told = |at_ms| now_ms < at_ms + TOLD_EVERY_MS;
        if self.told_at_ms.is_some_and(is_told) {
            return None;
        }
        self.told_at_ms = Some(now_ms);
        Some(std::mem::take(&mut self.failed))
    }

    /// It worked. `Some`: that is to be told, and so often it failed since the last line.
    pub fn worked(&mut self) -> Option<u64> {
        let over = std::mem::take(self);
        over.told_at_ms.map(|_| over.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_at_once_then_each_minute_with_its_failures_and_at_its_end() {
        let mut outage = Outage::default();
        assert_eq!(outage.worked(), None, "nothing was told");
        let failing = (0..=150).map(|second| 7_000 + second * 1_000);
        let told: Vec<_> = failing
            .filter_map(|now_ms| outage.failed(now_ms).map(|times| (now_ms, times)))
            .collect();
        assert_eq!(told, [(7_000, 1), (67_000, 60), (127_000, 60)]);
        assert_eq!(outage.worked(), Some(30));
        assert_eq!(outage.worked(), None, "once");
        assert_eq!(
            outage.failed(157_001),
            Some(1),
            "the next one is told at once"
        );
        assert_eq!(outage.worked(), Some(0));
    }
}
