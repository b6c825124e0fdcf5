//! Pure. What operators had done to sessions, for the log: whatever came of it, each is one line.

use std::net::SocketAddr;

use common::ids::{AccountName, NodeName};
use common::link::message::{KickAnswer, Message};
use protocols::rcu::command;

/// What an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// By its own word in the hello of its link, and where that came from; `None`: the link is gone.
    pub operator: Option<(NodeName, SocketAddr)>,
    pub account: AccountName,
    pub act: Act,
    /// The logic server that was asked; `None`: it did not come to that.
    pub node: Option<NodeName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Kick,
    Command { command_id: u64, code: u16 },
}

/// What came of it, by the last answer to the operator, in the words of `rcu session kick --json` and
/// `rcu command send --json`; `None`: it is no answer to a deed.
pub fn outcome(answer: &Message) -> Option<&'static str> {
    match answer {
        Message::CommandAnswer(answer) => Some(command::outcome(answer)),
        Message::KickAnswer(KickAnswer::Kicked { .. }) => Some("kicked"),
        Message::KickAnswer(KickAnswer::No(why)) => Some(why.outcome()),
        _ => None,
    }
}
