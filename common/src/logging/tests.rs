//! Logging as a whole, each in a process of its own: it is global, and a panic ends it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::line::Heading;
use super::*;

const DIRECTORY: &str = "RCU_TEST_LOG_DIRECTORY";

/// Runs one of the ignored tests below in its own process.
fn run(test: &str, directory: &Path, filter: &str) -> Output {
    let name = format!("logging::tests::{test}");
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", &name])
        .env(DIRECTORY, directory)
        .env(FILTER_VARIABLE, filter)
        .output()
        .unwrap()
}

/// What stands in the one file of the directory.
fn lines(directory: &Path) -> Vec<String> {
    let mut files = fs::read_dir(directory).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(ToOwned::to_owned).collect()
}

fn started(format: Format) -> Guard {
    let settings = LogSettings {
        directory: std::env::var(DIRECTORY).ok().map(Into::into),
        format,
        ..LogSettings::default()
    };
    start(&settings, &"process-1".parse().unwrap()).unwrap()
}

#[test]
fn every_line_goes_to_both_places_with_its_node_and_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let output = run("speaks", directory.path(), "info");
    assert!(output.status.success(), "{output:?}");
    let lines = lines(directory.path());
    let headings: Vec<_> = lines
        .iter()
        .map(|line| Heading::read(line).unwrap())
        .collect();
    let said: Vec<_> = headings
        .iter()
        .map(|it| (it.level.as_str(), it.code, it.node.as_str()))
        .collect();
    let expected = [
        ("INFO", Some(Code::LinkUp.number()), "logic-1"),
        ("INFO", Some(Code::LinkUp.number()), "logic-1"),
        ("WARN", Some(Code::LinkRefused.number()), "process-1"),
    ];
    assert_eq!(said, expected, "{lines:#?}");
    assert!(
        lines[1].ends_with("tells of another node=logic-2"),
        "{}",
        lines[1]
    );
    let end = r#"logic-1 link up\nforged n=3 peer=conn-1 why="a \"quoted\" word""#;
    assert!(lines[0].ends_with(end), "{}", lines[0]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    for line in &lines {
        assert!(stderr.contains(line.as_str()), "{line} is not in {stderr}");
    }
}

#[test]
fn a_span_names_the_node_also_where_only_warnings_are_logged() {
    let directory = tempfile::tempdir().unwrap();
    let output = run("speaks_up", directory.path(), "warn");
    assert!(output.status.success(), "{output:?}");
    let lines = lines(directory.path());
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(Heading::read(&lines[0]).unwrap().node, "logic-1");
}

#[test]
fn a_panic_in_a_task_is_logged_with_its_code_and_ends_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let output = run("panics", directory.path(), "info");
    // By abort: neither done nor a failed test.
    assert_eq!(output.status.code(), None, "{output:?}");
    let lines = lines(directory.path());
    let last = Heading::read(lines.last().unwrap()).unwrap();
    assert_eq!(last.code, Some(Code::Panicked.number()), "{lines:#?}");
    assert_eq!(last.node, "logic-1");
    assert!(lines.last().unwrap().contains("on purpose"), "{lines:#?}");
    assert_eq!(
        lines.len(),
        2,
        "what was said before is written too: {lines:#?}"
    );
}

#[test]
fn no_filter_silences_errors_and_what_operators_did() {
    let directory = tempfile::tempdir().unwrap();
    let output = run("speaks_gravely", directory.path(), "off");
    assert!(output.status.success(), "{output:?}");
    let codes: HashSet<_> = lines(directory.path())
        .iter()
        .map(|line| Heading::read(line).unwrap().code)
        .collect();
    let never_silenced = [Code::Failed, Code::OperatorKicked].map(|code| Some(code.number()));
    assert_eq!(codes, HashSet::from(never_silenced));
}

#[test]
fn an_empty_variable_is_none_and_one_that_names_nothing_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let output = run("speaks", directory.path(), "");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(lines(directory.path()).len(), 3);
    let output = run("speaks", directory.path(), "inof");
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("RCU_LOG: `inof`"), "{told}");
}

#[test]
fn a_flood_of_lines_crowds_out_no_line_of_what_operators_did() {
    let directory = tempfile::tempdir().unwrap();
    let output = run("floods", directory.path(), "info");
    assert!(output.status.success(), "{output:?}");
    let code = Some(Code::OperatorKicked.number());
    let stderr = String::from_utf8(output.stderr).unwrap();
    let headings = stderr.lines().filter_map(Heading::read);
    assert_eq!(headings.filter(|it| it.code == code).count(), 100);
}

#[test]
fn what_a_library_says_again_and_again_is_one_line_with_a_code() {
    let directory = tempfile::tempdir().unwrap();
    let output = run("has_a_talkative_library", directory.path(), "info");
    assert!(output.status.success(), "{output:?}");
    let lines = lines(directory.path());
    let code = Some(Code::LibraryTold.number());
    let of_libraries = lines
        .iter()
        .filter(|line| Heading::read(line).unwrap().code == code);
    // The second place in the same second is left out too: libraries have one line a second.
    assert_eq!(of_libraries.count(), 1, "{lines:#?}");
    let told = r#"WARN 1009 process-1 ping failed error="gone 0" library=sqlx_core::pool untold=0"#;
    assert!(lines[0].ends_with(told), "{}", lines[0]);
}

