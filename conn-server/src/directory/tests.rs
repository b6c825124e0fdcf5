use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

const A: NodeId = NodeId::new(0, 1);
/// Linked anew.
const A_AGAIN: NodeId = NodeId::new(0, 2);
const B: NodeId = NodeId::new(1, 1);
const ACCOUNT: AccountId = AccountId(5);

fn epoch(n: u64) -> Epoch {
    Epoch::at_ms(n)
}

fn held(epoch_ms: u64) -> Held {
    Held {
        account_id: ACCOUNT,
        epoch: epoch(epoch_ms),
        account_version: 1,
    }
}

fn grant(node: NodeId, epoch_ms: u64) -> OpenGrant {
    OpenGrant {
        node,
        epoch: epoch(epoch_ms),
        account_version: 1,
        expires_ms: 30_000,
        ticket: None,
    }
}

fn places(directory: &Directory, now_ms: u64) -> Vec<NodeId> {
    directory.places(ACCOUNT, now_ms).collect()
}

#[test]
fn a_newer_session_elsewhere_ends_the_older_one() {
    let mut directory = Directory::default();
    assert_eq!(directory.attached(A, held(10)), None);
    let outdated = directory.attached(B, held(20)).expect("the one on A");
    assert_eq!((outdated.node, outdated.below), (A, epoch(20)));
    directory.session_ended(A, ACCOUNT, epoch(10));
    assert_eq!(directory.session(ACCOUNT).map(|at| at.node), Some(B));
}

#[test]
fn an_older_session_that_attaches_late_is_the_one_that_ends() {
    let mut directory = Directory::default();
    directory.attached(A, held(20));
    let outdated = directory.attached(B, held(10)).expect("the one on B");
    assert_eq!((outdated.node, outdated.below), (B, epoch(20)));
    assert_eq!(directory.session(ACCOUNT).map(|at| at.node), Some(A));
}

#[test]
fn a_node_replaces_its_own_sessions_by_itself() {
    let mut directory = Directory::default();
    directory.attached(A, held(10));
    assert_eq!(directory.attached(A, held(20)), None);
    directory.session_ended(A, ACCOUNT, epoch(10));
    let session = directory.session(ACCOUNT).expect("the newer one");
    assert_eq!(session.epoch, epoch(20));
}

#[test]
fn a_node_that_is_cut_off_keeps_its_newer_session_here() {
    let mut directory = Directory::default();
    directory.attached(A, held(20));
    // A's link breaks; then a grant from before attaches on B.
    let outdated = directory.attached(B, held(10)).expect("the one on B");
    assert_eq!(outdated.node, B);
    // A comes back without it.
    directory.adoption_began(A_AGAIN);
    directory.adoption_ended(A_AGAIN);
    assert_eq!(directory.session(ACCOUNT), None);
    assert_eq!(directory.sessions(), 0);
}

#[test]
fn a_node_may_list_an_older_session_than_was_known_of_it() {
    // Cut off, its session ended, and a grant from before was used.
    let mut directory = Directory::default();
    directory.attached(A, held(20));
    directory.adoption_began(A_AGAIN);
    assert_eq!(directory.attached(A_AGAIN, held(15)), None);
    directory.adoption_ended(A_AGAIN);
    let session = directory.session(ACCOUNT).expect("the listed one");
    assert_eq!(session.epoch, epoch(15));
}

#[test]
fn what_is_not_listed_is_gone_and_what_is_stays() {
    let mut directory = Directory::default();
    let other = Held {
        account_id: AccountId(6),
        ..held(3)
    };
    directory.attached(A, held(10));
    directory.attached(A, other);
    directory.granted(ACCOUNT, grant(A, 12));
    directory.granted(ACCOUNT, grant(B, 13));
    directory.adoption_began(A_AGAIN);
    directory.attached(A_AGAIN, other);
    directory.adoption_ended(A_AGAIN);
    assert_eq!(directory.session(ACCOUNT), None);
    assert!(directory.session(AccountId(6)).is_some());
    assert_eq!(places(&directory, 0), [B], "its grant on A is gone, too");
}

#[test]
fn an_end_that_comes_before_the_page_with_its_session_is_heeded() {
    let mut directory = Directory::default();
    directory.attached(A, held(10));
    directory.granted(ACCOUNT, grant(A, 12));
    directory.adoption_began(A_AGAIN);
    directory.session_ended(A_AGAIN, ACCOUNT, epoch(10));
    assert_eq!(directory.session(ACCOUNT), None);
}

