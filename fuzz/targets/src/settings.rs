//! Configuration files and keys as an operator writes them: they are read or refused with a
//! message, and settings without a mistake are within the limits that the rest relies on.

use std::fmt::Write;

use common::link::secret_from_hex;
use serde::Deserialize;

/// The tables of the file of `rcu up`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct File {
    balancer: balancer::Settings,
    conn_server: conn_server::Settings,
    logic_server: logic_server::Settings,
}

pub fn settings(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    key(text.trim());
    match toml::from_str::<File>(text) {
        Ok(file) => check(&file),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check(file: &File) {
    for mistake in file.balancer.check() {
        assert!(!mistake.is_empty());
    }
    if file.conn_server.check().is_empty() {
        let settings = &file.conn_server;
        assert!(
            settings
                .heartbeat_s
                .is_none_or(|it| (5..=3_600).contains(&it))
        );
        assert!((1..=600).contains(&settings.grant_ttl_s));
        assert!(settings.node_number <= 1_023);
    }
    if file.logic_server.check().is_empty() {
        let settings = &file.logic_server;
        assert!((5..=3_600).contains(&settings.heartbeat_s));
        assert!((1..=10_000).contains(&settings.window));
    }
}

/// 64 hex digits, and nothing else, are a key; written again they are the same.
fn key(text: &str) {
    let is_key = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let key = secret_from_hex(text);
    assert_eq!(key.is_some(), is_key);
    if let Some(key) = key {
        let mut again = String::new();
        for byte in key.expose() {
            write!(again, "{byte:02x}").expect("a String takes all");
        }
        assert!(again.eq_ignore_ascii_case(text));
        assert_eq!(format!("{key:?}"), "***");
    }
}
