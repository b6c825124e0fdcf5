//! A sequence of operations on the gate of a logic server: grants, connections that come in pieces
//! and are interleaved, thieves, time, links of several conn servers, revocations.
//!
//! The model is lists that are searched, written from the contract's sections 1 and 3 and from
//! DESIGN's rules of a grant. Each step says what must happen, and nothing else may: P4 (no session
//! without an open grant, used once, with its proof, from its address), P5, P9, who is told what by
//! which link, and when the gate wants to be woken.

mod mirror;

use std::collections::BTreeMap;
use std::net::IpAddr;

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::message::{
    self, CommandAnswer, End, GrantCheck, GrantVerdict, Message, Order, Revoke, RevokeReason,
};
use common::link::{Asker, LinkId};
use common::secret::Secret;
use common::time::Now;
use logic_server::adapter::Protocol;
use logic_server::ask::{Ask, Question};
use logic_server::counters::Counters;
use logic_server::gate::{Core, Effect, Input, Listener, Settings};
use logic_server::ids::{ConnId, ListenerIndex, SessionId, ShardIndex};
use protocols::rcu::attach::Attach;
use protocols::rcu::code::{AttachStatus, CloseReason};

use crate::choices::Choices;
use crate::contract;
use mirror::Mirror;

const ACCOUNTS: u32 = 5;
const LINKS: u32 = 3;
const GRANTS_PER_ACCOUNT: usize = 4;
const FIRST_FRAME_MS: u64 = 5_000;
const SPREAD_MS: u32 = 1_000;
const HEARTBEAT_S: u16 = 60;
const UNIX_MS: u64 = 1_767_225_600_000;

/// Addresses that grants and connections have. The second is the first, IPv4-mapped; the fifth is
/// in the network of the fourth.
const SOURCES: [&str; 6] = [
    "192.0.2.1",
    "::ffff:192.0.2.1",
    "192.0.2.2",
    "2001:db8:0:1::1",
    "2001:db8:0:1:ffff::2",
    "2001:db8:0:2::1",
];

/// What tells two sources apart, by the contract: the address, or the first 64 bits of an IPv6 one.
fn network(source: IpAddr) -> Vec<u8> {
    match source.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets()[..8].to_vec(),
    }
}

pub fn gate(data: &[u8]) {
    run(data);
}

/// The same; tells what the gate counted.
pub fn run(data: &[u8]) -> Counters {
    let mut choices = Choices::new(data);
    let mut model = Model::new(&mut choices);
    while choices.next_step() {
        model.step(&mut choices);
    }
    model.settle();
    model.core.counters().clone()
}

struct Open {
    grant: message::Grant,
    expires_at_ms: u64,
}

struct Connection {
    source: IpAddr,
    bytes: Vec<u8>,
    late_at_ms: u64,
}

#[derive(Clone, Copy)]
struct Current {
    session: SessionId,
    shard: ShardIndex,
    epoch: Epoch,
    version: u32,
}

struct Model {
    core: Core,
    settings: Settings,
    now_ms: u64,
    /// In the order in which they came.
    open: Vec<Open>,
    /// Every grant that was ever asked for, for who presents an old one.
    known: Vec<message::Grant>,
    current: BTreeMap<AccountId, Current>,
    /// The newest epoch that was attached while the account had a place.
    published: BTreeMap<AccountId, Epoch>,
    /// Sessions that were replaced or ended, whose end may be told late.
    old: Vec<(AccountId, Epoch)>,
    connections: BTreeMap<ConnId, Connection>,
    /// Of the connections, in the order in which they came.
    arrivals: Vec<ConnId>,
    links: BTreeMap<LinkId, Mirror>,
    epochs: u64,
    requests: u64,
    last_session: SessionId,
    draining: bool,
}

/// What the model expects of one input, in order but for notices, which [`Mirror`]s take.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Closed without a frame.
    Dropped(ConnId),
    Closed(ConnId, CloseReason),
    Reply(ConnId, u16, AttachStatus),
    End(SessionId, CloseReason),
    Admitted(ConnId, AccountId, Epoch, Vec<u8>),
    Granted(u64, GrantVerdict),
    Checked(u64, bool),
    Command(SessionId, u64),
    NotAttached(u64),
}

