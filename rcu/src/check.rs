//! `rcu config`: looks at a configuration without starting anything.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::Config;

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
/// The environment of the command is taken into account as it would be at the start: a variable
/// that overrides a key wrongly is a mistake too.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu config check up.toml
  RCU_LOGIC_SERVER__WINDOW=16 rcu config check up.toml

Exit codes: 0 it can be used, 1 it cannot.")]
struct Check {
    /// A configuration of `rcu up`, see config/up.toml.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl ConfigCommand {
    #[allow(clippy::print_stdout, reason = "what a person or a script asked for")]
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn std::error::Error>> {
        let Action::Check(Check { file }) = self.action;
        Config::load(Some(&file))?;
        println!("{} can be used", file.display());
        Ok(ExitCode::SUCCESS)
    }
}
