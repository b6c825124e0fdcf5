//! Questions to one process, for commands that a person types.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::hub::{Hub, HubSettings};
use super::keys::Keys;
use super::message::{CommandAnswer, Message, NodesAnswer};
use super::peer::{LinkEvent, LinkId, Peer, Role};
use crate::ids::NodeName;

/// Why a question has no answer. Display is one clear line.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no link to {address}: {why}")]
    Refused { address: String, why: String },
    #[error("the link to {address} broke: {why}")]
    Broken { address: String, why: String },
    #[error("no answer from {address} within {} ms", deadline.as_millis())]
    Late { address: String, deadline: Duration },
    #[error(
        "{address} speaks link version {speaks}, and this needs {needs}: run a newer one there"
    )]
    Older {
        address: String,
        speaks: u16,
        needs: u16,
    },
}

/// A link to one process, over which it is asked. Ended by [`Caller::close`].
#[derive(Debug)]
pub struct Caller {
    address: String,
    hub: Hub,
    heard: mpsc::Receiver<LinkEvent>,
    link: LinkId,
    peer: Peer,
    last_id: u64,
}

impl Caller {
    /// Dials `address` (host:port) as `role`, under this name.
    ///
    /// # Errors
    /// It cannot be reached, or wants none of us.
    pub async fn connect(
        address: &str,
        role: Role,
        node: NodeName,
        keys: Keys,
        deadline: Duration,
    ) -> Result<Self, CallError> {
        let (events, mut heard) = mpsc::channel(64);
        let hub = Hub::new(HubSettings {
            role,
            node,
            keys,
            events,
            listen_publicly: false,
        });
        hub.dial(address.to_owned());
        let first = timeout(deadline, heard.recv()).await;
        let why = match first {
            Ok(Some(LinkEvent::Up { link, peer })) => {
                return Ok(Self {
                    address: address.to_owned(),
                    hub,
                    heard,
                    link,
                    peer,
                    last_id: 0,
                });
            }
            Ok(Some(LinkEvent::Refused { why, .. })) => why,
            Ok(_) => "it says something before the hello".to_owned(),
            Err(_) => {
                hub.shutdown().await;
                return Err(CallError::Late {
                    address: address.to_owned(),
                    deadline,
                });
            }
        };
        hub.shutdown().await;
        let address = address.to_owned();
        Err(CallError::Refused { address, why })
    }

    /// Who is asked.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The answers, the final one last. One question at a time.
    ///
    /// # Errors
    /// The peer is too old for it; the link breaks; no final answer within `deadline`.
    pub async fn ask(
        &mut self,
        message: impl Into<Message>,
        deadline: Duration,
    ) -> Result<Vec<Message>, CallError> {
        self.ask_for(message, deadline, deadline).await
    }

    /// The same, where the peer is to give up after `peer_deadline`, so that its word for that
    /// still comes within `deadline`.
    ///
    /// # Errors
    /// As those of [`Caller::ask`].
    pub async fn ask_for(
        &mut self,
        message: impl Into<Message>,
        peer_deadline: Duration,
        deadline: Duration,
    ) -> Result<Vec<Message>, CallError> {
        let message = message.into();
        if self.peer.version < message.since_version() {
            return Err(CallError::Older {
                address: self.address.clone(),
                speaks: self.peer.version,
                needs: message.since_version(),
            });
        }
        self.last_id += 1;
        let deadline_ms = u32::try_from(peer_deadline.as_millis()).unwrap_or(u32::MAX);
        self.hub
            .request(self.link, self.last_id, deadline_ms, message);
        let answers = timeout(deadline, self.answers()).await;
        answers.unwrap_or_else(|_| {
            Err(CallError::Late {
                address: self.address.clone(),
                deadline,
            })
        })
    }

    /// Sends what is queued, and ends.
    pub async fn close(self) {
        self.hub.shutdown().await;
    }

    async fn answers(&mut self) -> Result<Vec<Message>, CallError> {
        let mut answers = Vec::new();
        loop {
            match self.heard.recv().await {
                // What comes for a question that was given up is not for this one.
                Some(LinkEvent::Answer { id, message, .. }) if id == self.last_id => {
                    let last = is_last(&message);
                    answers.push(message);
                    if last {
                        return Ok(answers);
                    }
                }
                Some(LinkEvent::Down { link, why }) if link == self.link => {
                    return Err(self.broken(why));
                }
                Some(_) => {}
                None => return Err(self.broken("it ended".to_owned())),
            }
        }
    }

    fn broken(&self, why: String) -> CallError {
        let address = self.address.clone();
        CallError::Broken { address, why }
    }
}

/// Dials `address` (host:port) as `role`, asks, and returns the answers, the final one last.
///
/// # Errors
/// As those of [`Caller`]; `deadline` is for all of it.
pub async fn call(
    address: &str,
    role: Role,
    keys: Keys,
    message: impl Into<Message>,
    deadline: Duration,
) -> Result<Vec<Message>, CallError> {
    let begun = tokio::time::Instant::now();
    let mut caller = Caller::connect(address, role, node_name(role), keys, deadline).await?;
    let left = deadline.saturating_sub(begun.elapsed());
    let answers = caller.ask(message, left).await;
    caller.close().await;
    answers.map_err(|error| match error {
        CallError::Late { address, .. } => CallError::Late { address, deadline },
        other => other,
    })
}

/// Whether no further answer follows to the same question.
fn is_last(answer: &Message) -> bool {
    !matches!(
        answer,
        Message::CommandAnswer(CommandAnswer::Replied { more: true, .. })
            | Message::NodesAnswer(NodesAnswer::Page { more: true, .. })
    )
}

/// Of a caller that has no better one.
pub fn node_name(role: Role) -> NodeName {
    let name = match role {
        Role::Balancer => "balancer-call",
        Role::Conn => "conn-call",
        Role::Logic => "logic-call",
        Role::Operator => "operator",
    };
    name.parse().expect("each is a node name")
}
