//! Pure. Pages of sessions for operators: from the logic servers, which alone know, one after the
//! other; with the names of the accounts, which alone the database knows.
//!
//! ```text
//! SessionsAsk ──▶ node asked ──SessionPage──▶ names asked ──Named──▶ SessionsAnswer::Page
//!                    │ link lost, too late        │ too late, table unreadable: without names
//!                    ╰──▶ NoAnswer                ╰──▶ SessionsAnswer::Page
//! ```

use std::collections::HashMap;

use common::ids::{AccountId, AccountName, NodeName};
use common::link::message::{
    Message, SESSIONS_PAGE_MAX, SessionCursor, SessionPage, SessionPageAsk, SessionView,
    SessionsAnswer, SessionsAsk,
};
use common::link::{Asker, LinkId};
use common::time::Now;

use super::{Core, Effect, Timer};
use crate::counters::Counter;
use crate::pool::{Node, NodeId};

/// Pages at once: each holds a message's worth of memory. More are answered `Busy`.
const PAGES_OPEN_MAX: usize = 64;

/// A node answers from memory; one that does not is not waited for.
const ANSWERED_WITHIN_MS: u64 = 2_000;

/// Then the sessions are shown without their names.
const NAMED_WITHIN_MS: u64 = 2_000;

/// Pages that are being put together, by the id of the request to the node and of the look-up.
#[derive(Debug, Default)]
pub(super) struct Census {
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    asker: Asker,
    node: NodeId,
    name: NodeName,
    /// Go on with the next node after this one.
    all: bool,
    limit: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Node,
    Names {
        sessions: Vec<SessionView>,
        next: Option<SessionCursor>,
        named_by_ms: u64,
    },
}

impl Open {
    /// As far as it has come.
    fn give_up(self) -> Effect {
        let answer = match self.stage {
            Stage::Node => SessionsAnswer::NoAnswer(self.name),
            Stage::Names { sessions, next, .. } => SessionsAnswer::Page {
                node: Some(self.name),
                sessions,
                next,
            },
        };
        Effect::answer(&self.asker, answer)
    }
}

impl Census {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_open(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }

    /// The node is cut off: what its askers are told, in the order in which they asked.
    pub(super) fn lost(&mut self, node: NodeId) -> Vec<Effect> {
        let waits = |open: &Open| open.node == node && matches!(open.stage, Stage::Node);
        let lost = self.open.extract_if(|_, open| waits(open));
        let mut lost: Vec<_> = lost.collect();
        lost.sort_unstable_by_key(|(id, _)| *id);
        lost.into_iter().map(|(_, open)| open.give_up()).collect()
    }
}

impl Core {
    pub(super) fn sessions_asked(
        &mut self,
        asker: Asker,
        ask: &SessionsAsk,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.desk.counters.count(Counter::Questions);
        if self.census.open.len() >= PAGES_OPEN_MAX {
            effects.push(Effect::answer(&asker, SessionsAnswer::Busy));
            return;
        }
        let from = ask.from.map_or(0, |cursor| cursor.node);
        let wanted = |(index, node): &(NodeId, &Node)| match &ask.node {
            Some(name) => node.name == *name,
            None => index.number() >= from,
        };
        let found = self.desk.pool.iter().find(wanted);
        let Some((node, link, name)) = found.map(|(index, at)| (index, at.link, at.name.clone()))
        else {
            effects.push(Effect::answer(
                &asker,
                match ask.node {
                    Some(_) => SessionsAnswer::UnknownNode,
                    None => last_page(),
                },
            ));
            return;
        };
        let limit = ask.limit.clamp(1, SESSIONS_PAGE_MAX);
        // A node further on than the cursor's is listed from its beginning.
        let cursor = ask.from.filter(|cursor| cursor.node == node.number());
        let page = SessionPageAsk {
            after: cursor.and_then(|cursor| cursor.after),
            limit,
        };
        let message = Message::from(page);
        if self.linked.version(link) < message.since_version() {
            effects.push(Effect::answer(&asker, SessionsAnswer::Unsupported(name)));
            return;
        }
        let id = self.new_id();
        let open = Open {
            asker,
            node,
            name,
            all: ask.node.is_none(),
            limit,
            stage: Stage::Node,
        };
        let until_ms = asker.until_ms.min(now.ms + ANSWERED_WITHIN_MS);
        self.census.open.insert(id, open);
        self.set_timer(until_ms, Timer::Sessions(id));
        effects.push(Effect::Request {
            link,
            id,
            deadline_ms: now.until(until_ms),
            message,
        });
    }

