//! The balancer as a process of its own.

use std::process::ExitCode;

use balancer::{Balancer, Config};
use clap::Parser;
use common::ids::NodeName;
use common::process::server::{self, Serving};
use common::process::{Arguments, Failure, output};
use mimalloc::MiMalloc;

/// Gives the memory of connections that are gone back to the system. glibc's allocator keeps it: after 5,000
/// strangers at the door 10 MB, of which it used 50 KB.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The front door of an RCU cluster: devices log in here, and are told which logic server is theirs.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  balancer --config config/balancer.toml
  balancer --config config/balancer.toml --check
  RCU_BALANCER__LISTEN=0.0.0.0:10000 balancer --config config/balancer.toml

Runs until Ctrl-C or SIGTERM: then it accepts nobody any more, answers the logins that wait `busy`,
and ends. Sessions of devices that are let in go on without it.

Environment:
  RCU_LOG                what is logged, as info,balancer=debug; empty: as not set
  RCU_BALANCER__POLICY   overrides `policy` of [balancer], and so on for every key

Exit codes: 0 ended as it was told, 1 failed, 2 wrong usage."
)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> ExitCode {
    let CommandLine { arguments } = output::command_line("balancer");
    server::serve("balancer", &arguments, start)
}

async fn start(config: Config, node: NodeName) -> Result<Serving, Failure> {
    let balancer = Balancer::start(config.balancer, node, config.keys.read()?)?;
    Ok(Serving {
        devices: balancer.addresses().to_vec(),
        link: None,
        sources: vec![Box::new(balancer.metrics())],
        shutdown: Box::pin(async move { balancer.shutdown().await }),
        hasten: Box::new(|| {}),
    })
}
