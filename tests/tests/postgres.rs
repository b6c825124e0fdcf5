//! A cluster on PostgreSQL whose tiers come in under roles of their own, with the least that they need;
//! simulated devices on it; and the checker, as an analyst may read.

#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use balancer::Balancer;
use balancer::counters::Gauge;
use common::database::{Client, Database, DatabaseUrl};
use common::ids::NodeName;
use common::link::{Key, Keys};
use common::metrics::Source;
use common::secret::Secret;
use conn_server::ConnServer;
use conn_server::accounts::seal::MasterKey;
use conn_server::accounts::store::Accounts;
use logic_server::LogicServer;
use servers::{PostgresServer, Role, TestDatabase};
use simulator::checker::rows;
use simulator::device::Identity;
use simulator::drive;
use simulator::driver::{self, Simulator};
use tokio::time::sleep;

const DEVICES: u32 = 40;
const MASTER: MasterKey = Secret::new([9; 32]);
const PATIENCE: Duration = Duration::from_secs(60);

const NAME: &str = "rcu";

/// A database with its tables and rights.
struct Site {
    server: PostgresServer,
}

impl Site {
    fn new() -> Self {
        let server = PostgresServer::start("").unwrap();
        server.make_database(NAME).unwrap();
        // Again after a later migration: it must be possible.
        server.grant(NAME).unwrap();
        Self { server }
    }

    fn url(&self, role: Role) -> DatabaseUrl {
        self.server.url(NAME, role).parse().unwrap()
    }

    fn sql(&self, statements: &str) -> String {
        self.server.sql(NAME, statements).unwrap()
    }

    async fn connect(&self, role: Role, connections_max: u32) -> Database {
        let client = Client {
            name: role.name(),
            connections_max,
            connect_deadline: Duration::from_secs(10),
        };
        Database::connect(&self.url(role), client).await.unwrap()
    }

    /// While it writes: a right is gone, as after a migration whose roles.sql was forgotten; then all its
    /// connections, so that nobody knows what became of the write under way.
    async fn spoil_and_mend(&self, logic: &LogicServer) {
        let missing = || logic.metrics().missing();
        self.sql("REVOKE INSERT ON telemetry_gps FROM rcu_telemetry");
        wait_until("told what to run", || {
            missing()
                .iter()
                .any(|line| line.contains("run roles.sql again"))
        })
        .await;
        self.server.grant(NAME).unwrap();
        wait_until("ready again", || missing().is_empty()).await;
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rcu_telemetry'",
        );
    }

    /// What a role is told that tries this.
    async fn tries(&self, role: Role, sql: &str) -> Result<(), String> {
        let database = self.connect(role, 1).await;
        let Database::Postgres(postgres) = &database else {
            panic!("it is PostgreSQL");
        };
        let done = sqlx::raw_sql(sql).execute(postgres.pool()).await;
        database.close().await;
        done.map(drop).map_err(|error| error.to_string())
    }
}

