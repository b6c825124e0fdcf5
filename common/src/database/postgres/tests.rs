#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use servers::{PgBouncer, PostgresServer, Role, TestDatabase, poolers_are_left_out};

use super::*;
use crate::database::Database;

const CLIENT: Client<'_> = Client {
    name: "test",
    connections_max: 2,
    connect_deadline: Duration::from_secs(3),
};

const NAME: &str = "rcu";

fn told(error: &DatabaseError) -> String {
    use std::error::Error;
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told += &format!(" because: {error}");
        cause = error.source();
    }
    told
}

async fn connect(url: &str) -> Result<Database, DatabaseError> {
    Database::connect(&url.parse().unwrap(), CLIENT).await
}

#[tokio::test]
async fn only_a_migrated_database_is_used_and_the_others_are_told_apart() {
    let empty = TestDatabase::empty();
    let owner = empty.url(Role::Owner);
    let url: DatabaseUrl = owner.parse().unwrap();
    let old = connect(&owner).await.unwrap_err();
    let needed = newest(&MIGRATOR);
    let says =
        format!("has schema 0, this program needs {needed}: run `rcu db migrate --database URL`");
    assert!(old.to_string().ends_with(&says), "{old}");

    let migrated = Postgres::migrate(&url).await.unwrap();
    assert_eq!((migrated.from, migrated.to), (0, needed));
    let again = Postgres::migrate(&url).await.unwrap();
    assert_eq!((again.from, again.to), (needed, needed));
    let versions = Postgres::versions(&url).await.unwrap();
    assert_eq!(versions, (needed, needed));
    let database = connect(&owner).await.unwrap();
    let Database::Postgres(postgres) = &database else {
        panic!("{database:?}");
    };
    sqlx::query("UPDATE _sqlx_migrations SET version = 99 WHERE version = 1")
        .execute(postgres.pool())
        .await
        .unwrap();
    database.close().await;
    let new = connect(&owner).await.unwrap_err();
    let says = format!("has schema 99, this program knows {needed}: run a newer one");
    assert!(new.to_string().ends_with(&says), "{new}");
    let new = Postgres::migrate(&url).await.unwrap_err();
    assert!(matches!(new, DatabaseError::SchemaTooNew { .. }), "{new}");
}

#[tokio::test]
async fn a_commit_is_durable_whatever_is_usual_on_the_server() {
    let server = PostgresServer::start("synchronous_commit = off").unwrap();
    server.make_database(NAME).unwrap();
    let database = connect(&server.url(NAME, Role::Telemetry)).await.unwrap();
    let Database::Postgres(postgres) = &database else {
        panic!("{database:?}");
    };
    let setting: String = sqlx::query_scalar("SHOW synchronous_commit")
        .fetch_one(postgres.pool())
        .await
        .unwrap();
    assert_eq!(setting, "on");
}

