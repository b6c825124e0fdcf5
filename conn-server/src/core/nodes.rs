//! Pure. What logic servers say, and what they are told about sessions that have to end.

use common::link::message::{Adopt, End, Held, Message, Revoke};
use common::link::{LinkId, Peer};
use common::time::Now;

use super::{Core, Effect};
use crate::counters::Counter;
use crate::directory::OpenGrant;
use crate::login::Lost;
use crate::pool::{Linked, Node, NodeId, TooManyNodes};

impl Core {
    pub(super) fn node_up(
        &mut self,
        link: LinkId,
        peer: Peer,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let mut close = |why| effects.push(Effect::CloseLink { link, why });
        let mut targets = (0..).zip(&self.logic_servers);
        let dialled = |target: &String| Some(target) == peer.target.as_ref();
        let Some((rank, _)) = targets.find(|(_, target)| dialled(target)) else {
            close("it is no logic server that was dialled");
            return;
        };
        let (pool, linked) = (&self.desk.pool, &self.linked);
        let is_there = |node: &Node| linked.target(node.link) == peer.target.as_ref();
        if pool.by_name(&peer.node).is_some_and(|it| !is_there(it)) {
            close("another logic server has the same name");
            return;
        }
        // A link that broke and is not known to have.
        let before = pool.iter().find(|(_, node)| is_there(node));
        if let Some(before) = before.map(|(_, node)| node.link) {
            self.node_down(before, now, effects);
        }
        match self.desk.pool.link_up(link, peer.node, rank) {
            Ok(Linked { node, forgotten }) => {
                if let Some(forgotten) = forgotten {
                    self.desk.directory.forgotten(forgotten);
                }
                self.desk.directory.adoption_began(node);
            }
            Err(TooManyNodes) => effects.push(Effect::CloseLink {
                link,
                why: "too many logic servers",
            }),
        }
    }

    pub(super) fn node_down(&mut self, link: LinkId, now: Now, effects: &mut Vec<Effect>) {
        let Some(node) = self.desk.pool.link_down(link) else {
            return;
        };
        let on_link = self.asked.extract_if(|_, asked| asked.link == link);
        let mut lost: Vec<_> = on_link.map(|(id, asked)| (id, asked.login)).collect();
        lost.sort_unstable();
        for login in lost.into_iter().filter_map(|(_, login)| login) {
            self.step(login, now, effects, |login, desk| {
                login.grant_lost(Lost::LinkDown, desk, now)
            });
        }
        self.commands_lost(node, effects);
        effects.extend(self.census.lost(node));
    }

    pub(super) fn node_says(
        &mut self,
        link: LinkId,
        message: Message,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(node) = self.desk.pool.by_link(link) else {
            return;
        };
        match message {
            Message::LogicInfo(info) => {
                self.desk.pool.advertised(node, info.advertise);
                self.desk.pool.reported(node, info.load);
            }
            Message::LogicLoad(load) => self.desk.pool.reported(node, load),
            Message::Adopt(page) => self.adopt(node, link, page, now, effects),
            Message::Attached(attached) => {
                for held in &attached.sessions {
                    self.attached(node, *held, effects);
                }
                if now.ms < self.doubted_until_ms {
                    let held = attached.sessions;
                    effects.push(Effect::CheckVersions { link, held });
                }
            }
            Message::Ended(ended) => {
                for (account_id, epoch) in ended.sessions {
                    self.desk.directory.session_ended(node, account_id, epoch);
                }
                for (account_id, epoch) in ended.grants {
                    self.desk.directory.grant_closed(node, account_id, epoch);
                }
            }
            _ => {} // Nothing else passes the link.
        }
    }

    /// A page of what the node holds. The last one puts it to use.
    fn adopt(
        &mut self,
        node: NodeId,
        link: LinkId,
        page: Adopt,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        for held in &page.sessions {
            self.attached(node, *held, effects);
        }
        for held in &page.grants {
            // Which other conn server made it, and for how long, is not known: not longer than ours.
            let grant = OpenGrant {
                node,
                epoch: held.epoch,
                account_version: held.account_version,
                expires_ms: now.ms + u64::from(self.desk.rules.grant_ttl_ms),
                ticket: None,
            };
            self.desk.directory.granted(held.account_id, grant);
        }
        let mut held = page.sessions;
        held.extend(page.grants);
        if !held.is_empty() {
            effects.push(Effect::CheckVersions { link, held });
        }
        if page.last {
            self.desk.directory.adoption_ended(node);
            self.desk.pool.adopted(node);
        }
    }

    /// A session began or is listed: of two on different nodes the older one ends. A node that is
    /// cut off is told when it lists its sessions.
    fn attached(&mut self, node: NodeId, held: Held, effects: &mut Vec<Effect>) {
        let Some(outdated) = self.desk.directory.attached(node, held) else {
            return;
        };
        if let Some(node) = self.desk.pool.node(outdated.node) {
            self.desk.counters.count(Counter::EndedElsewhere);
            let end = End {
                account_id: outdated.account_id,
                below: outdated.below,
            };
            effects.push(Effect::Notice {
                link: node.link,
                message: end.into(),
            });
        }
    }

    pub(super) fn revoke_everywhere(&mut self, revoke: Revoke, effects: &mut Vec<Effect>) {
        self.desk
            .directory
            .revoked(revoke.account_id, revoke.below_version);
        for (_, node) in self.desk.pool.iter() {
            self.desk.counters.count(Counter::Revoked);
            effects.push(Effect::Notice {
                link: node.link,
                message: revoke.into(),
            });
        }
    }

    /// On one node, where it is still linked.
    pub(super) fn revoke_on(&mut self, link: LinkId, revoke: Revoke, effects: &mut Vec<Effect>) {
        if self.desk.pool.by_link(link).is_some() {
            self.desk
                .directory
                .revoked(revoke.account_id, revoke.below_version);
            self.desk.counters.count(Counter::Revoked);
            effects.push(Effect::Notice {
                link,
                message: revoke.into(),
            });
        }
    }
}
