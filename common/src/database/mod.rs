//! The database of a cluster: one SQLite file for all tiers of one process, or PostgreSQL for as many
//! processes as there are.
//!
//! ```text
//! sqlite:PATH        made and migrated when it is opened        `rcu up`, `rcu demo`, tests
//! postgres://…       checked when it is opened; only `rcu db migrate` changes its schema
//! ```
//!
//! What is asked of it stands with the tier that asks: each has its statements in both dialects.

mod certificate;
mod clocks;
mod copy;
mod files;
mod postgres;
mod settings;
mod sqlite;
mod url;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_core::future::BoxFuture;

pub use certificate::CertificateSource;
pub use copy::{Copied, CopyError};
pub use files::FileError;
pub use postgres::{
    APPLICATION, Lease, Migrated, Patience, Postgres, UnixMs, Waiting, is_lock_timeout,
};
pub use settings::DatabaseSettings;
pub use sqlite::{Sqlite, Writing};
pub use url::{DatabaseUrl, UrlError};

/// Cheap to clone; all clones share the connections.
#[derive(Clone, Debug)]
pub enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Who uses a database, and how much of it. SQLite, which is shared by all tiers of a process, does not
/// ask.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// What the database lists the connections under, behind [`APPLICATION`]: a tier and its node's name.
    pub name: &'a str,
    /// At most so many at a time.
    pub connections_max: u32,
    /// Whoever needs a connection waits at most so long for one.
    pub connect_deadline: Duration,
}

/// Why a database cannot be used. None of them has the password in it.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("cannot open the database {database}")]
    Open {
        database: String,
        source: sqlx::Error,
    },
    #[error(
        "{database} is missing, but {} with what was committed to it is there: put the file back; \
         or move that away as well, to begin with an empty one",
        beside.display()
    )]
    FileMissing { database: String, beside: PathBuf },
    #[error("cannot bring the schema of {database} up to date")]
    Migrate {
        database: String,
        source: sqlx::migrate::MigrateError,
    },
    /// Of PostgreSQL: a file is brought up to date when it is opened.
    #[error(
        "{database} has schema {found}, this program needs {needed}: run `rcu db migrate --database URL`"
    )]
    SchemaTooOld {
        database: String,
        found: i64,
        needed: i64,
    },
    #[error("{database} has schema {found}, this program knows {needed}: run a newer one")]
    SchemaTooNew {
        database: String,
        found: i64,
        needed: i64,
    },
}

impl Database {
    /// Opens a SQLite file, made and brought up to date where that is needed; or connects to a
    /// PostgreSQL database with the right schema.
    ///
    /// # Errors
    /// It cannot be opened, or has another schema than this program needs.
    pub fn connect<'a>(
        url: &'a DatabaseUrl,
        client: Client<'a>,
    ) -> BoxFuture<'a, Result<Self, DatabaseError>> {
        Box::pin(async move {
            match url.sqlite_path() {
                Some(path) => Self::open(path).await,
                None => Postgres::connect(url, client).await.map(Self::Postgres),
            }
        })
    }

    /// Opens a SQLite file, makes it where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened or written, or its schema is newer than this program.
    pub fn open(path: &Path) -> BoxFuture<'_, Result<Self, DatabaseError>> {
        Box::pin(async { Sqlite::open(path).await.map(Self::Sqlite) })
    }

    /// Waits until every statement is done, then closes the connections.
    pub fn close(&self) -> BoxFuture<'_, ()> {
        match self {
            Self::Sqlite(sqlite) => Box::pin(sqlite.close()),
            Self::Postgres(postgres) => Box::pin(postgres.close()),
        }
    }

    /// `None` where it is PostgreSQL.
    pub fn sqlite(&self) -> Option<&Sqlite> {
        match self {
            Self::Sqlite(sqlite) => Some(sqlite),
            Self::Postgres(_) => None,
        }
    }
}

impl From<Sqlite> for Database {
    fn from(sqlite: Sqlite) -> Self {
        Self::Sqlite(sqlite)
    }
}

impl From<Postgres> for Database {
    fn from(postgres: Postgres) -> Self {
        Self::Postgres(postgres)
    }
}
