//! Every command where nobody reads what it prints, and where the disk is full on which it would print.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use servers::TestDatabase;

use support::{PATIENCE, Up, rcu, wait_for};

const FRAME: &str = "52430105030000005ccbd217";

/// What shells show of a program that SIGPIPE ended.
const UNREAD: i32 = 141;

/// Where a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Unread,
    FullDisk,
}

impl Place {
    const ALL: [Self; 2] = [Self::Unread, Self::FullDisk];

    fn open(self) -> Stdio {
        match self {
            Self::Unread => {
                let (reader, writer) = std::io::pipe().unwrap();
                drop(reader);
                writer.into()
            }
            Self::FullDisk => File::options()
                .write(true)
                .open("/dev/full")
                .unwrap()
                .into(),
        }
    }

    /// What must come of a command that has something to print there.
    fn judge(self, ended: &Output, command: &str) {
        let told = String::from_utf8_lossy(&ended.stderr);
        let code = ended.status.code();
        match self {
            Self::Unread => assert_eq!((code, &*told), (Some(UNREAD), ""), "{command}"),
            Self::FullDisk => {
                assert_eq!(code, Some(1), "{command}: {told}");
                let cause = "cannot write to standard output";
                assert!(
                    told.contains(cause) && told.contains("No space left"),
                    "{command}: {told}"
                );
                assert!(!told.contains("panicked"), "{command}: {told}");
            }
        }
    }
}

fn arguments(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// A command without a data directory.
fn alone(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rcu"));
    command.args(arguments(line));
    command
}

fn run(mut command: Command, place: Place) -> Output {
    for variable in ["RCU_CLUSTER", "RCU_OPERATOR_KEY_FILE", "RCU_DATABASE_URL"] {
        command.env_remove(variable);
    }
    command.stdout(place.open()).output().unwrap()
}

/// Names of all accounts, and the version of each, which grows with every change.
fn accounts(data: &Path) -> Vec<(String, i64)> {
    let listed = rcu(data, &["device", "list", "--json"]).output().unwrap();
    let lines = String::from_utf8(listed.stdout).unwrap();
    let lines = lines.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (
            line["account"].as_str().unwrap().to_owned(),
            line["version"].as_i64().unwrap(),
        )
    });
    lines.collect()
}

#[test]
fn commands_that_only_show_end_quietly_unread_and_tell_of_a_full_disk() {
    let up = Up::start();
    for number in 1..=3 {
        up.add(&format!("truck-{number}"));
    }
    let _device = up.device("truck-1");
    for place in Place::ALL {
        for line in [
            "device list",
            "device list --json",
            "device show truck-1",
            "device show truck-1 --json",
            "node list",
            "node list --json",
            "session list",
            "session list --json",
            "session show truck-1",
            "session show truck-1 --json",
            "session show truck-2 --json",
            "command send truck-1 ping hello",
            "command send truck-1 ping --json",
            "top --once",
            "top --once --json",
            "top",
        ] {
            place.judge(&run(rcu(up.data.path(), &arguments(line)), place), line);
        }
        let up_toml = up.data.path().join("up.toml");
        let log = up.data.path().join("up.log");
        let (up_toml, log) = (up_toml.display(), log.display());
        for line in [
            "--help",
            "--version",
            "device add --help",
            &format!("config check {up_toml}"),
            &format!("config check --json {up_toml}"),
            "config check --json /nowhere.toml",
            &format!("explain {FRAME}"),
            &format!("explain --json {FRAME}"),
            "explain code",
            "explain code 4007 --json",
            &format!("logs stats {log}"),
            &format!("logs stats --json {log}"),
            "completions bash",
            "simulate --balancer 127.0.0.1:1 --devices 1 --for 2s --fleet van --fleet-key \
             000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "demo --devices 1",
        ] {
            place.judge(&run(alone(line), place), line);
        }
    }
}

