//! An operator who looks at nodes and sessions, closes some, and has devices do things; and is told
//! what came of it.
//!
//! Asks a conn server as `rcu` does. Every question is answered to its end once, by its deadline;
//! what is told of a device is what the device said; a session that is shown was admitted; pages
//! are in order; and no device carries out one command twice, or begins it too late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::link::message::{
    AccountCommand, CommandAnswer, KickAnswer, KickAsk, Message, NoSession, NodesAnswer, NodesAsk,
    Order, SessionAsk, SessionCursor, SessionShown, SessionView, SessionsAnswer, SessionsAsk,
};
use common::link::{LinkId, Role};
use protocols::rcu::code::CommandStatus;
use protocols::rcu::command::{CommandId, cluster_code};
use rand::RngExt;
use rand::rngs::SmallRng;
use simulator::device::{Event as Told, WORK};

use crate::clock::true_unix_ms;
use crate::device::account_name;
use crate::model::Broken;
use crate::process::Process;
use crate::world::{World, account_of};

/// The operator's link to the conn server; the others are counted from 1.
pub const OPERATOR: LinkId = LinkId(u64::MAX);

/// Final replies that a device remembers while it has power.
const REMEMBERED_MAX: usize = 16;
/// Commands that must not be done twice, which it remembers without.
const KEPT_MAX: usize = 4;
/// Orders that may be repeated.
const ORDERS_MAX: usize = 100;
/// Sessions in a page: few enough for lists of several.
const PAGE_MAX: u32 = 4;
/// How far a clock is set off.
const CLOCK_OFF_MS: i64 = 3_600_000;

/// The kinds of answers, as [`Operator::answers`] counts them.
pub const ANSWERS: [&str; 17] = [
    "replied, more follows",
    "replied",
    "not attached",
    "busy",
    "lost",
    "expired",
    "too large",
    "shown",
    "kicked",
    "no such account",
    "no session",
    "not looked up",
    "node does not say",
    "node too old",
    "page",
    "no page",
    "nodes",
];

