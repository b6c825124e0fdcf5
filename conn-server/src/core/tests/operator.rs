//! Pure. What operators see, and what they close.

use common::link::message::{
    Figures, KickAnswer, KickAsk, Kicked, NODES_PAGE_MAX, NoSession, NodeState, NodesAnswer,
    NodesAsk, SessionAsk, SessionCursor, SessionLook, SessionLooked, SessionPage, SessionShown,
    SessionState, SessionView, SessionsAnswer, SessionsAsk,
};

use super::*;
use crate::audit::Act;

const DEADLINE_MS: u32 = 5_000;

fn epoch(number: u64) -> Epoch {
    Epoch::at_ms(number)
}

fn look(number: u64) -> SessionLook {
    let state = SessionState {
        epoch: epoch(number),
        source: None,
        heartbeat_s: 60,
        silent_ms: 7,
        unanswered: 0,
        command: false,
    };
    SessionLook {
        state,
        attached_unix_ms: Some(number),
        contradicting: Some(0),
    }
}

impl World {
    fn operator_asks(&mut self, request: u64, message: impl Into<Message>) {
        self.link(LinkEvent::Request {
            link: OPERATOR,
            id: request,
            deadline_ms: DEADLINE_MS,
            message: message.into(),
            epoch: Epoch::ZERO,
        });
    }

    /// What the operator was answered since.
    fn operator_hears(&mut self) -> Vec<(u64, Message)> {
        let heard = self.take().into_iter().filter_map(|effect| match effect {
            Effect::Answer {
                link: OPERATOR,
                id,
                message,
            } => Some((id, message)),
            _ => None,
        });
        heard.collect()
    }

    /// What nodes were asked since.
    fn requests(&mut self) -> Vec<(LinkId, u64, Message)> {
        let asked = self.take().into_iter().filter_map(|effect| match effect {
            Effect::Request {
                link, id, message, ..
            } => Some((link, id, message)),
            _ => None,
        });
        asked.collect()
    }

    /// The one look-up since.
    fn look_up(&mut self) -> u64 {
        let effects = self.take();
        match &effects[..] {
            [Effect::LookUp { id, .. }] => *id,
            _ => panic!("{effects:?}"),
        }
    }

    fn asks_of_account(&mut self, request: u64, kick: bool) -> u64 {
        let account = "rcu-000005".parse().unwrap();
        match kick {
            true => self.operator_asks(request, KickAsk { account }),
            false => self.operator_asks(request, SessionAsk { account }),
        }
        self.look_up()
    }
}

fn no(kick: bool, why: NoSession) -> Message {
    match kick {
        true => KickAnswer::No(why).into(),
        false => SessionShown::No(why).into(),
    }
}

#[test]
fn a_session_is_looked_at_where_it_is() {
    let mut world = World::with_nodes(2);
    world.attached(1, held(5, epoch(1)));
    let id = world.asks_of_account(7, false);
    let found = Found::Account(account(5));
    world.apply(Input::Found { id, found });
    let asked = world.requests();
    let [(link, id, Message::SessionCheck(check))] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!((*link, check.account_id), (logic(1), AccountId(5)));
    let answer = |number| SessionLooked {
        look: Some(look(number)),
    };
    world.answers(0, *id, answer(1));
    world.answers(1, *id, Kicked { epoch: None });
    assert_eq!(world.operator_hears(), [], "not its node, not its answer");
    world.answers(1, *id, answer(2));
    world.answers(1, *id, answer(2));
    let session = SessionShown::Session {
        account_id: AccountId(5),
        node: "logic-1".parse().unwrap(),
        look: look(2),
    };
    assert_eq!(world.operator_hears(), [(7, session.into())]);
}

