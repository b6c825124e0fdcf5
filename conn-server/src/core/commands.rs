//! Pure. What operators ask of one account's session: a command for its device, what can be seen of
//! it, its end. All of them go to the node where the session is, and the answers back.

use std::collections::HashMap;

use common::ids::{AccountId, AccountName};
use common::link::message::{
    AccountCommand, Command, CommandAnswer, Kick, KickAnswer, KickAsk, Kicked, Message, NoSession,
    Order, SessionAsk, SessionCheck, SessionLooked, SessionShown,
};
use common::link::{Asker, LinkId};
use common::time::Now;

use super::{Core, Effect, Timer};
use crate::account::Found;
use crate::audit::{Act, Deed, outcome};
use crate::counters::Counter;
use crate::pool::NodeId;

/// More at once are answered `Busy`.
const COMMANDS_OPEN_MAX: usize = 10_000;

/// A command waits for its answers no longer, whatever its asker says: they hold memory here.
const ANSWERED_WITHIN_MS: u64 = 600_000;

/// Errands on their way, by the id of the look-up and of the request to the node.
#[derive(Debug, Default)]
pub(super) struct Commands {
    open: HashMap<u64, Open>,
}

/// What is wanted of a session.
#[derive(Debug)]
pub(super) enum Errand {
    Command(Order),
    Show,
    Kick,
}

#[derive(Debug)]
struct Open {
    asker: Asker,
    expires_ms: u64,
    kind: Kind,
    /// `None`: it only looks.
    deed: Option<Box<Deed>>,
    stage: Stage,
}

/// In which words it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Command,
    Show,
    Kick,
}

#[derive(Debug)]
enum Stage {
    /// Its account is being looked up.
    Account(Errand),
    /// This node was asked.
    Node(NodeId, AccountId),
}

impl Errand {
    fn kind(&self) -> Kind {
        match self {
            Self::Command(_) => Kind::Command,
            Self::Show => Kind::Show,
            Self::Kick => Kind::Kick,
        }
    }

    fn act(&self) -> Option<Act> {
        match self {
            Self::Command(order) => Some(Act::Command {
                command_id: order.command_id,
                code: order.code,
            }),
            Self::Show => None,
            Self::Kick => Some(Act::Kick),
        }
    }

    fn ask(self, account_id: AccountId) -> Message {
        match self {
            Self::Command(order) => Command { account_id, order }.into(),
            Self::Show => SessionCheck { account_id }.into(),
            Self::Kick => Kick { account_id }.into(),
        }
    }
}

impl Kind {
    fn no(self, why: NoSession) -> Message {
        match (self, why) {
            (Self::Command, NoSession::UnknownAccount | NoSession::NotAttached) => {
                CommandAnswer::NotAttached.into()
            }
            // It was not begun, and may be asked again.
            (Self::Command, NoSession::Busy | NoSession::Unsupported) => CommandAnswer::Busy.into(),
            (Self::Command, NoSession::NoAnswer) => CommandAnswer::Lost.into(),
            (Self::Show, why) => SessionShown::No(why).into(),
            (Self::Kick, why) => KickAnswer::No(why).into(),
        }
    }

    fn expired(self) -> Message {
        match self {
            Self::Command => CommandAnswer::Expired.into(),
            Self::Show | Self::Kick => self.no(NoSession::NoAnswer),
        }
    }

    fn counter(self) -> Counter {
        match self {
            Self::Command => Counter::Commands,
            Self::Show => Counter::Questions,
            Self::Kick => Counter::Kicks,
        }
    }
}

impl Open {
    /// With its last answer.
    fn end(self, answer: Message, effects: &mut Vec<Effect>) {
        end(&self.asker, self.deed, answer, effects);
    }
}

fn end(asker: &Asker, deed: Option<Box<Deed>>, answer: Message, effects: &mut Vec<Effect>) {
    let done = deed.zip(outcome(&answer));
    effects.extend(done.map(|(deed, outcome)| Effect::Audit { deed, outcome }));
    effects.push(Effect::answer(asker, answer));
}

impl Commands {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_open(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }
}

impl Core {
    /// The node is cut off: its answers will not come. Their askers are told in the order in which they
    /// asked.
    pub(super) fn commands_lost(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        let on_node = |open: &Open| matches!(open.stage, Stage::Node(on, _) if on == node);
        let lost = self.commands.open.extract_if(|_, open| on_node(open));
        let mut lost: Vec<_> = lost.collect();
        lost.sort_unstable_by_key(|(id, _)| *id);
        for (_, open) in lost {
            let answer = open.kind.no(NoSession::NoAnswer);
            open.end(answer, effects);
        }
    }

    fn close_command(
        &mut self,
        id: u64,
        effects: &mut Vec<Effect>,
        answer: impl FnOnce(Kind) -> Message,
    ) {
        if let Some(open) = self.commands.open.remove(&id) {
            let answer = answer(open.kind);
            open.end(answer, effects);
        }
    }

    pub(super) fn command(
        &mut self,
        asker: Asker,
        command: AccountCommand,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let errand = Errand::Command(command.order);
        self.errand(asker, command.account, errand, now, effects);
    }

    pub(super) fn session_asked(
        &mut self,
        asker: Asker,
        ask: SessionAsk,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.errand(asker, ask.account, Errand::Show, now, effects);
    }

