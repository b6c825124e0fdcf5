//! Processes that a measurement starts, and ends again.
//!
//! A process of this program says a line when it is ready, and takes commands, a line each, on its
//! standard input; when that closes it ends. So nothing is left behind when a measurement is cut
//! short.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{BenchError, Result, Tried as _};

const POLL: Duration = Duration::from_millis(20);

/// Another process of this program.
pub(crate) struct Helper {
    child: Child,
    /// `None` once it was asked to end.
    commands: Option<ChildStdin>,
    said: Receiver<String>,
}

impl Helper {
    /// Starts `bench ARGUMENTS`.
    pub(crate) fn start<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let program = std::env::current_exe().tried("find this program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .tried("start a helper process")?;
        let (say, said) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
                    if say.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self {
            commands: child.stdin.take(),
            child,
            said,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says.
    pub(crate) fn hear(&self, within: Duration) -> Result<String> {
        self.said.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                BenchError::failed(format!("a helper process said nothing for {within:?}"))
            }
            RecvTimeoutError::Disconnected => BenchError::failed("a helper process ended early"),
        })
    }

    /// The next line that it says, where that is an address.
    pub(crate) fn hear_address(&self, within: Duration) -> Result<SocketAddr> {
        let line = self.hear(within)?;
        line.parse()
            .map_err(|_| BenchError::failed(format!("a helper process said {line:?}, no address")))
    }

    pub(crate) fn tell(&mut self, command: &str) -> Result<()> {
        match &mut self.commands {
            Some(commands) => writeln!(commands, "{command}").tried("tell a helper process"),
            None => Err(BenchError::failed(
                "a helper process was told to end before",
            )),
        }
    }

    /// Asks it to end; what it says then can still be heard.
    pub(crate) fn tell_to_end(&mut self) {
        self.commands = None;
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill, and nothing is wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends this process when the one that started it closes the pipe or ends. For helpers that take
/// no commands.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        for line in std::io::stdin().lines() {
            if line.is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
}

/// Says a line to the process that started this one.
pub(crate) fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .tried("write to standard output")
}

/// A program that is not ours to command: it ends by SIGTERM.
pub(crate) struct Program {
    child: Child,
}

impl Program {
    /// What it prints goes to the file `log`.
    pub(crate) fn start(program: &Path, arguments: &[&OsStr], log: &Path) -> Result<Self> {
        let log = std::fs::File::create(log).tried("create a log file")?;
        let child = Command::new(program)
            .args(arguments)
            // What `rcu` remembers is not for whoever runs this.
            .env_remove("XDG_STATE_HOME")
            .env_remove("HOME")
            .stdin(Stdio::null())
            .stdout(log.try_clone().tried("create a log file")?)
            .stderr(log)
            .spawn()
            .tried("start the cluster")?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, and after `within` SIGKILL.
    pub(crate) fn end(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        if self.has_ended() {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        while !self.has_ended() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end(Duration::from_secs(5));
    }
}
