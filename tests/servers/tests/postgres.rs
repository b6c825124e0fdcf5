//! A server is there while a test has it, and nothing is left of it afterwards.

#![allow(clippy::unwrap_used)]

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::Mutex;

use servers::PostgresServer;

fn directory_of(server: &PostgresServer) -> PathBuf {
    let url = server.administrator_url();
    let directory = url.split("host=").nth(1).unwrap().split('&').next();
    directory.unwrap().into()
}

#[test]
fn a_server_is_gone_after_a_panic() {
    let seen = Mutex::new(PathBuf::new());
    let panicked = catch_unwind(|| {
        let server = PostgresServer::start("").unwrap();
        assert_eq!(server.sql("postgres", "SELECT 6 * 7").unwrap(), "42\n");
        *seen.lock().unwrap() = directory_of(&server);
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    let directory = seen.lock().unwrap();
    assert!(directory.is_absolute() && !directory.exists());
}

#[test]
fn what_was_committed_survives_a_crash() {
    let mut server = PostgresServer::start("").unwrap();
    let fsync = server.sql("postgres", "SHOW fsync").unwrap();
    assert_eq!(fsync, "on\n", "a test without it proves nothing");
    server
        .sql("postgres", "CREATE TABLE kept AS SELECT 1 AS n")
        .unwrap();
    server.crash().unwrap();
    assert!(server.sql("postgres", "SELECT 1").is_err());
    server.start_again().unwrap();
    assert_eq!(server.sql("postgres", "SELECT n FROM kept").unwrap(), "1\n");
}
