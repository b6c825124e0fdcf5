//! The `[database]` table of a configuration.

use std::time::Duration;

use serde::Deserialize;

use super::{Client, DatabaseUrl};

/// Long enough for a database that is busy, short enough for a device that waits for its answer.
const CONNECT_DEADLINE_MS: u64 = 3_000;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `sqlite:PATH` or `postgres://USER:PASSWORD@HOST:PORT/NAME`.
    pub url: DatabaseUrl,
    /// Whoever needs a connection waits at most so long for one.
    #[serde(default = "connect_deadline_ms")]
    pub connect_deadline_ms: u64,
}

fn connect_deadline_ms() -> u64 {
    CONNECT_DEADLINE_MS
}

impl DatabaseSettings {
    pub fn new(url: DatabaseUrl) -> Self {
        Self {
            url,
            connect_deadline_ms: CONNECT_DEADLINE_MS,
        }
    }

    /// Every mistake, each beginning with its key; empty: they can be used.
    pub fn check(&self) -> Vec<String> {
        let fine = 100..=60_000;
        match fine.contains(&self.connect_deadline_ms) {
            true => vec![],
            false => vec![format!(
                "connect_deadline_ms: {} is not within {} to {}",
                self.connect_deadline_ms,
                fine.start(),
                fine.end()
            )],
        }
    }

    /// What [`super::Database::connect`] wants to know of a process: its name, and how many
    /// connections its tier needs.
    pub fn client<'a>(&self, name: &'a str, connections_max: u32) -> Client<'a> {
        Client {
            name,
            connections_max,
            connect_deadline: Duration::from_millis(self.connect_deadline_ms),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_needed_and_the_rest_has_defaults() {
        let read = |text: &str| toml::from_str::<DatabaseSettings>(text);
        let settings = read("url = \"sqlite:rcu.db\"").unwrap();
        assert_eq!(
            settings,
            DatabaseSettings::new("sqlite:rcu.db".parse().unwrap())
        );
        assert_eq!(settings.check(), Vec::<String>::new());
        assert!(read("").unwrap_err().to_string().contains("url"));
        let hasty = read("url = \"sqlite:rcu.db\"\nconnect_deadline_ms = 1").unwrap();
        let mistakes = hasty.check();
        assert_eq!(
            mistakes,
            ["connect_deadline_ms: 1 is not within 100 to 60000"]
        );
    }

    #[test]
    fn a_wrong_url_is_told_without_its_password() {
        let read = |url: &str| toml::from_str::<DatabaseSettings>(&format!("url = {url:?}"));
        let told = read("postgres://rcu:hidden@db:x/rcu").unwrap_err();
        // The file's own line is quoted by whoever reads files, not by this error.
        assert!(!told.message().contains("hidden"), "{told}");
    }
}
