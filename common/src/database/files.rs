//! Whether the files of an open SQLite database are still those of their names.
//!
//! ```text
//! rcu.db       device 8, inode 41      opened, and 41 is what the name leads to      all is well
//! rcu.db       (none), or inode 97     opened 41: COMMITs go where nobody will ever look
//! ```
//!
//! A file that is removed, moved away or replaced, with its directory or by an unmount, goes on taking
//! COMMITs for as long as a process has it open, and SQLite says nothing. So whoever acknowledges a COMMIT asks
//! here first. Where the same files come back under their names, everything that was committed is in them, and
//! it goes on; in another file nobody writes before a process opens it.
//!
//! That is three calls of the system, some microseconds beside a COMMIT that waits for the disk.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::codes::Code;
use crate::logging::outage::Outage;
use crate::millis::millis;

/// What SQLite keeps beside its file for as long as somebody has it open: what is committed and not yet in
/// the file, and who may read how much of that. A process that opens the name next makes what is missing
/// anew, and knows nothing of what stands in these.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

#[derive(Debug)]
pub(super) struct Files {
    opened: Vec<(PathBuf, Identity)>,
    began: Instant,
    outage: Mutex<Outage>,
}

/// Device and inode.
type Identity = (u64, u64);

/// What is wrong with a file that is open.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{} was removed or moved away while it is open", .0.display())]
    Gone(PathBuf),
    #[error("{} was replaced by another file while it is open", .0.display())]
    Replaced(PathBuf),
    #[error("{} cannot be looked at: {why}", path.display())]
    Unseen { path: PathBuf, why: ErrorKind },
}

impl Files {
    /// Of a database that was opened just now, and was read.
    ///
    /// # Errors
    /// It is gone already.
    pub(super) fn of(database: &Path) -> io::Result<Self> {
        let mut opened = vec![(database.to_owned(), identity(&fs::metadata(database)?))];
        for path in beside(database) {
            match fs::metadata(&path) {
                Ok(metadata) => opened.push((path, identity(&metadata))),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            opened,
            began: Instant::now(),
            outage: Mutex::default(),
        })
    }

    /// The log hears of it once, and each minute while it lasts.
    ///
    /// # Errors
    /// What is committed is of no use to anybody.
    pub(super) fn check(&self) -> Result<(), FileError> {
        let found = self.find();
        let now_ms = millis(self.began.elapsed());
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match &found {
            Ok(()) => {
                if let Some(failures) = outage.worked(now_ms) {
                    tracing::info!(
                        code = Code::DatabaseFileBack.number(),
                        failures,
                        "the file of the database is under its name again"
                    );
                }
            }
            Err(error) => {
                if let Some(failures) = outage.failed(now_ms) {
                    tracing::error!(
                        code = Code::DatabaseFileLost.number(),
                        %error, failures,
                        "the database is not the file of its name any more: nothing is stored or acknowledged"
                    );
                }
            }
        }
        found
    }

    /// Where another file has the name when the last connection is closed, SQLite leaves what lies beside the
    /// old one. Whoever opens the name next would have it read into the new file.
    pub(super) fn set_aside(&self) {
        let Some(((database, opened), beside)) = self.opened.split_first() else {
            return;
        };
        let is = |path: &Path| fs::metadata(path).map(|metadata| identity(&metadata));
        if is(database).is_ok_and(|now| now != *opened) {
            for (path, opened) in beside {
                if is(path).is_ok_and(|now| now == *opened)
                    && let Err(error) = fs::rename(path, path.with_added_extension("old"))
                {
                    tracing::debug!(path = %path.display(), %error, "it cannot be set aside");
                }
            }
        }
    }

    fn find(&self) -> Result<(), FileError> {
        for (path, opened) in &self.opened {
            match fs::metadata(path) {
                Ok(metadata) if identity(&metadata) == *opened => {}
                Ok(_) => return Err(FileError::Replaced(path.clone())),
                Err(error) => {
                    let path = path.clone();
                    return Err(match error.kind() {
                        ErrorKind::NotFound => FileError::Gone(path),
                        why => FileError::Unseen { path, why },
                    });
                }
            }
        }
        Ok(())
    }
}

/// What was committed to a file that is not there: SQLite would take it for the content of a new one.
pub(super) fn left_behind(database: &Path) -> Option<PathBuf> {
    let is_missing = matches!(database.try_exists(), Ok(false));
    beside(database).find(|path| is_missing && path.exists())
}

fn beside(database: &Path) -> impl Iterator<Item = PathBuf> {
    BESIDE.into_iter().map(move |ending| {
        let mut name = OsString::from(database);
        name.push(ending);
        name.into()
    })
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}
