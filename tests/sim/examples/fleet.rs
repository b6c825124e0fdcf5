//! How fast the simulation runs: a fleet on a quiet day, on one core.
//!
//! `cargo run --release -p sim --example fleet` prints events a second and how many times faster than
//! real time the cluster lives, for several sizes of fleet. Both are by the time that this process
//! had a core, so that a busy machine does not make the simulation look slow.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::process::ExitCode;

use sim::plan::Plan;
use sim::world::World;

/// Simulated.
const HOUR_MS: u64 = 3_600_000;

fn main() -> ExitCode {
    println!("devices   cluster time   core time      events   events/s   x real time");
    for devices in [10, 100, 1_000] {
        let begun_s = core_s();
        let mut world = World::new(Plan::fleet(1, devices, HOUR_MS));
        if let Err(broken) = world.run() {
            println!("{}", broken.0);
            return ExitCode::FAILURE;
        }
        let took_s = core_s() - begun_s;
        println!(
            "{devices:>7}   {:>10} s   {took_s:>7.2} s   {:>9}   {:>8.0}   {:>11.0}",
            world.now_ms / 1_000,
            world.events,
            world.events as f64 / took_s,
            world.now_ms as f64 / 1_000.0 / took_s,
        );
    }
    ExitCode::SUCCESS
}

/// Seconds for which this process has had a core.
fn core_s() -> f64 {
    let schedule = std::fs::read_to_string("/proc/self/schedstat");
    let on_core_ns = schedule.ok().and_then(|text| {
        let first = text.split_whitespace().next()?;
        first.parse::<f64>().ok()
    });
    on_core_ns.expect("a Linux kernel with scheduler statistics") / 1e9
}
