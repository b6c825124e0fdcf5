//! Pure. The logic servers of this conn server: which of them takes the next grant.
//!
//! A logic server is the authority for its own places and refuses what does not fit. What is kept
//! here is an estimate that never sends it too many: its last report, and on top one place for
//! every grant that it was asked for and has not answered. A link keeps its order, so an answer's
//! load counts every grant up to this one, and a report that was sent before a grant arrived cannot
//! come after the answer to it: `reported + reserved` is never less than what is in use there.
//!
//! ```text
//! up ── hello, pages of Adopt ──▶ adopted ── takes grants ──▶ silent (a grant was not answered in time)
//!  ▲                                   ▲  └─ draining          └── says anything ──▶ takes grants
//!  └──────────── down ◀── link broken ─┘
//! ```
//!
//! A node takes grants only when its adoption is complete. Before that its sessions are not known,
//! and a grant made meanwhile could not be told from one that the last page of the adoption clears away.

use std::net::{IpAddr, SocketAddr};

use common::config::Policy;
use common::ids::NodeName;
use common::link::LinkId;
use common::link::message::{LogicLoad, NodeState, Places};

/// A logic server, by its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(pub u16);

/// Whose place is free for a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    Node(NodeIndex),
    /// There are logic servers that take grants, and every one is at its limit.
    Full,
    /// No logic server takes grants now: cut off, starting or draining.
    Nobody,
}

/// One grant that a node was asked for. Given back with the answer, or when the answer can no
/// longer come.
#[derive(Debug)]
#[must_use = "a reservation that is not given back stays counted until its link breaks"]
pub struct Reservation {
    node: NodeIndex,
    link: LinkId,
}

impl Reservation {
    pub fn link(&self) -> LinkId {
        self.link
    }
}

/// A logic server whose link stands.
#[derive(Debug)]
pub struct Node {
    pub link: LinkId,
    pub name: NodeName,
    /// At most one address per family.
    pub advertise: Vec<SocketAddr>,
    reported: LogicLoad,
    /// Places of the grants that are not answered yet.
    reserved: u32,
    adopted: bool,
    silent: bool,
}

impl Node {
    fn takes_grants(&self) -> bool {
        let reachable = self.adopted && !self.silent && !self.advertise.is_empty();
        reachable && !self.reported.draining
    }

    fn places_used(&self) -> u32 {
        self.reported.places_used.saturating_add(self.reserved)
    }

    pub fn places_free(&self) -> u32 {
        self.reported.places_max.saturating_sub(self.places_used())
    }

    pub fn places_max(&self) -> u32 {
        self.reported.places_max
    }

    /// As operators see it.
    pub fn state(&self) -> NodeState {
        if self.reported.draining {
            NodeState::Draining
        } else if self.silent {
            NodeState::Silent
        } else if self.adopted {
            NodeState::Up
        } else {
            NodeState::Adopting
        }
    }

    /// By its own last word.
    pub fn places(&self) -> Places {
        Places {
            used: self.reported.places_used,
            max: self.reported.places_max,
        }
    }

    /// Where a device that came from `source` reaches it: by the same family where it has one.
    pub fn address_for(&self, source: IpAddr) -> Option<SocketAddr> {
        let same_family = |address: &&SocketAddr| address.is_ipv4() == source.is_ipv4();
        let mut addresses = self.advertise.iter();
        addresses
            .find(same_family)
            .or(self.advertise.first())
            .copied()
    }
}

#[derive(Debug)]
pub struct NodePool {
    policy: Policy,
    /// By [`NodeIndex`]; `None` while the link is down.
    nodes: Vec<Option<Node>>,
}

impl NodePool {
    pub fn new(policy: Policy, nodes: u16) -> Self {
        Self {
            policy,
            nodes: (0..nodes).map(|_| None).collect(),
        }
    }

    /// The link stands; nothing is known of the node yet.
    pub fn link_up(&mut self, node: NodeIndex, link: LinkId, name: NodeName) {
        if let Some(place) = self.nodes.get_mut(usize::from(node.0)) {
            *place = Some(Node {
                link,
                name,
                advertise: Vec::new(),
                reported: LogicLoad::default(),
                reserved: 0,
                adopted: false,
                silent: false,
            });
        }
    }

    /// The node is out at once, with all that was reserved there.
    pub fn link_down(&mut self, link: LinkId) -> Option<NodeIndex> {
        let node = self.by_link(link)?;
        self.nodes[usize::from(node.0)] = None;
        Some(node)
    }

