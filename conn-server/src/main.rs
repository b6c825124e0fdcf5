//! The conn server as a process of its own.

use std::process::ExitCode;

use clap::Parser;
use common::database::{CertificateSource, Database};
use common::ids::NodeName;
use common::process::server::{self, Serving};
use common::process::{Arguments, Failure, output};
use conn_server::accounts::CONNECTIONS_MAX;
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
    server::serve("conn-server", &arguments, start)
}

async fn start(config: Config, node: NodeName) -> Result<Serving, Failure> {
    let (links, master) = (config.keys.links()?, config.keys.master()?);
    let name = format!("conn-server {node}");
    let client = config.database().client(&name, CONNECTIONS_MAX);
    let database = Database::connect(&config.database().url, client).await?;
    let certificate = CertificateSource::start(&config.database().url, &node);
    let settings = config.conn_server;
    let server = ConnServer::start(settings, node, links, database.clone(), master).await?;
    Ok(Serving {
        devices: vec![],
        link: Some(server.address()),
        sources: vec![Box::new(server.metrics()), Box::new(certificate)],
        shutdown: Box::pin(async move {
            server.shutdown().await;
            database.close().await;
        }),
        hasten: Box::new(|| {}),
    })
}
