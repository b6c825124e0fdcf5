//! `rcu completions`: what a shell needs to complete this command.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};
use common::process::output;

/// Prints the completions of this command for a shell.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu completions bash > /etc/bash_completion.d/rcu
  rcu completions zsh > ~/.zfunc/_rcu                     with ~/.zfunc in $fpath
  rcu completions fish > ~/.config/fish/completions/rcu.fish")]
pub(crate) struct Completions {
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, mut command: Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
        let mut script = vec![];
        generate(self.shell, &mut command, "rcu", &mut script);
        output::print(&String::from_utf8(script)?)?;
        Ok(ExitCode::SUCCESS)
    }
}
