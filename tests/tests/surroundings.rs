//! What servers say that are started in bad surroundings: one message with what to do, and an end that is
//! no success.

#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use servers::{disks_are_left_out, on_disk};
use tests::site::{Site, Tier, binary, command, text};

/// Too small for any schema.
const DISK_BYTES: u64 = 64 << 10;

/// A table of each tier that lacks nothing.
fn whole(tier: Tier) -> &'static str {
    match tier {
        Tier::Balancer => "listen = \"127.0.0.1:0\"\nconn_servers = \"127.0.0.1:1\"",
        Tier::ConnServer => "logic_servers = \"127.0.0.1:1\"",
        Tier::LogicServer => "listen = \"127.0.0.1:0\"",
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_whole_configuration_starts_every_tier() {
    let site = Site::new();
    for tier in Tier::ALL {
        let config = site.config(tier, "node-1", whole(tier));
        let checked = site.run(tier.program(), &["--check", "--config", &text(&config)]);
        checked.expect_success();
        assert!(checked.text.contains("can be used"), "{}", checked.text);
        let server = site.start(tier, &config);
        site.stop(server).expect_success();
    }
}

#[test]
fn a_port_in_use_is_named_with_its_key_and_line() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (tier, key) in [
        (Tier::Balancer, "listen"),
        (Tier::ConnServer, "listen"),
        (Tier::LogicServer, "listen"),
        (Tier::LogicServer, "link_listen"),
    ] {
        let mut table = format!("{key} = \"{address}\"\n");
        let others = whole(tier).lines().filter(|line| !line.starts_with(key));
        others.for_each(|line| table += &format!("{line}\n"));
        let config = site.config(tier, "node-1", &table);
        let said = site.run_server(tier, &config);
        let expected = format!(
            "{}.{key}: {address} is in use: another process listens",
            tier.table()
        );
        said.expect_failure(&[&expected, "node-1.toml:", "choose another port"]);
        // Looked at beside the server that runs, it is right.
        let checked = site.run(tier.program(), &["--check", "--config", &text(&config)]);
        checked.expect_success();
    }
}

#[test]
fn a_key_file_that_cannot_be_used_is_named_with_what_to_do() {
    let site = Site::new();
    let keys = site.path("keys");
    for (tier, name) in [
        (Tier::Balancer, "cluster"),
        (Tier::LogicServer, "cluster"),
        (Tier::ConnServer, "cluster"),
        (Tier::ConnServer, "operator"),
        (Tier::ConnServer, "master"),
    ] {
        let key = keys.join(name);
        let whole_key = fs::read(&key).unwrap();
        let config = site.config(tier, "node-1", whole(tier));
        let start = || site.run_server(tier, &config);

        set_mode(&key, 0o644);
        let exposed = format!("keys.{name}: the key file {}", key.display());
        start().expect_failure(&[&exposed, "can be read by others (mode 0644): chmod 600 it"]);
        set_mode(&key, 0o600);

        fs::write(&key, "secret\n").unwrap();
        start().expect_failure(&["line 1 is not 64 hex digits"]);

        fs::remove_file(&key).unwrap();
        start().expect_failure(&[
            "cannot read the key file",
            "No such file",
            "`rcu keys new DIR`",
        ]);

        fs::write(&key, whole_key).unwrap();
        set_mode(&key, 0o600);
    }
}

#[test]
fn all_that_is_wrong_is_told_in_one_message() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let table = format!(
        "listen = \"192.0.2.1:20000\"\nlink_listen = \"{address}\"\nwindow = 0\nheartbeat = 7\n\
         batch_rows_max = \"many\""
    );
    let config = site.config(Tier::LogicServer, "logic-1", &table);
    set_mode(&site.path("keys/cluster"), 0o640);
    let mut server = command("logic-server");
    server.args(["--config", &text(&config)]);
    server.env("RCU_LOGIC_SERVER__PENDING_MAX", "0");
    server.env("RCU_LOG", "info,logic-server=debug");
    let said = site.run_command(&mut server);
    let in_use = format!("logic_server.link_listen: {address} is in use");
    said.expect_failure(&[
        "8 mistakes in the configuration",
        "keys.cluster: the key file",
        "logic-1.toml:8: logic_server.listen: 192.0.2.1:20000 is no address of this machine",
        &in_use,
        "logic-1.toml:10: logic_server.window: 0 is not within 1 to",
        "logic-1.toml:11: logic_server.heartbeat: unknown field",
        "logic-1.toml:12: logic_server.batch_rows_max: invalid type",
        "RCU_LOGIC_SERVER__PENDING_MAX: logic_server.pending_max: 0 is less than 1",
        "RCU_LOG: `logic-server` is neither a level nor a module: did you mean `logic_server`?",
    ]);
    assert!(
        said.text
            .starts_with("logic-server: error 1006: 8 mistakes")
    );
    assert_eq!(
        said.text.matches("logic-server:").count(),
        1,
        "{}",
        said.text
    );
}

