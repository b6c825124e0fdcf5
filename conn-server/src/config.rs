//! The configuration file of a conn server that is a process of its own: config/conn-server.toml.

use std::net::SocketAddr;
use std::path::PathBuf;

use common::config::process::{
    NodeSettings, ServerConfig, Tables, database_mistakes, default_key_path, in_table, key_mistake,
};
use common::database::DatabaseSettings;
use common::key_files::{CLUSTER, MASTER, OPERATOR};
use common::link::{HANDSHAKES_MAX, KeyError, Keys, Role, links_max, read_keys, read_secret};
use common::logging::LogSettings;
use common::metrics::MetricsSettings;
use common::process::descriptors::PROCESS;
use serde::Deserialize;

use crate::accounts::seal::MasterKey;
use crate::settings::Settings;

/// Descriptors for those who link to it: balancers, other conn servers, whoever operates. Those that it dials
/// come on top.
const LINKS: u64 = (links_max(Role::Conn) + HANDSHAKES_MAX) as u64;

/// What the file and the environment say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub node: NodeSettings,
    pub keys: KeyFiles,
    /// It has no default.
    pub database: Option<DatabaseSettings>,
    pub conn_server: Settings,
    pub log: LogSettings,
    pub metrics: MetricsSettings,
}

/// The table `[keys]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyFiles {
    /// Lets processes link to one another.
    pub cluster: PathBuf,
    /// Lets operators link to this process.
    pub operator: PathBuf,
    /// Opens the device keys in the database.
    pub master: PathBuf,
}

impl Default for KeyFiles {
    fn default() -> Self {
        Self {
            cluster: default_key_path(CLUSTER),
            operator: default_key_path(OPERATOR),
            master: default_key_path(MASTER),
        }
    }
}

impl KeyFiles {
    /// Every mistake, each beginning with its key.
    fn check(&self) -> Vec<String> {
        let links = [("cluster", &self.cluster), ("operator", &self.operator)];
        let links = links.map(|(key, path)| key_mistake(key, read_keys(path)));
        let master = key_mistake("master", self.master());
        links.into_iter().chain([master]).flatten().collect()
    }

    /// What lets balancers, logic servers and operators link to this process.
    pub fn links(&self) -> Result<Keys, KeyError> {
        Keys::from_file(&self.cluster)?.with_operator_file(&self.operator)
    }

    pub fn master(&self) -> Result<MasterKey, KeyError> {
        read_secret(&self.master)
    }
}

impl Config {
    /// # Panics
    /// There is none: it was not loaded.
    pub fn database(&self) -> &DatabaseSettings {
        self.database.as_ref().expect("checked when it was read")
    }
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
        let no_logic_servers = self.conn_server.logic_servers.is_empty();
        in_table("keys", self.keys.check())
            .chain(database_mistakes(self.database.as_ref()))
            .chain(in_table("conn_server", self.conn_server.check()))
            .chain(no_logic_servers.then(|| "conn_server.logic_servers: at least one".into()))
            .collect()
    }

    fn listened(&self) -> Vec<(&'static str, SocketAddr)> {
        vec![("conn_server.listen", self.conn_server.listen)]
    }

    fn take_descriptors(&mut self, limit: Option<u64>) -> Result<(), String> {
        let logic_servers = self.conn_server.logic_servers.len();
        match limit {
            Some(limit) if logic_servers as u64 + LINKS + PROCESS > limit => Err(format!(
                "conn_server.logic_servers: {logic_servers} do not fit: the process may open \
                 {limit} files; raise the limit (ulimit -n, LimitNOFILE)"
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

    const DOCUMENTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/conn-server.toml");

    /// Whatever this machine and this process's own environment are.
    fn read(text: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file::load(Some(file.path()), [], |_: &mut Config| vec![]).unwrap()
    }

    #[test]
    fn the_documented_file_states_every_default() {
        let text = fs::read_to_string(DOCUMENTED).unwrap();
        let written = read(&text);
        let mut expected = Config::default();
        // What has no default stands there as an example.
        expected.node.name = Some("conn-1".parse().unwrap());
        let url = "postgres://rcu_login@127.0.0.1:5432/rcu";
        expected.database = Some(DatabaseSettings::new(url.parse().unwrap()));
        expected.conn_server.listen = "127.0.0.1:10100".parse().unwrap();
        expected.conn_server.logic_servers = vec!["127.0.0.1:20100".into()];
        assert_eq!(written, expected);
        // What is only explained can be set, too.
        let uncommented = read(&text.replace("# heartbeat_s = ", "heartbeat_s = "));
        assert_eq!(uncommented.conn_server.heartbeat_s, Some(60));
    }

    #[test]
    fn mistakes_of_every_table_are_told_together() {
        let mut config = read("[conn_server]\nlisten = \"192.0.2.1:10100\"\nnonces_max = 0\n");
        config.keys = KeyFiles {
            cluster: "/nowhere/cluster".into(),
            operator: "/nowhere/operator".into(),
            master: "/nowhere/master".into(),
        };
        let mistakes = config.mistakes(Purpose::Check);
        let keys: Vec<_> = mistakes
            .iter()
            .map(|it| it.split(':').next().unwrap())
            .collect();
        let expected = [
            "node.name",
            "keys.cluster",
            "keys.operator",
            "keys.master",
            "database.url",
            "conn_server.listen",
            "conn_server.nonces_max",
            "conn_server.logic_servers",
            "conn_server.listen",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn what_does_not_fit_the_descriptors_is_told() {
        let mut config = Config::default();
        assert_eq!(config.take_descriptors(None), Ok(()));
        // 64 for the process, 1,024 links and 64 on their way, and those that it dials.
        let dialled = config.conn_server.logic_servers.len() as u64;
        assert_eq!(config.take_descriptors(Some(1_152 + dialled)), Ok(()));
        assert!(config.take_descriptors(Some(1_151 + dialled)).is_err());
    }
}
