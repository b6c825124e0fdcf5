//! Pure. What a device does when it is told to, and how it avoids doing it twice.

use std::collections::VecDeque;

use protocols::rcu::code::CommandStatus;
use protocols::rcu::command::{Command, CommandId, cluster_code};

use super::effect::ConnId;
use super::memory::NonVolatile;

/// Final replies that a device remembers beyond the connection.
const REMEMBERED_MAX: usize = 16;
/// So much of a final reply's payload is remembered.
const HEAD_BYTES_MAX: usize = 64;

/// A command of this fleet: work for the u32 of milliseconds in the payload, tell half-way.
/// It is there so that a command can be under way for a while.
pub const WORK: u16 = 0x0100;
const WORK_MS_MAX: u32 = 3_600_000;

/// The execution and the memory of commands.
#[derive(Debug, Default)]
pub(super) struct Commands {
    running: Option<Running>,
    remembered: VecDeque<FinalReply>,
}

#[derive(Debug)]
struct FinalReply {
    command_id: CommandId,
    status: CommandStatus,
    head: Box<[u8]>,
}

/// A command that takes its time.
#[derive(Debug)]
struct Running {
    command_id: CommandId,
    asked: Question,
    half_ms: Option<u64>,
    done_ms: u64,
}

/// Where a reply goes: a Command's frame id on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) conn: ConnId,
    pub(super) id: u16,
}

/// What to do with a Command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Done before: this reply, again.
    Repeat(CommandStatus, Box<[u8]>),
    /// It is under way, and its replies will come.
    UnderWay,
    /// Another one is under way. Not remembered.
    Busy,
    /// Not begun, for this reason.
    Refuse(CommandStatus),
    Begin(Order),
}

/// A command that is well formed and not too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Ping,
    SetClock { unix_ms: u64 },
    SetReportInterval { interval_ms: u32 },
    ReadConfig,
    Reboot,
    Work { ms: u32 },
}

/// What the running command has to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Half(CommandId, Question),
    Done(CommandId, Question),
}

impl Commands {
    /// Decides; changes nothing but where the running command's replies go.
    /// `too_long`: the device cannot hold the payload. `unix_ms`: its clock, where it has one.
    pub(super) fn judge(
        &mut self,
        command: &Command<'_>,
        question: Question,
        too_long: bool,
        unix_ms: Option<u64>,
        memory: &NonVolatile,
    ) -> Verdict {
        let command_id = command.command_id;
        if let Some(running) = &mut self.running
            && running.command_id == command_id
        {
            // On the connection that asked first, its replies answer both.
            if running.asked.conn != question.conn {
                running.asked = question;
            }
            return Verdict::UnderWay;
        }
        if let Some(reply) = self.recall(command_id) {
            return Verdict::Repeat(reply.status, reply.head.clone());
        }
        if memory.knows(command_id) {
            return Verdict::Repeat(CommandStatus::Ok, Box::default());
        }
        if self.running.is_some() {
            return Verdict::Busy;
        }
        if command.deadline_ms != 0 && unix_ms.is_some_and(|unix_ms| unix_ms > command.deadline_ms)
        {
            return Verdict::Refuse(CommandStatus::Expired);
        }
        if too_long {
            return Verdict::Refuse(CommandStatus::Unsupported);
        }
        match order(command.code, command.payload) {
            Ok(order) => Verdict::Begin(order),
            Err(status) => Verdict::Refuse(status),
        }
    }

    fn recall(&self, command_id: CommandId) -> Option<&FinalReply> {
        let same = |reply: &&FinalReply| reply.command_id == command_id;
        self.remembered.iter().find(same)
    }

    /// Keeps a final reply that is not `busy`.
    pub(super) fn remember(
        &mut self,
        command_id: CommandId,
        status: CommandStatus,
        payload: &[u8],
    ) {
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back(FinalReply {
            command_id,
            status,
            head: payload[..payload.len().min(HEAD_BYTES_MAX)].into(),
        });
    }

    pub(super) fn begin_work(
        &mut self,
        command_id: CommandId,
        asked: Question,
        work_ms: u32,
        now_ms: u64,
    ) {
        let work_ms = u64::from(work_ms);
        self.running = Some(Running {
            command_id,
            asked,
            half_ms: Some(now_ms + work_ms / 2),
            done_ms: now_ms + work_ms,
        });
    }

    /// What is due of the running command; called until there is nothing more.
    pub(super) fn progress(&mut self, now_ms: u64) -> Option<Progress> {
        let running = self.running.as_mut()?;
        let (command_id, asked) = (running.command_id, running.asked);
        if running.half_ms.is_some_and(|half_ms| half_ms <= now_ms) {
            running.half_ms = None;
            return Some(Progress::Half(command_id, asked));
        }
        if running.done_ms > now_ms {
            return None;
        }
        self.running = None;
        Some(Progress::Done(command_id, asked))
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let running = self.running.as_ref()?;
        Some(running.half_ms.unwrap_or(running.done_ms))
    }
}

fn order(code: u16, payload: &[u8]) -> Result<Order, CommandStatus> {
    match code {
        cluster_code::PING => Ok(Order::Ping),
        cluster_code::SET_CLOCK => Ok(Order::SetClock {
            unix_ms: u64::from_le_bytes(exactly(payload)?),
        }),
        cluster_code::SET_REPORT_INTERVAL => Ok(Order::SetReportInterval {
            interval_ms: u32::from_le_bytes(exactly(payload)?),
        }),
        cluster_code::READ_CONFIG => exactly::<0>(payload).map(|_| Order::ReadConfig),
        cluster_code::REBOOT => exactly::<0>(payload).map(|_| Order::Reboot),
        WORK => match u32::from_le_bytes(exactly(payload)?) {
            ms @ ..=WORK_MS_MAX => Ok(Order::Work { ms }),
            _ => Err(CommandStatus::Failed),
        },
        _ => Err(CommandStatus::Unsupported),
    }
}

/// A payload of the wrong length is `failed`.
fn exactly<const N: usize>(payload: &[u8]) -> Result<[u8; N], CommandStatus> {
    payload.try_into().map_err(|_| CommandStatus::Failed)
}
