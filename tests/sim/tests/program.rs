//! The program as it is used: what it prints, writes and exits with.

use std::path::Path;
use std::process::{Command, Output};
use std::{fs, str};

use sim::plan::{Overrides, Plan};
use sim::regression::Regression;

fn sim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(arguments).output().expect("it starts")
}

fn printed(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("text")
}

/// A plan that breaks its promise whatever the cluster does: no time is left after the heal.
fn write_broken_plan(path: &Path) {
    let overrides = Overrides {
        devices: Some(5),
        faults_ms: Some(5_000),
        ..Overrides::default()
    };
    let regression = Regression {
        found: "nothing: it is made to fail".into(),
        promise: "L2".into(),
        seeds: 1,
        plan: Plan {
            heal_ms: 0,
            ..Plan::draw(1, &overrides)
        },
    };
    regression.write(path).expect("written");
}

#[test]
fn a_seed_says_first_what_it_drew_and_does_the_same_twice() {
    let run = || sim(&["--seed", "11", "--devices", "3", "--for", "20s"]);
    let (first, second) = (run(), run());
    assert_eq!(first.status.code(), Some(0), "{}", printed(&first));
    assert!(printed(&first).starts_with("seed 11 | 3 devices"));
    let trace = |output: &Output| {
        let (_, rest) = printed(output).split_once("trace ").expect("a hash");
        rest.to_owned()
    };
    assert_eq!(trace(&first), trace(&second));
}

#[test]
fn a_trace_tells_of_one_device_and_changes_nothing() {
    let arguments = ["--seed", "11", "--devices", "3", "--for", "20s"];
    let plain = sim(&arguments);
    let traced = sim(&[&arguments[..], &["--trace", "--trace-device", "1"]].concat());
    let text = printed(&traced);
    assert!(text.contains("Login sim-000001 nonce"), "{text}");
    assert!(text.contains("AttachReply ok"), "{text}");
    assert!(text.contains("TelemetryAck stored seq"), "{text}");
    assert!(!text.contains("sim-000002 "), "{text}");
    let last = |output: &Output| {
        let line = printed(output).lines().last().expect("a line");
        line.split_once("trace ").expect("a hash").1.to_owned()
    };
    assert_eq!(last(&plain), last(&traced));
}

#[test]
fn a_failure_is_shrunk_told_and_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let plan = directory.path().join("broken.toml");
    let cases = directory.path().join("cases");
    write_broken_plan(&plan);
    let plan = plan.to_string_lossy();
    let output = sim(&["--plan", &plan, "--cases", &cases.to_string_lossy()]);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the smallest case, after"), "{text}");
    assert!(text.contains("what led to it"), "{text}");
    assert!(!text.contains("NOT REPEATABLE"), "{text}");
    let written: Vec<_> = fs::read_dir(&cases).expect("written").collect();
    let [Ok(case)] = &written[..] else {
        panic!("{written:?}");
    };
    let case = Regression::load(&case.path()).expect("a case can be loaded");
    assert_eq!(case.plan.devices, 1);
    assert_eq!(case.plan.faults.classes().count(), 0);
}

#[test]
fn a_night_in_which_all_held_says_so() {
    let output = sim(&[
        "--nightly",
        "--for-real",
        "2s",
        "--devices",
        "2",
        "--for",
        "10s",
    ]);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("every promise held"), "{text}");
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_right() {
    let wrong: &[(&[&str], &str)] = &[
        (&["--faults", "resett"], "possible values: reset"),
        (&["--faults", "none,reset"], "stand alone"),
        (&["--seed", "1", "--suite"], "cannot be used with"),
        (&["--from-seed", "1"], "--seeds"),
        (&["--devices", "0"], "not in 1..="),
        (&["--trace-device", "1"], "--trace"),
        (&["--save", "Not A Name"], "small letters"),
        (&["--plan", "no-such-file.toml"], "no-such-file.toml"),
    ];
    for (arguments, right) in wrong {
        let output = sim(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(right), "{arguments:?}: {said}");
    }
}
