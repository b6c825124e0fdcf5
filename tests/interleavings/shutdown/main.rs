//! The end of a logic server, under many interleavings of its threads.
//!
//! shuttle rather than loom: gate, shards, writer, devices and the passing of time are seven
//! threads with hundreds of steps each, far too many orders to try them all. So orders are drawn:
//! at random, and with few changes of turn at chosen points (PCT), which is what mistakes of
//! ordering mostly need.
//!
//! What runs are the product's own files: `loops.rs`, which starts and ends the threads, the
//! loops of `driver/`, `writer_task.rs`, `mailbox.rs` and all cores. In the place of sockets and
//! epoll is `fake_mio`, of the clock `clock`, of threads and tasks `threads`, of the database
//! `store`; tokio's channels are tokio's own, which need no runtime.

// A program and no test: else the tests of the product's files would come along.
#![cfg(not(test))]
#![allow(clippy::print_stdout, reason = "it prints what it tried")]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the product's files are here in part, and are no library"
)]

// The product's files say `mio::Poll`, and mean what is re-exported here.
extern crate self as mio;

mod clock;
mod device;
mod fake_mio;
mod scenario;
mod store;
mod sync;
mod threads;
mod world;

/// The product's own files; what else they look for at the root of their crate is above.
#[path = "../../../logic-server/src"]
mod product {
    pub mod adapter;
    pub mod ask;
    pub mod batch;
    pub mod counters;
    pub(crate) mod driver;
    pub mod gate;
    pub mod ids;
    pub(crate) mod loops;
    pub(crate) mod mailbox;
    pub mod presence;
    pub mod reading;
    pub mod settings;
    pub mod shard;
    pub mod stats;
    pub mod wheel;
    pub mod wire;
    pub mod writer;
    pub(crate) mod writer_task;
}

pub use product::{
    adapter, ask, batch, counters, gate, ids, presence, reading, settings, shard, stats, wheel,
    wire, writer,
};
pub(crate) use product::{driver, loops, mailbox, writer_task};

pub use fake_mio::{Events, Interest, Poll, Registry, Token, Waker, event, net};

use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use clap::Parser;
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

use scenario::{SCENARIOS, Scenario};
use world::Marks;

/// A thread that goes round without end takes more steps than this, and is found by it.
const STEPS_MAX: usize = 200_000;

/// Loops keep their buffers on the heap.
const STACK_BYTES: usize = 256 << 10;

/// Changes of turn that PCT places: most mistakes of ordering need one or two.
const PCT_CHANGES: usize = 3;

/// The end of a logic server, under many interleavings of its threads.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  shutdown                                 as scripts/test does
  shutdown --schedules 100000              for longer
  shutdown --only 'database is stuck' --replay SCHEDULE
                                           what failed, once more

A run that fails prints its schedule and ends with exit code 101.")]
struct Arguments {
    /// Interleavings of each scenario, by each of the two ways to draw them.
    #[arg(long, default_value_t = 1_000)]
    schedules: usize,
    /// What everything is drawn from; absent: a fresh one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// One scenario, by a part of its name.
    #[arg(long)]
    only: Option<String>,
    /// A schedule that a failed run printed.
    #[arg(long, requires = "only")]
    replay: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    println!(
        "{:<34}{:>10}{:>9}  what happened in how many of them",
        "shutdown", "schedules", "seconds"
    );
    for scenario in SCENARIOS {
        let part = arguments.only.as_deref().unwrap_or("");
        if scenario.name.contains(part) {
            explore(scenario, seed, &arguments);
        }
    }
    ExitCode::SUCCESS
}

fn explore(scenario: &'static Scenario, seed: u64, arguments: &Arguments) {
    let marks = Arc::new(Marks::default());
    let started = Instant::now();
    let schedules = match &arguments.replay {
        Some(schedule) => run(
            scenario,
            &marks,
            ReplayScheduler::new_from_encoded(schedule),
        ),
        None => {
            let count = arguments.schedules;
            let random = RandomScheduler::new_from_seed(seed, count);
            let pct = PctScheduler::new_from_seed(seed, PCT_CHANGES, count);
            thread::scope(|both| {
                let random = both.spawn(|| run(scenario, &marks, random));
                let pct = run(scenario, &marks, pct);
                pct + random.join().unwrap_or_else(|panic| resume_unwind(panic))
            })
        }
    };
    println!(
        "{:<34}{schedules:>10}{:>9.1}  {marks}",
        scenario.name,
        started.elapsed().as_secs_f64()
    );
    if arguments.replay.is_none() {
        marks.check(scenario.must_see);
    }
}

fn run(
    scenario: &'static Scenario,
    marks: &Arc<Marks>,
    scheduler: impl Scheduler + 'static,
) -> usize {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    let marks = marks.clone();
    Runner::new(scheduler, config).run(move || scenario.run(&marks))
}
