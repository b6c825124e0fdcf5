//! What an operator types, against a cluster that runs.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use support::{KEY, Up, rcu, wait_for};

/// What a command came to.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    told: String,
}

impl Ended {
    /// The objects that it printed, which any reader of JSON takes as they are.
    fn json(&self) -> Vec<Value> {
        let lines = self.out.lines();
        lines
            .map(|line| {
                let object = serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:?}"));
                assert_nothing_is_rounded("", &object);
                object
            })
            .collect()
    }

    fn one(&self) -> Value {
        let mut objects = self.json();
        assert_eq!(objects.len(), 1, "{self:?}");
        objects.remove(0)
    }
}

/// jq and JavaScript take numbers for what fits 53 bits: ids are text, and no other number is larger.
fn assert_nothing_is_rounded(name: &str, value: &Value) {
    let is_id = name == "id" || name.ends_with("_id") || name == "epoch";
    match value {
        Value::Number(number) => {
            assert!(!is_id, "{name} is a number: {number}");
            let magnitude = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
            assert!(magnitude.unwrap_or(0) <= 1 << 53, "{name}: {number}");
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| assert_nothing_is_rounded(name, value)),
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, value)| assert_nothing_is_rounded(name, value)),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Of an object that has one.
fn epoch(object: &Value) -> u64 {
    object["epoch"].as_str().unwrap().parse().unwrap()
}

impl Up {
    fn rcu(&self, arguments: &[&str]) -> Ended {
        ended(rcu(self.data.path(), arguments))
    }
}

