//! Pure. Who is at the other end of a link, what an owner hears of it, and who may say what.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::message::Message;
use crate::epoch::Epoch;
use crate::ids::NodeName;

/// What a process is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    Balancer,
    Conn,
    Logic,
    /// A person's command; has a key of its own.
    Operator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Balancer => "balancer",
            Self::Conn => "conn server",
            Self::Logic => "logic server",
            Self::Operator => "operator",
        })
    }
}

/// One established connection. A reconnect is a new id, so nothing of the old one can be taken for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The process at the other end, as its hello said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub role: Role,
    pub node: NodeName,
    /// The link version that both agreed on.
    pub version: u16,
    pub address: SocketAddr,
    /// What was dialled, as given to `Hub::dial`; `None` where the peer dialled.
    pub target: Option<String>,
}

/// What the owner of a hub hears, in the order in which it happened on a link, but for one thing:
/// control messages overtake bulk ones (see [`is_bulk`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    Up {
        link: LinkId,
        peer: Peer,
    },
    /// The last event of its link. Whatever was asked there is not going to be answered.
    Down {
        link: LinkId,
        why: String,
    },
    /// To be answered with the same id; several answers where the message says so.
    Request {
        link: LinkId,
        id: u64,
        /// How long the asker still waits, from now.
        deadline_ms: u32,
        message: Message,
        epoch: Epoch,
    },
    /// To a request of ours; its id may be one that the owner has given up.
    Answer {
        link: LinkId,
        id: u64,
        message: Message,
        epoch: Epoch,
    },
    Notice {
        link: LinkId,
        message: Message,
        epoch: Epoch,
    },
    /// An attempt that did not become a link, dialled or accepted. A dialled target is tried again.
    Refused {
        /// The target dialled, or the address that it came from.
        address: String,
        why: String,
    },
}

/// What kind of part a message plays in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Request,
    Answer,
    Notice,
}

/// Bulk messages keep their order among themselves and wait for control ones. `Attached` and
/// `Ended` are bulk because they must not overtake the page of `Adopt` that they come after.
pub(super) fn is_bulk(message: &Message) -> bool {
    matches!(
        message,
        Message::Adopt(_) | Message::Attached(_) | Message::Ended(_)
    )
}

/// Whether a process of role `from` may say this to one of role `to`. Whoever holds the operator's
/// key can send commands, and not play a conn server.
pub(super) fn may_send(from: Role, to: Role, class: Class, message: &Message) -> bool {
    use Role::{Balancer, Conn, Logic, Operator};
    match message {
        Message::Ping(_) => class == Class::Notice,
        Message::Login(_) => (class, from, to) == (Class::Request, Balancer, Conn),
        Message::LoginAnswer(_) => (class, from, to) == (Class::Answer, Conn, Balancer),
        Message::ConnLoad(_) => (class, from, to) == (Class::Notice, Conn, Balancer),
        Message::LogicInfo(_)
        | Message::LogicLoad(_)
        | Message::Adopt(_)
        | Message::Attached(_)
        | Message::Ended(_) => (class, from, to) == (Class::Notice, Logic, Conn),
        Message::Grant(_) | Message::Command(_) => {
            (class, from, to) == (Class::Request, Conn, Logic)
        }
        Message::GrantAnswer(_) => (class, from, to) == (Class::Answer, Logic, Conn),
        Message::End(_) | Message::Revoke(_) => (class, from, to) == (Class::Notice, Conn, Logic),
        Message::AccountCommand(_) => (class, from, to) == (Class::Request, Operator, Conn),
        Message::CommandAnswer(_) => {
            class == Class::Answer && matches!((from, to), (Logic, Conn) | (Conn, Operator))
        }
    }
}
