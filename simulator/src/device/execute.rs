//! Pure. Carries out commands and answers them.

use std::num::NonZeroU32;

use protocols::rcu::code::CommandStatus;
use protocols::rcu::command::{Command, CommandId, CommandReply};
use protocols::rcu::frame::{Frame, HEADER_BYTES};

use super::commands::{Order, Progress, Question, Verdict};
use super::effect::{Effect, Effects, Event, Fault};
use super::{Device, Phase};

impl Device {
    pub(super) fn execute(
        &mut self,
        frame: &Frame<'_>,
        command: &Command<'_>,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let Some(conn) = self.conn() else {
            return;
        };
        let asked = Question { conn, id: frame.id };
        let command_id = command.command_id;
        let too_long = HEADER_BYTES + frame.body.len() > self.settings.command_bytes_max;
        let unix_ms = self.clock.unix_ms(now_ms);
        let verdict = self
            .commands
            .judge(command, asked, too_long, unix_ms, &self.memory);
        match verdict {
            Verdict::UnderWay => {}
            Verdict::Busy => self.reply(asked, command_id, CommandStatus::Busy, &[], effects),
            Verdict::Repeat(status, head) => {
                effects.tell(Event::CommandAnswered {
                    command_id,
                    status,
                    repeated: true,
                });
                self.reply(asked, command_id, status, &head, effects);
            }
            Verdict::Refuse(status) => self.finish(asked, command_id, status, &[], effects),
            Verdict::Begin(order) => {
                effects.tell(Event::CommandBegun {
                    command_id,
                    code: command.code,
                });
                self.begin(asked, command, order, now_ms, effects);
            }
        }
    }

    fn begin(
        &mut self,
        asked: Question,
        command: &Command<'_>,
        order: Order,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let command_id = command.command_id;
        match order {
            Order::Ping => self.done(asked, command_id, command.payload, effects),
            Order::SetClock { unix_ms } => match self.clock.set(unix_ms, now_ms) {
                Some(by_ms) => {
                    effects.tell(Event::ClockSet { by_ms });
                    self.done(asked, command_id, &[], effects);
                }
                None => self.finish(asked, command_id, CommandStatus::Failed, &[], effects),
            },
            Order::SetReportInterval { interval_ms } => {
                self.memory.report_interval_ms = NonZeroU32::new(interval_ms);
                self.reporter
                    .start(self.report_interval_ms(), now_ms, &mut self.rng);
                self.done(asked, command_id, &[], effects);
            }
            Order::ReadConfig => {
                let config = format!(
                    "firmware={} report_interval_ms={} boot_counter={}",
                    self.settings.firmware,
                    self.report_interval_ms(),
                    self.boot_counter(),
                );
                self.done(asked, command_id, config.as_bytes(), effects);
            }
            Order::Work { ms } => {
                self.commands.begin_work(command_id, asked, ms, now_ms);
                self.progress_command(now_ms, effects);
            }
            Order::Reboot => {
                // Written before it is begun: a repeat must find it on the other side.
                self.memory.note(command_id);
                self.done(asked, command_id, &[], effects);
                effects.push(Effect::Disconnect { conn: asked.conn });
                effects.tell(Event::Ended {
                    why: Fault::Restarted,
                });
                self.forget(effects);
                self.boot(now_ms);
            }
        }
    }

    /// What the running command has to say by now, whether or not anyone hears it.
    pub(super) fn progress_command(&mut self, now_ms: u64, effects: &mut Effects) {
        while let Some(progress) = self.commands.progress(now_ms) {
            match progress {
                Progress::Half(command_id, asked) => {
                    let reply = CommandReply {
                        command_id,
                        status: CommandStatus::Ok,
                        more: true,
                        payload: b"half-way",
                    };
                    self.send_reply(asked, &reply, effects);
                }
                Progress::Done(command_id, asked) => {
                    self.done(asked, command_id, b"done", effects);
                }
            }
        }
    }

    fn done(
        &mut self,
        asked: Question,
        command_id: CommandId,
        payload: &[u8],
        effects: &mut Effects,
    ) {
        self.finish(asked, command_id, CommandStatus::Ok, payload, effects);
    }

    /// The final reply: remembered, then sent.
    fn finish(
        &mut self,
        asked: Question,
        command_id: CommandId,
        status: CommandStatus,
        payload: &[u8],
        effects: &mut Effects,
    ) {
        self.commands.remember(command_id, status, payload);
        effects.tell(Event::CommandAnswered {
            command_id,
            status,
            repeated: false,
        });
        self.reply(asked, command_id, status, payload, effects);
    }

    fn reply(
        &mut self,
        asked: Question,
        command_id: CommandId,
        status: CommandStatus,
        payload: &[u8],
        effects: &mut Effects,
    ) {
        let reply = CommandReply {
            command_id,
            status,
            more: false,
            payload,
        };
        self.send_reply(asked, &reply, effects);
    }

    /// A reply whose connection is gone is not sent unasked on another: a repeat fetches it.
    fn send_reply(&self, asked: Question, reply: &CommandReply<'_>, effects: &mut Effects) {
        if let Phase::Attached(session) = &self.phase
            && session.conn == asked.conn
        {
            effects.send(asked.conn, |out| reply.encode(asked.id, out));
        }
    }
}
