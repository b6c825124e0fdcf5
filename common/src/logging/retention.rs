//! Pure. To which log file a line goes, and which files go: the oldest of too many, and of too many bytes.

use std::collections::BTreeSet;

use super::line;

/// A file of a node, by the day in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DayFile {
    pub(super) name: String,
    /// Days since 1970.
    pub(super) day: u64,
    pub(super) bytes: u64,
}

/// The day of `logic-1.2026-11-22.log`; `None`: no log file of this node. Of either format, so that
/// files of the former one go too.
pub(super) fn day_of(file_name: &str, node: &str) -> Option<u64> {
    let rest = file_name.strip_prefix(node)?.strip_prefix('.')?;
    let date = rest.strip_suffix(".log").or(rest.strip_suffix(".jsonl"))?;
    if date.len() != "2026-11-22".len() {
        return None;
    }
    day_named(date)
}

/// Of 2026-11-22.
fn day_named(date: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(&format!("{date}T00:00:00Z")).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(since.as_secs() / SECONDS_PER_DAY)
}

/// The day of the time that a line begins with, in either format; else that of now.
pub(super) fn day_of_line(line: &[u8], now_unix_ms: u64) -> u64 {
    let time = line.strip_prefix(br#"{"time":""#).unwrap_or(line);
    let date = time.split_at_checked("2026-11-22".len());
    let date = date.and_then(|(date, _)| str::from_utf8(date).ok());
    date.and_then(day_named)
        .unwrap_or(now_unix_ms / 1_000 / SECONDS_PER_DAY)
}

pub(super) fn file_name(node: &str, day: u64, extension: &str) -> String {
    let date = line::day(day.saturating_mul(SECONDS_PER_DAY * 1_000));
    format!("{node}.{date}.{extension}")
}

pub(super) const SECONDS_PER_DAY: u64 = 86_400;

/// What is to be removed, so that there are the newest `days` days, today the last of them, and all together
/// have some room below `bytes_max`: else every further line would remove something. Never today's file.
///
/// Days are counted, not compared with the clock: one that jumps ahead makes no file too old. And days that
/// are to come are counted by themselves: after a jump back they are those that happened.
pub(super) fn superfluous(
    mut files: Vec<DayFile>,
    today: u64,
    days: u32,
    bytes_max: u64,
) -> Vec<DayFile> {
    let days = usize::try_from(days).unwrap_or(usize::MAX);
    let newest = |is_to_come: bool| {
        let all = files.iter().map(|file| file.day).chain([today]);
        let all: BTreeSet<u64> = all.filter(|&day| (day > today) == is_to_come).collect();
        all.into_iter().rev().take(days)
    };
    let kept: BTreeSet<u64> = newest(true).chain(newest(false)).collect();
    files.sort_by(|a, b| (a.day, &a.name).cmp(&(b.day, &b.name)));
    let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let keep_below = bytes_max / 8 * 7;
    let mut superfluous = vec![];
    for file in files {
        let is_old = !kept.contains(&file.day);
        if file.day != today && (is_old || bytes > keep_below) {
            bytes -= file.bytes;
            superfluous.push(file);
        }
    }
    superfluous
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(day: u64, bytes: u64) -> DayFile {
        DayFile {
            name: format!("x.{day}"),
            day,
            bytes,
        }
    }

    fn days_removed(files: &[DayFile], days: u32, bytes_max: u64) -> Vec<u64> {
        let gone = superfluous(files.to_vec(), 100, days, bytes_max);
        gone.into_iter().map(|file| file.day).collect()
    }

    #[test]
    fn what_is_too_old_goes_and_then_the_oldest_of_too_much() {
        let files = [file(100, 10), file(98, 10), file(99, 10), file(90, 10)];
        let none: [u64; 0] = [];
        assert_eq!(days_removed(&files, 14, 1_000), none);
        assert_eq!(days_removed(&files, 3, 1_000), [90]);
        assert_eq!(days_removed(&files, 4, 1_000), none);
        assert_eq!(days_removed(&files, 1, 1_000), [90, 98, 99]);
        // Room for 28: one of the four has to go, then a second.
        assert_eq!(days_removed(&files, 14, 32), [90, 98]);
    }

    #[test]
    fn todays_file_stays_however_large_it_is() {
        assert_eq!(days_removed(&[file(100, 1_000), file(99, 1)], 14, 64), [99]);
    }

    #[test]
    fn a_clock_that_jumps_makes_no_file_too_old() {
        let none: [u64; 0] = [];
        let long_ago = [file(60, 1), file(61, 1), file(100, 1)];
        assert_eq!(days_removed(&long_ago, 3, 1_000), none);
        assert_eq!(days_removed(&long_ago, 2, 1_000), [60]);
        let to_come = [file(100, 1), file(200, 1), file(201, 1), file(202, 1)];
        assert_eq!(days_removed(&to_come, 3, 1_000), none);
        assert_eq!(days_removed(&to_come, 2, 1_000), [200]);
    }

    #[test]
    fn a_line_goes_to_the_file_of_its_own_day() {
        let now_ms = 5 * SECONDS_PER_DAY * 1_000;
        assert_eq!(day_of_line(b"1970-01-03T23:59:59.999Z INFO", now_ms), 2);
        assert_eq!(
            day_of_line(br#"{"time":"1970-01-03T00:00:00.000Z""#, now_ms),
            2
        );
        assert_eq!(day_of_line(b"no line", now_ms), 5);
        assert_eq!(day_of_line("\u{fc}".repeat(9).as_bytes(), now_ms), 5);
        assert_eq!(file_name("logic-1", 2, "log"), "logic-1.1970-01-03.log");
    }

    #[test]
    fn only_files_of_the_node_are_looked_at() {
        assert_eq!(day_of("logic-1.1970-01-03.log", "logic-1"), Some(2));
        assert_eq!(day_of("logic-1.1970-01-03.jsonl", "logic-1"), Some(2));
        for other in [
            "logic-11.1970-01-03.log",
            "logic-1.1970-01-03.gz",
            "logic-1.1970-13-03.log",
            "logic-1.log",
            "rcu.db",
            "logic-1.1970-01-03T.log",
        ] {
            assert_eq!(day_of(other, "logic-1"), None, "{other}");
        }
    }
}
