//! The alert rules and the board that operators are given, judged by Prometheus's own tool: by what is to
//! happen (rcu-alerts.test.yml), and by what real servers show before and after one of them was killed.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::process::clock::unix_ms;
use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::site::{Server, Site, Tier, command, wait_for};

/// Set where there is no promtool: what needs it is left out then.
const LEFT_OUT: &str = "RCU_TEST_WITHOUT_PROMTOOL";

/// As prometheus.yml has it.
const SCRAPE_S: usize = 15;

const METRICS: [(&str, &str); 1] = [("RCU_METRICS__LISTEN", "127.0.0.1:0")];

fn observability(file: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    repository.join("config/observability").join(file)
}

/// Whether there is one; `scripts/test` says where there is none.
fn has_promtool() -> bool {
    std::env::var_os(LEFT_OUT).is_none()
}

fn promtool(arguments: &[&str], file: &Path) {
    let run = Command::new("promtool").args(arguments).arg(file).output();
    let run = run.unwrap_or_else(|error| {
        panic!("promtool (Debian package prometheus), or {LEFT_OUT}=1: {error}")
    });
    let (out, err) = (
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr),
    );
    assert!(run.status.success(), "{arguments:?}\n{out}\n{err}");
}

#[test]
fn rules_ring_when_what_they_are_for_happens() {
    if has_promtool() {
        promtool(&["check", "config"], &observability("prometheus.yml"));
        let tests = observability("rcu-alerts.test.yml");
        promtool(&["test", "rules"], &tests);
        let rules = fs::read_to_string(observability("rcu-alerts.yml")).unwrap();
        for alert in rules.split("- alert: ").skip(1) {
            let told = alert.lines().find(|line| line.contains("summary: "));
            let names = told.is_some_and(|it| it.contains("$labels.node"));
            let name = alert.lines().next().unwrap();
            assert!(names || name == "RcuNothingWatched", "{name} names no node");
        }
    }
}

fn is_ready(server: &Server) -> bool {
    server.page("/readyz").starts_with("HTTP/1.1 200")
}

/// Series with their values, as Prometheus would have them; `None`: nobody answers.
type Scrape = Option<BTreeMap<String, String>>;

fn scrape(server: &Server, instance: &str) -> Scrape {
    let page = server.page("/metrics");
    let (_, text) = page.split_once("\r\n\r\n").unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap();
        let series = format!("{name}{{job=\"rcu\",instance=\"{instance}\",{labels}");
        (series, value.to_owned())
    });
    Some(series.collect())
}

/// What Prometheus has of an instance after these scrapes, each so many times.
fn recorded(instance: &str, scrapes: &[(usize, &Scrape)]) -> Vec<Value> {
    let values = |of: &dyn Fn(&Scrape) -> String| {
        let values = scrapes
            .iter()
            .flat_map(|(times, scrape)| vec![of(scrape); *times]);
        values.collect::<Vec<_>>().join(" ")
    };
    let known: BTreeSet<_> = scrapes
        .iter()
        .filter_map(|(_, scrape)| scrape.as_ref())
        .flat_map(BTreeMap::keys)
        .collect();
    let mut series: Vec<_> = known
        .into_iter()
        .map(|series| {
            let value = |scrape: &Scrape| {
                let value = scrape.as_ref().and_then(|scrape| scrape.get(series));
                value.map_or("stale", String::as_str).to_owned()
            };
            json!({"series": series, "values": values(&value)})
        })
        .collect();
    let up = |scrape: &Scrape| u8::from(scrape.is_some()).to_string();
    let name = format!("up{{job=\"rcu\",instance=\"{instance}\"}}");
    series.push(json!({"series": name, "values": values(&up)}));
    series
}

/// Every panel's expressions, by its title.
fn panels() -> Vec<(String, String)> {
    let board = fs::read_to_string(observability("grafana-rcu.json")).unwrap();
    let board: Value = serde_json::from_str(&board).unwrap();
    let panels = board["panels"].as_array().unwrap().iter();
    let expressions = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        panel["targets"].as_array().unwrap().iter().map(move |it| {
            let expression = it["expr"].as_str().unwrap();
            let expression = expression.replace("$__rate_interval", "1m");
            (title.to_owned(), expression.replace("$node", ".*"))
        })
    });
    expressions.collect()
}

