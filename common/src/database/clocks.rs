//! Pure. Whether the clock of this machine and that of the database's agree.
//!
//! ```text
//!  ours      asked ───────────────── answered
//!  theirs          ╰─ read somewhen ─╯  so what lies between the two differs by nothing
//! ```

/// What two clocks that follow a time server never differ by.
const TOLERATED_MS: u64 = 5_000;

/// By how many seconds the database is ahead (below 0: behind), where that is more than two clocks may
/// differ. `database_ms` is what it said, between the two times of ours; all are Unix milliseconds.
pub(super) fn difference_s(database_ms: i64, [asked_ms, answered_ms]: [u64; 2]) -> Option<i64> {
    let [asked_ms, answered_ms] = [asked_ms, answered_ms].map(u64::cast_signed);
    let nearest_ms = database_ms.clamp(asked_ms, answered_ms.max(asked_ms));
    let ahead_ms = database_ms.saturating_sub(nearest_ms);
    (ahead_ms.unsigned_abs() > TOLERATED_MS).then_some(ahead_ms / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_differ_by_what_the_way_to_the_database_does_not_explain() {
        for (database_ms, expected) in [
            (100_000, None),
            (107_000, None),
            (112_000, None),
            (112_001, Some(5)),
            (95_000, None),
            (94_999, Some(-5)),
            (3_707_000, Some(3_600)),
        ] {
            let difference_s = difference_s(database_ms, [100_000, 107_000]);
            assert_eq!(difference_s, expected, "{database_ms}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_meanwhile_is_no_reason_to_fail() {
        assert_eq!(difference_s(100_000, [100_000, 50_000]), None);
    }
}
