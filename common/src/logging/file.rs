//! One log file a day, within a number of days and bytes; and what the disk does not take.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::Map;
use tracing_appender::non_blocking::ErrorCounter;
use tracing_appender::rolling::{RollingFileAppender, Rotation};

use super::LogSettings;
use super::line::{Format, Line};
use super::retention::{DayFile, SECONDS_PER_DAY, day_of, superfluous};
use crate::codes::Code;
use crate::ids::NodeName;
use crate::process::clock::unix_ms;

/// Owned by the thread that writes; gets whole lines.
#[derive(Debug)]
pub(super) struct DailyFiles {
    appender: RollingFileAppender,
    directory: PathBuf,
    node: String,
    format: Format,
    days: u32,
    bytes_max: u64,
    /// Days since 1970; of the last look at the directory.
    today: u64,
    /// Of today's file.
    bytes: u64,
    /// What today's file may take, with what the others have.
    room_bytes: u64,
    /// Lines not written since the last that was, and those that the queue had dropped by then.
    unsaid: u64,
    dropped_before: u64,
    /// A write failed midway: the file may end in half a line.
    torn: bool,
    refused: Arc<AtomicU64>,
    queue: Arc<OnceLock<ErrorCounter>>,
}

impl DailyFiles {
    /// `refused` counts the lines that could not be written; `queue` those that never came here.
    pub(super) fn open(
        directory: &Path,
        node: &NodeName,
        settings: &LogSettings,
        refused: Arc<AtomicU64>,
        queue: Arc<OnceLock<ErrorCounter>>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        fs::create_dir_all(directory)?;
        let appender = RollingFileAppender::builder()
            .rotation(Rotation::DAILY)
            .filename_prefix(node.to_string())
            .filename_suffix(settings.format.extension())
            .build(directory)?;
        let mut files = Self {
            appender,
            directory: directory.into(),
            node: node.to_string(),
            format: settings.format,
            days: settings.days,
            bytes_max: settings.bytes_max,
            today: 0,
            bytes: 0,
            room_bytes: 0,
            unsaid: 0,
            dropped_before: 0,
            torn: false,
            refused,
            queue,
        };
        files.look_around(today());
        Ok(files)
    }

    /// Removes what is superfluous, and sees what room there is. What cannot be removed keeps its room.
    fn look_around(&mut self, today: u64) {
        self.today = today;
        let files = self.files().unwrap_or_default();
        let gone = superfluous(files.clone(), today, self.days, self.bytes_max);
        for file in &gone {
            // It will be tried again tomorrow, or when it gets too tight.
            let _ = fs::remove_file(self.directory.join(&file.name));
        }
        let files = if gone.is_empty() {
            files
        } else {
            self.files().unwrap_or_default()
        };
        let of = |is_today: bool| {
            let files = files.iter().filter(|file| (file.day == today) == is_today);
            files.map(|file| file.bytes).sum::<u64>()
        };
        self.bytes = of(true);
        self.room_bytes = self.bytes_max.saturating_sub(of(false));
    }

