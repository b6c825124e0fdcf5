#![allow(clippy::unwrap_used)]

mod operator;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use common::config::Policy;
use common::epoch::NodeNumber;
use common::ids::{AccountId, Nonce};
use common::link::Peer;
use common::link::message::{
    self, AccountCommand, Adopt, Attached, CommandAnswer, End, Grant, GrantAnswer,
    GrantCheckAnswer, GrantVerdict, Held, LogicInfo, LogicLoad, Order, RevokeReason,
};
use common::pacing::Rate;
use common::secret::{DeviceKey, Secret};
use proptest::prelude::*;
use protocols::rcu::code::LoginStatus;
use protocols::rcu::frame::HEADER_BYTES;
use protocols::rcu::login::{self, LoginReply};
use rand::rngs::{SmallRng, StdRng};
use rand::{RngExt, SeedableRng};

use super::*;
use crate::account::{Account, ChangeKind};
use crate::counters::Counter;
use crate::desk::Rules;
use crate::directory::Directory;
use crate::epochs::Epochs;
use crate::login::GRANTED_WITHIN_MS;
use crate::nonces::Nonces;
use crate::pool::{NodeId, NodePool};
use crate::throttle::{Limits, Throttle};

const KEY: DeviceKey = Secret::new([7; 32]);
const BALANCER: LinkId = LinkId(1);
const OPERATOR: LinkId = LinkId(2);
const UNIX_MS: u64 = 1_800_000_000_000;

/// A core, and around it a balancer and logic servers that a test plays.
struct World {
    core: Core,
    now_ms: u64,
    effects: Vec<Effect>,
    last_nonce: u64,
    /// Of links that come up.
    version: u16,
}

fn logic(index: u16) -> LinkId {
    LinkId(100 + u64::from(index))
}

fn target(index: u16) -> String {
    format!("127.0.0.1:{}", 30_000 + index)
}

fn load(free: u32) -> LogicLoad {
    LogicLoad {
        places_used: 10 - free,
        places_max: 10,
        draining: false,
    }
}

fn account(id: i64) -> Account {
    Account {
        id: AccountId(id),
        key: KEY,
        version: 1,
        enabled: true,
    }
}

fn held(id: i64, epoch: Epoch) -> Held {
    Held {
        account_id: AccountId(id),
        epoch,
        account_version: 1,
    }
}

impl World {
    /// With a balancer, and this many logic servers dialled but not linked.
    fn new(nodes: u16, logins_open_max: usize) -> Self {
        let limits = Limits {
            in_all: Rate::UNLIMITED,
            per_source: Rate::UNLIMITED,
            sources_max: 16,
            guesses_max: 16,
        };
        let desk = Desk {
            rules: Rules {
                grant_ttl_ms: 30_000,
                clock_skew_max_ms: 300_000,
                source_exact: true,
                heartbeat_s: None,
            },
            throttle: Throttle::new(limits, 1),
            nonces: Nonces::new(1_000),
            pool: NodePool::new(Policy::Fill),
            directory: Directory::default(),
            epochs: Epochs::new(NodeNumber::new(0).unwrap(), Epoch::ZERO),
            counters: Counters::default(),
            tickets: StdRng::seed_from_u64(1),
            waits: SmallRng::seed_from_u64(1),
        };
        let mut world = Self {
            core: Core::new(desk, (0..nodes).map(target).collect(), logins_open_max),
            now_ms: 1_000_000,
            effects: vec![],
            last_nonce: 0,
            version: 2,
        };
        world.apply(Input::Tick);
        for effect in world.take() {
            if let Effect::StoreMark(mark) = effect {
                world.apply(Input::MarkStored(Some(mark)));
            }
        }
        world.up(BALANCER, Role::Balancer, "balancer-1", None);
        world.up(OPERATOR, Role::Operator, "operator", None);
        world.take();
        world
    }

    /// With this many logic servers that are linked and adopted.
    fn with_nodes(nodes: u16) -> Self {
        let mut world = Self::new(nodes, 1_000);
        for index in 0..nodes {
            world.node_up(index);
            world.adopt(index, vec![]);
        }
        world.take();
        world
    }

    fn apply(&mut self, input: Input) {
        let unix_ms = UNIX_MS + self.now_ms;
        self.core
            .apply(input, self.now_ms, unix_ms, &mut self.effects);
    }

    fn link(&mut self, event: LinkEvent) {
        self.apply(Input::Link(event));
    }

    fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn up(&mut self, link: LinkId, role: Role, node: &str, target: Option<String>) {
        let peer = Peer {
            role,
            node: node.parse().unwrap(),
            version: self.version,
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            target,
        };
        self.link(LinkEvent::Up { link, peer });
    }

    fn node_up(&mut self, index: u16) {
        let node = format!("logic-{index}");
        self.up(logic(index), Role::Logic, &node, Some(target(index)));
        self.says(
            index,
            LogicInfo {
                advertise: vec![SocketAddr::from(([127, 0, 0, 1], 20_000 + index))],
                load: load(10),
            },
        );
    }

    fn node_down(&mut self, index: u16) {
        self.link(LinkEvent::Down {
            link: logic(index),
            why: "a test".into(),
        });
    }

    fn adopt(&mut self, index: u16, sessions: Vec<Held>) {
        self.says(
            index,
            Adopt {
                sessions,
                grants: vec![],
                last: true,
            },
        );
    }

    fn attached(&mut self, index: u16, session: Held) {
        self.says(
            index,
            Attached {
                sessions: vec![session],
            },
        );
    }

    fn says(&mut self, index: u16, message: impl Into<Message>) {
        self.link(LinkEvent::Notice {
            link: logic(index),
            message: message.into(),
            epoch: Epoch::ZERO,
        });
    }

    fn answers(&mut self, index: u16, id: u64, message: impl Into<Message>) {
        self.link(LinkEvent::Answer {
            link: logic(index),
            id,
            message: message.into(),
            epoch: Epoch::ZERO,
        });
    }

    fn grants(&mut self, index: u16, id: u64) {
        let answer = GrantAnswer {
            verdict: GrantVerdict::Granted,
            load: load(9),
        };
        self.answers(index, id, answer);
    }

    fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.apply(Input::Tick);
    }

    /// A login up to the look-up of its account: the id of that.
    fn login(&mut self, request: u64) -> Option<u64> {
        self.last_nonce += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.last_nonce.to_le_bytes());
        let name = "rcu-000001".parse().unwrap();
        let sent_at_ms = UNIX_MS + self.now_ms;
        let mut frame = vec![];
        login::Login::sign(&name, "1.2.0", sent_at_ms, Nonce(nonce), &KEY).encode(1, &mut frame);
        self.link(LinkEvent::Request {
            link: BALANCER,
            id: request,
            deadline_ms: 3_000,
            message: message::Login {
                source: [10, 0, 0, 1].into(),
                body: frame.split_off(HEADER_BYTES),
            }
            .into(),
            epoch: Epoch::ZERO,
        });
        self.effects.iter().find_map(|effect| match effect {
            Effect::LookUp { id, .. } => Some(*id),
            _ => None,
        })
    }

    /// A login up to the question to a logic server: its link, the request and the grant.
    fn login_asks(&mut self, request: u64, account: Account) -> (LinkId, u64, Grant) {
        let id = self.login(request).unwrap();
        self.take();
        let found = Found::Account(account);
        self.apply(Input::Found { id, found });
        self.asked().pop().unwrap()
    }

    /// The grants that logic servers were asked for since.
    fn asked(&mut self) -> Vec<(LinkId, u64, Grant)> {
        let asked = self.effects.iter().filter_map(|effect| match effect {
            Effect::Request {
                link,
                id,
                message: Message::Grant(grant),
                ..
            } => Some((*link, *id, grant.clone())),
            _ => None,
        });
        asked.collect()
    }

    /// What balancers were answered since.
    fn replies(&mut self) -> Vec<(u64, LoginStatus)> {
        let replies = self.take().into_iter().filter_map(|effect| match effect {
            Effect::Answer {
                link: BALANCER,
                id,
                message: Message::LoginAnswer(answer),
            } => Some((id, LoginReply::decode_body(&answer.body).unwrap().status())),
            _ => None,
        });
        replies.collect()
    }

    /// What logic servers were told since.
    fn told(&mut self) -> Vec<(LinkId, Message)> {
        let told = self.take().into_iter().filter_map(|effect| match effect {
            Effect::Notice { link, message } if link != BALANCER => Some((link, message)),
            _ => None,
        });
        told.collect()
    }

    /// What the operator was answered since.
    fn command_answers(&mut self) -> Vec<CommandAnswer> {
        let answers = self.take().into_iter().filter_map(|effect| match effect {
            Effect::Answer {
                link: OPERATOR,
                message: Message::CommandAnswer(answer),
                ..
            } => Some(answer),
            _ => None,
        });
        answers.collect()
    }

    fn count(&self, counter: Counter) -> u64 {
        self.core.counters().of(counter)
    }
}

