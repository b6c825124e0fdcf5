//! One run of a plan: what came of it in numbers, or what went wrong, when, and to whom.
//!
//! A panic of a core or of the world is a failure like a broken promise: caught, told with its
//! time, and good for shrinking. That needs a build that unwinds; in one that aborts the seed,
//! which is printed before a run begins, has to do.

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::marks::Marks;
use crate::plan::Plan;
use crate::trace::{Tracer, subject, words};
use crate::world::World;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run {
    pub seed: u64,
    pub simulated: Duration,
    pub took: Duration,
    pub events: u64,
    pub records: usize,
    pub attaches: u64,
    /// The same for the same plan and the same code.
    pub trace_hash: u64,
    /// What it hit.
    pub marks: Marks,
    pub failure: Option<Failure>,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What two failures have in common that are of one kind: the promise (`P1`), or where it
    /// panicked. A smaller case that fails otherwise is another case.
    pub promise: String,
    pub what: String,
    pub at_ms: u64,
    /// The device whose story tells most, where the failure names one.
    pub device: Option<usize>,
    /// The way to a panic.
    pub backtrace: Option<String>,
}

impl Run {
    /// Whether both did the same, event by event.
    pub fn equals(&self, other: &Self) -> bool {
        (self.trace_hash, self.events, &self.failure)
            == (other.trace_hash, other.events, &other.failure)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took_s = self.took.as_secs_f64().max(1e-9);
        write!(
            f,
            "{} s of cluster time in {:.2} s ({:.0} x real time, {:.0} events/s), {} events, {} attaches, {} records, trace {:016x}: ",
            self.simulated.as_secs(),
            self.took.as_secs_f64(),
            self.simulated.as_secs_f64() / took_s,
            self.events as f64 / took_s,
            self.events,
            self.attaches,
            self.records,
            self.trace_hash,
        )?;
        match &self.failure {
            None => f.write_str("every promise held"),
            Some(failure) => failure.fmt(f),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ms: {}", self.at_ms, self.what)
    }
}

impl Failure {
    fn new(what: String, world: &World) -> Self {
        Self {
            promise: promise(&what),
            at_ms: world.now_ms,
            device: subject(&what, world),
            // Of a thousand devices that are not at rest the first ones tell enough.
            what: words::cut(&what),
            backtrace: None,
        }
    }

    fn of_panic(panic: Panic, world: Option<&World>) -> Self {
        let what = format!("panic at {}: {}", panic.place, panic.message);
        Self {
            promise: format!("panic at {}", panic.place),
            at_ms: world.map_or(0, |world| world.now_ms),
            device: world.and_then(|world| subject(&what, world)),
            what,
            backtrace: Some(panic.backtrace),
        }
    }
}

/// What stands before the first colon; numbers do not tell one kind of failure from another.
fn promise(what: &str) -> String {
    let head = what.split(':').next().unwrap_or_default().trim();
    let is_promise = head.len() <= 3 && head.starts_with(['P', 'L']);
    if is_promise {
        return head.into();
    }
    let mut kind = String::new();
    for letter in head.chars() {
        match letter {
            '0'..='9' if kind.ends_with('#') => {}
            '0'..='9' => kind.push('#'),
            letter => kind.push(letter),
        }
    }
    kind
}

pub fn run(plan: &Plan) -> Run {
    run_traced(plan, None).0
}

/// The tracer comes back with what it kept.
pub fn run_traced(plan: &Plan, tracer: Option<Box<Tracer>>) -> (Run, Option<Box<Tracer>>) {
    let begun = Instant::now();
    let mut place = None;
    let outcome = catch(|| {
        let world = place.insert(World::new(plan.clone()));
        world.tracer = tracer;
        let outcome = world.run();
        // What the last event sent before it failed belongs to the story.
        world.flush();
        outcome
    });
    let world = place.as_ref();
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => world.map(|world| Failure::new(broken.0, world)),
        Err(panic) => Some(Failure::of_panic(panic, world)),
    };
    let run = Run {
        seed: plan.seed,
        simulated: Duration::from_millis(world.map_or(0, |world| world.now_ms)),
        took: begun.elapsed(),
        events: world.map_or(0, |world| world.events),
        records: world.map_or(0, |world| world.model.records()),
        attaches: world.map_or(0, |world| world.model.attaches),
        trace_hash: world.map_or(0, World::trace_hash),
        marks: world.map(World::marks).unwrap_or_default(),
        failure,
    };
    (run, place.and_then(|world| world.tracer))
}

