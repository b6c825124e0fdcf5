//! One conn server: its links, its accounts and the task that owns its core, and how they come and
//! go together.

use std::io;
use std::net::SocketAddr;

use common::codes::Code;
use common::database::Database;
use common::epoch::{Epoch, NodeNumber};
use common::ids::NodeName;
use common::link::{Hub, HubSettings, Keys, Role};
use common::process::clock::unix_ms;
use futures_core::future::BoxFuture;
use rand::rngs::{SmallRng, StdRng, SysError, SysRng};
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use crate::accounts::cache::AccountCache;
use crate::accounts::reader::{OwnMark, Reader};
use crate::accounts::seal::MasterKey;
use crate::accounts::table::Table;
use crate::accounts::writer::Writer;
use crate::core::{Core, Effect, Input};
use crate::counters::Counters;
use crate::desk::Desk;
use crate::directory::Directory;
use crate::epochs::Epochs;
use crate::nonces::Nonces;
use crate::pool::NodePool;
use crate::server::{Ears, Peers, Server};
use crate::settings::Settings;
use crate::stats::{Board, Metrics, Stats};
use crate::throttle::Throttle;

/// Events of links, and news of the accounts, that may wait for the owner; beyond it links are not
/// read and the accounts not asked.
const WAITING_MAX: usize = 4_096;

/// Look-ups that may wait for the table; more are busy.
const QUESTIONS_MAX: usize = 16_384;

/// A mark, and notes of last logins; notes that find no room wait and are merged.
const ERRANDS_MAX: usize = 2;

