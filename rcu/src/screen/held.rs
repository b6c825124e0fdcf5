//! Lines for standard error while a picture is where they would go: the last ones are shown in it, and all of
//! them follow at the end.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::LogLines;

/// Of a long night; older ones go, and are counted.
const HELD_MAX: usize = 1_000;

/// Takes the lines of the log ([`common::logging::start_with`]). Without a picture they pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stderr(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    is_holding: bool,
    lines: VecDeque<String>,
    all: u64,
}

impl Stderr {
    /// From now on no line comes between; unless standard error goes elsewhere, where it disturbs nobody.
    pub(super) fn hold(&self) {
        self.held().is_holding = io::stderr().is_terminal();
    }

    /// What was held is written, and what comes passes. Where writing fails, nobody is there to be told.
    pub(super) fn release(&self) {
        let mut held = self.held();
        held.is_holding = false;
        let mut stderr = io::stderr().lock();
        if let Some(gone @ 1..) = held.all.checked_sub(held.lines.len() as u64) {
            let _ = writeln!(stderr, "{gone} older lines of the log were not kept");
        }
        for line in held.lines.drain(..) {
            let _ = stderr.write_all(line.as_bytes());
        }
        held.all = 0;
    }

    pub(super) fn lines(&self, last: usize) -> LogLines {
        let held = self.held();
        let skipped = held.lines.len().saturating_sub(last);
        let lines = held.lines.iter().skip(skipped);
        LogLines {
            all: held.all,
            last: lines.map(|line| plain(line)).collect(),
        }
    }

    /// Written under the lock, too: a line that passes is out before a picture takes its place.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn plain(line: &str) -> String {
    console::strip_ansi_codes(line.trim_end()).into_owned()
}

impl Write for Stderr {
    /// A whole line, as logging writes them.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut held = self.held();
        if !held.is_holding {
            return io::stderr().write(line);
        }
        if held.lines.len() == HELD_MAX {
            held.lines.pop_front();
        }
        held.lines
            .push_back(String::from_utf8_lossy(line).into_owned());
        held.all += 1;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_held_without_colours_and_bounded() {
        let mut stderr = Stderr::default();
        stderr.held().is_holding = true;
        for number in 0..HELD_MAX + 5 {
            let line = format!("\x1b[33mWARN\x1b[0m {number}\n");
            stderr.write_all(line.as_bytes()).unwrap();
        }
        let lines = stderr.lines(2);
        assert_eq!(lines.all, HELD_MAX as u64 + 5);
        assert_eq!(lines.last, ["WARN 1003", "WARN 1004"]);
        assert_eq!(stderr.held().lines.len(), HELD_MAX);
        stderr.release();
        assert_eq!(stderr.lines(2), LogLines::default());
    }
}
