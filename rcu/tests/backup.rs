//! `rcu backup`, of a cluster that stores what devices send.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use common::database::Database;
use servers::{Role, TestDatabase};

use support::{Up, rcu, wait_for};

fn backup(data: &Path, file: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["backup", file.to_str().unwrap()];
    arguments.extend(more);
    rcu(data, &arguments).output().unwrap()
}

/// Rows of each table that a cluster has written to.
fn counts(file: &Path) -> [i64; 4] {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let database = Database::open(file).await.unwrap();
        let reader = database.sqlite().unwrap().reader();
        let mut counts = [0; 4];
        let tables = [
            "accounts",
            "account_changes",
            "epoch_marks",
            "telemetry_gps",
        ];
        for (count, table) in counts.iter_mut().zip(tables) {
            let sql = format!("SELECT count(*) FROM {table}");
            *count = sqlx::query_scalar(&sql).fetch_one(reader).await.unwrap();
        }
        let (sound,): (String,) = sqlx::query_as("PRAGMA integrity_check")
            .fetch_one(reader)
            .await
            .unwrap();
        assert_eq!(sound, "ok");
        database.close().await;
        counts
    })
}

#[test]
fn a_copy_of_a_running_cluster_is_whole_and_only_its_owners() {
    let up = Up::start();
    up.add("truck-1");
    let device = up.reporting_device("truck-1", 10);
    wait_for("records to be stored", || {
        device.stats().records_acknowledged > 20
    });
    let file = up.data.path().join("copy.db");
    let before = device.stats().records_acknowledged;
    let made = backup(up.data.path(), &file, &["--json"]);
    assert!(made.status.success(), "{made:?}");
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(made["format"], "sqlite");
    assert_eq!(made["bytes"], fs::metadata(&file).unwrap().len());
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let files = fs::read_dir(up.data.path()).unwrap();
    let unfinished = files.filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(".rcu-backup")
    });
    assert_eq!(unfinished.count(), 0);
    wait_for("records to be stored", || {
        device.stats().records_acknowledged > before + 20
    });

    let again = backup(up.data.path(), &file, &[]);
    assert_eq!(again.status.code(), Some(1));
    let told = String::from_utf8(again.stderr).unwrap();
    assert!(told.contains("is there already"), "{told}");

    let [accounts, changes, marks, records] = counts(&file);
    assert_eq!((accounts, changes, marks), (1, 1, 1));
    assert!(records >= before as i64 / 5, "{records} of {before}");
}

#[test]
fn what_is_not_there_is_not_copied() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("copy");
    let nothing = backup(&directory.path().join("data"), &file, &[]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(!file.exists());
}

#[test]
fn a_database_of_postgresql_is_dumped_without_its_password_being_shown() {
    let test = TestDatabase::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("copy.dump");
    let url = format!("{}&password=known-to-nobody", test.url(Role::Owner));
    let run = |arguments: &[&str]| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_rcu"));
        let run = run.args(arguments).args(["--database", &url]);
        run.output().unwrap()
    };
    let made = run(&["backup", file.to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    let told = String::from_utf8(made.stderr).unwrap();
    assert!(!told.contains("known-to-nobody"), "{told}");
    assert!(told.contains("keys are not in it"), "{told}");
    assert!(fs::read(&file).unwrap().starts_with(b"PGDMP"));
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let missing = Command::new(env!("CARGO_BIN_EXE_rcu"))
        .args(["backup", directory.path().join("other").to_str().unwrap()])
        .args(["--database", "postgres://rcu@127.0.0.1:1/rcu"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let told = String::from_utf8(missing.stderr).unwrap();
    assert!(told.contains("pg_dump failed ("), "{told}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}
