//! A sequence of operations on a conn server's core: logins with right and wrong proofs, replays,
//! wrong clocks, accounts that change while they are judged, logic servers that come and go, grant,
//! refuse and fall silent, commands, time, shutdown.
//!
//! The keys are fixed, so that every verdict of the contract can be reached. Held against it: the
//! contract's order of judgement; a login is answered once and in time; `ok` only with a right
//! proof, for an account that is enabled and a clock that is right, and with the ticket that a
//! logic server acknowledged; a nonce gets one ticket; epochs only grow.

mod asked;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use common::config::Policy;
use common::epoch::{Epoch, NodeNumber};
use common::ids::{AccountId, AccountName, Nonce, Ticket};
use common::link::message::{
    self, AccountCommand, Adopt, Attached, CommandAnswer, Ended, Grant, GrantAnswer,
    GrantCheckAnswer, GrantVerdict, Held, LogicInfo, LogicLoad, Message, Order,
};
use common::link::{LinkEvent, LinkId, Peer, Role};
use common::pacing::Rate;
use common::secret::{DeviceKey, Secret};
use conn_server::account::{Account, Change, ChangeKind, Found};
use conn_server::core::{Core, Effect, Input};
use conn_server::counters::{Counter, Counters};
use conn_server::desk::{Desk, Rules};
use conn_server::directory::Directory;
use conn_server::epochs::Epochs;
use conn_server::nonces::Nonces;
use conn_server::pool::NodePool;
use conn_server::throttle::{Limits, Throttle};
use protocols::rcu::code::LoginStatus;
use protocols::rcu::login::{Login, LoginReply, LoginVerdict};
use protocols::rcu::proof::session_key;
use rand::SeedableRng;
use rand::rngs::{SmallRng, StdRng};

use crate::choices::Choices;
use crate::contract;
use asked::{Asked, Stage, Told};

const BALANCER: LinkId = LinkId(1);
const OPERATOR: LinkId = LinkId(2);
const NODES: u16 = 2;
/// The first two are accounts; the third nobody knows.
const NAMES: [&str; 3] = ["a-1", "a-2", "nobody"];
const UNIX_MS: u64 = 1_800_000_000_000;
const SKEW_MAX_MS: u64 = 300_000;
const GRANT_TTL_MS: u32 = 30_000;
/// What a balancer waits; an answer comes before.
const TRY_MS: u32 = 2_500;

pub fn login(data: &[u8]) {
    run(data);
}

/// The same; tells what the conn server counted.
pub fn run(data: &[u8]) -> Counters {
    let mut choices = Choices::new(data);
    let mut model = Model::new(&mut choices);
    while choices.next_step() {
        model.step(&mut choices);
    }
    model.settle();
    model.core.counters().clone()
}

fn node_address(node: u16, is_v4: bool) -> SocketAddr {
    let ip = match is_v4 {
        true => IpAddr::from([192, 0, 2, 100 + node as u8]),
        false => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, node]),
    };
    SocketAddr::new(ip, 20_000 + node)
}

/// A logic server's link.
struct Node {
    link: LinkId,
    is_adopted: bool,
    has_v6: bool,
}

/// A grant that a node was asked for.
struct Granting {
    link: LinkId,
    request: u64,
    node: u16,
    grant: Grant,
}

struct Model {
    core: Core,
    now_ms: u64,
    accounts: BTreeMap<AccountName, Account>,
    versions: u32,
    nodes: BTreeMap<u16, Node>,
    last_link: u64,
    last_request: u64,
    logins: BTreeMap<u64, Asked>,
    /// Look-ups that are not answered, the oldest first.
    look_ups: Vec<(u64, AccountName)>,
    granting: Vec<Granting>,
    /// Questions about open grants that are not answered.
    checks: Vec<(LinkId, u64)>,
    /// By (account, nonce): the tickets that were answered `ok`, and when.
    tickets: BTreeMap<(AccountId, Nonce), (Ticket, u64)>,
    /// Nonces of an account that a right proof was seen with.
    proven: BTreeSet<(AccountId, Nonce)>,
    /// Grants that a node acknowledged.
    acknowledged: Vec<(u16, Grant)>,
    last_epoch: Epoch,
    commands: BTreeSet<u64>,
    commanded: Vec<(LinkId, u64)>,
    /// What was last stored, and whether storing works.
    is_storing: bool,
    is_shut_down: bool,
}

