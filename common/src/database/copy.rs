//! A copy of a whole database in a file, made while others read and write it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::{DatabaseError, DatabaseUrl, Sqlite};

/// Debian keeps every version of PostgreSQL in a directory of its own.
const DEBIAN: &str = "/usr/lib/postgresql";

const PG_DUMP: &str = "pg_dump";

/// What a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// A file that takes the place of the one that was copied.
    SqliteFile,
    /// For `pg_restore`.
    PgDump,
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Sqlite(#[from] DatabaseError),
    #[error(
        "{PG_DUMP} is neither in PATH nor below {DEBIAN}: install PostgreSQL's client programs (Debian: postgresql-client)"
    )]
    NoPgDump,
    #[error("{} cannot be run", program.display())]
    Run {
        program: PathBuf,
        source: std::io::Error,
    },
    #[error("{} failed ({status}): {said}", program.display())]
    PgDump {
        program: PathBuf,
        status: ExitStatus,
        said: String,
    },
}

impl DatabaseUrl {
    /// Copies what is committed now into a file that is there and empty. Nobody waits for it.
    ///
    /// # Errors
    /// The database cannot be read, or the copy not be written; what is in the file then is of no use.
    pub async fn copy_to(&self, file: &Path) -> Result<Copied, CopyError> {
        if let Some(path) = self.sqlite_path() {
            Sqlite::copy(path, file).await?;
            return Ok(Copied::SqliteFile);
        }
        let program = pg_dump().ok_or(CopyError::NoPgDump)?;
        let (url, password) = self.for_programs();
        let mut command = Command::new(&program);
        command
            .args(["--format=custom", "--no-password", "--dbname", &url])
            .arg("--file")
            .arg(file);
        if let Some(password) = password {
            // Not among the arguments, which everybody on this machine can read.
            command.env("PGPASSWORD", password);
        }
        let output = command.output().map_err(|source| CopyError::Run {
            program: program.clone(),
            source,
        })?;
        match output.status.success() {
            true => Ok(Copied::PgDump),
            false => Err(CopyError::PgDump {
                program,
                status: output.status,
                said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
        }
    }
}

/// The one in PATH, else the newest of Debian's.
fn pg_dump() -> Option<PathBuf> {
    let in_path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&in_path).collect::<Vec<_>>();
    let programs = in_path.into_iter().chain(newest_of_debian());
    programs
        .map(|place| place.join(PG_DUMP))
        .find(|program| program.is_file())
}

fn newest_of_debian() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).ok()?;
    let number = |path: &Path| {
        path.file_name()
            .and_then(OsStr::to_str)?
            .parse::<u32>()
            .ok()
    };
    versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .max_by_key(|path| number(path))
        .map(|path| path.join("bin"))
}
