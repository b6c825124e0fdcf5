//! The logic server as a process of its own.

use std::process::ExitCode;

use clap::Parser;
use common::database::{CertificateSource, Database};
use common::ids::NodeName;
use common::process::server::{self, Serving};
use common::process::{Arguments, Failure, output};
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
    server::serve("logic-server", &arguments, start)
}

async fn start(config: Config, node: NodeName) -> Result<Serving, Failure> {
    let keys = config.keys.read()?;
    let name = format!("logic-server {node}");
    let client = config.database().client(&name, CONNECTIONS_MAX);
    let database = Database::connect(&config.database().url, client).await?;
    let certificate = CertificateSource::start(&config.database().url, &node);
    let server = LogicServer::start(config.logic_server, node, keys, &database).await?;
    let hurry = server.hurry();
    Ok(Serving {
        devices: server.addresses().devices.clone(),
        link: Some(server.addresses().link),
        sources: vec![Box::new(server.metrics()), Box::new(certificate)],
        shutdown: Box::pin(async move {
            server.shutdown().await;
            database.close().await;
        }),
        hasten: Box::new(move || hurry.now()),
    })
}
