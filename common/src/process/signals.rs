//! How a person or a supervisor asks a process to end, and how it is hastened.
//!
//! ```text
//! SIGINT, SIGTERM   the first: it ends in order; the second: what can be left is left; the third: at once
//! SIGHUP            the terminal of the process is closed: it ends in order. A server without one is meant to read
//!                   its configuration again, as others do: it cannot yet, says so, and runs on
//! ```
//!
//! A process that was started with SIGHUP ignored (`nohup`) never hears of it.

use std::fs::{self, File};
use std::future::pending;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::EXIT_FAILED;
use crate::codes::Code;

/// An end that was hastened waits no longer for anything.
const HASTENED_MAX: Duration = Duration::from_secs(5);

/// The signals that end a process.
#[derive(Debug)]
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
    /// `None`: it is ignored.
    hangup: Option<Signal>,
    hangup_ends: bool,
}

impl Stop {
    /// Of a command that somebody waits for. From now on the signals no longer kill the process.
    pub fn listen() -> std::io::Result<Self> {
        let hangup = match is_hangup_ignored() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
            hangup_ends: true,
        })
    }

    /// Of a server: without a terminal SIGHUP is no reason to end.
    pub fn of_server() -> std::io::Result<Self> {
        Ok(Self {
            hangup_ends: has_terminal(),
            ..Self::listen()?
        })
    }

    /// Returns when the process was asked to end since the last call.
    pub async fn wait(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                () = received(&mut self.hangup) => {
                    if self.hangup_ends {
                        return;
                    }
                    tracing::info!(
                        code = Code::HangupIgnored.number(),
                        "SIGHUP: the configuration is read at the start only"
                    );
                }
            }
        }
    }

    /// Waits for the end of what was asked to end, and returns what the process ends with. A second signal
    /// `hasten`s it, and gives it up where that does not help; a third ends the process here.
    pub async fn see_out(
        &mut self,
        shutdown: impl Future<Output = ()>,
        hasten: impl FnOnce(),
    ) -> ExitCode {
        let mut shutdown = std::pin::pin!(shutdown);
        tokio::select! {
            () = &mut shutdown => return ExitCode::SUCCESS,
            () = self.wait_again() => {}
        }
        tracing::warn!(
            code = Code::EndHastened.number(),
            "told again to stop: what can be left is left"
        );
        hasten();
        tokio::select! {
            () = shutdown => ExitCode::SUCCESS,
            () = sleep(HASTENED_MAX) => ExitCode::from(EXIT_FAILED),
            () = self.wait_again() => std::process::exit(EXIT_FAILED.into()),
        }
    }

    /// Whoever closes a terminal may send SIGHUP twice, and is in no haste.
    async fn wait_again(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}

/// Whether a terminal can be closed under this process: it has one that controls it.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whoever started this process wanted it to outlive the terminal.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores(&status, SignalKind::hangup())
}

/// By the mask of ignored signals in /proc/PID/status: the lowest bit is signal 1.
fn ignores(status: &str, signal: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw_value() - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_kernels_mask() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n";
        assert!(ignores(status, SignalKind::hangup()));
        assert!(ignores(status, SignalKind::pipe()));
        assert!(!ignores(status, SignalKind::terminate()));
        assert!(!ignores("", SignalKind::hangup()));
    }
}
