//! What is said about a failure, for whoever has to find its cause: what led to it, the smallest
//! case, and how to see it again.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::plan::{Class, Overrides, Plan};
use crate::regression::Regression;
use crate::run::{self, Failure};
use crate::shrink::{self, Limits, Shrunk};
use crate::trace::{Filter, Tracer};

#[derive(Clone, Debug)]
pub struct Settings {
    /// How long smaller cases are looked for, in real time; none at all: not at all.
    pub shrink_for: Duration,
    /// Where the case is written.
    pub directory: PathBuf,
    /// Under which name it becomes a regression.
    pub name: Option<String>,
}

/// Where cases are written that nobody named: beside the build, not in the source.
pub fn directory() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.unwrap_or(Path::new(".")).join("target/simulation")
}

/// So many events before a failure are shown.
const LAST_LINES: usize = 40;

/// Looks for the smallest case, writes it down and tells everything.
///
/// # Errors
/// `out` takes no more. That the case could not be written is told like the rest.
pub fn hold(
    plan: &Plan,
    failure: &Failure,
    settings: &Settings,
    out: &mut dyn Write,
) -> io::Result<()> {
    let shrunk = if settings.shrink_for.is_zero() {
        None
    } else {
        Some(shrink_for(plan, failure, settings.shrink_for))
    };
    let (plan, failure) = match &shrunk {
        Some(shrunk) => (&shrunk.plan, &shrunk.failure),
        None => (plan, failure),
    };
    if let Some(shrunk) = &shrunk {
        let size = if shrunk.is_smallest {
            "the smallest"
        } else {
            "the smallest so far"
        };
        writeln!(
            out,
            "\n{size} case, after {} runs:\n{plan}\n{failure}",
            shrunk.tries
        )?;
    }
    tell_last_lines(plan, failure, out)?;
    if let Some(backtrace) = failure.backtrace.as_deref().filter(|text| !text.is_empty()) {
        writeln!(out, "\nthe way to the panic:\n{backtrace}")?;
    }
    let regression = Regression {
        found: failure.what.clone(),
        promise: failure.promise.clone(),
        seeds: 1,
        plan: plan.clone(),
    };
    match regression.to_toml() {
        Ok(text) => writeln!(out, "\nthe case:\n\n{}", indented(&text))?,
        Err(error) => writeln!(out, "\n{error}")?,
    }
    let written = match &settings.name {
        Some(name) => regression.save(&settings.directory, name),
        None => {
            let name = format!("{}-{}.toml", file_name(&failure.promise), plan.seed);
            let path = settings.directory.join(name);
            regression.write(&path).map(|()| path)
        }
    };
    match written {
        Ok(path) => tell_commands(plan, failure, &path, out)?,
        Err(error) => writeln!(out, "not written: {}", chain(&error))?,
    }
    for (plan, other) in shrunk.iter().flat_map(|shrunk| &shrunk.others) {
        writeln!(
            out,
            "on the way another promise broke, {other}; the plan was\n{plan}"
        )?;
    }
    out.flush()
}

fn shrink_for(plan: &Plan, failure: &Failure, time: Duration) -> Shrunk {
    let begun = Instant::now();
    let mut attempt = |plan: &Plan| {
        let is_time = begun.elapsed() < time;
        is_time.then(|| run::run(plan).failure)
    };
    let mut progress = |plan: &Plan, tries: u32| {
        eprintln!(
            "  run {tries}: still {} with {} devices, {} ms of faults, {} logic servers, {}",
            failure.promise, plan.devices, plan.faults_ms, plan.logic_servers, plan.faults
        );
    };
    shrink::shrink(
        plan.clone(),
        failure.clone(),
        Limits::default(),
        &mut attempt,
        &mut progress,
    )
}

/// Runs it again, with somebody who remembers what came last.
fn tell_last_lines(plan: &Plan, failure: &Failure, out: &mut dyn Write) -> io::Result<()> {
    let filter = Filter {
        device: failure.device,
        ..Filter::default()
    };
    let (again, tracer) = run::run_traced(plan, Some(Tracer::keeping(filter, LAST_LINES)));
    if again.failure.as_ref() != Some(failure) {
        writeln!(
            out,
            "\nNOT REPEATABLE: the same plan ran otherwise when it was run again: {again}"
        )?;
    }
    match failure.device {
        Some(device) => writeln!(
            out,
            "\nwhat led to it, as far as device {device} is concerned:"
        )?,
        None => writeln!(out, "\nwhat led to it:")?,
    }
    for line in tracer.iter().flat_map(|tracer| tracer.lines()) {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{failure}")
}

fn tell_commands(
    plan: &Plan,
    failure: &Failure,
    path: &Path,
    out: &mut dyn Write,
) -> io::Result<()> {
    let here = std::env::current_dir().unwrap_or_default();
    let path = path.strip_prefix(here).unwrap_or(path).display();
    writeln!(out, "again:      cargo run -p sim -- --plan {path}")?;
    if let Some(flags) = flags(plan) {
        writeln!(out, "or:         cargo run -p sim -- {flags}")?;
    }
    let device = failure
        .device
        .map_or_else(String::new, |device| format!(" --trace-device {device}"));
    let from_s = (failure.at_ms / 1_000).saturating_sub(60);
    writeln!(
        out,
        "its story:  cargo run -p sim -- --plan {path} --trace{device} --from {from_s}s"
    )
}

/// The flags that draw this plan, if any do.
pub fn flags(plan: &Plan) -> Option<String> {
    let overrides = Overrides {
        devices: Some(plan.devices),
        faults_ms: Some(plan.faults_ms),
        classes: Some(plan.faults.classes().collect()),
    };
    let is_drawn = Plan::draw(plan.seed, &overrides) == *plan;
    is_drawn.then(|| {
        let classes = classes(plan);
        let Plan {
            seed,
            devices,
            faults_ms,
            ..
        } = plan;
        format!("--seed {seed} --devices {devices} --for {faults_ms}ms --faults {classes}")
    })
}

fn classes(plan: &Plan) -> String {
    let classes: Vec<_> = plan
        .faults
        .classes()
        .map(|class| class.to_string())
        .collect();
    match classes.len() {
        0 => "none".into(),
        all if all == Class::value_variants().len() => "all".into(),
        _ => classes.join(","),
    }
}

/// What may stand in the name of a file.
fn file_name(promise: &str) -> String {
    let letters = promise.chars().map(|c| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    });
    letters.take(40).collect()
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_plan_is_told_in_flags_and_another_is_not() {
        let overrides = Overrides {
            devices: Some(3),
            classes: Some(vec![Class::KillConn, Class::Reset]),
            ..Overrides::default()
        };
        let plan = Plan::draw(42, &overrides);
        let faults_ms = plan.faults_ms;
        let expected =
            format!("--seed 42 --devices 3 --for {faults_ms}ms --faults reset,kill-conn");
        assert_eq!(flags(&plan), Some(expected));
        let other = Plan {
            shards: plan.shards + 1,
            ..plan
        };
        assert_eq!(flags(&other), None);
    }

    #[test]
    fn a_promise_names_a_file() {
        assert_eq!(file_name("P4"), "p4");
        assert_eq!(file_name("panic at a/b.rs:7"), "panic-at-a-b-rs-7");
    }
}