// ---- panics -----------------------------------------------------------------------------------

#[derive(Debug)]
struct Panic {
    message: String,
    /// File and line.
    place: String,
    backtrace: String,
}

thread_local! {
    /// Whether this thread is in a run, and the panic that ended it.
    static CAUGHT: RefCell<(bool, Option<Panic>)> = const { RefCell::new((false, None)) };
}

/// Panics of a run are kept for its report; those of anybody else are printed as ever.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_run = CAUGHT.with_borrow(|(is_run, _)| *is_run);
            if !is_run || cfg!(panic = "abort") {
                return usual(info);
            }
            let place = info.location().map_or_else(String::new, |location| {
                format!("{}:{}", location.file(), location.line())
            });
            let panic = Panic {
                message: info.payload_as_str().unwrap_or("no message").into(),
                place,
                backtrace: ours(&Backtrace::force_capture().to_string()),
            };
            CAUGHT.with_borrow_mut(|(_, caught)| *caught = Some(panic));
        }));
    });
}

fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Panic> {
    keep_panics();
    CAUGHT.set((true, None));
    // The world is looked at afterwards, and only for its figures.
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    let (_, caught) = CAUGHT.take();
    outcome.map_err(|_| {
        caught.unwrap_or_else(|| Panic {
            message: "unwound without a panic".into(),
            place: "nowhere".into(),
            backtrace: String::new(),
        })
    })
}

/// The frames of a backtrace that stand in this repository: function, file and line. Which those
/// are the files say; function names come without their modules.
fn ours(backtrace: &str) -> String {
    let mut lines = backtrace.lines().map(str::trim_start).peekable();
    let mut kept = vec![];
    while let Some(function) = lines.next() {
        let Some(place) = lines.next_if(|line| line.starts_with("at ")) else {
            continue;
        };
        let is_foreign = ["/rustc/", ".cargo/registry", "tests/sim/src/run.rs"];
        if !is_foreign.iter().any(|part| place.contains(part)) {
            kept.push(format!("  {function}\n      {place}"));
        }
        if place.contains("tests/sim/src/run.rs") && !kept.is_empty() {
            break;
        }
    }
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_one_promise_are_of_one_kind() {
        assert_eq!(
            promise("P4: Stream(7) of 3 was admitted with a used ticket"),
            "P4"
        );
        assert_eq!(promise("L2: 900 s after the heal not at rest"), "L2");
        assert_eq!(
            promise("the cluster sent 17 bytes too many: x"),
            "the cluster sent # bytes too many"
        );
    }

    #[test]
    fn a_panic_is_caught_with_its_place_and_message() {
        let caught = catch(|| -> () { panic!("slot {} is gone", 7) });
        let panic = caught.expect_err("it panicked");
        assert_eq!(panic.message, "slot 7 is gone");
        assert!(panic.place.contains("run.rs:"), "{}", panic.place);
    }

    #[test]
    fn of_a_backtrace_the_product_is_kept() {
        let backtrace = "\
   0: <std::backtrace::Backtrace>::force_capture
             at /rustc/library/std/src/backtrace.rs:312:9
   1: {closure#0}
             at ./tests/sim/src/run.rs:180:34
   2: apply
             at ./logic-server/src/shard/mod.rs:210:13
   3: insert<u32>
             at /home/somebody/.cargo/registry/src/index/slab-0.4.12/src/lib.rs:9:1
   4: happen
             at ./tests/sim/src/world.rs:300:5
   5: {closure#0}
             at ./tests/sim/src/run.rs:150:1
   6: __libc_start_main
   7: main
             at ./tests/sim/src/main.rs:1:1";
        assert_eq!(
            ours(backtrace),
            "  2: apply\n      at ./logic-server/src/shard/mod.rs:210:13\n  4: happen\n      at ./tests/sim/src/world.rs:300:5"
        );
    }
}
