//! `rcu config`: looks at a configuration without starting anything.

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use common::config::file::{ConfigError, Mistake, Place};
use common::config::process::ServerConfig as _;
use common::config::purpose::Purpose;
use common::process::{EXIT_FAILED, Failure, output};
use serde::Serialize;

use crate::config::Config;
use crate::operator::json_line;

/// Looks at configurations.
#[derive(Args)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Check(Check),
}

/// Tells all mistakes in a configuration, each with its line, or that there is none.
///
/// Which kind it is, it tells by the tables: that of a tier beside [node], [keys] or [database] is
/// of a process of its own. Of such a one the key files are looked at, too, and whether this machine
/// has the addresses to listen on; run it there, as the user of the process.
/// The environment of the command is taken into account as it would be at the start: a variable
/// that overrides a key wrongly is a mistake too.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu config check up.toml
  rcu config check /etc/rcu/logic-server.toml
  sudo -u rcu rcu config check /etc/rcu/conn-server.toml
  RCU_LOGIC_SERVER__WINDOW=16 rcu config check up.toml
  rcu config check --json up.toml | jq '.mistakes[].what'

Exit codes: 0 it can be used, 1 it cannot.")]
struct Check {
    /// A configuration of `rcu up` (config/up.toml), or of a tier (config/balancer.toml and so on).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What it is for, where the tables do not tell.
    #[arg(long, value_enum)]
    tier: Option<Kind>,
    /// JSON: one object, also where it cannot be used.
    #[arg(long)]
    json: bool,
}

/// Who is started with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Up,
    Balancer,
    ConnServer,
    LogicServer,
}

/// The tables of the tiers.
const TIERS: [(&str, Kind); 3] = [
    ("balancer", Kind::Balancer),
    ("conn_server", Kind::ConnServer),
    ("logic_server", Kind::LogicServer),
];

/// Tables that no file of `rcu up` has.
const OF_PROCESSES: [&str; 3] = ["node", "keys", "database"];

