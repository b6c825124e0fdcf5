//! The key files of a cluster, and how they are made.
//!
//! ```text
//! DIRECTORY/    0700
//!   cluster     0600   lets processes link to one another: every process
//!   operator    0600   lets operators link to conn servers: conn servers and whoever operates
//!   master      0600   opens the device keys in the database: conn servers and `rcu device`
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;

use crate::link::write_key;
use crate::secret::Secret;

/// The names of the files.
pub const CLUSTER: &str = "cluster";
pub const OPERATOR: &str = "operator";
pub const MASTER: &str = "master";

/// All of them.
pub const NAMES: [&str; 3] = [CLUSTER, OPERATOR, MASTER];

/// A directory in which nobody else makes keys for as long as this is held.
#[derive(Debug)]
pub struct KeyDirectory {
    path: PathBuf,
    /// Of the directory, locked.
    lock: File,
}

impl KeyDirectory {
    /// Makes the directory where it is missing, and waits until nobody else makes keys in it: else two
    /// would each make a key and one of them be lost.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut directories = DirBuilder::new();
        directories.recursive(true).mode(0o700).create(path)?;
        let lock = File::open(path)?;
        lock.lock()?;
        Ok(Self {
            path: path.into(),
            lock,
        })
    }

    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a new key. Whoever reads the file finds a whole key in it.
    ///
    /// # Errors
    /// `AlreadyExists`: a key is never overwritten; or it cannot be written.
    pub fn make(&self, name: &str) -> io::Result<()> {
        let path = self.path_of(name);
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut key = [0; 32];
        SysRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
        let unfinished = path.with_extension("new");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_key(&unfinished, &Secret::new(key))?;
        fs::rename(unfinished, path)
    }

    /// After it the keys outlive a power cut.
    ///
    /// # Errors
    /// The disk does not take the directory.
    pub fn finish(self) -> io::Result<()> {
        self.lock.sync_all()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::link::read_secret;

    #[test]
    fn keys_are_made_for_their_owner_only_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new").join("keys");
        let keys = KeyDirectory::open(&path).unwrap();
        for name in NAMES {
            keys.make(name).unwrap();
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&keys.path_of(MASTER)), 0o600);
        let secret = |name| read_secret(&keys.path_of(name)).unwrap();
        assert_ne!(secret(CLUSTER), secret(OPERATOR));

        let master = secret(MASTER);
        let refused = keys.make(MASTER).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(secret(MASTER), master);
        keys.finish().unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), NAMES.len());
    }
}
