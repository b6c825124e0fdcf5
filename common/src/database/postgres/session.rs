//! What a session of PostgreSQL must hold, whatever stands between it and its server.
//!
//! The settings go with the start of a connection. A pooler (pgbouncer and its kin) may drop them, and may
//! lend one session of the server to many. So each new connection is asked what it holds:
//!
//! ```text
//! straight ──────────▶ the mark of this process is there, and all it set         one question
//! pooler, by session ▶ no mark: what is missing is set, and asked for again      four, and a second connection
//! pooler, by transaction, or by statement                                        refused
//! ```
//!
//! A pooler by transaction may look like the other kind for as long as few use it: it lends the same session
//! again. But whoever is between two transactions has none, and hears nothing. So a second connection listens,
//! and the first one calls: what hears has a session of its own.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions as _, Executor as _, Row as _};
use tokio::time::timeout;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

/// Settings of every session.
const SETTINGS: [(&str, &str); 6] = [
    // What is acknowledged after COMMIT outlives a power cut, whatever is usual on this server.
    ("synchronous_commit", "on"),
    // "It is there already, skipping" is no news.
    ("client_min_messages", "warning"),
    ("client_connection_check_interval", "1s"),
    ("idle_in_transaction_session_timeout", "30s"),
    // Of a peer that the network has swallowed; milliseconds, as the server shows it.
    (TCP_USER_TIMEOUT, "30000"),
    ("TimeZone", "UTC"),
];

/// A Unix socket has none.
const TCP_USER_TIMEOUT: &str = "tcp_user_timeout";

/// By which a session of the server is known to have been made for this process.
const MARK: &str = "rcu.mark";

/// A call is heard at once by whoever can hear it.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// For the second connection.
const SECOND_WITHIN: Duration = Duration::from_secs(3);

/// Why a connection is not used.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(
        "a pooler stands before PostgreSQL that lends a session for one transaction or statement (pgbouncer: \
         pool_mode = transaction); it must keep one for each connection: pool_mode = session"
    )]
    NotKept,
    #[error(
        "a pooler stands before PostgreSQL that gives no second connection (pgbouncer: default_pool_size)"
    )]
    NoSecond,
    #[error(
        "a pooler stands before PostgreSQL that drops the options of the database's URL: give them to the role \
         (ALTER ROLE … SET …)"
    )]
    OptionsDropped,
    #[error(
        "a session of PostgreSQL does not hold what it was given: {0}; what stands between, such as a pooler, \
         must let it"
    )]
    NotHeld(String),
}

impl From<SessionError> for sqlx::Error {
    /// The one kind that shows what it was given, once.
    fn from(error: SessionError) -> Self {
        Self::InvalidArgument(error.to_string())
    }
}

/// How sessions are made, and what they must hold.
#[derive(Debug)]
pub(super) struct Session {
    options: PgConnectOptions,
    mark: String,
    /// Whoever wrote the URL wants something held, too.
    url_has_options: bool,
}

impl Session {
    /// `url`: as it was written, without anything of ours.
    pub(super) fn new(url: PgConnectOptions, application_name: &str) -> Self {
        let mark = format!("{:016x}", rand::random::<u64>());
        Self {
            url_has_options: url.get_options().is_some(),
            options: url
                .application_name(application_name)
                .options(SETTINGS)
                .options([(MARK, &mark)])
                // It would print whole statements.
                .disable_statement_logging(),
            mark,
        }
    }

    /// For a pool, which asks each connection by [`Session::hold`].
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// A connection that holds what it must.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let connecting = async {
            let mut connection = self.options.connect().await?;
            self.hold(&mut connection).await?;
            Ok(connection)
        };
        quietly(connecting).await
    }

    /// Sees to it that a new connection holds what it must; else it is not to be used.
    pub(super) async fn hold(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (mark, lacking) = look(connection).await?;
        if mark.as_deref() == Some(&self.mark) {
            return held(lacking);
        }
        if self.url_has_options {
            return Err(SessionError::OptionsDropped.into());
        }
        if !self.is_kept(connection).await? {
            return Err(SessionError::NotKept.into());
        }
        let set = SETTINGS.map(|(name, value)| format!("set_config('{name}', '{value}', false)"));
        let set = format!("SELECT {}", set.join(", "));
        connection.execute(&*set).await?;
        let (_, lacking) = look(connection).await?;
        held(lacking)
    }

    /// Whether the pooler keeps a session for each connection.
    async fn is_kept(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let channel = format!("rcu_heard_{}", self.mark);
        let second = PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(self.options.clone());
        let listening = async {
            let mut listener = PgListener::connect_with(&second).await?;
            listener.listen(&channel).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        let listening = timeout(SECOND_WITHIN, listening).await;
        let mut listener = listening.map_err(|_| SessionError::NoSecond)??;
        match connection.execute(&*format!("NOTIFY {channel}")).await {
            // It heard itself, which no library expects: the two have one session.
            Err(sqlx::Error::Protocol(_)) => return Ok(false),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let heard = timeout(HEARD_WITHIN, listener.try_recv()).await;
        Ok(matches!(heard, Ok(Ok(Some(_)))))
    }
}

/// Whose session it is, and which settings it does not hold, as a list. All in text: what a pooler lends may
/// know prepared statements of others by the same names.
async fn look(
    connection: &mut PgConnection,
) -> Result<(Option<String>, Option<String>), sqlx::Error> {
    let wanted = SETTINGS.map(|(name, value)| format!("('{name}', '{value}')"));
    let question = format!(
        "SELECT current_setting('{MARK}', true), string_agg(name || ' = ' || current_setting(name), ', ') \
         FROM (VALUES {}) AS wanted (name, value) WHERE current_setting(name) <> value \
         AND NOT (name = '{TCP_USER_TIMEOUT}' AND inet_client_addr() IS NULL)",
        wanted.join(", ")
    );
    let row = connection.fetch_one(&*question).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn held(lacking: Option<String>) -> Result<(), sqlx::Error> {
    lacking.map_or(Ok(()), |lacking| Err(SessionError::NotHeld(lacking).into()))
}

/// Without the lines of the library: it says what it returns as well, again and again, and without a code.
pub(super) async fn quietly<T>(doing: impl Future<Output = T>) -> T {
    doing.with_subscriber(NoSubscriber::default()).await
}
