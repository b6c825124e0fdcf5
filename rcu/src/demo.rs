//! `rcu demo`: the whole cluster with simulated devices, and the proof at the end.

mod picture;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use common::database::Database;
use common::fleet::FleetKey;
use common::logging::{self, LogSettings};
use common::process::output;
use common::process::signals::Stop;
use common::process::{self, EXIT_FAILED};
use conn_server::accounts::seal::MasterKey;
use conn_server::accounts::store::Accounts;
use hmac::{Hmac, KeyInit, Mac};
use logic_server::counters::{Counter, Gauge};
use sha2::Sha256;
use simulator::checker::{self, Verdict};
use simulator::device::Identity;
use simulator::drive;
use simulator::driver::{self, Simulator};
use simulator::keys;

use crate::cluster::{self, Cluster};
use crate::config::Config;
use crate::data::DataDir;
use crate::fleet;
use crate::screen::parts::rate;
use crate::screen::{Colours, Screen, Stderr};
use crate::used::Used;

use self::picture::{Devices, Front, Node, Picture};

/// The accounts of the demo's devices: demo-000001 and so on.
const PREFIX: &str = "demo";
const HEARTBEAT_S: u16 = 5;
/// How often each device reports: position, fuel, gyroscope and diagnosis in turns.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// Devices are switched on one after another, all of them within this time, but no slower than this.
const SWITCHED_ON_WITHIN_S: u32 = 2;
const CONNECTS_PER_S_MIN: u32 = 1_000;

/// Runs a whole cluster on loopback with simulated devices, and proves at the end that it lost nothing.
///
/// One balancer, one conn server and two logic servers in one process, on free ports and SQLite.
/// The devices log in, are sent to a logic server, attach there, and send GPS, fuel, gyroscope and
/// diagnosis records. At the end they stop and wait for their answers; then a checker rebuilds
/// every record from the columns of its row and compares it with what the devices sent and were
/// told. The exit code is 0 only when every device was attached, every record kind has rows, and
/// every acknowledged record is stored once, as it was sent.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu demo                              until q or Ctrl-C
  rcu demo --devices 2000 --for 30s
  rcu demo --data ./demo-data           keeps the database for you to look at")]
pub(crate) struct Demo {
    /// How many devices.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=999_999))]
    devices: u32,
    /// How long they report, for example 30s or 5m; without it until q or Ctrl-C.
    #[arg(long = "for", value_name = "D", value_parser = humantime::parse_duration)]
    run_for: Option<Duration>,
    /// Keeps the data there; without it in a temporary directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    colours: Colours,
}

impl Demo {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn std::error::Error>> {
        let stderr = Stderr::default();
        let node = cluster::node("rcu-demo");
        let lines = Box::new(stderr.clone());
        let _logging = logging::start_with(&LogSettings::to_stderr("warn"), &node, lines)?;
        let temporary = tempfile::tempdir()?;
        let path = self.data.as_deref().unwrap_or(temporary.path());
        let data = DataDir::open_or_make(path, &Used::by_nobody())?;
        let _lock = cluster::lock(data.path())?;
        let runtime = process::runtime()?;
        let verdict = runtime.block_on(self.run_on(&data, &stderr))?;
        Ok(if verdict.holds() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_FAILED)
        })
    }

    async fn run_on(
        &self,
        data: &DataDir,
        stderr: &Stderr,
    ) -> Result<Verdict, Box<dyn std::error::Error>> {
        let mut stop = Stop::listen()?;
        let cluster = Cluster::start(data, config(), self.devices.into()).await?;
        let places = u64::from(cluster.max_connections()) * cluster.logic_servers().count() as u64;
        if u64::from(self.devices) > places {
            return Err(format!(
                "{} devices do not fit: beside as many sockets of their own, the files that this process \
                 may open leave {places} places on the logic servers; take fewer, or raise the limit (ulimit -n)",
                self.devices
            )
            .into());
        }
        let identities = accounts(cluster.database(), data.master_key()?, self.devices).await?;
        let balancers = cluster
            .addresses()
            .balancer
            .iter()
            .map(ToString::to_string)
            .collect();
        let simulator = Simulator::start(driver::Settings {
            connects_per_s: self
                .devices
                .div_ceil(SWITCHED_ON_WITHIN_S)
                .max(CONNECTS_PER_S_MIN),
            ..fleet::settings(balancers, identities, REPORT_EVERY)
        })?;

        let mut watch = Watch::new(&cluster, self.run_for);
        let mut screen = Screen::open(self.colours, stderr);
        let draw = || watch.picture(&cluster, &simulator);
        let shown = screen.run(&mut stop, self.run_for, draw).await;
        let shown = shown.and_then(|()| screen.close());
        let shown =
            shown.and_then(|()| output::print("\nThe devices stop and wait for their answers.\n"));
        if let Err(unread) = shown {
            // Nobody is there to be proven something to.
            drop(simulator);
            cluster.shutdown().await.close().await;
            return Err(unread.into());
        }
        let stopped = tokio::select! {
            outcome = fleet::stop(simulator) => outcome?,
            () = stop.wait() => return Err("interrupted before the check".into()),
        };
        let database = cluster.shutdown().await;
        let verdict =
            checker::rows::check(&(&database).into(), &stopped.histories, &drive::KINDS).await?;
        database.close().await;
        output::print(&format!("{verdict}\n"))?;
        Ok(verdict)
    }
}

