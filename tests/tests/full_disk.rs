//! F13 and F17: the disk of the database fills up under a cluster that runs, and is cleared again.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use common::fleet;
use common::secret::Secret;
use servers::{PostgresServer, Role, disks_are_left_out};
use simulator::checker::{Verdict, rows};
use simulator::device::{self, Identity};
use simulator::drive;
use simulator::driver::{Settings, Simulator};
use tests::cluster::Cluster;
use tests::site::{PATIENCE, Site, command, text, wait_for};

const NAME: &str = "rcu";
const DEVICES: u32 = 40;
const FLEET_KEY: [u8; 32] = [0xd1; 32];

/// The schema with its partitions takes 9 MB of it.
const DISK_BYTES: u64 = 48 << 20;

/// Unacknowledged while the disk is full, before it is cleared: some hundred frames were refused a place.
const UNACKNOWLEDGED_MIN: u64 = 1_000;

/// Rows of this run, wherever they went.
const ROWS: &str = "SELECT (SELECT count(*) FROM telemetry_gps) + (SELECT count(*) FROM telemetry_fuel) \
    + (SELECT count(*) FROM telemetry_gyroscope) + (SELECT count(*) FROM telemetry_diagnosis) \
    + (SELECT count(*) FROM telemetry_custom) + (SELECT count(*) FROM dead_letter)";

/// A database on a small disk, and the accounts of a fleet in it.
fn database(site: &mut Site) -> PostgresServer {
    let server = PostgresServer::start_with_disk("", DISK_BYTES).unwrap();
    server.make_tablespace("small").unwrap();
    server.make_database_in(NAME, "small").unwrap();
    let fleet_key = "d1".repeat(32);
    site.keep_secret("device", &fleet_key);
    let mut add = command("rcu");
    add.args(["device", "add", "--fleet", "van", "--fleet-key", &fleet_key]);
    let owner = server.tcp_url(NAME, Role::Owner);
    add.args(["--count", &DEVICES.to_string(), "--database", &owner]);
    add.env("RCU_MASTER_KEY_FILE", text(&site.path("keys/master")));
    site.run_command(&mut add).expect_success();
    server
}

fn devices(cluster: &Cluster) -> Simulator {
    let identities = (1..=DEVICES).map(|number| {
        let account = fleet::account("van", number).unwrap();
        let key = fleet::device_key(&Secret::new(FLEET_KEY), &account);
        Identity { account, key }
    });
    let settings = Settings {
        balancers: vec![cluster.balancer.devices()],
        identities: identities.collect(),
        device: device::Settings {
            report_interval_ms: 200,
            ..device::Settings::default()
        },
        seed: 1,
        ..Settings::default()
    };
    Simulator::start(settings).unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn judge(url: &str, histories: &[simulator::history::History]) -> Verdict {
    let rows = rows::open(&url.parse().unwrap()).await.unwrap();
    let verdict = rows::check(&rows, histories, &drive::KINDS).await;
    verdict.unwrap()
}

/// How often a line of this code stands in a log.
fn lines(log: &str, code: u16) -> usize {
    let of_code = |line: &&str| line.split(' ').nth(2) == Some(&code.to_string());
    log.lines().filter(of_code).count()
}

#[test]
fn what_a_full_database_does_not_take_is_not_acknowledged_and_is_stored_once_when_there_is_room() {
    if disks_are_left_out() {
        return;
    }
    let mut site = Site::new();
    let server = database(&mut site);
    let cluster = Cluster::start_on(&site, &server, NAME);
    let simulator = devices(&cluster);
    let acknowledged = || simulator.stats().records_acknowledged;
    // What was acknowledged before is asked first: rows only grow.
    let check = || {
        let acknowledged = acknowledged();
        let rows = server.sql(NAME, ROWS).unwrap();
        let rows: u64 = rows.trim().parse().unwrap();
        assert!(acknowledged <= rows, "{acknowledged} of {rows}");
    };
    wait_for("records", || acknowledged() > 1_000);

    let full = Instant::now();
    server.fill_disk().unwrap();
    wait_for("the disk to be too small", || {
        check();
        simulator.stats().unacknowledged > UNACKNOWLEDGED_MIN
    });
    let told = site.said_by(&cluster.logic);
    let is_cause = |line: &str| lines(line, 4007) == 1 && line.contains("No space left on device");
    assert!(told.lines().any(is_cause), "{told}");

    server.clear_disk().unwrap();
    let before = acknowledged();
    wait_for("what waited", || {
        check();
        acknowledged() > before + UNACKNOWLEDGED_MIN
    });
    wait_for("the line that it is over", || {
        lines(&site.said_by(&cluster.logic), 4008) > 0
    });
    let outcome = simulator.stop(PATIENCE).unwrap();
    assert_eq!(outcome.stats.unacknowledged, 0);
    check_logs(cluster, &site, full.elapsed());
    let verdict = judge(&server.url(NAME, Role::Read), &outcome.histories);
    assert!(verdict.holds(), "{verdict}");
}

/// What is wrong is told once a minute, and its end once, although a disk that has just filled up takes
/// one batch and not another for as long as a table has a page left.
fn check_logs(cluster: Cluster, site: &Site, lasted: Duration) {
    let minutes = 1 + lasted.as_secs() as usize / 60;
    let [_, conn, logic] = cluster.stop(site);
    let [begun, over] = [4007, 4008].map(|code| lines(&logic.text, code));
    assert!((1..=minutes).contains(&begun), "{}", logic.text);
    assert_eq!(over, 1, "{}", logic.text);
    for code in [3008, 3009] {
        assert!(lines(&conn.text, code) <= minutes, "{code}: {}", conn.text);
    }
}
