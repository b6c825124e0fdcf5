//! The processes of the simulated cluster: who they are, how far each one's life is, and what comes
//! to them.

use std::collections::VecDeque;
use std::fmt;

use common::link::{LinkId, Role};
use logic_server::batch::Batch;
use logic_server::writer::{Work, WriteResult};

use crate::clock::Clock;
use crate::conn::ConnMail;
use crate::links::LinkMail;
use crate::logic::{GateMail, ShardMail};
use crate::network::Stream;
use crate::shutdown::Ending;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    Balancer,
    Conn,
    Logic,
}

/// A process by its place in the configuration; the same one before and after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    pub tier: Tier,
    pub index: usize,
}

impl Process {
    pub const fn balancer(index: usize) -> Self {
        let tier = Tier::Balancer;
        Self { tier, index }
    }

    pub const fn conn(index: usize) -> Self {
        let tier = Tier::Conn;
        Self { tier, index }
    }

    pub const fn logic(index: usize) -> Self {
        let tier = Tier::Logic;
        Self { tier, index }
    }

    /// On its links.
    pub const fn role(self) -> Role {
        match self.tier {
            Tier::Balancer => Role::Balancer,
            Tier::Conn => Role::Conn,
            Tier::Logic => Role::Logic,
        }
    }
}

/// The name by which the others know it.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tier = match self.tier {
            Tier::Balancer => "balancer",
            Tier::Conn => "conn",
            Tier::Logic => "logic",
        };
        write!(f, "{tier}-{}", self.index + 1)
    }
}

/// How far a process's life is. One that was killed comes again in the next generation; what was
/// meant for the old one finds nobody.
#[derive(Debug, Default)]
pub struct Life {
    pub generation: u32,
    pub is_up: bool,
    /// It was told to end, and says goodbye.
    pub is_closing: bool,
    pub clock: Clock,
    /// When it last went on after it was stopped.
    pub went_on_ms: Option<u64>,
    pub pause: Option<Pause>,
}

/// A process was stopped; what came to it since waits in the kernel and in its mailboxes.
#[derive(Debug)]
pub struct Pause {
    pub began_ms: u64,
    /// It goes on, and works off what waits.
    pub is_over: bool,
    pub held: VecDeque<Mail>,
}

impl Life {
    /// A process that is down, on a host whose wall clock is so far ahead.
    pub fn on_host(ahead_ms: i64) -> Self {
        let clock = Clock {
            ahead_ms,
            ..Clock::default()
        };
        Self {
            clock,
            ..Self::default()
        }
    }

    /// Up, and not stopped, behind or about to end.
    pub fn runs(&self) -> bool {
        self.is_up && !self.is_closing && self.pause.is_none()
    }

    /// It was not stopped for so long, nor is it behind.
    pub fn runs_since(&self, for_ms: u64, now_ms: u64) -> bool {
        let went_on = self.went_on_ms.is_none_or(|at_ms| now_ms >= at_ms + for_ms);
        self.pause.is_none() && went_on
    }

    /// Whether news of this connection waits until the process goes on.
    pub fn holds(&self, of: Stream) -> bool {
        let held = self.pause.iter().flat_map(|pause| &pause.held);
        let mut streams = held.filter_map(|mail| match mail {
            Mail::Stream { stream } => Some(*stream),
            _ => None,
        });
        streams.any(|stream| stream == of)
    }

    pub fn is_stopped(&self) -> bool {
        self.pause.as_ref().is_some_and(|pause| !pause.is_over)
    }

    /// Until when its loops have read what came to them.
    pub fn read_until_ms(&self, now_ms: u64) -> u64 {
        self.pause.as_ref().map_or(now_ms, |pause| pause.began_ms)
    }

    pub fn is_current(&self, generation: u32) -> bool {
        self.is_up && self.generation == generation
    }
}

/// A thread or task of a process that has a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Thread {
    /// The only one of a balancer and of a conn server.
    Main,
    Gate,
    Shard(usize),
    Writer,
}

/// Everything that can come to a process.
#[derive(Debug)]
pub enum Mail {
    /// A timer has come.
    Wake(Thread),
    /// Somebody has connected.
    Accept {
        stream: Stream,
    },
    /// Its end of a stream is worth a look.
    Stream {
        stream: Stream,
    },
    Link {
        link: LinkId,
        mail: Box<LinkMail>,
    },
    /// Time to link to this process.
    Dial {
        to: Process,
    },
    /// It is told to end, or has had the time for it.
    End(Ending),
    /// From the database, to a conn server.
    Conn(Box<ConnMail>),
    /// Between the threads of a logic server.
    Gate(GateMail),
    Shard {
        shard: usize,
        mail: Box<ShardMail>,
    },
    Batch(Box<Batch>),
    /// From the database, to the writer of a logic server.
    Written {
        work: Box<Work>,
        result: WriteResult,
    },
}

/// What keeps its order among itself: a connection, a mailbox, a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Timer(Thread),
    Stream(Stream),
    Link(LinkId),
    Dial(Process),
    Signals,
    Database,
    Gate,
    Shard(usize),
    Batches,
}

impl Mail {
    pub fn lane(&self) -> Lane {
        match self {
            Self::Wake(thread) => Lane::Timer(*thread),
            Self::Accept { stream } | Self::Stream { stream, .. } => Lane::Stream(*stream),
            Self::Link { link, .. } => Lane::Link(*link),
            Self::End(_) => Lane::Signals,
            Self::Dial { to } => Lane::Dial(*to),
            Self::Conn(_) | Self::Written { .. } => Lane::Database,
            Self::Gate(_) => Lane::Gate,
            Self::Shard { shard, .. } => Lane::Shard(*shard),
            Self::Batch(_) => Lane::Batches,
        }
    }
}
