//! A PostgreSQL database: connections that give up in time, on both sides, and the schema's version.
//!
//! Whoever waits for a statement drops it at a deadline. The server must not go on with it then: it
//! would keep locks, and each attempt that follows would take one more of its connections. So the
//! server looks each second whether its client is still there, and does not wait for one that is
//! silent in the middle of a transaction.
//!
//! `session`: what each connection must hold · `patience`: locks of statements that change the schema

mod patience;
mod session;

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgConnection, PgHasArrayType, PgPool, PgPoolOptions, PgTypeInfo, PgValueRef,
};
use sqlx::{Connection, Decode, Encode, Executor, Type};

pub use self::patience::{Patience, Waiting, is_lock_timeout};
use self::session::{Session, quietly};
use super::clocks;
use super::sqlite::newest;
use super::{Client, DatabaseError, DatabaseUrl};
use crate::codes::Code;
use crate::process::clock::unix_ms;

const MIGRATOR: Migrator = sqlx::migrate!("../config/schema/postgres");

/// A connection that has been idle so long is asked whether it works before it is used. One that was
/// used just now is not: to ask costs as much as a statement.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// Before the name of whoever is connected.
pub const APPLICATION: &str = "rcu ";

/// The name of `rcu db`.
const DB: &str = "db";

/// 2000-01-01, from which PostgreSQL counts, in Unix microseconds.
const EPOCH_UNIX_US: i64 = 946_684_800_000_000;

/// `timestamptz`, as its wire has it.
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);

/// How many times as long whoever needs a connection waits for the pool as for the reason why it has none.
const WHY_NONE: u32 = 3;

/// Cheap to clone; all clones share the connections.
#[derive(Clone, Debug)]
pub struct Postgres(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    pool: PgPool,
    session: Arc<Session>,
}

/// What `rcu db migrate` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Versions of the schema; 0: there was none.
    pub from: i64,
    pub to: i64,
}

impl Postgres {
    pub(super) async fn connect(
        url: &DatabaseUrl,
        client: Client<'_>,
    ) -> Result<Self, DatabaseError> {
        let open = open_error(url);
        let session = Arc::new(session(url, client.name));
        let pool = pool(client, &session);
        // By itself the pool would try again and again, and say in the end that it took too long.
        let connecting = tokio::time::timeout(client.connect_deadline, session.connect());
        let connected = connecting.await.unwrap_or_else(|_| Err(silent()));
        let mut connection = connected.map_err(&open)?;
        let found = version(&mut connection).await.map_err(&open)?;
        let lacking = not_durable(&mut connection).await.map_err(&open)?;
        let asked_ms = unix_ms();
        let database_ms = clock_ms(&mut connection).await.map_err(&open)?;
        let difference_s = clocks::difference_s(database_ms, [asked_ms, unix_ms()]);
        let _ = connection.close().await;
        if let Some(ahead_s) = difference_s {
            tracing::warn!(
                code = Code::ClocksDiffer.number(),
                ahead_s,
                "the clock of the database is not that of this machine"
            );
        }
        if !lacking.is_empty() {
            tracing::warn!(
                code = Code::DatabaseNotDurable.number(),
                off = lacking.join(", "),
                "what the database takes may be lost when its machine goes down"
            );
        }
        let (database, needed) = (url.to_string(), newest(&MIGRATOR));
        match found.cmp(&needed) {
            std::cmp::Ordering::Equal => Ok(Self(Arc::new(Opened { pool, session }))),
            std::cmp::Ordering::Less => Err(DatabaseError::SchemaTooOld {
                database,
                found,
                needed,
            }),
            std::cmp::Ordering::Greater => Err(DatabaseError::SchemaTooNew {
                database,
                found,
                needed,
            }),
        }
    }

    /// Brings the schema up to date, one migration a transaction; two at a time wait for each other.
    ///
    /// # Errors
    /// It cannot be reached, is newer than this program, or the user owns no tables in it. A file is
    /// brought up to date when it is opened, and is no error.
    pub async fn migrate(url: &DatabaseUrl) -> Result<Migrated, DatabaseError> {
        Self::migrate_with(url, &Patience::default(), |_| ()).await
    }

