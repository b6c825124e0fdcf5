//! All links of one process: listening, dialling, and the table through which its owner speaks.

use std::collections::{BTreeMap, HashMap, btree_map};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures_core::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument, Span};

use super::connection::{self, Context, Full, Outbox, Queued};
use super::dialler::{ATTEMPT_MS_MAX, Dialler};
use super::framing::Versions;
use super::handshake::{self, HandshakeError, Identity};
use super::highest::HighestEpoch;
use super::keys::Keys;
use super::message::Message;
use super::peer::{Class, LinkEvent, LinkId, Peer, Role, is_bulk, is_public, may_send};
use super::transport::Transport;
use super::wire::{self, Envelope, Hello};
use crate::codes::Code;
use crate::epoch::Epoch;
use crate::ids::NodeName;
use crate::logging::repeats::Repeats;
use crate::millis::millis;
use crate::process::listen::{canonical, listen};

/// Links at once that a server of this role has; a further peer is turned away until one ends. Only conn
/// servers dial a logic server.
pub const fn links_max(role: Role) -> usize {
    match role {
        Role::Logic => 128,
        _ => 1_024,
    }
}

/// Peers in their handshake at once; a further one is turned away.
pub const HANDSHAKES_MAX: usize = 64;

/// After an accept that failed, for want of descriptors mostly: time for one to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Most messages fit, a login among them, without asking for memory twice.
const MESSAGE_BYTES_USUAL: usize = 256;

/// What `shutdown` waits for links to send what is queued.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);

/// What a process is, and where its owner listens.
#[derive(Clone, Debug)]
pub struct HubSettings {
    pub role: Role,
    pub node: NodeName,
    pub keys: Keys,
    /// The owner's queue. While it is full, links are not read: the peers' messages wait with them.
    pub events: mpsc::Sender<LinkEvent>,
    /// Lets [`Hub::listen`] bind an address that the whole world may reach.
    pub listen_publicly: bool,
}

/// Cheap to clone; used inside a tokio runtime. Its tasks end with `shutdown`, or when the
/// receiver of its events is gone.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    keys: Keys,
    events: mpsc::Sender<LinkEvent>,
    listen_publicly: bool,
    highest: HighestEpoch,
    next_link: AtomicU64,
    handshakes: Arc<Semaphore>,
    /// Written when a link comes or goes, read for every message sent: readers do not wait for one another.
    table: RwLock<Table>,
    started: Instant,
    /// What strangers fill is not the log.
    refusals: Mutex<Repeats<(IpAddr, String)>>,
    /// Every task holds a receiver as long as it runs: `closed` on this sender waits for them all.
    stopping: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Table {
    links: HashMap<LinkId, Entry>,
    /// What is dialled, and why the last attempt was in vain; `None`: it was not, or there was none yet.
    targets: BTreeMap<String, Option<String>>,
}

#[derive(Debug)]
struct Entry {
    peer: Role,
    version: u16,
    outbox: Outbox,
}

impl Hub {
    pub fn new(settings: HubSettings) -> Self {
        Self::with_versions(settings, Versions::OURS)
    }

    fn with_versions(settings: HubSettings, versions: Versions) -> Self {
        let identity = Identity {
            versions,
            role: settings.role,
            node: settings.node,
        };
        Self {
            shared: Arc::new(Shared {
                identity,
                keys: settings.keys,
                events: settings.events,
                listen_publicly: settings.listen_publicly,
                highest: HighestEpoch::default(),
                next_link: AtomicU64::new(1),
                handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
                table: RwLock::default(),
                started: Instant::now(),
                refusals: Mutex::default(),
                stopping: watch::Sender::new(false),
            }),
        }
    }

