//! Pure. What the conn servers are told: what the node holds, what began and ended, and its load.
//!
//! A link that is new gets the node's sessions and grants page by page, one a turn, in the order
//! of accounts. What begins and ends meanwhile is told to every link as usual, behind the page
//! that went before: so what a conn server knows is right once it has the last page.

use std::collections::BTreeMap;

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::LinkId;
use common::link::message::{
    ADOPT_PAGE_MAX, Adopt, Attached, Ended, GRANTS_PER_ACCOUNT_MAX, Held, LogicInfo, LogicLoad,
    Message,
};

use super::Effect;
use super::grants::{Grant, Grants};
use super::places::{Current, Places};

/// Load is told this often at least, so that silence is never taken for calm.
const LOAD_MS: u64 = 1_000;
/// And on change, but not for every login of a storm.
const LOAD_MS_MIN: u64 = 50;

/// How far a link has been told what the node holds: up to this account, or all of it.
#[derive(Clone, Copy)]
enum Told {
    UpTo(Option<AccountId>),
    All,
}

#[derive(Default)]
pub(super) struct Notices {
    links: BTreeMap<LinkId, Told>,
    attached: Vec<Held>,
    ended_sessions: Vec<(AccountId, Epoch)>,
    ended_grants: Vec<(AccountId, Epoch)>,
    /// The load last told, and when.
    load: LogicLoad,
    load_at_ms: u64,
}

impl Notices {
    pub(super) fn link_up(&mut self, link: LinkId, info: LogicInfo, effects: &mut Vec<Effect>) {
        self.links.insert(link, Told::UpTo(None));
        effects.push(Effect::Notice {
            link,
            message: info.into(),
        });
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        self.links.remove(&link);
        // A later link is told how things are then: it must not hear of what was before.
        if self.links.is_empty() {
            self.forget_gathered();
        }
    }

    /// Conn servers that are linked.
    pub(super) fn links(&self) -> usize {
        self.links.len()
    }

    /// What has gathered since the last turn.
    pub(super) fn gathered(&self) -> usize {
        self.attached.len() + self.ended_sessions.len() + self.ended_grants.len()
    }

    pub(super) fn attached(&mut self, account_id: AccountId, current: &Current) {
        if !self.links.is_empty() {
            self.attached.push(held(account_id, current));
        }
    }

    pub(super) fn session_ended(&mut self, account_id: AccountId, epoch: Epoch) {
        if !self.links.is_empty() {
            self.ended_sessions.push((account_id, epoch));
        }
    }

    pub(super) fn grant_ended(&mut self, grant: &Grant) {
        if !self.links.is_empty() {
            self.ended_grants.push((grant.account_id, grant.epoch));
        }
    }

    /// Sends what has gathered in a turn.
    pub(super) fn flush(
        &mut self,
        load: LogicLoad,
        places: &Places,
        grants: &Grants,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        if self.links.is_empty() {
            return;
        }
        for (&link, told) in &mut self.links {
            if let Told::UpTo(account_id) = *told {
                let (page, up_to) = page(places, grants, account_id);
                *told = up_to;
                effects.push(Effect::Notice {
                    link,
                    message: page.into(),
                });
            }
        }
        // Beginnings first: a session that both began and ended in this turn is over.
        for sessions in self.attached.chunks(ADOPT_PAGE_MAX) {
            let sessions = sessions.to_vec();
            broadcast(Attached { sessions }, effects);
        }
        for sessions in self.ended_sessions.chunks(ADOPT_PAGE_MAX) {
            let (sessions, grants) = (sessions.to_vec(), vec![]);
            broadcast(Ended { sessions, grants }, effects);
        }
        for grants in self.ended_grants.chunks(ADOPT_PAGE_MAX) {
            let (sessions, grants) = (vec![], grants.to_vec());
            broadcast(Ended { sessions, grants }, effects);
        }
        self.forget_gathered();
        if self.load_due_ms(load).is_some_and(|due| due <= now_ms) {
            self.load = load;
            self.load_at_ms = now_ms;
            broadcast(load, effects);
        }
    }

    /// When [`Notices::flush`] has something to send.
    pub(super) fn next_deadline_ms(&self, load: LogicLoad) -> Option<u64> {
        let has_more = !self.attached.is_empty()
            || !self.ended_sessions.is_empty()
            || !self.ended_grants.is_empty()
            || self
                .links
                .values()
                .any(|told| matches!(told, Told::UpTo(_)));
        if has_more {
            Some(0)
        } else {
            self.load_due_ms(load)
        }
    }

    fn forget_gathered(&mut self) {
        self.attached.clear();
        self.ended_sessions.clear();
        self.ended_grants.clear();
    }

    fn load_due_ms(&self, load: LogicLoad) -> Option<u64> {
        let wait_ms = if load.draining != self.load.draining {
            0
        } else if load != self.load {
            LOAD_MS_MIN
        } else {
            LOAD_MS
        };
        (!self.links.is_empty()).then(|| self.load_at_ms + wait_ms)
    }
}

fn held(account_id: AccountId, current: &Current) -> Held {
    Held {
        account_id,
        epoch: current.epoch,
        account_version: current.account_version,
    }
}

/// The accounts that come next, each with all that it holds.
fn page(places: &Places, grants: &Grants, after: Option<AccountId>) -> (Adopt, Told) {
    let mut page = Adopt {
        sessions: vec![],
        grants: vec![],
        last: true,
    };
    let mut up_to = after;
    for (account_id, current) in places.after(after) {
        if page.sessions.len() >= ADOPT_PAGE_MAX
            || page.grants.len() + GRANTS_PER_ACCOUNT_MAX > ADOPT_PAGE_MAX
        {
            page.last = false;
            return (page, Told::UpTo(up_to));
        }
        page.sessions
            .extend(current.map(|current| held(account_id, &current)));
        page.grants
            .extend(grants.of_account(account_id).map(|grant| Held {
                account_id,
                epoch: grant.epoch,
                account_version: grant.account_version,
            }));
        up_to = Some(account_id);
    }
    (page, Told::All)
}

fn broadcast(message: impl Into<Message>, effects: &mut Vec<Effect>) {
    effects.push(Effect::Broadcast {
        message: message.into(),
    });
}
