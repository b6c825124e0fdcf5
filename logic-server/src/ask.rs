//! Pure. What is asked of an account's session: carried from the link to the session as it came, and answered from
//! there.
//!
//! ```text
//! link ── Ask ──▶ gate: which session? ── Ask ──▶ shard ── Answer ──▶ link
//!                  ╰── none: Ask::unattached ── Answer ──▶ link
//! ```
//!
//! A new question is a variant here and what the shard makes of it; nobody on the way knows it.

use std::net::SocketAddr;

use common::ids::AccountId;
use common::link::message::{
    Command, CommandAnswer, Kick, Kicked, Message, Order, SessionCheck, SessionLooked,
};
use common::link::{Asker, LinkId};

use crate::counters::{Counter, Counters};
use crate::ids::Slot;

/// A question of a conn server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub asker: Asker,
    pub account_id: AccountId,
    pub question: Question,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Have the device do this.
    Command(Order),
    /// What of the session can be seen?
    Look,
    /// Close it, for an operator: the device is to log in anew.
    Kick,
}

impl Ask {
    /// # Errors
    /// It asks nothing of a session: the message, as it came.
    pub fn of(asker: Asker, message: Message) -> Result<Self, Message> {
        let (account_id, question) = match message {
            Message::Command(Command { account_id, order }) => {
                (account_id, Question::Command(order))
            }
            Message::SessionCheck(SessionCheck { account_id }) => (account_id, Question::Look),
            Message::Kick(Kick { account_id }) => (account_id, Question::Kick),
            message => return Err(message),
        };
        Ok(Self {
            asker,
            account_id,
            question,
        })
    }

    /// The account has no session here.
    pub(crate) fn unattached(&self, counters: &mut Counters) -> Answer {
        let message: Message = match self.question {
            Question::Command(_) => {
                counters.count(Counter::CommandNotAttached);
                CommandAnswer::NotAttached.into()
            }
            Question::Look => SessionLooked { look: None }.into(),
            Question::Kick => Kicked { epoch: None }.into(),
        };
        Answer::new(self.asker, message)
    }
}

/// To whoever asked; several to one question where it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub link: LinkId,
    pub request: u64,
    pub message: Message,
    /// A look says what is at the other end of this slot's socket, which the kernel knows and no core.
    pub looked_at: Option<Slot>,
}

impl Answer {
    pub fn new(to: Asker, message: impl Into<Message>) -> Self {
        Self {
            link: to.link,
            request: to.request,
            message: message.into(),
            looked_at: None,
        }
    }

    /// What the driver adds before it is sent.
    pub fn see(&mut self, source_of: impl FnOnce(Slot) -> Option<SocketAddr>) {
        if let (Some(slot), Message::SessionLooked(looked)) = (self.looked_at, &mut self.message)
            && let Some(look) = &mut looked.look
        {
            look.state.source = source_of(slot);
        }
    }
}
