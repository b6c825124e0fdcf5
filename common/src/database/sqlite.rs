//! The SQLite file of a one-machine cluster: opened once a process, shared by the tiers in it.
//!
//! SQLite has one writer at a time. Tiers that queued for it inside SQLite would sleep and retry;
//! here they wait in turn for the one writing connection. Readers have connections of their own and never wait.

use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Transaction};

use super::DatabaseError;
use super::files::{self, Files};

/// Statements wait this long for another process (`rcu device …` beside `rcu up`) to finish writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Each is a thread: account look-ups and the demo's checker need no more.
const READERS_MAX: u32 = 4;

/// Pages that the writing connection keeps, in KiB. SQLite's own 2,000 and 8,000 were no faster when
/// measured: the system's cache has what is missing.
const WRITER_CACHE_KIB: u32 = 500;

/// What `rcu.db-wal` keeps on the disk when all of it is in the file. While somebody reads for long it grows
/// by everything that is written; without this it would keep that size for ever.
const WAL_BYTES_KEPT: u64 = 16 << 20;

const MIGRATOR: Migrator = sqlx::migrate!("../config/schema/sqlite");

/// Cheap to clone; all clones share the connections.
#[derive(Clone, Debug)]
pub struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
    files: Arc<Files>,
}

/// What is being written.
#[derive(Debug)]
pub struct Writing<'c> {
    transaction: Transaction<'c, sqlx::Sqlite>,
    files: &'c Files,
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
        if let Some(beside) = files::left_behind(path) {
            let database = name();
            return Err(DatabaseError::FileMissing { database, beside });
        }
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
        let writing = options
            .clone()
            .pragma("cache_size", cache_size)
            .pragma("journal_size_limit", WAL_BYTES_KEPT.to_string());
        let writer = pool(1).connect_with(writing.clone()).await.map_err(open)?;
        // One that is opened anew after an error finds the file, or fails.
        writer.set_connect_options(writing.create_if_missing(false));
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
        // Here all that SQLite has beside its file is there: it was read.
        let files = Files::of(path).map_err(|error| open(error.into()))?;
        Ok(Self {
            writer,
            readers,
            files: Arc::new(files),
        })
    }

    /// Copies what is committed in the file at `path` into `copy`, which is there and empty. Who writes
    /// meanwhile does not wait; the schema stays as it is.
    pub(super) async fn copy(path: &Path, copy: &Path) -> Result<(), DatabaseError> {
        let copied = async {
            let options = SqliteConnectOptions::new()
                .filename(path)
                .busy_timeout(BUSY_TIMEOUT)
                .disable_statement_logging();
            let mut connection = options.connect().await?;
            // One transaction, and none that writes: copying the file would miss what stands beside it.
            sqlx::query("VACUUM INTO ?")
                .bind(copy.display().to_string())
                .execute(&mut connection)
                .await?;
            connection.close().await
        };
        copied.await.map_err(|source| DatabaseError::Open {
            database: path.display().to_string(),
            source,
        })
    }

    /// Begins to write, on the one connection of this process that does. Be short: the batches of the logic
    /// servers wait behind.
    ///
    /// # Errors
    /// The file is not the one of its name any more; SQLite's.
    pub async fn begin(&self) -> Result<Writing<'_>, sqlx::Error> {
        self.check()?;
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let files = &self.files;
        Ok(Writing { transaction, files })
    }

    /// Likewise on a connection of [`Sqlite::writer`].
    pub async fn begin_on<'c>(
        &'c self,
        connection: &'c mut SqliteConnection,
    ) -> Result<Writing<'c>, sqlx::Error> {
        self.check()?;
        let transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let files = &self.files;
        Ok(Writing { transaction, files })
    }

    /// To be asked before anybody relies on what stands in the file.
    ///
    /// # Errors
    /// It is not the one of its name any more.
    pub fn check(&self) -> Result<(), sqlx::Error> {
        self.files.check().map_err(io_error)
    }

    /// The one connection of this process that writes. What is acknowledged goes through
    /// [`Sqlite::begin`] or [`Sqlite::begin_on`].
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
        self.files.set_aside();
    }
}

impl Writing<'_> {
    /// After it what was written is in the file of that name, and outlives a power cut.
    ///
    /// # Errors
    /// It is of unknown outcome.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.transaction.commit().await?;
        self.files.check().map_err(io_error)
    }
}

impl Deref for Writing<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.transaction
    }
}

impl DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }
}

