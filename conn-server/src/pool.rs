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

/// Logic servers that are known at once, linked or not. A name beyond it takes the place of the one that has been cut
/// off longest; with all of them linked, it is refused.
pub const NODES_MAX: usize = 1_024;

/// A logic server in one of its lives: its name, as a number here (an account's entry has one), and the how many'th
/// time it is that it is linked. What was heard of it in an earlier life holds until this one has confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    name: u16,
    life: u16,
}

impl NodeId {
    pub const fn new(name: u16, life: u16) -> Self {
        Self { name, life }
    }

    /// The number of its name: the same in all its lives, and another name's once this one is forgotten.
    pub const fn number(self) -> u16 {
        self.name
    }

    /// The same node, in whichever lives.
    pub const fn is(self, other: Self) -> bool {
        self.name == other.name
    }
}

/// What a link to a node brings about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked {
    pub node: NodeId,
    /// The node whose number it has from now on: nothing that was known of that one holds any more.
    pub forgotten: Option<NodeId>,
}

/// As many as may be are known, and all of them are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyNodes;

/// Whose place is free for a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    Node(NodeId),
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
    node: NodeId,
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
    /// Of the nodes that `fill` fills, the first is the one with the least.
    rank: u16,
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
    /// By the numbers of their names.
    known: Vec<Known>,
}

/// A name that was heard of.
#[derive(Debug)]
struct Known {
    name: NodeName,
    life: u16,
    /// The last one; they are counted up.
    link: LinkId,
    /// `None` while the link is down.
    node: Option<Node>,
}

impl NodePool {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            known: vec![],
        }
    }

    /// A link to the node of this name stands, in place of an earlier one; nothing is known of it yet. `rank`: where
    /// `fill` comes to it.
    ///
    /// # Errors
    /// There is no number for its name.
    pub fn link_up(
        &mut self,
        link: LinkId,
        name: NodeName,
        rank: u16,
    ) -> Result<Linked, TooManyNodes> {
        let node = Node {
            link,
            name: name.clone(),
            rank,
            advertise: Vec::new(),
            reported: LogicLoad::default(),
            reserved: 0,
            adopted: false,
            silent: false,
        };
        let number = self.known.iter().position(|known| known.name == name);
        let (number, is_new) = match number {
            Some(number) => (number, false),
            None => (self.number_for(&name, link)?, true),
        };
        let known = &mut self.known[number];
        let (number, before) = (number as u16, known.life);
        let forgotten = is_new.then_some(NodeId::new(number, before));
        known.life = before.wrapping_add(1);
        known.name = name;
        known.link = link;
        known.node = Some(node);
        Ok(Linked {
            node: NodeId::new(number, known.life),
            forgotten: forgotten.filter(|_| before > 0),
        })
    }

    /// A number that is free, or that of the node that has been cut off longest.
    fn number_for(&mut self, name: &NodeName, link: LinkId) -> Result<usize, TooManyNodes> {
        if self.known.len() < NODES_MAX {
            self.known.push(Known {
                name: name.clone(),
                life: 0,
                link,
                node: None,
            });
            return Ok(self.known.len() - 1);
        }
        let cut_off = self.known.iter().enumerate();
        let cut_off = cut_off.filter(|(_, known)| known.node.is_none());
        let longest = cut_off.min_by_key(|(_, known)| known.link);
        longest.map(|(number, _)| number).ok_or(TooManyNodes)
    }

    /// The node is out at once, with all that was reserved there.
    pub fn link_down(&mut self, link: LinkId) -> Option<NodeId> {
        let node = self.by_link(link)?;
        self.known[usize::from(node.name)].node = None;
        Some(node)
    }

    pub fn advertised(&mut self, node: NodeId, advertise: Vec<SocketAddr>) {
        if let Some(node) = self.node_mut(node) {
            node.advertise = advertise;
        }
    }

    /// The node said how many places are in use.
    pub fn reported(&mut self, node: NodeId, load: LogicLoad) {
        if let Some(node) = self.node_mut(node) {
            node.reported = load;
            node.silent = false;
        }
    }

    /// All pages of what it holds have come.
    pub fn adopted(&mut self, node: NodeId) {
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
    pub fn reserve(&mut self, node: NodeId) -> Option<Reservation> {
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
    pub fn pick(&self, except: Option<NodeId>) -> Pick {
        let is_excepted = |id: NodeId| except.is_some_and(|except| except.is(id));
        let open = || {
            self.iter()
                .filter(|(id, node)| node.takes_grants() && !is_excepted(*id))
        };
        let free = open().filter(|(_, node)| node.places_free() > 0);
        let picked = match self.policy {
            Policy::Fill => free.min_by_key(|(_, node)| node.rank),
            // Compared as fractions without dividing: used_a / max_a < used_b / max_b.
            Policy::LeastLoaded => free.min_by(|(_, a), (_, b)| {
                let weighed =
                    |x: &Node, y: &Node| u64::from(x.places_used()) * u64::from(y.places_max());
                weighed(a, b).cmp(&weighed(b, a))
            }),
        };
        match picked {
            Some((id, _)) => Pick::Node(id),
            None if open().next().is_some() => Pick::Full,
            None => Pick::Nobody,
        }
    }

    /// Whether the node may be asked for a grant, full or not.
    pub fn takes_grants(&self, node: NodeId) -> bool {
        self.node(node).is_some_and(Node::takes_grants)
    }

    /// The node in its present life, if it is linked.
    pub fn node(&self, node: NodeId) -> Option<&Node> {
        self.present(node).map(|(_, node)| node)
    }

    /// The same, with what it is called in this life.
    pub fn present(&self, node: NodeId) -> Option<(NodeId, &Node)> {
        let known = self.known.get(usize::from(node.name))?;
        Some((NodeId::new(node.name, known.life), known.node.as_ref()?))
    }

    pub fn by_link(&self, link: LinkId) -> Option<NodeId> {
        self.iter()
            .find_map(|(id, node)| (node.link == link).then_some(id))
    }

    pub fn by_name(&self, name: &NodeName) -> Option<&Node> {
        let named = self.iter().find(|(_, node)| node.name == *name);
        named.map(|(_, node)| node)
    }

    /// Nodes whose link stands, in the order in which they were first heard of.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let numbered = (0..).zip(&self.known);
        numbered.filter_map(|(number, known)| {
            Some((NodeId::new(number, known.life), known.node.as_ref()?))
        })
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

    fn node_mut(&mut self, node: NodeId) -> Option<&mut Node> {
        self.known.get_mut(usize::from(node.name))?.node.as_mut()
    }
}

#[cfg(test)]
mod tests;
