//! How servers end that are asked to: by a signal, by a second one, by the end of their terminal.

#![allow(clippy::unwrap_used)]

use std::ffi::CString;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tests::cluster::Cluster;
use tests::site::{PATIENCE, Site, Tier, binary, command, text, wait_for};

/// A terminal that nobody looks at. It is closed when it is dropped.
struct Terminal {
    /// Where its user would be.
    _user: OwnedFd,
    device: CString,
}

impl Terminal {
    fn open() -> Self {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let device = ptsname(&user, Vec::new()).unwrap();
        Self {
            _user: user,
            device,
        }
    }

    /// A program that runs in it, behind `before`.
    fn command(&self, before: &str, program: &str) -> Command {
        let device = self.device.to_str().unwrap();
        let script = format!("exec setsid --ctty {before} \"$0\" \"$@\" <{device}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(binary(program));
        shell
    }
}

/// A program that no terminal controls, whatever this test was started from.
fn without_terminal(program: &str) -> Command {
    let mut command = Command::new("setsid");
    command.arg(binary(program));
    command
}

/// A table of each tier that lacks nothing.
fn whole(tier: Tier) -> &'static str {
    match tier {
        Tier::Balancer => "listen = \"127.0.0.1:0\"\nconn_servers = \"127.0.0.1:1\"",
        Tier::ConnServer => "logic_servers = \"127.0.0.1:1\"",
        Tier::LogicServer => "listen = \"127.0.0.1:0\"",
    }
}

#[test]
fn a_server_whose_terminal_is_closed_ends_in_order() {
    let site = Site::new();
    for tier in Tier::ALL {
        let config = site.config(tier, "node-1", whole(tier));
        let terminal = Terminal::open();
        let server = site.start_command(&config, &mut terminal.command("", tier.program()));
        drop(terminal);
        let said = site.wait(server);
        said.expect_success();
        assert!(said.text.contains(" 1001 "), "{}", said.text);
        assert!(!said.text.contains(" 1020 "), "{}", said.text);
    }
}

#[test]
fn a_server_that_was_told_to_outlive_its_terminal_does() {
    let site = Site::new();
    let config = site.config(Tier::LogicServer, "logic-1", whole(Tier::LogicServer));
    let terminal = Terminal::open();
    let server = site.start_command(&config, &mut terminal.command("nohup", "logic-server"));
    drop(terminal);
    // To a process that ignores it the signal does nothing, at no time.
    server.signal(Signal::HUP);
    site.stop(server).expect_success();
}

#[test]
fn a_server_without_a_terminal_runs_on_with_its_configuration_and_says_so() {
    let site = Site::new();
    for tier in Tier::ALL {
        let config = site.config(tier, "node-1", whole(tier));
        let server = site.start_command(&config, &mut without_terminal(tier.program()));
        server.signal(Signal::HUP);
        wait_for("its word", || site.said_by(&server).contains(" 1019 "));
        let said = site.stop(server);
        said.expect_success();
        assert!(said.text.contains(" 1001 "), "{}", said.text);
    }
}

#[test]
fn a_second_signal_has_an_end_wait_no_longer_for_the_database() {
    const FLEET: [&str; 4] = ["--fleet", "van", "--fleet-key", FLEET_KEY];
    const FLEET_KEY: &str = "f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee";
    let site = Site::new();
    // Longer than this test is waited for.
    let deadline = [("RCU_LOGIC_SERVER__SHUTDOWN_DEADLINE_MS", "600000")];
    let cluster = Cluster::start(&site, &deadline);
    let data = text(&site.path(""));
    let add = ["device", "add", "--count", "5", "--data", &data];
    site.run("rcu", &[&add[..], &FLEET].concat())
        .expect_success();
    let balancer = cluster.balancer.devices();
    let run = [
        "simulate",
        "--balancer",
        &balancer,
        "--devices",
        "5",
        "--every",
        "100ms",
    ];
    let mut devices = command("rcu")
        .args([&run[..], &FLEET].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("sqlite:{}", site.path("rcu.db").display());
    let mut writer = runtime.block_on(SqliteConnection::connect(&url)).unwrap();
    let stored = |writer: &mut SqliteConnection| {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM telemetry_gps");
        runtime.block_on(count.fetch_one(writer)).unwrap()
    };
    wait_for("records", || stored(&mut writer) > 0);
    // Whoever else would write waits from now on.
    let lock = sqlx::query("BEGIN IMMEDIATE").execute(&mut writer);
    runtime.block_on(lock).unwrap();
    sleep(Duration::from_millis(500));

    cluster.logic.signal(Signal::TERM);
    wait_for("its word", || {
        site.said_by(&cluster.logic).contains(" 1001 ")
    });
    sleep(Duration::from_millis(500));
    assert!(!site.said_by(&cluster.logic).contains(" 4002 "), "it waits");
    let begun = Instant::now();
    cluster.logic.signal(Signal::TERM);
    let said = site.wait(cluster.logic);
    assert!(begun.elapsed() < PATIENCE / 4, "{:?}", begun.elapsed());
    for line in [" 1020 ", " 4009 ", " 4002 "] {
        assert!(said.text.contains(line), "{line}: {}", said.text);
    }
    said.expect_success();
    let _ = devices.kill();
    let _ = devices.wait();
    for server in [cluster.balancer, cluster.conn] {
        drop(server);
    }
}
