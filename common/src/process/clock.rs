//! The machine's wall clock, and whether it can be right. A server with a wrong one refuses every device for its
//! clock (`clock_skew`), dates what it stores wrongly, and may move devices to epochs of the future.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::millis::millis;

/// 2026-01-01, before this was released: a machine that says less has lost its clock.
const RELEASED_UNIX_S: u64 = 1_767_225_600;

/// 2126-01-01: nobody runs this program so late.
const LATEST_UNIX_S: u64 = 4_922_899_200;

/// 0 before 1970.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, millis)
}

/// What is wrong with the clock of this machine, as a mistake of a configuration is told.
pub fn mistake() -> Option<String> {
    mistake_at(unix_ms() / 1_000)
}

fn mistake_at(unix_s: u64) -> Option<String> {
    let what = match unix_s {
        ..RELEASED_UNIX_S => "before this program was made",
        LATEST_UNIX_S.. => "a hundred years after this program was made",
        _ => return None,
    };
    Some(format!(
        "the clock of this machine says {unix_s} s after 1970-01-01 00:00 UTC, which is {what}: set it \
         (date, timedatectl set-ntp true), and start again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_can_be_right_is_taken() {
        assert_eq!(mistake(), None);
        for wrong in [0, 86_400, RELEASED_UNIX_S - 1, LATEST_UNIX_S, u64::MAX] {
            let told = mistake_at(wrong);
            assert!(told.is_some_and(|told| told.contains("timedatectl")));
        }
        assert_eq!(mistake_at(RELEASED_UNIX_S), None);
        assert_eq!(mistake_at(LATEST_UNIX_S - 1), None);
    }
}