impl Model {
    fn new(choices: &mut Choices<'_>) -> Self {
        let rate = choices.pick(&[Rate::UNLIMITED, Rate { per_s: 1, burst: 5 }]);
        let limits = Limits {
            in_all: rate,
            per_source: choices.pick(&[Rate::UNLIMITED, Rate { per_s: 1, burst: 2 }]),
            sources_max: 16,
            guesses_max: 16,
        };
        let desk = Desk {
            rules: Rules {
                grant_ttl_ms: GRANT_TTL_MS,
                clock_skew_max_ms: SKEW_MAX_MS,
                source_exact: true,
                heartbeat_s: None,
            },
            throttle: Throttle::new(limits, 1),
            nonces: Nonces::new(1_000),
            pool: NodePool::new(choices.pick(&[Policy::LeastLoaded, Policy::Fill])),
            directory: Directory::default(),
            epochs: Epochs::new(NodeNumber::new(7).unwrap(), Epoch::ZERO),
            counters: Counters::default(),
            tickets: StdRng::seed_from_u64(1),
            waits: SmallRng::seed_from_u64(1),
        };
        let accounts = NAMES[..2].iter().zip(1..).map(|(name, id)| {
            let account = Account {
                id: AccountId(id),
                key: Secret::new([id as u8; 32]),
                version: 1,
                enabled: true,
            };
            (name.parse().unwrap(), account)
        });
        let targets = (0..NODES).map(|node| format!("127.0.0.1:{}", 30_000 + node));
        let mut model = Self {
            core: Core::new(desk, targets.collect(), choices.pick(&[100, 1, 2])),
            now_ms: 1_000_000,
            accounts: accounts.collect(),
            versions: 1,
            nodes: BTreeMap::new(),
            last_link: 100,
            last_request: 0,
            logins: BTreeMap::new(),
            look_ups: vec![],
            granting: vec![],
            checks: vec![],
            tickets: BTreeMap::new(),
            proven: BTreeSet::new(),
            acknowledged: vec![],
            last_epoch: Epoch::ZERO,
            commands: BTreeSet::new(),
            commanded: vec![],
            is_storing: !choices.once_in(8),
            is_shut_down: false,
        };
        model.up(BALANCER, Role::Balancer, None);
        model.up(OPERATOR, Role::Operator, None);
        model.pass(0);
        for node in 0..NODES {
            model.node_up(node, false);
            model.adopt(node);
        }
        model
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(32) {
            0..8 => self.ask(choices),
            8..14 => self.find(choices),
            14..20 => self.node_answers(choices),
            20..24 => {
                let ms = choices.pick(&[5, 500, 5_000, 100_000]);
                self.pass(u64::from(choices.u16()) % ms);
            }
            24 | 25 => self.change(choices),
            26 | 27 => self.node_changes(choices),
            28 => self.node_says(choices),
            29 | 30 => self.command(choices),
            _ => match choices.below(16) {
                15 => {
                    self.is_shut_down = true;
                    self.apply(Input::Shutdown);
                    assert!(self.logins.is_empty(), "answered busy");
                }
                14 => self.is_storing ^= true,
                _ => {}
            },
        }
        self.check();
    }

    fn unix_ms(&self) -> u64 {
        UNIX_MS + self.now_ms
    }

