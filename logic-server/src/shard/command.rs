//! Pure. A Command to the device and the CommandReplies to it: one at a time under way.
//!
//! It is under way until the device has answered or its asker has given up: then another may be sent, which a
//! device that is still at the former answers with `busy`, and the former may be sent again, to fetch its
//! reply. A reply is known by its command_id: to a repeat of what it still does, the device says what it has
//! to say under the frame id that it was asked with first.

use common::device::command::{Command, CommandId, CommandReply};
use common::device::frame::FRAME_BYTES_TO_DEVICE_MAX;
use common::link::message::{CommandAnswer, Order};
use common::time::Now;

use super::Shard;
use super::asker::{Asker, UnderWay};
use super::effects::{Answer, Effects};
use super::session::{Session, Turn};
use crate::counters::{Counter, Counters};
use crate::ids::SessionId;

impl Session {
    /// A reply that fits no command under way is ignored.
    pub(super) fn command_reply(
        &mut self,
        frame_id: u16,
        reply: &CommandReply<'_>,
        turn: &mut Turn<'_>,
    ) {
        let was_asked = (1..=self.command_frame_id).contains(&frame_id);
        let command = self.command.as_deref();
        let command = command.filter(|it| was_asked && it.command_id == reply.command_id);
        let Some(command) = command else {
            turn.counters.count(Counter::CommandReplyIgnored);
            return;
        };
        turn.counters.count(Counter::CommandReplied);
        let answer = CommandAnswer::Replied {
            status: reply.status.code(),
            more: reply.more,
            payload: reply.payload.to_vec(),
        };
        turn.effects.answer(command.asker, answer);
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
        let is_over = |it: &mut Box<UnderWay>| it.asker.deadline_at_ms <= now.ms;
        if let Some(command) = self.command.take_if(is_over) {
            counters.count(Counter::CommandExpired);
            effects.answer(command.asker, CommandAnswer::Expired);
        }
    }

    /// The session is over: a repeat of the command, elsewhere, fetches the reply.
    pub(super) fn lose_command(self, counters: &mut Counters, effects: &mut Effects) {
        if let Some(command) = self.command {
            counters.count(Counter::CommandLost);
            effects.answer(command.asker, CommandAnswer::Lost);
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
        if session.command.is_some() {
            return Err(CommandAnswer::Busy);
        }
        let command_id = CommandId(order.command_id);
        let frame_id = session.next_command_frame_id();
        let command = Command {
            command_id,
            deadline_ms: order.deadline_ms,
            code: order.code,
            payload: &order.payload,
        };
        effects.send(slot, |out| command.encode(frame_id, out));
        self.counters.count(Counter::CommandSent);
        session.command = Some(Box::new(UnderWay { command_id, asker }));
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
