//! `rcu simulate`: simulated devices against a cluster that runs.

mod picture;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use common::fleet::FleetKey;
use common::logging::{self, LogSettings};
use common::process::EXIT_FAILED;
use common::process::descriptors::{PROCESS, raise_limit};
use common::process::output;
use common::process::signals::Stop;
use serde::Serialize;
use simulator::checker::{Verdict, rows};
use simulator::device::Identity;
use simulator::driver::{Simulator, Stats};
use simulator::keys;

use crate::cluster;
use crate::database::{self, UrlArgument};
use crate::fleet;
use crate::list::{self, Row};
use crate::operator::json_line;
use crate::screen::parts::{Trend, rate};
use crate::screen::{self, Colours, Screen, Stderr};

use self::picture::Picture;

/// Runs simulated devices against a cluster: they log in, attach, and drive around.
///
/// At the end they stop reporting and wait for their answers. The exit code is 0 when every device
/// was attached and every record that was sent is acknowledged; with --database, when every one of them is
/// also in there once, as it was sent.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu device add --fleet van --count 1000 --out vans.csv
  rcu simulate --balancer 127.0.0.1:10000 --devices 1000 --keys vans.csv --every 5s --for 1m
  rcu simulate --balancer rcu.example.net:10000 --devices 50 --fleet van --fleet-key HEX")]
pub(crate) struct Simulate {
    /// Where devices log in; several may be given.
    #[arg(long, value_name = "HOST:PORT", required = true)]
    balancer: Vec<String>,
    /// How many devices, the first of the list or fleet.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// How often each device reports; 0s: never, it only stays connected.
    #[arg(long, value_name = "D", default_value = "5s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// How long, for example 30s or 5m; without it until q or Ctrl-C.
    #[arg(long = "for", value_name = "D", value_parser = humantime::parse_duration)]
    run_for: Option<Duration>,
    /// A list of accounts and keys, as `rcu device add --fleet … --out FILE` writes it and `rcu device import`
    /// reads it.
    #[arg(long, value_name = "FILE", required_unless_present = "fleet")]
    keys: Option<PathBuf>,
    /// Accounts PREFIX-000001 and so on, with keys made from the fleet key.
    #[arg(
        long,
        value_name = "PREFIX",
        requires = "fleet_key",
        conflicts_with = "keys"
    )]
    fleet: Option<String>,
    /// The fleet key, 64 hex digits.
    #[arg(long, value_name = "HEX", requires = "fleet", value_parser = keys::key_from_hex)]
    fleet_key: Option<FleetKey>,
    /// The cluster's database, as somebody who may read it: what the devices sent and were told is compared
    /// with what it holds.
    #[arg(
        long,
        value_name = "URL",
        value_parser = database::read,
        env = "RCU_READ_DATABASE_URL",
        hide_env_values = true
    )]
    database: Option<UrlArgument>,
    /// Prints what happened as one JSON object, at the end.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    colours: Colours,
}

/// What `rcu simulate --json` prints.
#[derive(Debug, Serialize)]
struct Summary {
    devices: u32,
    never_attached: usize,
    records_sent: u64,
    records_acknowledged: u64,
    unacknowledged: u64,
    /// What the check of the database says; `null`: it was not checked.
    stored_right: Option<bool>,
    login_p50_ms: u64,
    login_p99_ms: u64,
    ack_p50_ms: u64,
    ack_p99_ms: u64,
    /// LoginReply and AttachReply by status, what came instead of one, and how sessions ended.
    logins: BTreeMap<String, u64>,
    login_faults: BTreeMap<String, u64>,
    attaches: BTreeMap<String, u64>,
    attach_faults: BTreeMap<String, u64>,
    ends: BTreeMap<String, u64>,
}