fn io_error(error: files::FileError) -> sqlx::Error {
    io::Error::other(error).into()
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

    async fn write(database: &Sqlite) -> Result<(), sqlx::Error> {
        let mut writing = database.begin().await?;
        let insert =
            "INSERT INTO epoch_marks VALUES (1, 1) ON CONFLICT DO UPDATE SET mark = mark + 1";
        sqlx::query(insert).execute(&mut *writing).await?;
        writing.commit().await
    }

    /// Whatever becomes of the files, a COMMIT that nobody will find is none.
    #[tokio::test]
    async fn nothing_is_written_to_a_file_that_is_not_the_one_of_its_name() {
        for lost in ["rcu.db", "rcu.db-wal", "rcu.db-shm", ""] {
            let directory = tempfile::tempdir().unwrap();
            let home = directory.path().join("data");
            std::fs::create_dir(&home).unwrap();
            let path = home.join("rcu.db");
            let database = Sqlite::open(&path).await.unwrap();
            write(&database).await.unwrap();
            let (lost, away) = (home.join(lost), directory.path().join("away"));
            std::fs::rename(&lost, &away).unwrap();
            for _ in 0..2 {
                let refused = write(&database).await.unwrap_err().to_string();
                assert!(refused.contains("moved away"), "{refused}");
                database.check().unwrap_err();
            }
            // It comes back, and all is in it.
            std::fs::rename(&away, &lost).unwrap();
            write(&database).await.unwrap();
            database.close().await;
            let database = Sqlite::open(&path).await.unwrap();
            let (mark,): (i64,) = sqlx::query_as("SELECT mark FROM epoch_marks")
                .fetch_one(database.reader())
                .await
                .unwrap();
            assert_eq!(mark, 2);
        }
    }

    #[tokio::test]
    async fn a_commit_under_way_while_the_file_goes_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu.db");
        let database = Sqlite::open(&path).await.unwrap();
        let writing = database.begin().await.unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(writing.commit().await.is_err());
    }

    #[tokio::test]
    async fn another_file_of_that_name_is_let_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu.db");
        let database = Sqlite::open(&path).await.unwrap();
        let copy = directory.path().join("copy");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::rename(&copy, &path).unwrap();
        let before = std::fs::read(&path).unwrap();
        let refused = write(&database).await.unwrap_err().to_string();
        assert!(refused.contains("replaced by another file"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[tokio::test]
    async fn what_was_committed_to_the_old_file_is_not_read_into_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu.db");
        let copy = directory.path().join("copy");
        let database = Sqlite::open(&path).await.unwrap();
        let wal = "PRAGMA wal_checkpoint(TRUNCATE)";
        sqlx::query(wal).execute(database.writer()).await.unwrap();
        std::fs::copy(&path, &copy).unwrap();
        write(&database).await.unwrap();
        std::fs::rename(&copy, &path).unwrap();
        database.close().await;
        let database = Sqlite::open(&path).await.unwrap();
        let (marks,): (i64,) = sqlx::query_as("SELECT count(*) FROM epoch_marks")
            .fetch_one(database.reader())
            .await
            .unwrap();
        assert_eq!(marks, 0);
        assert!(directory.path().join("rcu.db-wal.old").exists());
    }

    /// SQLite would read it into the new file.
    #[tokio::test]
    async fn no_new_file_is_made_beside_what_was_committed_to_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu.db");
        let database = Sqlite::open(&path).await.unwrap();
        write(&database).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let refused = Sqlite::open(&path).await.unwrap_err();
        assert!(
            matches!(refused, DatabaseError::FileMissing { .. }),
            "{refused}"
        );
        assert!(!path.exists());
    }

    /// Who reads for long has everything gather in `rcu.db-wal`; afterwards it is small again.
    #[tokio::test]
    async fn the_wal_shrinks_when_a_long_reader_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu.db");
        let database = Sqlite::open(&path).await.unwrap();
        let wal_bytes = || {
            std::fs::metadata(path.with_extension("db-wal"))
                .unwrap()
                .len()
        };
        let put = async |rows: u32| {
            let mut writing = database.begin().await.unwrap();
            let insert = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?) \
                          INSERT INTO telemetry_custom \
                          SELECT abs(random()), n, n, n, 9, 1, randomblob(1000) FROM n";
            let insert = sqlx::query(insert).bind(rows);
            insert.execute(&mut *writing).await.unwrap();
            writing.commit().await.unwrap();
        };
        let mut reader = database.reader().begin().await.unwrap();
        let count = "SELECT count(*) FROM telemetry_custom";
        let (rows,): (i64,) = sqlx::query_as(count).fetch_one(&mut *reader).await.unwrap();
        assert_eq!(rows, 0);
        while wal_bytes() <= 2 * WAL_BYTES_KEPT {
            put(2_000).await;
        }
        reader.rollback().await.unwrap();
        for _ in 0..3 {
            put(1).await;
        }
        assert!(wal_bytes() <= WAL_BYTES_KEPT, "{}", wal_bytes());
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
