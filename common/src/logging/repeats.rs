//! Pure. Lines that anybody can cause, or that come again and again for one cause: what was told is not
//! told again for a while, only so much in a second, and what is left out is counted.

use std::collections::HashMap;
use std::hash::Hash;

use super::outage::TOLD_EVERY_MS;

/// How much is told, of all causes: strangers make up as many as they like. It also bounds how many are
/// remembered.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Until the same cause is told again.
    again_after_ms: u64,
    lines_a_second: u32,
}

const FOR_OPERATORS: Pace = Pace {
    again_after_ms: TOLD_EVERY_MS,
    lines_a_second: 1,
};

/// Whoever turned debug on waits for a certain device, which tries every few seconds.
const AT_DEBUG: Pace = Pace {
    again_after_ms: 1_000,
    lines_a_second: 50,
};

/// Of one kind of line. `C` tells one cause from another.
#[derive(Clone, Debug)]
pub struct Repeats<C> {
    pace: Pace,
    /// Of the last [`Pace::again_after_ms`].
    told_at_ms: HashMap<C, u64>,
    /// The second that is running.
    second_since_ms: u64,
    lines: u32,
    untold: u64,
}

impl<C> Default for Repeats<C> {
    fn default() -> Self {
        Self::new(FOR_OPERATORS)
    }
}

impl<C> Repeats<C> {
    /// For lines below INFO.
    pub fn at_debug() -> Self {
        Self::new(AT_DEBUG)
    }

    fn new(pace: Pace) -> Self {
        Self {
            pace,
            told_at_ms: HashMap::new(),
            second_since_ms: 0,
            lines: 0,
            untold: 0,
        }
    }
}

impl<C: Eq + Hash> Repeats<C> {
    /// It happened again. `Some`: it is to be told, and so many since the last line were not.
    pub fn tell(&mut self, cause: C, now_ms: u64) -> Option<u64> {
        if now_ms >= self.second_since_ms + 1_000 {
            self.second_since_ms = now_ms;
            self.lines = 0;
        }
        let is_flood = self.lines >= self.pace.lines_a_second;
        let again_after_ms = self.pace.again_after_ms;
        let is_recent = |at_ms: u64| now_ms < at_ms + again_after_ms;
        if is_flood || self.told_at_ms.get(&cause).copied().is_some_and(is_recent) {
            self.untold += 1;
            return None;
        }
        self.told_at_ms.retain(|_, at_ms| is_recent(*at_ms));
        self.told_at_ms.insert(cause, now_ms);
        self.lines += 1;
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

    #[test]
    fn at_debug_each_try_of_a_device_is_told_and_a_flood_is_fifty_lines_a_second() {
        let mut repeats = Repeats::at_debug();
        assert_eq!(repeats.tell(1, 0), Some(0));
        assert_eq!(repeats.tell(1, 500), None);
        assert_eq!(repeats.tell(1, 1_500), Some(1));
        let told = (10_000..20_000).filter(|ms| repeats.tell(*ms, *ms).is_some());
        assert_eq!(told.count(), 500);
        assert!(repeats.told_at_ms.len() <= 100);
    }
}