#[test]
fn a_session_is_kicked_where_it_is() {
    let mut world = World::with_nodes(2);
    world.attached(1, held(5, epoch(1)));
    for (request, kicked) in [(7, Some(epoch(1))), (8, None)] {
        let id = world.asks_of_account(request, true);
        let found = Found::Account(account(5));
        world.apply(Input::Found { id, found });
        let asked = world.requests();
        let [(link, id, Message::Kick(kick))] = &asked[..] else {
            panic!("{asked:?}");
        };
        assert_eq!((*link, kick.account_id), (logic(1), AccountId(5)));
        world.answers(1, *id, Kicked { epoch: kicked });
        let answer = kicked.map_or(KickAnswer::No(NoSession::NotAttached), |epoch| {
            let node = "logic-1".parse().unwrap();
            KickAnswer::Kicked { node, epoch }
        });
        assert_eq!(world.operator_hears(), [(request, answer.into())]);
    }
    assert_eq!(world.count(Counter::Kicks), 2);
}

#[test]
fn what_cannot_be_looked_at_or_kicked_is_answered_once_with_the_reason() {
    for kick in [false, true] {
        let mut world = World::with_nodes(1);
        let found = Found::Account(account(5));
        for (request, found, why) in [
            (1, Found::Unknown, NoSession::UnknownAccount),
            (2, found, NoSession::NotAttached),
            (3, Found::Failed, NoSession::Busy),
        ] {
            let id = world.asks_of_account(request, kick);
            world.apply(Input::Found { id, found });
            assert_eq!(world.operator_hears(), [(request, no(kick, why))]);
        }
        world.attached(0, held(5, epoch(1)));
        let id = world.asks_of_account(4, kick);
        world.apply(Input::Found { id, found });
        world.wait(DEADLINE_MS.into());
        let late = no(kick, NoSession::NoAnswer);
        assert_eq!(world.operator_hears(), [(4, late.clone())]);
        let id = world.asks_of_account(5, kick);
        world.apply(Input::Found { id, found });
        world.node_down(0);
        world.wait(DEADLINE_MS.into());
        assert_eq!(world.operator_hears(), [(5, late)]);

        // A node of the version before does not know the question, and would break off the link.
        world.version = 1;
        world.node_up(0);
        world.adopt(0, vec![held(5, epoch(1))]);
        world.take();
        let id = world.asks_of_account(6, kick);
        world.apply(Input::Found { id, found });
        let unsupported = no(kick, NoSession::Unsupported);
        assert_eq!(world.operator_hears(), [(6, unsupported)]);
    }
}

/// What was noted since: of each deed what it was, on which node, and what came of it.
fn audited(world: &mut World) -> Vec<(Act, Option<String>, &'static str)> {
    let noted = world.take().into_iter().filter_map(|effect| match effect {
        Effect::Audit { deed, outcome } => {
            assert_eq!(deed.account.as_str(), "rcu-000005");
            let (operator, _) = deed.operator.unwrap();
            assert_eq!(operator.as_str(), "operator");
            Some((deed.act, deed.node.map(|it| it.to_string()), outcome))
        }
        _ => None,
    });
    noted.collect()
}

#[test]
fn what_an_operator_does_is_noted_once_with_what_came_of_it_and_looking_is_not() {
    let mut world = World::with_nodes(1);
    let found = Found::Account(account(5));
    let (kick, node) = (Act::Kick, Some("logic-0".to_owned()));
    let id = world.asks_of_account(1, true);
    world.apply(Input::Found {
        id,
        found: Found::Unknown,
    });
    assert_eq!(audited(&mut world), [(kick, None, "unknown_account")]);
    world.attached(0, held(5, epoch(1)));
    let id = world.asks_of_account(2, true);
    world.apply(Input::Found { id, found });
    let epoch = Some(epoch(1));
    world.answers(0, id, Kicked { epoch });
    assert_eq!(audited(&mut world), [(kick, node.clone(), "kicked")]);
    let id = world.asks_of_account(6, true);
    world.apply(Input::Found { id, found });
    world.wait(DEADLINE_MS.into());
    assert_eq!(audited(&mut world), [(kick, node.clone(), "no_answer")]);

    let id = world.asks_of_account(3, false);
    world.apply(Input::Found { id, found });
    world.wait(DEADLINE_MS.into());
    assert_eq!(audited(&mut world), [], "it only looked");

    let command = AccountCommand {
        account: "rcu-000005".parse().unwrap(),
        order: Order {
            command_id: 77,
            deadline_ms: 0,
            code: 5,
            payload: vec![],
        },
    };
    let act = Act::Command {
        command_id: 77,
        code: 5,
    };
    world.operator_asks(4, command.clone());
    let id = world.look_up();
    world.apply(Input::Found { id, found });
    let asked = world.requests();
    for (more, noted) in [(true, vec![]), (false, vec![(act, node.clone(), "failed")])] {
        let replied = CommandAnswer::Replied {
            status: 1,
            more,
            payload: vec![],
        };
        world.answers(0, asked[0].1, replied);
        assert_eq!(audited(&mut world), noted);
    }
    world.operator_asks(5, command);
    let id = world.look_up();
    world.apply(Input::Found { id, found });
    world.node_down(0);
    assert_eq!(
        audited(&mut world),
        [(act, node, "lost")],
        "of the node that is gone"
    );
}

