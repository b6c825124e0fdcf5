//! The data directory: the database of a one-machine cluster, its keys, and where its processes listen.
//!
//! ```text
//! rcu-data/            0700
//!   rcu.db             accounts and telemetry (and SQLite's files beside it)
//!   keys/              0700
//!     cluster          lets processes link to one another
//!     operator         lets this command link to a conn server
//!     master           opens the device keys in rcu.db
//!   up.json            addresses of the present run of `rcu up`
//! ```
//!
//! Key files hold 64 hex digits and are refused where others can read them. They are made when they
//! are missing; but without `master` a database that is there would be worthless, so it is not
//! replaced.

use std::io;
use std::path::{Path, PathBuf};

use common::key_files::{self, CLUSTER, KeyDirectory, MASTER, OPERATOR};
use common::link::{KeyError, Keys, read_secret};
use conn_server::accounts::seal::MasterKey;

use crate::used::Used;

/// Where nothing else is said.
pub(crate) const DEFAULT: &str = "./rcu-data";

const KEYS: &str = "keys";

/// Where `rcu up` on this directory says what its addresses are.
pub(crate) fn up_json(directory: &Path) -> PathBuf {
    directory.join("up.json")
}

/// What lets operators into the cluster of this directory.
pub(crate) fn operator_key(directory: &Path) -> PathBuf {
    directory.join(KEYS).join(OPERATOR)
}

/// A directory that is there, with its keys.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("there is no cluster in {}: `rcu up` or `rcu device add` makes one", .0.display())]
    Missing(PathBuf),
    #[error(
        "{} was used before, and there is no database in it now: is its disk mounted? `rcu up --new` makes a new \
         cluster there, which knows no device of the old one",
        .0.display()
    )]
    Emptied(PathBuf),
    #[error("cannot make {}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error(
        "{} is missing, and nothing else opens the device keys in {}: put it back, or move the database away",
        key.display(), database.display()
    )]
    MasterLost { key: PathBuf, database: PathBuf },
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl DataDir {
    /// Opens a directory that some command made before.
    ///
    /// # Errors
    /// [`DataError::Missing`].
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let data = Self {
            path: path.to_owned(),
        };
        match data.has_database() {
            true => Ok(data),
            false => Err(DataError::Missing(path.to_owned())),
        }
    }

    /// Makes what is missing: the directory and its keys. Several processes may do so at a time.
    ///
    /// # Errors
    /// Something cannot be made; [`DataError::MasterLost`]; [`DataError::Emptied`], by what `used` knows.
    pub(crate) fn open_or_make(path: &Path, used: &Used) -> Result<Self, DataError> {
        let data = Self {
            path: path.to_owned(),
        };
        if !data.has_database() && used.knows(path) {
            return Err(DataError::Emptied(path.to_owned()));
        }
        let keys = path.join(KEYS);
        let make = |source| DataError::Make {
            path: keys.clone(),
            source,
        };
        let directory = KeyDirectory::open(&keys).map_err(make)?;
        let master = data.key_path(MASTER);
        if !master.exists() && data.has_database() {
            return Err(DataError::MasterLost {
                key: master,
                database: data.database_path(),
            });
        }
        for name in key_files::NAMES {
            match directory.make(name) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    let path = directory.path_of(name);
                    return Err(DataError::Make { path, source });
                }
                _ => {}
            }
        }
        directory.finish().map_err(make)?;
        Ok(data)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn database_path(&self) -> PathBuf {
        self.path.join("rcu.db")
    }

    pub(crate) fn has_database(&self) -> bool {
        self.database_path().exists()
    }

    pub(crate) fn keys_path(&self) -> PathBuf {
        self.path.join(KEYS)
    }

    pub(crate) fn up_json_path(&self) -> PathBuf {
        up_json(&self.path)
    }

    /// What lets the tiers, and operators, into one another's links.
    pub(crate) fn link_keys(&self) -> Result<Keys, DataError> {
        let cluster = Keys::from_file(&self.key_path(CLUSTER))?;
        Ok(cluster.with_operator_file(&self.key_path(OPERATOR))?)
    }

    pub(crate) fn master_key(&self) -> Result<MasterKey, DataError> {
        Ok(read_secret(&self.key_path(MASTER))?)
    }

    fn key_path(&self, name: &str) -> PathBuf {
        self.keys_path().join(name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open_or_make(path: &Path) -> Result<DataDir, DataError> {
        DataDir::open_or_make(path, &Used::by_nobody())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_for_its_owner_only_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new").join("rcu-data");
        let data = open_or_make(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("keys")), 0o700);
        for name in ["cluster", "operator", "master"] {
            assert_eq!(mode(&path.join("keys").join(name)), 0o600);
        }
        assert_eq!(fs::read_dir(path.join("keys")).unwrap().count(), 3);
        let master = data.master_key().unwrap();
        let again = open_or_make(&path).unwrap();
        assert_eq!(again.master_key().unwrap(), master);
        let keys = again.link_keys().unwrap();
        assert_ne!(keys.cluster, keys.operator);
    }

    #[test]
    fn keys_made_by_several_at_a_time_are_the_same_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu-data");
        let masters: Vec<_> = std::thread::scope(|scope| {
            let make = || open_or_make(&path).unwrap().master_key().unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(masters.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let data = open_or_make(directory.path()).unwrap();
        let master = directory.path().join("keys").join("master");
        fs::set_permissions(&master, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = data.master_key().unwrap_err().to_string();
        assert!(refused.contains("can be read by others"), "{refused}");
    }

    #[test]
    fn a_lost_master_key_is_not_replaced_where_a_database_needs_it() {
        let directory = tempfile::tempdir().unwrap();
        let data = open_or_make(directory.path()).unwrap();
        fs::write(data.database_path(), b"").unwrap();
        fs::remove_file(data.key_path(MASTER)).unwrap();
        let refused = open_or_make(directory.path()).unwrap_err();
        assert!(matches!(refused, DataError::MasterLost { .. }));
    }

    #[test]
    fn a_directory_without_a_database_holds_no_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let refused = DataDir::open(directory.path()).unwrap_err();
        assert!(matches!(refused, DataError::Missing(_)));
    }
}
