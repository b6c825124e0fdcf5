//! Balancer, conn server and logic server, each a process of its own, are the cluster that `rcu up` is.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::process::descriptors::raise_limit;
use tests::cluster::Cluster;
use tests::site::{PATIENCE, Said, Server, Site, Tier, command, wait_for};

const FLEET_KEY: &str = "f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee7f1ee";

/// Devices of a fleet come in, report and have every record acknowledged; else it fails.
fn simulate(site: &Site, cluster: &Cluster, count: u32) -> Said {
    let (devices, balancer) = (count.to_string(), cluster.balancer.devices());
    let fleet = ["--fleet", "van", "--fleet-key", FLEET_KEY];
    let data = site.path("").display().to_string();
    let add = ["device", "add", "--count", &devices, "--data", &data];
    site.run("rcu", &[&add[..], &fleet].concat())
        .expect_success();
    let run = ["simulate", "--balancer", &balancer, "--devices", &devices];
    let pace = ["--every", "500ms", "--for", "3s"];
    site.run("rcu", &[&run[..], &pace, &fleet].concat())
}

#[test]
fn three_processes_are_a_cluster_and_end_as_they_are_told() {
    let site = Site::new();
    let cluster = Cluster::start(&site, &[]);
    simulate(&site, &cluster, 20).expect_success();
    for said in cluster.stop(&site) {
        assert!(said.text.contains("told to stop"), "{}", said.text);
    }
}

/// `[::]` is every interface, for both families; and a device is known by the address that it has.
#[test]
fn devices_come_by_ipv4_where_every_interface_is_listened_on() {
    let site = Site::new();
    let any = "listen = \"[::]:0\"";
    let advertised = format!("{any}\nadvertise = \"127.0.0.1:0\"");
    let logic = site.start(
        Tier::LogicServer,
        &site.config(Tier::LogicServer, "logic-1", &advertised),
    );
    let to_logic = format!("logic_servers = {:?}", logic.link());
    let conn = site.start(
        Tier::ConnServer,
        &site.config(Tier::ConnServer, "conn-1", &to_logic),
    );
    let to_conn = format!("{any}\nconn_servers = {:?}", conn.link());
    let balancer = site.start(
        Tier::Balancer,
        &site.config(Tier::Balancer, "balancer-1", &to_conn),
    );
    let port = balancer.devices().replace("[::]:", "");
    let data = site.path("").display().to_string();
    let fleet = ["--fleet", "van", "--fleet-key", FLEET_KEY];
    let add = ["device", "add", "--count", "2", "--data", &data];
    site.run("rcu", &[&add[..], &fleet].concat())
        .expect_success();
    let at = format!("127.0.0.1:{port}");
    let run = [
        "simulate",
        "--balancer",
        &at,
        "--devices",
        "2",
        "--for",
        "1s",
    ];
    site.run("rcu", &[&run[..], &fleet].concat())
        .expect_success();
    let show = ["device", "show", "van-000001", "--json", "--data", &data];
    let shown = site.run("rcu", &show).text;
    assert!(shown.contains("\"last_source\":\"127."), "{shown}");
    for server in [balancer, conn, logic] {
        site.stop(server).expect_success();
    }
}

#[test]
fn a_supervisor_is_told_when_a_server_runs() {
    let site = Site::new();
    let socket = site.path("notify");
    let supervisor = UnixDatagram::bind(&socket).unwrap();
    supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = site.config(Tier::LogicServer, "logic-1", "listen = \"127.0.0.1:0\"");
    let mut command = command("logic-server");
    let server = site.start_command(&config, command.env("NOTIFY_SOCKET", &socket));
    let mut heard = [0; 16];
    let bytes = supervisor.recv(&mut heard).unwrap();
    assert_eq!(&heard[..bytes], b"READY=1");
    site.stop(server).expect_success();
}

/// Nobody else gets it before the server does, unless by bad luck.
fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

