//! Pure. What the tiers say to one another, each message with a number of its own.
//!
//! bincode does not evolve: a changed message is a new number, and the old one stays for as long as
//! version N−1 may be on the other side.

mod older;
mod operator;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::epoch::Epoch;
use crate::ids::{AccountId, AccountName, Ticket};
use crate::secret::SessionKey;

pub use operator::*;

/// Declares every message with its number and the first version of the link that has it; `Message` knows its
/// own number both ways.
macro_rules! messages {
    ($($number:literal $name:ident since $version:literal,)*) => {
        /// One message between two processes of the cluster.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Message { $($name($name),)* }

        $(impl From<$name> for Message {
            fn from(message: $name) -> Self { Self::$name(message) }
        })*

        impl Message {
            /// The first link version that has it; an older peer would break the link off.
            pub fn since_version(&self) -> u16 {
                match self { $(Self::$name(_) => $version,)* }
            }
        }

        /// Hands each message to `$apply` as (number, type): the codec is written once for all.
        macro_rules! for_each_link_message {
            ($apply:ident) => { $apply! { $($number $name,)* } };
        }
    };
}

messages! {
    1 Ping since 1,
    10 Login since 1,
    11 LoginAnswer since 1,
    12 ConnLoad since 1,
    20 LogicInfo since 1,
    21 Grant since 1,
    22 GrantAnswer since 1,
    23 LogicLoad since 1,
    24 Adopt since 1,
    25 Attached since 1,
    26 Ended since 1,
    27 End since 1,
    28 Revoke since 1,
    29 GrantCheck since 1,
    30 Command since 1,
    31 CommandAnswer since 1,
    32 AccountCommand since 1,
    33 GrantCheckAnswer since 1,
    40 NodesAsk since 2,
    41 NodesAnswer since 2,
    42 FiguresAsk since 2,
    43 Figures since 2,
    44 SessionsAsk since 2,
    45 SessionsAnswer since 2,
    46 SessionPageAsk since 2,
    47 SessionPage since 2,
    48 SessionAsk since 2,
    49 SessionAnswer since 2,
    50 SessionCheck since 2,
    51 SessionCheckAnswer since 2,
    52 KickAsk since 2,
    53 KickAnswer since 2,
    54 Kick since 2,
    55 Kicked since 2,
    56 SessionShown since 3,
    57 SessionLooked since 3,
}

/// Either way, when nothing else was said for a second: a silent peer is a dead one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping;

// ---- balancer ↔ conn server -------------------------------------------------------------------

/// Request, balancer → conn server: a device's Login as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The device's address; an IPv4-mapped one is already an IPv4 address.
    pub source: IpAddr,
    /// The body of the Login frame, at most 500 bytes: the proof is over these very bytes.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// Answer to [`Login`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginAnswer {
    /// The body of the LoginReply frame, ready to be framed.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// Notice, conn server → balancer, on change and each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnLoad {
    /// Places free on all its logic servers that take grants.
    pub places_free: u32,
    /// Places of those logic servers in all; 0: it has none, and every login would be `full`.
    pub places_max: u32,
    /// Logins that it is deciding now.
    pub logins_open: u32,
}

// ---- conn server ↔ logic server ---------------------------------------------------------------

/// Notice, logic server → conn server, first after the hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicInfo {
    /// Where devices reach it: at most one address per family.
    pub advertise: Vec<SocketAddr>,
    pub load: LogicLoad,
}

/// Open grants of an account, on a node and as far as a conn server knows; one more, and the one of the lowest
/// epoch is dropped.
pub const GRANTS_PER_ACCOUNT_MAX: usize = 4;

