//! The configuration file of a balancer that is a process of its own: config/balancer.toml.

use std::path::Path;

use common::config::file::{self, ConfigError};
use common::config::ports;
use common::config::process::{
    ClusterKeyFile, NodeSettings, Purpose, in_table, mistakes_of_every_server,
};
use common::logging::LogSettings;
use common::metrics::MetricsSettings;
use common::process::clock;
use common::process::descriptors::{PROCESS, raise_limit};
use serde::Deserialize;

use crate::settings::Settings;

/// What the file and the environment say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub node: NodeSettings,
    pub keys: ClusterKeyFile,
    pub balancer: Settings,
    pub log: LogSettings,
    pub metrics: MetricsSettings,
}

impl Config {
    /// Reads the file, overridden by the environment.
    ///
    /// # Errors
    /// It cannot be read; or all mistakes in it and in what it needs of this machine.
    pub fn load(path: &Path, purpose: Purpose) -> Result<Self, ConfigError> {
        file::load(Some(path), file::environment(), |config: &Self| {
            config.mistakes(purpose)
        })
    }

    fn mistakes(&self, purpose: Purpose) -> Vec<String> {
        let mut mistakes = mistakes_of_every_server(&self.node, &self.log, &self.metrics);
        mistakes.extend(in_table("keys", self.keys.check()));
        mistakes.extend(in_table("balancer", self.balancer.check()));
        if self.balancer.conn_servers.is_empty() {
            mistakes.push("balancer.conn_servers: at least one".into());
        }
        let listen = self.balancer.listen.iter();
        let listen = listen
            .map(|&address| ("balancer.listen", address))
            .chain(self.metrics.listened());
        mistakes.extend(ports::mistakes(listen, purpose));
        if purpose == Purpose::Start {
            mistakes.extend(self.descriptor_mistake(raise_limit()));
            mistakes.extend(clock::mistake());
        }
        mistakes
    }

    /// `limit`: descriptors that the process may open; `None`: any number.
    fn descriptor_mistake(&self, limit: Option<u64>) -> Option<String> {
        let (pending, limit) = (self.balancer.connections_pending_max, limit?);
        (pending as u64 + PROCESS > limit).then(|| {
            format!(
                "balancer.connections_pending_max: {pending} do not fit: the process may open \
                 {limit} files; lower it, or raise the limit (ulimit -n, LimitNOFILE)"
            )
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    const DOCUMENTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/balancer.toml");

    /// Whatever this machine and this process's own environment are.
    fn read(text: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file::load(Some(file.path()), [], |_: &Config| vec![]).unwrap()
    }

    #[test]
    fn the_documented_file_states_every_default() {
        let written = read(&fs::read_to_string(DOCUMENTED).unwrap());
        let mut expected = Config::default();
        // What has no default stands there as an example.
        expected.node.name = Some("balancer-1".parse().unwrap());
        expected.balancer.conn_servers = vec!["127.0.0.1:10100".into()];
        assert_eq!(written, expected);
    }

    #[test]
    fn mistakes_of_every_table_are_told_together() {
        let mut config = read("[balancer]\nlisten = \"192.0.2.1:10000\"\nlogins_burst = 0\n");
        config.keys.cluster = "/nowhere/cluster".into();
        let mistakes = config.mistakes(Purpose::Check);
        let keys: Vec<_> = mistakes
            .iter()
            .map(|it| it.split(':').next().unwrap())
            .collect();
        let expected = [
            "node.name",
            "keys.cluster",
            "balancer.logins_burst",
            "balancer.conn_servers",
            "balancer.listen",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn what_does_not_fit_the_descriptors_is_told() {
        let config = Config::default();
        assert_eq!(config.descriptor_mistake(None), None);
        assert_eq!(config.descriptor_mistake(Some(5_064)), None);
        let told = config.descriptor_mistake(Some(1_024)).unwrap();
        assert!(
            told.contains("1024 files") && told.contains("LimitNOFILE"),
            "{told}"
        );
    }
}
