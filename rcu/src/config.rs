//! The configuration file of `rcu up`: one table per tier, with the keys of the tiers' own files.

use std::net::SocketAddr;
use std::path::Path;

use common::config::file::{self, ConfigError};
use common::config::ports;
use common::config::process::in_table;
use common::config::purpose::Purpose;
use common::logging::{self, LogSettings};
use common::metrics::MetricsSettings;
use common::process::clock;
use serde::Deserialize;

use crate::cluster::{LOGIC_SERVERS, nth};

/// What the three tiers and their process are told. Every key has a default, so an empty file is a whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) balancer: balancer::Settings,
    pub(crate) conn_server: conn_server::Settings,
    pub(crate) logic_server: logic_server::Settings,
    pub(crate) log: LogSettings,
    pub(crate) metrics: MetricsSettings,
}

impl Config {
    /// What `rcu up` runs with: the file (`None`: every default), overridden by the environment.
    ///
    /// # Errors
    /// The file cannot be read; or all mistakes in it, in the environment and in what it needs of this machine.
    pub(crate) fn load(path: Option<&Path>, purpose: Purpose) -> Result<Self, ConfigError> {
        file::load(path, file::environment(), |config: &mut Self| {
            let mut mistakes = config.mistakes();
            mistakes.extend(ports::mistakes(config.listened(), purpose));
            if purpose == Purpose::Start {
                mistakes.extend(clock::mistake());
            }
            mistakes
        })
    }

    /// Where all its servers listen, with their keys.
    fn listened(&self) -> Vec<(&'static str, SocketAddr)> {
        let balancer = self.balancer.listen.iter();
        let mut all: Vec<_> = balancer.map(|&it| ("balancer.listen", it)).collect();
        all.push(("conn_server.listen", self.conn_server.listen));
        for index in 0..LOGIC_SERVERS {
            let nth = nth(&self.logic_server, index);
            all.extend(nth.listen.iter().map(|&it| ("logic_server.listen", it)));
            all.push(("logic_server.link_listen", nth.link_listen));
        }
        all.extend(self.metrics.listened());
        all
    }

    fn mistakes(&self) -> Vec<String> {
        let tables = [
            ("balancer", self.balancer.check()),
            ("conn_server", self.conn_server.check()),
            ("logic_server", self.logic_server.check()),
            ("log", self.log.check()),
            ("metrics", self.metrics.check()),
        ];
        let in_tables = tables.into_iter();
        let mut mistakes: Vec<_> = in_tables
            .flat_map(|(table, mistakes)| in_table(table, mistakes))
            .chain(logging::mistake_of_variable())
            .collect();
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
    use std::fs;

    use super::*;

    const DOCUMENTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/up.toml");

    fn written(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        load(file.path())
    }

    /// Whatever this process's own environment says.
    fn load(path: &Path) -> Result<Config, ConfigError> {
        file::load(Some(path), [], |config: &mut Config| config.mistakes())
    }

    #[test]
    fn the_documented_file_states_every_default() {
        assert_eq!(load(Path::new(DOCUMENTED)).unwrap(), Config::default());
        // Every key of it can be set: one that is only explained would be refused here.
        let text = fs::read_to_string(DOCUMENTED).unwrap();
        let uncommented = text.replace("# heartbeat_s = ", "heartbeat_s = ");
        let uncommented = uncommented.replace("# max_connections = ", "max_connections = ");
        let uncommented = uncommented.replace("# directory = ", "directory = ");
        let uncommented = uncommented.replace("# listen = ", "listen = ");
        let config = written(&uncommented).unwrap();
        assert_eq!(config.conn_server.heartbeat_s, Some(60));
        assert_eq!(config.logic_server.max_connections, Some(10_000));
        assert_eq!(config.log.directory, Some("/var/log/rcu".into()));
        assert_eq!(config.metrics.listen, Some(([127, 0, 0, 1], 9_464).into()));
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_their_tables() {
        let text = "[balancer]\nlogin_deadline_ms = 1\n[logic_server]\nwindow = 0\nheartbeat_s = 4\n\
                    [conn_server]\nlogic_servers = \"logic-9:20100\"\n[log]\ndays = 0\nfilter = \"a=b=c\"\n\
                    [metrics]\nlisten = \"0.0.0.0:1\"\n";
        let told = written(text).unwrap_err().to_string();
        for key in [
            "balancer.login_deadline_ms",
            "logic_server.window",
            "logic_server.heartbeat_s",
            "log.days",
            "log.filter",
            "metrics.listen",
        ] {
            assert!(told.contains(key), "{told}");
        }
    }
}
