//! The configuration file of `rcu up`: one table per tier, with the keys of the tiers' own files.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// What the three tiers are told. Every key has a default, so an empty file is a whole configuration.
#[derive(Clone, Debug, Default, Deserialize)]
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
        mistakes
    }
}