/// A page of sessions up to its names: what the node was asked, and what it lists.
fn listed(
    world: &mut World,
    request: u64,
    from: Option<SessionCursor>,
    node: u16,
    page: SessionPage,
) {
    let ask = SessionsAsk {
        node: None,
        from,
        limit: 2,
    };
    world.operator_asks(request, ask);
    let asked = world.requests();
    let [(link, id, Message::SessionPageAsk(asked))] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!((*link, asked.limit), (logic(node), 2));
    let goes_on = from.filter(|from| from.node == node);
    assert_eq!(asked.after, goes_on.and_then(|from| from.after));
    world.answers(node, *id, page);
}

fn page_of(accounts: &[i64], last: bool) -> SessionPage {
    let sessions = accounts.iter().map(|&id| (AccountId(id), epoch(1)));
    SessionPage {
        sessions: sessions.collect(),
        last,
    }
}

fn page(node: u16, accounts: &[(i64, Option<&str>)], next: Option<(u16, Option<i64>)>) -> Message {
    let sessions = accounts.iter().map(|(id, name)| SessionView {
        account_id: AccountId(*id),
        account: name.map(|name| name.parse().unwrap()),
        epoch: epoch(1),
    });
    let next = next.map(|(node, after)| SessionCursor {
        node,
        after: after.map(AccountId),
    });
    SessionsAnswer::Page {
        node: Some(format!("logic-{node}").parse().unwrap()),
        sessions: sessions.collect(),
        next,
    }
    .into()
}

fn names(world: &mut World, expected: &[i64], names: Option<&[(i64, &str)]>) {
    let effects = world.take();
    let [Effect::Names { id, accounts }] = &effects[..] else {
        panic!("{effects:?}");
    };
    let expected: Vec<_> = expected.iter().copied().map(AccountId).collect();
    assert_eq!(*accounts, expected);
    let names = names.map(|names| {
        let names = names.iter();
        names
            .map(|(id, name)| (AccountId(*id), name.parse().unwrap()))
            .collect()
    });
    world.apply(Input::Named { id: *id, names });
}

#[test]
fn sessions_are_listed_page_by_page_and_node_by_node() {
    let mut world = World::with_nodes(3);
    world.node_down(1);
    world.take();
    let cursor = |node, after: Option<i64>| {
        Some(SessionCursor {
            node,
            after: after.map(AccountId),
        })
    };
    listed(&mut world, 1, None, 0, page_of(&[3, 8], false));
    names(&mut world, &[3, 8], Some(&[(3, "a"), (8, "b")]));
    let first = page(0, &[(3, Some("a")), (8, Some("b"))], Some((0, Some(8))));
    assert_eq!(world.operator_hears(), [(1, first)]);

    listed(&mut world, 2, cursor(0, Some(8)), 0, page_of(&[9], true));
    // One was removed meanwhile.
    names(&mut world, &[9], Some(&[]));
    let second = page(0, &[(9, None)], Some((2, None)));
    assert_eq!(
        world.operator_hears(),
        [(2, second)],
        "the one between is down"
    );

    // A node says more than it was asked for.
    listed(&mut world, 3, cursor(2, None), 2, page_of(&[1, 2, 4], true));
    names(&mut world, &[1, 2], None);
    let third = page(2, &[(1, None), (2, None)], Some((2, Some(2))));
    assert_eq!(world.operator_hears(), [(3, third)]);

    listed(&mut world, 4, cursor(2, Some(2)), 2, page_of(&[], true));
    assert_eq!(world.operator_hears(), [(4, page(2, &[], None))]);
    assert_eq!(world.core.held()[3], ("pages", 0));

    // The node that the cursor names is gone, and so are all behind it.
    world.node_down(2);
    let ask = SessionsAsk {
        node: None,
        from: cursor(2, Some(2)),
        limit: 2,
    };
    world.operator_asks(5, ask);
    let end = SessionsAnswer::Page {
        node: None,
        sessions: vec![],
        next: None,
    };
    assert_eq!(world.operator_hears(), [(5, end.into())]);
}

