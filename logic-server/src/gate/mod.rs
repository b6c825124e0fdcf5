//! Pure. Who may come in: grants, tickets, places, and connections that are not attached yet.

use std::net::{IpAddr, SocketAddr};

use common::device::code::CloseReason;
use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::LinkId;
use common::link::message::{Command, End, Grant, Message, Order, Revoke};

use crate::counters::Counters;
use crate::ids::{ConnId, Now, SessionId, ShardIndex};
use crate::shard::SessionSeed;

/// How many may come in, and how long they may take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Loops that take sessions; at least 1.
    pub shards: u16,
    /// Accounts with a session or an open grant, each once.
    pub places_max: u32,
    /// Connections that are not attached; beyond it the oldest is dropped.
    pub pending_max: usize,
    /// From the accept to the whole Attach.
    pub first_frame_ms: u64,
    /// Where a grant does not say.
    pub heartbeat_s: u16,
    /// Where devices reach this node, one address per family.
    pub advertise: Vec<SocketAddr>,
    /// Devices that are sent away at shutdown are told to come back within this time, spread evenly.
    pub shutdown_spread_ms: u32,
}

/// What happens to the gate.
#[derive(Debug)]
pub enum Input<'a> {
    /// A device connected.
    Accepted {
        conn: ConnId,
        source: IpAddr,
    },
    /// Bytes of a connection that is not attached. The driver reads at most
    /// [`READ_BYTES_MAX`] of it in all.
    Received {
        conn: ConnId,
        bytes: &'a [u8],
    },
    /// The device went.
    Disconnected {
        conn: ConnId,
    },
    /// A link to a conn server is up: it is told who this is and what it holds.
    LinkUp {
        link: LinkId,
    },
    LinkDown {
        link: LinkId,
    },
    Grant {
        link: LinkId,
        request: u64,
        grant: Grant,
    },
    End(End),
    Revoke(Revoke),
    Command {
        link: LinkId,
        request: u64,
        command: Command,
        deadline_ms: u32,
    },
    /// A shard let go of a session.
    SessionEnded {
        account_id: AccountId,
        epoch: Epoch,
    },
    /// No grants and no sessions any more.
    Shutdown,
    /// The end of a turn, and [`Core::next_deadline`] has come.
    Tick,
}

/// A byte more than the contract allows before AttachReply: enough to see that there is more.
pub const READ_BYTES_MAX: usize = common::device::frame::FRAME_BYTES_BEFORE_ATTACH_MAX + 1;

/// What the gate asks for.
#[derive(Debug)]
pub enum Effect {
    /// Send this (nothing, where it is empty), linger, close. The gate has forgotten the connection.
    Refuse {
        conn: ConnId,
        reply: Vec<u8>,
    },
    /// The connection is this shard's from now on, with what was read of it and not looked at.
    Admit {
        conn: ConnId,
        shard: ShardIndex,
        seed: SessionSeed,
        unread: Vec<u8>,
    },
    /// To a shard: close this session.
    EndSession {
        shard: ShardIndex,
        session: SessionId,
        reason: CloseReason,
        retry_after_ms: u32,
    },
    /// To a shard: send this to the device.
    CommandTo {
        shard: ShardIndex,
        session: SessionId,
        link: LinkId,
        request: u64,
        order: Order,
        deadline_at_ms: u64,
    },
    Answer {
        link: LinkId,
        request: u64,
        message: Message,
    },
    Notice {
        link: LinkId,
        message: Message,
    },
    /// A notice to every conn server.
    Broadcast {
        message: Message,
    },
}

/// The node's gate.
pub struct Core {
    settings: Settings,
    counters: Counters,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

impl Core {
    /// `seed` governs the spread of retry times.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let _ = seed;
        Self {
            settings,
            counters: Counters::default(),
        }
    }

    pub fn apply(&mut self, input: Input<'_>, now: Now, effects: &mut Vec<Effect>) {
        let _ = (&self.settings, input, now, effects);
    }

    /// When [`Input::Tick`] is due; monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        None
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
