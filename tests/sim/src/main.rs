//! Runs the simulated cluster: one seed, a plan, the suite of `scripts/test`, or a night.

use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use sim::inquest::{self, Settings};
use sim::plan::{Class, Overrides, Plan};
use sim::regression::{self, Regression};
use sim::run::{self, Run};
use sim::suite;
use sim::trace::{Filter, Tracer};

/// The whole cluster in one thread, from one seed.
#[derive(Debug, Parser)]
#[command(after_help = "\
Examples:
  sim                                     one run of a seed that is drawn and printed
  sim --seed 42                           the same run every time
  sim --seed 42 --devices 3 --for 60s --faults reset,link
  sim --seed 42 --trace --trace-device 3 --from 10s --to 20s
  sim --plan tests/sim/regressions/NAME.toml
  sim --seed 42 --save NAME               if it fails: the smallest case becomes a regression
  sim --from-seed 1 --seeds 500           these, on all cores
  sim --suite                             fixed seeds, then fresh ones, as scripts/test does
  sim --nightly --for-real 8h             larger clusters, longer faults; goes on after a failure

A long run wants `cargo run --profile simulation -p sim --`: optimised, with every assertion.

Exit codes: 0 every promise held, 1 one was broken, 2 wrong usage.")]
struct Arguments {
    /// What everything random comes from; without it one is drawn.
    #[arg(long, group = "which")]
    seed: Option<u64>,
    /// Runs a plan that was written down, under each of its seeds.
    #[arg(long, value_name = "FILE", group = "which", conflicts_with_all = ["devices", "faults_for", "faults"])]
    plan: Option<PathBuf>,
    /// Runs consecutive seeds.
    #[arg(long, value_name = "SEED", group = "which", requires = "seeds")]
    from_seed: Option<u64>,
    /// The fixed seeds, then fresh ones. The first failure ends it.
    #[arg(long, group = "which")]
    suite: bool,
    /// Fresh seeds with more devices and longer faults. A failure does not end it.
    #[arg(long, group = "which")]
    nightly: bool,

    /// Devices, instead of what the seed draws.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    devices: Option<u32>,
    /// How long faults last in simulated time, instead of what the seed draws.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    faults_for: Option<Duration>,
    /// Classes of faults, instead of what the seed draws; each with the rate that it draws.
    #[arg(long, value_name = "CLASSES", value_delimiter = ',', value_parser = classes_or_words())]
    faults: Option<Vec<String>>,

    /// How many seeds from --from-seed on.
    #[arg(long, requires = "from_seed")]
    seeds: Option<u64>,
    /// How long --suite tries fresh seeds, in real time.
    #[arg(long, default_value_t = 60, requires = "suite")]
    seconds: u64,
    /// How long --nightly goes on, in real time.
    #[arg(long, value_name = "TIME", default_value = "1h", requires = "nightly", value_parser = humantime::parse_duration)]
    for_real: Duration,

    /// Prints what happens, one line an event.
    #[arg(long, conflicts_with_all = ["from_seed", "suite", "nightly"])]
    trace: bool,
    /// Of the trace: what concerns this device, and what concerns all.
    #[arg(long, value_name = "INDEX", requires = "trace")]
    trace_device: Option<usize>,
    /// Of the trace: from this simulated time on.
    #[arg(long, value_name = "TIME", requires = "trace", value_parser = humantime::parse_duration)]
    from: Option<Duration>,
    /// Of the trace: up to this simulated time.
    #[arg(long, value_name = "TIME", requires = "trace", value_parser = humantime::parse_duration)]
    to: Option<Duration>,

    /// Prints how often each mark was hit: every status, reason, counter, fault, step, trick. A night
    /// does so always.
    #[arg(long, conflicts_with_all = ["seed", "plan"])]
    marks: bool,

    /// How long a smaller case is looked for after a failure, in real time; 0s: not at all.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    shrink_for: Duration,
    /// Where the case of a failure is written; without it beside the build.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "save")]
    cases: Option<PathBuf>,
    /// After a failure: makes the smallest case a regression of this name.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["suite", "nightly"], value_parser = regression_name)]
    save: Option<String>,
}

/// The classes by name, and words for all and for none of them.
fn classes_or_words() -> PossibleValuesParser {
    let classes = Class::value_variants()
        .iter()
        .filter_map(Class::to_possible_value);
    PossibleValuesParser::new(classes.chain(["all".into(), "none".into()]))
}

