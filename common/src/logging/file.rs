//! One log file a day, within a number of days and bytes; and what the disk does not take.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Map;

use super::LogSettings;
use super::line::{Format, Line};
use super::losses::{Losses, Lost};
use super::retention::{DayFile, day_of, day_of_line, file_name, superfluous};
use crate::codes::Code;
use crate::ids::NodeName;
use crate::process::clock::unix_ms;

/// A file that was removed or renamed gets no line for longer than this.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// Gets whole lines, of threads that write. Each goes to the file of the day that it names itself: the
/// clock may have jumped since, in either direction, and it may be late.
#[derive(Debug)]
pub(super) struct DailyFiles {
    /// Of `today`; `None`: it could not be opened.
    file: Option<File>,
    looked_at: Instant,
    directory: PathBuf,
    node: String,
    format: Format,
    days: u32,
    bytes_max: u64,
    /// Days since 1970, of the last line.
    today: u64,
    /// Of today's file.
    bytes: u64,
    /// What today's file may take, with what the others have.
    room_bytes: u64,
    /// Today's file may end in half a line: a write failed midway, or whoever wrote it before died.
    torn: bool,
    losses: Arc<Losses>,
    /// What the files have said is missing.
    said: Lost,
}

impl DailyFiles {
    /// # Errors
    /// The directory, or today's file, cannot be made.
    pub(super) fn open(
        directory: &Path,
        node: &NodeName,
        settings: &LogSettings,
        losses: Arc<Losses>,
    ) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut files = Self {
            file: None,
            looked_at: Instant::now(),
            directory: directory.into(),
            node: node.to_string(),
            format: settings.format,
            days: settings.days,
            bytes_max: settings.bytes_max,
            today: day_of_line(b"", unix_ms()),
            bytes: 0,
            room_bytes: 0,
            torn: false,
            losses,
            said: Lost::default(),
        };
        files.open_today()?;
        files.look_around();
        Ok(files)
    }

    fn path(&self) -> PathBuf {
        let extension = self.format.extension();
        self.directory
            .join(file_name(&self.node, self.today, extension))
    }

    fn open_today(&mut self) -> io::Result<()> {
        self.file = None;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(self.path())?;
        self.bytes = file.metadata()?.len();
        self.torn = self.bytes > 0 && !ends_in_a_line_feed(&file, self.bytes)?;
        self.looked_at = Instant::now();
        self.file = Some(file);
        Ok(())
    }

    /// Has the file of `day` open, by its name: whoever removed or renamed it gets no more lines. Whoever
    /// emptied it (logrotate's `copytruncate`) made room.
    fn turn_to(&mut self, day: u64) -> io::Result<()> {
        if let Some(file) = &self.file
            && day == self.today
        {
            if self.looked_at.elapsed() < LOOKED_AT_EVERY {
                return Ok(());
            }
            let open = file.metadata()?;
            if is_same(&open, fs::metadata(self.path()).ok()) {
                self.looked_at = Instant::now();
                self.bytes = open.len();
                return Ok(());
            }
        }
        self.today = day;
        self.open_today()?;
        self.look_around();
        Ok(())
    }

    /// Removes what is superfluous, and sees what room there is. What cannot be removed keeps its room.
    fn look_around(&mut self) {
        let files = self.files().unwrap_or_default();
        let gone = superfluous(files.clone(), self.today, self.days, self.bytes_max);
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
            let files = files
                .iter()
                .filter(|file| (file.day == self.today) == is_today);
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
            let Some(day) = day_of(&name, &self.node) else {
                continue;
            };
            // It may have been removed since, by logrotate for example.
            if let Ok(metadata) = entry.metadata() {
                let bytes = metadata.len();
                files.push(DayFile { name, day, bytes });
            }
        }
        Ok(files)
    }

    fn has_room_for(&mut self, bytes: u64) -> bool {
        if self.bytes + bytes <= self.room_bytes {
            return true;
        }
        // Room is only to be had from other days' files; without one this is full until tomorrow.
        if self.room_bytes < self.bytes_max {
            self.look_around();
        }
        self.bytes + bytes <= self.room_bytes
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if self.torn {
            file.write_all(b"\n")?;
            self.torn = false;
            self.bytes += 1;
        }
        let written = file.write_all(line);
        self.torn = written.is_err();
        if written.is_ok() {
            self.bytes += line.len() as u64;
        }
        written
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.turn_to(day_of_line(line, unix_ms()))?;
        if !self.has_room_for(line.len() as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let lost = self.losses.of_file();
        let missing = lost.since(self.said);
        if missing.lines > 0 {
            let told = self.line_of(missing);
            self.append(told.as_bytes())?;
            self.said = lost;
        }
        self.append(line)
    }

    /// Written by hand: a line about lines that found no room must not need room in the queue.
    fn line_of(&self, missing: Lost) -> String {
        let code = Code::LogLinesDropped;
        let line = Line {
            unix_ms: unix_ms(),
            level: code.level().name(),
            code: Some(code.number()),
            node: self.node.clone(),
            target: module_path!().into(),
            message: "lines are missing here".into(),
            fields: Map::from_iter([
                ("lines".to_owned(), missing.lines.into()),
                ("audit_lines".to_owned(), missing.audit_lines.into()),
            ]),
        };
        line.write(self.format, false)
    }

    /// Never fails: what cannot be written is counted, and the next line is tried anew.
    fn take(&mut self, line: &[u8], is_audit: bool) {
        if self.write_line(line).is_err() {
            self.losses.refused(is_audit);
        }
    }
}

