//! Many runs: the suite of `scripts/test`, a range of seeds, a night.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::inquest;
use crate::logic;
use crate::marks::Marks;
use crate::parallel::{self, Next};
use crate::plan::{Class, Overrides, Plan};
use crate::run::{self, Run};

/// Always part of the suite. A seed that found something is not added here: it becomes a regression.
const FIXED_SEEDS: std::ops::RangeInclusive<u64> = 1..=20;
/// One in so many is run twice, and must do the same twice.
const TWICE_EACH: u64 = 8;

/// A plan, and whether it is run twice.
struct Job {
    plan: Plan,
    twice: bool,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match inquest::flags(&self.plan) {
            Some(flags) => f.write_str(&flags),
            None => write!(f, "{}", self.plan),
        }
    }
}

struct Outcome {
    run: Run,
    /// Where it was run twice and did otherwise.
    otherwise: Option<Run>,
}

fn work(job: &Job) -> Outcome {
    let run = run::run(&job.plan);
    let again = job.twice.then(|| run::run(&job.plan));
    Outcome {
        otherwise: again.filter(|again| !again.equals(&run)),
        run,
    }
}

/// Many runs in numbers.
#[derive(Default)]
struct Totals {
    runs: u64,
    twice: u64,
    simulated: Duration,
    events: u64,
    records: usize,
    attaches: u64,
    marks: Marks,
}

impl Totals {
    fn add(&mut self, job: &Job, run: &Run) {
        self.runs += 1;
        self.twice += u64::from(job.twice);
        self.simulated += run.simulated;
        self.events += run.events;
        self.records += run.records;
        self.attaches += run.attaches;
        self.marks.unite(&run.marks);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} seeds ({} of them twice), {} s of cluster time, {} events, {} attaches, {} records",
            self.runs,
            self.twice,
            self.simulated.as_secs(),
            self.events,
            self.attaches,
            self.records,
        )
    }
}

/// The fixed seeds, then fresh ones for so long. Stops at the first failure. Whether all held.
///
/// # Errors
/// `out` takes no more.
pub fn suite(
    fresh: Duration,
    overrides: &Overrides,
    settings: &inquest::Settings,
    show_marks: bool,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let mut until = None;
    let fresh_seeds = std::iter::from_fn(|| {
        let until = until.get_or_insert_with(|| Instant::now() + fresh);
        (Instant::now() < *until).then(rand::random)
    });
    let seeds = FIXED_SEEDS.chain(fresh_seeds);
    series(seeds, overrides, settings, show_marks, out)
}

/// Consecutive seeds.
///
/// # Errors
/// `out` takes no more.
pub fn range(
    from_seed: u64,
    seeds: u64,
    overrides: &Overrides,
    settings: &inquest::Settings,
    show_marks: bool,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let seeds = (0..seeds).map(|step| from_seed.wrapping_add(step));
    series(seeds, overrides, settings, show_marks, out)
}

fn series(
    seeds: impl Iterator<Item = u64> + Send,
    overrides: &Overrides,
    settings: &inquest::Settings,
    show_marks: bool,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let begun = Instant::now();
    let mut totals = Totals::default();
    let mut failed = None;
    let jobs = seeds.enumerate().map(|(index, seed)| Job {
        plan: Plan::draw(seed, overrides),
        twice: (index as u64).is_multiple_of(TWICE_EACH),
    });
    parallel::each(jobs, work, |job, outcome| {
        totals.add(&job, &outcome.run);
        if outcome.run.failure.is_none() && outcome.otherwise.is_none() {
            return Next::GoOn;
        }
        failed = Some((job, outcome));
        Next::Stop
    });
    if let Some((job, outcome)) = failed {
        tell(&job, &outcome, settings, out)?;
        return Ok(false);
    }
    let took_s = begun.elapsed().as_secs_f64();
    writeln!(
        out,
        "simulation: {totals}, in {took_s:.1} s: every promise held"
    )?;
    if show_marks {
        writeln!(out, "{}", totals.marks)?;
    }
    let surprises = totals.marks.surprises();
    for mark in &surprises {
        writeln!(out, "hit though nothing can: {mark}")?;
    }
    Ok(surprises.is_empty())
}

