//! Pure. What a conn server wants done, and whom it owes an answer.

use std::net::IpAddr;

use common::epoch::Epoch;
use common::ids::{AccountId, AccountName};
use common::link::message::{Held, Message};
use common::link::{Asker, LinkId};

use crate::account::LastLogin;
use crate::audit::Deed;
use crate::counters::Counter;

/// What a conn server wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    Request {
        link: LinkId,
        id: u64,
        deadline_ms: u32,
        message: Message,
    },
    Answer {
        link: LinkId,
        id: u64,
        message: Message,
    },
    Notice {
        link: LinkId,
        message: Message,
    },
    /// The peer cannot be worked with; a person has to see why.
    CloseLink {
        link: LinkId,
        why: &'static str,
    },
    LookUp {
        id: u64,
        account: AccountName,
    },
    /// Compare what a node holds with the accounts of now: they may have changed while it was cut off.
    CheckVersions {
        link: LinkId,
        held: Vec<Held>,
    },
    /// Their names, for somebody who looks at a list.
    Names {
        id: u64,
        accounts: Vec<AccountId>,
    },
    StoreMark(Epoch),
    NoteLastLogin(LastLogin),
    /// For whoever looks for one device: why this login was not let in. `None`: it named no account.
    Explain {
        account: Option<AccountName>,
        source: IpAddr,
        why: Counter,
    },
    /// For whoever asks later who did that.
    Audit {
        deed: Box<Deed>,
        outcome: &'static str,
    },
}

impl Effect {
    pub fn answer(to: &Asker, message: impl Into<Message>) -> Self {
        Self::Answer {
            link: to.link,
            id: to.request,
            message: message.into(),
        }
    }
}
