//! Pure. A Command to the device and the CommandReplies to it: one at a time under way.
//!
//! The asker waits until its deadline; the device is asked until it has answered. So a command
//! whose asker gave up is still under way: another one is `Busy`, and only the same command,
//! sent again, joins it and gets its replies.

use common::device::command::{Command, CommandId, CommandReply};
use common::device::frame::FRAME_BYTES_TO_DEVICE_MAX;
use common::link::message::{CommandAnswer, Order};

use super::Shard;
use super::asker::{Asker, Pending};
use super::effects::{Answer, Effects};
use super::session::{Session, Turn};
use crate::counters::{Counter, Counters};
use crate::ids::{Now, SessionId};

impl Session {
    /// A reply that fits no command under way is ignored.
    pub(super) fn command_reply(
        &mut self,
        frame_id: u16,
        reply: &CommandReply<'_>,
        turn: &mut Turn<'_>,
    ) {
        let fits = |pending: &&mut Box<Pending>| {
            (pending.frame_id, pending.command_id) == (frame_id, reply.command_id)
        };
        let Some(pending) = self.command.as_mut().filter(fits) else {
            turn.counters.count(Counter::CommandReplyIgnored);
            return;
        };
        turn.counters.count(Counter::CommandReplied);
        if let Some(asker) = pending.asker {
            let answer = CommandAnswer::Replied {
                status: reply.status.code(),
                more: reply.more,
                payload: reply.payload.to_vec(),
            };
            turn.effects.answer(asker, answer);
        }
        if !reply.more {
            self.command = None;
        }
    }

    /// Tells the asker whose deadline has passed.
    pub(super) fn expire_command(
        &mut self,
        now: Now,
        counters: &mut Counters,
        effects: &mut Effects,
    ) {
        let asker = self.command.as_mut().and_then(|pending| {
            pending
                .asker
                .take_if(|asker| asker.deadline_at_ms <= now.ms)
        });
        if let Some(asker) = asker {
            counters.count(Counter::CommandExpired);
            effects.answer(asker, CommandAnswer::Expired);
        }
    }

    /// The session is over: a repeat of the command, elsewhere, fetches the reply.
    pub(super) fn lose_command(self, counters: &mut Counters, effects: &mut Effects) {
        if let Some(asker) = self.command.and_then(|pending| pending.asker) {
            counters.count(Counter::CommandLost);
            effects.answer(asker, CommandAnswer::Lost);
        }
    }

    /// The next id for a Command; never 0.
    fn next_command_frame_id(&mut self) -> u16 {
        self.command_frame_id = self.command_frame_id.checked_add(1).unwrap_or(1);
        self.command_frame_id
    }
}

impl Shard {
    pub(super) fn command(
        &mut self,
        session: SessionId,
        asker: Asker,
        order: &Order,
        now: Now,
        effects: &mut Effects,
    ) {
        if let Err(answer) = self.send_command(session, asker, order, now, effects) {
            self.counters.count(match answer {
                CommandAnswer::Busy => Counter::CommandBusy,
                CommandAnswer::Expired => Counter::CommandExpired,
                CommandAnswer::TooLarge => Counter::CommandTooLarge,
                _ => Counter::CommandNotAttached,
            });
            effects.answer(asker, answer);
        }
    }

    fn send_command(
        &mut self,
        session: SessionId,
        asker: Asker,
        order: &Order,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), CommandAnswer> {
        let slot = *self.slots.get(&session).ok_or(CommandAnswer::NotAttached)?;
        let session = self
            .sessions
            .get_mut(slot.index())
            .and_then(Option::as_mut)
            .ok_or(CommandAnswer::NotAttached)?;
        if order.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(CommandAnswer::TooLarge);
        }
        let begun_too_late = order.deadline_ms != 0 && now.unix_ms > order.deadline_ms;
        if begun_too_late || asker.deadline_at_ms <= now.ms {
            return Err(CommandAnswer::Expired);
        }
        let command_id = CommandId(order.command_id);
        match &mut session.command {
            Some(pending) if pending.command_id == command_id && pending.asker.is_none() => {
                pending.asker = Some(asker);
            }
            Some(_) => return Err(CommandAnswer::Busy),
            None => {
                let frame_id = session.next_command_frame_id();
                let command = Command {
                    command_id,
                    deadline_ms: order.deadline_ms,
                    code: order.code,
                    payload: &order.payload,
                };
                effects.send(slot, |out| command.encode(frame_id, out));
                self.counters.count(Counter::CommandSent);
                session.command = Some(Box::new(Pending {
                    command_id,
                    frame_id,
                    asker: Some(asker),
                }));
            }
        }
        self.wheel.arm(slot.0, session.next_timer_ms());
        Ok(())
    }
}

/// Header, command_id, deadline_ms, code and the payload's own length take the rest of a frame.
const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_TO_DEVICE_MAX - 12 - 8 - 8 - 2 - 2;

impl Effects {
    fn answer(&mut self, to: Asker, answer: CommandAnswer) {
        self.answers.push(Answer {
            link: to.link,
            request: to.request,
            answer,
        });
    }
}
