//! `rcu backup`: the database of a cluster, copied to a file while the cluster runs.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use common::database::{Copied, DatabaseUrl};
use common::process::output;
use indicatif::BinaryBytes;
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::data::{self, DataDir};
use crate::database::{self, UrlArgument};
use crate::operator::json_line;

type Failure = Box<dyn std::error::Error>;

/// Copies the database of a cluster to a new file, while the cluster runs or not.
///
/// The copy holds everything that was committed when it began, and nobody waits for it. Of a data directory
/// it is a SQLite file, which takes the place of rcu.db; of PostgreSQL what `pg_dump -Fc` makes, for
/// pg_restore. The keys are not in it: keep a copy of them elsewhere.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu backup rcu-2026-01-31.db
  rcu backup --data /var/lib/rcu /mnt/backup/rcu.db
  rcu backup --database postgres://rcu_owner@localhost/rcu rcu.dump

The file is new, only its owner can read it (mode 0600), and under its name there is never half a copy.
PostgreSQL's pg_dump has to be there (Debian: postgresql-client), of the server's version or a newer one.
The password may stand in the URL, in PGPASSWORD, or in ~/.pgpass.
docs/operate.md says how it is restored.")]
pub(crate) struct Backup {
    /// A file that is not there yet.
    file: PathBuf,
    /// The data directory of the cluster; ./rcu-data where no database is named.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The database instead: postgres://USER:PASSWORD@HOST:PORT/NAME, of the owner of its tables, or
    /// sqlite:PATH. A data directory that is named goes before.
    #[arg(
        long,
        value_name = "URL",
        value_parser = database::read,
        env = "RCU_DATABASE_URL",
        hide_env_values = true
    )]
    database: Option<UrlArgument>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// What was made, in JSON.
#[derive(Serialize)]
struct Made<'a> {
    file: &'a Path,
    format: &'a str,
    bytes: u64,
}

impl Backup {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let (url, keys) = match (&self.data, self.database) {
            (None, Some(url)) => (url?, None),
            (data, _) => {
                let path = data.as_deref().unwrap_or(Path::new(data::DEFAULT));
                let data = DataDir::open(path)?;
                let url = DatabaseUrl::sqlite(&data.database_path());
                (url, Some(data.keys_path()))
            }
        };
        let file = &self.file;
        let (bytes, copied) = copy(&url, file)?;
        let format = match copied {
            Copied::SqliteFile => "sqlite",
            Copied::PgDump => "pg_dump",
        };
        if self.json {
            json_line(&Made {
                file,
                format,
                bytes,
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let keys = keys.map_or("them".into(), |keys| keys.display().to_string());
        output::tell(format_args!(
            "{}: {} of {url}\nThe keys are not in it: keep a copy of {keys} elsewhere, or no device can log in \
             after a restore.",
            file.display(),
            BinaryBytes(bytes)
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// Under another name until it is whole and on the disk.
fn copy(url: &DatabaseUrl, file: &Path) -> Result<(u64, Copied), Failure> {
    let exists = || format!("{} is there already: it is not replaced", file.display());
    if file.symlink_metadata().is_ok() {
        return Err(exists().into());
    }
    let cannot = |error: io::Error| format!("cannot write {}: {error}", file.display());
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Of mode 0600, and gone where this fails.
    let unfinished = NamedTempFile::with_prefix_in(".rcu-backup-", directory).map_err(cannot)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let copied = runtime.block_on(url.copy_to(unfinished.path()))?;
    unfinished.as_file().sync_all().map_err(cannot)?;
    let bytes = fs::metadata(unfinished.path()).map_err(cannot)?.len();
    unfinished.persist_noclobber(file).map_err(|error| {
        let error = error.error;
        match error.kind() {
            io::ErrorKind::AlreadyExists => exists(),
            _ => cannot(error),
        }
    })?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(cannot)?;
    Ok((bytes, copied))
}
