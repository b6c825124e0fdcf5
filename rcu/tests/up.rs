//! `rcu up` as its users meet it: a process, a data directory, devices and an operator.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use common::ids::Nonce;
use common::link::message::{AccountCommand, CommandAnswer, Message, Order};
use common::link::{Keys, Role, call};
use common::process::clock::unix_ms;
use common::secret::Secret;
use protocols::rcu::code::CommandStatus;
use protocols::rcu::command::cluster_code;
use protocols::rcu::login::Login;

use simulator::driver::Simulator;

use support::{KEY, PATIENCE, Up, rcu, wait_for};

impl Up {
    fn command(&self, account: &str, order: Order) -> CommandAnswer {
        let keys = self.data.path().join("keys");
        let keys = Keys::default()
            .with_operator_file(&keys.join("operator"))
            .unwrap();
        let message = AccountCommand {
            account: account.parse().unwrap(),
            order,
        };
        let conn_server = self.address("/conn_server").to_string();
        let asking = call(&conn_server, Role::Operator, keys, message, PATIENCE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        match runtime.block_on(asking).unwrap().pop() {
            Some(Message::CommandAnswer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }
}

fn order(command_id: u64, code: u16, payload: &[u8]) -> Order {
    Order {
        command_id,
        deadline_ms: 0,
        code,
        payload: payload.to_vec(),
    }
}

fn replied(status: CommandStatus, payload: &[u8]) -> CommandAnswer {
    CommandAnswer::Replied {
        status: status.code(),
        more: false,
        payload: payload.to_vec(),
    }
}

/// Sends bytes to an address, and reads until it is closed there.
fn say(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    // Who is turned away unread may be reset.
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut Vec::new());
}

fn login(account: &str, key: u8) -> Vec<u8> {
    let (account, nonce) = (account.parse().unwrap(), Nonce([key; 16]));
    let mut frame = Vec::new();
    Login::sign(&account, "1.0", unix_ms(), nonce, &Secret::new([key; 32])).encode(1, &mut frame);
    frame
}

#[test]
fn at_debug_it_says_why_a_device_does_not_get_in_and_at_info_nothing() {
    for (filter, says) in [("debug", true), ("info", false)] {
        let up = Up::start_with_log(filter);
        up.add("truck-1");
        let balancer = up.address("/balancer/0");
        say(balancer, &login("truck-1", 7));
        say(balancer, &login("nobody", 8));
        say(balancer, b"GET / HTTP/1.1\r\n");
        say(up.address("/logic_servers/0/device"), &login("truck-1", 9));
        let lines = [
            ("conn-1", "account=truck-1 source=127.0.0.1", "wrong_proof"),
            (
                "conn-1",
                "account=nobody source=127.0.0.1",
                "unknown_account",
            ),
            ("balancer-1", "source=127.0.0.1", "refused"),
            ("balancer-1", "source=127.0.0.1", "frame_magic"),
            ("logic-1", "source=127.0.0.1", "without_grant"),
        ];
        let told = |(node, who, why): &(&str, &str, &str)| {
            let log = up.log();
            let begin = format!(" DEBUG - {node} a device was not let in {who} untold=");
            let end = format!(" why={why}");
            let mut lines = log.lines();
            lines.any(|line| line.contains(&begin) && line.ends_with(&end))
        };
        match says {
            true => wait_for("all lines", || lines.iter().all(told)),
            false => assert!(!up.log().contains("DEBUG"), "{}", up.log()),
        }
    }
}

#[test]
fn an_operators_command_reaches_the_device_and_its_reply_comes_back() {
    let up = Up::start();
    up.add("truck-1");
    up.add("truck-2");
    let device = up.device("truck-1");

    let ping = up.command("truck-1", order(1, cluster_code::PING, b"hello"));
    assert_eq!(ping, replied(CommandStatus::Ok, b"hello"));
    let interval = up.command(
        "truck-1",
        order(2, cluster_code::SET_REPORT_INTERVAL, &[1, 2]),
    );
    assert_eq!(interval, replied(CommandStatus::Failed, b""));
    let unknown = up.command("truck-1", order(3, 0x7777, b""));
    assert_eq!(unknown, replied(CommandStatus::Unsupported, b""));
    // Past its deadline it is not even sent.
    let expired = Order {
        deadline_ms: 1,
        ..order(4, cluster_code::PING, b"late")
    };
    assert_eq!(up.command("truck-1", expired), CommandAnswer::Expired);

    let offline = up.command("truck-2", order(5, cluster_code::PING, b""));
    assert_eq!(offline, CommandAnswer::NotAttached);
    let nobody = up.command("truck-3", order(6, cluster_code::PING, b""));
    assert_eq!(nobody, CommandAnswer::NotAttached);
    drop(device);
}

#[test]
fn a_second_cluster_on_the_same_data_is_refused() {
    let up = Up::start();
    let second = rcu(up.data.path(), &["up"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8(second.stderr).unwrap();
    assert!(told.contains("another cluster runs on"), "{told}");
}

/// A directory without a cluster, and a configuration in it.
fn configured(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("up.toml");
    fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    (directory, config)
}

/// What a command says that fails.
fn refused(data: &Path, arguments: &[&str]) -> String {
    let ended = rcu(data, arguments).output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    String::from_utf8(ended.stderr).unwrap()
}

#[test]
fn ports_that_are_taken_are_all_named_with_what_to_do() {
    let taken: [_; 3] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [balancer, conn_server, logic_server] = taken.each_ref().map(|it| it.local_addr().unwrap());
    let (directory, config) = configured(&format!(
        "[balancer]\nlisten = \"{balancer}\"\n[conn_server]\nlisten = \"{conn_server}\"\n\
         [logic_server]\nlisten = \"{logic_server}\"\n"
    ));
    let told = refused(&directory.path().join("data"), &["up", "--config", &config]);
    for (line, key, address) in [
        (2, "balancer", balancer),
        (4, "conn_server", conn_server),
        (6, "logic_server", logic_server),
    ] {
        let expected = format!(":{line}: {key}.listen: {address} is in use: another process");
        assert!(told.contains(&expected), "{told}");
    }
    assert!(
        told.contains("choose another port") && !told.contains("os error"),
        "{told}"
    );
    assert!(!directory.path().join("data").exists(), "nothing was begun");
    // Beside whoever has them now it can be used.
    let looked_at = Command::new(env!("CARGO_BIN_EXE_rcu"))
        .args(["config", "check", &config])
        .output()
        .unwrap();
    assert!(looked_at.status.success(), "{looked_at:?}");
}

#[test]
fn one_port_for_two_is_told_before_anything_starts() {
    // The second of two logic servers takes the port behind the first one's.
    let (directory, config) = configured(
        "[balancer]\nlisten = \"127.0.0.1:31001\"\n[conn_server]\nlisten = \"127.0.0.1:31002\"\n\
         [logic_server]\nlisten = \"127.0.0.1:31000\"\nlink_listen = \"127.0.0.1:31002\"\n\
         [metrics]\nlisten = \"127.0.0.1:31003\"\n",
    );
    let looked_at = Command::new(env!("CARGO_BIN_EXE_rcu"))
        .args(["config", "check", &config])
        .output()
        .unwrap();
    assert_eq!(looked_at.status.code(), Some(1));
    let told = String::from_utf8(looked_at.stderr).unwrap();
    for expected in [
        ":6: logic_server.listen: 127.0.0.1:31001 is balancer.listen already",
        ":7: logic_server.link_listen: 127.0.0.1:31002 is conn_server.listen already",
        ":9: metrics.listen: 127.0.0.1:31003 is logic_server.link_listen already",
    ] {
        assert!(told.contains(expected), "{told}");
    }
    drop(directory);
}

#[test]
fn a_list_of_accounts_is_the_same_for_the_cluster_and_its_devices() {
    let up = Up::start();
    let path = |name: &str| up.data.path().join(name).display().to_string();
    for (number, separator) in [(1, ';'), (2, '\t'), (3, ',')] {
        let list = path(&format!("{number}.csv"));
        let text = format!("Account{separator}Key\r\ncar-{number}{separator}{KEY}\r\n");
        fs::write(&list, text).unwrap();
        let imported = rcu(up.data.path(), &["device", "import", &list])
            .output()
            .unwrap();
        assert!(imported.status.success(), "{imported:?}");
        let told = String::from_utf8(imported.stderr).unwrap();
        assert_eq!(told.contains("are parted by a"), separator != ',', "{told}");
        let balancer = up.address("/balancer/0").to_string();
        let mut simulate = Command::new(env!("CARGO_BIN_EXE_rcu"));
        simulate.args([
            "simulate",
            "--balancer",
            &balancer,
            "--devices",
            "1",
            "--for",
            "1s",
        ]);
        let simulated = simulate.args(["--keys", &list]).output().unwrap();
        assert!(simulated.status.success(), "{simulated:?}");
    }
    fs::write(path("4.csv"), format!("a;{KEY}\nb\n")).unwrap();
    let mut simulate = Command::new(env!("CARGO_BIN_EXE_rcu"));
    simulate.args([
        "simulate",
        "--balancer",
        "127.0.0.1:1",
        "--devices",
        "2",
        "--for",
        "1s",
    ]);
    let refused = simulate.args(["--keys", &path("4.csv")]).output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("4.csv:2: b has no key"), "{told}");
}

/// Long enough for what was acknowledged before to arrive. A device that gets no acknowledgements sends only
/// so much, and keeps the rest.
fn record_more(device: &Simulator) {
    let waiting = device.stats().unacknowledged;
    wait_for("more records to wait", || {
        device.stats().unacknowledged >= waiting + 5
    });
}

/// What is acknowledged stands in the file of that name, or is not acknowledged; and nobody has to guess why.
#[test]
fn nothing_is_acknowledged_into_a_file_that_was_moved_away_and_all_goes_on_when_it_is_back() {
    let up = Up::start();
    up.add("truck-1");
    let device = up.reporting_device("truck-1", 50);
    let acknowledged = || device.stats().records_acknowledged;
    wait_for("a record to be stored", || acknowledged() > 0);
    assert_eq!(up.readyz().0, 200);

    let (path, away) = (up.data.path().join("rcu.db"), up.data.path().join("away"));
    fs::rename(&path, &away).unwrap();
    wait_for("both tiers to say so", || {
        let (status, text) = up.readyz();
        status == 503 && text.contains("the accounts cannot be read") && text.contains("batches")
    });
    wait_for("the line", || up.log().contains(" 1013 "));
    record_more(&device);
    let before = acknowledged();
    record_more(&device);
    assert_eq!(acknowledged(), before);
    let refused = rcu(up.data.path(), &["device", "add", "truck-2"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(!path.exists(), "and no other file is made");

    fs::rename(&away, &path).unwrap();
    wait_for("records to be stored", || acknowledged() > before);
    wait_for("the line", || up.log().contains(" 1014 "));
    wait_for("it to be ready", || up.readyz().0 == 200);
    up.add("truck-2");
}

#[test]
fn a_file_that_was_put_in_its_place_is_not_written_to() {
    let up = Up::start();
    up.add("truck-1");
    let device = up.reporting_device("truck-1", 50);
    let acknowledged = || device.stats().records_acknowledged;
    wait_for("a record to be stored", || acknowledged() > 0);
    let (path, copy) = (up.data.path().join("rcu.db"), up.data.path().join("copy"));
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    wait_for("the line", || up.log().contains("replaced by another file"));
    let bytes = fs::read(&path).unwrap();
    wait_for("batches to fail", || up.readyz().1.contains("batches"));
    record_more(&device);
    let before = acknowledged();
    record_more(&device);
    assert_eq!(acknowledged(), before);
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// Where a disk is not mounted there is an empty directory.
#[test]
fn a_directory_that_was_used_before_and_is_empty_is_refused_unless_it_is_to_be_new() {
    let up = Up::start();
    let data = up.data.path().join("disk");
    let run = |arguments: &[&str]| {
        let mut run = rcu(&data, arguments);
        let state = up.data.path().join("state");
        run.env("XDG_STATE_HOME", state).output().unwrap()
    };
    let add = run(&["device", "add", "truck-1"]);
    assert!(add.status.success(), "{add:?}");
    fs::remove_dir_all(&data).unwrap();
    for there_is_a_directory in [false, true] {
        if there_is_a_directory {
            fs::create_dir(&data).unwrap();
        }
        for command in [&["up"][..], &["device", "add", "truck-1"]] {
            let refused = run(command);
            assert_eq!(refused.status.code(), Some(1), "{refused:?}");
            let told = String::from_utf8(refused.stderr).unwrap();
            assert!(told.contains("was used before"), "{told}");
            assert!(told.contains("--new"), "{told}");
        }
        assert!(!data.join("keys").exists(), "nothing is made in it");
    }
    let up_again = |arguments: &[&str]| {
        let config = up.data.path().join("up.toml");
        let log = fs::File::create(up.data.path().join("again.log")).unwrap();
        let _ = fs::remove_file(data.join("up.json"));
        let mut process = rcu(&data, arguments)
            .env("XDG_STATE_HOME", up.data.path().join("state"))
            .arg("--config")
            .arg(config)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let said = || fs::read_to_string(up.data.path().join("again.log")).unwrap();
        wait_for("its last line", || said().contains("all tiers run"));
        process.kill().unwrap();
        process.wait().unwrap();
        said()
    };
    let made = up_again(&["up", "--new"]);
    assert!(
        made.contains("new data directory") && made.contains(" 5003 "),
        "{made}"
    );
    let goes_on = up_again(&["up"]);
    assert!(!goes_on.contains("new data directory"), "{goes_on}");
    assert!(goes_on.contains("\ndata  "), "{goes_on}");
}

#[test]
fn what_does_not_fit_the_descriptors_is_refused_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("up.toml");
    fs::write(&config, "[logic_server]\nmax_connections = 4000000000\n").unwrap();
    let refused = rcu(data.path(), &["up", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(
        told.contains("max_connections") && told.contains("ulimit -n"),
        "{told}"
    );
}
