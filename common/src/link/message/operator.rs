//! Pure. What operators ask of a conn server, and what the tiers tell one another for it: nodes,
//! sessions, and to close one.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::epoch::Epoch;
use crate::ids::{AccountId, AccountName, NodeName};
use crate::link::peer::Role;

/// Request, operator → conn server: which processes it is linked to, itself included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesAsk;

/// Answer to [`NodesAsk`]; several while `more` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodesAnswer {
    /// At most [`NODES_PAGE_MAX`]. The conn server comes first, then its logic servers in the order
    /// of the configuration, then the balancers.
    Page { nodes: Vec<NodeView>, more: bool },
    /// Too many ask at once.
    Busy,
}

/// Nodes in one [`NodesAnswer`]: with all their figures they fit a message.
pub const NODES_PAGE_MAX: usize = 16;

/// A process of the cluster, as the conn server that was asked knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub role: Role,
    /// `None`: it is not linked; or it is the conn server itself, whose hello said it.
    pub name: Option<NodeName>,
    /// Where the link to it is dialled, or where it dialled from.
    pub link: String,
    pub state: NodeState,
    /// The version of the link; 0 where there is none.
    pub link_version: u16,
    /// Of a conn server: the sum of its logic servers that take grants. Of a balancer: nothing.
    pub places: Option<Places>,
    /// `None`: it did not answer in time, or speaks an older version of the link.
    pub figures: Option<Figures>,
}

/// What can be done with a node now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Linked, and doing its work.
    Up,
    /// No link stands.
    Down,
    /// A logic server that has not yet listed all that it holds.
    Adopting,
    /// A logic server that left a grant unanswered.
    Silent,
    /// A logic server that takes no grants any more.
    Draining,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    pub used: u32,
    pub max: u32,
}

/// Request, conn server → balancer and logic server: what it counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiguresAsk;

/// Answer to [`FiguresAsk`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The release that runs there.
    pub software: String,
    pub uptime_ms: u64,
    /// Where devices reach it; at most [`FIGURE_ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// Counters since the start, and gauges, by the names that its metrics have; at most
    /// [`FIGURES_MAX`], with names of at most [`FIGURE_NAME_BYTES_MAX`].
    pub values: Vec<(String, u64)>,
}

pub const FIGURE_ADDRESSES_MAX: usize = 16;
pub const FIGURES_MAX: usize = 256;
pub const FIGURE_NAME_BYTES_MAX: usize = 64;

impl Figures {
    /// Those of this release.
    pub fn new<'n>(
        uptime_ms: u64,
        addresses: Vec<SocketAddr>,
        values: impl IntoIterator<Item = (&'n str, u64)>,
    ) -> Self {
        let values = values.into_iter();
        Self {
            software: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms,
            addresses,
            values: values
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }

    /// Within the bounds: a peer of another version may have more to say than fits a page.
    pub fn bounded(mut self) -> Self {
        let fits = |text: &str| text.len() <= FIGURE_NAME_BYTES_MAX;
        if !fits(&self.software) {
            self.software.clear();
        }
        self.addresses.truncate(FIGURE_ADDRESSES_MAX);
        self.values.retain(|(name, _)| fits(name));
        self.values.truncate(FIGURES_MAX);
        self
    }

    /// The figure of this name.
    pub fn value(&self, name: &str) -> Option<u64> {
        let mut values = self.values.iter();
        values
            .find(|(other, _)| other == name)
            .map(|(_, value)| *value)
    }
}

/// Request, operator → conn server: a page of the sessions on its logic servers, node by node, and
/// on a node in the order of account ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsAsk {
    /// Those on this logic server alone.
    pub node: Option<NodeName>,
    /// `next` of the page before.
    pub from: Option<SessionCursor>,
    /// At most [`SESSIONS_PAGE_MAX`], and more is taken for it.
    pub limit: u32,
}

/// Sessions in one page.
pub const SESSIONS_PAGE_MAX: u32 = 1_000;

/// Where a page of sessions begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCursor {
    /// The logic server's place in the configuration of the conn server.
    pub node: u16,
    /// Accounts after this one.
    pub after: Option<AccountId>,
}