    fn apply(&mut self, input: Input) -> Vec<Told> {
        let mut effects = vec![];
        let unix_ms = self.unix_ms();
        self.core.apply(input, self.now_ms, unix_ms, &mut effects);
        let mut told = vec![];
        for effect in effects {
            match effect {
                Effect::LookUp { id, account } => {
                    // Looked up again, where the account changed while it was judged.
                    let again = self
                        .logins
                        .values_mut()
                        .find(|it| it.stage == Stage::Judged(id));
                    if let Some(again) = again {
                        again.stage = Stage::LookUp(id);
                    }
                    self.look_ups.push((id, account));
                    told.push(Told::LookUp);
                }
                Effect::Request {
                    link, id, message, ..
                } => match message {
                    Message::Grant(grant) => {
                        self.granted_asked(link, id, grant);
                        told.push(Told::Grant);
                    }
                    Message::GrantCheck(check) => {
                        let node = self.node_of(link).expect("a link that is up");
                        let is_it = |(of, it): &(u16, Grant)| {
                            (*of, it.account_id, it.epoch) == (node, check.account_id, check.epoch)
                        };
                        assert!(self.acknowledged.iter().any(is_it), "a grant of that node");
                        self.checks.push((link, id));
                        told.push(Told::Check);
                    }
                    Message::Command(_) => {
                        assert!(self.node_of(link).is_some());
                        self.commanded.push((link, id));
                    }
                    other => panic!("{other:?} as a request"),
                },
                Effect::Answer { link, id, message } => match message {
                    Message::LoginAnswer(answer) => {
                        assert_eq!(link, BALANCER);
                        told.push(Told::Reply(self.answered(id, &answer.body)));
                    }
                    Message::CommandAnswer(answer) => {
                        assert_eq!(link, OPERATOR);
                        assert!(self.commands.contains(&id), "answered to the end before");
                        if !matches!(answer, CommandAnswer::Replied { more: true, .. }) {
                            self.commands.remove(&id);
                        }
                    }
                    other => panic!("{other:?} as an answer"),
                },
                Effect::Notice { link, .. } => {
                    assert!(
                        link == BALANCER || self.node_of(link).is_some(),
                        "a link that is up"
                    );
                }
                Effect::StoreMark(mark) => {
                    let stored = Input::MarkStored(self.is_storing.then_some(mark));
                    // The database answers at once here.
                    let more = self.apply(stored);
                    assert!(more.is_empty());
                }
                Effect::CloseLink { link, why } => panic!("{link} is closed: {why}"),
                Effect::CheckVersions { link, .. } => assert!(self.node_of(link).is_some()),
                Effect::NoteLastLogin(_) | Effect::Explain { .. } | Effect::Audit { .. } => {}
                Effect::Names { .. } => panic!("nobody lists sessions here"),
            }
        }
        told
    }

    fn node_of(&self, link: LinkId) -> Option<u16> {
        let mut nodes = self.nodes.iter();
        nodes.find(|(_, it)| it.link == link).map(|(node, _)| *node)
    }

    // ---- logins -------------------------------------------------------------------------------

