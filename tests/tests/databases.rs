//! What servers say of a PostgreSQL that they cannot use, without its password.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;

use servers::{PgBouncer, PostgresServer, Role, poolers_are_left_out};
use tests::cluster::DATABASE;
use tests::site::{Said, Site, Tier, command, text};

const PASSWORD: &str = "known-only-to-its-owner";
const NAME: &str = "rcu";
const FREE: &str = "listen = \"127.0.0.1:0\"";
const TIERS: [Tier; 2] = [Tier::ConnServer, Tier::LogicServer];

/// An empty database, to which servers come over TCP, with the password.
struct Fixture {
    site: Site,
    server: PostgresServer,
}

impl Fixture {
    fn new() -> Self {
        let mut site = Site::new();
        site.keep_secret("password", PASSWORD);
        let server = PostgresServer::start("").unwrap();
        server.make_empty_database(NAME).unwrap();
        for role in TIERS.map(role_of) {
            let password = format!("ALTER ROLE {} PASSWORD '{PASSWORD}'", role.name());
            server.sql(NAME, &password).unwrap();
        }
        Self { site, server }
    }

    /// Of a tier, with this password, to this database.
    fn url(&self, tier: Tier, password: &str, name: &str) -> String {
        let role = role_of(tier);
        let theirs = self.server.tcp_url(name, role);
        let (_, place) = theirs.split_once('@').unwrap();
        format!("postgres://{}:{password}@{place}", role.name())
    }

    fn right(&self, tier: Tier) -> String {
        self.url(tier, PASSWORD, NAME)
    }

    fn migrate(&self) {
        let owner = self.server.url(NAME, Role::Owner);
        let migrate = ["db", "migrate", "--database", &owner];
        self.site.run("rcu", &migrate).expect_success();
        self.server.grant(NAME).unwrap();
    }

    fn start(&self, tier: Tier, url: &str) -> Said {
        start(&self.site, tier, url)
    }
}

fn role_of(tier: Tier) -> Role {
    tier.role().unwrap()
}

/// Starts a server that will not start.
fn start(site: &Site, tier: Tier, url: &str) -> Said {
    let table = match tier {
        Tier::LogicServer => FREE,
        _ => "logic_servers = \"127.0.0.1:1\"",
    };
    let config = site.config(tier, "node-1", table);
    let mut server = command(tier.program());
    server.args(["--config", &text(&config)]);
    site.run_command(server.env(DATABASE, url))
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let mut site = Site::new();
    site.keep_secret("password", PASSWORD);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    for tier in TIERS {
        let url = format!("postgres://rcu_test:{PASSWORD}@{address}/rcu");
        let said = start(&site, tier, &url);
        let shown = format!("cannot open the database postgres://rcu_test:***@{address}/rcu");
        said.expect_failure(&[&shown, "Connection refused"]);
    }
}

#[test]
fn a_wrong_password_or_name_is_told() {
    let fixture = Fixture::new();
    for tier in TIERS {
        let wrong = fixture.url(tier, "guessed-at-random", NAME);
        let said = fixture.start(tier, &wrong);
        let user = role_of(tier).name();
        said.expect_failure(&[&format!(
            "password authentication failed for user \"{user}\""
        )]);
        assert!(!said.text.contains("guessed-at-random"), "{}", said.text);

        let missing = fixture.url(tier, PASSWORD, "elsewhere");
        let said = fixture.start(tier, &missing);
        said.expect_failure(&["database \"elsewhere\" does not exist"]);
    }
}

/// What such a pooler would break shows much later, as records that a power cut loses.
#[test]
fn a_pooler_that_lends_sessions_by_transaction_is_named() {
    if poolers_are_left_out() {
        return;
    }
    let fixture = Fixture::new();
    fixture.migrate();
    let settings = "ignore_startup_parameters = extra_float_digits,options";
    let pooler = PgBouncer::start(&fixture.server, "transaction", settings).unwrap();
    for tier in TIERS {
        let said = fixture.start(tier, &pooler.url("rcu", Role::Login));
        said.expect_failure(&["pool_mode = transaction", "pool_mode = session"]);
    }
    let deaf = PgBouncer::start(&fixture.server, "session", "").unwrap();
    for tier in TIERS {
        let said = fixture.start(tier, &deaf.url("rcu", Role::Login));
        said.expect_failure(&["unsupported startup parameter"]);
    }
}

#[test]
fn a_schema_of_another_version_is_told_with_what_to_run() {
    let fixture = Fixture::new();
    let sql = |statement| fixture.server.sql(NAME, statement).unwrap();
    for tier in TIERS {
        let empty = fixture.start(tier, &fixture.right(tier));
        empty.expect_failure(&[
            "has schema 0, this program needs",
            "`rcu db migrate --database URL`",
        ]);
    }
    fixture.migrate();
    sql(
        "INSERT INTO _sqlx_migrations SELECT 9999, description, installed_on, success, checksum, \
         execution_time FROM _sqlx_migrations ORDER BY version LIMIT 1",
    );
    for tier in TIERS {
        let newer = fixture.start(tier, &fixture.right(tier));
        newer.expect_failure(&["has schema 9999, this program knows", "run a newer one"]);
    }
    sql("DELETE FROM _sqlx_migrations");
    for tier in TIERS {
        let older = fixture.start(tier, &fixture.right(tier));
        older.expect_failure(&["has schema 0, this program needs"]);
    }
}

#[test]
fn a_clock_that_is_not_the_databases_is_told_and_one_that_is_is_not() {
    let fixture = Fixture::new();
    fixture.migrate();
    let url = fixture.right(Tier::LogicServer);
    let said = |node: &str, change: &str| {
        let library = fixture.site.another_clock(change);
        let config = fixture.site.config(Tier::LogicServer, node, FREE);
        let mut server = command(Tier::LogicServer.program());
        server.env(DATABASE, &url).env("LD_PRELOAD", library);
        let server = fixture.site.start_command(&config, &mut server);
        let said = fixture.site.stop(server);
        said.expect_success();
        said.text
    };
    let behind = said("behind", "now->tv_sec -= 600");
    assert!(behind.contains(" 1008 "), "{behind}");
    let ahead_s = behind.split_once("ahead_s=").unwrap().1;
    let ahead_s: i64 = ahead_s.split_whitespace().next().unwrap().parse().unwrap();
    assert!((594..=606).contains(&ahead_s), "{ahead_s}");

    let right = said("right", "now->tv_sec += 0");
    assert!(!right.contains(" 1008 "), "{right}");
}
