use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn load(places_used: u32, places_max: u32) -> LogicLoad {
    LogicLoad {
        places_used,
        places_max,
        draining: false,
    }
}

fn name(index: u16) -> NodeName {
    format!("logic-{index}").parse().expect("a name")
}

/// A pool in which these nodes are linked, adopted and loaded so.
fn pool(policy: Policy, loads: &[LogicLoad]) -> NodePool {
    let mut pool = NodePool::new(policy);
    for (index, load) in (0..).zip(loads) {
        come(&mut pool, index, LinkId(index.into()), *load);
    }
    pool
}

/// Which name, in its first life.
const fn node(number: u16) -> NodeId {
    NodeId::new(number, 1)
}

fn come(pool: &mut NodePool, index: u16, link: LinkId, load: LogicLoad) -> NodeId {
    let Linked { node, forgotten } = pool.link_up(link, name(index), index).expect("room");
    assert_eq!(forgotten, None);
    pool.advertised(node, vec![SocketAddr::from(([127, 0, 0, 1], 20_000))]);
    pool.reported(node, load);
    pool.adopted(node);
    node
}

#[test]
fn least_loaded_takes_the_smallest_part_in_use_and_of_equals_the_first() {
    let pick = |loads: &[LogicLoad]| pool(Policy::LeastLoaded, loads).pick(None);
    assert_eq!(
        pick(&[load(5, 10), load(40, 100), load(41, 100)]),
        Pick::Node(node(1))
    );
    assert_eq!(pick(&[load(1, 2), load(50, 100)]), Pick::Node(node(0)));
    assert_eq!(pick(&[load(0, 0), load(9, 10)]), Pick::Node(node(1)));
}

#[test]
fn fill_takes_the_first_that_is_not_full() {
    let pick = |loads: &[LogicLoad]| pool(Policy::Fill, loads).pick(None);
    assert_eq!(pick(&[load(9, 10), load(0, 10)]), Pick::Node(node(0)));
    assert_eq!(pick(&[load(10, 10), load(3, 10)]), Pick::Node(node(1)));
}

#[test]
fn fill_goes_by_rank_and_not_by_who_came_first() {
    let mut pool = NodePool::new(Policy::Fill);
    for index in [2, 0, 1] {
        come(&mut pool, index, LinkId(index.into()), load(0, 10));
    }
    let Pick::Node(first) = pool.pick(None) else {
        panic!("all are free");
    };
    assert_eq!(pool.node(first).map(|it| &it.name), Some(&name(0)));
    let Pick::Node(second) = pool.pick(Some(NodeId::new(first.number(), 0))) else {
        panic!("two are left, whichever life the other was in");
    };
    assert_eq!(pool.node(second).map(|it| &it.name), Some(&name(1)));
}

#[test]
fn a_name_is_the_same_node_in_all_its_lives() {
    let mut pool = NodePool::new(Policy::Fill);
    let first = come(&mut pool, 0, LinkId(1), load(0, 10));
    let other = come(&mut pool, 1, LinkId(2), load(0, 10));
    pool.link_down(LinkId(1));
    assert!(pool.node(first).is_none() && pool.by_name(&name(0)).is_none());
    let again = come(&mut pool, 0, LinkId(3), load(0, 10));
    assert!(again.is(first) && again != first && !again.is(other));
    let present = pool.present(first).map(|(id, node)| (id, node.link));
    assert_eq!(present, Some((again, LinkId(3))));
    assert_eq!(
        pool.by_link(LinkId(1)),
        None,
        "nobody speaks for the former life"
    );
}

#[test]
fn where_too_many_are_known_the_one_that_is_cut_off_longest_is_forgotten() {
    let mut pool = NodePool::new(Policy::Fill);
    let all = NODES_MAX as u16;
    for index in 0..all {
        come(&mut pool, index, LinkId(index.into()), load(0, 10));
    }
    let more = |pool: &mut NodePool, link| pool.link_up(LinkId(link), name(all), 0);
    assert_eq!(more(&mut pool, 5_000), Err(TooManyNodes));
    for link in [7, 3, 9] {
        pool.link_down(LinkId(link));
    }
    let linked = more(&mut pool, 5_001).expect("somebody is cut off");
    assert_eq!(linked.node, NodeId::new(3, 2));
    assert_eq!(linked.forgotten, Some(NodeId::new(3, 1)));
    let known = |name: &NodeName| pool.by_name(name).map(|it| it.link);
    assert_eq!(
        (known(&name(all)), known(&name(3))),
        (Some(LinkId(5_001)), None)
    );
}