    fn ask(&mut self, choices: &mut Choices<'_>) {
        let name: AccountName = choices.pick(&NAMES).parse().unwrap();
        let account = self.accounts.get(&name);
        let right_key = account.map_or(Secret::new([9; 32]), |it| it.key);
        let key = match choices.once_in(5) {
            true => Secret::new([0xEE; 32]),
            false => right_key,
        };
        let nonce = Nonce([choices.below(6) as u8; 16]);
        let unix_ms = self.unix_ms();
        let sent_at_ms = choices.pick(&[
            unix_ms,
            unix_ms,
            unix_ms,
            unix_ms,
            unix_ms - SKEW_MAX_MS,
            unix_ms + SKEW_MAX_MS,
            unix_ms - SKEW_MAX_MS - 1,
            unix_ms + SKEW_MAX_MS + 1,
            0,
            u64::MAX,
        ]);
        let firmware = choices.pick(&["1.0", "", "a firmware of thirty-two letters"]);
        let source = choices.pick(&["192.0.2.1", "2001:db8::5"]).parse().unwrap();
        let mut frame = vec![];
        Login::sign(&name, firmware, sent_at_ms, nonce, &key).encode(1, &mut frame);
        let mut body = frame.split_off(12);
        match choices.below(12) {
            // A proof of another login, a field altered on the way, a body that is none.
            11 => *body.last_mut().unwrap() ^= 1,
            10 => body.truncate(choices.below(body.len() as u32) as usize),
            9 => {
                let at = choices.below(body.len() as u32) as usize;
                body[at] ^= 1 << choices.below(8);
            }
            _ => {}
        }
        self.last_request += 1;
        let request = self.last_request;
        let asked = Asked::new(&body, source, self.now_ms);
        let is_right = asked.claim.is_some();
        let is_shed = self.is_shut_down;
        self.logins.insert(request, asked);
        let told = self.link_says(LinkEvent::Request {
            link: BALANCER,
            id: request,
            deadline_ms: TRY_MS,
            message: message::Login { source, body }.into(),
            epoch: Epoch::ZERO,
        });
        match told[..] {
            [Told::Reply(LoginStatus::Malformed)] => assert!(!is_right),
            // Under overload a tier may answer without looking further.
            [Told::Reply(LoginStatus::Busy)] => {}
            [Told::LookUp] => {
                assert!(is_right && !is_shed);
                let (id, name) = self.look_ups.last().unwrap();
                let asked = self.logins.get_mut(&request).unwrap();
                assert_eq!(asked.claim.as_ref().map(|it| &it.account), Some(name));
                asked.stage = Stage::LookUp(*id);
            }
            _ => panic!("{told:?} to a Login"),
        }
    }

    /// The database answers the oldest look-up, or one that is of a login long over.
    fn find(&mut self, choices: &mut Choices<'_>) {
        if self.look_ups.is_empty() {
            return self.ask(choices);
        }
        let (id, name) = self.look_ups.remove(0);
        let found = match (choices.once_in(10), self.accounts.get(&name)) {
            (true, _) => Found::Failed,
            (false, Some(account)) => Found::Account(*account),
            (false, None) => Found::Unknown,
        };
        let request = self
            .logins
            .iter()
            .find(|(_, it)| it.stage == Stage::LookUp(id));
        let Some(request) = request.map(|(request, _)| *request) else {
            // A command's, or one of a login that could not wait.
            self.apply(Input::Found { id, found });
            return;
        };
        let expected = self.logins[&request].judge(found, self.unix_ms(), SKEW_MAX_MS);
        let nonce = self.logins[&request].claim.as_ref().unwrap().nonce;
        let account_id = match found {
            Found::Account(account) => Some(account.id),
            Found::Unknown | Found::Failed => None,
        };
        let is_new = account_id.is_none_or(|id| !self.proven.contains(&(id, nonce)));
        if expected != Some(LoginStatus::Refused)
            && let Some(account_id) = account_id
        {
            self.proven.insert((account_id, nonce));
        }
        let asked = self.logins.get_mut(&request).unwrap();
        asked.stage = Stage::Judged(id);
        asked.account = match found {
            Found::Account(account) => Some(account),
            Found::Unknown | Found::Failed => None,
        };
        let told = self.apply(Input::Found { id, found });
        let [told] = told[..] else {
            panic!("{told:?} to an account");
        };
        match (expected, told) {
            // A nonce that was seen before is told from a new one before the rest is looked at.
            (_, Told::Reply(LoginStatus::Refused | LoginStatus::Busy)) if !is_new => {}
            (Some(expected), told) => assert_eq!(told, Told::Reply(expected)),
            (None, Told::Grant) => {}
            (None, Told::Reply(LoginStatus::Full | LoginStatus::Busy)) => {}
            (None, Told::Check) => assert!(!is_new, "there is nothing to repeat"),
            (None, told) => panic!("{told:?} to a login that is all right"),
        }
    }