/// Free ports throughout, and short heartbeats for whoever watches.
fn config() -> Config {
    let mut config = Config::default();
    for address in config
        .balancer
        .listen
        .iter_mut()
        .chain(&mut config.logic_server.listen)
    {
        address.set_port(0);
    }
    config.logic_server.heartbeat_s = HEARTBEAT_S;
    config
}

/// The demo's accounts, made where they are missing. Their fleet key comes from the master key, so
/// that a later demo on the same data has the same devices.
async fn accounts(
    database: &Database,
    master: MasterKey,
    devices: u32,
) -> Result<Vec<Identity>, Box<dyn std::error::Error>> {
    let fleet_key = Hmac::<Sha256>::new_from_slice(master.expose())
        .expect("HMAC takes a key of any length")
        .chain_update(b"rcu demo fleet\0");
    let fleet_key = FleetKey::new(fleet_key.finalize().into_bytes().into());
    let identities = keys::fleet(PREFIX, &fleet_key, devices)?;

    let accounts = Accounts::new(database.clone(), master);
    let mut known = std::collections::HashSet::new();
    let mut after = format!("{PREFIX}-");
    loop {
        let page = accounts.list(&after, 1_000).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.name);
        known.extend(page.into_iter().map(|account| account.name));
    }
    let missing: Vec<_> = identities
        .iter()
        .filter(|identity| !known.contains(identity.account.as_str()))
        .map(|identity| (identity.account.clone(), identity.key))
        .collect();
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_millis();
    accounts.add_many(&missing, i64::try_from(now_ms)?).await?;
    Ok(identities)
}

/// Makes pictures of a cluster, with rates since the one before.
struct Watch {
    begun: Instant,
    planned: Option<Duration>,
    last_at: Instant,
    last: Picture,
}

impl Watch {
    fn new(cluster: &Cluster, planned: Option<Duration>) -> Self {
        let addresses = cluster.addresses();
        let front = |name: &str, address: String| Front {
            name: name.into(),
            address,
            ..Front::default()
        };
        let nodes = addresses.logic_servers.iter().map(|server| Node {
            name: server.name.clone(),
            address: server.device.to_string(),
            places_max: cluster.max_connections().into(),
            ..Node::default()
        });
        Self {
            begun: Instant::now(),
            planned,
            last_at: Instant::now(),
            last: Picture {
                balancer: front("balancer-1", addresses.balancer[0].to_string()),
                conn_server: front("conn-1", addresses.conn_server.to_string()),
                nodes: nodes.collect(),
                ..Picture::default()
            },
        }
    }

    fn picture(&mut self, cluster: &Cluster, simulator: &Simulator) -> Picture {
        let now = Instant::now();
        let over = now - self.last_at;
        let counted = |front: &Front, logins: u64| {
            let mut front = front.clone();
            front.logins_per_s = rate(front.logins, logins, over);
            front.logins = logins;
            front.trend.push(front.logins_per_s);
            front
        };
        let nodes = self.last.nodes.iter().zip(cluster.logic_servers());
        let nodes = nodes.map(|(node, (_, server))| {
            let stats = server.stats();
            let stored = stats.count(Counter::RecordsStored);
            let stored_per_s = rate(node.stored, stored, over);
            let mut trend = node.trend.clone();
            trend.push(stored_per_s);
            Node {
                sessions: stats.gauge(Gauge::Sessions),
                stored,
                stored_per_s,
                overloaded: stats.count(Counter::TelemetryOverloaded),
                trend,
                ..node.clone()
            }
        });
        let devices = simulator.stats();
        let mut picture = Picture {
            elapsed: now - self.begun,
            planned: self.planned,
            balancer: counted(
                &self.last.balancer,
                cluster
                    .balancer()
                    .stats()
                    .count(balancer::counters::Counter::Logins),
            ),
            conn_server: counted(
                &self.last.conn_server,
                cluster
                    .conn_server()
                    .stats()
                    .count(conn_server::counters::Counter::Logins),
            ),
            nodes: nodes.collect(),
            stored_trend: self.last.stored_trend.clone(),
            devices: Devices {
                total: devices.devices.into(),
                attached: devices.attached.into(),
                sent: devices.records_sent,
                acknowledged: devices.records_acknowledged,
                ack_p50: Duration::from_millis(devices.ack_ms.p50_ms),
                ack_p99: Duration::from_millis(devices.ack_ms.p99_ms),
            },
        };
        picture.stored_trend.push(picture.stored_per_s());
        self.last_at = now;
        self.last = picture.clone();
        picture
    }
}