    /// Accepts links of these roles; returns the address bound. Refuses a public address
    /// (`InvalidInput`) unless `listen_publicly` is set.
    pub fn listen<'a>(
        &'a self,
        address: SocketAddr,
        roles_admitted: &'a [Role],
    ) -> BoxFuture<'a, io::Result<SocketAddr>> {
        Box::pin(async move {
            if is_public(address.ip()) && !self.shared.listen_publicly {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!(
                        "{address} is a public address, and links are internal: choose a private one"
                    ),
                ));
            }
            let listener = TcpListener::from_std(listen(address, &[])?.into())?;
            let bound = listener.local_addr()?;
            let roles = roles_admitted.into();
            self.spawn(move |shared| accept(shared, listener, roles));
            Ok(bound)
        })
    }

    /// Keeps a link to `target` (host:port) up for ever. A target is dialled once, however often it is named.
    pub fn dial(&self, target: String) {
        if let btree_map::Entry::Vacant(place) =
            self.shared.write_table().targets.entry(target.clone())
        {
            place.insert(None);
            self.spawn(move |shared| keep_dialling(shared, target));
        }
    }

    /// Of each target that cannot be linked to now: which, and why. For whoever asks what is missing.
    pub fn not_linked(&self) -> Vec<String> {
        let table = self.shared.read_table();
        let failing = table.targets.iter().filter_map(|(target, why)| {
            let why = why.as_deref()?;
            Some(format!("no link to {target}: {why}"))
        });
        failing.collect()
    }

    /// Asks; the answer comes as [`LinkEvent::Answer`] with the same id, or never: the caller keeps
    /// the deadline. Like all sending it never blocks; on a link that is gone it does nothing, since
    /// [`LinkEvent::Down`] says so or has said so; where the link's queue is full, the link is closed.
    pub fn request(&self, link: LinkId, id: u64, deadline_ms: u32, message: impl Into<Message>) {
        self.send(link, Class::Request, id, deadline_ms, message.into());
    }

    pub fn answer(&self, link: LinkId, id: u64, message: impl Into<Message>) {
        self.send(link, Class::Answer, id, 0, message.into());
    }

    pub fn notice(&self, link: LinkId, message: impl Into<Message>) {
        self.send(link, Class::Notice, 0, 0, message.into());
    }

    /// Takes note of an epoch made or read here; it goes with every message sent from now on.
    pub fn observe(&self, epoch: Epoch) {
        self.shared.highest.observe(epoch);
    }

    /// The highest epoch that this process made or heard of on its links.
    pub fn highest(&self) -> Epoch {
        self.shared.highest.load()
    }

    /// Sends what is queued, then closes. `Down` follows.
    pub fn close(&self, link: LinkId) {
        self.shared.write_table().links.remove(&link);
    }

    /// Stops listening and dialling, sends what is queued for at most a second, closes all links.
    /// No events follow.
    pub fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.stopping.send_replace(true);
            if timeout(SHUTDOWN_MAX, self.shared.stopping.closed())
                .await
                .is_err()
            {
                self.shared.span().in_scope(|| {
                    tracing::warn!(
                        code = Code::LinksOpenAtEnd.number(),
                        "links still open at shutdown"
                    );
                });
            }
        })
    }

    fn send(&self, link: LinkId, class: Class, id: u64, deadline_ms: u32, message: Message) {
        let table = self.shared.read_table();
        let Some(entry) = table.links.get(&link) else {
            return;
        };
        let us = self.shared.identity.role;
        assert!(
            may_send(us, entry.peer, class, &message),
            "a {us} does not say message number {} to a {}",
            wire::number(&message),
            entry.peer,
        );
        let message = message.to_version(entry.version);
        let bulk = is_bulk(&message);
        let envelope = Envelope {
            class,
            id,
            deadline_ms,
            epoch: self.highest(),
            message,
        };
        let mut bytes = Vec::with_capacity(MESSAGE_BYTES_USUAL);
        wire::encode(&envelope, &mut bytes);
        let pushed = entry.outbox.push(Queued { bulk, bytes });
        drop(table);
        if let Err(Full) = pushed
            && let Some(entry) = self.shared.write_table().links.remove(&link)
        {
            entry.outbox.cut("its queue is full");
        }
    }

    /// Runs a task of the hub until it ends or the hub stops, in a span with the node's name.
    fn spawn<F>(&self, task: impl FnOnce(Arc<Shared>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.shared.spawn(task(self.shared.clone()));
    }
}

impl Shared {
    fn read_table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_table(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.stopping.subscribe();
        tokio::spawn(
            async move {
                task.await;
                drop(running);
            }
            .instrument(self.span()),
        );
    }

    /// Says whose links are spoken of.
    fn span(&self) -> Span {
        tracing::info_span!(parent: None, "link", node = %self.identity.node)
    }