/// Answer to [`SessionsAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionsAnswer {
    Page {
        /// On this node; `None`: there is no session, and no node to ask.
        node: Option<NodeName>,
        sessions: Vec<SessionView>,
        /// `None`: this is the last page.
        next: Option<SessionCursor>,
    },
    /// No logic server of this name is linked.
    UnknownNode,
    /// Too many ask at once.
    Busy,
    /// This logic server did not answer, or its link broke.
    NoAnswer(NodeName),
    /// This logic server is of an older version.
    Unsupported(NodeName),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    pub account_id: AccountId,
    /// `None`: the accounts could not be read, or it was removed just now.
    pub account: Option<AccountName>,
    pub epoch: Epoch,
}

/// Request, conn server → logic server: its current sessions, in the order of account ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPageAsk {
    pub after: Option<AccountId>,
    /// At most [`SESSIONS_PAGE_MAX`], and more is taken for it.
    pub limit: u32,
}

/// Answer to [`SessionPageAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPage {
    pub sessions: Vec<(AccountId, Epoch)>,
    /// There are no more after these.
    pub last: bool,
}

/// Request, operator → conn server: the account's session, looked at where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionAsk {
    pub account: AccountName,
}

/// Answer to [`SessionAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionShown {
    Session {
        account_id: AccountId,
        node: NodeName,
        look: SessionLook,
    },
    No(NoSession),
}

/// The same, of link version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionAnswer {
    Session {
        account_id: AccountId,
        node: NodeName,
        state: SessionState,
    },
    No(NoSession),
}

/// Why nothing can be said of an account's session, or done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoSession {
    UnknownAccount,
    /// The account has no session on the logic servers of the conn server.
    NotAttached,
    /// The accounts cannot be read, or too many ask at once.
    Busy,
    /// The logic server was lost, or did not answer: what was asked may have been done or not.
    NoAnswer,
    /// The logic server is of an older version.
    Unsupported,
}

impl NoSession {
    /// As logs and JSON have it.
    pub const fn outcome(self) -> &'static str {
        match self {
            Self::UnknownAccount => "unknown_account",
            Self::NotAttached => "not_attached",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Unsupported => "unsupported",
        }
    }
}

/// Request, conn server → logic server: the account's current session here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCheck {
    pub account_id: AccountId,
}

/// Answer to [`SessionCheck`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLooked {
    /// `None`: there is none here.
    pub look: Option<SessionLook>,
}

/// A session at this moment; `None`: its logic server is of link version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLook {
    pub state: SessionState,
    /// When its device was attached, by the clock of the logic server; to the second.
    pub attached_unix_ms: Option<u64>,
    /// Its records whose number and time were used before, for something else.
    pub contradicting: Option<u64>,
}

impl From<SessionState> for SessionLook {
    fn from(state: SessionState) -> Self {
        Self {
            state,
            attached_unix_ms: None,
            contradicting: None,
        }
    }
}

/// Answer to [`SessionCheck`], of link version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCheckAnswer {
    /// `None`: there is none here.
    pub state: Option<SessionState>,
}

/// What of a session link version 2 has as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    pub epoch: Epoch,
    /// The device's address; `None`: it went just now.
    pub source: Option<SocketAddr>,
    pub heartbeat_s: u16,
    /// Since its last whole frame.
    pub silent_ms: u64,
    /// Telemetry frames that wait for the database.
    pub unanswered: u16,
    /// A command is under way.
    pub command: bool,
}

/// Request, operator → conn server: close the account's session; the device may log in again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KickAsk {
    pub account: AccountName,
}

/// Answer to [`KickAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KickAnswer {
    /// The device is told `Close(replaced)`: it drops what it could resume with, and logs in.
    Kicked {
        node: NodeName,
        epoch: Epoch,
    },
    No(NoSession),
}

/// Request, conn server → logic server: close the account's current session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kick {
    pub account_id: AccountId,
}

/// Answer to [`Kick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kicked {
    /// Of the session that is closed; `None`: there was none.
    pub epoch: Option<Epoch>,
}