/// At the end of so many scrapes the expression has these values.
fn expected(expression: &str, scrapes: usize, samples: &[(&str, u32)]) -> Value {
    let samples: Vec<_> = samples
        .iter()
        .map(|(labels, value)| json!({"labels": labels, "value": value}))
        .collect();
    let at = format!("{}s", scrapes * SCRAPE_S);
    json!({"expr": expression, "eval_time": at, "exp_samples": samples})
}

#[test]
fn a_conn_server_that_was_killed_is_told_by_its_name_and_so_is_its_return() {
    if !has_promtool() {
        return;
    }
    let site = Site::new();
    let Cluster {
        logic,
        conn,
        balancer,
    } = Cluster::start(&site, &METRICS);
    wait_for("a cluster that is ready", || {
        [&logic, &conn, &balancer].into_iter().all(is_ready)
    });
    let all = |conn: Scrape| [scrape(&logic, "logic"), conn, scrape(&balancer, "balancer")];
    let before = all(scrape(&conn, "conn"));
    let begun_s = unix_ms() / 1_000;

    let link = conn.link();
    drop(conn);
    fs::remove_file(site.path("conn-1.json")).unwrap();
    wait_for("those that miss it", || {
        let text = balancer.page("/metrics");
        let warned = text
            .lines()
            .any(|line| line.contains("\"LinkNotMade\"") && !line.ends_with(" 0"));
        warned && !is_ready(&logic) && !is_ready(&balancer)
    });
    let without = all(None);

    wait_for("another second", || unix_ms() / 1_000 > begun_s);
    let more = format!("listen = {link:?}\nlogic_servers = {:?}", logic.link());
    let config = site.config(Tier::ConnServer, "conn-1", &more);
    let program = &mut command(Tier::ConnServer.program());
    let conn = site.start_command(&config, program.envs(METRICS));
    wait_for("its return", || {
        [&logic, &conn, &balancer].into_iter().all(is_ready)
    });
    let after = all(scrape(&conn, "conn"));

    // Scraped at 0 s … 60 s, 75 s … 195 s, 210 s … 270 s.
    let (dead_for_90_s, dead_for_120_s, back) = (11, 13, 18);
    let instances = ["logic", "conn", "balancer"].into_iter().enumerate();
    let series: Vec<_> = instances
        .flat_map(|(index, instance)| {
            let scrapes = [
                (5, &before[index]),
                (9, &without[index]),
                (5, &after[index]),
            ];
            recorded(instance, &scrapes)
        })
        .collect();
    let ringing = "count by (alertname, node) (ALERTS{alertstate=\"firing\"})";
    let gone = (r#"{alertname="RcuProcessGone", node="conn-1"}"#, 1);
    let not_ready = |node| match node {
        "balancer-1" => (r#"{alertname="RcuNotReady", node="balancer-1"}"#, 1),
        _ => (r#"{alertname="RcuNotReady", node="logic-1"}"#, 1),
    };
    let all_gone = [gone, not_ready("balancer-1"), not_ready("logic-1")];
    let mut looks = vec![
        expected(ringing, 4, &[]),
        expected(ringing, dead_for_90_s, &[gone]),
        expected(ringing, dead_for_120_s, &all_gone),
        expected(
            ringing,
            back,
            &[(r#"{alertname="RcuStarted", node="conn-1"}"#, 1)],
        ),
    ];
    for (title, expression) in panels() {
        // Of what is not there in this picture nothing is wrong: while one is dead, each of them shows something.
        let shows = format!("clamp_max(count({expression}), 1)");
        let at = if title == "Warnings and errors, by code" {
            6
        } else {
            back
        };
        looks.push(expected(&shows, at, &[("{}", 1)]));
        match title.as_str() {
            "Nodes that are not ready" => {
                looks.push(expected(&expression, 4, &[("{}", 0)]));
                looks.push(expected(&expression, dead_for_90_s, &[("{}", 3)]));
                looks.push(expected(&expression, back, &[("{}", 0)]));
            }
            "Starts" => {
                let once = [
                    (r#"{node="balancer-1"}"#, 0),
                    (r#"{node="conn-1"}"#, 1),
                    (r#"{node="logic-1"}"#, 0),
                ];
                looks.push(expected(&expression, back, &once));
            }
            _ => {}
        }
    }
    let judged = json!({
        "rule_files": [observability("rcu-alerts.yml")],
        "evaluation_interval": format!("{SCRAPE_S}s"),
        "tests": [{
            "interval": format!("{SCRAPE_S}s"),
            "input_series": series,
            "promql_expr_test": looks,
        }],
    });
    // JSON is YAML, too.
    let file = site.write("killed.yml", &judged.to_string());
    promtool(&["test", "rules"], &file);
}
