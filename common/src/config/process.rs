//! What the configuration of a server process has beside the table of its tier: who it is (`[node]`),
//! where its keys are (`[keys]`), and its database.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::file::{self, ConfigError};
use super::ports;
use super::purpose::Purpose;
use crate::database::DatabaseSettings;
use crate::ids::NodeName;
use crate::key_files::CLUSTER;
use crate::link::{KeyError, Keys};
use crate::logging::{self, LogSettings};
use crate::metrics::MetricsSettings;
use crate::process::clock;
use crate::process::descriptors::raise_limit;

/// Where keys are unless the configuration says otherwise.
const KEYS: &str = "/etc/rcu/keys";

/// The table `[node]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// The node's name in logs, metrics and the database. It has no default: two nodes of one name
    /// would take each other's sessions in the database for those of a crash, and end them.
    pub name: Option<NodeName>,
}

impl NodeSettings {
    /// Of settings that were checked.
    ///
    /// # Panics
    /// They were not, and there is none.
    pub fn name(&self) -> NodeName {
        self.name.clone().expect("checked when it was read")
    }

    /// Every mistake, each beginning with its key.
    pub fn check(&self) -> Vec<String> {
        match self.name {
            Some(_) => vec![],
            None => vec!["name: needed, another for each process of the cluster".into()],
        }
    }
}

/// The table `[keys]` of a process that needs no key but the cluster's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterKeyFile {
    /// Lets processes link to one another.
    pub cluster: PathBuf,
}

impl Default for ClusterKeyFile {
    fn default() -> Self {
        Self {
            cluster: default_key_path(CLUSTER),
        }
    }
}

impl ClusterKeyFile {
    /// Every mistake, each beginning with its key.
    pub fn check(&self) -> Vec<String> {
        key_mistake("cluster", self.read()).into_iter().collect()
    }

    pub fn read(&self) -> Result<Keys, KeyError> {
        Keys::from_file(&self.cluster)
    }
}

/// Where the key file of this name is unless the configuration says otherwise.
pub fn default_key_path(name: &str) -> PathBuf {
    Path::new(KEYS).join(name)
}

/// What is wrong with the file that `key` names, and what to do.
pub fn key_mistake<T>(key: &str, read: Result<T, KeyError>) -> Option<String> {
    let error = read.err()?;
    let why = error.source().map(|why| format!(": {why}"));
    let remedy = match error {
        KeyError::Unreadable { .. } => {
            "; `rcu keys new DIR` makes one for the user that it runs as"
        }
        _ => "",
    };
    Some(format!("{key}: {error}{}{remedy}", why.unwrap_or_default()))
}

/// The configuration of a server that is a process of its own, as far as all of them are alike.
pub trait ServerConfig: DeserializeOwned {
    fn tables(&self) -> Tables<'_>;

    /// What is wrong in the tables of its own, as mistakes of the whole file.
    fn mistakes_of_its_own(&self) -> Vec<String>;

    /// Where it will listen beside its metrics, by key.
    fn listened(&self) -> Vec<(&'static str, SocketAddr)>;

    /// Takes what it needs of the descriptors that the process may open (`None`: any number), which may change
    /// settings that follow from them.
    ///
    /// # Errors
    /// They do not suffice: the mistake.
    fn take_descriptors(&mut self, limit: Option<u64>) -> Result<(), String>;

    /// Reads the file, overridden by the environment.
    ///
    /// # Errors
    /// It cannot be read; or all mistakes in it and in what it needs of this machine.
    fn load(path: &Path, purpose: Purpose) -> Result<Self, ConfigError> {
        file::load(Some(path), file::environment(), |config: &mut Self| {
            let mut mistakes = config.mistakes(purpose);
            if purpose == Purpose::Start {
                mistakes.extend(config.take_descriptors(raise_limit()).err());
                mistakes.extend(clock::mistake());
            }
            mistakes
        })
    }

    /// All but what a start takes of the machine.
    fn mistakes(&self, purpose: Purpose) -> Vec<String> {
        let Tables { node, log, metrics } = self.tables();
        let listened = self.listened().into_iter().chain(metrics.listened());
        in_table("node", node.check())
            .chain(in_table("log", log.check()))
            .chain(logging::mistake_of_variable())
            .chain(in_table("metrics", metrics.check()))
            .chain(self.mistakes_of_its_own())
            .chain(ports::mistakes(listened, purpose))
            .collect()
    }
}

/// Those that all servers have.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    pub node: &'a NodeSettings,
    pub log: &'a LogSettings,
    pub metrics: &'a MetricsSettings,
}

/// Every mistake in the table `[database]`, as mistakes of the whole file.
pub fn database_mistakes(settings: Option<&DatabaseSettings>) -> Vec<String> {
    match settings {
        Some(settings) => in_table("database", settings.check()).collect(),
        None => vec![
            "database.url: needed, the same for all conn servers and logic servers of the cluster"
                .into(),
        ],
    }
}

/// Mistakes of a table, as mistakes of the whole file.
pub fn in_table(table: &str, mistakes: Vec<String>) -> impl Iterator<Item = String> {
    mistakes
        .into_iter()
        .map(move |mistake| format!("{table}.{mistake}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::link::write_key;
    use crate::secret::Secret;

    #[test]
    fn a_name_has_no_default() {
        let mistakes = NodeSettings::default().check();
        assert_eq!(mistakes.len(), 1);
        assert!(mistakes[0].starts_with("name: needed"));
        let named: NodeSettings = toml::from_str("name = \"logic-1\"").unwrap();
        assert_eq!(named.check(), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_with_a_key_file_is_told_by_its_key_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let keys = ClusterKeyFile {
            cluster: directory.path().join("cluster"),
        };
        let told = |keys: &ClusterKeyFile| keys.check().pop().unwrap();
        let missing = told(&keys);
        assert!(missing.starts_with("cluster: cannot read the key file"));
        assert!(missing.contains("No such file") && missing.contains("rcu keys new"));

        write_key(&keys.cluster, &Secret::new([1; 32])).unwrap();
        assert_eq!(keys.check(), Vec::<String>::new());
        fs::set_permissions(&keys.cluster, Permissions::from_mode(0o644)).unwrap();
        let exposed = told(&keys);
        assert!(
            exposed.contains("read by others (mode 0644): chmod 600"),
            "{exposed}"
        );
    }
}
