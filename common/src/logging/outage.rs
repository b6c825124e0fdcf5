//! Pure. Something that should work and does not, tried again and again: a line when it begins, one a
//! minute while it lasts, with how often it failed in between, and one when it is over.
//!
//! ```text
//! fails ─▶ told (1) ─ fails … fails ─▶ after a minute: told (63) ─ … ─ works, and goes on to ─▶ told
//! ```
//!
//! It is over when it has not failed for a while: a disk that has just filled up takes one write and not
//! the next.

/// Between two lines of one trouble: whoever looks at the last minutes of a log sees what is still wrong.
pub const TOLD_EVERY_MS: u64 = 60_000;

/// What works for so long after a failure works again.
const SETTLED_MS: u64 = 5_000;

/// Of one thing that is tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outage {
    /// The last line, and the last failure. `None`: it works.
    since: Option<Since>,
    /// Since the last line.
    failed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Since {
    told_at_ms: u64,
    failed_at_ms: u64,
}

impl Outage {
    /// It failed. `Some`: it is to be told now, and so often it failed since the last line, this time
    /// counted in.
    pub fn failed(&mut self, now_ms: u64) -> Option<u64> {
        self.failed += 1;
        let told_at_ms = self.since.map(|since| since.told_at_ms);
        let told_at_ms = told_at_ms.filter(|at_ms| now_ms < at_ms + TOLD_EVERY_MS);
        self.since = Some(Since {
            told_at_ms: told_at_ms.unwrap_or(now_ms),
            failed_at_ms: now_ms,
        });
        match told_at_ms {
            Some(_) => None,
            None => Some(std::mem::take(&mut self.failed)),
        }
    }

    /// It worked. `Some`: that is to be told, and so often it failed since the last line.
    pub fn worked(&mut self, now_ms: u64) -> Option<u64> {
        self.since
            .take_if(|since| now_ms >= since.failed_at_ms + SETTLED_MS)
            .map(|_| std::mem::take(&mut self.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_at_once_then_each_minute_with_its_failures_and_at_its_end() {
        let mut outage = Outage::default();
        assert_eq!(outage.worked(6_000), None, "nothing was told");
        let failing = (0..=150).map(|second| 7_000 + second * 1_000);
        let told: Vec<_> = failing
            .filter_map(|now_ms| outage.failed(now_ms).map(|times| (now_ms, times)))
            .collect();
        assert_eq!(told, [(7_000, 1), (67_000, 60), (127_000, 60)]);
        assert_eq!(outage.worked(162_000), Some(30));
        assert_eq!(outage.worked(162_001), None, "once");
        let next = outage.failed(162_002);
        assert_eq!(next, Some(1), "the next one is told at once");
        assert_eq!(outage.worked(170_000), Some(0));
    }

    #[test]
    fn what_works_now_and_then_is_one_outage() {
        let mut outage = Outage::default();
        assert_eq!(outage.failed(0), Some(1));
        for at_ms in (1_000..=30_000).step_by(1_000) {
            assert_eq!(outage.worked(at_ms), None);
            assert_eq!(outage.failed(at_ms + 1), None);
        }
        assert_eq!(outage.worked(34_000), None, "it may fail again");
        assert_eq!(outage.worked(36_000), Some(30));
    }
}