fn tell(
    job: &Job,
    outcome: &Outcome,
    settings: &inquest::Settings,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "{}\n{}", job.plan, outcome.run)?;
    if let Some(otherwise) = &outcome.otherwise {
        writeln!(
            out,
            "NOT REPEATABLE: run again it did otherwise: {otherwise}"
        )?;
    }
    match &outcome.run.failure {
        Some(failure) => inquest::hold(&job.plan, failure, settings, out),
        None => Ok(()),
    }
}

// ---- a night ----------------------------------------------------------------------------------

/// The first failures of a kind are looked into; of the others the seed is told.
const INQUESTS_PER_KIND: u32 = 2;
/// A run of so long has hit every mark; of a shorter one those that it missed are told.
const LONG: Duration = Duration::from_secs(20 * 60);
/// How often a night says how far it is.
const PROGRESS: Duration = Duration::from_secs(60);
/// A run of a night sends about so many records at most: more take memory, and show no more.
const RECORDS_MAX: u64 = 400_000;
/// Faults of a night last at least so long.
const LARGE_FAULTS_MS_MIN: u64 = 30_000;

/// Fresh seeds for so long, with more devices and longer faults than the suite. It goes on after a
/// failure. Whether all held and, of a long run, whether every mark was hit.
///
/// # Errors
/// `out` takes no more.
pub fn nightly(
    time: Duration,
    overrides: &Overrides,
    settings: &inquest::Settings,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let begun = Instant::now();
    let mut seeds = 0_u64;
    let jobs = std::iter::from_fn(|| {
        seeds += 1;
        (begun.elapsed() < time).then(|| Job {
            plan: large(rand::random(), overrides),
            twice: seeds.is_multiple_of(TWICE_EACH),
        })
    });
    let mut totals = Totals::default();
    let failures = Failures::default();
    let mut told_at = begun;
    let mut result = Ok(());
    let work = |job: &Job| {
        let outcome = work(job);
        let mut report = vec![];
        if let Some(kind) = kind(&outcome) {
            // In the thread that found it: the others go on.
            let told = if failures.count(kind) <= INQUESTS_PER_KIND {
                tell(job, &outcome, settings, &mut report)
            } else {
                writeln!(report, "once more, {job}: {}", outcome.run)
            };
            // Memory takes everything.
            debug_assert!(told.is_ok());
        }
        (outcome.run, report)
    };
    parallel::each(jobs, work, |job, (run, report)| {
        totals.add(&job, &run);
        result = out.write_all(&report);
        if result.is_ok() && told_at.elapsed() >= PROGRESS {
            told_at = Instant::now();
            let passed = humantime::format_duration(Duration::from_secs(begun.elapsed().as_secs()));
            result = writeln!(
                out,
                "after {passed}: {totals}, {} failures",
                failures.in_all()
            );
        }
        if result.is_ok() {
            Next::GoOn
        } else {
            Next::Stop
        }
    });
    result?;
    let took_s = begun.elapsed().as_secs();
    writeln!(out, "\nthe night: {totals}, in {took_s} s")?;
    writeln!(out, "{}", totals.marks)?;
    let coverage = totals.marks.judge_long_run();
    if let Err(what) = &coverage {
        writeln!(out, "the night proves less than it should: {what}")?;
    }
    let failures = failures.into_inner();
    if failures.is_empty() {
        writeln!(out, "every promise held")?;
        return Ok(coverage.is_ok() || time < LONG);
    }
    for (kind, count) in &failures {
        writeln!(out, "{count} x {kind}")?;
    }
    writeln!(out, "the cases are in {}", settings.directory.display())?;
    Ok(false)
}

/// How often each kind of failure came, whichever thread found it.
#[derive(Default)]
struct Failures(Mutex<BTreeMap<String, u32>>);

impl Failures {
    /// One more; how many of its kind there are now.
    fn count(&self, kind: String) -> u32 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(kind).or_default();
        *count += 1;
        *count
    }

    fn in_all(&self) -> u32 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.values().sum()
    }

    fn into_inner(self) -> BTreeMap<String, u32> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kind(outcome: &Outcome) -> Option<String> {
    match (&outcome.run.failure, &outcome.otherwise) {
        (Some(failure), _) => Some(failure.promise.clone()),
        (None, Some(_)) => Some("not repeatable".into()),
        (None, None) => None,
    }
}