/// What logic servers were asked about open grants since.
fn checks(world: &mut World) -> Vec<(LinkId, u64)> {
    let checks = world.take().into_iter().filter_map(|effect| match effect {
        Effect::Request {
            link,
            id,
            message: Message::GrantCheck(_),
            ..
        } => Some((link, id)),
        _ => None,
    });
    checks.collect()
}

#[test]
fn the_same_login_again_is_answered_by_what_its_logic_server_says_of_the_grant() {
    let mut world = World::with_nodes(1);
    let (_, id, _) = world.login_asks(7, account(5));
    world.grants(0, id);
    world.take();
    let again = |world: &mut World, request| {
        world.last_nonce -= 1;
        let id = world.login(request).unwrap();
        world.take();
        let found = Found::Account(account(5));
        world.apply(Input::Found { id, found });
        let checks = checks(world);
        assert_eq!(checks.len(), 1, "asked about, and nothing reserved");
        assert_eq!(world.core.load().places_free, 9);
        checks[0].1
    };
    for (request, is_open, status) in [(8, true, LoginStatus::Ok), (9, false, LoginStatus::Refused)]
    {
        let id = again(&mut world, request);
        // An answer of another kind is none.
        world.grants(0, id);
        assert_eq!(world.replies(), []);
        world.answers(0, id, GrantCheckAnswer { is_open });
        assert_eq!(world.replies(), [(request, status)]);
    }
    again(&mut world, 10);
    world.wait(GRANTED_WITHIN_MS);
    assert_eq!(world.replies(), [(10, LoginStatus::Busy)]);
    again(&mut world, 11);
    world.node_down(0);
    assert_eq!(world.replies(), [(11, LoginStatus::Busy)]);
    assert_eq!(world.core.load().logins_open, 0);
}

#[test]
fn a_login_is_answered_when_its_grant_is_acknowledged() {
    let mut world = World::with_nodes(1);
    let (link, id, grant) = world.login_asks(7, account(5));
    assert_eq!(link, logic(0));
    assert_eq!(grant.ttl_ms, 30_000);
    assert_eq!(world.replies(), []);
    world.grants(0, id);
    let notes = world.effects.iter();
    let notes = notes.filter(|effect| matches!(effect, Effect::NoteLastLogin(_)));
    assert_eq!(notes.count(), 1);
    assert_eq!(world.replies(), [(7, LoginStatus::Ok)]);
    assert_eq!(world.core.load().logins_open, 0);
}

#[test]
fn an_account_that_cannot_be_looked_up_in_time_means_busy() {
    let mut world = World::with_nodes(1);
    let id = world.login(7).unwrap();
    world.wait(399);
    assert_eq!(world.replies(), []);
    world.wait(1);
    assert_eq!(world.replies(), [(7, LoginStatus::Busy)]);
    let found = Found::Account(account(5));
    world.apply(Input::Found { id, found });
    assert_eq!(world.take(), [], "too late");
}

#[test]
fn two_silent_nodes_are_given_up_within_2400_ms() {
    let mut world = World::with_nodes(3);
    let (first, id, _) = world.login_asks(7, account(5));
    world.take();
    world.wait(1_000);
    let (second, other_id, _) = world.asked().pop().unwrap();
    assert_eq!((first, second), (logic(0), logic(1)));
    assert_eq!(world.replies(), []);
    world.wait(1_000);
    assert_eq!(world.replies(), [(7, LoginStatus::Busy)]);

    // Both are passed over until they speak; their places stay reserved until they answer …
    let (third, _, _) = world.login_asks(8, account(6));
    assert_eq!(third, logic(2));
    assert_eq!(world.core.load().places_max, 10);
    world.grants(0, id);
    assert_eq!(
        world
            .core
            .desk()
            .pool
            .node(NodeId::new(0, 1))
            .unwrap()
            .places_free(),
        9
    );
    // … or their grants must have expired.
    world.says(1, load(10));
    let free = |world: &World| {
        world
            .core
            .desk()
            .pool
            .node(NodeId::new(1, 1))
            .unwrap()
            .places_free()
    };
    assert_eq!(free(&world), 9);
    world.wait(30_000);
    assert_eq!(free(&world), 10);
    world.take();
    world.grants(1, other_id);
    assert_eq!(world.replies(), [], "nobody waits for it any more");
}

