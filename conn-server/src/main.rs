//! The conn server as a process of its own.

use std::process::ExitCode;

use clap::Parser;
use common::codes::Code;
use common::database::{CertificateSource, Database};
use common::link::Keys;
use common::logging::{self, Guard};
use common::metrics::{Server, Source};
use common::process::signals::Stop;
use common::process::{self, Addresses, Arguments, Failure, output};
use conn_server::accounts::CONNECTIONS_MAX;
use conn_server::accounts::seal::MasterKey;
use conn_server::{Config, ConnServer};

/// Decides in an RCU cluster who may come in, and to which logic server.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  conn-server --config config/conn-server.toml
  conn-server --config config/conn-server.toml --check
  RCU_CONN_SERVER__POLICY=fill conn-server --config config/conn-server.toml

Runs until Ctrl-C or SIGTERM: then it answers the logins that wait `busy`, writes the last logins,
and ends. Balancers send logins here when their `conn_servers` names its `listen`.

Environment:
  RCU_LOG                   what is logged, as info,conn_server=debug; empty: as not set
  RCU_CONN_SERVER__POLICY   overrides `policy` of [conn_server], and so on for every key;
                            RCU_DATABASE__URL keeps a password out of the file

Exit codes: 0 ended as it was told, 1 failed, 2 wrong usage."
)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> ExitCode {
    let CommandLine { arguments } = output::command_line("conn-server");
    process::serve("conn-server", || run(&arguments))
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = Config::load(&arguments.config, arguments.purpose())?;
    if arguments.check {
        return arguments.tell_usable();
    }
    let logging = logging::start(&config.log, &config.node.name())?;
    let (links, master) = (config.keys.links()?, config.keys.master()?);
    let runtime = process::runtime()?;
    let done = runtime.block_on(serve(config, links, master, arguments, &logging));
    done.inspect_err(|error| logging::failed(error.as_ref()))
}

async fn serve(
    config: Config,
    links: Keys,
    master: MasterKey,
    arguments: &Arguments,
    logging: &Guard,
) -> Result<ExitCode, Failure> {
    let mut stop = Stop::of_server()?;
    let node = config.node.name();
    let name = format!("conn-server {node}");
    let client = config.database().client(&name, CONNECTIONS_MAX);
    let database = Database::connect(&config.database().url, client).await?;
    let certificate = CertificateSource::start(&config.database().url, &node);
    let server = ConnServer::start(
        config.conn_server,
        node.clone(),
        links,
        database.clone(),
        master,
    )
    .await?;
    let sources: Vec<Box<dyn Source>> = vec![
        Box::new(server.metrics()),
        Box::new(certificate),
        Box::new(logging.metrics(&node)),
    ];
    let metrics = Server::start(&config.metrics, sources).await?;
    let running = arguments.announce(&Addresses {
        node,
        devices: vec![],
        link: Some(server.address()),
        metrics: metrics.as_ref().map(Server::address),
    })?;

    stop.wait().await;
    tracing::info!(code = Code::ProcessStops.number(), "told to stop");
    let shutdown = async {
        server.shutdown().await;
        database.close().await;
    };
    let ended = stop.see_out(shutdown, || {}).await;
    running.end()?;
    Ok(ended)
}