fn keys() -> Keys {
    Keys {
        cluster: vec![Key::new(Secret::new([1; 32]))],
        operator: vec![],
    }
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

async fn wait_until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "never {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_under_its_roles_stores_what_devices_send_once_and_as_it_was_sent() {
    let site = Site::new();
    let identities: Vec<_> = (1..=DEVICES)
        .map(|number| Identity {
            account: format!("truck-{number:06}").parse().unwrap(),
            key: Secret::new([number as u8; 32]),
        })
        .collect();
    let owner = site.connect(Role::Owner, 1).await;
    let accounts = Accounts::new(owner.clone(), MASTER);
    let added: Vec<_> = identities
        .iter()
        .map(|identity| (identity.account.clone(), identity.key))
        .collect();
    accounts.add_many(&added, unix_ms()).await.unwrap();

    let loopback = "127.0.0.1:0".parse().unwrap();
    let telemetry = site
        .connect(Role::Telemetry, logic_server::store::CONNECTIONS_MAX)
        .await;
    let settings = logic_server::Settings {
        listen: vec![loopback],
        link_listen: loopback,
        max_connections: Some(100),
        threads: 2,
        ..logic_server::Settings::default()
    };
    let logic = LogicServer::start(settings, node("logic-1"), keys(), &telemetry);
    let logic = logic.await.unwrap();
    let login = site
        .connect(Role::Login, conn_server::accounts::CONNECTIONS_MAX)
        .await;
    let settings = conn_server::Settings {
        listen: loopback,
        logic_servers: vec![logic.addresses().link.to_string()],
        ..conn_server::Settings::default()
    };
    let conn = ConnServer::start(settings, node("conn-1"), keys(), login.clone(), MASTER);
    let conn = conn.await.unwrap();
    let settings = balancer::Settings {
        listen: vec![loopback],
        conn_servers: vec![conn.address().to_string()],
        ..balancer::Settings::default()
    };
    let balancer = Balancer::start(settings, node("balancer-1"), keys()).unwrap();
    wait_until("ready", || balancer.stats().gauge(Gauge::PlacesFree) > 0).await;

    let simulator = Simulator::start(driver::Settings {
        balancers: vec![balancer.addresses()[0].to_string()],
        identities,
        device: simulator::device::Settings {
            report_interval_ms: 200,
            ..simulator::device::Settings::default()
        },
        seed: 1,
        ..driver::Settings::default()
    })
    .unwrap();
    wait_until("enough is stored", || {
        simulator.stats().records_acknowledged > 2_000
    })
    .await;

    site.spoil_and_mend(&logic).await;
    let before = simulator.stats().records_acknowledged;
    wait_until("what waited is stored", || {
        simulator.stats().records_acknowledged > before + 2_000
    })
    .await;

    let (_, online) = accounts.show(&added[0].0).await.unwrap();
    assert_eq!(online.unwrap().node, "logic-1");
    let stopped = tokio::task::spawn_blocking(move || simulator.stop(PATIENCE));
    let outcome = stopped.await.unwrap().unwrap();
    assert_eq!(outcome.stats.unacknowledged, 0);
    balancer.shutdown().await;
    conn.shutdown().await;
    logic.shutdown().await;
    let shown = accounts.show(&added[1].0).await.unwrap().0;
    assert!(shown.last_login_at_ms.is_some());
    for database in [owner, telemetry, login] {
        database.close().await;
    }
    let rows = rows::open(&site.url(Role::Read)).await.unwrap();
    let verdict = rows::check(&rows, &outcome.histories, &drive::KINDS);
    let verdict = verdict.await.unwrap();
    assert!(verdict.holds(), "{verdict}");
    let live = site.sql("SELECT count(*) FROM sessions WHERE ended_at IS NULL");
    assert_eq!(live, "0\n");
    // Whatever was written twice was known to be.
    assert!(!site.server.log().contains("duplicate key"));
    // Made ahead by a role that may make no table.
    let days = "SELECT count(*) FROM pg_class WHERE relname ~ '^telemetry_gps_[0-9]{8}$'";
    assert_eq!(site.sql(days), "7\n");
}

/// Nobody else, and nothing new that roles.sql does not name.
#[test]
fn strangers_may_nothing_and_analysts_read_everything_but_the_keys() {
    let test = TestDatabase::new();
    let lines = |sql: &str| {
        let said = test.sql(sql).unwrap();
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let of_strangers = lines(
        "WITH rights AS (
             SELECT 'the database' AS what, coalesce(datacl, acldefault('d', datdba)) AS acl
             FROM pg_database WHERE datname = current_database()
             UNION ALL SELECT 'its schema', coalesce(nspacl, acldefault('n', nspowner))
             FROM pg_namespace WHERE nspname = 'public'
             UNION ALL SELECT oid::regclass::text, relacl
             FROM pg_class WHERE relnamespace = 'public'::regnamespace
             UNION ALL SELECT oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner))
             FROM pg_proc WHERE pronamespace = 'public'::regnamespace
         ) SELECT privilege_type || ' ' || what FROM rights, aclexplode(acl) WHERE grantee = 0",
    );
    assert!(of_strangers.is_empty(), "{of_strangers:?}");
    let hidden = lines(
        "SELECT format('%s.%s', relname, attname) FROM pg_class AS c JOIN pg_attribute AS a ON attrelid = c.oid
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') AND NOT relispartition
             AND attnum > 0 AND NOT attisdropped AND relname <> '_sqlx_migrations'
             AND NOT has_column_privilege('rcu_read', c.oid, attnum, 'SELECT')",
    );
    assert_eq!(hidden, ["accounts.sealed_key"]);
    let to_write = test.rights(Role::Read).unwrap();
    let to_write: Vec<_> = to_write
        .iter()
        .map(|right| &*right.name)
        .filter(|name| !name.starts_with("SELECT "))
        .collect();
    assert_eq!(to_write, ["CONNECT ON DATABASE", "USAGE ON SCHEMA public"]);
    let above_their_station = lines(
        "SELECT rolname FROM pg_roles AS r WHERE rolname IN ('rcu_login', 'rcu_telemetry', 'rcu_read') AND (
             rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
             OR EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid)
             OR EXISTS (SELECT FROM pg_class WHERE relowner = r.oid AND relpersistence <> 't'))",
    );
    assert!(above_their_station.is_empty(), "{above_their_station:?}");
}