fn regression_name(name: &str) -> Result<String, String> {
    regression::check_name(name).map_err(|error| error.to_string())?;
    let path = regression::directory().join(format!("{name}.toml"));
    if path.exists() {
        return Err(format!("{} exists", path.display()));
    }
    Ok(name.into())
}

const EXIT_BROKEN: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = io::stdout();
    match start(&arguments, &mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_BROKEN),
        // Whoever closed the pipe has read enough.
        Err(Ended::Output) => ExitCode::SUCCESS,
        Err(Ended::Usage(what)) => {
            eprintln!("error: {what}\n\nFor more information, try '--help'.");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Why there is no verdict.
enum Ended {
    Usage(String),
    Output,
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Output
    }
}

/// Whether every promise held.
fn start(arguments: &Arguments, out: &mut dyn Write) -> Result<bool, Ended> {
    let overrides = arguments.overrides()?;
    let settings = arguments.settings();
    if cfg!(panic = "abort") {
        say(
            out,
            "this build ends at a panic: --profile simulation catches and shrinks them",
        )?;
    }
    if arguments.suite {
        let fresh = Duration::from_secs(arguments.seconds);
        return Ok(suite::suite(
            fresh,
            &overrides,
            &settings,
            arguments.marks,
            out,
        )?);
    }
    if arguments.nightly {
        return Ok(suite::nightly(
            arguments.for_real,
            &overrides,
            &settings,
            out,
        )?);
    }
    if let (Some(from), Some(seeds)) = (arguments.from_seed, arguments.seeds) {
        return Ok(suite::range(
            from,
            seeds,
            &overrides,
            &settings,
            arguments.marks,
            out,
        )?);
    }
    if let Some(path) = &arguments.plan {
        let regression =
            Regression::load(path).map_err(|error| Ended::Usage(inquest::chain(&error)))?;
        for plan in regression.plans() {
            if !single(&plan, arguments, &settings, out)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let seed = arguments.seed.unwrap_or_else(rand::random);
    single(&Plan::draw(seed, &overrides), arguments, &settings, out)
}

impl Arguments {
    fn overrides(&self) -> Result<Overrides, Ended> {
        let classes = match self.faults.as_deref() {
            None => None,
            Some([word]) if word == "all" => Some(Class::value_variants().to_vec()),
            Some([word]) if word == "none" => Some(vec![]),
            Some(names) => Some(
                names
                    .iter()
                    .map(|name| Class::from_str(name, false))
                    .collect::<Result<_, _>>()
                    .map_err(|_| Ended::Usage("--faults: all and none stand alone".into()))?,
            ),
        };
        Ok(Overrides {
            devices: self.devices,
            faults_ms: self.faults_for.map(|time| time.as_millis() as u64),
            classes,
        })
    }

    fn settings(&self) -> Settings {
        Settings {
            shrink_for: self.shrink_for,
            directory: match (&self.save, &self.cases) {
                (Some(_), _) => regression::directory(),
                (None, Some(cases)) => cases.clone(),
                (None, None) => inquest::directory(),
            },
            name: self.save.clone(),
        }
    }

    fn tracer(&self) -> Option<Box<Tracer>> {
        let ms = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
        let filter = Filter {
            device: self.trace_device,
            from_ms: ms(self.from).unwrap_or(0),
            to_ms: ms(self.to).unwrap_or(u64::MAX),
        };
        let out = BufWriter::new(io::stdout());
        self.trace.then(|| Tracer::printing(filter, Box::new(out)))
    }
}

/// One run. What it consists of is said before it begins: a hang or an abort leaves that much.
fn single(
    plan: &Plan,
    arguments: &Arguments,
    settings: &Settings,
    out: &mut dyn Write,
) -> Result<bool, Ended> {
    say(out, plan)?;
    let (run, tracer): (Run, _) = run::run_traced(plan, arguments.tracer());
    drop(tracer);
    say(out, &run)?;
    if let Some(failure) = &run.failure {
        inquest::hold(plan, failure, settings, out)?;
    }
    Ok(run.failure.is_none())
}

fn say(out: &mut dyn Write, what: impl Display) -> io::Result<()> {
    writeln!(out, "{what}")?;
    out.flush()
}