#[derive(Debug)]
pub struct Operator {
    rng: SmallRng,
    /// Questions that are not answered to their end, by request.
    asked: BTreeMap<u64, Asked>,
    requests: u64,
    /// The last ones given, each with the number of its account; the place is the command's id.
    orders: VecDeque<(usize, Order)>,
    commands: u64,
    /// Where the page of sessions after the last one begins.
    cursor: Option<SessionCursor>,
    /// Which account each kick is for that may still be on its way.
    kicks: BTreeMap<u64, usize>,
    /// How devices answered each command.
    said: BTreeMap<u64, BTreeSet<u8>>,
    /// What each device remembers, by its number.
    memories: BTreeMap<usize, Memory>,
    /// How often each kind of answer came.
    pub answers: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Asked {
    what: What,
    conn: Process,
    /// Of the conn server that was asked.
    generation: u32,
    until_ms: u64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Command { id: u64 },
    Session,
    Kick { account: usize },
    Sessions { limit: u32 },
    Nodes,
}

/// The commands that a device knows it has done.
#[derive(Debug, Default)]
struct Memory {
    remembered: VecDeque<u64>,
    kept: VecDeque<u64>,
}

impl Operator {
    pub fn new(rng: SmallRng) -> Self {
        Self {
            rng,
            asked: BTreeMap::new(),
            requests: 0,
            orders: VecDeque::new(),
            commands: 0,
            cursor: None,
            kicks: BTreeMap::new(),
            said: BTreeMap::new(),
            memories: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }

    /// A new order for one of so many accounts, or an old one again.
    fn order(&mut self, accounts: usize, unix_ms: u64) -> (usize, Order) {
        if !self.orders.is_empty() && self.rng.random_ratio(1, 3) {
            return self.orders[self.rng.random_range(0..self.orders.len())].clone();
        }
        self.commands += 1;
        let off_ms = self.rng.random_range(-CLOCK_OFF_MS..=CLOCK_OFF_MS);
        let (code, payload) = match self.rng.random_range(0..8) {
            0 | 1 => (cluster_code::PING, vec![7; self.rng.random_range(0..=80)]),
            2 => {
                let set_ms = unix_ms.saturating_add_signed(off_ms);
                (cluster_code::SET_CLOCK, set_ms.to_le_bytes().to_vec())
            }
            3 => {
                let interval_ms: u32 = self.rng.random_range(500..=20_000);
                let payload = interval_ms.to_le_bytes().to_vec();
                (cluster_code::SET_REPORT_INTERVAL, payload)
            }
            4 => (cluster_code::REBOOT, vec![]),
            5 => (
                WORK,
                self.rng.random_range(0..=8_000_u32).to_le_bytes().into(),
            ),
            // No command of anybody's, and one that fits no frame.
            6 => (0x7777, vec![]),
            _ => (cluster_code::PING, vec![7; 2_000]),
        };
        let deadline_ms = match self.rng.random_ratio(1, 2) {
            true => unix_ms + self.rng.random_range(0..=10_000),
            false => 0,
        };
        let order = Order {
            command_id: self.commands,
            deadline_ms,
            code,
            payload,
        };
        let given = (self.rng.random_range(0..accounts), order);
        self.orders.push_back(given.clone());
        if self.orders.len() > ORDERS_MAX {
            self.orders.pop_front();
        }
        given
    }

    /// A process that is stopped may answer late.
    pub fn excuse(&mut self, process: Process) {
        let asked = self.asked.values_mut();
        for asked in asked.filter(|asked| asked.conn == process) {
            asked.until_ms = u64::MAX;
        }
    }

    /// Whether a question waits for its answer.
    pub fn has_open(&self) -> bool {
        !self.asked.is_empty()
    }

    /// A question about one of so many accounts, or about all.
    fn question(&mut self, accounts: usize, unix_ms: u64) -> (What, Message) {
        let index = self.rng.random_range(0..accounts);
        let account = account_name(index);
        match self.rng.random_range(0..8) {
            0 => (What::Session, SessionAsk { account }.into()),
            1 => (What::Kick { account: index }, KickAsk { account }.into()),
            2 => {
                let limit = self.rng.random_range(1..=PAGE_MAX);
                let ask = SessionsAsk {
                    node: None,
                    from: self.cursor.take(),
                    limit,
                };
                (What::Sessions { limit }, ask.into())
            }
            3 => (What::Nodes, NodesAsk.into()),
            _ => {
                let (account, order) = self.order(accounts, unix_ms);
                let id = order.command_id;
                let account = account_name(account);
                (
                    What::Command { id },
                    AccountCommand { account, order }.into(),
                )
            }
        }
    }

    /// Whether a session of this account may still be closed though nobody asks any more.
    pub fn may_kick(&self, account: usize) -> bool {
        self.kicks.values().any(|kicked| *kicked == account)
    }

    fn note(&mut self, answer: &Message) {
        let name = match answer {
            Message::CommandAnswer(answer) => match answer {
                CommandAnswer::Replied { more: true, .. } => "replied, more follows",
                CommandAnswer::Replied { .. } => "replied",
                CommandAnswer::NotAttached => "not attached",
                CommandAnswer::Busy => "busy",
                CommandAnswer::Lost => "lost",
                CommandAnswer::Expired => "expired",
                CommandAnswer::TooLarge => "too large",
            },
            Message::SessionShown(SessionShown::Session { .. }) => "shown",
            Message::KickAnswer(KickAnswer::Kicked { .. }) => "kicked",
            Message::SessionShown(SessionShown::No(why))
            | Message::KickAnswer(KickAnswer::No(why)) => match why {
                NoSession::UnknownAccount => "no such account",
                NoSession::NotAttached => "no session",
                NoSession::Busy => "not looked up",
                NoSession::NoAnswer => "node does not say",
                NoSession::Unsupported => "node too old",
            },
            Message::SessionsAnswer(SessionsAnswer::Page { .. }) => "page",
            Message::SessionsAnswer(_) => "no page",
            Message::NodesAnswer(_) => "nodes",
            _ => "something else",
        };
        *self.answers.entry(name).or_default() += 1;
    }
}

impl World {
    /// Gives an order.
    pub fn operate(&mut self) -> Result<(), Broken> {
        self.check_answered()?;
        let conn = Process::conn(self.operator.rng.random_range(0..self.conns.len()));
        if !self.life(conn).is_up || self.life(conn).pause.is_some() {
            return Ok(());
        }
        let unix_ms = true_unix_ms(self.now_ms);
        let accounts = (self.plan.devices + self.plan.hostiles()) as usize;
        let (what, message) = self.operator.question(accounts, unix_ms);
        let deadline_ms = self.operator.rng.random_range(200..=20_000);
        self.operator.requests += 1;
        let request = self.operator.requests;
        let asked = Asked {
            what,
            conn,
            generation: self.life(conn).generation,
            until_ms: self.now_ms + u64::from(deadline_ms),
        };
        if let What::Kick { account } = what {
            self.operator.kicks.insert(request, account);
        }
        self.operator.asked.insert(request, asked);
        self.conn_asked(conn.index, OPERATOR, request, deadline_ms, message)
    }

