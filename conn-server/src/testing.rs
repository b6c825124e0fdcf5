//! What tests of both databases share.

use common::database::{Client, Database, DatabaseError};
use servers::{Role, TestDatabase};
use sqlx::FromRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use tempfile::TempDir;

/// What goes when the test is over, and the database as its owner has it, as whom `rcu device` changes
/// accounts. What tests get beside it is the same database as a conn server has it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) owner: Database,
    place: Place,
}

impl Held {
    /// As the superuser of the server.
    pub(crate) fn administer(&self, sql: &str) {
        let Place::Database(test) = &self.place else {
            panic!("it is a file");
        };
        test.sql(sql).expect("done");
    }
}

#[derive(Debug)]
enum Place {
    Directory(#[allow(dead_code, reason = "held for its Drop")] TempDir),
    Database(TestDatabase),
}

pub(crate) async fn sqlite() -> (Held, Database) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rcu.db");
    let database = Database::open(&path).await.expect("a database");
    let held = Held {
        owner: database.clone(),
        place: Place::Directory(directory),
    };
    (held, database)
}

pub(crate) async fn postgres() -> (Held, Database) {
    let test = TestDatabase::new();
    let database = connect(&test.url(Role::Login)).await;
    let held = Held {
        owner: connect(&test.url(Role::Owner)).await,
        place: Place::Database(test),
    };
    (held, database)
}

pub(crate) async fn connect(url: &str) -> Database {
    try_connect(url).await.expect("a database")
}

/// As a conn server connects.
pub(crate) async fn try_connect(url: &str) -> Result<Database, DatabaseError> {
    let client = Client {
        name: "conn-1",
        connections_max: crate::accounts::CONNECTIONS_MAX,
        connect_deadline: std::time::Duration::from_secs(3),
    };
    let url = url.parse().expect("a URL");
    Database::connect(&url, client).await
}

pub(crate) async fn run(database: &Database, sql: &str) {
    let done = match database {
        Database::Sqlite(sqlite) => sqlx::raw_sql(sql).execute(sqlite.writer()).await.map(drop),
        Database::Postgres(postgres) => sqlx::raw_sql(sql).execute(postgres.pool()).await.map(drop),
    };
    done.expect("done");
}

pub(crate) async fn rows<T>(database: &Database, sql: &str) -> Vec<T>
where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let rows = match database {
        Database::Sqlite(sqlite) => sqlx::query_as(sql).fetch_all(sqlite.reader()).await,
        Database::Postgres(postgres) => sqlx::query_as(sql).fetch_all(postgres.pool()).await,
    };
    rows.expect("rows")
}

/// Runs each of these tests on both databases. They take what `sqlite` and `postgres` give.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::testing::sqlite().await).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::testing::postgres().await).await;
            })*
        }
    };
}

pub(crate) use on_both;