#[test]
fn one_nodes_sessions_end_with_it_and_a_stranger_has_none() {
    let mut world = World::with_nodes(2);
    let ask = |node: &str| SessionsAsk {
        node: Some(node.parse().unwrap()),
        from: None,
        limit: 0,
    };
    world.operator_asks(1, ask("logic-0"));
    let asked = world.requests();
    let [(_, id, Message::SessionPageAsk(asked))] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!(asked.limit, 1, "at least one, or it never ends");
    world.answers(0, *id, page_of(&[3], true));
    names(&mut world, &[3], Some(&[(3, "a")]));
    assert_eq!(
        world.operator_hears(),
        [(1, page(0, &[(3, Some("a"))], None))]
    );
    world.operator_asks(2, ask("logic-9"));
    let unknown = SessionsAnswer::UnknownNode;
    assert_eq!(world.operator_hears(), [(2, unknown.into())]);
}

#[test]
fn a_page_is_answered_though_a_node_or_the_accounts_are_silent() {
    let mut world = World::with_nodes(1);
    let ask = SessionsAsk {
        node: None,
        from: None,
        limit: 2,
    };
    let silent: Message = SessionsAnswer::NoAnswer("logic-0".parse().unwrap()).into();
    world.operator_asks(1, ask.clone());
    world.wait(2_000);
    assert_eq!(world.operator_hears(), [(1, silent.clone())]);
    world.operator_asks(2, ask.clone());
    world.node_down(0);
    assert_eq!(world.operator_hears(), [(2, silent)]);
    world.node_up(0);
    world.adopt(0, vec![]);

    listed(&mut world, 3, None, 0, page_of(&[3], true));
    world.take();
    world.wait(1_999);
    assert_eq!(world.operator_hears(), []);
    world.wait(1);
    assert_eq!(world.operator_hears(), [(3, page(0, &[(3, None)], None))]);

    for request in 4..=67 {
        world.operator_asks(request, ask.clone());
    }
    world.take();
    world.operator_asks(68, ask);
    assert_eq!(world.operator_hears(), [(68, SessionsAnswer::Busy.into())]);
}

/// Who was asked for figures since, by link, with the request.
fn figures_asked(world: &mut World) -> BTreeMap<LinkId, u64> {
    let asked = world.requests().into_iter();
    let asked = asked.filter(|(.., message)| matches!(message, Message::FiguresAsk(_)));
    asked.map(|(link, id, _)| (link, id)).collect()
}

fn figures(sessions: u64) -> Figures {
    Figures {
        software: "9".into(),
        values: vec![("sessions".into(), sessions)],
        ..Figures::default()
    }
}

fn nodes_told(world: &mut World, request: u64) -> Vec<common::link::message::NodeView> {
    let mut all = vec![];
    let mut ends = false;
    for (id, message) in world.operator_hears() {
        let Message::NodesAnswer(NodesAnswer::Page { nodes, more }) = message else {
            panic!("{message:?}");
        };
        assert!(id == request && !ends && nodes.len() <= NODES_PAGE_MAX);
        all.extend(nodes);
        ends = !more;
    }
    assert!(ends, "no last answer");
    all
}

