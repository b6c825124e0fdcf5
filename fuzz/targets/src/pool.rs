//! A sequence of operations on a conn server's picture of its logic servers: links, reports,
//! reservations, answers that come, come late, or never.

use common::config::Policy;
use common::link::LinkId;
use common::link::message::LogicLoad;
use conn_server::pool::{NodeId, NodePool, Pick, Reservation};

use crate::choices::Choices;

const NODES: u16 = 3;

#[derive(Clone)]
struct Node {
    link: LinkId,
    load: LogicLoad,
    reserved: u32,
    is_adopted: bool,
    is_silent: bool,
    is_advertised: bool,
}

impl Node {
    fn takes_grants(&self) -> bool {
        self.is_adopted && !self.is_silent && self.is_advertised && !self.load.draining
    }

    fn used(&self) -> u64 {
        u64::from(self.load.places_used) + u64::from(self.reserved)
    }

    fn free(&self) -> u64 {
        u64::from(self.load.places_max).saturating_sub(self.used())
    }
}

pub fn pool(data: &[u8]) {
    let mut choices = Choices::new(data);
    let policy = choices.pick(&[Policy::LeastLoaded, Policy::Fill]);
    let mut pool = NodePool::new(policy);
    let name = |index: u16| format!("logic-{index}").parse().unwrap();
    let mut links = 0;
    // Their numbers, in this order.
    for index in 0..NODES {
        links += 1;
        let linked = pool.link_up(LinkId(links), name(index), index).unwrap();
        assert_eq!(linked.node, NodeId::new(index, 1));
        pool.link_down(LinkId(links));
    }
    let mut lives = [1; NODES as usize];
    let mut nodes: Vec<Option<Node>> = vec![None; NODES.into()];
    let mut open: Vec<(NodeId, LinkId, Reservation)> = vec![];
    while choices.next_step() {
        // Beyond the last one, too: nothing may come of it.
        let index = choices.below(u32::from(NODES) + 1) as u16;
        let life = lives.get(usize::from(index)).copied();
        let node = NodeId::new(index, life.unwrap_or_default());
        let mut known = nodes.get_mut(usize::from(index)).and_then(Option::as_mut);
        match choices.below(12) {
            0 => {
                links += 1;
                let link = LinkId(links);
                if let Some(place) = nodes.get_mut(usize::from(index)) {
                    let life = &mut lives[usize::from(index)];
                    *life += 1;
                    let linked = pool.link_up(link, name(index), index).unwrap();
                    assert_eq!(linked.node, NodeId::new(index, *life));
                    *place = Some(Node {
                        link,
                        load: LogicLoad::default(),
                        reserved: 0,
                        is_adopted: false,
                        is_silent: false,
                        is_advertised: false,
                    });
                }
            }
            1 if choices.once_in(3) => {
                let link = known.map_or(LinkId(999), |it| it.link);
                let was_up = nodes.get(usize::from(index)).is_some_and(Option::is_some);
                assert_eq!(pool.link_down(link), was_up.then_some(node));
                if let Some(place) = nodes.get_mut(usize::from(index)) {
                    *place = None;
                }
            }
            1..4 => {
                let load = load(&mut choices);
                pool.reported(node, load);
                if let Some(known) = &mut known {
                    (known.load, known.is_silent) = (load, false);
                }
            }
            4 => {
                pool.adopted(node);
                pool.advertised(node, vec!["192.0.2.1:1".parse().unwrap()]);
                if let Some(known) = &mut known {
                    (known.is_adopted, known.is_advertised) = (true, true);
                }
            }
            5..8 => {
                let reservation = pool.reserve(node);
                assert_eq!(reservation.is_some(), known.is_some());
                if let (Some(reservation), Some(known)) = (reservation, known) {
                    known.reserved += 1;
                    open.push((node, known.link, reservation));
                }
            }
            _ if !open.is_empty() => {
                let at = choices.below(open.len() as u32) as usize;
                let (node, link, reservation) = open.swap_remove(at);
                let known = nodes[usize::from(node.number())].as_mut();
                // On another link since: what was reserved went with the old one.
                let mut known = known.filter(|it| it.link == link);
                match choices.below(3) {
                    0 => {
                        pool.silent(&reservation);
                        if let Some(known) = &mut known {
                            known.is_silent = true;
                        }
                        open.push((node, link, reservation));
                    }
                    // An answer comes on the link that was asked, or not at all.
                    1 if known.is_some() => {
                        let load = load(&mut choices);
                        pool.answered(reservation, load);
                        let known = known.unwrap();
                        (known.load, known.is_silent) = (load, false);
                        known.reserved -= 1;
                    }
                    _ => {
                        pool.give_back(reservation);
                        if let Some(known) = known {
                            known.reserved -= 1;
                        }
                    }
                }
            }
            _ => {}
        }
        check(&pool, &nodes, policy);
    }
}

fn load(choices: &mut Choices<'_>) -> LogicLoad {
    LogicLoad {
        places_used: choices.pick(&[0, 1, 2, 3, u32::MAX]),
        places_max: choices.pick(&[3, 0, 1, 10, u32::MAX]),
        draining: choices.once_in(6),
    }
}

/// Every node stands as the model has it, and the picked one is the policy's.
fn check(pool: &NodePool, nodes: &[Option<Node>], policy: Policy) {
    let numbered = || (0..).map(|number| NodeId::new(number, 0)).zip(nodes);
    let open = numbered().filter_map(|(index, node)| Some((index, node.as_ref()?)));
    let open: Vec<_> = open.filter(|(_, node)| node.takes_grants()).collect();
    assert_eq!(pool.ready(), open.len());
    for (index, node) in numbered() {
        let known = node.as_ref();
        assert_eq!(pool.node(index).map(|it| it.link), known.map(|it| it.link));
        assert_eq!(
            pool.takes_grants(index),
            known.is_some_and(Node::takes_grants)
        );
        if let (Some(found), Some(known)) = (pool.node(index), known) {
            assert_eq!(u64::from(found.places_free()), known.free());
            assert!(pool.by_link(known.link).is_some_and(|it| it.is(index)));
        }
    }
    for except in [None, Some(NodeId::new(0, 0)), Some(NodeId::new(1, 0))] {
        let others = || open.iter().filter(|(index, _)| Some(*index) != except);
        let free: Vec<_> = others().filter(|(_, node)| node.free() > 0).collect();
        match pool.pick(except) {
            Pick::Nobody => assert_eq!(others().count(), 0),
            Pick::Full => assert!(others().count() > 0 && free.is_empty()),
            Pick::Node(picked) => {
                let index = free.iter().position(|(index, _)| index.is(picked));
                let index = index.expect("one with a free place");
                // Its share of places in use is the smallest, of equals it is the first.
                let share =
                    |node: &Node| (u128::from(node.used()), u128::from(node.load.places_max));
                let (used, max) = share(free[index].1);
                match policy {
                    Policy::Fill => assert_eq!(index, 0),
                    Policy::LeastLoaded => {
                        for (other, (_, node)) in free.iter().enumerate() {
                            let (other_used, other_max) = share(node);
                            let (ours, theirs) = (used * other_max, other_used * max);
                            assert!(ours < theirs || (ours == theirs && index <= other));
                        }
                    }
                }
            }
        }
    }
}
