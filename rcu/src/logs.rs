//! `rcu logs`: what the log files of a cluster say, counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use common::codes::Code;
use common::logging::line::{Format, Heading};
use common::process::output;
use rcu::columns;
use serde::Serialize;

use crate::table::{Column, Table, Wide};

/// A longer line is none of ours; what is beyond is passed over.
const LINE_BYTES_MAX: u64 = 64 * 1_024;

/// Looks at log files.
#[derive(Args)]
pub(crate) struct Logs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Stats(Stats),
}

/// Counts the lines of log files by day, node and code.
///
/// Reads both formats. Lines that are not of the cluster, or torn, are counted apart. Days are those of UTC.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu logs stats /var/log/rcu
  rcu logs stats --since 24h /var/log/rcu
  rcu logs stats --json logic-1.2026-11-22.jsonl | jq '.counts[] | select(.level == \"ERROR\")'

`rcu explain code NUMBER` tells what a code means, and what to do.")]
struct Stats {
    /// Log files, or directories: of those the files that end in .log and .jsonl.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Only lines of the last so long, for example 90m or 7d.
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    wide: Wide,
}

impl Logs {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn std::error::Error>> {
        let Action::Stats(stats) = self.action;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let since = stats.since.map(|since| now.saturating_sub(since));
        let since_ms = u64::try_from(since.unwrap_or_default().as_millis())?;
        let mut counted = Counted::default();
        for path in files(&stats.paths)? {
            let named = |error| format!("cannot read {}: {error}", path.display());
            let file = File::open(&path).map_err(named)?;
            counted.files += 1;
            counted
                .read(BufReader::new(file), since_ms)
                .map_err(named)?;
        }
        let text = match stats.json {
            true => serde_json::to_string_pretty(&counted.report())? + "\n",
            false => counted
                .report()
                .table(stats.wide.width(columns::of_stdout())),
        };
        output::print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The files that are named, and the log files of the directories that are.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = vec![];
    for path in paths {
        let named = |error: io::Error| format!("cannot read {}: {error}", path.display());
        if !fs::metadata(path).map_err(named)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        for entry in fs::read_dir(path).map_err(named)? {
            let found = entry.map_err(named)?.path();
            // A directory or a pipe may have such a name, too.
            if is_log(&found) && found.is_file() {
                files.push(found);
            }
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn is_log(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    [Format::Text, Format::Json]
        .iter()
        .any(|format| extension == Some(format.extension()))
}

/// What lines are counted under, in the order of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    day: String,
    node: String,
    code: Option<u16>,
    level: String,
}

#[derive(Debug, Default)]
struct Counted {
    counts: BTreeMap<Key, u64>,
    files: u64,
    lines: u64,
    not_understood: u64,
}

impl Counted {
    fn read(&mut self, mut file: impl BufRead, since_ms: u64) -> io::Result<()> {
        let mut line = vec![];
        loop {
            line.clear();
            let mut bounded = file.by_ref().take(LINE_BYTES_MAX);
            if bounded.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            // After a disk that was full an empty line parts a torn line from the next.
            if !text.is_empty() {
                self.count(text, since_ms);
            }
        }
    }

    fn count(&mut self, line: &str, since_ms: u64) {
        let Some(heading) = Heading::read(line) else {
            self.not_understood += 1;
            return;
        };
        if heading.unix_ms < since_ms {
            return;
        }
        self.lines += 1;
        let key = Key {
            day: heading.day(),
            node: heading.node,
            code: heading.code,
            level: heading.level,
        };
        *self.counts.entry(key).or_default() += 1;
    }

    fn report(self) -> Report {
        let counts = self.counts.into_iter().map(|(key, count)| Count {
            day: key.day,
            node: key.node,
            code: key.code,
            event: key.code.and_then(Code::of).map(Code::name),
            level: key.level,
            count,
        });
        Report {
            counts: counts.collect(),
            files: self.files,
            lines: self.lines,
            not_understood: self.not_understood,
        }
    }
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    counts: Vec<Count>,
    files: u64,
    /// Those of the counts.
    lines: u64,
    not_understood: u64,
}

#[derive(Debug, Serialize)]
struct Count {
    day: String,
    node: String,
    code: Option<u16>,
    event: Option<&'static str>,
    level: String,
    count: u64,
}

impl Report {
    fn table(&self, width: Option<usize>) -> String {
        let columns = [
            Column::left("day"),
            Column::left("node").shortens(),
            Column::right("code"),
            Column::left("level").leaves(1),
            Column::right("lines"),
            Column::left("event").shortens(),
        ];
        let rows = self.counts.iter().map(|it| {
            let event = it.event.unwrap_or(match it.code {
                Some(_) => "of another version",
                None => "",
            });
            [
                it.day.clone(),
                it.node.clone(),
                it.code.map_or("-".into(), |code| code.to_string()),
                it.level.clone(),
                it.count.to_string(),
                event.into(),
            ]
        });
        let mut text = Table::new(columns, width).page(&rows.collect::<Vec<_>>());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{} lines of {} files", self.lines, self.files);
        if self.not_understood > 0 {
            let _ = writeln!(
                text,
                "{} more are no lines of the cluster, or torn",
                self.not_understood
            );
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEXT: &str = "\
2026-11-21T23:59:59.999Z WARN 4007 logic-1 the database does not take batches error=\"disk full\"
2026-11-22T00:00:00.000Z WARN 4007 logic-1 the database does not take batches error=\"disk full\"
2026-11-22T00:00:00.001Z WARN 4007 logic-1 the database does not take batches error=\"disk full\"
2026-11-22T00:00:00.002Z DEBUG - logic-1 a line without a code
2026-11-22T00:00:00.0

thread 'shard-0' panicked at somewhere
{\"time\":\"2026-11-22T00:00:00.003Z\",\"level\":\"INFO\",\"code\":1101,\"event\":\"LinkUp\",\"node\":\"conn-1\",\"target\":\"t\",\"message\":\"m\",\"fields\":{}}
{\"time\":\"2026-11-22T00:00:00.004Z\",\"level\":\"INFO\",\"code\":65000,\"node\":\"conn-1\"}
";

    fn counted(since: &str) -> Report {
        let since = humantime::parse_rfc3339(since).unwrap();
        let since_ms = since.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let mut counted = Counted::default();
        counted.read(TEXT.as_bytes(), since_ms).unwrap();
        counted.report()
    }

    #[test]
    fn lines_of_both_formats_are_counted_by_day_node_and_code() {
        let report = counted("1970-01-01T00:00:00Z");
        let counts: Vec<_> = report
            .counts
            .iter()
            .map(|it| (&it.day[8..], &it.node[..], it.code, it.count))
            .collect();
        let expected = [
            ("21", "logic-1", Some(4_007), 1),
            ("22", "conn-1", Some(1_101), 1),
            ("22", "conn-1", Some(65_000), 1),
            ("22", "logic-1", None, 1),
            ("22", "logic-1", Some(4_007), 2),
        ];
        assert_eq!(counts, expected);
        assert_eq!((report.lines, report.not_understood), (6, 2));
        let table = report.table(None);
        let line = "2026-11-22  logic-1   4007  WARN       2  BatchesNotTaken\n";
        assert!(table.contains(line), "{table}");
    }

    #[test]
    fn lines_before_the_time_are_left_out() {
        let report = counted("2026-11-22T00:00:00.002Z");
        assert_eq!(report.lines, 3);
    }

    #[test]
    fn a_directory_stands_for_its_log_files() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.log", "b.jsonl", "rcu.db", "c.log.gz"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        fs::create_dir(directory.path().join("older.log")).unwrap();
        let found = files(&[directory.path().into(), directory.path().join("rcu.db")]).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|it| it.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.log", "b.jsonl", "rcu.db"]);
        assert!(files(&["/nowhere/at/all".into()]).is_err());
    }

    #[test]
    fn a_file_without_line_feeds_is_read_in_bounded_pieces() {
        let mut counted = Counted::default();
        let endless = vec![b'x'; 3 * LINE_BYTES_MAX as usize];
        counted.read(&endless[..], 0).unwrap();
        assert_eq!(counted.not_understood, 3);
    }
}
