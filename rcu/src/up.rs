//! `rcu up`: a cluster of one's own, in one process.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use common::codes::Code;
use common::config::purpose::Purpose;
use common::logging;
use common::metrics::Server;
use common::process::signals::Stop;
use common::process::{self, output, write_atomically};
use logic_server::Hurry;

use crate::cluster::{self, Addresses, Cluster};
use crate::config::Config;
use crate::data::DataDir;
use crate::used::Used;

/// Who speaks in the log where no tier does.
const NODE: &str = "rcu-up";

/// Runs balancer, conn server and two logic servers in one process.
///
/// Makes the data directory with its database and keys where it is missing, and says so; prints the addresses,
/// and runs until Ctrl-C or SIGTERM: then it takes no new logins, stores and acknowledges what it
/// holds, tells every device to come back later, and ends with exit code 0. A second time it waits for
/// nothing that can be left.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu up                                     devices log in at 127.0.0.1:10000
  rcu up --data /var/lib/rcu --config up.toml
  rcu device add my-device                   in another terminal, while it runs

Which data directories were used before is remembered in $XDG_STATE_HOME/rcu (~/.local/state/rcu).

The configuration is TOML with the tables [balancer], [conn_server], [logic_server], [log],
[metrics]; every key has
a default, see config/up.toml. RCU_LOGIC_SERVER__WINDOW=16 overrides `window` of [logic_server], and
so on for every key. `rcu config check FILE` tells all mistakes without starting anything.")]
pub(crate) struct Up {
    /// Holds the database, the keys, and up.json with the addresses of this run.
    #[arg(long, value_name = "DIR", default_value = crate::data::DEFAULT)]
    data: PathBuf,
    /// The configuration; without it every key has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Makes a new cluster where there was one before and its database is gone. Without it such a
    /// directory is refused: its disk may not be mounted.
    #[arg(long)]
    new: bool,
}

impl Up {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn std::error::Error>> {
        // First: a second cluster on the same data is told to be one, and not that its ports are taken.
        let there = self.data.is_dir().then(|| cluster::lock(&self.data));
        let there = there.transpose()?;
        let config = Config::load(self.config.as_deref(), Purpose::Start)?;
        let logging = logging::start(&config.log, &cluster::node(NODE))?;
        let used = Used::by_user();
        let data = match self.new {
            true => DataDir::open_or_make(&self.data, &Used::by_nobody())?,
            false => DataDir::open_or_make(&self.data, &used)?,
        };
        let _lock = there.map_or_else(|| cluster::lock(data.path()), Ok)?;
        let runtime = process::runtime()?;
        let done = runtime.block_on(run(&data, &used, config, &logging));
        done.inspect_err(|error| logging::failed(error.as_ref()))
    }
}

async fn run(
    data: &DataDir,
    used: &Used,
    config: Config,
    logging: &logging::Guard,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut stop = Stop::of_server()?;
    let metrics = config.metrics.clone();
    let is_new = !data.has_database();
    let cluster = Cluster::start(data, config, 0).await?;
    used.remember(data.path());
    if is_new {
        let directory = data.path().display();
        tracing::info!(code = Code::ClusterMade.number(), %directory, "a new cluster");
    }
    let mut sources = cluster.metrics();
    sources.push(Box::new(logging.metrics(&cluster::node(NODE))));
    let metrics = Server::start(&metrics, sources).await?;
    let mut addresses = cluster.addresses();
    addresses.metrics = metrics.as_ref().map(Server::address);
    let up_json = data.up_json_path();
    write_atomically(&up_json, &serde_json::to_vec_pretty(&addresses)?)?;
    print(&addresses, data, is_new);
    tracing::info!(code = Code::ClusterRuns.number(), "all tiers run");

    stop.wait().await;
    tracing::info!(code = Code::ProcessStops.number(), "told to stop");
    let hurries = cluster.hurries();
    let shutdown = async { cluster.shutdown().await.close().await };
    let hasten = || hurries.into_iter().for_each(Hurry::now);
    let ended = stop.see_out(shutdown, hasten).await;
    fs::remove_file(up_json)?;
    Ok(ended)
}

/// For whoever started it. A cluster whose starter does not read it runs all the same.
fn print(addresses: &Addresses, data: &DataDir, is_new: bool) {
    let list = |addresses: &[_]| {
        addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut text = format!("devices log in at   {}\n", list(&addresses.balancer));
    for server in &addresses.logic_servers {
        text += &format!("{:<19} {}\n", server.name, server.device);
    }
    text += &format!("operators link to   {}\n", addresses.conn_server);
    if let Some(metrics) = addresses.metrics {
        text += &format!("metrics             http://{metrics}/metrics\n");
    }
    let what = match is_new {
        true => "new data directory",
        false => "data",
    };
    text += &format!("{what:<19} {}\n", data.path().display());
    if let Err(error) = output::print(&text)
        && !error.reader_is_gone()
    {
        tracing::warn!(
            code = Code::AddressesNotPrinted.number(),
            why = %error.cause(),
            "the addresses stand in up.json alone"
        );
    }
}
