//! Pure. Lines that anybody can cause: one in so long, which says how many were left out.

/// Between two lines.
const SILENT_MS: u64 = 1_000;

/// Of one kind of line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seldom {
    told_at_ms: Option<u64>,
    untold: u64,
}

impl Seldom {
    /// Something happened again. `Some`: it is to be told, and so many since the last line were not.
    pub fn tell(&mut self, now_ms: u64) -> Option<u64> {
        let is_silent = |at_ms| now_ms < at_ms + SILENT_MS;
        if self.told_at_ms.is_some_and(is_silent) {
            self.untold += 1;
            return None;
        }
        self.told_at_ms = Some(now_ms);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_that_counts_the_others() {
        let mut seldom = Seldom::default();
        let told: Vec<_> = (0..2_500).filter_map(|ms| seldom.tell(ms)).collect();
        assert_eq!(told, [0, 999, 999]);
        assert_eq!(seldom.tell(10_000), Some(499));
        assert_eq!(seldom.tell(11_000), Some(0));
    }
}