#[test]
fn a_password_of_a_file_that_a_library_reads_is_not_told() {
    let directory = tempfile::tempdir().unwrap();
    let output = run("has_an_indiscreet_library", directory.path(), "info");
    assert!(output.status.success(), "{output:?}");
    let lines = lines(directory.path());
    assert!(
        lines[0].contains("WARN 1009 process-1 Malformed line"),
        "{lines:#?}"
    );
    assert!(!lines[0].contains("hunter2"), "{lines:#?}");
}

#[test]
fn a_directory_that_cannot_be_written_and_a_wrong_filter_are_told() {
    let node = "process-1".parse().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let nowhere = LogSettings {
        directory: Some(file.path().join("logs")),
        ..LogSettings::default()
    };
    let refused = start(&nowhere, &node).unwrap_err();
    assert!(matches!(refused, LogError::Directory { .. }), "{refused:?}");
    let wrong = LogSettings {
        filter: "a=b=c".into(),
        days: 0,
        bytes_max: 1,
        ..LogSettings::default()
    };
    let keys: Vec<_> = wrong
        .check()
        .iter()
        .map(|mistake| mistake.split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["filter", "days", "bytes_max"]);
}

#[test]
#[ignore = "logs: run by a test above, in a process of its own"]
fn speaks() {
    let guard = started(Format::Text);
    let span = tracing::info_span!("logic_server", node = %"logic-1");
    span.in_scope(|| {
        let why = "a \"quoted\" word";
        tracing::info!(code = Code::LinkUp.number(), peer = %"conn-1", why, n = 3, "link up\nforged");
        tracing::debug!("not asked for");
        let within = tracing::info_span!("within", other = 1);
        within.in_scope(|| {
            tracing::info!(code = Code::LinkUp.number(), node = "logic-2", "tells of another");
        });
    });
    // In the order of the queue, which the file keeps.
    tracing::warn!(code = Code::LinkRefused.number(), "outside");
    let events: u64 = guard.figures().events().map(|(_, count)| count).sum();
    assert_eq!(events, 3);
    assert_eq!(guard.figures().lines_dropped(), 0);
}

#[test]
#[ignore = "logs: run by a test above, in a process of its own"]
fn has_a_talkative_library() {
    let guard = started(Format::Text);
    for n in 0..100 {
        tracing::warn!(target: "sqlx_core::pool", error = format!("gone {n}"), "ping failed");
        tracing::info!(target: "sqlx::postgres::notice", "relation exists, skipping");
        tracing::debug!(target: "sqlx::query", "below INFO they are not held back");
    }
    let events: u64 = guard.figures().events().map(|(_, count)| count).sum();
    assert_eq!(events, 200);
}

#[test]
#[ignore = "logs: run by a test above, in a process of its own"]
fn has_an_indiscreet_library() {
    let _guard = started(Format::Text);
    let line = "localhost:5432:rcu:hunter2";
    tracing::warn!(target: "sqlx_postgres::options::pgpass", line, "Malformed line in pgpass file");
}

#[test]
#[ignore = "logs: run by a test above, in a process of its own"]
fn speaks_up() {
    let guard = started(Format::Json);
    let span = tracing::info_span!("logic_server", node = %"logic-1");
    span.in_scope(|| {
        tracing::info!(code = Code::LinkUp.number(), "counted, not logged");
        tracing::warn!(code = Code::LinkRefused.number(), "logged");
    });
    let events: u64 = guard.figures().events().map(|(_, count)| count).sum();
    assert_eq!(events, 2);
}

#[test]
#[ignore = "logs: run by a test above, in a process of its own"]
fn speaks_gravely() {
    let _guard = started(Format::Text);
    tracing::error!(code = Code::Failed.number(), "failed");
    tracing::warn!(code = Code::LinkRefused.number(), "held back");
    tracing::info!(target: AUDIT, code = Code::OperatorKicked.number(), "kicked");
}

#[test]
#[ignore = "logs: run by a test above, in a process of its own"]
fn floods() {
    let guard = started(Format::Text);
    // Nobody reads standard error for a while.
    let stuck = io::stderr().lock();
    for n in 0..10_000 {
        tracing::info!(code = Code::LinkUp.number(), n, "flood");
        if n % 100 == 0 {
            tracing::info!(target: AUDIT, code = Code::OperatorKicked.number(), n, "kicked");
        }
    }
    assert!(guard.figures().lines_dropped() > 0);
    assert_eq!(guard.figures().audit_lines_dropped(), 0);
    drop(stuck);
}

#[tokio::test]
#[ignore = "ends the process: run by a test above, in one of its own"]
async fn panics() {
    use tracing::Instrument;

    let _guard = started(Format::Text);
    let span = tracing::info_span!("logic_server", node = %"logic-1");
    tracing::info!(parent: &span, code = Code::LogicServerRuns.number(), "runs");
    let task = tokio::spawn(async { panic!("on purpose") }.instrument(span));
    let _ = task.await;
    // It never comes here.
    std::process::exit(0);
}