#[test]
fn of_a_node_that_is_forgotten_nothing_is_known() {
    let mut directory = Directory::default();
    directory.attached(A, held(10));
    directory.granted(ACCOUNT, grant(A, 12));
    directory.granted(ACCOUNT, grant(B, 13));
    directory.forgotten(A_AGAIN);
    assert_eq!(directory.session(ACCOUNT), None);
    assert_eq!(places(&directory, 0), [B]);
    directory.forgotten(B);
    assert_eq!((directory.accounts(), directory.sessions()), (0, 0));
}

#[test]
fn a_login_goes_to_the_session_first_and_then_to_the_newest_grant() {
    let mut directory = Directory::default();
    directory.granted(ACCOUNT, grant(B, 13));
    directory.granted(ACCOUNT, grant(NodeId::new(2, 1), 12));
    assert_eq!(places(&directory, 0), [B, NodeId::new(2, 1)]);
    directory.attached(A, held(10));
    assert_eq!(places(&directory, 0), [A, B, NodeId::new(2, 1)]);
    assert_eq!(places(&directory, 30_000), [A], "the grants have expired");
}

#[test]
fn a_fifth_open_grant_drops_the_oldest() {
    let mut directory = Directory::default();
    for n in 1..=5 {
        directory.granted(ACCOUNT, grant(A, n));
    }
    let open = |n| directory.open_grant(ACCOUNT, epoch(n), 0).is_some();
    assert_eq!([1, 2, 3, 4, 5].map(open), [false, true, true, true, true]);
}

#[test]
fn a_grant_is_open_until_it_is_used_closed_revoked_or_expired() {
    let closes: [fn(&mut Directory); 4] = [
        |_| {},
        |directory| assert_eq!(directory.attached(A, held(9)), None),
        |directory| directory.grant_closed(A, ACCOUNT, epoch(9)),
        |directory| directory.revoked(ACCOUNT, 2),
    ];
    for (index, close) in closes.iter().enumerate() {
        let mut directory = Directory::default();
        directory.granted(ACCOUNT, grant(A, 9));
        close(&mut directory);
        let open = directory.open_grant(ACCOUNT, epoch(9), 29_999).is_some();
        assert_eq!(open, index == 0, "{index}");
        assert!(directory.open_grant(ACCOUNT, epoch(9), 30_000).is_none());
    }
}

#[test]
fn nothing_is_kept_of_an_account_that_holds_nothing() {
    let mut directory = Directory::default();
    directory.granted(ACCOUNT, grant(A, 9));
    directory.attached(A, held(9));
    directory.session_ended(A, ACCOUNT, epoch(9));
    assert!(directory.accounts.is_empty());
    directory.granted(ACCOUNT, grant(A, 10));
    directory.grant_closed(A, ACCOUNT, epoch(10));
    assert!(directory.accounts.is_empty());
}

/// What a logic server does about sessions, and its link.
#[derive(Default)]
struct Logic {
    sessions: BTreeMap<AccountId, Epoch>,
    linked: bool,
    life: u16,
    said: VecDeque<Said>,
    told: VecDeque<Outdated>,
}

enum Said {
    Page(Vec<Held>, bool),
    Attached(Held),
    Ended(AccountId, Epoch),
}

struct Model {
    directory: Directory,
    nodes: Vec<Logic>,
    random: SmallRng,
    last_epoch: u64,
    /// Epochs granted and not used yet.
    granted: Vec<(usize, AccountId, Epoch)>,
}

impl Model {
    fn link_up(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.linked = true;
        node.life += 1;
        let id = NodeId::new(at as u16, node.life);
        self.directory.adoption_began(id);
        let held = node.sessions.iter().map(|(account_id, epoch)| Held {
            account_id: *account_id,
            epoch: *epoch,
            account_version: 1,
        });
        let held: Vec<_> = held.collect();
        for page in held.chunks(2) {
            node.said.push_back(Said::Page(page.to_vec(), false));
        }
        node.said.push_back(Said::Page(vec![], true));
    }

    fn link_down(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.linked = false;
        node.said.clear();
        node.told.clear();
    }

