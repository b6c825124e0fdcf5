//! The logic server as a process of its own.

use std::process::ExitCode;

use clap::Parser;
use common::codes::Code;
use common::database::{CertificateSource, Database};
use common::link::Keys;
use common::logging::{self, Guard};
use common::metrics::{Server, Source};
use common::process::signals::Stop;
use common::process::{self, Addresses, Arguments, Failure, output};
use logic_server::store::CONNECTIONS_MAX;
use logic_server::{Config, LogicServer};

/// Holds the long connections of an RCU cluster, and stores what its devices send.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  logic-server --config config/logic-server.toml
  logic-server --config config/logic-server.toml --check
  RCU_LOGIC_SERVER__WINDOW=16 logic-server --config config/logic-server.toml

Runs until Ctrl-C or SIGTERM: then it takes no new devices, stores and acknowledges what it holds,
tells every device to come back later, and ends; told a second time it waits for no database. Conn
servers send devices here when their `logic_servers` names its `link_listen`.

Environment:
  RCU_LOG                    what is logged, as info,logic_server=debug; empty: as not set
  RCU_LOGIC_SERVER__WINDOW   overrides `window` of [logic_server], and so on for every key;
                             RCU_DATABASE__URL keeps a password out of the file

Exit codes: 0 ended as it was told, 1 failed, 2 wrong usage."
)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> ExitCode {
    let CommandLine { arguments } = output::command_line("logic-server");
    process::serve("logic-server", || run(&arguments))
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = Config::load(&arguments.config, arguments.purpose())?;
    if arguments.check {
        return arguments.tell_usable();
    }
    let logging = logging::start(&config.log, &config.node.name())?;
    let keys = config.keys.read()?;
    let runtime = process::runtime()?;
    let done = runtime.block_on(serve(config, keys, arguments, &logging));
    done.inspect_err(|error| logging::failed(error.as_ref()))
}

async fn serve(
    config: Config,
    keys: Keys,
    arguments: &Arguments,
    logging: &Guard,
) -> Result<ExitCode, Failure> {
    let mut stop = Stop::of_server()?;
    let node = config.node.name();
    let name = format!("logic-server {node}");
    let client = config.database().client(&name, CONNECTIONS_MAX);
    let database = Database::connect(&config.database().url, client).await?;
    let certificate = CertificateSource::start(&config.database().url, &node);
    let server = LogicServer::start(config.logic_server, node.clone(), keys, &database).await?;
    let sources: Vec<Box<dyn Source>> = vec![
        Box::new(server.metrics()),
        Box::new(certificate),
        Box::new(logging.metrics(&node)),
    ];
    let metrics = Server::start(&config.metrics, sources).await?;
    let running = arguments.announce(&Addresses {
        node,
        devices: server.addresses().devices.clone(),
        link: Some(server.addresses().link),
        metrics: metrics.as_ref().map(Server::address),
    })?;

    stop.wait().await;
    tracing::info!(code = Code::ProcessStops.number(), "told to stop");
    let hurry = server.hurry();
    let shutdown = async {
        server.shutdown().await;
        database.close().await;
    };
    let ended = stop.see_out(shutdown, || hurry.now()).await;
    running.end()?;
    Ok(ended)
}
