//! What `rcu up` shows of itself, and that what is made for operators speaks of nothing else: alert
//! rules, the Grafana board, the Logstash pipeline, docs/metrics.md.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::codes::Code;
use serde_json::Value;
use servers::said;
use simulator::device::{Identity, Settings as DeviceSettings};
use simulator::driver::{Settings, Simulator};
use simulator::keys::key_from_hex;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// Nothing here takes as long; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster with metrics and logs; killed where a test fails before it ends it.
struct Up {
    process: Child,
    data: tempfile::TempDir,
}

impl Up {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("up.toml");
        let free = "listen = \"127.0.0.1:0\"\n";
        let logs = data.path().join("logs");
        fs::write(
            &config,
            format!(
                "[balancer]\n{free}[logic_server]\n{free}[metrics]\n{free}\
                 [log]\nformat = \"json\"\ndirectory = {:?}\n",
                logs.to_str().unwrap()
            ),
        )
        .unwrap();
        let process = rcu(&["up", "--config", config.to_str().unwrap(), "--data"])
            .arg(data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let up = Self { process, data };
        wait_for("up.json", || up.data.path().join("up.json").exists());
        up
    }

    fn address(&self, pointer: &str) -> SocketAddr {
        let text = fs::read_to_string(self.data.path().join("up.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let address = json.pointer(pointer).unwrap().as_str().unwrap();
        address.parse().unwrap()
    }

    /// The status and the text of a page.
    fn page(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address("/metrics")).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.to_owned())
    }

    /// Ends it in order.
    fn end(&mut self) {
        let pid = self.process.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(killed.success());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        said::secrets_in(&self.data.path().join("keys"));
        said::keep_all(&self.data.path().join("logs"));
    }
}

fn rcu(arguments: &[&str]) -> Command {
    let mut process = Command::new(env!("CARGO_BIN_EXE_rcu"));
    process.args(arguments);
    // What it remembers is not for whoever runs this.
    process.env_remove("XDG_STATE_HOME").env_remove("HOME");
    process
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < PATIENCE, "waited for {what}");
        sleep(Duration::from_millis(10));
    }
}

/// What a page of metrics holds.
#[derive(Debug, Default)]
struct Exposed {
    /// By name and labels.
    series: BTreeMap<(String, String), f64>,
    /// Families, with their types.
    families: BTreeMap<String, String>,
    /// What the families say of themselves.
    helps: BTreeMap<String, String>,
}

/// Shown where a certificate is verified, and so not by `rcu up`.
const OF_POSTGRES: [&str; 1] = ["rcu_process_database_certificate_expires_seconds"];

impl Exposed {
    fn read(text: &str) -> Self {
        let mut exposed = Self::default();
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                let before = exposed.families.insert(name.into(), kind.into());
                assert!(before.is_none(), "{name} stands there twice");
            } else if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').unwrap();
                exposed.helps.insert(name.into(), text.trim().into());
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap();
                let key = (name.to_owned(), labels.trim_end_matches('}').to_owned());
                let before = exposed.series.insert(key, value.parse().unwrap());
                assert!(before.is_none(), "{series} stands there twice");
            }
        }
        exposed
    }

    fn names(&self) -> BTreeSet<&str> {
        self.series.keys().map(|(name, _)| name.as_str()).collect()
    }

    fn sum(&self, name: &str) -> f64 {
        let of_name = self.series.iter().filter(|((it, _), _)| it == name);
        of_name.map(|(_, value)| value).sum()
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .into()
}

fn observability(file: &str) -> String {
    fs::read_to_string(repository().join("config/observability").join(file)).unwrap()
}

