//! A sequence of operations on the front door's core: connections, logins, conn servers that come
//! and go, answer, answer late, nonsense or not at all, time, shutdown.
//!
//! Held against it: a login is answered once, with its own frame id, within the contract's time,
//! by two tries at most on different conn servers, and with the bytes that one of them said; who
//! has said a Login is never dropped; connections and logins are bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use balancer::counters::Counters;
use balancer::intake::Breach;
use balancer::pending::ConnectionId;
use balancer::route::{Core, Effect, End, Input, RouteSettings, TRY_MS};
use common::config::Policy;
use common::epoch::Epoch;
use common::ids::Nonce;
use common::link::message::{ConnLoad, LoginAnswer};
use common::link::{LinkEvent, LinkId, Peer, Role};
use common::pacing::Rate;
use common::secret::Secret;
use common::time::Now;
use protocols::rcu::code::LoginStatus;
use protocols::rcu::login::Login;

use crate::choices::Choices;
use crate::contract;

const TARGETS: [&str; 3] = ["a:1", "b:1", "c:1"];
const SOURCES: [&str; 3] = ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"];
const UNIX_MS: u64 = 1_767_225_600_000;
/// The contract has a device wait 15 s; DESIGN promises 6 s after its last byte.
const ANSWERED_WITHIN_MS: u64 = 6_000;

pub fn route(data: &[u8]) {
    run(data);
}

/// The same; tells what the balancer counted.
pub fn run(data: &[u8]) -> Counters {
    let mut choices = Choices::new(data);
    let mut model = Model::new(&mut choices);
    while choices.next_step() {
        model.step(&mut choices);
    }
    model.settle();
    model.core.counters().clone()
}

struct Connection {
    source: IpAddr,
    /// What it said, and when.
    login: Option<(u64, u16, Vec<u8>)>,
    is_answered: bool,
    /// Conn servers that were asked.
    asked: Vec<LinkId>,
    is_gone: bool,
}

struct Model {
    core: Core,
    settings: RouteSettings,
    now_ms: u64,
    /// All that ever were and were not dropped.
    connections: BTreeMap<ConnectionId, Connection>,
    last_connection: u64,
    links: BTreeSet<LinkId>,
    last_link: u64,
    /// Tries under way, and all that ever were.
    tries: BTreeMap<u64, (LinkId, ConnectionId)>,
    past_tries: Vec<(u64, LinkId)>,
    /// What a conn server has just said, to the try of this id.
    answer: Option<(u64, Vec<u8>)>,
    is_shut_down: bool,
}