/// The end of one of the two queues; they share the files.
#[derive(Debug)]
pub(super) struct FileEnd {
    pub(super) files: Arc<Mutex<DailyFiles>>,
    pub(super) is_audit: bool,
}

impl Write for FileEnd {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.take(line, self.is_audit);
        Ok(line.len())
    }

    /// Nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `bytes`: the length of the file, not 0.
fn ends_in_a_line_feed(file: &File, bytes: u64) -> io::Result<bool> {
    let mut last = [0];
    file.read_exact_at(&mut last, bytes - 1)?;
    Ok(last == *b"\n")
}

/// `None`: nothing has the name.
fn is_same(open: &Metadata, named: Option<Metadata>) -> bool {
    named.is_some_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::line::{Heading, day};
    use super::super::retention::SECONDS_PER_DAY;
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
        DailyFiles::open(directory, &node, &settings, Arc::default()).unwrap()
    }

    fn name(days_ago: u64) -> String {
        let day = day(unix_ms() - days_ago * SECONDS_PER_DAY * 1_000);
        format!("logic-1.{day}.log")
    }

    #[test]
    fn only_the_newest_files_stay_at_the_start_and_others_are_not_touched() {
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
            files.take(&[b'y'; 100], false);
        }
        let bytes = fs::metadata(directory.path().join(name(0))).unwrap().len();
        assert_eq!(bytes, 1_000);
        assert_eq!(files.losses.of_file().lines, 2);
    }

    #[test]
    fn after_a_disk_that_was_full_the_file_says_how_many_lines_are_missing() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = open(directory.path(), 1 << 20);
        files.take(b"one\n", false);
        files.room_bytes = 0; // As long as nothing fits.
        files.bytes_max = 0;
        files.take(b"two\n", false);
        files.take(b"three\n", true);
        (files.room_bytes, files.bytes_max) = (1 << 20, 1 << 20);
        files.torn = true;
        files.take(b"four\n", false);
        let text = fs::read_to_string(directory.path().join(name(0))).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines[0], lines[1], lines[3]), ("one", "", "four"));
        let said = Heading::read(lines[2]).unwrap();
        assert_eq!(said.code, Some(Code::LogLinesDropped.number()));
        assert!(lines[2].ends_with("audit_lines=1 lines=2"), "{}", lines[2]);
    }

    #[test]
    fn a_file_that_was_emptied_has_room_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name(0));
        let mut files = open(directory.path(), 1_024);
        for _ in 0..12 {
            files.take(&[b'y'; 100], false);
        }
        assert_eq!(files.losses.of_file().lines, 2);
        // As logrotate's copytruncate does it.
        File::create(&path).unwrap();
        files.looked_at -= LOOKED_AT_EVERY;
        for _ in 0..4 {
            files.take(b"room\n", false);
        }
        assert_eq!(files.losses.of_file().lines, 2);
        assert!(fs::read_to_string(&path).unwrap().ends_with("room\nroom\n"));
    }

    #[test]
    fn half_a_line_is_ended_in_the_file_that_has_it_and_not_in_that_of_the_next_day() {
        let directory = tempfile::tempdir().unwrap();
        let days = ["2026-11-22", "2026-11-23"];
        let path = directory.path().join("logic-1.2026-11-22.log");
        // Of a process that was killed.
        fs::write(&path, "2026-11-22T23:59:58.000Z INFO - log").unwrap();
        let mut files = open(directory.path(), 1 << 20);
        files.days = 9;
        files.take(line(days[0], "whole").as_bytes(), false);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"half").unwrap();
        files.torn = true; // As if it were its own write that failed.
        files.take(line(days[1], "next day").as_bytes(), false);
        files.take(line(days[0], "clock went back").as_bytes(), false);
        let of_first = text(directory.path(), days[0]);
        let lines: Vec<_> = of_first.lines().collect();
        assert_eq!(lines.len(), 4, "{of_first}");
        assert_eq!(format!("{}\n", lines[1]), line(days[0], "whole"));
        assert_eq!(lines[2], "half");
        assert_eq!(text(directory.path(), days[1]), line(days[1], "next day"));
    }

    fn line(day: &str, text: &str) -> String {
        format!("{day}T23:59:59.000Z INFO - logic-1 {text}\n")
    }

    fn text(directory: &Path, day: &str) -> String {
        fs::read_to_string(directory.join(format!("logic-1.{day}.log"))).unwrap()
    }

    #[test]
    fn a_clock_that_jumps_ahead_and_back_mixes_no_days_and_costs_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = open(directory.path(), 1 << 20);
        files.days = 5; // These, and that of the clock.
        let days = ["2026-11-20", "2026-11-21", "2026-11-22"];
        for day in days {
            files.take(line(day, "before").as_bytes(), false);
        }
        // A month ahead, back, to 1970 where no time server answers, and back.
        let jumps = [
            "2026-12-22",
            "2026-11-22",
            "1970-01-01",
            "2026-11-22",
            "2026-11-22",
        ];
        for day in jumps {
            files.take(line(day, "jumped").as_bytes(), false);
        }
        let (before, jumped) = (line(days[2], "before"), line(days[2], "jumped"));
        assert_eq!(
            text(directory.path(), days[2]),
            before + &jumped + &jumped + &jumped
        );
        assert_eq!(
            text(directory.path(), days[1]),
            line("2026-11-21", "before")
        );
        assert_eq!(
            text(directory.path(), "2026-12-22"),
            line("2026-12-22", "jumped")
        );
        assert_eq!(files.losses.of_file(), Lost::default());
    }

    #[test]
    fn a_file_that_was_removed_or_renamed_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = open(directory.path(), 1 << 20);
        let path = directory.path().join("logic-1.2026-11-22.log");
        let mut write = |text: &str| {
            files.looked_at -= LOOKED_AT_EVERY;
            files.take(line("2026-11-22", text).as_bytes(), false);
            fs::read_to_string(&path).unwrap()
        };
        write("one");
        fs::rename(&path, directory.path().join("rotated")).unwrap();
        assert_eq!(write("two"), line("2026-11-22", "two"));
        fs::remove_file(&path).unwrap();
        assert_eq!(write("three"), line("2026-11-22", "three"));
        // Of the directory too much may go: then lines are counted, until it is there again.
        fs::remove_dir_all(directory.path()).unwrap();
        files.looked_at -= LOOKED_AT_EVERY;
        files.take(line("2026-11-22", "four").as_bytes(), true);
        let lost = files.losses.of_file();
        assert_eq!((lost.lines, lost.audit_lines), (1, 1));
        fs::create_dir(directory.path()).unwrap();
        files.take(line("2026-11-22", "five").as_bytes(), false);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("audit_lines=1 lines=1\n"), "{text}");
        assert!(text.ends_with("five\n"), "{text}");
    }
}
