//! Pure. Commands from operators: to the node where the account's session is, and the answers back.

use std::collections::HashMap;

use common::link::LinkId;
use common::link::message::{AccountCommand, Command, CommandAnswer, Order};

use super::{Core, Effect, Timer};
use crate::account::Found;
use crate::counters::Counter;
use crate::effect::Asker;
use crate::pool::NodeIndex;
use crate::time::Now;

/// More at once are answered `Busy`.
const COMMANDS_OPEN_MAX: usize = 10_000;

/// A command waits for its answers no longer, whatever its asker says: they hold memory here.
const ANSWERED_WITHIN_MS: u64 = 600_000;

/// Commands on their way, by the id of the look-up and of the request to the node.
#[derive(Debug, Default)]
pub(super) struct Commands {
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    asker: Asker,
    expires_ms: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Its account is being looked up.
    Account(Order),
    /// This node was asked.
    Node(NodeIndex),
}

impl Commands {
    /// The node is cut off: its answers will not come. In the order in which they were asked.
    pub(super) fn lost(&mut self, node: NodeIndex) -> Vec<Asker> {
        let on_node = |open: &Open| matches!(open.stage, Stage::Node(on) if on == node);
        let lost = self.open.extract_if(|_, open| on_node(open));
        let mut lost: Vec<_> = lost.map(|(id, open)| (id, open.asker)).collect();
        lost.sort_unstable_by_key(|(id, _)| *id);
        lost.into_iter().map(|(_, asker)| asker).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_open(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }

    fn close(&mut self, id: u64, effects: &mut Vec<Effect>, answer: CommandAnswer) {
        if let Some(open) = self.open.remove(&id) {
            effects.push(open.asker.answer(answer));
        }
    }
}

impl Core {
    pub(super) fn command(
        &mut self,
        asker: Asker,
        command: AccountCommand,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.desk.counters.count(Counter::Commands);
        if self.commands.open.len() >= COMMANDS_OPEN_MAX {
            self.desk.counters.count(Counter::CommandsShed);
            effects.push(asker.answer(CommandAnswer::Busy));
            return;
        }
        let id = self.new_id();
        let expires_ms = asker.until_ms.min(now.ms + ANSWERED_WITHIN_MS);
        let open = Open {
            asker,
            expires_ms,
            stage: Stage::Account(command.order),
        };
        self.commands.open.insert(id, open);
        self.set_timer(expires_ms, Timer::Command(id));
        effects.push(Effect::LookUp {
            id,
            account: command.account,
        });
    }

    pub(super) fn command_found(
        &mut self,
        id: u64,
        found: Found,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        // It may be of a login, or of a command, that could not wait for it.
        if !self.commands.open.contains_key(&id) {
            return;
        }
        let account = match found {
            Found::Account(account) => account,
            Found::Unknown => {
                self.desk.counters.count(Counter::CommandsNotAttached);
                return self.commands.close(id, effects, CommandAnswer::NotAttached);
            }
            // It was not begun, and may be asked again.
            Found::Failed => {
                self.desk.counters.count(Counter::CommandsShed);
                return self.commands.close(id, effects, CommandAnswer::Busy);
            }
        };
        let session = self.desk.directory.session(account.id);
        let at = session.and_then(|session| {
            let link = self.desk.pool.node(session.node)?.link;
            Some((session.node, link))
        });
        let Some((node, link)) = at else {
            self.desk.counters.count(Counter::CommandsNotAttached);
            return self.commands.close(id, effects, CommandAnswer::NotAttached);
        };
        let Some(open) = self.commands.open.get_mut(&id) else {
            return;
        };
        if let Stage::Account(order) = std::mem::replace(&mut open.stage, Stage::Node(node)) {
            let command = Command {
                account_id: account.id,
                order,
            };
            effects.push(Effect::Request {
                link,
                id,
                deadline_ms: now.until(open.expires_ms),
                message: command.into(),
            });
        }
    }

    /// Passes an answer on. The last one closes the command.
    pub(super) fn command_answered(
        &mut self,
        link: LinkId,
        id: u64,
        answer: CommandAnswer,
        effects: &mut Vec<Effect>,
    ) {
        let from = self.desk.pool.by_link(link);
        let Some(open) = self.commands.open.get(&id) else {
            return;
        };
        if !matches!(open.stage, Stage::Node(node) if Some(node) == from) {
            return;
        }
        if matches!(answer, CommandAnswer::Replied { more: true, .. }) {
            effects.push(open.asker.answer(answer));
        } else {
            self.commands.close(id, effects, answer);
        }
    }

    pub(super) fn command_expired(&mut self, id: u64, effects: &mut Vec<Effect>) {
        self.commands.close(id, effects, CommandAnswer::Expired);
    }
}