#[test]
fn a_broken_link_sends_its_logins_elsewhere_at_once() {
    let mut world = World::with_nodes(2);
    world.login_asks(7, account(5));
    world.take();
    world.node_down(0);
    let (link, id, _) = world.asked().pop().unwrap();
    assert_eq!(link, logic(1));
    world.take();
    world.grants(1, id);
    assert_eq!(world.replies(), [(7, LoginStatus::Ok)]);
    assert_eq!(world.count(Counter::GrantLinkLost), 1);
}

#[test]
fn an_answer_on_another_link_is_not_believed() {
    let mut world = World::with_nodes(2);
    let (_, id, _) = world.login_asks(7, account(5));
    world.take();
    world.grants(1, id);
    assert_eq!(world.replies(), []);
    world.grants(0, id);
    assert_eq!(world.replies(), [(7, LoginStatus::Ok)]);
}

#[test]
fn a_newer_session_ends_the_older_one_on_another_node() {
    let mut world = World::with_nodes(2);
    let (older, newer) = (Epoch::at_ms(1), Epoch::at_ms(2));
    let end = |link| {
        let end = End {
            account_id: AccountId(5),
            below: newer,
        };
        vec![(link, end.into())]
    };
    world.attached(0, held(5, older));
    assert_eq!(world.told(), []);
    world.attached(1, held(5, newer));
    assert_eq!(world.told(), end(logic(0)));
    world.attached(0, held(5, older));
    assert_eq!(world.told(), end(logic(0)), "one that attaches late, too");
}

#[test]
fn after_a_restart_nodes_list_what_they_hold_and_the_older_of_two_ends() {
    let mut world = World::new(2, 1_000);
    world.node_up(0);
    world.node_up(1);
    assert_eq!(
        world.core.load().places_max,
        0,
        "not before they are adopted"
    );
    world.adopt(0, vec![held(5, Epoch::at_ms(2)), held(6, Epoch::at_ms(3))]);
    assert_eq!(world.told(), []);
    world.adopt(1, vec![held(5, Epoch::at_ms(1))]);
    let end = End {
        account_id: AccountId(5),
        below: Epoch::at_ms(2),
    };
    assert_eq!(world.told(), [(logic(1), end.into())]);
    assert_eq!(world.core.desk().directory.sessions(), 2);
    assert_eq!(world.core.load().places_max, 20);
    // A login of an account with a session goes where that is.
    let (link, ..) = world.login_asks(7, account(6));
    assert_eq!(link, logic(0));
}

fn is_look_up(effect: &Effect) -> bool {
    matches!(effect, Effect::LookUp { .. })
}

fn change(kind: ChangeKind, version: u32) -> Change {
    Change {
        account_id: AccountId(5),
        name: "rcu-000001".parse().unwrap(),
        version,
        kind,
    }
}

#[test]
fn a_changed_account_is_revoked_on_every_node_and_its_logins_are_judged_again() {
    let mut world = World::with_nodes(2);
    let (_, id, _) = world.login_asks(7, account(5));
    let (_, other_id, _) = world.login_asks(8, account(6));
    world.take();
    world.apply(Input::Changed(change(ChangeKind::KeyRotated, 2)));
    let revoke = Revoke {
        account_id: AccountId(5),
        below_version: 2,
        why: RevokeReason::KeyRotated,
    };
    let notices = world.effects.iter().filter_map(|effect| match effect {
        Effect::Notice { link, message } => Some((*link, message.clone())),
        _ => None,
    });
    let notices: Vec<_> = notices.collect();
    assert_eq!(
        notices,
        [(logic(0), revoke.into()), (logic(1), revoke.into())]
    );
    let again: Vec<_> = world.take().into_iter().filter(is_look_up).collect();
    let [Effect::LookUp { id: login, .. }] = again[..] else {
        panic!("not the one login of the two: {again:?}");
    };
    world.grants(0, id);
    assert_eq!(world.replies(), [], "its ticket was revoked");
    let directory = &world.core.desk().directory;
    assert_eq!(directory.places(AccountId(5), world.now_ms).count(), 0);
    world.grants(0, other_id);
    assert_eq!(world.replies(), [(8, LoginStatus::Ok)]);
    // It is judged by the account of now, under whose key its proof is wrong.
    let rotated = Account {
        key: Secret::new([8; 32]),
        version: 2,
        ..account(5)
    };
    let found = Found::Account(rotated);
    world.apply(Input::Found { id: login, found });
    assert_eq!(world.replies(), [(7, LoginStatus::Refused)]);

    world.apply(Input::Changed(change(ChangeKind::Enabled, 3)));
    assert_eq!(world.take(), [], "nobody has to leave for that");
}

