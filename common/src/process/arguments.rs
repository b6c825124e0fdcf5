//! How a server process is started, and how it tells where it is reached.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Failure, output, supervisor};
use crate::config::purpose::Purpose;
use crate::ids::NodeName;

/// What every server takes.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Tells all mistakes in the configuration, or that there is none, and starts nothing.
    #[arg(long)]
    pub check: bool,
    /// Written while it runs: its addresses and process id, as JSON.
    #[arg(long, value_name = "FILE")]
    pub addresses: Option<PathBuf>,
}

/// Where a server is reached, with the ports that were bound.
#[derive(Clone, Debug, Serialize)]
pub struct Addresses {
    pub node: NodeName,
    /// Where devices connect.
    pub devices: Vec<SocketAddr>,
    /// Where the tier above and operators link to; a balancer has none.
    pub link: Option<SocketAddr>,
    /// Where its metrics are, if they are shown.
    pub metrics: Option<SocketAddr>,
}

/// The file of the addresses: it is there for as long as the process runs.
#[derive(Debug)]
#[must_use]
pub struct Announced(Option<PathBuf>);

#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    #[error("cannot write the addresses to {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot tell the supervisor (NOTIFY_SOCKET) that it runs")]
    Supervisor(#[source] io::Error),
}

impl Arguments {
    pub fn purpose(&self) -> Purpose {
        match self.check {
            true => Purpose::Check,
            false => Purpose::Start,
        }
    }

    /// The end of `--check`.
    ///
    /// # Errors
    /// Standard output does not take it.
    pub fn tell_usable(&self) -> Result<ExitCode, Failure> {
        output::print(&format!("{} can be used\n", self.config.display()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Writes the file of `--addresses`, where one was asked for, and tells the supervisor, where there
    /// is one, that the server runs.
    ///
    /// # Errors
    /// It cannot be written, or told.
    pub fn announce(&self, addresses: &Addresses) -> Result<Announced, AnnounceError> {
        #[derive(Serialize)]
        struct File<'a> {
            pid: u32,
            #[serde(flatten)]
            addresses: &'a Addresses,
        }
        if let Some(path) = &self.addresses {
            let file = File {
                pid: std::process::id(),
                addresses,
            };
            let failed = |source| AnnounceError::Write {
                path: path.clone(),
                source,
            };
            let json = serde_json::to_vec_pretty(&file).map_err(|error| failed(error.into()))?;
            write_atomically(path, &json).map_err(failed)?;
        }
        supervisor::tell_ready().map_err(AnnounceError::Supervisor)?;
        Ok(Announced(self.addresses.clone()))
    }
}

impl Announced {
    /// Takes the file away.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn end(self) -> io::Result<()> {
        self.0.map_or(Ok(()), fs::remove_file)
    }
}

/// Whoever waits for the file never reads half of it.
///
/// # Errors
/// It cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_added_extension("new");
    fs::write(&unfinished, bytes)?;
    fs::rename(unfinished, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_there_while_it_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logic-1.json");
        let arguments = Arguments {
            config: "logic-server.toml".into(),
            check: false,
            addresses: Some(path.clone()),
        };
        let running = arguments
            .announce(&Addresses {
                node: "logic-1".parse().unwrap(),
                devices: vec!["127.0.0.1:20000".parse().unwrap()],
                link: Some("127.0.0.1:20100".parse().unwrap()),
                metrics: None,
            })
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let expected = serde_json::json!({
            "pid": std::process::id(),
            "node": "logic-1",
            "devices": ["127.0.0.1:20000"],
            "link": "127.0.0.1:20100",
            "metrics": null,
        });
        assert_eq!(json, expected);
        running.end().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
