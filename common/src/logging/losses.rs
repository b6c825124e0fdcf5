//! How many lines are not where they belong.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_appender::non_blocking::ErrorCounter;

/// Lines, and how many of them tell what an operator did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) lines: u64,
    pub(super) audit_lines: u64,
}

impl Lost {
    pub(super) const fn since(self, before: Self) -> Self {
        Self {
            lines: self.lines.saturating_sub(before.lines),
            audit_lines: self.audit_lines.saturating_sub(before.audit_lines),
        }
    }
}

/// Since the start; each place of the log has two queues.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// By the disk.
    refused: AtomicU64,
    refused_audit: AtomicU64,
    pub(super) file: OnceLock<Queues>,
    pub(super) stderr: OnceLock<Queues>,
}

/// What the two queues of a place had no room for.
#[derive(Debug)]
pub(super) struct Queues {
    pub(super) common: ErrorCounter,
    pub(super) audit: ErrorCounter,
}

impl Losses {
    pub(super) fn refused(&self, is_audit: bool) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.refused_audit
            .fetch_add(u64::from(is_audit), Ordering::Relaxed);
    }

    pub(super) fn of_file(&self) -> Lost {
        let refused = Lost {
            lines: self.refused.load(Ordering::Relaxed),
            audit_lines: self.refused_audit.load(Ordering::Relaxed),
        };
        plus(refused, self.file.get())
    }

    pub(super) fn all(&self) -> Lost {
        plus(self.of_file(), self.stderr.get())
    }
}

fn plus(lost: Lost, queues: Option<&Queues>) -> Lost {
    let Some(queues) = queues else { return lost };
    let audit = queues.audit.dropped_lines() as u64;
    Lost {
        lines: lost.lines + queues.common.dropped_lines() as u64 + audit,
        audit_lines: lost.audit_lines + audit,
    }
}