fn ended(mut process: std::process::Command) -> Ended {
    for variable in ["RCU_CLUSTER", "RCU_OPERATOR_KEY_FILE"] {
        process.env_remove(variable);
    }
    let output = process.output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        told: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn the_nodes_of_a_cluster_are_listed_with_what_they_do() {
    let up = Up::start();
    let listed = up.rcu(&["node", "list", "--json"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    let nodes = listed.json();
    let seen: Vec<_> = nodes
        .iter()
        .map(|node| {
            (
                node["name"].as_str().unwrap(),
                node["role"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("conn-1", "conn-server"),
        ("logic-1", "logic-server"),
        ("logic-2", "logic-server"),
        ("balancer-1", "balancer"),
    ];
    assert_eq!(seen, expected);
    for node in &nodes {
        assert_eq!(node["state"], "up", "{node}");
        assert_eq!(node["version"], env!("CARGO_PKG_VERSION"), "{node}");
        assert!(node["figures"].as_object().unwrap().len() > 10, "{node}");
    }
    let devices_at = up.address("/logic_servers/0/device").to_string();
    assert_eq!(nodes[1]["addresses"][0], devices_at);
    assert_eq!(
        nodes[3]["addresses"][0],
        up.address("/balancer/0").to_string()
    );

    let table = up.rcu(&["node", "list"]).out;
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(table.contains(&devices_at), "{table}");
}

#[test]
fn sessions_are_listed_shown_and_kicked_and_the_device_comes_back() {
    let up = Up::start();
    for account in ["truck-1", "truck-2", "truck-3"] {
        up.add(account);
    }
    let _first = up.device("truck-1");
    let _second = up.device("truck-2");

    let listed = up.rcu(&["session", "list", "--json"]);
    let mut accounts: Vec<_> = listed
        .json()
        .iter()
        .map(|line| line["account"].as_str().unwrap().to_owned())
        .collect();
    accounts.sort();
    assert_eq!(accounts, ["truck-1", "truck-2"], "{listed:?}");
    assert_eq!(
        up.rcu(&["session", "list", "--limit", "1", "--json"])
            .json()
            .len(),
        1
    );
    // Each on a logic server of its own: the least loaded one.
    let on_one = up.rcu(&["session", "list", "--node", "logic-1", "--json"]);
    assert_eq!(on_one.json().len(), 1, "{on_one:?}");
    let nowhere = up.rcu(&["session", "list", "--node", "logic-9"]);
    assert_eq!(nowhere.code, 1);
    assert!(
        nowhere.told.contains("no logic server of this name"),
        "{nowhere:?}"
    );

    let shown = up.rcu(&["session", "show", "truck-1", "--json"]).one();
    assert_eq!(shown["outcome"], "attached");
    assert_eq!(shown["heartbeat_s"], 60);
    assert!(
        shown["source"].as_str().unwrap().starts_with("127."),
        "{shown}"
    );
    let text = up.rcu(&["session", "show", "truck-1"]).out;
    assert!(text.contains("heartbeat      every 60 s"), "{text}");

    let offline = up.rcu(&["session", "show", "truck-3", "--json"]);
    assert_eq!(
        (offline.code, &offline.one()["outcome"]),
        (3, &"not_attached".into())
    );
    let nobody = up.rcu(&["session", "kick", "truck-4"]);
    assert_eq!(nobody.code, 3);
    assert!(nobody.told.contains("no such account"), "{nobody:?}");

    let kicked = up.rcu(&["session", "kick", "truck-1", "--json"]).one();
    assert_eq!(kicked["outcome"], "kicked");
    assert_eq!(kicked["epoch"], shown["epoch"]);
    wait_for("the device to come back", || {
        let again = up.rcu(&["session", "show", "truck-1", "--json"]).one();
        again["outcome"] == "attached" && epoch(&again) > epoch(&shown)
    });
    let figures = up.rcu(&["node", "list", "--json"]).json();
    let kicks = |node: &Value| node["figures"]["kicked"].as_u64();
    assert_eq!(figures.iter().filter_map(kicks).sum::<u64>(), 1);
}

#[test]
fn a_command_is_answered_and_its_exit_code_says_by_whom() {
    let up = Up::start();
    up.add("truck-1");
    up.add("truck-2");
    let _device = up.device("truck-1");
    let ping = up.rcu(&["command", "send", "truck-1", "ping", "hello"]);
    assert_eq!((ping.code, &*ping.out), (0, "hello\n"), "{ping:?}");
    assert!(ping.told.starts_with("truck-1: ok (command "), "{ping:?}");

    for (arguments, code, outcome) in [
        (&["truck-1", "set-report-interval", "30s"][..], 0, "ok"),
        (&["truck-1", "set-clock"], 0, "ok"),
        (&["truck-1", "read-config"], 0, "ok"),
        (&["truck-1", "code", "0x7777"], 4, "unsupported"),
        (&["truck-1", "code", "3", "--payload", "0102"], 4, "failed"),
        (&["truck-2", "ping"], 3, "not_attached"),
        (&["truck-3", "ping"], 3, "not_attached"),
    ] {
        let sent = up.rcu(&[&["command", "send", "--json"], arguments].concat());
        assert_eq!(sent.code, code, "{arguments:?}: {sent:?}");
        assert_eq!(sent.one()["outcome"], outcome, "{arguments:?}");
    }
    // The same command again is not done again: the device remembers its answer.
    let first = up
        .rcu(&["command", "send", "truck-1", "ping", "a", "--json"])
        .one();
    let id = first["command_id"].as_str().unwrap();
    let again = [
        "command", "send", "truck-1", "ping", "b", "--id", id, "--json",
    ];
    let again = up.rcu(&again).one();
    assert_eq!(again["replies"][0]["text"], "a", "{again}");
}

#[test]
fn top_shows_the_cluster_once_and_as_one_object() {
    let up = Up::start();
    up.add("truck-1");
    let _device = up.device("truck-1");
    let top = ["top", "--once", "--every", "500ms"];
    let picture = up.rcu(&[&top[..], &["--json"]].concat()).one();
    assert_eq!(picture["sessions"], 1, "{picture}");
    assert!(picture["over_ms"].as_u64().unwrap() >= 500);
    assert_eq!(picture["nodes"].as_array().unwrap().len(), 4);
    assert_eq!(picture["nodes"][1]["records_per_s"], 0.0, "{picture}");
    let table = up.rcu(&top).out;
    assert!(table.starts_with("RCU top   20"), "{table}");
    assert!(table.contains("  1 of "), "{table}");
    assert!(table.contains("balancer-1"), "{table}");
    assert!(!table.contains("ends it"), "it has ended: {table}");
}

#[test]
fn a_cluster_is_named_by_its_address_and_key_and_refuses_another() {
    let up = Up::start();
    let address = up.address("/conn_server").to_string();
    let elsewhere = tempfile::tempdir().unwrap();
    let missing = ended(rcu(elsewhere.path(), &["node", "list"]));
    assert_eq!(missing.code, 1);
    assert!(missing.told.contains("no cluster runs on"), "{missing:?}");

    let key = up.data.path().join("keys").join("operator");
    let mut named = rcu(elsewhere.path(), &["node", "list", "--json"]);
    named
        .args(["--cluster", &address, "--operator-key"])
        .arg(&key);
    assert_eq!(ended(named).json().len(), 4);

    let wrong = elsewhere.path().join("key");
    fs::write(&wrong, format!("{KEY}\n")).unwrap();
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).unwrap();
    let mut refused = rcu(up.data.path(), &["node", "list"]);
    refused.arg("--operator-key").arg(&wrong);
    let refused = ended(refused);
    assert_eq!(refused.code, 1);
    assert!(
        refused.told.contains("does not know our key"),
        "{refused:?}"
    );
    assert!(!refused.told.contains(KEY), "{refused:?}");
}

#[test]
fn a_list_is_imported_while_the_cluster_runs_and_again() {
    let up = Up::start();
    let list = up.data.path().join("trucks.csv");
    let list = list.to_str().unwrap();
    let import = |more: &[&str]| up.rcu(&[&["device", "import", list, "--json"], more].concat());
    fs::write(
        list,
        format!("account,key\ntruck-1,{KEY}\ntr uck,\ntruck-1\n"),
    )
    .unwrap();
    let wrong = import(&[]);
    assert_eq!(wrong.code, 1);
    let mistakes = wrong.one()["mistakes"].clone();
    assert_eq!(
        (&mistakes[0]["line"], &mistakes[1]["line"]),
        (&3.into(), &4.into())
    );

    fs::write(list, format!("account,key\ntruck-1,{KEY}\ntruck-2\n")).unwrap();
    let out = up.data.path().join("made.csv");
    let out = out.to_str().unwrap();
    let dry = import(&["--dry-run", "--out", out]);
    assert_eq!((dry.code, &dry.one()["added"]), (0, &2.into()), "{dry:?}");
    let none = up.rcu(&["device", "list", "--json"]);
    assert_eq!(none.json(), Vec::<Value>::new());
    let done = import(&["--out", out]);
    assert_eq!(
        (done.code, &done.one()["keys_made"]),
        (0, &1.into()),
        "{done:?}"
    );
    let _device = up.device("truck-1");

    let again = import(&["--out", &format!("{out}.again")]);
    assert_eq!(again.code, 0);
    assert_eq!(again.one()["existing_lines"], "2-3", "{again:?}");
    assert!(
        !fs::exists(format!("{out}.again")).unwrap(),
        "no key was made"
    );
    let accounts = up.rcu(&["device", "list", "--json"]).json();
    assert_eq!(accounts[1]["account"], "truck-2");
    assert_eq!(accounts[1]["last_login_at_ms"], Value::Null);
    let shown = up.rcu(&["device", "show", "truck-1", "--json"]).one();
    assert_eq!(
        (&shown["account"], &shown["enabled"]),
        (&"truck-1".into(), &true.into())
    );
}
