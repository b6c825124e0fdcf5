//! Pure. Lines that anybody can cause, or that come again and again for one cause: what was told is not
//! told again for a minute, nothing more than once a second, and what is left out is counted.

use std::collections::HashMap;
use std::hash::Hash;

use super::outage::TOLD_EVERY_MS;

/// Between two lines of any cause: strangers make up as many causes as they like. It also bounds how many
/// are remembered: one for each second of [`TOLD_EVERY_MS`].
const SILENT_MS: u64 = 1_000;

/// Of one kind of line. `C` tells one cause from another.
#[derive(Clone, Debug)]
pub struct Repeats<C> {
    /// Of the last [`TOLD_EVERY_MS`].
    told_at_ms: HashMap<C, u64>,
    last_at_ms: Option<u64>,
    untold: u64,
}

impl<C> Default for Repeats<C> {
    fn default() -> Self {
        Self {
            told_at_ms: HashMap::new(),
            last_at_ms: None,
            untold: 0,
        }
    }
}

impl<C: Eq + Hash> Repeats<C> {
    /// It happened again. `Some`: it is to be told, and so many since the last line were not.
    pub fn tell(&mut self, cause: C, now_ms: u64) -> Option<u64> {
        let is_flood = self.last_at_ms.is_some_and(|at| now_ms < at + SILENT_MS);
        let is_recent = |at_ms: u64| now_ms < at_ms + TOLD_EVERY_MS;
        if is_flood || self.told_at_ms.get(&cause).copied().is_some_and(is_recent) {
            self.untold += 1;
            return None;
        }
        self.told_at_ms.retain(|_, at_ms| is_recent(*at_ms));
        self.told_at_ms.insert(cause, now_ms);
        self.last_at_ms = Some(now_ms);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_is_told_once_a_minute_with_how_often_it_was_not() {
        let mut repeats = Repeats::default();
        let told: Vec<_> = (0..150)
            .filter_map(|s| repeats.tell("wrong key", s * 1_000))
            .collect();
        assert_eq!(told, [0, 59, 59]);
    }

    #[test]
    fn another_cause_is_told_at_once_and_does_not_have_the_first_told_again() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.tell("wrong key", 0), Some(0));
        assert_eq!(repeats.tell("wrong key", 1_000), None);
        assert_eq!(repeats.tell("no route", 2_000), Some(1));
        assert_eq!(repeats.tell("wrong key", 3_000), None);
        assert_eq!(repeats.tell("no route", 4_000), None);
        assert_eq!(repeats.tell("wrong key", 60_000), Some(2));
    }

    #[test]
    fn a_flood_of_causes_is_one_line_a_second_and_is_not_remembered_for_ever() {
        let mut repeats = Repeats::default();
        let told = (0..600_000).filter_map(|ms| repeats.tell(ms, ms));
        let (lines, untold) = told.fold((0, 0), |(lines, all), untold| (lines + 1, all + untold));
        assert_eq!((lines, untold), (600, 599 * 999));
        assert!(repeats.told_at_ms.len() <= 60);
    }
}
