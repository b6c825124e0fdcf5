//! The configuration file of `rcu up`: one table per tier, with the keys of the tiers' own files.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// What the three tiers are told. Every key has a default, so an empty file is a whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) balancer: balancer::Settings,
    pub(crate) conn_server: conn_server::Settings,
    pub(crate) logic_server: logic_server::Settings,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {path}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("{path}: {why}")]
    Parse { path: String, why: String },
    #[error("{path} has {} {}:\n  {}", mistakes.len(), if mistakes.len() == 1 { "mistake" } else { "mistakes" }, mistakes.join("\n  "))]
    Mistakes { path: String, mistakes: Vec<String> },
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// It cannot be read or parsed (with line and key), or values in it are wrong (all of them at once).
    pub(crate) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let name = || path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: name(),
            source,
        })?;
        let config: Self = toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: name(),
            why: error.to_string().trim_end().into(),
        })?;
        let mistakes = config.mistakes();
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Mistakes {
                path: name(),
                mistakes,
            })
        }
    }

    fn mistakes(&self) -> Vec<String> {
        let named = |table: &'static str| move |mistake: String| format!("{table}.{mistake}");
        let mut mistakes: Vec<_> = self
            .balancer
            .check()
            .into_iter()
            .map(named("balancer"))
            .collect();
        mistakes.extend(
            self.conn_server
                .check()
                .into_iter()
                .map(named("conn_server")),
        );
        mistakes.extend(
            self.logic_server
                .check()
                .into_iter()
                .map(named("logic_server")),
        );
        let own = [
            ("balancer.conn_servers", &self.balancer.conn_servers),
            ("conn_server.logic_servers", &self.conn_server.logic_servers),
        ];
        for (key, _) in own.iter().filter(|(_, named)| !named.is_empty()) {
            mistakes.push(format!(
                "{key}: `rcu up` runs its own, and links to no others"
            ));
        }
        mistakes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DOCUMENTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/up.toml");

    fn written(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Config::from_file(file.path())
    }

    #[test]
    fn the_documented_file_states_every_default() {
        assert_eq!(
            Config::from_file(Path::new(DOCUMENTED)).unwrap(),
            Config::default()
        );
        // Every key of it can be set: one that is only explained would be refused here.
        let text = fs::read_to_string(DOCUMENTED).unwrap();
        let uncommented = text.replace("# heartbeat_s = ", "heartbeat_s = ");
        let uncommented = uncommented.replace("# max_connections = ", "max_connections = ");
        let config = written(&uncommented).unwrap();
        assert_eq!(config.conn_server.heartbeat_s, Some(60));
        assert_eq!(config.logic_server.max_connections, Some(10_000));
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_their_tables() {
        let text = "[balancer]\nlogin_deadline_ms = 1\n[logic_server]\nwindow = 0\nheartbeat_s = 4\n\
                    [conn_server]\nlogic_servers = \"logic-9:20100\"\n";
        let told = written(text).unwrap_err().to_string();
        for key in [
            "balancer.login_deadline_ms",
            "logic_server.window",
            "logic_server.heartbeat_s",
        ] {
            assert!(told.contains(key), "{told}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let told = written("[balancer]\nlisten_on = 1\n")
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("line 2") && told.contains("listen_on"),
            "{told}"
        );
    }
}