    /// The same; what it waits for is told.
    ///
    /// # Errors
    /// As above; and somebody used a table at each of its tries.
    pub async fn migrate_with(
        url: &DatabaseUrl,
        patience: &Patience,
        mut told: impl FnMut(&Waiting),
    ) -> Result<Migrated, DatabaseError> {
        let open = open_error(url);
        let needed = newest(&MIGRATOR);
        let session = session(url, DB);
        let mut from = None;
        for tries in 1.. {
            // A new one each time: the library keeps its lock on one that failed.
            let mut connection = session.connect().await.map_err(&open)?;
            let found = version(&mut connection).await.map_err(&open)?;
            if found > needed {
                return Err(DatabaseError::SchemaTooNew {
                    database: url.to_string(),
                    found,
                    needed,
                });
            }
            from.get_or_insert(found);
            stay(&mut connection).await.map_err(&open)?;
            let limit = patience.statement("SESSION");
            connection.execute(&*limit).await.map_err(&open)?;
            let Err(source) = MIGRATOR.run(&mut connection).await else {
                let _ = connection.close().await;
                break;
            };
            let again =
                patience::of_migration(&source).is_some_and(|it| patience.allows(tries, it));
            if !again {
                return Err(DatabaseError::Migrate {
                    database: url.to_string(),
                    source,
                });
            }
            told(&Waiting::of(patience, tries, &mut connection).await);
            let _ = connection.close().await;
            patience.pause().await;
        }
        Ok(Migrated {
            from: from.unwrap_or_default(),
            to: needed,
        })
    }

    /// Whether a database has the schema that this program needs, or which; for whoever shows it.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn versions(url: &DatabaseUrl) -> Result<(i64, i64), DatabaseError> {
        let open = open_error(url);
        let mut connection = session(url, DB).connect().await.map_err(&open)?;
        let found = version(&mut connection).await.map_err(&open)?;
        let _ = connection.close().await;
        Ok((found, newest(&MIGRATOR)))
    }

    /// Settings of the server that are off, and without which a COMMIT outlives no crash of its machine.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn not_durable(&self) -> Result<Vec<String>, sqlx::Error> {
        let mut lease = self.lease().await?;
        let answer = not_durable(&mut lease).await;
        lease.answered(answer)
    }

    /// For statements that have no deadline. Whoever has one takes a [`Lease`].
    pub fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    /// A connection to be given back by hand.
    ///
    /// # Errors
    /// There is none within the client's deadline.
    pub async fn lease(&self) -> Result<Lease, sqlx::Error> {
        match quietly(self.0.pool.acquire()).await {
            Ok(connection) => Ok(Lease(Some(connection))),
            Err(sqlx::Error::PoolTimedOut) => Err(self.why_none().await),
            Err(error) => Err(error),
        }
    }

    /// Where nobody listens, or the server takes no more, the pool tries again and again, and says at last
    /// only that its time is over. What one more try says is what an operator has to know.
    async fn why_none(&self) -> sqlx::Error {
        if self.0.pool.size() >= self.0.pool.options().get_max_connections() {
            // All are in use, and one more would be one too many.
            return sqlx::Error::PoolTimedOut;
        }
        let patience = self.0.pool.options().get_acquire_timeout() / WHY_NONE;
        match tokio::time::timeout(patience, self.0.session.connect()).await {
            Ok(Err(error)) => error,
            // It works just now: whoever tries again gets one.
            Ok(Ok(connection)) => {
                let _ = connection.close().await;
                sqlx::Error::PoolTimedOut
            }
            Err(_) => silent(),
        }
    }

    pub(super) async fn close(&self) {
        self.0.pool.close().await;
    }
}

/// A connection that goes back to the pool only when whoever has it says so. One that is dropped before,
/// at a deadline or after an error, is closed: it may be in the middle of a COPY, or of an answer that
/// never comes, and the pool would wait for it.
#[derive(Debug)]
pub struct Lease(Option<PoolConnection<sqlx::Postgres>>);

impl Lease {
    /// Every statement on it has been answered.
    pub fn give_back(mut self) {
        drop(self.0.take());
    }

