//! Measures the goals of the project beside their limits, in the same run, and prints one table.
//! `scripts/bench` builds and starts it; docs/performance.md says what each figure means.
//!
//! Nothing is judged here: the exit code is 0 when the measurements ran, whatever they came to.

mod alone;
mod bare;
mod clock;
mod cluster;
mod criterion;
mod error;
mod fleet;
mod load;
mod machine;
mod measure;
mod mosquitto;
mod net;
mod process;
mod report;
mod skeleton;
mod usage;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::error::{BenchError, Result};
use crate::load::idle::{self, Held};
use crate::measure::Plan;
use crate::report::Line;

#[derive(Parser)]
struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, and print the table.
    Run {
        /// The release build of `rcu`. Without it the cluster is not measured.
        #[arg(long)]
        rcu: Option<PathBuf>,
        /// Where criterion left its estimates of this run.
        #[arg(long)]
        criterion: PathBuf,
        /// Shorter and fewer runs.
        #[arg(long)]
        quick: bool,
        /// These figures only.
        #[arg(
            long,
            value_delimiter = ',',
            ignore_case = true,
            value_parser = ["G1", "G2", "G3", "G4", "G5", "G7", "G11", "P7"]
        )]
        only: Vec<String>,
    },
    /// The processes that `run` starts.
    #[command(flatten)]
    Helper(Helper),
}

#[derive(Subcommand)]
enum Helper {
    /// The skeleton's first tier.
    #[command(hide = true)]
    Front {
        #[arg(long)]
        conn: SocketAddr,
    },
    /// The skeleton's second tier.
    #[command(hide = true)]
    Conn {
        #[arg(long)]
        logic: SocketAddr,
        #[arg(long)]
        accounts: u32,
    },
    /// The skeleton's third tier.
    #[command(hide = true)]
    Logic,
    /// A server that answers, and no more.
    #[command(hide = true)]
    Bare,
    /// A logic server without the other tiers.
    #[command(hide = true)]
    Alone {
        #[arg(long)]
        database: PathBuf,
    },
    /// Sessions that only heartbeat.
    #[command(hide = true)]
    Idle {
        #[command(flatten)]
        door: Door,
        #[arg(long)]
        accounts: Option<u32>,
        #[arg(long)]
        block: u8,
    },
}

/// Where sessions are held.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Door {
    #[arg(long, requires = "accounts")]
    balancer: Option<SocketAddr>,
    #[arg(long)]
    link: Option<SocketAddr>,
    #[arg(long)]
    bare: Option<SocketAddr>,
    #[arg(long)]
    broker: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let done = match Bench::parse().command {
        Command::Run {
            rcu,
            criterion,
            quick,
            only,
        } => {
            let plan = Plan {
                rcu,
                criterion,
                quick,
            };
            run(&plan, &only)
        }
        Command::Helper(helper) => match help(helper) {
            // That is how the measurement ends the others.
            Err(BenchError::LinkEnded) => Ok(()),
            done => done,
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn help(helper: Helper) -> Result<()> {
    match helper {
        Helper::Front { conn } => skeleton::front::serve(conn),
        Helper::Conn { logic, accounts } => skeleton::conn::serve(logic, accounts),
        Helper::Logic => skeleton::logic::serve(),
        Helper::Bare => bare::serve(),
        Helper::Alone { database } => alone::serve(&database),
        Helper::Idle {
            door,
            accounts,
            block,
        } => {
            let cluster = door.balancer.zip(accounts);
            let held = cluster.map(|(balancer, accounts)| Held::Cluster { balancer, accounts });
            let held = held
                .or(door.link.map(|link| Held::Alone { link }))
                .or(door.bare.map(|server| Held::Bare { server }))
                .or(door.broker.map(|broker| Held::Broker { broker }))
                .ok_or_else(|| BenchError::failed("no door"))?;
            idle::run(held, block)
        }
    }
}

/// A measurement after the goals that it is for; `""`: for all of them.
type Measurement = (
    &'static [&'static str],
    &'static str,
    fn(&Plan) -> Result<Vec<Line>>,
);

const MEASUREMENTS: [Measurement; 7] = [
    (&[""], "the machine", measure::machine::measure),
    (&["G1"], "full logins", measure::logins::measure),
    (
        &["G2"],
        "resident memory per idle session",
        measure::memory::measure,
    ),
    (
        &["G3", "G4"],
        "frames through a logic server",
        measure::frames::measure,
    ),
    (
        &["G3", "G4", "G5", "G7"],
        "benchmarks of the crates",
        measure::crates::measure,
    ),
    (&["G11"], "CPU of idle sessions", measure::idle::measure),
    (
        &["P7"],
        "what one peer costs the others",
        measure::isolation::measure,
    ),
];

/// Others' work on the machine, in cores, from which figures are spoilt.
const CORES_BUSY_QUIET: f64 = 0.1;

fn run(plan: &Plan, only: &[String]) -> Result<()> {
    machine::raise_descriptor_limit();
    let cores_busy = machine::cores_busy();
    let wanted =
        |goal: &str| only.is_empty() || only.iter().any(|name| name.eq_ignore_ascii_case(goal));
    let mut lines = Vec::new();
    for (goals, what, measure) in MEASUREMENTS {
        if !goals
            .iter()
            .copied()
            .any(|goal| goal.is_empty() || wanted(goal))
        {
            continue;
        }
        eprintln!("measuring {} {what}", goals.join(", "));
        match measure(plan) {
            Ok(measured) => lines.extend(measured),
            Err(error) => lines.push(Line::Missing {
                goal: goals[0],
                what,
                why: error.to_string(),
            }),
        }
    }
    lines.retain(|line| line.goal().is_empty() || wanted(line.goal()));
    let others = match cores_busy {
        Some(busy) if busy > CORES_BUSY_QUIET => {
            format!("others kept {busy:.2} cores busy before the run, NOT QUIET: do not quote")
        }
        Some(busy) => format!("others kept {busy:.2} cores busy before the run"),
        None => "others' work is not known".into(),
    };
    process::say(&format!(
        "{}; {others}{}\n\n{}",
        machine::describe(),
        if plan.quick { "; --quick" } else { "" },
        report::table(&lines)
    ))
}