#[test]
fn full_is_told_from_nobody() {
    let draining = LogicLoad {
        draining: true,
        ..load(0, 10)
    };
    let pick = |loads: &[LogicLoad]| pool(Policy::Fill, loads).pick(None);
    assert_eq!(pick(&[load(10, 10), draining]), Pick::Full);
    assert_eq!(pick(&[draining]), Pick::Nobody);
    assert_eq!(pick(&[]), Pick::Nobody);
}

#[test]
fn a_node_takes_grants_from_its_last_page_to_its_broken_link() {
    let mut pool = NodePool::new(Policy::Fill);
    let (node, link) = (node(0), LinkId(7));
    assert_eq!(pool.link_up(link, name(0), 0).map(|it| it.node), Ok(node));
    pool.advertised(node, vec![SocketAddr::from(([127, 0, 0, 1], 20_000))]);
    pool.reported(node, load(0, 10));
    assert_eq!(pool.pick(None), Pick::Nobody, "not adopted yet");
    pool.adopted(node);
    assert_eq!(pool.pick(None), Pick::Node(node));
    assert_eq!(pool.pick(Some(node)), Pick::Nobody);
    assert_eq!(pool.link_down(link), Some(node));
    assert_eq!(pool.pick(None), Pick::Nobody);
    assert_eq!(pool.link_down(link), None);
}

#[test]
fn who_leaves_a_grant_unanswered_is_passed_over_until_it_speaks() {
    let mut pool = pool(Policy::Fill, &[load(0, 10), load(0, 10)]);
    let unanswered = pool.reserve(node(0)).expect("linked");
    pool.silent(&unanswered);
    assert_eq!(pool.pick(None), Pick::Node(node(1)));
    pool.reported(node(0), load(0, 10));
    assert_eq!(pool.pick(None), Pick::Node(node(0)));
    pool.give_back(unanswered);
}

#[test]
fn what_was_reserved_on_a_broken_link_is_not_given_back_to_the_next_one() {
    let mut pool = pool(Policy::Fill, &[load(0, 1)]);
    let node = node(0);
    let old = pool.reserve(node).expect("linked");
    pool.link_down(old.link());
    assert_eq!(
        come(&mut pool, 0, LinkId(99), load(0, 1)),
        NodeId::new(0, 2)
    );
    let new = pool.reserve(node).expect("linked");
    pool.give_back(old);
    assert_eq!(pool.pick(None), Pick::Full);
    pool.give_back(new);
    assert_eq!(pool.pick(None), Pick::Node(NodeId::new(0, 2)));
}

#[test]
fn a_device_is_sent_to_an_address_of_its_own_family_where_there_is_one() {
    let mut pool = pool(Policy::Fill, &[load(0, 1)]);
    let (v4, v6): (SocketAddr, SocketAddr) = (
        ([10, 0, 0, 1], 1).into(),
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 2).into(),
    );
    let address = |pool: &NodePool, from: SocketAddr| {
        pool.node(node(0))
            .and_then(|node| node.address_for(from.ip()))
    };
    pool.advertised(node(0), vec![v4, v6]);
    assert_eq!(address(&pool, v4), Some(v4));
    assert_eq!(address(&pool, v6), Some(v6));
    pool.advertised(node(0), vec![v4]);
    assert_eq!(address(&pool, v6), Some(v4));
}

/// A logic server as the contract of the link has it: the authority for its places, with a link
/// that delivers in order whenever the model lets it.
struct Logic {
    places_max: u32,
    places: HashSet<u32>,
    link: Option<LinkId>,
    to_node: VecDeque<(u64, u32)>,
    to_pool: VecDeque<(Option<u64>, LogicLoad)>,
}

impl Logic {
    fn load(&self) -> LogicLoad {
        load(self.places.len() as u32, self.places_max)
    }

    /// Takes the next grant; panics where it would have to refuse it.
    fn process(&mut self) {
        if let Some((request, account)) = self.to_node.pop_front() {
            self.places.insert(account);
            assert!(
                self.places.len() as u32 <= self.places_max,
                "sent a grant too many"
            );
            self.to_pool.push_back((Some(request), self.load()));
        }
    }
}

struct Model {
    pool: NodePool,
    nodes: Vec<Logic>,
    reserved: HashMap<u64, (usize, Reservation)>,
    random: SmallRng,
    last_id: u64,
}

