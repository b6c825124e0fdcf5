//! Where a process says what happens to it: lines to standard error, and to one file a day.
//!
//! ```text
//! tracing event ──▶ layer ──▶ line (text or JSON) ──┬─ queue ─▶ standard error
//!                                                   └─ queue ─▶ logic-1.2026-11-22.log
//! ```
//!
//! Nobody who logs ever waits: a line that finds its queue full, and one that the disk does not
//! take, is dropped and counted, and the file says afterwards how many there were. Lines of [`AUDIT`] have
//! queues of their own, which no flood of others fills. docs/logs.md has the formats.

mod figures;
mod file;
mod filter;
mod layer;
pub mod line;
mod losses;
pub mod outage;
mod panic;
pub mod repeats;
mod retention;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

pub use self::figures::LogSource;
use self::file::{DailyFiles, FileEnd};
use self::layer::{Counting, Lines, Sink, has_code};
use self::line::Format;
use self::losses::{Losses, Queues};
use crate::codes::Code;
use crate::ids::NodeName;
use crate::process::clock::unix_ms;

/// Overrides what is logged, for example `RCU_LOG=debug` or `RCU_LOG=logic_server=trace`.
pub const FILTER_VARIABLE: &str = "RCU_LOG";

/// The target of lines that tell what an operator did: no filter holds them back.
pub const AUDIT: &str = "audit";

/// Lines that wait to be written, in each queue; with [`line::BYTES_MAX`] 16 MiB at most.
const LINES_WAITING_MAX: usize = 4_096;

/// Less would be full within minutes of a bad day.
const BYTES_MAX_LEAST: u64 = 1 << 20;

/// The table `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// What is logged: a level, or levels by module. [`FILTER_VARIABLE`] goes before it.
    pub filter: String,
    pub format: Format,
    /// Where the files go; `None`: to standard error alone.
    pub directory: Option<PathBuf>,
    /// So many of the newest files are kept.
    pub days: u32,
    /// The files of a node together; the oldest go first.
    pub bytes_max: u64,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: "info".into(),
            format: Format::Text,
            directory: None,
            days: 14,
            bytes_max: 1 << 30,
        }
    }
}

impl LogSettings {
    /// Text to standard error, and nothing else.
    pub fn to_stderr(filter: &str) -> Self {
        Self {
            filter: filter.into(),
            ..Self::default()
        }
    }

    /// What is wrong, each beginning with its key.
    pub fn check(&self) -> Vec<String> {
        let mut mistakes = vec![];
        if let Err(error) = filter::parse(&self.filter) {
            mistakes.push(format!("filter: {error}"));
        }
        if self.days == 0 {
            mistakes.push("days: at least 1".into());
        }
        if self.bytes_max < BYTES_MAX_LEAST {
            mistakes.push(format!("bytes_max: at least {BYTES_MAX_LEAST}"));
        }
        mistakes
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{0}")]
    Filter(String),
    #[error("cannot write logs to {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("logging runs already")]
    Again,
}

/// What was logged, and what was not, since the start.
#[derive(Clone, Debug)]
pub struct LogFigures {
    /// In the order of [`Code::ALL`].
    counted: Arc<[AtomicU64]>,
    losses: Arc<Losses>,
}

impl LogFigures {
    /// How often each event happened, whether the filter lets it through or not.
    pub fn events(&self) -> impl Iterator<Item = (Code, u64)> {
        let counts = self.counted.iter().map(|it| it.load(Ordering::Relaxed));
        Code::ALL.iter().copied().zip(counts)
    }

    /// Lines that are not where they belong: a disk that was full or failed, a file as large as it may
    /// be, a queue that was full.
    pub fn lines_dropped(&self) -> u64 {
        self.losses.all().lines
    }

    /// Those of them that tell what an operator did.
    pub fn audit_lines_dropped(&self) -> u64 {
        self.losses.all().audit_lines
    }
}

/// Logging that runs. Dropped, it writes what waits, for some seconds at most.
#[derive(Debug)]
#[must_use = "lines that wait are written when it is dropped"]
pub struct Guard {
    workers: Workers,
    figures: LogFigures,
    started_ms: u64,
}

impl Guard {
    pub fn figures(&self) -> &LogFigures {
        &self.figures
    }