#[test]
fn nodes_are_told_with_what_they_say_of_themselves() {
    let mut world = World::with_nodes(2);
    world.node_down(1);
    world.take();
    world.operator_asks(7, NodesAsk);
    let asked = figures_asked(&mut world);
    assert_eq!(
        asked.keys().copied().collect::<Vec<_>>(),
        [BALANCER, logic(0)]
    );
    world.answers(0, asked[&logic(0)], figures(5));
    assert_eq!(world.operator_hears(), [], "the balancer is waited for");
    world.link(LinkEvent::Answer {
        link: BALANCER,
        id: asked[&BALANCER],
        message: figures(0).into(),
        epoch: Epoch::ZERO,
    });
    let nodes = nodes_told(&mut world, 7);
    let seen: Vec<_> = nodes
        .iter()
        .map(|node| {
            let name = node.name.as_ref().map(ToString::to_string);
            (node.role, name, node.state)
        })
        .collect();
    let name = |name: &str| Some(name.to_owned());
    let expected = [
        (Role::Conn, None, NodeState::Up),
        (Role::Logic, name("logic-0"), NodeState::Up),
        (Role::Logic, name("logic-1"), NodeState::Down),
        (Role::Balancer, name("balancer-1"), NodeState::Up),
    ];
    assert_eq!(seen, expected);
    assert_eq!(nodes[1].figures, Some(figures(5)));
    let places = nodes[1].places.unwrap();
    assert_eq!((places.used, places.max), (0, 10));
    assert_eq!(nodes[2].link, target(1));
    assert_eq!(nodes[2].figures, None);
    let own = nodes[0].figures.as_ref().unwrap();
    assert_eq!(own.value("logins"), Some(0));
    assert!(own.value("questions") >= Some(1));
}

#[test]
fn who_is_silent_or_of_an_older_version_is_told_of_without_figures() {
    let mut world = World::new(2, 1_000);
    world.version = 1;
    world.node_up(0);
    world.version = 2;
    world.node_up(1);
    world.take();
    world.operator_asks(7, NodesAsk);
    let asked = figures_asked(&mut world);
    assert_eq!(
        asked.keys().copied().collect::<Vec<_>>(),
        [BALANCER, logic(1)]
    );
    world.wait(499);
    assert_eq!(world.operator_hears(), []);
    world.wait(1);
    let nodes = nodes_told(&mut world, 7);
    assert!(nodes.iter().skip(1).all(|node| node.figures.is_none()));
    assert_eq!(nodes[1].state, NodeState::Adopting);
    // Too late, and for nobody.
    world.answers(1, asked[&logic(1)], figures(5));
    assert_eq!(world.take(), []);
    assert_eq!(world.core.held()[4], ("overviews", 0));
}

#[test]
fn many_nodes_with_more_to_say_than_fits_are_told_in_bounded_pages() {
    let mut world = World::with_nodes(40);
    world.operator_asks(7, NodesAsk);
    let talkative = Figures {
        software: "x".repeat(1_000),
        values: (0..5_000).map(|it| (format!("{it}"), it)).collect(),
        addresses: vec!["127.0.0.1:1".parse().unwrap(); 1_000],
        uptime_ms: 0,
    };
    let asked = figures_asked(&mut world);
    for (link, id) in asked {
        if link != BALANCER {
            let index = u16::try_from(link.0 - 100).unwrap();
            world.answers(index, id, talkative.clone());
        }
    }
    world.wait(500);
    let nodes = nodes_told(&mut world, 7);
    assert_eq!(nodes.len(), 42);
    let told = nodes[1].figures.as_ref().unwrap();
    assert_eq!((told.values.len(), told.addresses.len()), (256, 16));
    assert_eq!(told.software, "");

    for request in 0..16 {
        world.operator_asks(request, NodesAsk);
    }
    world.take();
    world.operator_asks(99, NodesAsk);
    assert_eq!(world.operator_hears(), [(99, NodesAnswer::Busy.into())]);
}
