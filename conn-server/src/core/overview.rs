//! Pure. The processes that this conn server is linked to, for operators: what it knows of them, and
//! what they say of themselves when they are asked.

use std::collections::{BTreeMap, HashMap};

use common::ids::NodeName;
use common::link::message::{
    Figures, FiguresAsk, Message, NODES_PAGE_MAX, NodeState, NodeView, NodesAnswer, Places,
};
use common::link::{Asker, LinkId, Peer, Role};
use common::time::Now;

use super::{Core, Effect, Timer};
use crate::counters::{Counter, Gauge};
use crate::pool::Node;

/// Overviews at once. More are answered `Busy`.
const OVERVIEWS_OPEN_MAX: usize = 16;

/// Whoever did not say by then what it counted is shown without.
const FIGURES_WITHIN_MS: u64 = 500;

/// What the hellos of the links said.
#[derive(Debug, Default)]
pub(super) struct Linked {
    peers: BTreeMap<LinkId, Peer>,
    /// Who was there when a target was last linked to: so many at most as are dialled.
    names: BTreeMap<String, NodeName>,
}

impl Linked {
    pub(super) fn up(&mut self, link: LinkId, peer: Peer) {
        if let Some(target) = &peer.target {
            self.names.insert(target.clone(), peer.node.clone());
        }
        self.peers.insert(link, peer);
    }

    pub(super) fn down(&mut self, link: LinkId) {
        self.peers.remove(&link);
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// 0 where no link stands.
    pub(super) fn version(&self, link: LinkId) -> u16 {
        self.peers.get(&link).map_or(0, |peer| peer.version)
    }

    pub(super) fn peer(&self, link: LinkId) -> Option<&Peer> {
        self.peers.get(&link)
    }

    /// What was dialled, where it was.
    pub(super) fn target(&self, link: LinkId) -> Option<&String> {
        self.peer(link)?.target.as_ref()
    }

    fn balancers(&self) -> impl Iterator<Item = (LinkId, &Peer)> {
        let peers = self.peers.iter();
        peers
            .filter(|(_, peer)| peer.role == Role::Balancer)
            .map(|(link, peer)| (*link, peer))
    }
}

/// Overviews that wait for figures.
#[derive(Debug, Default)]
pub(super) struct Overviews {
    open: HashMap<u64, Open>,
    /// Which view of which overview the answer to a request completes.
    asked: HashMap<u64, (u64, usize)>,
}

#[derive(Debug)]
struct Open {
    asker: Asker,
    nodes: Vec<NodeView>,
    missing: usize,
}

impl Overviews {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_open(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }
}

impl Core {
    pub(super) fn nodes_asked(&mut self, asker: Asker, now: Now, effects: &mut Vec<Effect>) {
        self.desk.counters.count(Counter::Questions);
        if self.overviews.open.len() >= OVERVIEWS_OPEN_MAX {
            effects.push(Effect::answer(&asker, NodesAnswer::Busy));
            return;
        }
        let id = self.new_id();
        let until_ms = asker.until_ms.min(now.ms + FIGURES_WITHIN_MS);
        let (nodes, links) = self.nodes(now);
        let mut missing = 0;
        for (place, link) in links {
            let message = Message::from(FiguresAsk);
            if self.linked.version(link) < message.since_version() {
                continue;
            }
            missing += 1;
            let request = self.new_id();
            self.overviews.asked.insert(request, (id, place));
            effects.push(Effect::Request {
                link,
                id: request,
                deadline_ms: now.until(until_ms),
                message,
            });
        }
        let open = Open {
            asker,
            nodes,
            missing,
        };
        self.overviews.open.insert(id, open);
        match missing {
            0 => self.overview_ends(id, effects),
            _ => self.set_timer(until_ms, Timer::Nodes(id)),
        }
    }

    pub(super) fn figures_told(
        &mut self,
        request: u64,
        figures: Figures,
        effects: &mut Vec<Effect>,
    ) {
        let Some((id, place)) = self.overviews.asked.remove(&request) else {
            return;
        };
        let Some(open) = self.overviews.open.get_mut(&id) else {
            return;
        };
        if let Some(node) = open.nodes.get_mut(place) {
            node.figures = Some(figures.bounded());
        }
        open.missing -= 1;
        if open.missing == 0 {
            self.overview_ends(id, effects);
        }
    }

    /// Tells what there is.
    pub(super) fn overview_ends(&mut self, id: u64, effects: &mut Vec<Effect>) {
        let Some(open) = self.overviews.open.remove(&id) else {
            return;
        };
        self.overviews.asked.retain(|_, (of, _)| *of != id);
        let pages = open.nodes.chunks(NODES_PAGE_MAX);
        let last = pages.len().saturating_sub(1);
        for (index, nodes) in pages.enumerate() {
            let nodes = nodes.to_vec();
            let more = index < last;
            let answer = NodesAnswer::Page { nodes, more };
            effects.push(Effect::answer(&open.asker, answer));
        }
    }

    /// All nodes, and of those that can be asked where they stand among them.
    fn nodes(&self, now: Now) -> (Vec<NodeView>, Vec<(usize, LinkId)>) {
        let mut nodes = vec![self.own_view(now)];
        let mut links = vec![];
        for target in &self.logic_servers {
            let mut linked = self.desk.pool.iter();
            let is_there = |node: &Node| self.linked.target(node.link) == Some(target);
            let node = linked.find(|(_, node)| is_there(node));
            let node = node.map(|(_, node)| node);
            if let Some(node) = node {
                links.push((nodes.len(), node.link));
            }
            nodes.push(NodeView {
                role: Role::Logic,
                name: self.linked.names.get(target).cloned(),
                link: target.clone(),
                state: node.map_or(NodeState::Down, |node| node.state()),
                link_version: node.map_or(0, |node| self.linked.version(node.link)),
                places: node.map(|node| node.places()),
                figures: None,
            });
        }
        for (link, peer) in self.linked.balancers() {
            links.push((nodes.len(), link));
            nodes.push(NodeView {
                role: Role::Balancer,
                name: Some(peer.node.clone()),
                link: peer.address.to_string(),
                state: NodeState::Up,
                link_version: peer.version,
                places: None,
                figures: None,
            });
        }
        (nodes, links)
    }

    fn own_view(&self, now: Now) -> NodeView {
        let (free, max) = self.desk.pool.places();
        NodeView {
            role: Role::Conn,
            name: None,
            link: String::new(),
            state: match self.shutting_down {
                true => NodeState::Draining,
                false => NodeState::Up,
            },
            link_version: 0,
            places: Some(Places {
                used: max - free,
                max,
            }),
            figures: Some(self.own_figures(now)),
        }
    }

    /// As it is now.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        let load = self.load();
        match gauge {
            Gauge::Nodes => self.desk.pool.ready() as u64,
            Gauge::Sessions => self.desk.directory.sessions() as u64,
            Gauge::LoginsOpen => load.logins_open.into(),
            Gauge::PlacesFree => load.places_free.into(),
            Gauge::PlacesMax => load.places_max.into(),
        }
    }

    fn own_figures(&self, now: Now) -> Figures {
        let gauges = Gauge::ALL.iter();
        let gauges = gauges.map(|&gauge| (gauge.name(), self.gauge(gauge)));
        let counters = self.desk.counters.iter();
        let counters = counters.map(|(counter, count)| (counter.name(), count));
        Figures::new(now.ms, vec![], gauges.chain(counters))
    }
}