    /// Completes when the hub stops or its owner is gone.
    async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => {}
            () = self.events.closed() => {}
        }
    }

    /// Runs an established link from Up to Down. Returns how long it lasted.
    async fn run(&self, stream: TcpStream, transport: Transport, peer: Peer) -> Duration {
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let (outbox, inbox) = connection::queue();
        let entry = Entry {
            peer: peer.role,
            version: peer.version,
            outbox,
        };
        self.write_table().links.insert(link, entry);
        let context = Context {
            link,
            us: self.identity.role,
            peer: peer.role,
            events: &self.events,
            highest: &self.highest,
        };
        let started = Instant::now();
        tracing::info!(
            code = Code::LinkUp.number(),
            %link, peer = %peer.node, role = %peer.role, address = %peer.address,
            "link up"
        );
        let (node, role, address) = (peer.node.clone(), peer.role, peer.address);
        self.tell(LinkEvent::Up { link, peer }).await;
        let end = connection::run(stream, transport, inbox, context, self.stopped()).await;
        self.write_table().links.remove(&link);
        tracing::info!(
            code = Code::LinkDown.number(),
            %link, peer = %node, %role, %address, why = %end,
            "link down"
        );
        let why = end.to_string();
        self.tell(LinkEvent::Down { link, why }).await;
        started.elapsed()
    }

    /// Waits for room in the owner's queue, but not when the hub stops: then nobody listens.
    async fn tell(&self, event: LinkEvent) {
        tokio::select! {
            biased;
            () = self.stopped() => {}
            // An owner that is gone needs to hear nothing.
            _ = self.events.send(event) => {}
        }
    }

    async fn admit(
        &self,
        mut stream: TcpStream,
        address: SocketAddr,
        roles: &[Role],
    ) -> Result<(TcpStream, Transport, Peer), HandshakeError> {
        stream.set_nodelay(true)?;
        let admitted = handshake::admit(&mut stream, &self.keys, roles, &self.identity).await?;
        let (transport, hello) = admitted;
        Ok((stream, transport, peer(hello, address, None)))
    }

    async fn connect(&self, target: &str) -> Result<(TcpStream, Transport, Peer), HandshakeError> {
        let connecting = TcpStream::connect(target).await;
        let mut stream = connecting.map_err(HandshakeError::Connect)?;
        stream.set_nodelay(true)?;
        let address = stream.peer_addr()?;
        let (transport, hello) = handshake::dial(&mut stream, &self.keys, &self.identity).await?;
        let peer = peer(hello, address, Some(target.to_owned()));
        Ok((stream, transport, peer))
    }

    fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    /// Of a target: why it cannot be linked to; `None`: it is linked.
    fn note_target(&self, target: &str, why: Option<&str>) {
        if let Some(noted) = self.write_table().targets.get_mut(target) {
            *noted = why.map(ToOwned::to_owned);
        }
    }

    /// Tells of a peer turned away. Strangers may come in any number: the owner hears of them as
    /// far as its queue has room.
    fn refused_peer(&self, address: SocketAddr, why: &str) {
        // Each attempt comes from a port of its own.
        let cause = (address.ip(), why.to_owned());
        let untold = locked(&self.refusals).tell(cause, self.now_ms());
        if let Some(untold) = untold {
            tracing::warn!(
                code = Code::LinkRefused.number(),
                %address, why, untold,
                "link refused"
            );
        }
        // Full: the owner has better things to do.
        let _ = self.events.try_send(LinkEvent::Refused {
            address: address.to_string(),
            why: why.to_owned(),
        });
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts links until the hub stops.
async fn accept(shared: Arc<Shared>, listener: TcpListener, roles: Arc<[Role]>) {
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopped() => return,
        };
        let (stream, address) = match accepted {
            Ok((stream, address)) => {
                is_failing = false;
                (stream, canonical(address))
            }
            Err(error) => {
                // Repeats are not repeated in the log.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(
                        code = Code::LinkAcceptFailed.number(),
                        %error,
                        "cannot accept a link"
                    );
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = shared.handshakes.clone().try_acquire_owned() else {
            shared.refused_peer(address, "too many handshakes at once");
            continue;
        };
        if shared.read_table().links.len() >= links_max(shared.identity.role) {
            shared.refused_peer(address, "too many links");
            continue;
        }
        let (roles, peer_shared) = (roles.clone(), shared.clone());
        shared.spawn(async move {
            let admitted = tokio::select! {
                admitted = peer_shared.admit(stream, address, &roles) => admitted,
                () = peer_shared.stopped() => return,
            };
            drop(permit);
            match admitted {
                Ok((stream, transport, peer)) => {
                    peer_shared.run(stream, transport, peer).await;
                }
                Err(error) => peer_shared.refused_peer(address, &chain(&error)),
            }
        });
    }
}

/// Dials until the hub stops.
async fn keep_dialling(shared: Arc<Shared>, target: String) {
    let mut dialler = Dialler::new(rand::random());
    let attempt_max = Duration::from_millis(ATTEMPT_MS_MAX);
    let mut repeats = Repeats::default();
    // Who was there last.
    let mut known: Option<NodeName> = None;
    loop {
        let connected = tokio::select! {
            connected = timeout(attempt_max, shared.connect(&target)) => connected,
            () = shared.stopped() => return,
        };
        match connected.unwrap_or(Err(HandshakeError::Slow)) {
            Ok((stream, transport, peer)) => {
                repeats = Repeats::default();
                known = Some(peer.node.clone());
                shared.note_target(&target, None);
                let lasted = shared.run(stream, transport, peer).await;
                dialler.lost(millis(lasted));
            }
            Err(error) => {
                let why = chain(&error);
                shared.note_target(&target, Some(&why));
                if let Some(untold) = repeats.tell(why.clone(), shared.now_ms()) {
                    tracing::warn!(
                        code = Code::LinkNotMade.number(),
                        target,
                        peer = known.as_ref().map(tracing::field::display),
                        why,
                        untold,
                        "no link"
                    );
                }
                let address = target.clone();
                shared.tell(LinkEvent::Refused { address, why }).await;
            }
        }
        let wait = Duration::from_millis(dialler.next_wait_ms());
        tokio::select! {
            () = sleep(wait) => {}
            () = shared.stopped() => return,
        }
    }
}

fn peer(hello: Hello, address: SocketAddr, target: Option<String>) -> Peer {
    Peer {
        role: hello.role,
        node: hello.node,
        version: hello.version,
        address,
        target,
    }
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