impl Model {
    fn new(seed: u64, policy: Policy, places_max: &[u32]) -> Self {
        let node = |places_max: &u32| Logic {
            places_max: *places_max,
            places: HashSet::new(),
            link: None,
            to_node: VecDeque::new(),
            to_pool: VecDeque::new(),
        };
        Self {
            pool: NodePool::new(policy),
            nodes: places_max.iter().map(node).collect(),
            reserved: HashMap::new(),
            random: SmallRng::seed_from_u64(seed),
            last_id: 0,
        }
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// An account that holds a place goes back there; another one where the pool says.
    fn login(&mut self, account: u32) {
        let holds = |node: &Logic| node.link.is_some() && node.places.contains(&account);
        let held = self.nodes.iter().position(holds);
        let index = match held {
            Some(index) => node(index as u16),
            None => match self.pool.pick(None) {
                Pick::Node(index) => index,
                Pick::Full | Pick::Nobody => return,
            },
        };
        let id = self.id();
        let reservation = self.pool.reserve(index).expect("a linked node");
        self.reserved
            .insert(id, (index.number().into(), reservation));
        self.nodes[usize::from(index.number())]
            .to_node
            .push_back((id, account));
    }

    /// The pool hears the next thing that the node said.
    fn hear(&mut self, at: usize) {
        let index = node(at as u16);
        match self.nodes[at].to_pool.pop_front() {
            Some((Some(request), load)) => {
                let (_, reservation) = self.reserved.remove(&request).expect("asked for");
                self.pool.answered(reservation, load);
            }
            Some((None, load)) => self.pool.reported(index, load),
            None => {}
        }
    }

    fn link_up(&mut self, at: usize) {
        let link = LinkId(self.id());
        let node = &mut self.nodes[at];
        node.link = Some(link);
        let load = node.load();
        come(&mut self.pool, at as u16, link, load);
    }

    /// Of what was on its way, the node may have got some; the answers are lost.
    fn link_down(&mut self, at: usize) {
        let Some(link) = self.nodes[at].link.take() else {
            return;
        };
        let down = self.pool.link_down(link).expect("it was linked");
        assert!(down.is(node(at as u16)));
        let node = &mut self.nodes[at];
        let arrived = self.random.random_range(0..=node.to_node.len());
        (0..arrived).for_each(|_| node.process());
        node.to_node.clear();
        node.to_pool.clear();
        let pool = &mut self.pool;
        self.reserved
            .extract_if(|_, (on, _)| *on == at)
            .for_each(|(_, (_, reservation))| pool.give_back(reservation));
    }

    fn step(&mut self) {
        let at = self.random.random_range(0..self.nodes.len());
        match self.random.random_range(0..100) {
            0..=39 => {
                let account = self.random.random_range(0..60);
                self.login(account);
            }
            40..=59 => self.nodes[at].process(),
            60..=79 => self.hear(at),
            80..=89 => {
                let node = &mut self.nodes[at];
                let leaver = node.places.iter().min().copied();
                leaver.map(|account| node.places.remove(&account));
            }
            90..=95 => {
                let load = self.nodes[at].load();
                if self.nodes[at].link.is_some() {
                    self.nodes[at].to_pool.push_back((None, load));
                }
            }
            96..=97 => self.link_down(at),
            _ if self.nodes[at].link.is_none() => self.link_up(at),
            _ => {}
        }
    }
}

proptest! {
    /// P9: however late reports and answers are, no logic server is ever asked for a place that it
    /// does not have; and when all is answered, nothing stays reserved.
    #[test]
    fn stale_reports_never_overfill(
        seed: u64,
        fill: bool,
        places_max in prop::collection::vec(1u32..12, 1..4),
    ) {
        let policy = if fill { Policy::Fill } else { Policy::LeastLoaded };
        let mut model = Model::new(seed, policy, &places_max);
        (0..places_max.len()).for_each(|at| model.link_up(at));
        (0..2_000).for_each(|_| model.step());
        for at in 0..places_max.len() {
            while !model.nodes[at].to_node.is_empty() {
                model.nodes[at].process();
            }
            while !model.nodes[at].to_pool.is_empty() {
                model.hear(at);
            }
            if model.nodes[at].link.is_some() {
                let load = model.nodes[at].load();
                model.pool.reported(node(at as u16), load);
            }
        }
        prop_assert!(model.reserved.is_empty());
        let free: u32 = model.nodes.iter().filter(|node| node.link.is_some())
            .map(|node| node.places_max - node.places.len() as u32)
            .sum();
        prop_assert_eq!(model.pool.places().0, free);
    }
}
