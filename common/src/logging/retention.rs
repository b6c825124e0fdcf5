//! Pure. Which log files go: those that are too old, and the oldest of too many bytes.

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
    let time = humantime::parse_rfc3339(&format!("{date}T00:00:00Z")).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(since.as_secs() / SECONDS_PER_DAY)
}

pub(super) const SECONDS_PER_DAY: u64 = 86_400;

/// What is to be removed, so that no file is older than `days` days, today the first of them, and all together have some
/// room below `bytes_max`: else every further line would remove something. Never today's file.
pub(super) fn superfluous(
    mut files: Vec<DayFile>,
    today: u64,
    days: u32,
    bytes_max: u64,
) -> Vec<DayFile> {
    files.sort_by(|a, b| (a.day, &a.name).cmp(&(b.day, &b.name)));
    let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let keep_below = bytes_max / 8 * 7;
    let mut superfluous = vec![];
    for file in files {
        let is_old = file.day + u64::from(days) <= today;
        // A day of the future is of a clock that was wrong: it goes like any other.
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
        assert_eq!(days_removed(&files, 10, 1_000), [90]);
        assert_eq!(days_removed(&files, 11, 1_000), none);
        assert_eq!(days_removed(&files, 1, 1_000), [90, 98, 99]);
        // Room for 28: one of the four has to go, then a second.
        assert_eq!(days_removed(&files, 14, 32), [90, 98]);
    }

    #[test]
    fn todays_file_stays_however_large_it_is() {
        assert_eq!(days_removed(&[file(100, 1_000), file(99, 1)], 14, 64), [99]);
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
