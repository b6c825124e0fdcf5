//! Every file of `regressions/` is a test under its own name: what once broke a promise breaks none.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use sim::inquest::chain;
use sim::regression::{self, Regression};
use sim::run;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let directory = regression::directory();
    let mut trials: Vec<_> = fs::read_dir(&directory)
        .expect("the directory of regressions is part of the source")
        .map(|entry| entry.expect("it can be listed").path())
        .map(|path| {
            let name = path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().trim_end_matches(".toml").to_owned();
            Trial::test(name, move || holds(&path))
        })
        .collect();
    trials.sort_by(|a, b| a.name().cmp(b.name()));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn holds(path: &Path) -> Result<(), Failed> {
    let regression = Regression::load(path).map_err(|error| chain(&error))?;
    for plan in regression.plans() {
        if let Some(failure) = run::run(&plan).failure {
            let again = format!("cargo run -p sim -- --plan {}", path.display());
            return Err(format!("{plan}\n{failure}\n\nagain: {again}").into());
        }
    }
    Ok(())
}