#[test]
fn a_node_that_was_cut_off_hears_of_changes_when_it_is_back() {
    let mut world = World::with_nodes(1);
    world.node_down(0);
    world.node_up(0);
    world.take();
    let (session, grant) = (held(5, Epoch::at_ms(1)), held(6, Epoch::at_ms(2)));
    world.says(
        0,
        Adopt {
            sessions: vec![session],
            grants: vec![grant],
            last: false,
        },
    );
    let check = Effect::CheckVersions {
        link: logic(0),
        held: vec![session, grant],
    };
    assert_eq!(world.take(), [check]);
    let revoke = Revoke {
        account_id: AccountId(6),
        below_version: u32::MAX,
        why: RevokeReason::Disabled,
    };
    let stale = |link| Input::Stale {
        link,
        revocations: vec![revoke],
    };
    world.apply(stale(logic(0)));
    assert_eq!(world.told(), [(logic(0), revoke.into())]);
    assert_eq!(
        world.core.desk().directory.places(AccountId(6), 0).count(),
        0
    );
    world.node_down(0);
    world.apply(stale(logic(0)));
    assert_eq!(world.told(), [], "it lists again what it holds");
}

#[test]
fn a_database_that_went_back_has_all_checked_and_judged_anew() {
    let mut world = World::with_nodes(2);
    world.attached(0, held(6, Epoch::at_ms(1)));
    world.attached(1, held(7, Epoch::at_ms(2)));
    let (_, granted, open) = world.login_asks(8, account(8));
    world.grants(0, granted);
    let (_, id, _) = world.login_asks(9, account(9));
    world.take();

    world.apply(Input::WentBack);
    let effects = world.take();
    let open = Held {
        account_id: AccountId(8),
        epoch: open.epoch,
        account_version: 1,
    };
    let checks = [
        (logic(0), vec![held(6, Epoch::at_ms(1)), open]),
        (logic(1), vec![held(7, Epoch::at_ms(2))]),
    ];
    for (link, held) in checks {
        let check = Effect::CheckVersions { link, held };
        assert!(effects.contains(&check), "{check:?} is not in {effects:?}");
    }
    assert_eq!(
        effects.iter().filter(|effect| is_look_up(effect)).count(),
        1
    );
    let mark = effects.iter().find_map(|effect| match effect {
        Effect::StoreMark(mark) => Some(*mark),
        _ => None,
    });
    assert!(mark.unwrap() > open.epoch, "epochs grow over a restart");
    world.grants(0, id);
    assert_eq!(world.replies(), [], "it was judged by what does not hold");

    // Another conn server may not have noticed yet, and grant by what it remembers.
    let late = held(10, Epoch::at_ms(3));
    world.attached(1, late);
    let check = Effect::CheckVersions {
        link: logic(1),
        held: vec![late],
    };
    assert_eq!(world.take(), [check]);
    world.wait(60_000);
    world.take();
    world.attached(1, held(11, Epoch::at_ms(4)));
    assert_eq!(world.take(), [], "by then all have noticed");
}

fn command(world: &mut World, deadline_ms: u32) -> u64 {
    world.take();
    world.link(LinkEvent::Request {
        link: OPERATOR,
        id: 70,
        deadline_ms,
        message: AccountCommand {
            account: "rcu-000001".parse().unwrap(),
            order: Order {
                command_id: 9,
                deadline_ms: 0,
                code: 1,
                payload: vec![1, 2],
            },
        }
        .into(),
        epoch: Epoch::ZERO,
    });
    let [Effect::LookUp { id, .. }] = world.take()[..] else {
        panic!("no look-up");
    };
    id
}

fn replied(more: bool) -> CommandAnswer {
    CommandAnswer::Replied {
        status: 0,
        more,
        payload: vec![],
    }
}

