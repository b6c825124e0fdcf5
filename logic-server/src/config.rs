//! The configuration file of a logic server that is a process of its own: config/logic-server.toml.

use std::net::SocketAddr;

use common::config::process::{
    ClusterKeyFile, NodeSettings, ServerConfig, Tables, database_mistakes, in_table,
};
use common::database::DatabaseSettings;
use common::logging::LogSettings;
use common::metrics::MetricsSettings;
use common::process::descriptors::Budget;
use serde::Deserialize;

use crate::settings::Settings;

/// What the file and the environment say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub node: NodeSettings,
    pub keys: ClusterKeyFile,
    /// It has no default.
    pub database: Option<DatabaseSettings>,
    pub logic_server: Settings,
    pub log: LogSettings,
    pub metrics: MetricsSettings,
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
        in_table("keys", self.keys.check())
            .chain(database_mistakes(self.database.as_ref()))
            .chain(in_table("logic_server", self.logic_server.check()))
            .collect()
    }

    fn listened(&self) -> Vec<(&'static str, SocketAddr)> {
        let listen = self.logic_server.listen.iter();
        listen
            .map(|&address| ("logic_server.listen", address))
            .chain([("logic_server.link_listen", self.logic_server.link_listen)])
            .collect()
    }

    /// `max_connections` becomes what they allow.
    fn take_descriptors(&mut self, limit: Option<u64>) -> Result<(), String> {
        let budget = Budget {
            limit,
            own: self.logic_server.descriptors(),
            devices: 0,
        };
        let places = budget.max_connections(self.logic_server.max_connections, 1);
        let places = places.map_err(|why| format!("logic_server.max_connections: {why}"))?;
        self.logic_server.max_connections = Some(places);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use common::config::file;
    use common::config::purpose::Purpose;

    use super::*;

    const DOCUMENTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/logic-server.toml");

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
        expected.node.name = Some("logic-1".parse().unwrap());
        let url = "postgres://rcu_telemetry@127.0.0.1:5432/rcu";
        expected.database = Some(DatabaseSettings::new(url.parse().unwrap()));
        expected.logic_server.link_listen = "127.0.0.1:20100".parse().unwrap();
        assert_eq!(written, expected);
        // What is only explained can be set, too.
        let uncommented = read(&text.replace("# max_connections = ", "max_connections = "));
        assert_eq!(uncommented.logic_server.max_connections, Some(10_000));
    }

    #[test]
    fn mistakes_of_every_table_are_told_together() {
        let text = "[logic_server]\nlisten = \"192.0.2.1:20000\"\nlink_listen = \"192.168.255.254:1\"\nwindow = 0\n";
        let mut config = read(text);
        config.keys.cluster = "/nowhere/cluster".into();
        let mistakes = config.mistakes(Purpose::Check);
        let keys: Vec<_> = mistakes
            .iter()
            .map(|it| it.split(':').next().unwrap())
            .collect();
        let expected = [
            "node.name",
            "keys.cluster",
            "database.url",
            "logic_server.window",
            "logic_server.listen",
            "logic_server.link_listen",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn places_are_what_the_descriptors_allow() {
        let places = |set, limit| {
            let mut config = Config::default();
            config.logic_server.max_connections = set;
            let taken = config.take_descriptors(limit);
            taken.map(|()| config.logic_server.max_connections)
        };
        assert_eq!(places(None, None), Ok(Some(10_000)));
        // 64 for the process; 64, 192 for links and 5,000 pending for the logic server.
        assert_eq!(places(None, Some(8_192)), Ok(Some(2_872)));
        let told = places(Some(10_000), Some(8_192)).unwrap_err();
        assert!(
            told.contains("8192 files") && told.contains("LimitNOFILE"),
            "{told}"
        );
    }
}