#[tokio::test]
async fn what_a_session_cannot_make_durable_is_named() {
    for (settings, expected) in [
        ("fsync = on\nfull_page_writes = on", &[][..]),
        ("fsync = off\nfull_page_writes = on", &["fsync"]),
        (
            "fsync = off\nfull_page_writes = off",
            &["fsync", "full_page_writes"],
        ),
    ] {
        let server = PostgresServer::start(settings).unwrap();
        server.make_database(NAME).unwrap();
        let url = server.url(NAME, Role::Telemetry);
        let Database::Postgres(postgres) = connect(&url).await.unwrap() else {
            panic!("it is PostgreSQL");
        };
        assert_eq!(postgres.not_durable().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_used_says_why_within_its_deadline() {
    let server =
        PostgresServer::start("max_connections = 5\nsuperuser_reserved_connections = 0").unwrap();
    server.make_database(NAME).unwrap();
    // The same over TCP, with the password.
    connect(&server.tcp_url(NAME, Role::Telemetry))
        .await
        .unwrap();
    let wrong = server
        .tcp_url(NAME, Role::Telemetry)
        .replace("only", "0nly");
    let refused = told(&connect(&wrong).await.unwrap_err());
    assert!(
        refused.contains("password authentication failed"),
        "{refused}"
    );
    assert!(!refused.contains("0nly"), "{refused}");
    let missing = told(
        &connect(&server.tcp_url("nowhere", Role::Telemetry))
            .await
            .unwrap_err(),
    );
    assert!(missing.contains("does not exist"), "{missing}");

    let mut held = vec![];
    while let Ok(connection) = session(&server.url(NAME, Role::Telemetry).parse().unwrap(), "test")
        .connect()
        .await
    {
        held.push(connection);
    }
    let full = told(
        &connect(&server.tcp_url(NAME, Role::Telemetry))
            .await
            .unwrap_err(),
    );
    assert!(full.contains("too many clients"), "{full}");
    drop(held);

    server.freeze().unwrap();
    let begun = std::time::Instant::now();
    let silent = told(
        &connect(&server.tcp_url(NAME, Role::Telemetry))
            .await
            .unwrap_err(),
    );
    assert!(silent.contains("timed out"), "{silent}");
    assert!(begun.elapsed() < 2 * CLIENT.connect_deadline);
    let url = server.tcp_url(NAME, Role::Telemetry);
    drop(server);
    let gone = told(&connect(&url).await.unwrap_err());
    assert!(gone.contains("refused"), "{gone}");
}

#[tokio::test]
async fn over_tls_only_the_server_that_is_meant_is_spoken_to() {
    let server = PostgresServer::start("").unwrap();
    server.make_database(NAME).unwrap();
    let certificate = server.require_tls().unwrap();
    let of = |host: &str, parameters: &str| {
        let url = server
            .tcp_url(NAME, Role::Telemetry)
            .replace("127.0.0.1", host);
        let trusted = certificate.display();
        match parameters {
            "" => url,
            "trusted" => format!("{url}?sslmode=verify-full&sslrootcert={trusted}"),
            _ => format!("{url}?{parameters}"),
        }
    };
    for url in [of("localhost", "trusted"), of("127.0.0.1", "")] {
        let database = connect(&url).await.unwrap();
        let Database::Postgres(postgres) = database else {
            panic!("it is PostgreSQL");
        };
        let encrypted: bool =
            sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
                .fetch_one(postgres.pool())
                .await
                .unwrap();
        assert!(encrypted, "{url}");
    }
    for (url, why) in [
        (of("127.0.0.1", "trusted"), "certificate not valid for name"),
        (of("localhost", "sslmode=verify-full"), "UnknownIssuer"),
        (of("127.0.0.1", "sslmode=disable"), "no encryption"),
        (
            of("localhost", "sslmode=verify-full&sslrootcert=/nowhere.pem"),
            "No such file",
        ),
    ] {
        let refused = told(&connect(&url).await.unwrap_err());
        assert!(refused.contains(why), "{url}: {refused}");
    }
}

/// What a lease says that is asked for when the database worked at first.
async fn no_lease(postgres: &Postgres) -> String {
    let begun = std::time::Instant::now();
    let error = postgres.lease().await.map(drop).unwrap_err();
    assert!(begun.elapsed() < 2 * CLIENT.connect_deadline);
    error.to_string()
}

#[tokio::test]
async fn whoever_gets_no_connection_is_told_why_the_last_try_failed() {
    let server =
        PostgresServer::start("max_connections = 5\nsuperuser_reserved_connections = 0").unwrap();
    server.make_database(NAME).unwrap();
    let direct: DatabaseUrl = server.url(NAME, Role::Telemetry).parse().unwrap();
    let url = server.tcp_url(NAME, Role::Telemetry);
    let Database::Postgres(postgres) = connect(&url).await.unwrap() else {
        panic!("it is PostgreSQL");
    };
    let mut held = vec![];
    while let Ok(connection) = session(&direct, "test").connect().await {
        held.push(connection);
    }
    let full = no_lease(&postgres).await;
    assert!(full.contains("too many clients"), "{full}");

    drop(held.split_off(1));
    let first = lease_at_last(&postgres).await;
    let second = lease_at_last(&postgres).await;
    let used_up = no_lease(&postgres).await;
    assert!(used_up.contains("pool timed out"), "its own cap: {used_up}");
    drop((first, second));

    let changed = "ALTER ROLE CURRENT_USER PASSWORD 'another'";
    sqlx::query(changed).execute(&mut held[0]).await.unwrap();
    let wrong = no_lease(&postgres).await;
    assert!(wrong.contains("password authentication failed"), "{wrong}");

    drop(held);
    drop(server);
    let gone = no_lease(&postgres).await;
    assert!(gone.contains("refused"), "{gone}");
}

/// The server may still be busy with those that went.
async fn lease_at_last(postgres: &Postgres) -> Lease {
    for _ in 0..10 {
        if let Ok(lease) = postgres.lease().await {
            return lease;
        }
    }
    panic!("there is room, and no connection");
}

#[tokio::test]
async fn times_are_kept_to_the_millisecond_and_what_is_no_time_is_refused() {
    let database = TestDatabase::new();
    let mut connection = session(&database.url(Role::Telemetry).parse().unwrap(), "test")
        .connect()
        .await
        .unwrap();
    for (unix_ms, text) in [
        (0, "1970-01-01 00:00:00+00"),
        (1_700_000_000_001, "2023-11-14 22:13:20.001+00"),
        (-1, "1969-12-31 23:59:59.999+00"),
        (253_402_300_799_999, "9999-12-31 23:59:59.999+00"),
    ] {
        let row: (String, UnixMs, Vec<UnixMs>) =
            sqlx::query_as("SELECT $1::timestamptz::text, $1, ARRAY[$1] || $2::timestamptz[]")
                .bind(UnixMs(unix_ms))
                .bind(vec![UnixMs(7)])
                .fetch_one(&mut connection)
                .await
                .unwrap();
        let both = vec![UnixMs(unix_ms), UnixMs(7)];
        assert_eq!(row, (text.into(), UnixMs(unix_ms), both));
    }
    // One microsecond below an infinity stands in place of what does not fit.
    for no_time in [i64::MAX, i64::MIN, 1 << 60] {
        let refused = sqlx::query("SELECT $1::timestamptz")
            .bind(UnixMs(no_time))
            .execute(&mut connection)
            .await
            .unwrap_err();
        let code = refused.as_database_error().unwrap().code().unwrap();
        assert_eq!(code, "22008", "{no_time}");
    }
}

/// Ids of changes are taken in the order in which they become visible: a follower that has seen one
/// has seen all before it.
#[tokio::test]
async fn changes_become_visible_in_the_order_of_their_ids() {
    let database = TestDatabase::new();
    let url: DatabaseUrl = database.url(Role::Owner).parse().unwrap();
    let insert = "INSERT INTO account_changes (account_id, name, change, version, changed_at) \
                  VALUES (1, 'a', 'added', 1, now()) RETURNING id";
    let mut first = session(&url, "test").connect().await.unwrap();
    let mut second = session(&url, "test").connect().await.unwrap();
    sqlx::query("BEGIN").execute(&mut first).await.unwrap();
    let earlier: i64 = sqlx::query_scalar(insert)
        .fetch_one(&mut first)
        .await
        .unwrap();
    let later = tokio::spawn(async move {
        let later = sqlx::query_scalar::<_, i64>(insert);
        later.fetch_one(&mut second).await.unwrap()
    });
    let waiting =
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
    while !sqlx::query_scalar::<_, bool>(waiting)
        .fetch_one(&mut first)
        .await
        .unwrap()
    {
        assert!(!later.is_finished(), "it did not wait");
    }
    sqlx::query("COMMIT").execute(&mut first).await.unwrap();
    assert!(later.await.unwrap() > earlier);
}

/// What a pooler must be told, so that it takes what it does not understand.
const IGNORE: &str = "ignore_startup_parameters = extra_float_digits,options";

/// A server on which COMMIT is not durable unless a session says so.
fn careless_server() -> PostgresServer {
    let server = PostgresServer::start("synchronous_commit = off").unwrap();
    server.make_database(NAME).unwrap();
    server
}

#[tokio::test]
async fn behind_a_pooler_that_drops_it_a_session_holds_what_it_must() {
    if poolers_are_left_out() {
        return;
    }
    let server = careless_server();
    let pooler = PgBouncer::start(&server, "session", IGNORE).unwrap();
    let Database::Postgres(postgres) = connect(&pooler.url(NAME, Role::Telemetry)).await.unwrap()
    else {
        panic!("it is PostgreSQL");
    };
    let (mut one, mut other) = (
        postgres.lease().await.unwrap(),
        postgres.lease().await.unwrap(),
    );
    for lease in [&mut one, &mut other] {
        for (name, value) in [
            ("synchronous_commit", "on"),
            ("client_connection_check_interval", "1s"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("client_min_messages", "warning"),
        ] {
            let held: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(name)
                .fetch_one(&mut **lease)
                .await
                .unwrap();
            assert_eq!(held, value, "{name}");
        }
    }
    let options = format!(
        "{}?options=-csearch_path%3Dpublic",
        pooler.url(NAME, Role::Telemetry)
    );
    let dropped = told(&connect(&options).await.unwrap_err());
    assert!(dropped.contains("ALTER ROLE"), "{dropped}");
}

/// However few use it: then the session is always the same, and all would seem well.
#[tokio::test]
async fn a_pooler_that_lends_sessions_by_transaction_is_refused_by_name() {
    if poolers_are_left_out() {
        return;
    }
    let server = careless_server();
    for mode in ["transaction", "statement"] {
        let pooler = PgBouncer::start(&server, mode, IGNORE).unwrap();
        for _ in 0..2 {
            let refused = told(
                &connect(&pooler.url(NAME, Role::Telemetry))
                    .await
                    .unwrap_err(),
            );
            assert!(refused.contains("pool_mode = session"), "{refused}");
        }
    }
    let narrow = format!("{IGNORE}\ndefault_pool_size = 1");
    let pooler = PgBouncer::start(&server, "session", &narrow).unwrap();
    let refused = told(
        &connect(&pooler.url(NAME, Role::Telemetry))
            .await
            .unwrap_err(),
    );
    assert!(
        refused.contains("timed out") || refused.contains("second connection"),
        "{refused}"
    );
}

/// Also one that has been in use: the lines of the library would come for each try.
#[tokio::test]
async fn whoever_is_refused_later_says_why_to_its_caller_alone() {
    if poolers_are_left_out() {
        return;
    }
    let server = careless_server();
    let pooler = PgBouncer::start(&server, "transaction", IGNORE).unwrap();
    let url = pooler.url(NAME, Role::Telemetry).parse().unwrap();
    let session = Arc::new(session(&url, "test"));
    let pool = pool(CLIENT, &session);
    let postgres = Postgres(Arc::new(Opened { pool, session }));
    let (refused, lines) = listening_to(postgres.lease()).await;
    let refused = refused.map(drop).unwrap_err().to_string();
    assert!(refused.starts_with("a pooler stands"), "{refused}");
    assert_eq!(lines, "");
}

/// Likewise of a connection that is dead when it is wanted again.
#[tokio::test]
async fn a_dead_connection_is_told_to_its_caller_alone() {
    let mut server = PostgresServer::start("").unwrap();
    server.make_database(NAME).unwrap();
    let url = server.url(NAME, Role::Telemetry);
    let Database::Postgres(postgres) = connect(&url).await.unwrap() else {
        panic!("it is PostgreSQL");
    };
    postgres.lease().await.unwrap().give_back();
    tokio::time::sleep(IDLE_TRUSTED + Duration::from_millis(100)).await;
    server.crash().unwrap();
    let (gone, lines) = listening_to(postgres.lease()).await;
    assert!(gone.is_err());
    assert_eq!(lines, "");
}

/// What comes of it, and what is logged meanwhile on this thread.
async fn listening_to<T>(doing: impl Future<Output = T>) -> (T, String) {
    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    let listening = tracing::subscriber::set_default(subscriber);
    let done = doing.await;
    drop(listening);
    let said = said.0.lock().unwrap().clone();
    (done, String::from_utf8(said).unwrap())
}

/// As the first version of this program left it.
async fn make_version_1(url: &DatabaseUrl) {
    let mut first = MIGRATOR;
    first.migrations = first.migrations[..1].to_vec().into();
    let mut connection = session(url, "test").connect().await.unwrap();
    first.run(&mut connection).await.unwrap();
}

/// Of a table that somebody reads for long, a migration gets hold when that is over; who waits is told of it.
#[tokio::test]
async fn a_migration_tries_again_until_nobody_uses_the_table() {
    let database = TestDatabase::empty();
    let url: DatabaseUrl = database.url(Role::Owner).parse().unwrap();
    make_version_1(&url).await;
    let mut reader = session(&url, "analyst").connect().await.unwrap();
    let held = "BEGIN; LOCK TABLE accounts";
    reader.execute(held).await.unwrap();
    let patience = Patience {
        lock_timeout: Duration::from_millis(100),
        pause: Duration::from_millis(1_500),
        tries_max: 3,
    };
    let mut waits = vec![];
    let refused = Postgres::migrate_with(&url, &patience, |waiting| waits.push(waiting.clone()));
    let refused = told(&refused.await.unwrap_err());
    assert!(refused.contains("lock timeout"), "{refused}");
    let tries: Vec<_> = waits.iter().map(|waiting| waiting.tries).collect();
    assert_eq!(tries, [1, 2]);
    let who = &waits[1].who;
    assert!(who.len() == 1 && who[0].contains("rcu analyst"), "{who:?}");

    let mut reader = Some(reader);
    let done = Postgres::migrate_with(&url, &patience, |_| drop(reader.take()));
    assert_eq!(done.await.unwrap().to, newest(&MIGRATOR));
}

/// Whatever the search path of the owner says later: it would begin anew, and all rows be out of sight.
#[tokio::test]
async fn a_schema_stays_where_it_is() {
    let database = TestDatabase::empty();
    let url: DatabaseUrl = database.url(Role::Owner).parse().unwrap();
    let sql = |statement: &'static str| {
        let url = url.clone();
        async move {
            let mut connection = session(&url, "test").connect().await.unwrap();
            sqlx::raw_sql(statement)
                .execute(&mut connection)
                .await
                .unwrap();
            connection
        }
    };
    sql("DO $$ BEGIN EXECUTE format('ALTER ROLE %I IN DATABASE %I SET search_path = fleet, other, public', \
         current_user, current_database()); END $$; CREATE SCHEMA other").await;
    make_version_1(&url).await;
    sql("CREATE SCHEMA fleet").await;
    assert_eq!(Postgres::migrate(&url).await.unwrap().from, 1);
    let mut connection = sql("SELECT rcu_ensure_partition(current_date)").await;
    let places: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT nspname::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
         WHERE relname ~ '^(telemetry_gps|devices$|_sqlx)'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(places, ["other"]);
    let days: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'other.telemetry_gps'::regclass",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(days, 3);
}