/// What a server shows at its metrics port.
fn page(site: &Site, at: SocketAddr, name: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(stream, "GET {name} HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    site.without_secrets(page)
}

#[test]
fn a_server_writes_its_log_to_files_and_shows_its_figures() {
    let site = Site::new();
    let metrics = free_address();
    let config = site.config(Tier::LogicServer, "logic-1", "listen = \"127.0.0.1:0\"");
    let mut command = command("logic-server");
    let command = command.env("RCU_METRICS__LISTEN", metrics.to_string());
    let command = command.env("RCU_LOG__FORMAT", "json");
    let server = site.start_command(
        &config,
        command.env("RCU_LOG__DIRECTORY", site.path("logs")),
    );
    assert!(page(&site, metrics, "/healthz").contains(" 200 "));
    assert!(page(&site, metrics, "/metrics").contains("node=\"logic-1\""));
    let said = site.stop(server);
    said.expect_success();
    let files = fs::read_dir(site.path("logs")).unwrap();
    let written: String = files
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    for line in site.without_secrets(written.clone()).lines() {
        assert!(line.starts_with('{'), "{line}");
        assert!(said.text.contains(line), "{line}");
    }
    assert!(written.contains("told to stop"), "{written}");
}

#[test]
fn no_key_stands_in_what_processes_say_at_their_most_talkative() {
    let mut site = Site::new();
    site.keep_secret("device", FLEET_KEY);
    let cluster = Cluster::start(&site, &[("RCU_LOG", "trace")]);
    simulate(&site, &cluster, 5).expect_success();
    // The search is made wherever a text is looked at; here is that there was something to search.
    for said in cluster.stop(&site) {
        assert!(said.text.contains("told to stop"), "{}", said.text);
    }
}

#[test]
#[should_panic(expected = "a secret in")]
fn a_key_that_is_said_is_found() {
    let site = Site::new();
    let key = std::fs::read_to_string(site.path("keys/operator")).unwrap();
    let mut echo = std::process::Command::new("echo");
    site.run_command(echo.arg(key.to_uppercase()));
}

/// Hands connections on to `target` until the test ends, and counts them.
fn counting_proxy(target: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    thread::spawn(move || {
        for from in listener.incoming() {
            let (from, to) = (from.unwrap(), TcpStream::connect(&target).unwrap());
            counted.fetch_add(1, Ordering::Relaxed);
            for (mut reader, mut writer) in [
                (from.try_clone().unwrap(), to.try_clone().unwrap()),
                (to, from),
            ] {
                thread::spawn(move || {
                    // Whichever side ends, the other learns of it.
                    let _ = io::copy(&mut reader, &mut writer);
                    let _ = writer.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (address, count)
}

/// F22, and neither side fills its log with it.
#[test]
fn a_conn_server_that_no_logic_server_knows_is_not_ready_and_says_why_once() {
    let site = Site::new();
    let keys = site.path("other-keys").display().to_string();
    site.run("rcu", &["keys", "new", &keys]).expect_success();
    let config = site.config(Tier::LogicServer, "logic-1", "listen = \"127.0.0.1:0\"");
    let logic = site.start(Tier::LogicServer, &config);
    let (target, attempts) = counting_proxy(logic.link());
    let metrics = free_address();
    let more = format!("logic_servers = \"{target}\"");
    let config = site.config(Tier::ConnServer, "conn-1", &more);
    let mut command = command("conn-server");
    command.env("RCU_KEYS__CLUSTER", format!("{keys}/cluster"));
    command.env("RCU_METRICS__LISTEN", metrics.to_string());
    let conn = site.start_command(&config, &mut command);

    wait_for("some attempts", || attempts.load(Ordering::Relaxed) >= 5);
    let ready = page(&site, metrics, "/readyz");
    assert!(ready.contains(" 503 "), "{ready}");
    for why in [
        "conn-1: no logic server takes grants",
        &format!("conn-1: no link to {target}: it does not know our key"),
    ] {
        assert!(ready.contains(why), "{ready}");
    }
    for (server, code, why) in [
        (conn, "WARN 1105", "it does not know our key"),
        (
            logic,
            "WARN 1103",
            "is unknown here: the cluster keys differ",
        ),
    ] {
        let said = site.stop(server);
        said.expect_success();
        let told = said.text.lines().filter(|line| line.contains(code));
        let told: Vec<_> = told.collect();
        assert!(matches!(told[..], [line] if line.contains(why)), "{told:?}");
    }
}

#[test]
fn a_balancer_with_another_key_is_told_on_both_sides() {
    let site = Site::new();
    let keys = site.path("other-keys").display().to_string();
    site.run("rcu", &["keys", "new", &keys]).expect_success();
    let conn = {
        let config = site.config(
            Tier::ConnServer,
            "conn-1",
            "logic_servers = \"127.0.0.1:1\"",
        );
        site.start(Tier::ConnServer, &config)
    };
    let link = conn.link();
    let more = format!("listen = \"127.0.0.1:0\"\nconn_servers = {link:?}");
    let config = site.config(Tier::Balancer, "balancer-1", &more);
    let mut command = command("balancer");
    command.env("RCU_KEYS__CLUSTER", format!("{keys}/cluster"));
    let balancer = site.start_command(&config, &mut command);
    wait_for("both to say it", || {
        site.said_by(&balancer).contains("it does not know our key")
            && site
                .said_by(&conn)
                .contains("is unknown here: the cluster keys differ")
    });
    site.stop(balancer).expect_success();
    site.stop(conn).expect_success();
}

fn resident_bytes(server: &Server) -> u64 {
    let page = server.page("/metrics");
    let is_it = |line: &&str| line.starts_with("rcu_process_resident_bytes");
    let line = page.lines().find(is_it).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn a_balancer_gives_back_the_memory_of_strangers_that_are_gone() {
    const STRANGERS: usize = 5_000;
    raise_limit();
    let site = Site::new();
    let more = format!(
        "listen = \"127.0.0.1:0\"\nconn_servers = \"127.0.0.1:9\"\nlogin_deadline_ms = 60000\n\
         connections_per_source_max = {STRANGERS}\n[metrics]\nlisten = \"127.0.0.1:0\""
    );
    let config = site.config(Tier::Balancer, "balancer-1", &more);
    let balancer = site.start(Tier::Balancer, &config);
    let at_rest = resident_bytes(&balancer);
    let pending = |count: usize| {
        let line = format!("node=\"balancer-1\"}} {count}");
        let is_it = |it: &str| it.starts_with("rcu_balancer_pending{") && it.ends_with(&line);
        balancer.page("/metrics").lines().any(is_it)
    };
    let strangers: Vec<_> = (0..STRANGERS)
        .map(|_| {
            let mut stranger = TcpStream::connect(balancer.devices()).unwrap();
            stranger.write_all(b"RC\x01").unwrap();
            stranger
        })
        .collect();
    wait_for("all of them", || pending(STRANGERS));
    let filled = resident_bytes(&balancer) - at_rest;
    assert!(filled > 4 << 20, "{filled} bytes are nothing to give back");
    drop(strangers);
    wait_for("nobody", || pending(0));
    wait_for("the memory of those that are gone", || {
        resident_bytes(&balancer) < at_rest + filled / 2
    });
}