#[test]
fn no_account_gets_a_key_that_nobody_saw() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let add = rcu(&data, &["device", "add", "truck"]).output().unwrap();
    assert!(add.status.success(), "{add:?}");
    let before = accounts(&data);
    for place in Place::ALL {
        for line in [
            "device add my-device",
            "device add my-device --json",
            "device add --fleet van --count 2500",
            "device add --fleet van --count 3 --json",
            "device rotate-key truck",
            "device rotate-key truck --json",
        ] {
            place.judge(&run(rcu(&data, &arguments(line)), place), line);
            assert_eq!(accounts(&data), before, "{line} {place:?}");
        }
    }
    // And nothing is printed for an account that cannot be made or changed.
    for line in [
        "device add truck",
        "device add --fleet truck --count 1",
        "device rotate-key van",
    ] {
        if line.contains("--fleet") {
            let one = rcu(&data, &["device", "add", "truck-000001"])
                .output()
                .unwrap();
            assert!(one.status.success());
        }
        let refused = rcu(&data, &arguments(line)).output().unwrap();
        assert_eq!(
            (refused.status.code(), &*refused.stdout),
            (Some(1), &b""[..]),
            "{line}"
        );
    }
}

#[test]
fn what_was_done_and_cannot_be_told_is_told_to_be_done() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("list.csv"), "a\nb\n").unwrap();
    for (line, done) in [
        (
            format!(
                "device import {} --out {} --json",
                path("list.csv"),
                path("a.csv")
            ),
            "2 accounts added, but",
        ),
        ("device disable a --json".into(), "a is disabled, but"),
        ("device enable a --json".into(), "a is enabled, but"),
        ("device remove a --json".into(), "a is removed, but"),
        (
            format!(
                "device add --fleet van --count 2 --out {} --json",
                path("b.csv")
            ),
            "2 accounts added; their keys are in",
        ),
    ] {
        let ended = run(rcu(&data, &arguments(&line)), Place::FullDisk);
        Place::FullDisk.judge(&ended, &line);
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(told.contains(done), "{line}: {told}");
    }
    let made = run(
        alone(&format!("keys new {}", path("keys"))),
        Place::FullDisk,
    );
    Place::FullDisk.judge(&made, "keys new");
    assert!(String::from_utf8_lossy(&made.stderr).contains("the keys are made in"));
    assert!(Path::new(&path("keys")).join("master").exists());
}

#[test]
fn the_database_is_shown_in_the_same_way() {
    let test = TestDatabase::new();
    let url = &test.url(servers::Role::Owner);
    let migrated = alone(&format!("db migrate --database {url}")).output();
    assert!(migrated.unwrap().status.success());
    for place in Place::ALL {
        let line = format!("db status --database {url}");
        place.judge(&run(alone(&line), place), "db status");
    }
}

#[test]
fn standard_error_that_takes_nothing_ends_nothing() {
    for place in Place::ALL {
        let data = tempfile::tempdir().unwrap();
        let mut add = rcu(data.path(), &["device", "add", "my-device"]);
        let added = add.stderr(place.open()).output().unwrap();
        assert_eq!(
            (added.status.code(), added.stdout.len()),
            (Some(0), 65),
            "{place:?}"
        );
        let again = rcu(data.path(), &["device", "add", "my-device"])
            .stderr(place.open())
            .status();
        assert_eq!(again.unwrap().code(), Some(1), "{place:?}");
    }
}

/// Whoever runs a cluster wants that first.
#[test]
fn a_cluster_runs_whoever_reads_its_addresses() {
    for place in Place::ALL {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("up.toml");
        let free = "listen = \"127.0.0.1:0\"\n";
        fs::write(&config, format!("[balancer]\n{free}[logic_server]\n{free}")).unwrap();
        let log = data.path().join("up.log");
        let mut up = rcu(data.path(), &["up", "--config", config.to_str().unwrap()])
            .stdout(place.open())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let said = || fs::read_to_string(&log).unwrap();
        wait_for("the cluster to run", || said().contains("all tiers run"));
        let listed = rcu(data.path(), &["node", "list"]).output().unwrap();
        assert!(listed.status.success(), "{place:?}: {listed:?}");
        let warned = said().contains(" 5004 ");
        assert_eq!(warned, place == Place::FullDisk, "{}", said());
        let pid = rustix::process::Pid::from_child(&up);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let begun = std::time::Instant::now();
        let status = loop {
            if let Some(status) = up.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "{}", said());
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        assert!(status.success(), "{}", said());
    }
}
