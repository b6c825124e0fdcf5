//! Pure. Who is at the other end of a link, what an owner hears of it, and who may say what.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

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

/// Who asked, and how long the answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub link: LinkId,
    /// The id of the request, of the asker's own.
    pub request: u64,
    /// By the asker's own word; monotonic, by the clock of who was asked.
    pub until_ms: u64,
}

impl Asker {
    /// `deadline_ms` as the request bears it.
    pub fn new(link: LinkId, request: u64, deadline_ms: u32, now_ms: u64) -> Self {
        Self {
            link,
            request,
            until_ms: now_ms + u64::from(deadline_ms),
        }
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
/// control messages overtake bulk ones (see `is_bulk`).
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
/// `Ended` are bulk because they must not overtake the page of `Adopt` that they come after. What
/// people look at is bulk because no login is to wait for it.
pub(super) fn is_bulk(message: &Message) -> bool {
    matches!(
        message,
        Message::Adopt(_)
            | Message::Attached(_)
            | Message::Ended(_)
            | Message::SessionPage(_)
            | Message::SessionsAnswer(_)
            | Message::Figures(_)
            | Message::NodesAnswer(_)
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
        Message::Grant(_) | Message::GrantCheck(_) | Message::Command(_) => {
            (class, from, to) == (Class::Request, Conn, Logic)
        }
        Message::GrantAnswer(_) | Message::GrantCheckAnswer(_) => {
            (class, from, to) == (Class::Answer, Logic, Conn)
        }
        Message::End(_) | Message::Revoke(_) => (class, from, to) == (Class::Notice, Conn, Logic),
        Message::AccountCommand(_) => (class, from, to) == (Class::Request, Operator, Conn),
        Message::CommandAnswer(_) => {
            class == Class::Answer && matches!((from, to), (Logic, Conn) | (Conn, Operator))
        }
        Message::NodesAsk(_)
        | Message::SessionsAsk(_)
        | Message::SessionAsk(_)
        | Message::KickAsk(_) => (class, from, to) == (Class::Request, Operator, Conn),
        Message::NodesAnswer(_)
        | Message::SessionsAnswer(_)
        | Message::SessionAnswer(_)
        | Message::SessionShown(_)
        | Message::KickAnswer(_) => (class, from, to) == (Class::Answer, Conn, Operator),
        Message::FiguresAsk(_) => {
            class == Class::Request && matches!((from, to), (Conn, Logic | Balancer))
        }
        Message::Figures(_) => {
            class == Class::Answer && matches!((from, to), (Logic | Balancer, Conn))
        }
        Message::SessionPageAsk(_) | Message::SessionCheck(_) | Message::Kick(_) => {
            (class, from, to) == (Class::Request, Conn, Logic)
        }
        Message::SessionPage(_)
        | Message::SessionCheckAnswer(_)
        | Message::SessionLooked(_)
        | Message::Kicked(_) => (class, from, to) == (Class::Answer, Logic, Conn),
    }
}

/// Whether the world may reach a socket bound to this address; "all addresses" count as public.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            let carrier = a == 100 && b & 0xC0 == 64;
            !(address.is_loopback() || address.is_private() || address.is_link_local() || carrier)
        }
        IpAddr::V6(address) => {
            !(address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_internal_networks_are_told_from_public_ones() {
        for (address, public) in [
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("172.31.0.1", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("::ffff:10.0.0.1", false),
            ("8.8.8.8", true),
            ("0.0.0.0", true),
            ("::", true),
            ("::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("2001:db8::1", true),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(is_public(parsed), public, "{address}");
        }
    }
}