#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(
        "{}: it has a table of a process ([node], [keys] or [database]), but not exactly one of \
         [balancer], [conn_server] and [logic_server]: say with --tier what it is for", .0.display()
    )]
    Unclear(PathBuf),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl ConfigCommand {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let Action::Check(Check { file, tier, json }) = self.action;
        let checked = check(&file, tier);
        if json {
            let verdict = Verdict::of(&file, &checked);
            json_line(&verdict)?;
            return Ok(match checked {
                Ok(_) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(EXIT_FAILED),
            });
        }
        let program = checked?.program();
        output::print(&format!("{} can be used by {program}\n", file.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// As JSON has it.
#[derive(Debug, Serialize)]
struct Verdict {
    file: String,
    /// `None`: it cannot be used.
    usable_by: Option<&'static str>,
    mistakes: Vec<Told>,
}

/// Where a mistake is, as far as it has a place, and what it is.
#[derive(Debug, Serialize)]
struct Told {
    line: Option<usize>,
    variable: Option<String>,
    what: String,
}

impl Verdict {
    fn of(file: &Path, checked: &Result<Kind, CheckError>) -> Self {
        let mistakes = match checked {
            Ok(_) => vec![],
            Err(CheckError::Config(ConfigError::Mistakes(mistakes))) => {
                mistakes.iter().map(Told::of).collect()
            }
            Err(error) => {
                let cause = error.source().map(|cause| format!(": {cause}"));
                vec![Told {
                    line: None,
                    variable: None,
                    what: error.to_string() + &cause.unwrap_or_default(),
                }]
            }
        };
        Self {
            file: file.display().to_string(),
            usable_by: checked.as_ref().ok().map(|kind| kind.program()),
            mistakes,
        }
    }
}

impl Told {
    fn of(mistake: &Mistake) -> Self {
        let (line, variable) = match &mistake.place {
            Place::Line(_, line) => (Some(*line), None),
            Place::Variable(name) => (None, Some(name.clone())),
            Place::File(_) | Place::Nowhere => (None, None),
        };
        Self {
            line,
            variable,
            what: mistake.what.clone(),
        }
    }
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Up => "rcu up",
            Self::Balancer => "balancer",
            Self::ConnServer => "conn-server",
            Self::LogicServer => "logic-server",
        }
    }

    /// `None`: the tables do not tell.
    fn of(text: &str) -> Option<Self> {
        // What is no TOML is told by whoever reads it, the same for every kind.
        let Ok(tables) = text.parse::<toml::Table>() else {
            return Some(Self::Up);
        };
        if !OF_PROCESSES.iter().any(|name| tables.contains_key(*name)) {
            return Some(Self::Up);
        }
        let mut found = TIERS.iter().filter(|(name, _)| tables.contains_key(*name));
        match (found.next(), found.next()) {
            (Some((_, kind)), None) => Some(*kind),
            _ => None,
        }
    }
}

/// Whose configuration a file is, whatever is wrong in it.
pub(crate) fn kind(file: &Path) -> Result<Kind, Failure> {
    let text = fs::read_to_string(file).map_err(|source| ConfigError::Read {
        path: file.into(),
        source,
    })?;
    Ok(Kind::of(&text).ok_or_else(|| CheckError::Unclear(file.into()))?)
}

fn check(file: &Path, tier: Option<Kind>) -> Result<Kind, CheckError> {
    let read = |source| ConfigError::Read {
        path: file.into(),
        source,
    };
    let text = fs::read_to_string(file).map_err(read)?;
    let kind = tier
        .or_else(|| Kind::of(&text))
        .ok_or_else(|| CheckError::Unclear(file.into()))?;
    match kind {
        Kind::Up => drop(Config::load(Some(file), Purpose::Check)?),
        Kind::Balancer => drop(balancer::Config::load(file, Purpose::Check)?),
        Kind::ConnServer => drop(conn_server::Config::load(file, Purpose::Check)?),
        Kind::LogicServer => drop(logic_server::Config::load(file, Purpose::Check)?),
    }
    Ok(kind)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_tell_whose_configuration_it_is() {
        for (text, kind) in [
            ("", Some(Kind::Up)),
            ("[balancer]\n[conn_server]\n", Some(Kind::Up)),
            ("[balancer]\n", Some(Kind::Up)),
            ("[balancer]\n[node]\n", Some(Kind::Balancer)),
            ("[keys]\n[conn_server]\n", Some(Kind::ConnServer)),
            ("[database]\n[logic_server]\n", Some(Kind::LogicServer)),
            ("[node]\n", None),
            ("[node]\n[balancer]\n[conn_server]\n", None),
        ] {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
    }

    #[test]
    fn the_documented_files_are_known() {
        for (name, kind) in [
            ("up", Kind::Up),
            ("balancer", Kind::Balancer),
            ("conn-server", Kind::ConnServer),
            ("logic-server", Kind::LogicServer),
        ] {
            let path = format!("{}/../config/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            assert_eq!(Kind::of(&fs::read_to_string(path).unwrap()), Some(kind));
        }
    }

    #[test]
    fn mistakes_of_a_process_are_told_with_their_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.toml");
        let text = "[node]\nname = \"b\"\n[keys]\ncluster = \"/nowhere\"\n[balancer]\nlisten = \"192.0.2.1:1\"\n";
        fs::write(&path, text).unwrap();
        let told = check(&path, None).unwrap_err().to_string();
        for part in [
            "b.toml:4: keys.cluster: cannot read the key file /nowhere",
            "b.toml:6: balancer.listen: 192.0.2.1:1 is no address of this machine",
            "b.toml: balancer.conn_servers: at least one",
        ] {
            assert!(told.contains(part), "{told}");
        }
        let verdict = Verdict::of(&path, &check(&path, None));
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!(json["file"], path.display().to_string());
        assert!(json["usable_by"].is_null(), "{json}");
        let mistakes = json["mistakes"].as_array().unwrap();
        let lines: Vec<_> = mistakes.iter().map(|it| it["line"].as_u64()).collect();
        assert!(lines.contains(&Some(4)) && lines.contains(&Some(6)) && lines.contains(&None));
        assert!(
            mistakes
                .iter()
                .all(|it| it["variable"].is_null() && it["what"].is_string())
        );
        let missing = Verdict::of(&path, &check(&directory.path().join("c.toml"), None));
        assert!(
            missing.mistakes[0].what.contains("No such file"),
            "{missing:?}"
        );
        let unclear = check(&path, Some(Kind::LogicServer))
            .unwrap_err()
            .to_string();
        assert!(unclear.contains("unknown field `balancer`"), "{unclear}");
    }
}