#[test]
fn roles_that_are_missing_are_made_and_rights_of_an_earlier_version_are_taken_back() {
    let server = PostgresServer::start("").unwrap();
    let names = [Role::Login, Role::Telemetry, Role::Read]
        .map(Role::name)
        .join(", ");
    for database in ["one", "two"] {
        server.make_database(database).unwrap();
        server
            .sql(database, &format!("DROP OWNED BY {names}"))
            .unwrap();
    }
    server.sql("one", &format!("DROP ROLE {names}")).unwrap();
    // Roles are the server's, whose databases are made by anybody at any time.
    thread::scope(|scope| {
        for granted in ["one", "two"].map(|name| scope.spawn(|| server.grant(name))) {
            granted.join().unwrap().unwrap();
        }
    });
    server
        .sql(
            "one",
            "GRANT SELECT ON telemetry_gps, sessions TO rcu_telemetry",
        )
        .unwrap();
    server.grant("one").unwrap();
    let may = "SELECT has_table_privilege('rcu_telemetry', 'telemetry_gps', 'SELECT'),
                   has_column_privilege('rcu_telemetry', 'sessions', 'source', 'SELECT'),
                   has_column_privilege('rcu_telemetry', 'sessions', 'epoch', 'SELECT')";
    assert_eq!(server.sql("one", may).unwrap(), "f|f|t\n");
}

#[tokio::test]
async fn no_role_may_do_more_than_its_work() {
    let site = Site::new();
    for (role, wrong) in [
        (Role::Login, "UPDATE accounts SET enabled = false"),
        (Role::Login, "UPDATE accounts SET sealed_key = ''"),
        (
            Role::Login,
            "INSERT INTO accounts (name, sealed_key, created_at) VALUES ('a', '', now())",
        ),
        (Role::Login, "DELETE FROM accounts"),
        (Role::Login, "DELETE FROM account_changes"),
        (Role::Login, "SELECT * FROM telemetry_gps"),
        (Role::Login, "SELECT rcu_ensure_partition(current_date)"),
        (Role::Telemetry, "SELECT * FROM accounts"),
        (Role::Telemetry, "SELECT * FROM telemetry_gps"),
        (Role::Telemetry, "DELETE FROM telemetry_gps"),
        (Role::Telemetry, "UPDATE sessions SET node = 'x'"),
        (Role::Telemetry, "DROP TABLE telemetry_gps"),
        (Role::Telemetry, "CREATE TABLE public.mine ()"),
        (Role::Telemetry, "UPDATE _sqlx_migrations SET version = 2"),
        (Role::Read, "SELECT sealed_key FROM accounts"),
        (
            Role::Read,
            "INSERT INTO sessions VALUES (1, 1, 'x', '10.0.0.1', now())",
        ),
        (Role::Read, "CREATE TEMPORARY TABLE mine ()"),
        (Role::Read, "SELECT rcu_ensure_partition(current_date)"),
    ] {
        let told = site.tries(role, wrong).await.unwrap_err();
        let refused = told.contains("permission denied") || told.contains("must be owner");
        assert!(refused, "{role:?}: {wrong}: {told}");
    }
    for (role, right) in [
        (Role::Login, "SELECT sealed_key FROM accounts"),
        (Role::Telemetry, "SELECT rcu_ensure_partition(current_date)"),
        (
            Role::Read,
            "SELECT name FROM accounts; SELECT * FROM telemetry_gps, dead_letter, sessions",
        ),
    ] {
        site.tries(role, right).await.unwrap();
    }
}
