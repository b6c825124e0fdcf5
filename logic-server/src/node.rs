//! One logic server: its threads, its tasks, and how they come and go together.
//!
//! ```text
//! shutdown:  gate: no grants ─▶ shards: last batches, acks, Close(shutdown) ─▶ threads end
//!            ─▶ writer: last rows ─▶ gate's thread ends ─▶ links close
//! ```

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use common::database::Database;
use common::ids::NodeName;
use common::link::{Hub, HubSettings, Keys, LinkEvent, Role};
use mio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Instrument, Span};

use crate::batch::Batch;
use crate::control::{self, ControlTask};
use crate::driver::gate::{self as gate_driver, GateLoop};
use crate::driver::listen;
use crate::driver::shard::{self as shard_driver, ShardLoop};
use crate::driver::{Clock, ToGate, ToShard, or_abort};
use crate::gate;
use crate::ids::ShardIndex;
use crate::mailbox::Mailbox;
use crate::settings::Settings;
use crate::shard::{self, Shard};
use crate::stats::{Figures, Stats};
use crate::store::{RepairError, Store};
use crate::writer::Writer;
use crate::writer_task::{self, WriterTask};

/// Beyond the deadline of a shutdown: for the last word to every device, which a socket waits a
/// second for.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// A logic server that runs. Dropped without [`LogicServer::shutdown`], it ends at once.
#[derive(Debug)]
pub struct LogicServer {
    addresses: Addresses,
    figures: Figures,
    gate: Mailbox<ToGate>,
    shards: Vec<Mailbox<ToShard>>,
    hub: Hub,
    /// The shards', then the gate's.
    threads: Vec<Thread>,
    writer: task::JoinHandle<()>,
    control: task::JoinHandle<()>,
    shutdown_deadline: Duration,
    span: Span,
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
    pub async fn start(
        settings: Settings,
        node: NodeName,
        keys: Keys,
        database: &Database,
    ) -> Result<Self, StartError> {
        let mistakes = settings.check();
        if !mistakes.is_empty() {
            return Err(StartError::Settings(mistakes));
        }
        let span = tracing::info_span!("logic_server", %node);
        let starting = Self::start_checked(settings, node, keys, database, span.clone());
        starting.instrument(span).await
    }

    async fn start_checked(
        settings: Settings,
        node: NodeName,
        keys: Keys,
        database: &Database,
        span: Span,
    ) -> Result<Self, StartError> {
        let clock = Clock::new();
        let write_deadline = Duration::from_millis(settings.write_deadline_ms);
        let store = Store::new(database, &node, write_deadline);
        let repaired = store.repair(clock.now().unix_ms).await?;
        if repaired > 0 {
            tracing::warn!(
                sessions = repaired,
                "the last run crashed: ended its sessions"
            );
        }
        let (listeners, devices) = bind_all(&settings.listen)?;
        let (hub, events, link) = open_links(&settings, node, keys).await?;
        let addresses = Addresses {
            advertised: settings.advertised(&devices),
            devices,
            link,
        };

        // The mailboxes first, then whoever writes to them.
        let figures = Figures::new(settings.shards());
        let (gate_seat, gate) = gate_driver::Seat::new().map_err(StartError::Loop)?;
        let seats: io::Result<Vec<_>> = (0..settings.shards())
            .map(|_| shard_driver::Seat::new())
            .collect();
        let (shard_seats, shards): (Vec<_>, Vec<_>) =
            seats.map_err(StartError::Loop)?.into_iter().unzip();
        let (to_writer, batches) = mpsc::channel(writer_task::BATCHES_WAITING_MAX);
        let writer = WriterTask {
            writer: Writer::new(settings.writer(), rand::random()),
            store,
            clock,
            batches,
            shards: shards.clone(),
            counters: figures.writer.clone(),
        };
        let control = ControlTask {
            events,
            gate: gate.clone(),
            source_check: settings.source_check,
            requests_shed: figures.requests_shed.clone(),
        };
        let mut node = Self {
            shards,
            gate,
            hub,
            threads: Vec::new(),
            writer: spawn_task(writer.run()),
            control: spawn_task(control.run()),
            shutdown_deadline: Duration::from_millis(settings.shutdown_deadline_ms),
            addresses,
            figures,
            span,
        };
        for (index, seat) in (0..).map(ShardIndex).zip(shard_seats) {
            node.spawn_shard(&settings, index, seat, clock, to_writer.clone())?;
        }
        node.spawn_gate(&settings, gate_seat, clock, listeners)?;
        tracing::info!(devices = ?node.addresses.devices, %link, "logic server runs");
        Ok(node)
    }

    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Cheap: no loop is asked.
    pub fn stats(&self) -> Stats {
        self.figures.snapshot()
    }

