//! A tier as a process of its own: what all of them do, from the arguments to the exit code.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;

use super::signals::Stop;
use super::{Addresses, Arguments, Failure, run, runtime};
use crate::codes::Code;
use crate::config::process::{ServerConfig, Tables};
use crate::ids::NodeName;
use crate::logging::{self, Guard};
use crate::metrics::{MetricsSettings, Server, Source};

/// A server that runs: how others reach it, what it tells, and how it ends.
pub struct Serving {
    /// Where devices connect.
    pub devices: Vec<SocketAddr>,
    /// Where the tier above and operators link to.
    pub link: Option<SocketAddr>,
    pub sources: Vec<Box<dyn Source>>,
    /// Ends it in order.
    pub shutdown: Pin<Box<dyn Future<Output = ()>>>,
    /// Has that wait for less.
    pub hasten: Box<dyn FnOnce()>,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("devices", &self.devices)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// Reads the configuration and serves until it is told to stop, with what `start` makes of it. Why it failed goes to
/// standard error with the number of [`Code::Failed`], which its operator may look up (`rcu explain code`), and into
/// its log, once it has one.
pub fn serve<C: ServerConfig>(
    program: &str,
    arguments: &Arguments,
    start: impl AsyncFnOnce(C, NodeName) -> Result<Serving, Failure>,
) -> ExitCode {
    let program = format!("{program}: error {}", Code::Failed.number());
    run(&program, || {
        let config = C::load(&arguments.config, arguments.purpose())?;
        if arguments.check {
            return arguments.tell_usable();
        }
        let Tables { node, log, metrics } = config.tables();
        let (node, metrics) = (node.name(), metrics.clone());
        let logging = logging::start(log, &node)?;
        let starting = start(config, node.clone());
        let done = runtime()?.block_on(until_stopped(starting, node, metrics, arguments, &logging));
        done.inspect_err(|error| logging::failed(error.as_ref()))
    })
}

async fn until_stopped(
    starting: impl Future<Output = Result<Serving, Failure>>,
    node: NodeName,
    metrics: MetricsSettings,
    arguments: &Arguments,
    logging: &Guard,
) -> Result<ExitCode, Failure> {
    let mut stop = Stop::of_server()?;
    let mut serving = starting.await?;
    serving.sources.push(Box::new(logging.metrics(&node)));
    let metrics = Server::start(&metrics, serving.sources).await?;
    let running = arguments.announce(&Addresses {
        node,
        devices: serving.devices,
        link: serving.link,
        metrics: metrics.as_ref().map(Server::address),
    })?;

    stop.wait().await;
    tracing::info!(code = Code::ProcessStops.number(), "told to stop");
    let ended = stop.see_out(serving.shutdown, serving.hasten).await;
    running.end()?;
    Ok(ended)
}
