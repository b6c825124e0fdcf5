//! Pure. An order to the device and its replies: one at a time under way.
//!
//! It is sent when the device has read what it was sent before. It is under way until the device has answered or its asker has given up: then another may be sent, which a
//! device that is still at the former answers with `busy`, and the former may be sent again, to fetch its
//! reply. A reply is known by its command_id where the protocol repeats that: to a repeat of what it still does, the
//! device says what it has to say under the frame id that it was asked with first.

use common::ids::CommandId;
use common::link::Asker;
use common::link::message::{CommandAnswer, Order};
use common::time::Now;

use super::Shard;
use super::effects::Effects;
use super::session::{Session, Turn, UnderWay};
use crate::adapter::{Reply, Word};
use crate::ask::Answer;
use crate::counters::{Counter, Counters};
use crate::ids::Slot;

impl Session {
    /// A reply that fits no command under way is ignored.
    pub(super) fn command_reply(&mut self, reply: &Reply<'_>, turn: &mut Turn<'_>) {
        let last = self.command_frame_id;
        let is_to = |it: &&UnderWay| match reply.command_id {
            Some(id) => id == it.command_id && (1..=last).contains(&reply.frame_id),
            None => it.unsent.is_none() && reply.frame_id == last,
        };
        let command = self.command().filter(is_to);
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
        turn.effects
            .answers
            .push(Answer::new(command.asker, answer));
        if !reply.more {
            self.end_command(|_| true);
        }
    }

    /// Ends the command under way where `is_over`, and tells its asker.
    pub(super) fn expire_command(
        &mut self,
        is_over: impl FnOnce(&UnderWay) -> bool,
        counters: &mut Counters,
        effects: &mut Effects,
    ) {
        if let Some(command) = self.end_command(|it| is_over(it)) {
            counters.count(Counter::CommandExpired);
            effects
                .answers
                .push(Answer::new(command.asker, CommandAnswer::Expired));
        }
    }

    /// The session is over: a repeat of the command, elsewhere, fetches the reply.
    pub(super) fn lose_command(mut self, counters: &mut Counters, effects: &mut Effects) {
        if let Some(command) = self.end_command(|_| true) {
            counters.count(Counter::CommandLost);
            effects
                .answers
                .push(Answer::new(command.asker, CommandAnswer::Lost));
        }
    }

    /// The next id for a Command; never 0.
    fn next_command_frame_id(&mut self) -> u16 {
        self.command_frame_id = self.command_frame_id.checked_add(1).unwrap_or(1);
        self.command_frame_id
    }
}

impl Shard {
    /// For the device of the session in this slot.
    pub(super) fn command(
        &mut self,
        slot: Slot,
        asker: Asker,
        order: Order,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        match session.take_command(asker, order, now) {
            Ok(()) => {
                self.wheel.arm(slot.0, session.next_timer_ms());
                session.send_command(slot, now, &mut self.counters, effects);
            }
            Err((why, answer)) => {
                self.counters.count(why);
                effects.answers.push(Answer::new(asker, answer));
            }
        }
    }

    /// The device has read what waited for it.
    pub(super) fn drained(&mut self, slot: Slot, now: Now, effects: &mut Effects) {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.output_waits = false;
            session.send_command(slot, now, &mut self.counters, effects);
        }
    }
}

impl Session {
    /// # Errors
    /// It is not going to be sent: why, and what the asker is told.
    fn take_command(
        &mut self,
        asker: Asker,
        order: Order,
        now: Now,
    ) -> Result<(), (Counter, CommandAnswer)> {
        if order.payload.len() > self.protocol.order_bytes_max() {
            return Err((Counter::CommandTooLarge, CommandAnswer::TooLarge));
        }
        if is_too_late(&order, now) || asker.until_ms <= now.ms {
            return Err((Counter::CommandExpired, CommandAnswer::Expired));
        }
        if self.command().is_some() {
            return Err((Counter::CommandBusy, CommandAnswer::Busy));
        }
        self.begin_command(UnderWay {
            command_id: CommandId(order.command_id),
            asker,
            unsent: Some(order),
        });
        Ok(())
    }

    /// Sends the command that is not sent yet, if there is one, unless the device has to read first.
    fn send_command(
        &mut self,
        slot: Slot,
        now: Now,
        counters: &mut Counters,
        effects: &mut Effects,
    ) {
        if self.output_waits {
            return;
        }
        let unsent = self.command_mut().and_then(|it| it.unsent.take());
        let Some(order) = unsent else {
            return;
        };
        if is_too_late(&order, now) {
            return self.expire_command(|_| true, counters, effects);
        }
        counters.count(Counter::CommandSent);
        let frame_id = self.next_command_frame_id();
        let word = Word::Order {
            frame_id,
            order: &order,
        };
        effects.say(slot, self.protocol, &word);
    }
}

/// A device would not begin it any more.
fn is_too_late(order: &Order, now: Now) -> bool {
    order.deadline_ms != 0 && now.unix_ms > order.deadline_ms
}