    /// Takes no grants any more, has what was taken stored and acknowledged, sends every device
    /// `Close(shutdown)`, and ends. What is not stored within `shutdown_deadline_ms` is left: it was
    /// not acknowledged, so the devices send it again.
    pub async fn shutdown(mut self) {
        let span = self.span.clone();
        self.shut_down().instrument(span).await;
    }

    async fn shut_down(&mut self) {
        let deadline = Instant::now() + self.shutdown_deadline;
        self.gate.post(ToGate::Input(gate::Input::Shutdown));
        let mut gate_thread = self.threads.pop();
        if timeout_at(deadline, ended(&mut self.threads))
            .await
            .is_err()
        {
            tracing::warn!("shutdown takes too long: what is not acknowledged is left");
            for shard in &self.shards {
                shard.post(ToShard::Input(shard::Input::Abandon));
            }
            let _ = timeout(GOODBYE_MAX, ended(&mut self.threads)).await;
            for shard in &self.shards {
                shard.post(ToShard::Stop);
            }
            ended(&mut self.threads).await;
        }
        if timeout_at(deadline, &mut self.writer).await.is_err() {
            self.writer.abort();
        }
        self.gate.post(ToGate::Stop);
        if let Some(thread) = &mut gate_thread {
            thread.ended().await;
        }
        self.hub.shutdown().await;
        self.control.abort();
        tracing::info!("logic server ended");
    }

    fn spawn_shard(
        &mut self,
        settings: &Settings,
        index: ShardIndex,
        seat: shard_driver::Seat,
        clock: Clock,
        writer: mpsc::Sender<Batch>,
    ) -> Result<(), StartError> {
        let core = Shard::new(settings.shard(index), rand::random());
        let peers = shard_driver::Peers {
            gate: self.gate.clone(),
            writer,
            hub: self.hub.clone(),
            overload_retry_ms: settings.overload_retry_ms,
        };
        let figures = self.figures.shards[usize::from(index.0)].clone();
        let shard = ShardLoop::new(seat, clock, core, peers, figures);
        self.spawn_thread(format!("shard-{}", index.0), || shard.run())
    }

    fn spawn_gate(
        &mut self,
        settings: &Settings,
        seat: gate_driver::Seat,
        clock: Clock,
        listeners: Vec<TcpListener>,
    ) -> Result<(), StartError> {
        let advertise = self.addresses.advertised.clone();
        let core = gate::Core::new(settings.gate(advertise), rand::random());
        let peers = gate_driver::Peers {
            shards: self.shards.clone(),
            hub: self.hub.clone(),
        };
        let sockets_max = settings.sockets_max();
        let figures = &self.figures;
        let gate = GateLoop::new(seat, clock, core, listeners, sockets_max, peers, figures)
            .map_err(StartError::Loop)?;
        self.spawn_thread("gate".into(), || gate.run())
    }

    fn spawn_thread(
        &mut self,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), StartError> {
        let span = self.span.clone();
        let (running, ended) = oneshot::channel::<()>();
        let spawned = Builder::new().name(name).spawn(move || {
            or_abort(|| span.in_scope(work));
            drop(running);
        });
        self.threads.push(Thread {
            ended,
            handle: Some(spawned.map_err(StartError::Loop)?),
        });
        Ok(())
    }
}

impl Drop for LogicServer {
    fn drop(&mut self) {
        self.gate.post(ToGate::Stop);
        self.shards
            .iter()
            .for_each(|shard| shard.post(ToShard::Stop));
        self.writer.abort();
        self.control.abort();
    }
}

/// Listeners for devices, and where they were bound.
fn bind_all(addresses: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), StartError> {
    let bind = |&address: &SocketAddr| {
        listen::bind(address)
            .and_then(|listener| listener.local_addr().map(|bound| (listener, bound)))
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

/// A loop's thread.
#[derive(Debug)]
struct Thread {
    /// Its other end goes when the loop has ended.
    ended: oneshot::Receiver<()>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Waits until the thread is gone.
    async fn ended(&mut self) {
        if let Some(handle) = &self.handle
            && !handle.is_finished()
        {
            let _ = (&mut self.ended).await;
        }
        // A loop that panicked has ended the process.
        let _ = self.handle.take().map(JoinHandle::join);
    }
}

/// Waits until all of them are gone.
async fn ended(threads: &mut [Thread]) {
    for thread in threads {
        thread.ended().await;
    }
}

fn spawn_task(task: impl Future<Output = ()> + Send + 'static) -> task::JoinHandle<()> {
    tokio::spawn(
        async {
            let mut task = pin!(task);
            poll_fn(|context| or_abort(|| task.as_mut().poll(context))).await;
        }
        .in_current_span(),
    )
}
