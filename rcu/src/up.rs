//! `rcu up`: a cluster of one's own, in one process.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use common::codes::Code;
use common::config::process::Purpose;
use common::logging;
use common::metrics::Server;
use common::process::signals::Stop;
use common::process::{self, output, write_atomically};
use logic_server::Hurry;

use crate::cluster::{self, Addresses, Cluster};
use crate::config::Config;
use crate::data::DataDir;

/// Who speaks in the log where no tier does.
const NODE: &str = "rcu-up";

/// Runs balancer, conn server and two logic servers in one process.
///
/// Makes the data directory with its database and keys where it is missing, prints the addresses,
/// and runs until Ctrl-C or SIGTERM: then it takes no new logins, stores and acknowledges what it
/// holds, tells every device to come back later, and ends with exit code 0. A second time it waits for
/// nothing that can be left.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu up                                     devices log in at 127.0.0.1:10000
  rcu up --data /var/lib/rcu --config up.toml
  rcu device add my-device                   in another terminal, while it runs

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
}

impl Up {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn std::error::Error>> {
        // First: a second cluster on the same data is told to be one, and not that its ports are taken.
        let there = self.data.is_dir().then(|| cluster::lock(&self.data));
        let there = there.transpose()?;
        let config = Config::load(self.config.as_deref(), Purpose::Start)?;
        let logging = logging::start(&config.log, &cluster::node(NODE))?;
        let data = DataDir::open_or_make(&self.data)?;
        let _lock = there.map_or_else(|| cluster::lock(data.path()), Ok)?;
        let runtime = process::runtime()?;
        let done = runtime.block_on(run(&data, config, &logging));
        done.inspect_err(|error| logging::failed(error.as_ref()))
    }
}

async fn run(
    data: &DataDir,
    config: Config,
    logging: &logging::Guard,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut stop = Stop::of_server()?;
    let metrics = config.metrics.clone();
    let cluster = Cluster::start(data, config, 0).await?;
    let mut sources = cluster.metrics();
    sources.push(Box::new(logging.metrics(&cluster::node(NODE))));
    let metrics = Server::start(&metrics, sources).await?;
    let mut addresses = cluster.addresses();
    addresses.metrics = metrics.as_ref().map(Server::address);
    let up_json = data.up_json_path();
    write_atomically(&up_json, &serde_json::to_vec_pretty(&addresses)?)?;
    print(&addresses, data);
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
fn print(addresses: &Addresses, data: &DataDir) {
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
    text += &format!("data                {}\n", data.path().display());
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
