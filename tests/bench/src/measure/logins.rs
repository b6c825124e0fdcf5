//! G1: full logins through all tiers, beside the bare skeleton under the same load.

use std::time::Duration;

use super::{Plan, block};
use crate::cluster::Site;
use crate::error::Result;
use crate::fleet::{self, Device};
use crate::load::sources::Sources;
use crate::load::storm::{Storm, storm};
use crate::report::{Beside, Figure, Line, Standard};
use crate::skeleton::Skeleton;

/// Each logs in once a second or so: enough of them that none meets its own last login.
const ACCOUNTS: u32 = 20_000;
/// On a machine that is shared one came to 5,834 logins a second and another to 4,112.
const RUNS: usize = 7;
const CONFIGURATION: &str = "\
[balancer]
listen = [\"127.0.0.1:0\"]
[logic_server]
listen = \"127.0.0.1:0\"
";

pub(crate) fn measure(plan: &Plan) -> Result<Vec<Line>> {
    let window = Duration::from_secs(if plan.quick { 2 } else { 6 });
    let devices = fleet::devices(ACCOUNTS);
    let site = plan.site(ACCOUNTS)?;
    let (mut ours, mut skeletons) = (Vec::new(), Vec::new());
    for run in 1..=RUNS {
        if let Some(site) = &site {
            ours.push(through_cluster(site, &devices, window)?);
        }
        skeletons.push(through_skeleton(&devices, window)?);
        eprintln!("G1 run {run}: {:?}", ours.last());
        eprintln!("G1 run {run}: skeleton {:?}", skeletons.last());
    }
    Ok(lines(&ours, &skeletons))
}

/// Each run has a cluster of its own, on the same data.
fn through_cluster(site: &Site, devices: &[Device], window: Duration) -> Result<Storm> {
    let cluster = site.up(CONFIGURATION)?;
    storm(
        cluster.balancer,
        devices,
        sources(),
        window,
        &[cluster.pid()],
    )
}

fn through_skeleton(devices: &[Device], window: Duration) -> Result<Storm> {
    let skeleton = Skeleton::start(ACCOUNTS)?;
    storm(skeleton.front, devices, sources(), window, &skeleton.pids())
}

fn sources() -> Sources {
    Sources::new(block::STORM, rand::random())
}

fn lines(ours: &[Storm], skeletons: &[Storm]) -> Vec<Line> {
    let line = |what: &str, unit, of: fn(&Storm) -> f64, standard| {
        Line::Figure(Figure {
            goal: "G1",
            what: what.into(),
            unit,
            runs: ours.iter().map(of).collect(),
            beside: Some(Beside {
                name: "skeleton",
                runs: skeletons.iter().map(of).collect(),
            }),
            standard,
        })
    };
    let share = Standard::ShareOfLimit {
        goal: 0.75,
        refused_below: 0.55,
    };
    // 55 µs where the skeleton takes 41.
    let cpu = Standard::TimesLimit { goal: 55.0 / 41.0 };
    let told = Standard::Told;
    vec![
        line("full logins", "/s", |storm| storm.logins_per_s, share),
        line(
            "CPU of the cluster per login",
            "µs",
            |storm| storm.server_us_per_login,
            cpu,
        ),
        line(
            "CPU of the load per login",
            "µs",
            |storm| storm.load_us_per_login,
            told,
        ),
        line(
            "full logins, every account for the first time",
            "/s",
            |storm| storm.first_round_per_s,
            told,
        ),
        line("a full login takes, p50", "ms", |storm| storm.p50_ms, told),
        line("a full login takes, p99", "ms", |storm| storm.p99_ms, told),
        line(
            "refused or lost, tried again",
            "logins",
            |storm| storm.refused as f64,
            told,
        ),
    ]
}