    /// The same for the metrics of the process, which `node` names.
    pub fn metrics(&self, node: &NodeName) -> LogSource {
        LogSource {
            node: node.to_string(),
            started_ms: self.started_ms,
            figures: self.figures.clone(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.workers.finish();
    }
}

/// The end of two queues at one place, each of whole lines.
struct Shared(Arc<Mutex<Box<dyn io::Write + Send>>>);

impl Shared {
    fn writer(&self) -> MutexGuard<'_, Box<dyn io::Write + Send>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Shared {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.writer().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}

/// What writes; shared with the panic hook, which ends it before it ends the process.
#[derive(Clone, Debug)]
struct Workers(Arc<Mutex<Vec<WorkerGuard>>>);

impl Workers {
    fn finish(&self) {
        let workers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(workers);
    }
}

/// Logs from now on what happens in this process, and sees to it that a panic in any thread or
/// task is logged and ends the process. `node`: who speaks where no span says it.
///
/// # Errors
/// The filter is none, the directory cannot be written, or logging runs already.
pub fn start(settings: &LogSettings, node: &NodeName) -> Result<Guard, LogError> {
    start_with(settings, node, Box::new(io::stderr()))
}

/// Likewise, with what takes the lines for standard error: whoever draws on the terminal lets none come
/// between.
///
/// # Errors
/// As [`start`].
pub fn start_with(
    settings: &LogSettings,
    node: &NodeName,
    stderr: Box<dyn io::Write + Send>,
) -> Result<Guard, LogError> {
    let filter = filter(settings)?;
    let mut workers = vec![];
    let mut sinks = vec![];
    let losses = Arc::new(Losses::default());
    let mut open = |name: &str, coloured: bool, ends: [Box<dyn io::Write + Send>; 2]| {
        let [(queue, worker), (audit, audit_worker)] = ends.map(|end| queue(name, end));
        workers.extend([worker, audit_worker]);
        let queues = Queues {
            common: queue.error_counter(),
            audit: audit.error_counter(),
        };
        sinks.push(Sink {
            queue,
            audit,
            format: settings.format,
            coloured,
        });
        queues
    };
    let coloured = settings.format == Format::Text && io::stderr().is_terminal() && may_colour();
    let stderr = Arc::new(Mutex::new(stderr));
    let ends =
        [stderr.clone(), stderr].map(|it| -> Box<dyn io::Write + Send> { Box::new(Shared(it)) });
    let _ = losses.stderr.set(open("log-stderr", coloured, ends));
    if let Some(directory) = &settings.directory {
        let files =
            DailyFiles::open(directory, node, settings, losses.clone()).map_err(|source| {
                LogError::Directory {
                    path: directory.clone(),
                    source,
                }
            })?;
        let files = Arc::new(Mutex::new(files));
        let ends = [false, true].map(|is_audit| -> Box<dyn io::Write + Send> {
            Box::new(FileEnd {
                files: files.clone(),
                is_audit,
            })
        });
        let _ = losses.file.set(open("log-file", false, ends));
    }
    let counted: Arc<[AtomicU64]> = Code::ALL.iter().map(|_| AtomicU64::new(0)).collect();
    let lines = Lines::new(node.to_string(), sinks);
    // Spans that name a node are kept whatever is logged: each line tells of whom it speaks.
    let names_node = filter_fn(names_node).with_max_level_hint(LevelFilter::INFO);
    let never_silenced = filter_fn(is_never_silenced).with_max_level_hint(LevelFilter::INFO);
    let has_code = filter_fn(has_code).with_max_level_hint(LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter.or(names_node).or(never_silenced)))
        .with(Counting(counted.clone()).with_filter(has_code))
        .try_init()
        .map_err(|_| LogError::Again)?;
    let workers = Workers(Arc::new(Mutex::new(workers)));
    panic::log_and_end(workers.clone());
    Ok(Guard {
        workers,
        started_ms: unix_ms(),
        figures: LogFigures { counted, losses },
    })
}

/// Whether colours are welcome where there is a terminal: not where `NO_COLOR` says anything (no-color.org).
pub fn may_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty())
}

/// Logs why the process ends that cannot do what it was started for, with all causes.
pub fn failed(error: &dyn std::error::Error) {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        why = format!("{why}: {error}");
        cause = error.source();
    }
    tracing::error!(code = Code::Failed.number(), why, "failed");
}

fn filter(settings: &LogSettings) -> Result<EnvFilter, LogError> {
    let of_variable = variable().map(|wanted| (FILTER_VARIABLE, wanted));
    let (name, wanted) = of_variable.unwrap_or_else(|| ("log.filter", settings.filter.clone()));
    filter::parse(&wanted).map_err(|error| LogError::Filter(format!("{name}: {error}")))
}

/// One that is empty counts as not set.
fn variable() -> Option<String> {
    let wanted = std::env::var(FILTER_VARIABLE).ok()?;
    (!wanted.trim().is_empty()).then_some(wanted)
}

/// What is wrong with [`FILTER_VARIABLE`], beginning with its name.
pub fn mistake_of_variable() -> Option<String> {
    let error = filter::parse(&variable()?).err()?;
    Some(format!("{FILTER_VARIABLE}: {error}"))
}

fn queue(name: &str, writer: Box<dyn io::Write + Send>) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING_MAX)
        .lossy(true)
        .thread_name(name)
        .finish(writer)
}

fn names_node(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.fields().field("node").is_some()
}

/// Whatever the filter says.
fn is_never_silenced(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && (*metadata.level() == Level::ERROR || metadata.target() == AUDIT)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
