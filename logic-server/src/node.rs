//! One logic server: its loops, its links, and how they come and go together. The loops end first,
//! so that what they still have to say goes out before the links close.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use common::codes::Code;
use common::database::Database;
use common::ids::NodeName;
use common::link::{Hub, HubSettings, Keys, LinkEvent, Role};
use futures_core::future::BoxFuture;
use mio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tracing::{Instrument, Span};

use crate::bind::bind;
use crate::clock::Clock;
use crate::control::{self, ControlTask, Report};
use crate::ids::ListenerIndex;
use crate::loops::{Loops, Parts};
use crate::settings::{RCU_LISTENER, Settings};
use crate::stats::{Figures, Metrics, Stats};
use crate::store::{Partitions, RepairError, Store};
use crate::threads::Task;

/// A logic server that runs. Dropped without [`LogicServer::shutdown`], it ends at once.
#[derive(Debug)]
pub struct LogicServer {
    addresses: Addresses,
    name: NodeName,
    figures: Figures,
    clock: Clock,
    loops: Loops,
    hub: Hub,
    control: Task,
    /// Of a database that has partitions.
    partitions: Option<Task>,
    shutdown_deadline_ms: u64,
    hurry: watch::Sender<bool>,
    span: Span,
}

/// Hastens the shutdown of a logic server.
#[derive(Debug)]
pub struct Hurry(watch::Sender<bool>);

impl Hurry {
    pub fn now(self) {
        self.0.send_replace(true);
    }
}

/// Where a logic server is reached, with the ports that were bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For devices, in the order of the settings.
    pub devices: Vec<SocketAddr>,
    /// What devices are told.
    pub advertised: Vec<SocketAddr>,
    /// For conn servers.
    pub link: SocketAddr,
}

/// Why a logic server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("wrong settings: {}", .0.join("; "))]
    Settings(Vec<String>),
    #[error("cannot listen for devices on {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot listen for conn servers on {address}")]
    LinkListen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(transparent)]
    Repair(#[from] RepairError),
    #[error("cannot start an event loop")]
    Loop(#[source] io::Error),
}

impl LogicServer {
    /// Binds its addresses, repairs what a crash left, starts its loops. Runs its tasks on the
    /// runtime that it is called on. Whether `max_connections` fits the descriptors of the process
    /// is for the caller to see to: there may be others in it.
    pub fn start(
        settings: Settings,
        node: NodeName,
        keys: Keys,
        database: &Database,
    ) -> BoxFuture<'_, Result<Self, StartError>> {
        let span = tracing::info_span!("logic_server", %node);
        Box::pin(Self::launch(settings, node, keys, database, span.clone()).instrument(span))
    }

    async fn launch(
        settings: Settings,
        node: NodeName,
        keys: Keys,
        database: &Database,
        span: Span,
    ) -> Result<Self, StartError> {
        let mistakes = settings.check();
        if !mistakes.is_empty() {
            return Err(StartError::Settings(mistakes));
        }
        let clock = Clock::new();
        let write_deadline = Duration::from_millis(settings.write_deadline_ms);
        let store = Store::new(database, &node, write_deadline);
        let repaired = store.repair(clock.now().unix_ms).await?;
        if repaired > 0 {
            tracing::warn!(
                code = Code::SessionsRepaired.number(),
                sessions = repaired,
                "the last run crashed: ended its sessions"
            );
        }
        let (listeners, devices) = bind_all(&settings.listen)?;
        let (hub, events, link) = open_links(&settings, node.clone(), keys).await?;
        let addresses = Addresses {
            advertised: settings.advertised(&devices),
            devices,
            link,
        };

        let figures = Figures::new(&settings);
        let parts = Parts {
            clock,
            store,
            hub: hub.clone(),
            listeners,
            advertise: addresses.advertised.clone(),
            seed: rand::random,
        };
        let loops = Loops::start(&settings, parts, &figures).map_err(StartError::Loop)?;
        let control = ControlTask {
            events,
            gate: loops.gate(),
            source_check: settings.source_check,
            requests_shed: figures.requests_shed.clone(),
            report: Report {
                hub: hub.clone(),
                figures: figures.clone(),
                clock,
                advertised: addresses.advertised.clone(),
            },
        };
        let node = Self {
            name: node,
            loops,
            hub,
            control: Task::spawn(control.run()),
            partitions: Partitions::of(database).map(|it| Task::spawn(it.keep(clock))),
            shutdown_deadline_ms: settings.shutdown_deadline_ms,
            hurry: watch::Sender::new(false),
            addresses,
            figures,
            clock,
            span,
        };
        tracing::info!(
            code = Code::LogicServerRuns.number(),
            devices = ?node.addresses.devices, %link,
            "logic server runs"
        );
        Ok(node)
    }

    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Cheap: no loop is asked.
    pub fn stats(&self) -> Stats {
        self.figures.snapshot()
    }

    /// The same for the metrics of the process.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            node: self.name.clone(),
            figures: self.figures.clone(),
            clock: self.clock,
        }
    }

    /// Takes no grants any more, has what was taken stored and acknowledged, sends every device
    /// `Close(shutdown)`, and ends. What is not stored within `shutdown_deadline_ms` is left: it was
    /// not acknowledged, so the devices send it again.
    pub fn shutdown(mut self) -> BoxFuture<'static, ()> {
        let span = self.span.clone();
        Box::pin(async move { self.shut_down().await }.instrument(span))
    }

    /// What has its shutdown wait for the database no longer, as if `shutdown_deadline_ms` were over.
    pub fn hurry(&self) -> Hurry {
        Hurry(self.hurry.clone())
    }

    async fn shut_down(&mut self) {
        let hurry = self.hurry.subscribe();
        self.loops
            .shut_down(self.shutdown_deadline_ms, &hurry)
            .await;
        self.hub.shutdown().await;
        self.abort_tasks();
        tracing::info!(code = Code::LogicServerEnded.number(), "logic server ended");
    }

    fn abort_tasks(&self) {
        self.control.abort();
        self.partitions.iter().for_each(Task::abort);
    }
}

/// The loops see to themselves.
impl Drop for LogicServer {
    fn drop(&mut self) {
        self.abort_tasks();
    }
}

type Bound = (ListenerIndex, TcpListener);

/// Listeners for devices, and where they were bound.
fn bind_all(addresses: &[SocketAddr]) -> Result<(Vec<Bound>, Vec<SocketAddr>), StartError> {
    let bind = |&address: &SocketAddr| {
        bind(address, addresses)
            .and_then(|socket| {
                socket
                    .local_addr()
                    .map(|bound| ((RCU_LISTENER, socket), bound))
            })
            .map_err(|source| StartError::Listen { address, source })
    };
    let bound: Result<Vec<_>, _> = addresses.iter().map(bind).collect();
    Ok(bound?.into_iter().unzip())
}

/// Listens for conn servers.
async fn open_links(
    settings: &Settings,
    node: NodeName,
    keys: Keys,
) -> Result<(Hub, mpsc::Receiver<LinkEvent>, SocketAddr), StartError> {
    let (sender, events) = mpsc::channel(control::EVENTS_WAITING_MAX);
    let hub = Hub::new(HubSettings {
        role: Role::Logic,
        node,
        keys,
        events: sender,
        listen_publicly: settings.link_listen_publicly,
    });
    let address = settings.link_listen;
    match hub.listen(address, &[Role::Conn]).await {
        Ok(bound) => Ok((hub, events, bound)),
        Err(source) => Err(StartError::LinkListen { address, source }),
    }
}