    fn granted_asked(&mut self, link: LinkId, request: u64, grant: Grant) {
        let node = self.node_of(link).expect("a link that is up");
        assert!(self.nodes[&node].is_adopted, "its sessions are not known");
        assert!(grant.epoch > self.last_epoch, "epochs grow");
        self.last_epoch = grant.epoch;
        assert_eq!(grant.ttl_ms, GRANT_TTL_MS);
        let account = self.accounts.values().find(|it| it.id == grant.account_id);
        assert!(account.is_some_and(|it| it.version >= grant.account_version));
        self.granting.push(Granting {
            link,
            request,
            node,
            grant,
        });
    }

    fn answered(&mut self, request: u64, body: &[u8]) -> LoginStatus {
        let asked = self.logins.remove(&request).expect("answered once");
        assert_eq!(contract::body(0x02, body), contract::Body::Right);
        let reply = LoginReply::decode_body(body).unwrap();
        assert_eq!(reply.server_time_ms, self.unix_ms());
        let status = reply.status();
        let waits = matches!(status, LoginStatus::Busy | LoginStatus::Full);
        assert_eq!(reply.retry_after_ms > 0, waits, "{status}");
        if !matches!(
            status,
            LoginStatus::Ok | LoginStatus::Disabled | LoginStatus::ClockSkew
        ) {
            return status;
        }
        let account = asked.account.expect("its account was found");
        let claim = asked.claim.as_ref().expect("it could be parsed");
        assert!(
            claim.is_proven(&account.key),
            "a wrong proof is told nothing"
        );
        assert!(
            reply.verify(claim.nonce, &account.key),
            "{status} without a right proof"
        );
        assert_eq!(account.enabled, status != LoginStatus::Disabled);
        if let LoginVerdict::Ok(signed) = reply.verdict {
            let target = &signed.target;
            let granted = |(_, grant): &&(u16, Grant)| grant.ticket == target.ticket;
            let (node, grant) = self
                .acknowledged
                .iter()
                .find(granted)
                .expect("acknowledged");
            assert_eq!(grant.account_id, account.id);
            let right_key = session_key(&account.key, claim.nonce, &target.ticket);
            assert!(grant.session_key == right_key, "made for this very login");
            let has_v6 = self.nodes[node].has_v6;
            let address = node_address(*node, asked.source.is_ipv4() || !has_v6);
            assert_eq!(
                (target.host, target.port),
                (&*address.ip().to_string(), address.port())
            );
            assert!((1..=30).contains(&target.ticket_ttl_s));
            let key = (account.id, claim.nonce);
            let before = self.tickets.insert(key, (target.ticket, self.now_ms));
            let other = before.filter(|(ticket, at_ms)| {
                // From its judgement on, which was a little before.
                *ticket != target.ticket && at_ms + 597_000 > self.now_ms
            });
            assert!(other.is_none(), "a nonce gets one ticket");
        }
        status
    }

    // ---- accounts -----------------------------------------------------------------------------

    fn change(&mut self, choices: &mut Choices<'_>) {
        let name: AccountName = choices.pick(&NAMES[..2]).parse().unwrap();
        let Some(account) = self.accounts.get_mut(&name) else {
            return;
        };
        self.versions += 1;
        account.version = self.versions;
        let kind = choices.pick(&[
            ChangeKind::Disabled,
            ChangeKind::Enabled,
            ChangeKind::Enabled,
            ChangeKind::KeyRotated,
        ]);
        match kind {
            ChangeKind::Disabled => account.enabled = false,
            ChangeKind::Enabled => account.enabled = true,
            _ => account.key = DeviceKey::new([self.versions as u8; 32]),
        }
        let (account_id, version) = (account.id, account.version);
        self.apply(Input::Changed(Change {
            account_id,
            name,
            version,
            kind,
        }));
    }

    // ---- logic servers ------------------------------------------------------------------------

