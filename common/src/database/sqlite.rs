//! The SQLite file of a one-machine cluster: opened once a process, shared by the tiers in it.
//!
//! SQLite has one writer at a time. Tiers that queued for it inside SQLite would sleep and retry;
//! here they wait in turn for the one writing connection. Readers have connections of their own and never wait.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::DatabaseError;

/// Statements wait this long for another process (`rcu device …` beside `rcu up`) to finish writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Each is a thread: account look-ups and the demo's checker need no more.
const READERS_MAX: u32 = 4;

/// Pages that the writing connection keeps, in KiB. SQLite's own 2,000 and 8,000 were no faster when
/// measured: the system's cache has what is missing.
const WRITER_CACHE_KIB: u32 = 500;

const MIGRATOR: Migrator = sqlx::migrate!("../config/schema/sqlite");

/// Cheap to clone; all clones share the connections.
#[derive(Clone, Debug)]
pub struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    /// Opens the file, makes it where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened or written, or its schema is newer than this program.
    pub(super) async fn open(path: &Path) -> Result<Self, DatabaseError> {
        let name = || path.display().to_string();
        let open = |source| DatabaseError::Open {
            database: name(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // NORMAL lost acknowledged rows at power cuts; FULL lost none, and costs 1 to 3 %.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            // It would print whole statements, hundreds of rows long.
            .disable_statement_logging();
        let cache_size = format!("-{WRITER_CACHE_KIB}");
        let writer = pool(1)
            .connect_with(options.clone().pragma("cache_size", cache_size))
            .await
            .map_err(open)?;
        MIGRATOR.run(&writer).await.map_err(|source| match source {
            MigrateError::VersionMissing(found) => DatabaseError::SchemaTooNew {
                database: name(),
                found,
                needed: newest(&MIGRATOR),
            },
            source => DatabaseError::Migrate {
                database: name(),
                source,
            },
        })?;
        let readers = pool(READERS_MAX)
            .connect_with(options.read_only(true))
            .await
            .map_err(open)?;
        Ok(Self { writer, readers })
    }

    /// The one connection of this process that writes. Begin with `BEGIN IMMEDIATE` and be short:
    /// the batches of the logic servers wait behind.
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Connections that only read.
    pub fn reader(&self) -> &SqlitePool {
        &self.readers
    }

    /// Waits until every statement is done, then closes the file.
    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// The version that a program with these migrations needs.
pub(super) fn newest(migrator: &Migrator) -> i64 {
    let versions = migrator.iter().map(|migration| migration.version);
    versions.max().unwrap_or_default()
}

/// A pool whose connections stay: opening one costs a thread and a schema read. They are to a file:
/// asking first whether one still works would cost as much as a statement, and tell nothing.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_directory_gets_a_file_with_the_schema_and_opens_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu.db");
        for _ in 0..2 {
            let database = Sqlite::open(&path).await.unwrap();
            let (accounts,): (i64,) = sqlx::query_as("SELECT count(*) FROM accounts")
                .fetch_one(database.reader())
                .await
                .unwrap();
            assert_eq!(accounts, 0);
            database.close().await;
        }
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let database = Sqlite::open(&directory.path().join("rcu.db"))
            .await
            .unwrap();
        let refused = sqlx::query("DELETE FROM accounts")
            .execute(database.reader())
            .await;
        assert!(refused.is_err());
    }

    #[tokio::test]
    async fn a_file_of_a_newer_program_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu.db");
        let database = Sqlite::open(&path).await.unwrap();
        sqlx::query("UPDATE _sqlx_migrations SET version = 99 WHERE version = 1")
            .execute(database.writer())
            .await
            .unwrap();
        database.close().await;
        let refused = Sqlite::open(&path).await.unwrap_err().to_string();
        let needed = newest(&MIGRATOR);
        let says = format!("has schema 99, this program knows {needed}: run a newer one");
        assert!(refused.ends_with(&says), "{refused}");
    }
}