/// Request, conn server → logic server: let this account in, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub account_id: AccountId,
    pub account: AccountName,
    /// The account's version when it was looked up; a [`Revoke`] names the versions that it ends.
    pub account_version: u32,
    pub session_key: SessionKey,
    pub ticket: Ticket,
    /// The only address that may use it; `None`: any (source_check off).
    pub source: Option<IpAddr>,
    pub epoch: Epoch,
    /// From its receipt, by the receiver's monotonic clock.
    pub ttl_ms: u32,
    /// `None`: the logic server's own setting.
    pub heartbeat_s: Option<u16>,
}

/// Answer to [`Grant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantAnswer {
    pub verdict: GrantVerdict,
    pub load: LogicLoad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantVerdict {
    Granted,
    /// Every place is in use, and none by this account.
    Full,
    /// It takes no grants any more.
    Draining,
}

/// Request, conn server → logic server: is the grant of this epoch still open? What
/// [`Attached`] and [`Ended`] say of it may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantCheck {
    pub account_id: AccountId,
    pub epoch: Epoch,
}

/// Answer to [`GrantCheck`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantCheckAnswer {
    pub is_open: bool,
}

/// Notice, logic server → conn server, on change and each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicLoad {
    /// Accounts that have a session or an open grant on the node, each once.
    pub places_used: u32,
    pub places_max: u32,
    pub draining: bool,
}

/// Notice, logic server → conn server, bulk: a page of what the node holds, after the hello.
/// What is attached or ended meanwhile is told as usual, behind the page that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopt {
    /// At most [`ADOPT_PAGE_MAX`].
    pub sessions: Vec<Held>,
    /// At most [`ADOPT_PAGE_MAX`].
    pub grants: Vec<Held>,
    /// The last page: what the conn server knew of the node and was not listed is gone.
    pub last: bool,
}

/// Sessions, and grants, in one page of [`Adopt`].
pub const ADOPT_PAGE_MAX: usize = 1_000;

/// A session or an open grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub account_id: AccountId,
    pub epoch: Epoch,
    pub account_version: u32,
}

/// Notice, logic server → conn server: sessions that began, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub sessions: Vec<Held>,
}

/// Notice, logic server → conn server: sessions that ended, and grants that expired or were dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub sessions: Vec<(AccountId, Epoch)>,
    pub grants: Vec<(AccountId, Epoch)>,
}

/// Notice, conn server → logic server: a newer session lives elsewhere; close this one `replaced`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub account_id: AccountId,
    /// Sessions with an epoch below this one.
    pub below: Epoch,
}

/// Notice, conn server → logic server: the account changed; its session and its open grants of
/// older versions end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    pub account_id: AccountId,
    /// Ends what was granted under a version below this one; `u32::MAX`: the account was removed.
    pub below_version: u32,
    pub why: RevokeReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevokeReason {
    /// Switched off or removed: `Close(disabled)`.
    Disabled,
    /// A new key: `Close(replaced)`.
    KeyRotated,
}

// ---- commands ---------------------------------------------------------------------------------

/// Request, conn server → logic server: a command for the account's current session here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub account_id: AccountId,
    pub order: Order,
}

/// Request, operator → conn server, which finds the account's session and routes it on as [`Command`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountCommand {
    pub account: AccountName,
    pub order: Order,
}

/// What the device is told, as in the contract's Command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub command_id: u64,
    /// Unix milliseconds by the cluster's clock; 0: none.
    pub deadline_ms: u64,
    pub code: u16,
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// Answer to [`Command`] and [`AccountCommand`]; several where `Replied.more` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandAnswer {
    Replied {
        /// As in the contract's CommandReply: 0 ok · 1 failed · 2 unsupported · 3 busy · 4 expired.
        status: u8,
        more: bool,
        #[serde(with = "serde_bytes")]
        payload: Vec<u8>,
    },
    /// The account has no session here.
    NotAttached,
    /// Another command of the session is under way.
    Busy,
    /// The session ended before the final reply; a repeat of the same id fetches it.
    Lost,
    /// The deadline passed before the device answered.
    Expired,
    /// The payload does not fit a frame to a device.
    TooLarge,
}