#[test]
fn a_command_goes_to_the_session_and_its_answers_come_back() {
    let mut world = World::with_nodes(2);
    world.attached(1, held(5, Epoch::at_ms(1)));
    let id = command(&mut world, 5_000);
    let found = Found::Account(account(5));
    world.apply(Input::Found { id, found });
    let effects = world.take();
    let [
        Effect::Request {
            link,
            id,
            deadline_ms: 5_000,
            message: Message::Command(sent),
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(*link, logic(1));
    assert_eq!((sent.account_id, sent.order.command_id), (AccountId(5), 9));
    world.answers(0, *id, replied(false));
    assert_eq!(world.command_answers(), [], "not its node");
    world.answers(1, *id, replied(true));
    world.answers(1, *id, replied(false));
    world.answers(1, *id, replied(false));
    assert_eq!(world.command_answers(), [replied(true), replied(false)]);
}

/// Found by the fuzz target `login`: such a login was counted as a command.
#[test]
fn an_account_that_is_found_too_late_for_its_login_is_no_commands() {
    let mut world = World::with_nodes(1);
    let id = world.login(7).unwrap();
    world.take();
    world.wait(400);
    assert_eq!(world.replies(), [(7, LoginStatus::Busy)]);
    for found in [Found::Account(account(5)), Found::Unknown, Found::Failed] {
        world.apply(Input::Found { id, found });
    }
    assert_eq!(world.take(), []);
    for counter in [Counter::CommandsNotAttached, Counter::CommandsShed] {
        assert_eq!(world.count(counter), 0, "{}", counter.name());
    }
}

#[test]
fn a_command_ends_in_exactly_one_last_answer() {
    let found = Found::Account(account(5));
    let attached = |world: &mut World| world.attached(0, held(5, Epoch::at_ms(1)));

    let mut world = World::with_nodes(1);
    let id = command(&mut world, 5_000);
    world.apply(Input::Found { id, found });
    assert_eq!(world.command_answers(), [CommandAnswer::NotAttached]);

    let id = command(&mut world, 5_000);
    let unknown = Found::Unknown;
    world.apply(Input::Found { id, found: unknown });
    assert_eq!(world.command_answers(), [CommandAnswer::NotAttached]);

    attached(&mut world);
    let id = command(&mut world, 5_000);
    world.apply(Input::Found { id, found });
    world.wait(5_000);
    world.answers(0, id, replied(false));
    assert_eq!(world.command_answers(), [CommandAnswer::Expired]);

    let id = command(&mut world, 5_000);
    world.apply(Input::Found { id, found });
    world.node_down(0);
    world.wait(5_000);
    assert_eq!(world.command_answers(), [CommandAnswer::Lost]);
}

/// A command that is answered at once leaves a timer behind, of up to ten minutes.
#[test]
fn timers_of_what_is_over_do_not_gather() {
    let mut world = World::with_nodes(1);
    let kept = command(&mut world, 600_000);
    for _ in 0..5_000 {
        let id = command(&mut world, 600_000);
        let found = Found::Unknown;
        world.apply(Input::Found { id, found });
    }
    let timers = world.core.timers.len();
    assert!(timers <= TIMERS_SPARE + 4, "{timers} timers");
    // The one that is still awaited was not swept out.
    world.take();
    world.wait(600_000);
    assert_eq!(world.command_answers(), [CommandAnswer::Expired]);
    assert!(!world.core.commands.is_open(kept));
}

#[test]
fn a_logic_server_must_be_the_one_that_was_dialled_and_alone_in_its_name() {
    let mut world = World::with_nodes(2);
    let stranger = LinkId(900);
    world.up(stranger, Role::Logic, "logic-9", Some(target(9)));
    let effects = world.take();
    assert!(matches!(effects[..], [Effect::CloseLink { link, .. }] if link == stranger));
    world.node_down(1);
    world.take();
    world.up(LinkId(901), Role::Logic, "logic-0", Some(target(1)));
    let effects = world.take();
    assert!(matches!(effects[..], [Effect::CloseLink { link, .. }] if link == LinkId(901)));
    assert_eq!(world.core.load().places_max, 10);
}

#[test]
fn more_logins_than_may_be_open_are_busy() {
    let mut world = World::new(1, 2);
    let ids: Vec<_> = (0..4).map(|request| world.login(request)).collect();
    assert!(ids.iter().all(Option::is_some));
    assert_eq!(
        world.replies(),
        [(2, LoginStatus::Busy), (3, LoginStatus::Busy)]
    );
    assert_eq!(world.count(Counter::TooManyOpen), 2);
}

#[test]
fn shutting_down_answers_everybody_and_offers_nothing() {
    let mut world = World::with_nodes(1);
    world.login_asks(7, account(5));
    world.login(8);
    world.take();
    world.apply(Input::Shutdown);
    world.login(9);
    let busy = |id| (id, LoginStatus::Busy);
    assert_eq!(world.replies(), [busy(7), busy(8), busy(9)]);
    assert_eq!(world.core.load(), ConnLoad::default());
}

#[test]
fn a_balancer_hears_the_load_at_once_and_of_changes() {
    let mut world = World::with_nodes(1);
    world.wait(1_000);
    world.take();
    world.says(0, load(3));
    world.wait(50);
    let notices: Vec<_> = world.take();
    let expected = ConnLoad {
        places_free: 3,
        places_max: 10,
        logins_open: 0,
    };
    let notice = |link| Effect::Notice {
        link,
        message: expected.into(),
    };
    assert_eq!(notices, [notice(BALANCER)]);
    world.up(LinkId(3), Role::Balancer, "balancer-2", None);
    assert_eq!(world.take(), [notice(LinkId(3))]);
}

proptest! {
    /// Whatever nodes, look-ups and changes do, each login is answered exactly once, within 2.4 s;
    /// and when all is over nothing is kept of it.
    #[test]
    fn every_login_is_answered_once_and_in_time(seed: u64) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut world = World::with_nodes(3);
        let mut linked = [true; 3];
        let mut asked_at = BTreeMap::new();
        let (mut look_ups, mut grants) = (vec![], vec![]);
        for request in 0..400 {
            let node = random.random_range(0..3_u16);
            match random.random_range(0..100) {
                0..=34 => {
                    asked_at.insert(request, world.now_ms);
                    world.login(request);
                }
                35..=59 if !look_ups.is_empty() => {
                    let id = look_ups.swap_remove(random.random_range(0..look_ups.len()));
                    let found = match random.random_range(0..10) {
                        0 => Found::Unknown,
                        1 => Found::Failed,
                        n => Found::Account(account(n)),
                    };
                    world.apply(Input::Found { id, found });
                }
                60..=79 if !grants.is_empty() => {
                    let (link, id) = grants.swap_remove(random.random_range(0..grants.len()));
                    let verdict = match random.random_range(0..4) {
                        0 => GrantVerdict::Full,
                        1 => GrantVerdict::Draining,
                        _ => GrantVerdict::Granted,
                    };
                    let free = random.random_range(0..10);
                    let LinkId(link) = link;
                    world.answers(link as u16 - 100, id, GrantAnswer { verdict, load: load(free) });
                }
                80..=84 if linked[usize::from(node)] => {
                    linked[usize::from(node)] = false;
                    world.node_down(node);
                }
                80..=87 if !linked[usize::from(node)] => {
                    linked[usize::from(node)] = true;
                    world.node_up(node);
                    world.adopt(node, vec![]);
                }
                88 => world.apply(Input::Changed(change(ChangeKind::Disabled, 2))),
                _ => {
                    let until = world.core.next_deadline().max(world.now_ms);
                    let ms = random.random_range(0..300).min(until - world.now_ms);
                    world.wait(ms);
                }
            }
            for effect in &world.effects {
                match effect {
                    Effect::LookUp { id, .. } => look_ups.push(*id),
                    Effect::Request { link, id, .. } => grants.push((*link, *id)),
                    _ => {}
                }
            }
            for (request, _) in world.replies() {
                let asked_at_ms = asked_at.remove(&request);
                prop_assert!(asked_at_ms.is_some(), "{} was answered twice", request);
                prop_assert!(world.now_ms - asked_at_ms.unwrap_or_default() < 2_400);
            }
        }
        while !asked_at.is_empty() {
            let due = world.core.next_deadline();
            world.wait(due.saturating_sub(world.now_ms));
            for (request, _) in world.replies() {
                let asked_at_ms = asked_at.remove(&request);
                prop_assert!(asked_at_ms.is_some(), "{} was answered twice", request);
                prop_assert!(world.now_ms - asked_at_ms.unwrap_or_default() < 2_400);
            }
        }
        world.wait(31_000);
        prop_assert!(world.core.logins.is_empty());
        prop_assert!(world.core.asked.is_empty());
        world.wait(600_000);
        prop_assert!(world.core.timers.is_empty());
    }
}