    /// The conn server answers.
    pub fn operator_hears(&mut self, request: u64, answer: &Message) -> Result<(), Broken> {
        let broken = |what: &str| {
            Err(Broken(format!(
                "P10: request {request} is {what}: {answer:?}"
            )))
        };
        let Some(asked) = self.operator.asked.get(&request) else {
            return broken("answered once more");
        };
        if self.now_ms > asked.until_ms {
            return broken("answered too late");
        }
        let is_last = match (asked.what, answer) {
            (What::Command { id }, Message::CommandAnswer(answer)) => {
                if !self.was_said(id, answer) {
                    return broken("answered with what no device said");
                }
                !matches!(answer, CommandAnswer::Replied { more: true, .. })
            }
            (What::Session, Message::SessionShown(answer)) => {
                if let SessionShown::Session { look, .. } = answer
                    && !self.model.is_published(look.state.epoch)
                {
                    return broken("answered with a session that nobody was granted");
                }
                true
            }
            (What::Kick { .. }, Message::KickAnswer(answer)) => {
                // A node that did not answer may still do it.
                if *answer != KickAnswer::No(NoSession::NoAnswer) {
                    self.operator.kicks.remove(&request);
                }
                if let KickAnswer::Kicked { epoch, .. } = answer
                    && !self.model.is_published(*epoch)
                {
                    return broken("answered with a session that nobody was granted");
                }
                true
            }
            (What::Sessions { limit }, Message::SessionsAnswer(answer)) => {
                if !self.is_right_page(limit, answer) {
                    return broken("answered with a wrong page");
                }
                if let SessionsAnswer::Page { next, .. } = answer {
                    self.operator.cursor = *next;
                }
                true
            }
            (What::Nodes, Message::NodesAnswer(NodesAnswer::Page { nodes, more })) => {
                let logic = nodes.iter().filter(|node| node.role == Role::Logic);
                if *more || logic.count() != usize::from(self.plan.logic_servers) {
                    return broken("answered without a logic server");
                }
                true
            }
            _ => return broken("answered with something else"),
        };
        self.operator.note(answer);
        if is_last {
            self.operator.asked.remove(&request);
        }
        Ok(())
    }

    /// Whether the final reply of a command is one that some device gave.
    fn was_said(&self, command_id: u64, answer: &CommandAnswer) -> bool {
        let CommandAnswer::Replied {
            status,
            more: false,
            ..
        } = answer
        else {
            return true;
        };
        let said = self.operator.said.get(&command_id);
        // That it is busy it does not remember.
        *status == CommandStatus::Busy.code() || said.is_some_and(|said| said.contains(status))
    }

    fn is_right_page(&self, limit: u32, answer: &SessionsAnswer) -> bool {
        let SessionsAnswer::Page { sessions, .. } = answer else {
            return true;
        };
        let in_order = |pair: &[SessionView]| pair[0].account_id < pair[1].account_id;
        let accounts = (self.plan.devices + self.plan.hostiles()) as usize;
        sessions.len() <= limit as usize
            && sessions.windows(2).all(in_order)
            && sessions.iter().all(|view| {
                let mut indexes = 0..accounts;
                let index = indexes.find(|index| account_of(*index) == view.account_id);
                let is_its_name =
                    |name: &_| index.is_some_and(|index| account_name(index) == *name);
                self.model.is_published(view.epoch) && view.account.iter().all(is_its_name)
            })
    }

