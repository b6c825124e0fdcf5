//! `rcu keys`: makes the keys of a cluster whose tiers are processes of their own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use common::key_files::{self, KeyDirectory};
use common::process::{Failure, output};

/// Makes the keys of a cluster. `rcu up` and `rcu device add` make their own.
#[derive(Args)]
pub(crate) struct KeysCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    New(New),
}

/// Makes three key files of mode 0600 in a directory of mode 0700, and overwrites none.
///
/// cluster   lets processes link to one another; a copy for every process
/// operator  lets this command link to conn servers; for them, and for whoever operates
/// master    opens the device keys in the database; for conn servers and `rcu device`. Keep a copy:
///           without it every device needs a new key
#[derive(Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  rcu keys new /etc/rcu/keys
  sudo -u rcu rcu keys new /etc/rcu/keys     for the user that the servers run as

To change the cluster's or the operator's key: make new ones in another directory; add the new key
as second line to the file everywhere and restart, then make it the first line everywhere and
restart, then take the old line away.

Exit codes: 0 made, 1 not, for example because one of them is there."
)]
struct New {
    /// Made where it is missing.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl KeysCommand {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let Action::New(New { directory }) = self.action;
        let paths = make(&directory)?;
        let paths = paths.iter().map(|path| format!("{}\n", path.display()));
        let made = || format!("the keys are made in {}", directory.display());
        output::print(&paths.collect::<String>()).map_err(|error| error.after(made()))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error("{} is there already: choose another directory, or move it away", .0.display())]
    Exists(PathBuf),
    #[error("cannot make keys in {}", directory.display())]
    Make {
        directory: PathBuf,
        source: io::Error,
    },
}

/// All of them, or none where one is there.
fn make(path: &Path) -> Result<Vec<PathBuf>, KeysError> {
    let failed = |source| KeysError::Make {
        directory: path.into(),
        source,
    };
    let directory = KeyDirectory::open(path).map_err(failed)?;
    let paths: Vec<_> = key_files::NAMES.map(|name| directory.path_of(name)).into();
    for path in &paths {
        if path.try_exists().map_err(failed)? {
            return Err(KeysError::Exists(path.clone()));
        }
    }
    for name in key_files::NAMES {
        directory.make(name).map_err(failed)?;
    }
    directory.finish().map_err(failed)?;
    Ok(paths)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn where_one_key_is_there_none_is_made_and_none_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let made = make(&path).unwrap();
        assert_eq!(made.len(), 3);
        let before = fs::read(&made[2]).unwrap();
        fs::remove_file(&made[0]).unwrap();

        let refused = make(&path).unwrap_err().to_string();
        assert!(refused.contains("operator is there already"), "{refused}");
        assert_eq!(fs::read(&made[2]).unwrap(), before);
        assert!(!made[0].exists());
    }
}
