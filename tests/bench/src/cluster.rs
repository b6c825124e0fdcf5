//! The cluster under measurement: `rcu up` of the release build, as a process of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;

use crate::error::{BenchError, Result, Tried as _};
use crate::fleet;
use crate::process::Program;

const START_MAX: Duration = Duration::from_secs(30);
const END_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const LOG_LINES: usize = 5;

/// A data directory with accounts in it, which clusters are started on one after the other.
pub(crate) struct Site {
    rcu: PathBuf,
    directory: TempDir,
}

/// What `rcu up` leaves in its data directory about this run.
#[derive(Deserialize)]
struct Said {
    pid: u32,
    balancer: Vec<SocketAddr>,
}

pub(crate) struct Cluster {
    program: Program,
    pub(crate) balancer: SocketAddr,
}

impl Site {
    /// A new directory with `accounts` accounts of the fleet.
    pub(crate) fn new(rcu: &Path, accounts: u32) -> Result<Self> {
        let site = Self {
            rcu: rcu.into(),
            directory: TempDir::with_prefix("rcu-bench-").tried("make a directory")?,
        };
        let count = accounts.to_string();
        let made = Command::new(rcu)
            .args(["device", "add", "--fleet", fleet::PREFIX, "--count", &count])
            .args(["--fleet-key", &fleet::key_hex()])
            .arg("--out")
            .arg(site.directory.path().join("accounts.csv"))
            .arg("--data")
            .arg(site.data())
            .stdin(Stdio::null())
            .output()
            .tried("start rcu device add")?;
        if made.status.success() {
            Ok(site)
        } else {
            Err(BenchError::failed(format!(
                "rcu device add: {}",
                String::from_utf8_lossy(&made.stderr).trim()
            )))
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts `rcu up` with this configuration; returns when it has said where it listens.
    pub(crate) fn up(&self, configuration: &str) -> Result<Cluster> {
        let file = self.directory.path().join("rcu.toml");
        fs::write(&file, configuration).tried("write the configuration")?;
        let log = self.directory.path().join("log");
        let data = self.data();
        let arguments = [
            "up".as_ref(),
            "--data".as_ref(),
            data.as_os_str(),
            "--config".as_ref(),
            file.as_os_str(),
        ];
        let mut program = Program::start(&self.rcu, &arguments, &log)?;
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(balancer) = self.balancer_of(program.pid()) {
                return Ok(Cluster { program, balancer });
            }
            if program.has_ended() || Instant::now() > deadline {
                return Err(BenchError::failed(format!(
                    "rcu up did not say where it listens: {}",
                    end_of(&log)
                )));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Where the process `pid` listens for logins, once it has said so.
    fn balancer_of(&self, pid: u32) -> Option<SocketAddr> {
        let text = fs::read_to_string(self.data().join("up.json")).ok()?;
        let said: Said = serde_json::from_str(&text).ok()?;
        (said.pid == pid).then(|| said.balancer.first().copied())?
    }
}

impl Cluster {
    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.program.end(END_MAX);
    }
}

fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join(" | ")
}