impl Model {
    fn new(choices: &mut Choices<'_>) -> Self {
        let settings = Settings {
            listeners: vec![Listener {
                protocol: Protocol::Rcu,
            }],
            shards: choices.pick(&[2, 1, 3]),
            places_max: choices.pick(&[3, 1, 4, 100]),
            pending_max: choices.pick(&[4, 1, 2]),
            first_frame_ms: FIRST_FRAME_MS,
            heartbeat_s: HEARTBEAT_S,
            advertise: vec!["192.0.2.9:20000".parse().unwrap()],
            shutdown_spread_ms: choices.pick(&[SPREAD_MS, 0]),
        };
        Self {
            core: Core::new(&settings, 1),
            settings,
            now_ms: 1_000_000,
            open: vec![],
            known: vec![],
            current: BTreeMap::new(),
            published: BTreeMap::new(),
            old: vec![],
            connections: BTreeMap::new(),
            arrivals: vec![],
            links: BTreeMap::new(),
            epochs: 100,
            requests: 0,
            last_session: SessionId(0),
            draining: false,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(16) {
            0..3 => self.grant(choices),
            3..5 => self.connect(choices),
            5..9 => self.send(choices),
            9 => self.now_ms += u64::from(choices.u16()) % 20_000,
            10 => self.tick(),
            11 => self.session_ends(choices),
            12 => self.link(choices),
            13 if choices.once_in(2) => self.check_grant(choices),
            13 => self.command(choices),
            14 => self.withdraw(choices),
            _ => match choices.below(8) {
                7 => {
                    let due = self.begin_step();
                    self.draining = true;
                    self.apply(Input::Shutdown, due);
                }
                _ => self.disconnect(choices),
            },
        }
        self.check();
    }

    /// What time alone brings about, which comes before whatever is said.
    fn begin_step(&mut self) -> Vec<Due> {
        let now_ms = self.now_ms;
        let (over, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition::<Vec<_>, _>(|it| it.expires_at_ms <= now_ms);
        self.open = open;
        self.grants_closed(&over);
        let late = |conn: &ConnId| self.connections[conn].late_at_ms <= now_ms;
        let late: Vec<_> = self.arrivals.iter().copied().filter(late).collect();
        late.into_iter()
            .map(|conn| {
                self.forget(conn);
                Due::Closed(conn, CloseReason::AttachTimeout)
            })
            .collect()
    }

    fn apply(&mut self, input: Input<'_>, due: Vec<Due>) {
        let now = Now {
            ms: self.now_ms,
            unix_ms: UNIX_MS + self.now_ms,
        };
        let mut effects = vec![];
        self.core.apply(input, now, &mut effects);
        let mut due = due.into_iter();
        for effect in effects {
            match effect {
                Effect::Notice { link, message } => {
                    let mirror = self.links.get_mut(&link).expect("a link that is up");
                    mirror.hear(message);
                }
                Effect::Broadcast { message } => {
                    assert!(!self.links.is_empty(), "nobody is there to hear");
                    let links = self.links.values_mut();
                    links.for_each(|mirror| mirror.hear(message.clone()));
                }
                Effect::Explain { .. } => {}
                effect => {
                    let expected = due.next();
                    let happened = self.happened(effect);
                    assert_eq!(Some(happened), expected);
                }
            }
        }
        assert_eq!(due.next(), None, "did not happen");
    }

    fn happened(&mut self, effect: Effect) -> Due {
        match effect {
            Effect::Refuse { conn, reply } if reply.is_empty() => Due::Dropped(conn),
            Effect::Refuse { conn, reply } => {
                let (frames, end) = contract::frames(&reply, 1_024);
                assert_eq!(end, contract::End::Incomplete { needed: 12 });
                let [frame] = &frames[..] else {
                    panic!("{frames:?} instead of one frame");
                };
                assert_eq!(
                    contract::body(frame.kind, &frame.body),
                    contract::Body::Right
                );
                let wait_ms = u32::from_le_bytes(*frame.body[1..].first_chunk().unwrap());
                match frame.kind {
                    0x2F => {
                        assert_eq!((frame.id, wait_ms), (0, 0));
                        Due::Closed(conn, CloseReason::from_code(frame.body[0]).unwrap())
                    }
                    0x04 => {
                        let status = AttachStatus::from_code(frame.body[0]).unwrap();
                        let waits = match status {
                            AttachStatus::Draining => 1..=self.settings.shutdown_spread_ms.max(1),
                            _ => 0..=0,
                        };
                        assert!(waits.contains(&wait_ms), "{wait_ms} ms");
                        Due::Reply(conn, frame.id, status)
                    }
                    kind => panic!("kind {kind} to a device that is not attached"),
                }
            }
            Effect::Admit {
                conn,
                shard,
                seed,
                unread,
            } => {
                let granted = self.known.iter().find(|it| it.ticket == seed.ticket);
                let granted = granted.expect("a ticket that was granted");
                assert!(seed.session_key == granted.session_key);
                assert_eq!(seed.heartbeat_s, granted.heartbeat_s.unwrap_or(HEARTBEAT_S));
                assert_eq!(seed.attached_unix_ms, UNIX_MS + self.now_ms);
                assert!(seed.session > self.last_session, "a session's id is new");
                self.last_session = seed.session;
                let sessions = |shard: ShardIndex| {
                    let others = self.current.iter();
                    let others = others.filter(|(account, _)| **account != seed.account_id);
                    others.filter(|(_, it)| it.shard == shard).count()
                };
                let own = self.current.get(&seed.account_id).map(|it| it.shard);
                let busy = |it: ShardIndex| sessions(it) + usize::from(own == Some(it));
                let shards = (0..self.settings.shards).map(ShardIndex);
                assert_eq!(Some(busy(shard)), shards.map(busy).min(), "the idlest");
                let current = Current {
                    session: seed.session,
                    shard,
                    epoch: seed.epoch,
                    version: granted.account_version,
                };
                self.current.insert(seed.account_id, current);
                // By a grant that was repeated. The end of its first session was told, or it would not be
                // the newest now.
                self.old.retain(|it| *it != (seed.account_id, seed.epoch));
                Due::Admitted(conn, seed.account_id, seed.epoch, unread)
            }
            Effect::EndSession {
                session,
                reason,
                retry_after_ms,
                shard,
            } => {
                let mut all = self.current.values();
                let shard_of = all.find(|it| it.session == session).map(|it| it.shard);
                assert_eq!(shard_of, Some(shard));
                assert_eq!(retry_after_ms, 0);
                Due::End(session, reason)
            }
            Effect::Ask { session, ask, .. } => Due::Command(session, ask.asker.request),
            Effect::Answer {
                request, message, ..
            } => match message {
                Message::GrantAnswer(answer) => {
                    assert_eq!(answer.load, self.core.load());
                    Due::Granted(request, answer.verdict)
                }
                Message::GrantCheckAnswer(answer) => Due::Checked(request, answer.is_open),
                Message::CommandAnswer(CommandAnswer::NotAttached) => Due::NotAttached(request),
                other => panic!("{other:?} as an answer"),
            },
            Effect::Notice { .. } | Effect::Broadcast { .. } | Effect::Explain { .. } => {
                unreachable!("taken before")
            }
        }
    }

    fn account(choices: &mut Choices<'_>) -> AccountId {
        AccountId(1 + i64::from(choices.below(ACCOUNTS)))
    }

    fn source(choices: &mut Choices<'_>) -> IpAddr {
        choices.pick(&SOURCES).parse().unwrap()
    }

    fn is_placed(&self, account_id: AccountId) -> bool {
        let granted = self.open.iter().any(|it| it.grant.account_id == account_id);
        granted || self.current.contains_key(&account_id)
    }

    fn places(&self) -> usize {
        let accounts = (1..=i64::from(ACCOUNTS)).map(AccountId);
        accounts.filter(|&it| self.is_placed(it)).count()
    }

    /// These are not open any more, and no session came of them.
    fn grants_closed(&mut self, closed: &[Open]) {
        for it in closed {
            let account_id = it.grant.account_id;
            if !self.is_placed(account_id) {
                self.published.remove(&account_id);
            }
        }
    }

    fn grant(&mut self, choices: &mut Choices<'_>) {
        let mut due = self.begin_step();
        // Now and then a conn server asks for the same again.
        let grant = match choices.once_in(8) && !self.known.is_empty() {
            true => self.known[choices.below(self.known.len() as u32) as usize].clone(),
            false => self.new_grant(choices),
        };
        let account_id = grant.account_id;
        let verdict = if self.draining {
            GrantVerdict::Draining
        } else if self.is_placed(account_id) || self.places() < self.settings.places_max as usize {
            GrantVerdict::Granted
        } else {
            GrantVerdict::Full
        };
        if verdict == GrantVerdict::Granted {
            self.open.retain(|it| it.grant.ticket != grant.ticket);
            self.open.push(Open {
                expires_at_ms: self.now_ms + u64::from(grant.ttl_ms),
                grant: grant.clone(),
            });
            let of_account = |(_, it): &(usize, &Open)| it.grant.account_id == account_id;
            let open = self.open.iter().enumerate().filter(of_account);
            if open.clone().count() > GRANTS_PER_ACCOUNT {
                let (oldest, _) = open.min_by_key(|(_, it)| it.grant.epoch).unwrap();
                self.open.remove(oldest);
            }
        }
        self.known.push(grant.clone());
        self.requests += 1;
        due.push(Due::Granted(self.requests, verdict));
        let link = LinkId(choices.below(LINKS).into());
        if let Some(mirror) = self.links.get_mut(&link)
            && verdict == GrantVerdict::Granted
        {
            mirror.granted(account_id, grant.epoch);
        }
        let request = self.requests;
        self.apply(
            Input::Grant {
                link,
                request,
                grant,
            },
            due,
        );
    }

    /// A conn server asks whether a grant is still open.
    fn check_grant(&mut self, choices: &mut Choices<'_>) {
        let mut due = self.begin_step();
        let Some(count @ 1..) = Some(self.known.len() as u32) else {
            return self.apply(Input::Tick, due);
        };
        let known = &self.known[choices.below(count) as usize];
        let check = GrantCheck {
            account_id: known.account_id,
            epoch: known.epoch,
        };
        let is_it =
            |it: &Open| (it.grant.account_id, it.grant.epoch) == (check.account_id, check.epoch);
        self.requests += 1;
        let request = self.requests;
        due.push(Due::Checked(request, self.open.iter().any(is_it)));
        let link = LinkId(0);
        self.apply(
            Input::GrantCheck {
                link,
                request,
                check,
            },
            due,
        );
    }

    fn new_grant(&mut self, choices: &mut Choices<'_>) -> message::Grant {
        self.epochs += 1;
        let number = self.epochs;
        // Grants of several conn servers overtake one another; each has an epoch of its own.
        let unix_ms = 10 * number - u64::from(choices.below(40));
        let epoch = u64::from(Epoch::at_ms(unix_ms)) | (number % 1_024);
        let mut ticket = [0; 16];
        ticket[..8].copy_from_slice(&number.to_le_bytes());
        let mut session_key = [1; 32];
        session_key[..8].copy_from_slice(&number.to_le_bytes());
        message::Grant {
            account_id: Self::account(choices),
            account: "device".parse().unwrap(),
            account_version: choices.below(3),
            session_key: Secret::new(session_key),
            ticket: Secret::new(ticket),
            source: (!choices.once_in(8)).then(|| Self::source(choices)),
            epoch: Epoch::try_from(epoch).unwrap(),
            ttl_ms: choices.pick(&[30_000, 5_000, 1, 0, 600_000]),
            heartbeat_s: choices.pick(&[None, Some(5), Some(3_600)]),
        }
    }

    fn connect(&mut self, choices: &mut Choices<'_>) {
        let mut due = self.begin_step();
        let source = Self::source(choices);
        let free = (0..)
            .map(ConnId)
            .find(|it| !self.connections.contains_key(it));
        let conn = free.unwrap();
        let holds_grant = self.open.iter().any(|it| admits_from(&it.grant, source));
        if !holds_grant {
            due.push(Due::Dropped(conn));
        } else {
            let connection = Connection {
                source,
                bytes: vec![],
                late_at_ms: self.now_ms + FIRST_FRAME_MS,
            };
            self.connections.insert(conn, connection);
            self.arrivals.push(conn);
            if self.connections.len() > self.settings.pending_max {
                let shed = self.oldest_of_the_most();
                self.forget(shed);
                due.push(Due::Dropped(shed));
            }
        }
        self.apply(
            Input::Accepted {
                conn,
                listener: ListenerIndex(0),
                source,
            },
            due,
        );
    }

    /// Of the addresses that have the most connections, the oldest connection.
    fn oldest_of_the_most(&self) -> ConnId {
        let network = |conn: &ConnId| network(self.connections[conn].source);
        let count = |of: &ConnId| {
            let same = self.arrivals.iter().filter(|it| network(it) == network(of));
            same.count()
        };
        let most = self.arrivals.iter().map(count).max();
        let oldest = self.arrivals.iter().find(|it| Some(count(it)) == most);
        *oldest.unwrap()
    }

    fn forget(&mut self, conn: ConnId) {
        self.connections.remove(&conn);
        self.arrivals.retain(|it| *it != conn);
    }

    fn some_connection(&self, choices: &mut Choices<'_>) -> Option<ConnId> {
        match self.arrivals.len() as u32 {
            0 => None,
            count => Some(self.arrivals[choices.below(count) as usize]),
        }
    }

    fn disconnect(&mut self, choices: &mut Choices<'_>) {
        let due = self.begin_step();
        // Also of one that the gate has let go of in this very turn.
        let conn = self.some_connection(choices).unwrap_or(ConnId(99));
        self.forget(conn);
        self.apply(Input::Disconnected { conn }, due);
    }

    /// Bytes of a connection: an Attach, or what others say, whole or in pieces.
    fn send(&mut self, choices: &mut Choices<'_>) {
        let due = self.begin_step();
        let Some(conn) = self.some_connection(choices) else {
            return self.apply(Input::Tick, due);
        };
        let mut bytes = self.said(choices);
        if choices.once_in(4) {
            let cut = choices.below(bytes.len() as u32 + 1) as usize;
            let rest = bytes.split_off(cut);
            self.receive(conn, &bytes, due);
            self.receive(conn, &rest, vec![]);
        } else {
            self.receive(conn, &bytes, due);
        }
    }

    fn said(&mut self, choices: &mut Choices<'_>) -> Vec<u8> {
        let id = choices.below(3) as u16;
        match choices.below(10) {
            0 => {
                let length = choices.below(40) as usize;
                choices.bytes(length).to_vec()
            }
            1 => {
                let length = choices.pick(&[0, 2, 3, 48, 500, 501]);
                contract::sealed(choices.u8(), id, &vec![0; length])
            }
            // Resumption is off: whoever asks for it is not admitted.
            3 => contract::sealed(0x09, id, &[0, 0]),
            4 => {
                let mut frame = contract::sealed(0x03, id, &[0; 48]);
                frame[choices.pick(&[8, 12, 59])] ^= 1;
                frame
            }
            // A piece of what a patient device says, byte by byte.
            2 => vec![choices.pick(b"RC\x01\x03")],
            _ => {
                let recent = self.known.iter().rev().take(8).collect::<Vec<_>>();
                let Some(count @ 1..) = Some(recent.len() as u32) else {
                    return contract::sealed(0x09, id, &[0, 0]);
                };
                let grant = recent[choices.below(count) as usize];
                let key = match choices.once_in(6) {
                    true => Secret::new([0xEE; 32]),
                    false => grant.session_key,
                };
                let mut frame = vec![];
                Attach::sign(grant.ticket, &key).encode(id, &mut frame);
                let more = choices.pick(&[0, 0, 12, 452, 453]);
                frame.resize(frame.len() + more, 0x52);
                frame
            }
        }
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8], mut due: Vec<Due>) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.bytes.extend_from_slice(bytes);
            let (said, source) = (connection.bytes.clone(), connection.source);
            let answers = self.answers(conn, &said, source);
            if !answers.is_empty() {
                self.forget(conn);
            }
            due.extend(answers);
        }
        self.apply(Input::Received { conn, bytes }, due);
    }

    /// What comes of everything that a connection has said; nothing while it is not a frame.
    fn answers(&mut self, conn: ConnId, said: &[u8], source: IpAddr) -> Vec<Due> {
        let broken = vec![Due::Closed(conn, CloseReason::ProtocolError)];
        if said.len() > 512 {
            return broken;
        }
        let (frames, end) = contract::frames(said, 512);
        let Some(frame) = frames.first() else {
            return match end {
                contract::End::Incomplete { .. } => vec![],
                _ => broken,
            };
        };
        let is_right = contract::id_is_right(frame.kind, frame.id)
            && contract::body(frame.kind, &frame.body) == contract::Body::Right;
        match frame.kind {
            0x09 if is_right => vec![Due::Reply(conn, frame.id, AttachStatus::NotAdmitted)],
            0x03 if is_right => {
                let unread = said[12 + frame.body.len()..].to_vec();
                self.judge(conn, frame, source, unread)
            }
            _ => broken,
        }
    }

    fn judge(
        &mut self,
        conn: ConnId,
        frame: &contract::Frame,
        source: IpAddr,
        unread: Vec<u8>,
    ) -> Vec<Due> {
        let reply = |status| vec![Due::Reply(conn, frame.id, status)];
        let presents = |it: &Open| {
            let right = Attach::sign(it.grant.ticket, &it.grant.session_key);
            let mut proven = it.grant.ticket.expose().to_vec();
            proven.extend(right.proof);
            admits_from(&it.grant, source) && proven == frame.body
        };
        let Some(index) = self.open.iter().position(presents) else {
            return reply(AttachStatus::NotAdmitted);
        };
        let used = self.open.remove(index);
        let (account_id, epoch) = (used.grant.account_id, used.grant.epoch);
        let newest = self.published.get(&account_id).copied();
        if self.draining || newest.is_some_and(|newest| epoch <= newest) {
            self.grants_closed(&[used]);
            return reply(match self.draining {
                true => AttachStatus::Draining,
                false => AttachStatus::NotAdmitted,
            });
        }
        self.published.insert(account_id, epoch);
        let older = |it: &Open| it.grant.account_id == account_id && it.grant.epoch < epoch;
        self.open.retain(|it| !older(it));
        let mut due = vec![];
        if let Some(replaced) = self.current.get(&account_id) {
            due.push(Due::End(replaced.session, CloseReason::Replaced));
            self.old.push((account_id, replaced.epoch));
        }
        due.push(Due::Admitted(conn, account_id, epoch, unread));
        due
    }

    /// A shard lets go of a session: of the current one, or late of an older one.
    fn session_ends(&mut self, choices: &mut Choices<'_>) {
        let due = self.begin_step();
        let old = choices.once_in(3).then(|| self.old.pop()).flatten();
        let (account_id, epoch) = old.unwrap_or_else(|| {
            let account_id = Self::account(choices);
            let current = self.current.remove(&account_id);
            let epoch = current.map_or(Epoch::ZERO, |it| it.epoch);
            self.old.push((account_id, epoch));
            (account_id, epoch)
        });
        if !self.is_placed(account_id) {
            self.published.remove(&account_id);
        }
        self.apply(Input::SessionEnded { account_id, epoch }, due);
    }

    fn link(&mut self, choices: &mut Choices<'_>) {
        let due = self.begin_step();
        let link = LinkId(choices.below(LINKS).into());
        if self.links.remove(&link).is_some() {
            return self.apply(Input::LinkDown { link }, due);
        }
        self.links.insert(link, Mirror::default());
        self.apply(Input::LinkUp { link }, due);
    }

    fn command(&mut self, choices: &mut Choices<'_>) {
        let mut due = self.begin_step();
        let account_id = Self::account(choices);
        self.requests += 1;
        let request = self.requests;
        due.push(match self.current.get(&account_id) {
            Some(current) => Due::Command(current.session, request),
            None => Due::NotAttached(request),
        });
        let order = Order {
            command_id: request,
            deadline_ms: 0,
            code: 1,
            payload: vec![],
        };
        let ask = Ask {
            asker: Asker {
                link: LinkId(0),
                request,
                until_ms: self.now_ms + 1_000,
            },
            account_id,
            question: Question::Command(order),
        };
        self.apply(Input::Ask(ask), due);
    }

    /// A newer session lives elsewhere, or the account changed.
    fn withdraw(&mut self, choices: &mut Choices<'_>) {
        let mut due = self.begin_step();
        let account_id = Self::account(choices);
        let current = self.current.get(&account_id).copied();
        if choices.once_in(2) {
            let below = Epoch::at_ms(10 * self.epochs - u64::from(choices.below(40)));
            let older = current.filter(|it| it.epoch < below);
            due.extend(older.map(|it| Due::End(it.session, CloseReason::Replaced)));
            return self.apply(Input::End(End { account_id, below }), due);
        }
        let below_version = choices.pick(&[1, 2, u32::MAX]);
        let (why, reason) = choices.pick(&[
            (RevokeReason::Disabled, CloseReason::Disabled),
            (RevokeReason::KeyRotated, CloseReason::Replaced),
        ]);
        let (over, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition::<Vec<_>, _>(|it| {
                it.grant.account_id == account_id && it.grant.account_version < below_version
            });
        self.open = open;
        self.grants_closed(&over);
        let older = current.filter(|it| it.version < below_version);
        due.extend(older.map(|it| Due::End(it.session, reason)));
        let revoke = Revoke {
            account_id,
            below_version,
            why,
        };
        self.apply(Input::Revoke(revoke), due);
    }

    /// The end of a turn: every link knows all, and there is nothing left to do now.
    fn tick(&mut self) {
        let due = self.begin_step();
        self.apply(Input::Tick, due);
        let next = self.core.next_deadline();
        assert!(
            next.is_none_or(|at_ms| at_ms > self.now_ms),
            "a tick in vain"
        );
        for mirror in self.links.values() {
            let sessions = self.current.iter();
            let sessions = sessions.map(|(account_id, it)| (*account_id, it.epoch, it.version));
            let grants = self.open.iter();
            let grants = grants.map(|it| (it.grant.account_id, it.grant.epoch));
            mirror.check(sessions.collect(), grants.collect(), self.core.load());
        }
    }

    fn check(&self) {
        let load = self.core.load();
        assert!(load.places_used <= load.places_max, "P9");
        assert_eq!(load.places_used as usize, self.places(), "P9");
        assert_eq!(load.draining, self.draining);
        let expiries = self.open.iter().map(|it| it.expires_at_ms);
        let late = self.connections.values().map(|it| it.late_at_ms);
        let first = expiries.chain(late).min();
        let next = self.core.next_deadline();
        assert!(
            first.is_none_or(|first| next.is_some_and(|next| next <= first)),
            "{next:?} is after {first:?}"
        );
    }

    /// When nobody comes any more, what was promised runs out.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.tick();
            self.now_ms += 600_000;
        }
        self.tick();
        assert!(self.connections.is_empty() && self.open.is_empty());
        self.check();
    }
}

fn admits_from(grant: &message::Grant, source: IpAddr) -> bool {
    grant
        .source
        .is_none_or(|granted| network(granted) == network(source))
}