#[test]
fn a_configuration_that_is_missing_is_named() {
    let site = Site::new();
    for tier in Tier::ALL {
        let said = site.run_server(tier, Path::new("/nowhere/x.toml"));
        said.expect_failure(&[
            "cannot read the configuration /nowhere/x.toml",
            "No such file",
        ]);
    }
}

#[test]
fn too_few_descriptors_are_told_with_the_key_to_lower_and_the_limit_to_raise() {
    let site = Site::new();
    for (tier, key, more) in [
        (Tier::Balancer, "connections_pending_max", ""),
        (Tier::ConnServer, "logic_servers", ""),
        (Tier::LogicServer, "max_connections", ""),
        (
            Tier::LogicServer,
            "max_connections",
            "\nmax_connections = 300",
        ),
    ] {
        let table = format!("{}{more}", whole(tier));
        let config = site.config(tier, "node-1", &table);
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 200; exec \"$0\" --config \"$1\""]);
        limited.arg(binary(tier.program())).arg(&config);
        let said = site.run_command(&mut limited);
        let key = format!("{}.{key}: ", tier.table());
        said.expect_failure(&[
            &key,
            "200 files",
            "raise the limit (ulimit -n, LimitNOFILE)",
        ]);
    }
}

#[test]
fn a_database_that_cannot_be_opened_is_named() {
    let site = Site::new();
    site.write("notes.txt", &"This is no database. ".repeat(100));
    for (file, why) in [
        ("nowhere/rcu.db", "unable to open database file"),
        ("notes.txt", "file is not a database"),
    ] {
        let url = format!("sqlite:{}", site.path(file).display());
        for tier in [Tier::ConnServer, Tier::LogicServer] {
            let config = site.config(tier, "node-1", whole(tier));
            let mut server = command(tier.program());
            server.args(["--config", &text(&config)]);
            server.env("RCU_DATABASE__URL", &url);
            let said = site.run_command(&mut server);
            said.expect_failure(&["cannot open the database", file, why]);
        }
    }
}

#[test]
fn a_full_disk_is_named() {
    if disks_are_left_out() {
        return;
    }
    let site = Site::new();
    let disk = site.path("disk");
    fs::create_dir(&disk).unwrap();
    for tier in [Tier::ConnServer, Tier::LogicServer] {
        let config = site.config(tier, "node-1", whole(tier));
        let mut alone = on_disk(&disk, DISK_BYTES, None);
        alone
            .arg(binary(tier.program()))
            .arg("--config")
            .arg(&config);
        let url = format!("sqlite:{}", disk.join("rcu.db").display());
        alone.env("RCU_DATABASE__URL", url);
        let said = site.run_command(&mut alone);
        said.expect_failure(&["disk/rcu.db", "database or disk is full"]);
    }
}

/// The kernel's clock is everybody's: a library in front of the system's tells the server another time.
#[test]
fn a_clock_that_cannot_be_right_is_told_with_what_to_do() {
    let site = Site::new();
    let library = site.another_clock("now->tv_sec = 12345");
    for tier in Tier::ALL {
        let config = site.config(tier, "node-1", whole(tier));
        let mut server = command(tier.program());
        server
            .args(["--config", &text(&config)])
            .env("LD_PRELOAD", &library);
        let said = site.run_command(&mut server);
        said.expect_failure(&["the clock of this machine says 12345 s", "timedatectl"]);
    }
    let mut up = command("rcu");
    up.args(["up", "--data", &text(&site.path("data"))]);
    let said = site.run_command(up.env("LD_PRELOAD", &library));
    said.expect_failure(&["the clock of this machine says 12345 s", "timedatectl"]);
    assert!(!site.path("data").exists(), "nothing was begun");
}