    fn up(&mut self, link: LinkId, role: Role, target: Option<String>) {
        let name = match role {
            Role::Logic => format!(
                "logic-{}",
                target.as_deref().unwrap_or("").replace(':', "-")
            ),
            _ => format!("peer-{link}"),
        };
        let peer = Peer {
            role,
            node: name.parse().unwrap(),
            version: 1,
            address: "127.0.0.1:1".parse().unwrap(),
            target,
        };
        self.link_says(LinkEvent::Up { link, peer });
    }

    fn link_says(&mut self, event: LinkEvent) -> Vec<Told> {
        self.apply(Input::Link(event))
    }

    fn notice(&mut self, node: u16, message: impl Into<Message>) {
        if let Some(link) = self.nodes.get(&node).map(|it| it.link) {
            let message = message.into();
            let epoch = Epoch::ZERO;
            self.link_says(LinkEvent::Notice {
                link,
                message,
                epoch,
            });
        }
    }

    fn node_up(&mut self, node: u16, has_v6: bool) {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.granting.retain(|it| it.node != node);
        if let Some(before) = self.nodes.get(&node).map(|it| it.link) {
            self.checks.retain(|(link, _)| *link != before);
            self.commanded.retain(|(link, _)| *link != before);
        }
        self.nodes.insert(
            node,
            Node {
                link,
                is_adopted: false,
                has_v6,
            },
        );
        self.up(
            link,
            Role::Logic,
            Some(format!("127.0.0.1:{}", 30_000 + node)),
        );
        let mut advertise = vec![node_address(node, true)];
        advertise.extend(has_v6.then(|| node_address(node, false)));
        let load = load(5);
        self.notice(node, LogicInfo { advertise, load });
    }

