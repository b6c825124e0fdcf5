//! The balancer as a process of its own.

use std::process::ExitCode;

use balancer::{Balancer, Config};
use clap::Parser;
use common::codes::Code;
use common::link::Keys;
use common::logging::{self, Guard};
use common::metrics::{Server, Source};
use common::process::signals::Stop;
use common::process::{self, Addresses, Arguments, Failure, output};
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
    process::serve("balancer", || run(&arguments))
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
    let balancer = Balancer::start(config.balancer, node.clone(), keys)?;
    let sources: Vec<Box<dyn Source>> = vec![
        Box::new(balancer.metrics()),
        Box::new(logging.metrics(&node)),
    ];
    let metrics = Server::start(&config.metrics, sources).await?;
    let running = arguments.announce(&Addresses {
        node,
        devices: balancer.addresses().to_vec(),
        link: None,
        metrics: metrics.as_ref().map(Server::address),
    })?;

    stop.wait().await;
    tracing::info!(code = Code::ProcessStops.number(), "told to stop");
    let ended = stop.see_out(balancer.shutdown(), || {}).await;
    running.end()?;
    Ok(ended)
}