/// All texts under a key, at any depth.
fn texts(json: &Value, key: &str, found: &mut Vec<String>) {
    match json {
        Value::Object(object) => {
            for (name, value) in object {
                match value.as_str() {
                    Some(text) if name == key => found.push(text.to_owned()),
                    _ => texts(value, key, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

/// Expressions of the rules and of the board.
fn expressions() -> Vec<String> {
    let rules: Value = serde_yaml_ng::from_str(&observability("rcu-alerts.yml")).unwrap();
    let board: Value = serde_json::from_str(&observability("grafana-rcu.json")).unwrap();
    let mut expressions = vec![];
    texts(&rules, "expr", &mut expressions);
    assert!(expressions.len() >= 10, "{expressions:?}");
    texts(&board, "expr", &mut expressions);
    texts(&board, "query", &mut expressions);
    assert!(expressions.len() >= 50, "{}", expressions.len());
    expressions
}

/// The metrics that an expression names, and the texts in quotation marks with what stands before.
fn named(expression: &str) -> (Vec<String>, Vec<(String, String)>) {
    let (mut names, mut labels) = (vec![], vec![]);
    let mut before = "";
    for (index, part) in expression.split('"').enumerate() {
        if index % 2 == 1 {
            let label = before.trim_end_matches(['=', '~', '!']);
            let label = label.rsplit(['{', ',', ' ']).next().unwrap();
            labels.push((label.to_owned(), part.to_owned()));
        } else {
            let word = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '_');
            let words = part.split(word).filter(|word| word.starts_with("rcu_"));
            names.extend(words.map(ToOwned::to_owned));
        }
        before = part;
    }
    (names, labels)
}

#[test]
fn what_operators_are_given_speaks_of_what_a_running_cluster_shows() {
    let mut up = Up::start();
    wait_for("/readyz", || up.page("/readyz").0 == 200);
    assert_eq!(up.page("/healthz"), (200, "ok\n".into()));
    let added = rcu(&["device", "add", "truck-1", "--key", KEY, "--data"])
        .arg(up.data.path())
        .output()
        .unwrap();
    assert!(added.status.success(), "{added:?}");
    let simulator = Simulator::start(Settings {
        balancers: vec![up.address("/balancer/0").to_string()],
        identities: vec![Identity {
            account: "truck-1".parse().unwrap(),
            key: key_from_hex(KEY).unwrap(),
        }],
        device: DeviceSettings {
            report_interval_ms: 50,
            ..DeviceSettings::default()
        },
        ..Settings::default()
    })
    .unwrap();
    let read = || Exposed::read(&up.page("/metrics").1);
    wait_for("a record in the metrics", || {
        read().sum("rcu_logic_server_records_stored_total") > 0.0
    });
    let (_, text) = up.page("/metrics");
    assert!(!text.contains(KEY));
    let exposed = Exposed::read(&text);
    the_figures_are_those_of_what_happened(&exposed);
    every_counter_of_every_tier_is_shown(&exposed);
    every_family_says_what_it_is(&exposed);
    rules_and_board_name_what_is_shown(&exposed);
    the_documentation_names_every_figure_that_is_no_counter(&exposed);
    series_are_bounded(&exposed);
    drop(simulator);
    up.end();
    what_was_logged_is_whole_and_counted(&up.data.path().join("logs"));
}

/// Of who had a device do what; programs that read numbers as JavaScript does would make another id of it.
#[test]
fn the_log_names_a_command_by_the_id_that_was_printed() {
    let mut up = Up::start();
    let data = up.data.path().to_owned();
    let sent = rcu(&["command", "send", "truck-1", "ping", "--json", "--data"])
        .arg(&data)
        .env_remove("RCU_CLUSTER")
        .env_remove("RCU_OPERATOR_KEY_FILE")
        .output()
        .unwrap();
    let sent: Value = serde_json::from_slice(&sent.stdout).unwrap();
    up.end();
    let mut lines = vec![];
    for entry in fs::read_dir(data.join("logs")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        lines.extend(
            text.lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()),
        );
    }
    let told = Code::OperatorCommanded.number();
    let line = lines.iter().find(|line| line["code"] == told).unwrap();
    assert!(sent["command_id"].is_string(), "{sent}");
    assert_eq!(line["fields"]["command_id"], sent["command_id"], "{line}");
}

fn the_figures_are_those_of_what_happened(exposed: &Exposed) {
    for (name, least) in [
        ("rcu_balancer_ok_total", 1.0),
        ("rcu_balancer_login_seconds_count", 1.0),
        ("rcu_conn_server_login_seconds_count", 1.0),
        ("rcu_logic_server_sessions", 1.0),
        ("rcu_logic_server_ack_seconds_count", 1.0),
        ("rcu_logic_server_write_seconds_count", 1.0),
        ("rcu_logic_server_write_rows_sum", 1.0),
        ("rcu_logic_server_turn_seconds_count", 1.0),
        ("rcu_process_resident_bytes", 1e6),
    ] {
        assert!(exposed.sum(name) >= least, "{name}: {}", exposed.sum(name));
    }
    // A balancer, a conn server, two logic servers.
    let ready: f64 = ["balancer", "conn_server", "logic_server"]
        .map(|tier| exposed.sum(&format!("rcu_{tier}_ready")))
        .iter()
        .sum();
    assert_eq!(ready, 4.0);
    let runs = exposed.series.iter().find(|((name, labels), _)| {
        name == "rcu_process_events_total" && labels.contains("event=\"ClusterRuns\"")
    });
    assert_eq!(runs.map(|(_, count)| *count), Some(1.0));
}

fn every_counter_of_every_tier_is_shown(exposed: &Exposed) {
    let of = |tier: &str, name: &str| format!("rcu_{tier}_{name}_total");
    let balancer = balancer::counters::Counter::ALL
        .iter()
        .map(|it| of("balancer", it.name()));
    let conn_server = conn_server::counters::Counter::ALL
        .iter()
        .map(|it| of("conn_server", it.name()));
    let logic_server = logic_server::counters::Counter::ALL
        .iter()
        .map(|it| of("logic_server", it.name()));
    let names = exposed.names();
    for name in balancer.chain(conn_server).chain(logic_server) {
        assert!(names.contains(name.as_str()), "{name} is not shown");
    }
}

fn every_family_says_what_it_is(exposed: &Exposed) {
    for family in exposed.families.keys() {
        let help = exposed.helps.get(family).map_or("", String::as_str);
        assert!(help.ends_with(['.', '`']), "{family}: {help:?}");
    }
}

fn rules_and_board_name_what_is_shown(exposed: &Exposed) {
    let shown = exposed.names();
    for expression in expressions() {
        let (names, labels) = named(&expression);
        for name in names {
            assert!(
                shown.contains(name.as_str()) || OF_POSTGRES.contains(&name.as_str()),
                "{name} is not shown: {expression}"
            );
        }
        for (label, text) in labels {
            let is_right = match label.as_str() {
                "code" => text.parse().ok().and_then(Code::of).is_some(),
                "event" => Code::ALL.iter().any(|code| code.name() == text),
                "level" => text
                    .split('|')
                    .all(|it| ["INFO", "WARN", "ERROR"].contains(&it)),
                // Of Prometheus and Grafana; `ready` of each tier is asked for above.
                "job" | "node" | "__name__" => true,
                _ => false,
            };
            assert!(is_right, "{label} is never {text:?}: {expression}");
        }
        let (open, close) = (
            expression.matches('(').count(),
            expression.matches(')').count(),
        );
        assert_eq!(open, close, "{expression}");
    }
    let _: Value = serde_yaml_ng::from_str(&observability("prometheus.yml")).unwrap();
}

fn the_documentation_names_every_figure_that_is_no_counter(exposed: &Exposed) {
    let documentation = fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    for (family, kind) in &exposed.families {
        if kind != "counter" {
            let word = format!("`{family}`");
            assert!(
                documentation.contains(&word),
                "{word} is not in docs/metrics.md"
            );
        }
    }
    for word in documentation
        .split('`')
        .filter(|word| word.starts_with("rcu_"))
    {
        let word = word.split('{').next().unwrap();
        // How every name begins.
        let is_shown = word == "rcu_"
            || OF_POSTGRES.contains(&word)
            || exposed.families.contains_key(word)
            || exposed.names().contains(word);
        assert!(is_shown || word.contains("TIER"), "{word} is not shown");
    }
}

fn series_are_bounded(exposed: &Exposed) {
    for (name, labels) in exposed.series.keys() {
        for label in labels.split(',') {
            let (label, value) = label.split_once('=').unwrap();
            let known = ["tier", "node", "le", "code", "event", "level"];
            assert!(known.contains(&label), "{name}: {label}");
            assert!(!value.contains("truck"), "{name}: {value}");
        }
    }
    assert!(exposed.series.len() < 1_000, "{}", exposed.series.len());
}

fn what_was_logged_is_whole_and_counted(logs: &Path) {
    let mut nodes = BTreeSet::new();
    for entry in fs::read_dir(logs).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(path.extension().unwrap(), "jsonl");
        for line in fs::read_to_string(path).unwrap().lines() {
            assert!(!line.contains(KEY));
            let line: Value = serde_json::from_str(line).unwrap();
            nodes.insert(line["node"].as_str().unwrap().to_owned());
            let code = line["code"].as_u64().unwrap();
            let code = Code::of(u16::try_from(code).unwrap()).unwrap();
            assert_eq!(line["event"], code.name());
            assert_eq!(line["level"], code.level().name());
        }
    }
    let expected = ["balancer-1", "conn-1", "logic-1", "logic-2", "rcu-up"];
    assert!(nodes.iter().eq(expected), "{nodes:?}");
    let stats = rcu(&["logs", "stats", "--since", "1h", "--json"])
        .arg(logs)
        .output()
        .unwrap();
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    let counts = stats["counts"].as_array().unwrap();
    for event in [Code::ClusterRuns, Code::ProcessStops, Code::BalancerEnded] {
        let of_event = counts.iter().find(|count| count["event"] == event.name());
        assert_eq!(of_event.unwrap()["count"], 1, "{event:?}");
    }
    assert_eq!(stats["not_understood"], 0);
}

#[test]
fn the_pipeline_reads_the_keys_that_lines_have() {
    let pipeline = observability("logstash.conf");
    let documentation = fs::read_to_string(repository().join("docs/logs.md")).unwrap();
    let mut read = BTreeSet::new();
    for part in pipeline.split("[rcu][").skip(1) {
        read.insert(part.split(']').next().unwrap());
    }
    // Made by the pipeline itself.
    assert!(read.remove("text"));
    assert!(read.len() >= 6, "{read:?}");
    for key in read {
        let documented = format!("| `{key}` |");
        assert!(documentation.contains(&documented), "lines have no {key}");
    }
    let (open, close) = (pipeline.matches('{').count(), pipeline.matches('}').count());
    assert_eq!(open, close);
}

#[test]
fn a_name_that_is_not_shown_would_be_found() {
    let (names, labels) =
        named(r#"sum by (node) (rate(rcu_x_total{code="1", event=~"A"}[5m])) > rcu_y"#);
    assert_eq!(names, ["rcu_x_total", "rcu_y"]);
    let labels: Vec<_> = labels
        .iter()
        .map(|(label, text)| (&label[..], &text[..]))
        .collect();
    assert_eq!(labels, [("code", "1"), ("event", "A")]);
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let script = rcu(&["completions", shell]).output().unwrap();
        assert!(script.status.success());
        let script = String::from_utf8(script.stdout).unwrap();
        for command in ["explain", "simulate", "logs"] {
            assert!(script.contains(command), "{shell}");
        }
    }
}