/// As `seed` draws it, but for more devices and a longer time.
fn large(seed: u64, overrides: &Overrides) -> Plan {
    let mut rng = SmallRng::seed_from_u64(!seed);
    // As many small clusters as large ones: the small ones are where a history is simple enough
    // to become strange.
    let devices = 1 << rng.random_range(1..=10_u32);
    let devices = rng.random_range(devices / 2 + 1..=devices);
    let faults_ms = rng.random_range(60_000..=1_800_000);
    let mut large = Overrides {
        devices: overrides.devices.or(Some(devices)),
        faults_ms: overrides.faults_ms.or(Some(faults_ms)),
        classes: overrides.classes.clone(),
    };
    let plan = Plan::draw(seed, &large);
    let most_ms = longest_ms(&plan);
    if overrides.faults_ms.is_none() && plan.faults_ms > most_ms {
        large.faults_ms = Some(most_ms);
        return Plan::draw(seed, &large);
    }
    plan
}

/// Tried as a whole, then written carefully.
const WRITES_PER_REFUSED_GROUP: u64 = 2;

/// How long faults may last so that what they leave behind can be done within the heal: one writer
/// of each logic server writes the records around those that the store refuses in small groups, at the
/// store's pace.
fn longest_ms(plan: &Plan) -> u64 {
    let records_per_ms = f64::from(plan.devices) / f64::from(plan.report_interval_ms.max(1));
    let write_ms = (plan.store_ms.start() + plan.store_ms.end()) / 2;
    let refused = f64::from(plan.faults.of_1000(Class::Poison)) / 1_000.0;
    let group_rows = logic::careful_rows_max(plan) as f64 / 2.0;
    let groups_per_ms = records_per_ms * refused.min(1.0 / group_rows);
    let writing = groups_per_ms * (WRITES_PER_REFUSED_GROUP * write_ms) as f64
        / f64::from(plan.logic_servers);
    let by_writing_ms = plan.heal_ms as f64 / 3.0 / writing.max(1e-9);
    let by_records_ms = RECORDS_MAX as f64 / records_per_ms;
    (by_writing_ms.min(by_records_ms) as u64).max(LARGE_FAULTS_MS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_of_a_night_is_repeated_by_its_flags() {
        for seed in 0..50 {
            let plan = large(seed, &Overrides::default());
            assert!(plan.devices >= 2 && plan.devices <= 1_024, "{plan}");
            assert!(inquest::flags(&plan).is_some(), "{plan}");
        }
    }

    #[test]
    fn many_refused_records_shorten_a_run() {
        let overrides = Overrides {
            devices: Some(1_000),
            classes: Some(vec![Class::Poison]),
            ..Overrides::default()
        };
        let mut plan = Plan::draw(1, &overrides);
        plan.report_interval_ms = 1_000;
        plan.store_ms = 1..=199;
        plan.logic_servers = 1;
        plan.batch_rows_max = 5_000;
        let refused = plan.faults.of_1000(Class::Poison);
        // One record a ms, so many of 1,000 refused, each group of 256 around one for 0.2 s at the store.
        let most_ms = longest_ms(&plan);
        let groups = (most_ms * u64::from(refused) / 1_000).min(most_ms / 256);
        assert!(groups * 200 <= 300_000 && most_ms > LARGE_FAULTS_MS_MIN);
        assert!(most_ms < RECORDS_MAX || refused <= 3);
        plan.faults.keep(&[]);
        assert_eq!(longest_ms(&plan), RECORDS_MAX);
    }

    #[test]
    fn what_is_asked_for_stays() {
        let overrides = Overrides {
            devices: Some(3),
            faults_ms: Some(9_000_000),
            classes: Some(vec![]),
        };
        let plan = large(5, &overrides);
        assert_eq!((plan.devices, plan.faults_ms), (3, 9_000_000));
        assert_eq!(plan.faults.classes().count(), 0);
    }
}
