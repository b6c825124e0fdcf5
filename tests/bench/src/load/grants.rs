//! A conn server's part for a logic server that is measured alone: grants over the real link,
//! acknowledged before a device comes.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::epoch::Epoch;
use common::ids::{AccountId, Ticket};
use common::link::message::{Grant, GrantVerdict, LogicInfo, Message};
use common::link::{Hub, HubSettings, LinkEvent, LinkId, Role};
use common::secret::{Secret, SessionKey};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::timeout;

use super::exchange::Granted;
use crate::error::{BenchError, Result, Tried as _};
use crate::{alone, clock};

const EVENTS_WAITING_MAX: usize = 1_024;
/// For the link to come up, and for each answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const TTL_MS: u32 = 30_000;

/// Grants to one logic server, each for an account of its own. It must be asked now and then, or
/// its link goes down.
pub(crate) struct Grants {
    runtime: Runtime,
    hub: Hub,
    events: Receiver<LinkEvent>,
    link: LinkId,
    devices: SocketAddr,
    accounts: i64,
}

impl Grants {
    /// Returns when the logic server has said where it takes devices.
    pub(crate) fn dial(target: SocketAddr) -> Result<Self> {
        let runtime = common::process::runtime().tried("make a runtime")?;
        let (to_us, mut events) = mpsc::channel(EVENTS_WAITING_MAX);
        let entered = runtime.enter();
        let hub = Hub::new(HubSettings {
            role: Role::Conn,
            node: alone::name("grants"),
            keys: alone::keys(),
            events: to_us,
            listen_publicly: false,
        });
        hub.dial(target.to_string());
        drop(entered);
        let (link, devices) = runtime.block_on(async {
            loop {
                if let LinkEvent::Notice {
                    link,
                    message: Message::LogicInfo(LogicInfo { advertise, .. }),
                    ..
                } = next(&mut events).await?
                {
                    let devices = advertise.first().copied();
                    return devices
                        .map(|devices| (link, devices))
                        .ok_or_else(|| BenchError::failed("a logic server without an address"));
                }
            }
        })?;
        Ok(Self {
            runtime,
            hub,
            events,
            link,
            devices,
            accounts: 0,
        })
    }

    /// A grant for a new account for each source; returns when all are acknowledged.
    pub(crate) fn grant(&mut self, sources: &[Ipv4Addr]) -> Result<Vec<Granted>> {
        let granted: Vec<_> = sources.iter().map(|&source| self.ask(source)).collect();
        self.runtime.block_on(async {
            let mut answers = 0;
            while answers < sources.len() {
                match next(&mut self.events).await? {
                    LinkEvent::Answer {
                        message: Message::GrantAnswer(answer),
                        ..
                    } if answer.verdict == GrantVerdict::Granted => answers += 1,
                    LinkEvent::Answer { message, .. } => {
                        return Err(BenchError::failed(format!("not granted: {message:?}")));
                    }
                    LinkEvent::Down { why, .. } => {
                        return Err(BenchError::failed(format!("the link is down: {why}")));
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
        Ok(granted)
    }

    fn ask(&mut self, source: Ipv4Addr) -> Granted {
        self.accounts += 1;
        let ticket: Ticket = Secret::new(rand::random());
        let session_key: SessionKey = Secret::new(rand::random());
        let account = format!("bench-{:06}", self.accounts);
        let grant = Grant {
            account_id: AccountId(self.accounts),
            account: account.parse().expect("letters, digits and a hyphen"),
            account_version: 1,
            session_key,
            ticket,
            source: Some(source.into()),
            epoch: Epoch::at_ms(clock::unix_ms()),
            ttl_ms: TTL_MS,
            heartbeat_s: None,
        };
        let id = self.accounts as u64;
        self.hub
            .request(self.link, id, ANSWER_MAX.as_millis() as u32, grant);
        Granted::new(self.devices, ticket, session_key)
    }

    /// Takes what the logic server tells of itself: a queue that nobody empties stops the link.
    pub(crate) fn listen(&mut self) {
        while self.events.try_recv().is_ok() {}
    }
}

async fn next(events: &mut Receiver<LinkEvent>) -> Result<LinkEvent> {
    match timeout(ANSWER_MAX, events.recv()).await {
        Ok(Some(event)) => Ok(event),
        Ok(None) => Err(BenchError::failed("the hub ended")),
        Err(_) => Err(BenchError::failed("the logic server does not answer")),
    }
}