impl Summary {
    fn new(stats: &Stats, never_attached: usize, stored_right: Option<bool>) -> Self {
        Self {
            devices: stats.devices,
            never_attached,
            records_sent: stats.records_sent,
            records_acknowledged: stats.records_acknowledged,
            unacknowledged: stats.unacknowledged,
            stored_right,
            login_p50_ms: stats.login_ms.p50_ms,
            login_p99_ms: stats.login_ms.p99_ms,
            ack_p50_ms: stats.ack_ms.p50_ms,
            ack_p99_ms: stats.ack_ms.p99_ms,
            logins: named(&stats.logins),
            login_faults: named(&stats.login_faults),
            attaches: named(&stats.attaches),
            attach_faults: named(&stats.attach_faults),
            ends: named(&stats.ends),
        }
    }
}

fn named<T: ToString>(counts: &BTreeMap<T, u64>) -> BTreeMap<String, u64> {
    let counts = counts.iter();
    counts
        .map(|(name, count)| (name.to_string(), *count))
        .collect()
}

impl Simulate {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn std::error::Error>> {
        let node = cluster::node("rcu-simulate");
        let stderr = Stderr::default();
        let lines = Box::new(stderr.clone());
        let _logging = logging::start_with(&LogSettings::to_stderr("warn"), &node, lines)?;
        let identities = self.identities()?;
        check_descriptors(self.devices)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.run_on(identities, &stderr))
    }

    async fn run_on(
        &self,
        identities: Vec<Identity>,
        stderr: &Stderr,
    ) -> Result<ExitCode, Box<dyn std::error::Error>> {
        let mut stop = Stop::listen()?;
        let settings = fleet::settings(self.balancer.clone(), identities, self.every);
        let simulator = Simulator::start(settings)?;
        if self.json {
            screen::wait(&mut stop, self.run_for).await;
        } else {
            let mut screen = Screen::open(self.colours, stderr);
            let mut watch = Watch::new(self.run_for);
            let draw = || watch.picture(simulator.stats());
            screen.run(&mut stop, self.run_for, draw).await?;
            screen.close()?;
            output::print("The devices stop and wait for their answers.\n")?;
        }
        let outcome = tokio::select! {
            outcome = fleet::stop(simulator) => outcome?,
            () = stop.wait() => return Err("interrupted before every answer had come".into()),
        };
        let never_attached = outcome
            .histories
            .iter()
            .filter(|history| history.attached() == 0)
            .count();
        if !self.json {
            let mut text = summary(&outcome.stats);
            if never_attached > 0 {
                text += &format!("{never_attached} devices were never attached\n");
            }
            output::print(&text)?;
        }
        let verdict = match &self.database {
            Some(database) => {
                let database = database.as_ref().map_err(|mistake| *mistake)?;
                if !self.json {
                    output::print("Each device's rows are compared with what it sent.\n")?;
                }
                let rows = rows::open(database).await?;
                // A short run need not have sent every kind.
                let check = rows::check(&rows, &outcome.histories, &[]);
                Some(tokio::select! {
                    verdict = check => verdict?,
                    () = stop.wait() => return Err("interrupted before every row was compared".into()),
                })
            }
            None => None,
        };
        let holds = verdict.as_ref().map(Verdict::holds);
        match (self.json, verdict) {
            (true, _) => json_line(&Summary::new(&outcome.stats, never_attached, holds))?,
            (false, Some(verdict)) => output::print(&format!("{verdict}\n"))?,
            (false, None) => {}
        }
        let is_well = never_attached == 0 && outcome.stats.unacknowledged == 0;
        let is_well = is_well && holds != Some(false);
        Ok(if is_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_FAILED)
        })
    }

    fn identities(&self) -> Result<Vec<Identity>, Box<dyn std::error::Error>> {
        if let (Some(prefix), Some(fleet_key)) = (&self.fleet, &self.fleet_key) {
            return Ok(keys::fleet(prefix, fleet_key, self.devices)?);
        }
        let Some(path) = &self.keys else {
            return Err("--keys FILE, or --fleet PREFIX and --fleet-key HEX".into());
        };
        let name = path.display();
        let bytes = fs::read(path).map_err(|error| format!("cannot read {name}: {error}"))?;
        let list = list::parse(&String::from_utf8_lossy(&bytes));
        if let Some(first) = list.mistakes.first() {
            return Err(format!("{name}:{}: {}", first.line, first.what).into());
        }
        let wanted = self.devices as usize;
        if list.rows.len() < wanted {
            let names = list.rows.len();
            return Err(format!("{name} names {names} devices, fewer than {wanted}").into());
        }
        let identity = |row: Row| -> Result<_, Box<dyn std::error::Error>> {
            let Row { line, account, key } = row;
            let lacking = || format!("{name}:{line}: {account} has no key, and cannot log in");
            let key = key.ok_or_else(lacking)?;
            Ok(Identity { account, key })
        };
        list.rows.into_iter().take(wanted).map(identity).collect()
    }
}

