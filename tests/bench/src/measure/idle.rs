//! G11: CPU of idle sessions that heartbeat, of a logic server alone and of a whole cluster in one
//! process, beside a bare server with as many heartbeats in the same minute; and of a broker of the field, where it
//! is installed, with as many idle clients.

use std::time::{Duration, Instant};

use super::{Plan, block};
use crate::alone::Alone;
use crate::bare::Bare;
use crate::error::{BenchError, Result};
use crate::load::idle::{Held, IdleLoad};
use crate::mosquitto::Mosquitto;
use crate::report::{Beside, Figure, Line, Standard};
use crate::usage::CpuTime;

const SESSIONS: usize = 10_000;
const ACCOUNTS: u32 = 10_200;
/// After the last login, for what it left to do.
const SETTLE: Duration = Duration::from_secs(5);
/// Two logic servers share the sessions.
const CONFIGURATION: &str = "\
[balancer]
listen = [\"127.0.0.1:0\"]
[logic_server]
listen = \"127.0.0.1:0\"
max_connections = 8000
heartbeat_s = 60
";

pub(crate) fn measure(plan: &Plan) -> Result<Vec<Line>> {
    let window = Duration::from_secs(if plan.quick { 20 } else { 60 });
    let bare = Bare::start()?;
    let held = Held::Bare {
        server: bare.address,
    };
    let mut watched = vec![Watched::start(bare.pid(), held, block::IDLE_BARE)?];
    let alone = Alone::start()?;
    let held = Held::Alone { link: alone.link };
    watched.push(Watched::start(alone.pid(), held, block::IDLE_ALONE)?);
    let site = plan.site(ACCOUNTS)?;
    let cluster = match &site {
        Some(site) => Some(site.up(CONFIGURATION)?),
        None => None,
    };
    if let Some(cluster) = &cluster {
        let held = Held::Cluster {
            balancer: cluster.balancer,
            accounts: ACCOUNTS,
        };
        watched.push(Watched::start(cluster.pid(), held, block::IDLE_CLUSTER)?);
    }
    let broker = Mosquitto::start()?;
    if let Some(broker) = &broker {
        let held = Held::Broker {
            broker: broker.address,
        };
        watched.push(Watched::start(broker.pid(), held, block::IDLE_BROKER)?);
    }
    std::thread::sleep(SETTLE);

    for server in &mut watched {
        server.begin()?;
    }
    std::thread::sleep(window);
    let mut percents = Vec::new();
    for server in &watched {
        percents.push(server.percent_of_a_core()?);
    }
    for server in watched {
        server.end()?;
    }
    let mut percents = percents.into_iter();
    let bare: Vec<f64> = percents.next().into_iter().collect();
    let line = |server: &str, percent: Option<f64>, standard| {
        Line::Figure(Figure {
            goal: "G11",
            what: format!(
                "{server}: CPU of {SESSIONS} idle sessions, heartbeat 60 s, over {} s",
                window.as_secs()
            ),
            unit: "% of a core",
            runs: percent.into_iter().collect(),
            beside: Some(Beside {
                name: "bare server",
                runs: bare.clone(),
            }),
            standard,
        })
    };
    // The goal speaks of the logic server.
    let goal = Standard::AtMost {
        goal: 0.3,
        refused_above: Some(1.0),
    };
    let mut lines = vec![line("logic server", percents.next(), goal)];
    if cluster.is_some() {
        lines.push(line("rcu up, all tiers", percents.next(), Standard::Told));
    }
    lines.push(match broker {
        Some(_) => line("mosquitto", percents.next(), Standard::Told),
        None => Line::Missing {
            goal: "G11",
            what: "mosquitto: CPU of as many idle clients",
            why: "mosquitto (a Debian package) is not installed".into(),
        },
    });
    Ok(lines)
}

/// A server that holds idle sessions.
struct Watched {
    server: u32,
    load: IdleLoad,
    begun: Instant,
    before: CpuTime,
}

impl Watched {
    /// Returns when all sessions are held.
    fn start(server: u32, held: Held, block: u8) -> Result<Self> {
        let mut load = IdleLoad::start(held, block)?;
        load.hold(SESSIONS)?;
        Ok(Self {
            server,
            load,
            begun: Instant::now(),
            before: CpuTime::of(server)?,
        })
    }

    fn begin(&mut self) -> Result<()> {
        self.begun = Instant::now();
        self.before = CpuTime::of(self.server)?;
        Ok(())
    }

    /// Since it began.
    fn percent_of_a_core(&self) -> Result<f64> {
        let used = CpuTime::of(self.server)?.since(&self.before);
        Ok(100.0 * used.as_secs_f64() / self.begun.elapsed().as_secs_f64())
    }

    /// A server that lost sessions or left heartbeats without a reply did not do the work.
    fn end(self) -> Result<()> {
        let fared = self.load.end()?;
        eprintln!("G11: process {}: {fared:?}", self.server);
        // The last heartbeats may be without a reply yet.
        if fared.lost == 0 && fared.replies * 100 >= fared.heartbeats * 99 {
            Ok(())
        } else {
            Err(BenchError::failed(format!(
                "process {}: {fared:?}",
                self.server
            )))
        }
    }
}
