//! The mailbox between threads, in every order in which threads can take turns at it.
//!
//! loom, because the mailbox is small: a lock, a wake-up and three operations. So every order of a
//! few threads and messages can be tried, not a sample of them, and a model that passes is a
//! proof up to its size. The mailbox is `logic-server/src/mailbox.rs` itself; in its `crate::sync`
//! are loom's types, and what it calls mio is `poll`.

// A program and no test: else the tests of the product's files would come along.
#![cfg(not(test))]
#![allow(clippy::print_stdout, reason = "it prints what it tried")]

// The product's file says `mio::Waker`, and means what is re-exported here.
extern crate self as mio;

#[path = "../../../logic-server/src/mailbox.rs"]
mod mailbox;
mod models;
mod poll;
mod sync;

pub use poll::{Registry, Token, Waker};

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

/// Every order in which threads can take turns at the mailbox.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  mailbox            as scripts/test does
  mailbox --deep     more threads and messages, for minutes

A model that fails prints what was broken and ends with exit code 101.")]
struct Arguments {
    /// Larger models, too.
    #[arg(long)]
    deep: bool,
}

/// A model, and how often a thread may lose its turn in it without waiting; `None`: ever.
struct Model {
    name: &'static str,
    preemptions_max: Option<usize>,
    run: fn(),
}

const MODELS: &[Model] = &[
    Model {
        name: "2 senders of 1 message, one a turn",
        preemptions_max: None,
        run: || models::messages_arrive(2, 1, 1),
    },
    Model {
        name: "1 sender of 3 messages, one a turn",
        preemptions_max: None,
        run: || models::messages_arrive(1, 3, 1),
    },
    Model {
        name: "2 senders of 2 messages, one a turn",
        preemptions_max: Some(3),
        run: || models::messages_arrive(2, 2, 1),
    },
    Model {
        name: "2 senders of 2 messages, two a turn",
        preemptions_max: Some(3),
        run: || models::messages_arrive(2, 2, 2),
    },
    Model {
        name: "a box of 1 that is full",
        preemptions_max: Some(3),
        run: || models::a_full_box_gives_back(1),
    },
    Model {
        name: "a box of 2 that is full",
        preemptions_max: Some(3),
        run: || models::a_full_box_gives_back(2),
    },
    Model {
        name: "a box of 2 that nobody reads",
        preemptions_max: None,
        run: || models::the_bound_is_held(2),
    },
    Model {
        name: "a loop that ends",
        preemptions_max: Some(3),
        run: models::a_loop_that_ends_drops_what_comes,
    },
];

const DEEP: &[Model] = &[
    Model {
        name: "2 senders of 2 messages, one a turn",
        preemptions_max: Some(5),
        run: || models::messages_arrive(2, 2, 1),
    },
    Model {
        name: "3 senders of 1 message, one a turn",
        preemptions_max: Some(4),
        run: || models::messages_arrive(3, 1, 1),
    },
    Model {
        name: "a loop that ends",
        preemptions_max: Some(5),
        run: models::a_loop_that_ends_drops_what_comes,
    },
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    println!(
        "{:<38}{:>12}{:>12}{:>9}",
        "mailbox", "preemptions", "orders", "seconds"
    );
    let deep = if arguments.deep { DEEP } else { &[] };
    for model in MODELS.iter().chain(deep) {
        explore(model);
    }
    ExitCode::SUCCESS
}

fn explore(model: &Model) {
    let Model {
        name,
        preemptions_max,
        run,
    } = *model;
    let orders = Arc::new(AtomicU64::new(0));
    let counted = orders.clone();
    let started = Instant::now();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions_max;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    let preemptions = preemptions_max.map_or("any".into(), |most| most.to_string());
    println!(
        "{name:<38}{preemptions:>12}{:>12}{:>9.1}",
        orders.load(Ordering::Relaxed),
        started.elapsed().as_secs_f64()
    );
}
