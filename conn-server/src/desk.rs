//! Pure. All that a login is judged with, and the replies that end one without a grant.

use common::ids::{AccountName, Nonce};
use common::link::LinkId;
use common::link::message::{Grant, GrantCheck};
use common::secret::DeviceKey;
use common::time::Now;
use protocols::rcu::frame;
use protocols::rcu::login::{LoginReply, LoginVerdict};
use rand::RngExt;
use rand::rngs::{SmallRng, StdRng};

use crate::account::LastLogin;
use crate::counters::{Counter, Counters};
use crate::directory::Directory;
use crate::epochs::Epochs;
use crate::nonces::Nonces;
use crate::pool::{NodePool, Reservation};
use crate::throttle::{Throttle, Throttled, Why};

/// A cluster that is full stays so for a while; one that stumbled does not.
const FULL_RETRY_MS: u32 = 10_000;
const BUSY_RETRY_MS: u32 = 2_000;

/// What logins are judged by, besides what the cluster knows.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub grant_ttl_ms: u32,
    pub clock_skew_max_ms: u64,
    /// A ticket admits from the address that logged in, and from no other.
    pub source_exact: bool,
    /// `None`: each logic server's own.
    pub heartbeat_s: Option<u16>,
}

/// All that a login is judged with.
#[derive(Debug)]
pub struct Desk {
    pub rules: Rules,
    pub throttle: Throttle,
    pub nonces: Nonces,
    pub pool: NodePool,
    pub directory: Directory,
    pub epochs: Epochs,
    pub counters: Counters,
    /// Cryptographically secure: nobody may guess a ticket.
    pub tickets: StdRng,
    pub waits: SmallRng,
}

/// What the login waits for next, or how it ended.
#[derive(Debug)]
pub enum Step {
    /// The account, until then.
    LookUp {
        account: AccountName,
        until_ms: u64,
    },
    /// A logic server, until then.
    Ask {
        reservation: Reservation,
        grant: Box<Grant>,
        until_ms: u64,
    },
    /// The same, whether a grant of it is still open.
    Check {
        link: LinkId,
        check: GrantCheck,
        until_ms: u64,
    },
    Reply(Reply),
}

#[derive(Debug)]
pub struct Reply {
    /// Of the LoginReply frame.
    pub body: Vec<u8>,
    /// Where it got a new grant.
    pub last_login: Option<LastLogin>,
    /// Why it was not let in, if it was not.
    pub why: Option<Counter>,
}

impl Reply {
    pub fn new(reply: &LoginReply<'_>) -> Self {
        // Balancers put the body into a frame with the device's id.
        let mut frame = Vec::with_capacity(frame::HEADER_BYTES + 128);
        reply.encode(0, &mut frame);
        frame.drain(..frame::HEADER_BYTES);
        Self {
            body: frame,
            last_login: None,
            why: None,
        }
    }
}

/// Replies that end a login without a grant; each counts its status and its reason.
impl Desk {
    pub fn malformed(&mut self, now: Now) -> Step {
        self.ends(&plain(LoginVerdict::Malformed, 0, now), None)
    }

    pub fn throttled(&mut self, throttled: Throttled, now: Now) -> Step {
        let why = match throttled.why {
            Why::Source => Counter::PacedSource,
            Why::InAll => Counter::PacedInAll,
            Why::WrongProofs => Counter::PacedWrongProofs,
        };
        let reply = plain(LoginVerdict::Busy, throttled.retry_after_ms, now);
        self.ends(&reply, Some(why))
    }

    pub fn busy(&mut self, why: Counter, now: Now) -> Step {
        let retry_after_ms = self.spread(BUSY_RETRY_MS);
        self.ends(&plain(LoginVerdict::Busy, retry_after_ms, now), Some(why))
    }

    pub fn full(&mut self, now: Now) -> Step {
        let retry_after_ms = self.spread(FULL_RETRY_MS);
        self.ends(&plain(LoginVerdict::Full, retry_after_ms, now), None)
    }

    pub fn refused(&mut self, why: Counter, now: Now) -> Step {
        self.ends(&plain(LoginVerdict::Refused, 0, now), Some(why))
    }

    pub fn disabled(&mut self, nonce: Nonce, key: &DeviceKey, now: Now) -> Step {
        self.ends(&LoginReply::disabled(0, now.unix_ms, nonce, key), None)
    }

    pub fn clock_skew(&mut self, nonce: Nonce, key: &DeviceKey, now: Now) -> Step {
        self.ends(&LoginReply::clock_skew(0, now.unix_ms, nonce, key), None)
    }

    /// `why`: where the status does not say all.
    fn ends(&mut self, reply: &LoginReply<'_>, why: Option<Counter>) -> Step {
        let status = Counter::of_status(reply.status());
        self.counters.count(status);
        if let Some(why) = why {
            self.counters.count(why);
        }
        let mut reply = Reply::new(reply);
        reply.why = Some(why.unwrap_or(status));
        Step::Reply(reply)
    }

    /// Between half and one and a half times as long, so that those who are sent away together do
    /// not come back together.
    fn spread(&mut self, wait_ms: u32) -> u32 {
        self.waits.random_range(wait_ms / 2..=wait_ms + wait_ms / 2)
    }
}

/// A reply that bears no proof.
fn plain(verdict: LoginVerdict<'static>, retry_after_ms: u32, now: Now) -> LoginReply<'static> {
    LoginReply {
        retry_after_ms,
        server_time_ms: now.unix_ms,
        verdict,
    }
}