impl Model {
    fn new(choices: &mut Choices<'_>) -> Self {
        let rate = choices.pick(&[Rate::UNLIMITED, Rate { per_s: 1, burst: 3 }]);
        let settings = RouteSettings {
            conn_servers: TARGETS.map(String::from).to_vec(),
            policy: choices.pick(&[Policy::LeastLoaded, Policy::Fill]),
            connections_max: choices.pick(&[8, 1, 3]),
            connections_per_source_max: choices.pick(&[8, 1, 3]),
            logins_open_max: choices.pick(&[8, 1, 2]),
            logins_at_full_max: choices.pick(&[2, 0, 1]),
            in_all: rate,
            per_source: choices.pick(&[Rate::UNLIMITED, Rate { per_s: 1, burst: 2 }]),
            sources_max: 100,
        };
        Self {
            core: Core::new(settings.clone(), 1),
            settings,
            now_ms: 10_000,
            connections: BTreeMap::new(),
            last_connection: 0,
            links: BTreeSet::new(),
            last_link: 0,
            tries: BTreeMap::new(),
            past_tries: vec![],
            answer: None,
            is_shut_down: false,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(16) {
            0..3 => self.accept(choices),
            3..6 => self.login(choices),
            6 => self.ends(choices),
            7..9 => self.link(choices),
            9 => self.report(choices),
            10..13 => self.conn_server_answers(choices),
            13..15 => {
                let ms = choices.pick(&[10, 100, 1_000, 10_000]);
                self.pass(u64::from(choices.u16()) % ms);
            }
            _ => match choices.below(16) {
                15 => {
                    self.is_shut_down = true;
                    self.apply(Input::Shutdown);
                    assert!(self.tries.is_empty());
                }
                14 => self.apply(Input::Unseen),
                _ => self.apply(Input::Tick),
            },
        }
        self.check();
    }

    fn apply(&mut self, input: Input) {
        let now = Now {
            ms: self.now_ms,
            unix_ms: UNIX_MS,
        };
        let mut effects = vec![];
        self.core.apply(input, now, &mut effects);
        for effect in effects {
            match effect {
                Effect::Explain { .. } => {}
                Effect::Drop { connection } => {
                    let dropped = self.connections.remove(&connection);
                    let dropped = dropped.expect("a connection that is there");
                    assert!(dropped.login.is_none(), "it has said its Login");
                }
                Effect::Request {
                    link,
                    id,
                    deadline_ms,
                    login,
                } => {
                    assert!(self.links.contains(&link), "a link that is up");
                    assert_eq!(deadline_ms, TRY_MS);
                    // Bodies are as different as their connections.
                    let mut all = self.connections.iter_mut();
                    let said = |it: &Connection| {
                        it.login
                            .as_ref()
                            .is_some_and(|(.., body)| *body == login.body)
                    };
                    let (id_of, asker) = all.find(|(_, it)| said(it)).expect("somebody said it");
                    assert_eq!(login.source, asker.source.to_canonical());
                    assert!(!asker.is_answered);
                    assert!(!asker.asked.contains(&link), "elsewhere");
                    asker.asked.push(link);
                    assert!(asker.asked.len() <= 2, "one retry");
                    // The try before is over.
                    let connection = *id_of;
                    self.tries.retain(|_, (_, of)| *of != connection);
                    assert!(self.tries.insert(id, (link, connection)).is_none());
                    self.past_tries.push((id, link));
                }
                Effect::Reply { connection, frame } => self.replied(connection, &frame),
            }
        }
    }

    fn replied(&mut self, connection: ConnectionId, frame: &[u8]) {
        let (frames, end) = contract::frames(frame, 512);
        assert_eq!(end, contract::End::Incomplete { needed: 12 });
        let [frame] = &frames[..] else {
            panic!("{frames:?} instead of one frame");
        };
        let asker = self.connections.get_mut(&connection);
        let asker = asker.expect("a connection that said a Login");
        assert!(!asker.is_answered, "answered once");
        asker.is_answered = true;
        let (_, frame_id, body) = asker.login.as_ref().expect("it said a Login");
        assert_eq!((frame.kind, frame.id), (0x02, *frame_id));
        assert_eq!(contract::body(0x02, &frame.body), contract::Body::Right);
        let is_malformed = contract::body(0x01, body) != contract::Body::Right;
        let said_malformed = frame.body[0] == LoginStatus::Malformed.code();
        let try_id = self
            .tries
            .iter()
            .find(|(_, (_, of))| *of == connection)
            .map(|(id, _)| *id);
        match &self.answer {
            Some((id, said)) if Some(*id) == try_id && frame.body == *said => {}
            _ if is_malformed => assert!(said_malformed && asker.asked.is_empty()),
            // The balancer's own words.
            _ => {
                assert_eq!(frame.body[0], LoginStatus::Busy.code());
                assert!(u32::from_le_bytes(*frame.body[1..].first_chunk().unwrap()) > 0);
            }
        }
        self.tries.retain(|_, (_, of)| *of != connection);
    }

    fn accept(&mut self, choices: &mut Choices<'_>) {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        let source = choices.pick(&SOURCES).parse().unwrap();
        self.connections.insert(
            connection,
            Connection {
                source,
                login: None,
                is_answered: false,
                asked: vec![],
                is_gone: false,
            },
        );
        self.apply(Input::Accepted { connection, source });
    }

    fn some(
        &self,
        choices: &mut Choices<'_>,
        is_one: impl Fn(&Connection) -> bool,
    ) -> Option<ConnectionId> {
        let fitting = self
            .connections
            .iter()
            .filter(|(_, it)| !it.is_gone && is_one(it));
        let fitting: Vec<_> = fitting.map(|(id, _)| *id).collect();
        match fitting.len() as u32 {
            0 => None,
            count => Some(fitting[choices.below(count) as usize]),
        }
    }

    fn login(&mut self, choices: &mut Choices<'_>) {
        let Some(connection) = self.some(choices, |it| it.login.is_none()) else {
            return self.accept(choices);
        };
        let account = "a-1".parse().unwrap();
        let nonce = Nonce((u128::from(connection.0)).to_le_bytes());
        let mut frame = vec![];
        Login::sign(&account, "1.0", UNIX_MS, nonce, &Secret::new([2; 32])).encode(1, &mut frame);
        let mut body = frame.split_off(12);
        match choices.below(6) {
            5 => body.push(0),
            4 => body[1] = b'/',
            _ => {}
        }
        let frame_id = choices.u16();
        let known = self.connections.get_mut(&connection).unwrap();
        known.login = Some((self.now_ms, frame_id, body.clone()));
        let source = known.source;
        self.apply(Input::Login {
            connection,
            source,
            frame_id,
            body,
        });
    }

    fn ends(&mut self, choices: &mut Choices<'_>) {
        let Some(connection) = self.some(choices, |_| true) else {
            return;
        };
        let known = self.connections.get_mut(&connection).unwrap();
        known.is_gone = true;
        let how = match (known.is_answered, known.login.is_some()) {
            (true, _) => End::Replied,
            (false, true) => End::Gone,
            (false, false) => choices.pick(&[
                End::Gone,
                End::AttachTimeout,
                End::ProtocolError(Breach::Crc),
            ]),
        };
        self.apply(Input::Ended { connection, how });
    }

    fn link(&mut self, choices: &mut Choices<'_>) {
        let up = self.links.iter().copied().collect::<Vec<_>>();
        if up.len() == 3 || (!up.is_empty() && choices.once_in(3)) {
            let link = up[choices.below(up.len() as u32) as usize];
            self.links.remove(&link);
            let why = String::new();
            return self.apply(Input::Link(LinkEvent::Down { link, why }));
        }
        self.last_link += 1;
        let link = LinkId(self.last_link);
        // One that is no conn server, or was never dialled, is not asked.
        let role = choices.pick(&[Role::Conn, Role::Conn, Role::Conn, Role::Operator]);
        let target = choices.pick(&[
            Some(TARGETS[0]),
            Some(TARGETS[1]),
            Some(TARGETS[2]),
            Some("x:1"),
            None,
        ]);
        if role == Role::Conn && target.is_some_and(|it| TARGETS.contains(&it)) {
            self.links.insert(link);
        }
        let peer = Peer {
            role,
            node: "conn-1".parse().unwrap(),
            version: 1,
            address: "127.0.0.1:1".parse().unwrap(),
            target: target.map(String::from),
        };
        self.apply(Input::Link(LinkEvent::Up { link, peer }));
    }

    fn report(&mut self, choices: &mut Choices<'_>) {
        let link = LinkId(1 + u64::from(choices.below(self.last_link as u32 + 1)));
        let load = ConnLoad {
            places_free: choices.pick(&[0, 1, 10, u32::MAX]),
            places_max: choices.pick(&[10, 0, u32::MAX]),
            logins_open: 0,
        };
        let message = load.into();
        let epoch = Epoch::ZERO;
        self.apply(Input::Link(LinkEvent::Notice {
            link,
            message,
            epoch,
        }));
    }

    /// To a try under way, or to one that was given up.
    fn conn_server_answers(&mut self, choices: &mut Choices<'_>) {
        let open = self
            .tries
            .iter()
            .map(|(id, (link, _))| (*id, *link))
            .collect::<Vec<_>>();
        let known = match choices.once_in(8) {
            true => &self.past_tries,
            false => &open,
        };
        if known.is_empty() {
            return;
        }
        let (id, link) = known[choices.below(known.len() as u32) as usize];
        if !self.links.contains(&link) {
            return;
        }
        let mut body = match choices.below(8) {
            0 => vec![],
            1 => vec![0; 13],
            2 => [vec![2], vec![0; 44]].concat(),
            3..6 => [vec![4], vec![1; 12]].concat(),
            _ => [vec![choices.pick(&[1, 5, 6])], vec![1; 12]].concat(),
        };
        if choices.once_in(16) {
            body.push(0);
        }
        self.answer = Some((id, body.clone()));
        let message = LoginAnswer { body }.into();
        let epoch = Epoch::ZERO;
        self.apply(Input::Link(LinkEvent::Answer {
            link,
            id,
            message,
            epoch,
        }));
        self.answer = None;
    }

    /// With a tick whenever the core wants one.
    fn pass(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while let Some(next) = self.core.next_deadline().filter(|it| *it <= until_ms) {
            self.now_ms = self.now_ms.max(next);
            self.apply(Input::Tick);
            let next = self.core.next_deadline();
            assert!(next.is_none_or(|next| next > self.now_ms), "a tick in vain");
        }
        self.now_ms = until_ms;
    }

    fn check(&self) {
        let pending = self.connections.values().filter(|it| !it.is_gone);
        assert_eq!(self.core.pending(), pending.clone().count());
        assert!(self.core.pending() <= self.settings.connections_max, "P6");
        for source in ["192.0.2.1", "2001:db8::1"] {
            let source: IpAddr = source.parse().unwrap();
            let of_source = pending
                .clone()
                .filter(|it| it.source.to_canonical() == source);
            assert!(
                of_source.count() <= self.settings.connections_per_source_max,
                "P6"
            );
        }
        assert_eq!(self.core.logins_open(), self.tries.len());
        assert!(self.tries.len() <= self.settings.logins_open_max, "P6");
        for connection in self.connections.values().filter(|it| !it.is_answered) {
            if let Some((said_at_ms, ..)) = connection.login {
                assert!(
                    self.now_ms < said_at_ms + ANSWERED_WITHIN_MS,
                    "answered late"
                );
            }
        }
        assert_eq!(self.core.conns().len(), self.links.len());
    }

    fn settle(&mut self) {
        self.pass(ANSWERED_WITHIN_MS);
        self.check();
        assert!(self.tries.is_empty());
        if self.is_shut_down {
            let unsaid = self
                .connections
                .values()
                .filter(|it| it.login.is_none() && !it.is_gone);
            assert_eq!(unsaid.count(), 0);
        }
    }
}