    pub fn advertised(&mut self, node: NodeIndex, advertise: Vec<SocketAddr>) {
        if let Some(node) = self.node_mut(node) {
            node.advertise = advertise;
        }
    }

    /// The node said how many places are in use.
    pub fn reported(&mut self, node: NodeIndex, load: LogicLoad) {
        if let Some(node) = self.node_mut(node) {
            node.reported = load;
            node.silent = false;
        }
    }

    /// All pages of what it holds have come.
    pub fn adopted(&mut self, node: NodeIndex) {
        if let Some(node) = self.node_mut(node) {
            node.adopted = true;
        }
    }

    /// It left a grant unanswered: not picked again before it says something.
    pub fn silent(&mut self, unanswered: &Reservation) {
        if let Some(node) = self.node_mut(unanswered.node)
            && node.link == unanswered.link
        {
            node.silent = true;
        }
    }

    /// Counts one place more until the answer comes; `None` where the link is down.
    ///
    /// A grant for an account that is counted there already takes a place, too: its session may end
    /// before the grant arrives.
    pub fn reserve(&mut self, node: NodeIndex) -> Option<Reservation> {
        let entry = self.node_mut(node)?;
        entry.reserved += 1;
        let link = entry.link;
        Some(Reservation { node, link })
    }

    /// The node answered, and said how many places are in use now that it did.
    pub fn answered(&mut self, reservation: Reservation, load: LogicLoad) {
        self.reported(reservation.node, load);
        self.give_back(reservation);
    }

    /// The answer has come, or cannot come any more. What was reserved on a link that broke
    /// meanwhile went with it.
    pub fn give_back(&mut self, reservation: Reservation) {
        if let Some(node) = self.node_mut(reservation.node)
            && node.link == reservation.link
        {
            assert!(node.reserved > 0, "a place was given back twice");
            node.reserved -= 1;
        }
    }

    /// The node for an account that holds no place anywhere, other than `except`.
    pub fn pick(&self, except: Option<NodeIndex>) -> Pick {
        let open = || {
            self.iter()
                .filter(|(index, node)| node.takes_grants() && Some(*index) != except)
        };
        let mut free = open().filter(|(_, node)| node.places_free() > 0);
        let picked = match self.policy {
            Policy::Fill => free.next(),
            // Compared as fractions without dividing: used_a / max_a < used_b / max_b.
            Policy::LeastLoaded => free.min_by(|(_, a), (_, b)| {
                let weighed =
                    |x: &Node, y: &Node| u64::from(x.places_used()) * u64::from(y.places_max());
                weighed(a, b).cmp(&weighed(b, a))
            }),
        };
        match picked {
            Some((index, _)) => Pick::Node(index),
            None if open().next().is_some() => Pick::Full,
            None => Pick::Nobody,
        }
    }

    /// Whether the node may be asked for a grant, full or not.
    pub fn takes_grants(&self, node: NodeIndex) -> bool {
        self.node(node).is_some_and(Node::takes_grants)
    }

    pub fn node(&self, node: NodeIndex) -> Option<&Node> {
        self.nodes.get(usize::from(node.0))?.as_ref()
    }

    pub fn by_link(&self, link: LinkId) -> Option<NodeIndex> {
        self.iter()
            .find_map(|(index, node)| (node.link == link).then_some(index))
    }

    /// Nodes whose link stands, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        let numbered = (0..).map(NodeIndex).zip(&self.nodes);
        numbered.filter_map(|(index, node)| Some((index, node.as_ref()?)))
    }

    /// Nodes that take grants.
    pub fn ready(&self) -> usize {
        self.iter().filter(|(_, node)| node.takes_grants()).count()
    }

    /// Places of the nodes that take grants: (free, in all).
    pub fn places(&self) -> (u32, u32) {
        let mut sum = (0_u32, 0_u32);
        for (_, node) in self.iter().filter(|(_, node)| node.takes_grants()) {
            sum.0 = sum.0.saturating_add(node.places_free());
            sum.1 = sum.1.saturating_add(node.places_max());
        }
        sum
    }

    fn node_mut(&mut self, node: NodeIndex) -> Option<&mut Node> {
        self.nodes.get_mut(usize::from(node.0))?.as_mut()
    }
}

#[cfg(test)]
mod tests;