    /// The node's own rule: a newer epoch replaces, an older one is not admitted.
    fn attach(&mut self, at: usize, account_id: AccountId, epoch: Epoch) {
        let node = &mut self.nodes[at];
        let before = node.sessions.get(&account_id).copied();
        if before.is_some_and(|before| before > epoch) {
            return;
        }
        node.sessions.insert(account_id, epoch);
        if node.linked {
            node.said.push_back(Said::Attached(Held {
                account_id,
                epoch,
                account_version: 1,
            }));
            if let Some(before) = before {
                node.said.push_back(Said::Ended(account_id, before));
            }
        }
    }

    fn end(&mut self, at: usize, account_id: AccountId, below: Epoch) {
        let node = &mut self.nodes[at];
        let ends = node
            .sessions
            .get(&account_id)
            .is_some_and(|epoch| *epoch < below);
        if ends
            && let Some(epoch) = node.sessions.remove(&account_id)
            && node.linked
        {
            node.said.push_back(Said::Ended(account_id, epoch));
        }
    }

    /// The conn server hears the next thing that the node said.
    fn hear(&mut self, at: usize) {
        let index = NodeId::new(at as u16, self.nodes[at].life);
        let outdated: Vec<_> = match self.nodes[at].said.pop_front() {
            None => vec![],
            Some(Said::Attached(held)) => {
                self.directory.attached(index, held).into_iter().collect()
            }
            Some(Said::Page(page, last)) => {
                let outdated = page
                    .iter()
                    .filter_map(|held| self.directory.attached(index, *held));
                let outdated = outdated.collect();
                if last {
                    self.directory.adoption_ended(index);
                }
                outdated
            }
            Some(Said::Ended(account_id, epoch)) => {
                self.directory.session_ended(index, account_id, epoch);
                vec![]
            }
        };
        for outdated in outdated {
            let node = &mut self.nodes[usize::from(outdated.node.number())];
            if node.linked {
                node.told.push_back(outdated);
            }
        }
    }

    /// The node hears the next thing that it was told.
    fn obey(&mut self, at: usize) {
        if let Some(outdated) = self.nodes[at].told.pop_front() {
            self.end(at, outdated.account_id, outdated.below);
        }
    }

    fn step(&mut self) {
        let at = self.random.random_range(0..self.nodes.len());
        let account = AccountId(self.random.random_range(0..5));
        match self.random.random_range(0..100) {
            0..=14 => {
                self.last_epoch += 1;
                self.granted.push((at, account, epoch(self.last_epoch)));
            }
            15..=34 if !self.granted.is_empty() => {
                let used = self.random.random_range(0..self.granted.len());
                let (at, account, epoch) = self.granted.swap_remove(used);
                self.attach(at, account, epoch);
            }
            35..=39 => self.end(at, account, epoch(u64::from(u32::MAX))),
            40..=69 => self.hear(at),
            70..=89 => self.obey(at),
            90..=93 => self.link_down(at),
            _ if !self.nodes[at].linked => self.link_up(at),
            _ => {}
        }
    }

    fn settle(&mut self) {
        for at in 0..self.nodes.len() {
            if !self.nodes[at].linked {
                self.link_up(at);
            }
        }
        while self
            .nodes
            .iter()
            .any(|node| !node.said.is_empty() || !node.told.is_empty())
        {
            for at in 0..self.nodes.len() {
                self.hear(at);
                self.obey(at);
            }
        }
    }
}

proptest! {
    /// P5: whatever is cut, late or repeated, once every node is heard and obeys, an account has at
    /// most one session, and the directory knows which.
    #[test]
    fn one_session_of_an_account_remains_and_is_known(seed: u64, steps in 1usize..400) {
        let mut model = Model {
            directory: Directory::default(),
            nodes: (0..3).map(|_| Logic::default()).collect(),
            random: SmallRng::seed_from_u64(seed),
            last_epoch: 0,
            granted: vec![],
        };
        (0..steps).for_each(|_| model.step());
        model.settle();
        let mut sessions = BTreeMap::new();
        for (at, node) in model.nodes.iter().enumerate() {
            for (account_id, epoch) in &node.sessions {
                let other = sessions.insert(*account_id, (at, *epoch));
                prop_assert_eq!(other, None, "two sessions of {}", account_id);
            }
        }
        prop_assert_eq!(model.directory.sessions(), sessions.len());
        for (account_id, (at, epoch)) in sessions {
            let known = model.directory.session(account_id);
            prop_assert_eq!(known.map(|known| (usize::from(known.node.number()), known.epoch)), Some((at, epoch)));
        }
    }
}