    pub(super) fn kick_asked(
        &mut self,
        asker: Asker,
        ask: KickAsk,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.errand(asker, ask.account, Errand::Kick, now, effects);
    }

    fn errand(
        &mut self,
        asker: Asker,
        account: AccountName,
        errand: Errand,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let kind = errand.kind();
        self.desk.counters.count(kind.counter());
        let deed = errand.act().map(|act| {
            let operator = self.linked.peer(asker.link);
            Box::new(Deed {
                operator: operator.map(|peer| (peer.node.clone(), peer.address)),
                account: account.clone(),
                act,
                node: None,
            })
        });
        if self.commands.open.len() >= COMMANDS_OPEN_MAX {
            self.desk.counters.count(Counter::CommandsShed);
            let answer = kind.no(NoSession::Busy);
            return end(&asker, deed, answer, effects);
        }
        let id = self.new_id();
        let expires_ms = asker.until_ms.min(now.ms + ANSWERED_WITHIN_MS);
        let open = Open {
            asker,
            expires_ms,
            kind,
            deed,
            stage: Stage::Account(errand),
        };
        self.commands.open.insert(id, open);
        self.set_timer(expires_ms, Timer::Command(id));
        effects.push(Effect::LookUp { id, account });
    }

    pub(super) fn command_found(
        &mut self,
        id: u64,
        found: Found,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        // It may be of a login, or of an errand, that could not wait for it.
        let Some(open) = self.commands.open.get_mut(&id) else {
            return;
        };
        let session = match found {
            Found::Account(account) => self.desk.directory.session(account.id).zip(Some(account)),
            Found::Unknown => {
                self.desk.counters.count(Counter::CommandsNotAttached);
                let answer = |kind: Kind| kind.no(NoSession::UnknownAccount);
                return self.close_command(id, effects, answer);
            }
            Found::Failed => {
                self.desk.counters.count(Counter::CommandsShed);
                let answer = |kind: Kind| kind.no(NoSession::Busy);
                return self.close_command(id, effects, answer);
            }
        };
        let at = session.and_then(|(session, account)| {
            let (id, node) = self.desk.pool.present(session.node)?;
            Some((id, node, account.id))
        });
        let Some((index, node, account_id)) = at else {
            self.desk.counters.count(Counter::CommandsNotAttached);
            let answer = |kind: Kind| kind.no(NoSession::NotAttached);
            return self.close_command(id, effects, answer);
        };
        let (link, stage) = (node.link, Stage::Node(index, account_id));
        if let Stage::Account(errand) = std::mem::replace(&mut open.stage, stage) {
            let message = errand.ask(account_id);
            let deadline_ms = now.until(open.expires_ms);
            if self.linked.version(link) < message.since_version() {
                let answer = |kind: Kind| kind.no(NoSession::Unsupported);
                return self.close_command(id, effects, answer);
            }
            if let Some(deed) = &mut open.deed {
                deed.node = Some(node.name.clone());
            }
            effects.push(Effect::Request {
                link,
                id,
                deadline_ms,
                message,
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
        let Some((open, ..)) = self.asked_there(link, id, Kind::Command) else {
            return;
        };
        if matches!(answer, CommandAnswer::Replied { more: true, .. }) {
            effects.push(Effect::answer(&open.asker, answer));
        } else {
            self.close_command(id, effects, |_| answer.into());
        }
    }

    pub(super) fn session_checked(
        &mut self,
        link: LinkId,
        id: u64,
        answer: SessionLooked,
        effects: &mut Vec<Effect>,
    ) {
        let Some((_, node, account_id)) = self.asked_there(link, id, Kind::Show) else {
            return;
        };
        let name = self.desk.pool.node(node).map(|node| node.name.clone());
        let answer = match answer.look.zip(name) {
            Some((look, node)) => SessionShown::Session {
                account_id,
                node,
                look,
            },
            None => SessionShown::No(NoSession::NotAttached),
        };
        self.close_command(id, effects, |_| answer.into());
    }

    pub(super) fn kicked(
        &mut self,
        link: LinkId,
        id: u64,
        kicked: Kicked,
        effects: &mut Vec<Effect>,
    ) {
        let Some((_, node, _)) = self.asked_there(link, id, Kind::Kick) else {
            return;
        };
        let name = self.desk.pool.node(node).map(|node| node.name.clone());
        let answer = match kicked.epoch.zip(name) {
            Some((epoch, node)) => KickAnswer::Kicked { node, epoch },
            None => KickAnswer::No(NoSession::NotAttached),
        };
        self.close_command(id, effects, |_| answer.into());
    }

    /// The errand of this kind that the node of this link was asked under this id.
    fn asked_there(&self, link: LinkId, id: u64, kind: Kind) -> Option<(&Open, NodeId, AccountId)> {
        let from = self.desk.pool.by_link(link)?;
        let open = self.commands.open.get(&id)?;
        match open.stage {
            Stage::Node(node, account_id) if node == from && open.kind == kind => {
                Some((open, node, account_id))
            }
            _ => None,
        }
    }

    pub(super) fn command_expired(&mut self, id: u64, effects: &mut Vec<Effect>) {
        self.close_command(id, effects, Kind::expired);
    }
}