    /// Every question is answered by its deadline, unless whoever was asked is dead.
    pub fn check_answered(&mut self) -> Result<(), Broken> {
        let now_ms = self.now_ms;
        let mut asked = std::mem::take(&mut self.operator.asked);
        asked.retain(|_, asked| self.life(asked.conn).is_current(asked.generation));
        self.operator.asked = asked;
        let mut late = self.operator.asked.iter();
        match late.find(|(_, asked)| now_ms > asked.until_ms) {
            Some((request, asked)) => Err(Broken(format!(
                "P10: request {request} is not answered: {asked:?}"
            ))),
            None => Ok(()),
        }
    }

    /// A command leaves a logic server, by its own clock.
    pub fn judge_command(&self, node: usize, deadline_ms: u64) -> Result<(), Broken> {
        let unix_ms = self.now(Process::logic(node)).unix_ms;
        if deadline_ms != 0 && unix_ms > deadline_ms {
            return Err(Broken(format!(
                "P10: a command leaves at {unix_ms} that was due by {deadline_ms}"
            )));
        }
        Ok(())
    }

    /// What a device tells of commands. `unix_ms`: its own clock at that.
    pub fn device_obeys(
        &mut self,
        device: usize,
        told: &Told,
        unix_ms: Option<u64>,
    ) -> Result<(), Broken> {
        let memory = self.operator.memories.entry(device).or_default();
        match *told {
            Told::CommandBegun {
                command_id: CommandId(id),
                code,
            } => {
                if memory.remembered.contains(&id) || memory.kept.contains(&id) {
                    return Err(Broken(format!("P10: device {device} does {id} twice")));
                }
                if code == cluster_code::REBOOT {
                    remember(&mut memory.kept, id, KEPT_MAX);
                }
                self.judge_begun(device, id, unix_ms)
            }
            Told::CommandAnswered {
                command_id: CommandId(id),
                status,
                repeated,
            } => {
                if !repeated {
                    remember(&mut memory.remembered, id, REMEMBERED_MAX);
                }
                let said = self.operator.said.entry(id).or_default();
                said.insert(status.code());
                Ok(())
            }
            Told::Restarted { .. } => {
                memory.remembered.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A command is begun by the device that it is for, in time by the device's own clock.
    fn judge_begun(&self, device: usize, id: u64, unix_ms: Option<u64>) -> Result<(), Broken> {
        let mut orders = self.operator.orders.iter();
        let Some((account, order)) = orders.find(|(_, order)| order.command_id == id) else {
            return Ok(());
        };
        let node = &self.devices[device];
        if node.account() != *account {
            return Err(Broken(format!(
                "P10: device {device} does {id}, of {account}"
            )));
        }
        match unix_ms {
            Some(unix_ms) if order.deadline_ms != 0 && unix_ms > order.deadline_ms => Err(Broken(
                format!("P10: device {device} begins {id} at {unix_ms}: {order:?}"),
            )),
            _ => Ok(()),
        }
    }
}

fn remember(ids: &mut VecDeque<u64>, id: u64, max: usize) {
    ids.push_back(id);
    if ids.len() > max {
        ids.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Class, Overrides, Plan};

    /// What never comes is not checked.
    #[test]
    fn every_answer_comes() {
        let mut answers: BTreeMap<&str, u64> = BTreeMap::new();
        for seed in 0..30 {
            let overrides = Overrides {
                devices: Some(10),
                faults_ms: Some(120_000),
                classes: Some(vec![Class::Commands, Class::Reset, Class::Silence]),
            };
            let plan = Plan::draw(seed, &overrides);
            let mut world = World::new(plan);
            let ran = world.run();
            ran.unwrap_or_else(|broken| panic!("seed {seed}: {}", broken.0));
            for (answer, times) in &world.operator.answers {
                *answers.entry(*answer).or_default() += times;
            }
        }
        let names = [
            "replied, more follows",
            "replied",
            "not attached",
            "busy",
            "lost",
            "expired",
            "too large",
            "shown",
            "kicked",
            "no session",
            "page",
            "nodes",
        ];
        let never = names.iter().filter(|name| !answers.contains_key(*name));
        let never: Vec<_> = never.collect();
        assert!(never.is_empty(), "never answered {never:?}: {answers:?}");
    }
}
