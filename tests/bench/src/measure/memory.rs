//! G2: resident memory per idle attached session, of a logic server alone and of a whole cluster in
//! one process, beside a bare slab of connections.

use std::time::{Duration, Instant};

use super::{Plan, block};
use crate::alone::Alone;
use crate::bare::Bare;
use crate::error::{BenchError, Result};
use crate::load::idle::{Held, IdleLoad};
use crate::report::{Beside, Figure, Line, Standard};
use crate::usage::resident_bytes;

const FEW: usize = 1_000;
const MANY: usize = 15_000;
/// More than are held, so that an account that is refused can be replaced by another.
const ACCOUNTS: u32 = 15_200;
/// Attached and gone again before the first reading: code and tables that every server needs are
/// in memory then.
const WARM_UP: usize = 200;
/// Two logic servers share the sessions.
const CONFIGURATION: &str = "\
[balancer]
listen = [\"127.0.0.1:0\"]
[logic_server]
listen = \"127.0.0.1:0\"
max_connections = 8000
";
const SETTLE_EVERY: Duration = Duration::from_millis(500);
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Memory that moves by less between two readings stands still.
const SETTLED_BYTES: u64 = 64 * 1_024;

/// What holds the sessions.
const ALONE: &str = "logic server";
const CLUSTER: &str = "rcu up, all tiers";

/// Resident bytes of one server process.
#[derive(Clone, Copy, Debug)]
struct Readings {
    none: u64,
    few: u64,
    many: u64,
}

pub(crate) fn measure(plan: &Plan) -> Result<Vec<Line>> {
    let (mut alone, mut clusters, mut slabs) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=if plan.quick { 1 } else { 3 } {
        let server = Alone::start()?;
        let held = Held::Alone { link: server.link };
        alone.push(readings(held, server.pid(), block::IDLE_ALONE)?);
        drop(server);

        // A cluster that has never seen a session, on data that has never seen one.
        if let Some(site) = plan.site(ACCOUNTS)? {
            let cluster = site.up(CONFIGURATION)?;
            let held = Held::Cluster {
                balancer: cluster.balancer,
                accounts: ACCOUNTS,
            };
            clusters.push(readings(held, cluster.pid(), block::IDLE_CLUSTER)?);
        }

        let bare = Bare::start()?;
        let held = Held::Bare {
            server: bare.address,
        };
        slabs.push(readings(held, bare.pid(), block::IDLE_BARE)?);
        eprintln!(
            "G2 run {run}: logic server {:?}, cluster {:?}, bare {:?}",
            alone.last(),
            clusters.last(),
            slabs.last()
        );
    }
    // The goal speaks of the logic server.
    let goal = Standard::AtMost {
        goal: 256.0,
        refused_above: Some(512.0),
    };
    let mut all = lines(ALONE, &alone, &slabs, goal);
    all.extend(lines(CLUSTER, &clusters, &slabs, Standard::Told));
    Ok(all)
}

fn readings(held: Held, server: u32, block: u8) -> Result<Readings> {
    let mut load = IdleLoad::start(held, block)?;
    load.hold(WARM_UP)?;
    load.end()?;
    let none = settled(server)?;
    let mut load = IdleLoad::start(held, block)?;
    load.hold(FEW)?;
    let few = settled(server)?;
    load.hold(MANY)?;
    let many = settled(server)?;
    let fared = load.end()?;
    if fared.lost > 0 {
        return Err(BenchError::failed(format!(
            "{} of {MANY} sessions were lost meanwhile",
            fared.lost
        )));
    }
    Ok(Readings { none, few, many })
}

/// Resident bytes once they stand still.
fn settled(server: u32) -> Result<u64> {
    let deadline = Instant::now() + SETTLE_MAX;
    let mut before = resident_bytes(server)?;
    loop {
        std::thread::sleep(SETTLE_EVERY);
        let now = resident_bytes(server)?;
        if now.abs_diff(before) <= SETTLED_BYTES || Instant::now() > deadline {
            return Ok(now);
        }
        before = now;
    }
}

fn lines(server: &str, ours: &[Readings], slabs: &[Readings], asked: Standard) -> Vec<Line> {
    let line = |what: &str, unit, of: fn(&Readings) -> f64, standard| {
        Line::Figure(Figure {
            goal: "G2",
            what: format!("{server}: {what}"),
            unit,
            runs: ours.iter().map(of).collect(),
            beside: Some(Beside {
                name: "bare slab",
                runs: slabs.iter().map(of).collect(),
            }),
            standard,
        })
    };
    let told = Standard::Told;
    vec![
        line(
            "resident per idle session, at 15,000",
            "B",
            |at| per_session(at.none, at.many, MANY),
            asked,
        ),
        line(
            "the same, at 1,000",
            "B",
            |at| per_session(at.none, at.few, FEW),
            told,
        ),
        line(
            "the same, each from 1,000 to 15,000",
            "B",
            |at| per_session(at.few, at.many, MANY - FEW),
            told,
        ),
        line(
            "resident without sessions",
            "MB",
            |at| at.none as f64 / 1e6,
            told,
        ),
    ]
}

fn per_session(before: u64, after: u64, sessions: usize) -> f64 {
    (after as f64 - before as f64) / sessions as f64
}
