//! The log's own figures, as metrics.

use super::LogFigures;
use crate::metrics::{Gathered, Source};

/// Of the process that `node` names.
#[derive(Debug)]
pub struct LogSource {
    pub(super) node: String,
    pub(super) started_ms: u64,
    pub(super) figures: LogFigures,
}

impl Source for LogSource {
    fn gather(&self, gathered: &mut Gathered) {
        let mut figures = gathered.node("process", &self.node);
        figures.gauge(
            "start_time_seconds",
            "When the process started, in Unix seconds.",
            self.started_ms / 1_000,
        );
        for (code, count) in self.figures.events() {
            figures.event(code, count);
        }
        figures.counter(
            "log_lines_dropped",
            "Lines that are not in the log: the disk or a queue was full.",
            self.figures.lines_dropped(),
        );
        figures.counter(
            "log_audit_lines_dropped",
            "Those of them that tell what an operator did.",
            self.figures.audit_lines_dropped(),
        );
        if let Some(bytes) = resident_bytes() {
            figures.gauge(
                "resident_bytes",
                "Memory that the process has in RAM.",
                bytes,
            );
        }
    }
}

/// As the kernel counts it; `None`: it does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1_024)
}