    fn adopt(&mut self, node: u16) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.is_adopted = true;
        }
        self.notice(
            node,
            Adopt {
                sessions: vec![],
                grants: vec![],
                last: true,
            },
        );
    }

    fn node_changes(&mut self, choices: &mut Choices<'_>) {
        let node = choices.below(NODES.into()) as u16;
        match choices.below(3) {
            0 => {
                let has_v6 = choices.once_in(2);
                self.node_up(node, has_v6);
                if choices.once_in(2) {
                    self.adopt(node);
                }
            }
            1 => self.adopt(node),
            _ => {
                let Some(down) = self.nodes.get(&node).map(|it| it.link) else {
                    return;
                };
                self.granting.retain(|it| it.link != down);
                self.commanded.retain(|(link, _)| *link != down);
                self.checks.retain(|(link, _)| *link != down);
                self.nodes.remove(&node);
                let why = String::new();
                self.link_says(LinkEvent::Down { link: down, why });
            }
        }
    }

    fn node_answers(&mut self, choices: &mut Choices<'_>) {
        if choices.once_in(8) && !self.commanded.is_empty() {
            let (link, id) = self.commanded[choices.below(self.commanded.len() as u32) as usize];
            let message = choices.pick(&[0, 1, 2]);
            let message = match message {
                0 => CommandAnswer::Replied {
                    status: 0,
                    more: true,
                    payload: vec![],
                },
                1 => CommandAnswer::Replied {
                    status: 0,
                    more: false,
                    payload: vec![],
                },
                _ => CommandAnswer::Lost,
            };
            let epoch = Epoch::ZERO;
            let message = message.into();
            self.link_says(LinkEvent::Answer {
                link,
                id,
                message,
                epoch,
            });
            return;
        }
        if let Some((link, id)) = self.checks.pop() {
            let is_open = !choices.once_in(3);
            let epoch = Epoch::ZERO;
            let message = GrantCheckAnswer { is_open }.into();
            self.link_says(LinkEvent::Answer {
                link,
                id,
                message,
                epoch,
            });
            return;
        }
        if self.granting.is_empty() {
            return self.find(choices);
        }
        let at = choices.below(self.granting.len() as u32) as usize;
        let Granting {
            link,
            request,
            node,
            grant,
        } = self.granting.remove(at);
        let verdict = match choices.below(6) {
            5 => GrantVerdict::Draining,
            4 => GrantVerdict::Full,
            _ => GrantVerdict::Granted,
        };
        if verdict == GrantVerdict::Granted {
            self.acknowledged.push((node, grant));
        }
        let answer = GrantAnswer {
            verdict,
            load: load(choices.below(6)),
        };
        let epoch = self.last_epoch;
        let message = answer.into();
        self.link_says(LinkEvent::Answer {
            link,
            id: request,
            message,
            epoch,
        });
    }

    /// What happens to grants and sessions on a node.
    fn node_says(&mut self, choices: &mut Choices<'_>) {
        let node = choices.below(NODES.into()) as u16;
        let granted = self.acknowledged.iter().filter(|(of, _)| *of == node);
        let granted =
            granted.map(|(_, grant)| (grant.account_id, grant.epoch, grant.account_version));
        let granted: Vec<_> = granted.collect();
        if granted.is_empty() || !self.nodes.get(&node).is_some_and(|it| it.is_adopted) {
            let load = load(choices.below(6));
            return self.notice(node, load);
        }
        let at = choices.below(granted.len() as u32) as usize;
        let (account_id, epoch, account_version) = granted[at];
        let held = Held {
            account_id,
            epoch,
            account_version,
        };
        match choices.below(4) {
            0 => self.notice(
                node,
                Ended {
                    sessions: vec![],
                    grants: vec![(account_id, epoch)],
                },
            ),
            1 => self.notice(
                node,
                Ended {
                    sessions: vec![(account_id, epoch)],
                    grants: vec![],
                },
            ),
            _ => self.notice(
                node,
                Attached {
                    sessions: vec![held],
                },
            ),
        }
    }

    fn command(&mut self, choices: &mut Choices<'_>) {
        self.last_request += 1;
        let request = self.last_request;
        self.commands.insert(request);
        let command = AccountCommand {
            account: choices.pick(&NAMES).parse().unwrap(),
            order: Order {
                command_id: 1,
                deadline_ms: 0,
                code: 1,
                payload: vec![],
            },
        };
        self.link_says(LinkEvent::Request {
            link: OPERATOR,
            id: request,
            deadline_ms: choices.pick(&[10_000, 0, u32::MAX]),
            message: command.into(),
            epoch: Epoch::ZERO,
        });
    }

    // ---- time ---------------------------------------------------------------------------------

    /// With a tick whenever the core wants one.
    fn pass(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while self.core.next_deadline() <= until_ms {
            self.now_ms = self.now_ms.max(self.core.next_deadline());
            self.apply(Input::Tick);
            assert!(self.core.next_deadline() > self.now_ms, "a tick in vain");
        }
        self.now_ms = until_ms;
    }

    fn check(&self) {
        assert_eq!(
            self.core.load().logins_open as usize,
            match self.is_shut_down {
                true => 0,
                false => self.logins.len(),
            }
        );
        let counted = |counter| self.core.counters().of(counter);
        let refused = counted(Counter::CommandsNotAttached) + counted(Counter::CommandsShed);
        assert!(refused <= counted(Counter::Commands), "each once");
        for asked in self.logins.values() {
            // A little before the balancer gives it up.
            assert!(
                self.now_ms < asked.asked_at_ms + u64::from(TRY_MS),
                "answered late"
            );
        }
    }

    fn settle(&mut self) {
        self.pass(match self.commands.is_empty() {
            true => 5_000,
            false => 700_000,
        });
        self.check();
        assert!(self.logins.is_empty(), "every login is answered");
        assert!(self.commands.is_empty(), "every command is answered");
    }
}

fn load(free: u32) -> LogicLoad {
    LogicLoad {
        places_used: 5 - free,
        places_max: 5,
        draining: false,
    }
}