/// Makes pictures of the devices, with rates since the one before.
struct Watch {
    planned: Option<Duration>,
    /// Of the picture before: when, and how many records were acknowledged.
    last: (Duration, u64),
    trend: Trend,
}

impl Watch {
    fn new(planned: Option<Duration>) -> Self {
        Self {
            planned,
            last: (Duration::ZERO, 0),
            trend: Trend::default(),
        }
    }

    fn picture(&mut self, stats: Stats) -> Picture {
        let (last_at, acknowledged) = self.last;
        let over = stats.elapsed.saturating_sub(last_at);
        let acknowledged_per_s = rate(acknowledged, stats.records_acknowledged, over);
        self.last = (stats.elapsed, stats.records_acknowledged);
        self.trend.push(acknowledged_per_s);
        Picture {
            planned: self.planned,
            stats,
            acknowledged_per_s,
            trend: self.trend.clone(),
        }
    }
}

/// What happened, and how often.
fn summary(stats: &Stats) -> String {
    let mut text = format!(
        "records: sent {}, acknowledged {}, unacknowledged {}\n\
         login: p50 {} ms, p99 {} ms; acknowledgement: p50 {} ms, p99 {} ms\n",
        stats.records_sent,
        stats.records_acknowledged,
        stats.unacknowledged,
        stats.login_ms.p50_ms,
        stats.login_ms.p99_ms,
        stats.ack_ms.p50_ms,
        stats.ack_ms.p99_ms
    );
    let mut list = |what: &str, counts: Vec<(String, u64)>| {
        if !counts.is_empty() {
            let counts: Vec<_> = counts
                .iter()
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            text.push_str(&format!("{what}: {}\n", counts.join(", ")));
        }
    };
    let faults = |counts: &std::collections::BTreeMap<simulator::device::Fault, u64>| {
        counts
            .iter()
            .map(|(fault, count)| (fault.to_string(), *count))
            .collect()
    };
    list(
        "LoginReply",
        stats
            .logins
            .iter()
            .map(|(status, count)| (status.name().into(), *count))
            .collect(),
    );
    list("logins without a reply", faults(&stats.login_faults));
    list(
        "AttachReply",
        stats
            .attaches
            .iter()
            .map(|(status, count)| (status.name().into(), *count))
            .collect(),
    );
    list("attaches without a reply", faults(&stats.attach_faults));
    list("sessions ended", faults(&stats.ends));
    text
}

/// Whether so many simulated devices fit this process.
///
/// # Errors
/// They do not: a line that says what to do.
fn check_descriptors(devices: u32) -> Result<(), String> {
    match raise_limit() {
        Some(limit) if u64::from(devices) + PROCESS > limit => Err(format!(
            "{devices} devices do not fit: the process may open {limit} files; \
             run several `rcu simulate`, or raise the limit (ulimit -n)"
        )),
        _ => Ok(()),
    }
}