    /// The node listed its sessions; their names are asked for.
    pub(super) fn sessions_listed(
        &mut self,
        link: LinkId,
        id: u64,
        page: SessionPage,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let from = self.desk.pool.by_link(link);
        let waits = |open: &Open| Some(open.node) == from && matches!(open.stage, Stage::Node);
        let Some(open) = self.census.open.get(&id).filter(|open| waits(open)) else {
            return;
        };
        let mut sessions = page.sessions;
        let is_whole = sessions.len() <= open.limit as usize;
        sessions.truncate(open.limit as usize);
        let last = sessions.last().map(|(account_id, _)| *account_id);
        let next = match last {
            Some(after) if !(page.last && is_whole) => Some(SessionCursor {
                node: open.node.number(),
                after: Some(after),
            }),
            _ => self.next_node(open),
        };
        let accounts: Vec<_> = sessions.iter().map(|(account_id, _)| *account_id).collect();
        let views = sessions.into_iter().map(|(account_id, epoch)| SessionView {
            account_id,
            account: None,
            epoch,
        });
        let named_by_ms = open.asker.until_ms.min(now.ms + NAMED_WITHIN_MS);
        let stage = Stage::Names {
            sessions: views.collect(),
            next,
            named_by_ms,
        };
        if let Some(open) = self.census.open.get_mut(&id) {
            open.stage = stage;
        }
        self.set_timer(named_by_ms, Timer::Sessions(id));
        match accounts.is_empty() {
            true => self.give_page_up(id, effects),
            false => effects.push(Effect::Names { id, accounts }),
        }
    }

    /// `None`: the accounts could not be read.
    pub(super) fn sessions_named(
        &mut self,
        id: u64,
        names: Option<&HashMap<AccountId, AccountName>>,
        effects: &mut Vec<Effect>,
    ) {
        let open = self.census.open.get_mut(&id);
        if let (
            Some(Open {
                stage: Stage::Names { sessions, .. },
                ..
            }),
            Some(names),
        ) = (open, names)
        {
            for view in sessions {
                view.account = names.get(&view.account_id).cloned();
            }
        }
        self.give_page_up(id, effects);
    }

    /// Its time is over, and it is told as far as it has come. A page has two timers, one for each
    /// of its stages: the first finds it at its second and is too early.
    pub(super) fn page_expired(&mut self, id: u64, now: Now, effects: &mut Vec<Effect>) {
        let asked_late = |open: &Open| match open.stage {
            Stage::Node => true,
            Stage::Names { named_by_ms, .. } => now.ms >= named_by_ms,
        };
        if self.census.open.get(&id).is_some_and(asked_late) {
            self.give_page_up(id, effects);
        }
    }

    fn give_page_up(&mut self, id: u64, effects: &mut Vec<Effect>) {
        let open = self.census.open.remove(&id);
        effects.extend(open.map(Open::give_up));
    }

    /// Where the list goes on after all of a node.
    fn next_node(&self, open: &Open) -> Option<SessionCursor> {
        let mut linked = self.desk.pool.iter();
        let next = linked.find(|(id, _)| open.all && id.number() > open.node.number());
        next.map(|(index, _)| SessionCursor {
            node: index.number(),
            after: None,
        })
    }
}

fn last_page() -> SessionsAnswer {
    SessionsAnswer::Page {
        node: None,
        sessions: vec![],
        next: None,
    }
}
