//! Pure. How long what was looked up may be used.
//!
//! An entry is as good as the table while the changes are followed, since each change drops its
//! entry. When following stalls, an entry is used for `ALONE_MS` at most: the bound within which a
//! change is in effect everywhere.

/// The changes count as followed for so long after they were last read.
const IN_STEP_MS: u64 = 2_000;

/// How old an entry may be that no follower vouches for.
const ALONE_MS: u64 = 5_000;

#[derive(Clone, Copy, Debug, Default)]
pub struct Freshness {
    /// When the changes were last read.
    in_step_at_ms: Option<u64>,
}

impl Freshness {
    /// All changes until now were told.
    pub fn in_step(&mut self, now_ms: u64) {
        self.in_step_at_ms = Some(now_ms);
    }

    /// Whether an entry may be used that was looked up then.
    pub fn vouches_for(&self, looked_up_at_ms: u64, now_ms: u64) -> bool {
        let in_step = self
            .in_step_at_ms
            .is_some_and(|at_ms| now_ms < at_ms + IN_STEP_MS);
        in_step || now_ms < looked_up_at_ms + ALONE_MS
    }

    /// Whether the changes were read within the time in which every change takes effect.
    pub fn follows(&self, now_ms: u64) -> bool {
        self.in_step_at_ms
            .is_some_and(|at_ms| now_ms < at_ms + ALONE_MS)
    }
}
