//! One question to one process, for commands that a person types.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::hub::{Hub, HubSettings};
use super::keys::Keys;
use super::message::{CommandAnswer, Message};
use super::peer::{LinkEvent, Role};
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
}

/// Dials `address` (host:port) as `role`, asks, and returns the answers, the final one last.
pub async fn call(
    address: &str,
    role: Role,
    keys: Keys,
    message: impl Into<Message>,
    deadline: Duration,
) -> Result<Vec<Message>, CallError> {
    let (events, mut heard) = mpsc::channel(64);
    let hub = Hub::new(HubSettings {
        role,
        node: node_name(role),
        keys,
        events,
        listen_publicly: false,
    });
    hub.dial(address.to_owned());
    let asking = ask(&hub, &mut heard, message.into(), deadline);
    let result = timeout(deadline, asking).await;
    hub.shutdown().await;
    match result {
        Ok(result) => result,
        Err(_) => Err(CallError::Late {
            address: address.to_owned(),
            deadline,
        }),
    }
}

async fn ask(
    hub: &Hub,
    heard: &mut mpsc::Receiver<LinkEvent>,
    message: Message,
    deadline: Duration,
) -> Result<Vec<Message>, CallError> {
    let mut question = Some(message);
    let mut answers = Vec::new();
    let mut peer_address = String::new();
    let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
    while let Some(event) = heard.recv().await {
        match event {
            LinkEvent::Up { link, peer } => {
                peer_address = peer.address.to_string();
                if let Some(message) = question.take() {
                    hub.request(link, 1, deadline_ms, message);
                }
            }
            LinkEvent::Answer { message, .. } => {
                let last = is_last(&message);
                answers.push(message);
                if last {
                    break;
                }
            }
            LinkEvent::Refused { address, why } => return Err(CallError::Refused { address, why }),
            LinkEvent::Down { why, .. } => {
                return Err(CallError::Broken {
                    address: peer_address,
                    why,
                });
            }
            LinkEvent::Request { .. } | LinkEvent::Notice { .. } => {}
        }
    }
    Ok(answers)
}

/// Whether no further answer follows to the same question.
fn is_last(answer: &Message) -> bool {
    !matches!(
        answer,
        Message::CommandAnswer(CommandAnswer::Replied { more: true, .. })
    )
}

fn node_name(role: Role) -> NodeName {
    let name = match role {
        Role::Balancer => "balancer-call",
        Role::Conn => "conn-call",
        Role::Logic => "logic-call",
        Role::Operator => "operator",
    };
    name.parse().expect("each is a node name")
}
