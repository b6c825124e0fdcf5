//! The configuration file of a balancer that is a process of its own: config/balancer.toml.

use std::net::SocketAddr;

use common::config::process::{ClusterKeyFile, NodeSettings, ServerConfig, Tables, in_table};
use common::logging::LogSettings;
use common::metrics::MetricsSettings;
use common::process::descriptors::PROCESS;
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

impl ServerConfig for Config {
    fn tables(&self) -> Tables<'_> {
        Tables {
            node: &self.node,
            log: &self.log,
            metrics: &self.metrics,
        }
    }

    fn mistakes_of_its_own(&self) -> Vec<String> {
        let no_conn_servers = self.balancer.conn_servers.is_empty();
        in_table("keys", self.keys.check())
            .chain(in_table("balancer", self.balancer.check()))
            .chain(no_conn_servers.then(|| "balancer.conn_servers: at least one".into()))
            .collect()
    }

    fn listened(&self) -> Vec<(&'static str, SocketAddr)> {
        let listen = self.balancer.listen.iter();
        listen
            .map(|&address| ("balancer.listen", address))
            .collect()
    }

    fn take_descriptors(&mut self, limit: Option<u64>) -> Result<(), String> {
        let pending = self.balancer.connections_pending_max;
        match limit {
            Some(limit) if pending as u64 + PROCESS > limit => Err(format!(
                "balancer.connections_pending_max: {pending} do not fit: the process may open \
                 {limit} files; lower it, or raise the limit (ulimit -n, LimitNOFILE)"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use common::config::file;
    use common::config::purpose::Purpose;

    use super::*;

    const DOCUMENTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/balancer.toml");

    /// Whatever this machine and this process's own environment are.
    fn read(text: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file::load(Some(file.path()), [], |_: &mut Config| vec![]).unwrap()
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
        let mut config = Config::default();
        assert_eq!(config.take_descriptors(None), Ok(()));
        assert_eq!(config.take_descriptors(Some(5_064)), Ok(()));
        let told = config.take_descriptors(Some(1_024)).unwrap_err();
        assert!(
            told.contains("1024 files") && told.contains("LimitNOFILE"),
            "{told}"
        );
    }
}