    /// Gives it back where its last statement was answered, and hands on what came of that.
    pub fn answered<T>(self, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if answer.is_ok() {
            self.give_back();
        }
        answer
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect("it is given back at its end")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("it is given back at its end")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut connection) = self.0.take() {
            connection.close_on_drop();
        }
    }
}

fn silent() -> sqlx::Error {
    let told = "the server does not answer: connecting timed out";
    io::Error::new(io::ErrorKind::TimedOut, told).into()
}

fn open_error(url: &DatabaseUrl) -> impl Fn(sqlx::Error) -> DatabaseError {
    move |source| DatabaseError::Open {
        database: url.to_string(),
        source,
    }
}

/// As the database lists the connections of `name`.
fn session(url: &DatabaseUrl, name: &str) -> Session {
    let url = url.postgres();
    let url = url.expect("whoever comes here has asked whether it is a file");
    Session::new(url, &format!("{APPLICATION}{name}"))
}

/// Its connections hold what they must, and nothing is logged by the way: who gets none in time says so.
fn pool(client: Client<'_>, session: &Arc<Session>) -> PgPool {
    let of_pool = Arc::clone(session);
    PgPoolOptions::new()
        .max_connections(client.connections_max)
        .acquire_timeout(WHY_NONE * (client.connect_deadline / (WHY_NONE + 1)))
        .acquire_slow_threshold(Duration::MAX)
        .test_before_acquire(false)
        .before_acquire(|connection, about| {
            Box::pin(async move {
                Ok(about.idle_for <= IDLE_TRUSTED || connection.ping().await.is_ok())
            })
        })
        .after_connect(move |connection, _| {
            let session = Arc::clone(&of_pool);
            Box::pin(async move { session.hold(connection).await })
        })
        .connect_lazy_with(session.options().clone())
}

/// Where the schema is it stays, also when the owner has got another one since then that would be looked into
/// first: there all would begin anew, without a row.
async fn stay(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let place = "SELECT set_config('search_path', quote_ident(nspname), false) FROM pg_namespace \
                 WHERE oid = coalesce((SELECT relnamespace FROM pg_class \
                     WHERE oid = to_regclass('_sqlx_migrations')), quote_ident(current_schema())::regnamespace)";
    connection.execute(place).await.map(drop)
}

/// What a session can not set for itself.
async fn not_durable(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let statement = "SELECT name FROM pg_settings \
                     WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name";
    sqlx::query_scalar(statement).fetch_all(connection).await
}

async fn clock_ms(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let statement = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    sqlx::query_scalar(statement).fetch_one(connection).await
}

/// Of the schema; 0: there is none.
async fn version(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let known: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !known {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
        .fetch_one(connection)
        .await
}

/// A `timestamptz` of whole milliseconds, as the rest of the program counts them. PostgreSQL's
/// microseconds are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// As PostgreSQL's binary format has it: microseconds since 2000. A time that no `timestamptz`
    /// holds becomes one that the database refuses, never one of its infinities.
    pub fn to_wire(self) -> i64 {
        let unix_us = self.0.checked_mul(1_000);
        let us = unix_us.and_then(|us| us.checked_sub(EPOCH_UNIX_US));
        us.filter(|&us| us != i64::MAX && us != i64::MIN)
            .unwrap_or(i64::MAX - 1)
    }

    fn from_wire(us: i64) -> Self {
        Self(us.saturating_add(EPOCH_UNIX_US).div_euclid(1_000))
    }
}

impl Type<sqlx::Postgres> for UnixMs {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for UnixMs {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, sqlx::Postgres> for UnixMs {
    fn encode_by_ref(
        &self,
        buffer: &mut PgArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        buffer.extend(self.to_wire().to_be_bytes());
        Ok(sqlx::encode::IsNull::No)
    }
}

impl Decode<'_, sqlx::Postgres> for UnixMs {
    fn decode(value: PgValueRef<'_>) -> Result<Self, sqlx::error::BoxDynError> {
        let bytes = value.as_bytes()?.try_into()?;
        Ok(Self::from_wire(i64::from_be_bytes(bytes)))
    }
}

impl From<UnixMs> for i64 {
    fn from(time: UnixMs) -> Self {
        time.0
    }
}

#[cfg(test)]
mod tests;