/// A conn server that runs. Dropped without [`ConnServer::shutdown`], it ends at once.
#[derive(Debug)]
pub struct ConnServer {
    address: SocketAddr,
    node: NodeName,
    board: Board,
    hub: Hub,
    server: JoinHandle<()>,
    /// Those end when the server does.
    behind: [JoinHandle<()>; 2],
    stop: Option<oneshot::Sender<()>>,
    span: Span,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// All mistakes at once.
    #[error("wrong settings: {}", .0.join("; "))]
    Settings(Vec<String>),
    #[error("cannot listen for balancers and operators on {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the accounts cannot be read, or the mark of the epochs not be stored")]
    Database(#[from] sqlx::Error),
    #[error("the system has no random numbers")]
    Random(#[from] SysError),
}

impl ConnServer {
    /// Stores the mark of its epochs, binds its address and begins to dial its logic servers; it does
    /// not wait for them. Runs its tasks on the runtime that it is called on.
    pub fn start(
        settings: Settings,
        node: NodeName,
        keys: Keys,
        database: Database,
        master: MasterKey,
    ) -> BoxFuture<'static, Result<Self, StartError>> {
        Box::pin(Self::launch(settings, node, keys, database, master))
    }

    async fn launch(
        settings: Settings,
        node: NodeName,
        keys: Keys,
        database: Database,
        master: MasterKey,
    ) -> Result<Self, StartError> {
        let mut mistakes = settings.check();
        if settings.logic_servers.is_empty() {
            mistakes.push("logic_servers: at least one".into());
        }
        let number = NodeNumber::new(settings.node_number);
        let (Some(number), true) = (number, mistakes.is_empty()) else {
            return Err(StartError::Settings(mistakes));
        };
        let span = tracing::info_span!("conn_server", %node);

        let (news_sender, news) = mpsc::channel(WAITING_MAX);
        let (stored, marks) = watch::channel(Epoch::ZERO);
        let table = Table::new(&database);
        let writer = Writer {
            table: table.clone(),
            node_number: settings.node_number,
            news: news_sender.clone(),
            marks: stored,
        };
        let mark = OwnMark {
            node_number: settings.node_number,
            stored: marks,
        };
        let reader = Reader::new(table, master, mark, news_sender).await?;
        let epochs = Epochs::new(number, writer.mark().await?);
        let mut core = core(&settings, epochs)?;
        store_first_mark(&mut core, &writer).await?;

        let (events, links) = mpsc::channel(WAITING_MAX);
        let hub = Hub::new(HubSettings {
            role: Role::Conn,
            node: node.clone(),
            keys,
            events,
            listen_publicly: settings.listen_publicly,
        });
        let listening = hub.listen(settings.listen, &[Role::Balancer, Role::Operator]);
        let address = listening.await.map_err(|source| StartError::Listen {
            address: settings.listen,
            source,
        })?;
        for target in &settings.logic_servers {
            hub.dial(target.clone());
        }

        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let (errands, given) = mpsc::channel(ERRANDS_MAX);
        let (stop, stopped) = oneshot::channel();
        let board = Board::default();
        let peers = Peers {
            hub: hub.clone(),
            questions,
            errands,
            board: board.clone(),
        };
        let cache = AccountCache::new(settings.cache_entries_max, settings.cache_absent_max);
        let ears = Ears {
            links,
            news,
            stop: stopped,
        };
        let server = Server::new(core, cache, peers);
        let server = spawn(server.run(ears), &span);
        let behind = [
            spawn(reader.run(asked), &span),
            spawn(writer.run(given), &span),
        ];
        span.in_scope(|| {
            tracing::info!(code = Code::ConnServerRuns.number(), links = %address, "conn server runs");
        });
        Ok(Self {
            address,
            node,
            board,
            hub,
            server,
            behind,
            stop: Some(stop),
            span,
        })
    }

    /// Where balancers and operators link to, with the port that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cheap: nobody is asked.
    pub fn stats(&self) -> Stats {
        self.board.figures.snapshot()
    }

    /// The same for the metrics of the process.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            node: self.node.clone(),
            board: self.board.clone(),
            hub: self.hub.clone(),
        }
    }

    /// Answers those that wait `busy`, writes the last logins, and ends.
    pub fn shutdown(mut self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Some(stop) = self.stop.take() {
                // A server that is gone has nothing left to stop.
                let _ = stop.send(());
            }
            let _ = (&mut self.server).await;
            self.hub.shutdown().await;
            for task in &mut self.behind {
                let _ = task.await;
            }
            self.span.in_scope(|| {
                tracing::info!(code = Code::ConnServerEnded.number(), "conn server ended")
            });
        })
    }
}

impl Drop for ConnServer {
    fn drop(&mut self) {
        self.server.abort();
        self.behind.iter().for_each(JoinHandle::abort);
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static, span: &Span) -> JoinHandle<()> {
    tokio::spawn(task.instrument(span.clone()))
}

fn core(settings: &Settings, epochs: Epochs) -> Result<Core, SysError> {
    let mut random = StdRng::try_from_rng(&mut SysRng)?;
    let desk = Desk {
        rules: settings.rules(),
        throttle: Throttle::new(settings.limits(), random.random()),
        nonces: Nonces::new(settings.nonces_max),
        pool: NodePool::new(settings.policy),
        directory: Directory::default(),
        epochs,
        counters: Counters::default(),
        waits: SmallRng::from_rng(&mut random),
        tickets: random,
    };
    let logic_servers = settings.logic_servers.clone();
    Ok(Core::new(desk, logic_servers, settings.logins_open_max))
}

/// No epoch is published before it; so that the first login needs not come again, and a database
/// that cannot be written is told at the start.
async fn store_first_mark(core: &mut Core, writer: &Writer) -> Result<(), sqlx::Error> {
    let unix_ms = unix_ms();
    let mut effects = Vec::new();
    core.apply(Input::Tick, 0, unix_ms, &mut effects);
    for effect in effects {
        if let Effect::StoreMark(mark) = effect {
            writer.store_mark(mark).await?;
            let stored = Input::MarkStored(Some(mark));
            core.apply(stored, 0, unix_ms, &mut Vec::new());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
