//! A database that is restored from a backup, under a cluster of processes that goes on.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Instant;

use common::secret::DeviceKey;
use serde_json::Value;
use servers::{PostgresServer, Role};
use simulator::device::{Identity, Settings as DeviceSettings};
use simulator::driver::{Settings, Simulator};
use simulator::keys::key_from_hex;
use tests::cluster::{Cluster, DATABASE};
use tests::site::{Server, Site, Tier, command, text, wait_for};

const FIRST_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const SECOND_KEY: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";
const THIRD_KEY: &str = "ee0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eee";

struct Fixture {
    site: Site,
    server: PostgresServer,
    cluster: Cluster,
    /// Of the same logic server.
    other_conn: Server,
}

impl Fixture {
    fn new() -> Self {
        let mut site = Site::new();
        for key in [FIRST_KEY, SECOND_KEY, THIRD_KEY] {
            site.keep_secret("device", key);
        }
        let server = PostgresServer::start("").unwrap();
        server.make_database("rcu").unwrap();
        let cluster = Cluster::start_on(&site, &server, "rcu");
        let table = format!(
            "logic_servers = {:?}\nnode_number = 2",
            cluster.logic.link()
        );
        let config = site.config(Tier::ConnServer, "conn-2", &table);
        let mut other = command(Tier::ConnServer.program());
        other.env(DATABASE, server.tcp_url("rcu", Role::Login));
        let other_conn = site.start_command(&config, &mut other);
        Self {
            site,
            server,
            cluster,
            other_conn,
        }
    }

    fn device(&self, database: &str, arguments: &[&str]) {
        let (url, master) = (
            self.server.url(database, Role::Owner),
            text(&self.site.path("keys/master")),
        );
        let which = ["--database", &url, "--master-key", &master];
        // It prints keys, and those are not to be kept with what is said.
        let mut device = command("rcu");
        let device = device.arg("device").args(arguments).args(which);
        assert!(device.output().unwrap().status.success(), "{arguments:?}");
    }

    /// A device of this account that comes again and again.
    fn attach(&self, account: &str, key: &str) -> Simulator {
        let key: DeviceKey = key_from_hex(key).unwrap();
        let simulator = Simulator::start(Settings {
            balancers: vec![self.cluster.balancer.devices()],
            identities: vec![Identity {
                account: account.parse().unwrap(),
                key,
            }],
            device: DeviceSettings {
                report_interval_ms: 0,
                ..DeviceSettings::default()
            },
            ..Settings::default()
        })
        .unwrap();
        wait_for("the device to attach", || simulator.stats().attached == 1);
        simulator
    }

    /// Accounts that have a session, by name; "null" of one that the accounts do not know.
    fn online(&self) -> BTreeSet<String> {
        let (conn, key) = (
            self.cluster.conn.link(),
            text(&self.site.path("keys/operator")),
        );
        let list = ["session", "list", "--json", "--cluster", &conn];
        let said = self
            .site
            .run("rcu", &[&list[..], &["--operator-key", &key]].concat());
        said.expect_success();
        let account = |line: &str| {
            let json: Value = serde_json::from_str(line).unwrap();
            json["account"].as_str().unwrap_or("null").to_owned()
        };
        said.text.lines().map(account).collect()
    }

    fn wait_until_online(&self, accounts: &[&str]) {
        let expected: BTreeSet<_> = accounts.iter().map(|&it| it.to_owned()).collect();
        wait_for("sessions to be those", || self.online() == expected);
    }

    /// As docs/operate.md has it: beside the old one, which it then takes the name of.
    fn restore(&self, dump: &std::path::Path, before_use: impl FnOnce()) {
        let sql = |statement| self.server.sql("postgres", statement).unwrap();
        self.server.make_empty_database("rcu_restored").unwrap();
        self.server.restore("rcu_restored", dump).unwrap();
        self.server.grant("rcu_restored").unwrap();
        before_use();
        sql("ALTER DATABASE rcu ALLOW_CONNECTIONS false");
        sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'rcu'");
        sql("ALTER DATABASE rcu RENAME TO rcu_before");
        sql("ALTER DATABASE rcu_restored RENAME TO rcu");
    }
}

#[test]
fn who_is_not_in_a_restored_database_as_he_was_is_out_and_its_changes_are_followed() {
    let fixture = Fixture::new();
    let device = |arguments: &[&str]| fixture.device("rcu", arguments);
    for account in ["same", "rekeyed", "off"] {
        device(&["add", account, "--key", FIRST_KEY]);
    }
    device(&["disable", "off"]);
    let dump = fixture.site.path("rcu.dump");
    let url = fixture.server.url("rcu", Role::Owner);
    let backup = ["backup", &text(&dump), "--database", &url];
    fixture.site.run("rcu", &backup).expect_success();

    // Since the backup.
    device(&["rotate-key", "rekeyed", "--key", SECOND_KEY]);
    device(&["enable", "off"]);
    device(&["add", "later", "--key", FIRST_KEY]);
    let changed = Instant::now();
    let [same, others @ ..] = [
        ("same", FIRST_KEY),
        ("rekeyed", SECOND_KEY),
        ("off", FIRST_KEY),
        ("later", FIRST_KEY),
    ]
    .map(|(account, key)| fixture.attach(account, key));
    fixture.wait_until_online(&["same", "rekeyed", "off", "later"]);
    // A version is of a second.
    wait_for("the next one", || changed.elapsed().as_secs() > 0);

    // The worst of all: somebody else has the number of `later` before any server looks, and `rekeyed`
    // has one key more.
    fixture.restore(&dump, || {
        fixture.device("rcu_restored", &["add", "other", "--key", FIRST_KEY]);
        let rekey = ["rotate-key", "rekeyed", "--key", THIRD_KEY];
        fixture.device("rcu_restored", &rekey);
    });
    fixture.wait_until_online(&["same"]);
    for conn in [&fixture.cluster.conn, &fixture.other_conn] {
        wait_for("both conn servers to say so", || {
            fixture.site.said_by(conn).contains(" 3014 ")
        });
    }

    // Its changes are followed, and its keys let in.
    drop(others);
    let by_third_key = fixture.attach("rekeyed", THIRD_KEY);
    let other = fixture.attach("other", FIRST_KEY);
    fixture.wait_until_online(&["same", "rekeyed", "other"]);
    device(&["disable", "same"]);
    fixture.wait_until_online(&["rekeyed", "other"]);
    device(&["rotate-key", "rekeyed", "--key", SECOND_KEY]);
    device(&["remove", "other"]);
    fixture.wait_until_online(&[]);
    for conn in [&fixture.cluster.conn, &fixture.other_conn] {
        let said = fixture.site.said_by(conn);
        assert_eq!(said.matches(" 3014 ").count(), 1, "{said}");
    }
    drop((same, by_third_key, other));
    let _ = fixture.site.stop(fixture.other_conn);
    fixture.cluster.stop(&fixture.site);
}
