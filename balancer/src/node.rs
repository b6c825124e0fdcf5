//! One balancer: its listeners, its links and its front, and how they come and go together.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use common::codes::Code;
use common::ids::NodeName;
use common::link::{Hub, HubSettings, Keys, Role};
use common::process::listen::listen;
use futures_core::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use crate::accept;
use crate::front::{Front, WAITING_MAX};
use crate::route::Core;
use crate::settings::Settings;
use crate::stats::{Board, Metrics, Report, Stats};

/// A balancer that runs. Dropped without [`Balancer::shutdown`], it ends at once.
#[derive(Debug)]
pub struct Balancer {
    addresses: Vec<SocketAddr>,
    node: NodeName,
    board: Board,
    hub: Hub,
    acceptors: Vec<JoinHandle<()>>,
    front: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    span: Span,
}

/// Why a balancer does not start: all reasons at once.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("wrong settings: {}", .0.join("; "))]
    Settings(Vec<String>),
    #[error("cannot listen for devices on {}", list(.0))]
    Listen(Vec<(SocketAddr, io::Error)>),
}

fn list(failures: &[(SocketAddr, io::Error)]) -> String {
    let lines = failures.iter();
    let lines: Vec<_> = lines
        .map(|(address, why)| format!("{address}: {why}"))
        .collect();
    lines.join("; ")
}

impl Balancer {
    /// Binds its addresses and begins to dial its conn servers; it does not wait for them. Runs its
    /// tasks on the runtime that it is called on.
    pub fn start(settings: Settings, node: NodeName, keys: Keys) -> Result<Self, StartError> {
        let mut mistakes = settings.check();
        if settings.conn_servers.is_empty() {
            mistakes.push("conn_servers: at least one".into());
        }
        if !mistakes.is_empty() {
            return Err(StartError::Settings(mistakes));
        }
        let (listeners, addresses) = bind_all(&settings.listen)?;

        let span = tracing::info_span!("balancer", %node);
        let (events, links) = mpsc::channel(WAITING_MAX);
        let hub = Hub::new(HubSettings {
            role: Role::Balancer,
            node: node.clone(),
            keys,
            events,
            listen_publicly: false,
        });
        for target in &settings.conn_servers {
            hub.dial(target.clone());
        }

        let (door, happened) = mpsc::channel(WAITING_MAX);
        let board = Board::default();
        let front = Front::new(
            Core::new(settings.route(), rand::random()),
            hub.clone(),
            board.clone(),
            Report {
                addresses: addresses.clone(),
            },
            Duration::from_millis(settings.login_deadline_ms),
            door.clone(),
        );
        let (stop, stopped) = oneshot::channel();
        let front = spawn(front.run(happened, links, stopped), &span);
        let acceptors = listeners
            .into_iter()
            .map(|listener| spawn(accept::run(listener, door.clone()), &span))
            .collect();
        span.in_scope(|| {
            tracing::info!(code = Code::BalancerRuns.number(), devices = ?addresses, "balancer runs");
        });
        Ok(Self {
            addresses,
            node,
            board,
            hub,
            acceptors,
            front,
            stop: Some(stop),
            span,
        })
    }

    /// Where devices log in, with the ports that were bound, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Cheap: nobody is asked.
    pub fn stats(&self) -> Stats {
        self.board.snapshot()
    }

    /// The same for the metrics of the process.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            node: self.node.clone(),
            board: self.board.clone(),
            hub: self.hub.clone(),
        }
    }

    /// Accepts nobody any more, answers those that wait `busy`, and ends, in some 3 s at most.
    pub fn shutdown(mut self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.acceptors.iter().for_each(JoinHandle::abort);
            if let Some(stop) = self.stop.take() {
                // A front that is gone has nothing left to stop.
                let _ = stop.send(());
            }
            let _ = (&mut self.front).await;
            self.hub.shutdown().await;
            self.span
                .in_scope(|| tracing::info!(code = Code::BalancerEnded.number(), "balancer ended"));
        })
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.acceptors.iter().for_each(JoinHandle::abort);
        self.front.abort();
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static, span: &Span) -> JoinHandle<()> {
    tokio::spawn(task.instrument(span.clone()))
}

/// All listeners, or all that went wrong.
fn bind_all(wanted: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), StartError> {
    let (mut listeners, mut addresses, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for &address in wanted {
        let bound = listen(address, wanted)
            .and_then(|socket| TcpListener::from_std(socket.into()))
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((bound, listener)) => {
                addresses.push(bound);
                listeners.push(listener);
            }
            Err(error) => failures.push((address, error)),
        }
    }
    match failures.is_empty() {
        true => Ok((listeners, addresses)),
        false => Err(StartError::Listen(failures)),
    }
}