    fn files(&self) -> io::Result<Vec<DayFile>> {
        let mut files = vec![];
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(day) = day_of(&name, &self.node) {
                let bytes = entry.metadata()?.len();
                files.push(DayFile { name, day, bytes });
            }
        }
        Ok(files)
    }

    fn has_room_for(&mut self, bytes: u64) -> bool {
        let today = today();
        if today != self.today {
            self.look_around(today);
        }
        if self.bytes + bytes <= self.room_bytes {
            return true;
        }
        // Room is only to be had from other days' files; without one this is full until tomorrow.
        if self.room_bytes < self.bytes_max {
            self.look_around(today);
        }
        self.bytes + bytes <= self.room_bytes
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.appender.write_all(b"\n")?;
            self.torn = false;
            self.bytes += 1;
        }
        let written = self.appender.write_all(line);
        self.torn = written.is_err();
        if written.is_ok() {
            self.bytes += line.len() as u64;
        }
        written
    }

    /// How many lines are missing before the one that is written now.
    fn missing(&self) -> u64 {
        let dropped = self.queue.get().map_or(0, ErrorCounter::dropped_lines) as u64;
        self.unsaid + dropped.saturating_sub(self.dropped_before)
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let missing = self.missing();
        if missing > 0 {
            let said = self.line_of(missing);
            self.append(said.as_bytes())?;
            self.unsaid = 0;
            self.dropped_before = self.queue.get().map_or(0, ErrorCounter::dropped_lines) as u64;
        }
        self.append(line)
    }

    /// Written by hand: a line about lines that found no room must not need room in the queue.
    fn line_of(&self, missing: u64) -> String {
        let code = Code::LogLinesDropped;
        let line = Line {
            unix_ms: unix_ms(),
            level: code.level().name(),
            code: Some(code.number()),
            node: self.node.clone(),
            target: module_path!().into(),
            message: "lines are missing here".into(),
            fields: Map::from_iter([("lines".to_owned(), missing.into())]),
        };
        line.write(self.format, false)
    }
}

/// Never fails: what cannot be written is counted, and the next line is tried anew.
impl Write for DailyFiles {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_written = self.has_room_for(line.len() as u64) && self.write_line(line).is_ok();
        if !is_written {
            self.unsaid += 1;
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    /// Nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn today() -> u64 {
    unix_ms() / 1_000 / SECONDS_PER_DAY
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::line::{Heading, day};
    use super::*;

    fn settings(bytes_max: u64) -> LogSettings {
        LogSettings {
            days: 3,
            bytes_max,
            ..LogSettings::default()
        }
    }

    fn open(directory: &Path, bytes_max: u64) -> DailyFiles {
        let node = "logic-1".parse().unwrap();
        let settings = settings(bytes_max);
        DailyFiles::open(directory, &node, &settings, Arc::default(), Arc::default()).unwrap()
    }

    fn name(days_ago: u64) -> String {
        let day = day(unix_ms() - days_ago * SECONDS_PER_DAY * 1_000);
        format!("logic-1.{day}.log")
    }

    #[test]
    fn files_that_are_too_old_go_at_the_start_and_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        for days_ago in [1, 2, 3, 400] {
            fs::write(directory.path().join(name(days_ago)), "x").unwrap();
        }
        fs::write(directory.path().join("rcu.db"), "x").unwrap();
        open(directory.path(), 1 << 20);
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [name(2), name(1), name(0), "rcu.db".into()]);
    }

    #[test]
    fn a_full_day_drops_lines_and_counts_them_and_old_files_make_room_first() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(name(1)), vec![b'x'; 900]).unwrap();
        let mut files = open(directory.path(), 1_024);
        // 900 of 1,024 are more than seven eighths: they went at the start.
        assert!(!directory.path().join(name(1)).exists());
        for _ in 0..12 {
            files.write_all(&[b'y'; 100]).unwrap();
        }
        let bytes = fs::metadata(directory.path().join(name(0))).unwrap().len();
        assert_eq!(bytes, 1_000);
        assert_eq!(files.refused.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn after_a_disk_that_was_full_the_file_says_how_many_lines_are_missing() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = open(directory.path(), 1 << 20);
        files.write_all(b"one\n").unwrap();
        files.room_bytes = 0; // As long as nothing fits.
        files.bytes_max = 0;
        files.write_all(b"two\n").unwrap();
        files.write_all(b"three\n").unwrap();
        (files.room_bytes, files.bytes_max) = (1 << 20, 1 << 20);
        files.torn = true;
        files.write_all(b"four\n").unwrap();
        let text = fs::read_to_string(directory.path().join(name(0))).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines[0], lines[1], lines[3]), ("one", "", "four"));
        let said = Heading::read(lines[2]).unwrap();
        assert_eq!(said.code, Some(Code::LogLinesDropped.number()));
        assert!(lines[2].ends_with("lines=2"), "{}", lines[2]);
    }
}
