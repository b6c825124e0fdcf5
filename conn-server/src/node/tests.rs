//! A conn server between real links and a real database; balancer, logic servers and operator are
//! played by the tests.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::epoch::Epoch;
use common::ids::{AccountId, AccountName, Nonce};
use common::link::message::{
    self, AccountCommand, Adopt, Attached, CommandAnswer, Grant, GrantAnswer, GrantVerdict, Held,
    LogicInfo, LogicLoad, Message, Order, Revoke, RevokeReason,
};
use common::link::{Key, LinkEvent, LinkId, call};
use common::secret::{DeviceKey, Secret};
use protocols::rcu::code::LoginStatus;
use protocols::rcu::frame::HEADER_BYTES;
use protocols::rcu::login::{Login, LoginReply};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::accounts::store::Accounts;
use crate::counters::{Counter, Gauge};
use crate::testing::{self, on_both, rows};

on_both!(
    a_device_is_let_in_and_its_login_is_noted,
    changes_are_in_effect_while_it_runs,
    a_node_that_holds_what_was_revoked_meanwhile_is_told,
    of_two_sessions_the_older_one_ends,
    an_operators_command_reaches_the_session,
    epochs_grow_from_start_to_start,
    what_cannot_start_says_why,
);

const PATIENCE: Duration = Duration::from_secs(25);
const MASTER: MasterKey = Secret::new([9; 32]);
const KEY: DeviceKey = Secret::new([7; 32]);
const NEW_KEY: DeviceKey = Secret::new([8; 32]);
const LOAD: LogicLoad = LogicLoad {
    places_used: 1,
    places_max: 10,
    draining: false,
};

fn keys() -> Keys {
    Keys {
        cluster: vec![Key::new(Secret::new([1; 32]))],
        operator: vec![Key::new(Secret::new([2; 32]))],
    }
}

fn hub(role: Role, node: &str) -> (Hub, mpsc::Receiver<LinkEvent>) {
    let (sender, events) = mpsc::channel(64);
    let hub = Hub::new(HubSettings {
        role,
        node: node.parse().unwrap(),
        keys: keys(),
        events: sender,
        listen_publicly: false,
    });
    (hub, events)
}

/// A logic server that lists what it is given and grants everything.
struct Logic {
    address: String,
    hub: Hub,
    /// What it was asked and told.
    heard: mpsc::UnboundedReceiver<Message>,
    /// The present link; a machine that stands still for seconds breaks every link of it.
    link: watch::Receiver<Option<LinkId>>,
}

impl Logic {
    async fn start(node: &str, sessions: Vec<Held>) -> Self {
        let (hub, events) = hub(Role::Logic, node);
        let any = "127.0.0.1:0".parse().unwrap();
        let address = hub.listen(any, &[Role::Conn]).await.unwrap().to_string();
        let (hear, heard) = mpsc::unbounded_channel();
        let (present, link) = watch::channel(None);
        tokio::spawn(play(hub.clone(), events, sessions, hear, present));
        Self {
            address,
            hub,
            heard,
            link,
        }
    }
}

async fn play(
    hub: Hub,
    mut events: mpsc::Receiver<LinkEvent>,
    sessions: Vec<Held>,
    hear: mpsc::UnboundedSender<Message>,
    present: watch::Sender<Option<LinkId>>,
) {
    while let Some(event) = events.recv().await {
        let message = match event {
            LinkEvent::Up { link, .. } => {
                let info = LogicInfo {
                    advertise: vec!["127.0.0.1:20000".parse().unwrap()],
                    load: LOAD,
                };
                hub.notice(link, info);
                let page = Adopt {
                    sessions: sessions.clone(),
                    grants: vec![],
                    last: true,
                };
                hub.notice(link, page);
                present.send_replace(Some(link));
                continue;
            }
            LinkEvent::Request {
                link, id, message, ..
            } => {
                match &message {
                    Message::Grant(_) => {
                        let verdict = GrantVerdict::Granted;
                        hub.answer(
                            link,
                            id,
                            GrantAnswer {
                                verdict,
                                load: LOAD,
                            },
                        );
                    }
                    _ => {
                        hub.answer(link, id, replied(true));
                        hub.answer(link, id, replied(false));
                    }
                }
                message
            }
            LinkEvent::Notice { message, .. } => message,
            _ => continue,
        };
        if hear.send(message).is_err() {
            return;
        }
    }
}

fn replied(more: bool) -> CommandAnswer {
    CommandAnswer::Replied {
        status: 0,
        more,
        payload: vec![5],
    }
}

impl Logic {
    async fn next(&mut self) -> Message {
        let heard = timeout(PATIENCE, self.heard.recv()).await;
        heard.expect("a message in time").unwrap()
    }

    async fn next_grant(&mut self) -> Grant {
        match self.next().await {
            Message::Grant(grant) => grant,
            other => panic!("{other:?} instead of a grant"),
        }
    }

    async fn next_revoke(&mut self) -> Revoke {
        match self.next().await {
            Message::Revoke(revoke) => revoke,
            other => panic!("{other:?} instead of a revoke"),
        }
    }

    fn attached(&self, held: Held) {
        let link = self.link.borrow().unwrap();
        let sessions = vec![held];
        self.hub.notice(link, Attached { sessions });
    }
}

/// A conn server, linked to by a balancer.
struct Rig {
    conn: ConnServer,
    balancer: Hub,
    events: mpsc::Receiver<LinkEvent>,
    link: Option<LinkId>,
    last_id: u64,
}

impl Rig {
    async fn start(database: &Database, logic_servers: &[&Logic]) -> Self {
        let addresses = logic_servers.iter().map(|logic| logic.address.clone());
        let settings = Settings {
            logic_servers: addresses.collect(),
            ..Settings::default()
        };
        let node = "conn-1".parse().unwrap();
        let conn = ConnServer::start(settings, node, keys(), database.clone(), MASTER);
        let conn = conn.await.unwrap();
        let (balancer, events) = hub(Role::Balancer, "balancer-1");
        balancer.dial(conn.address().to_string());
        let rig = Self {
            conn,
            balancer,
            events,
            link: None,
            last_id: 0,
        };
        rig.ready(logic_servers.len()).await;
        rig
    }

    /// With one logic server, which lists these sessions.
    async fn with_node(database: &Database, sessions: Vec<Held>) -> (Self, Logic) {
        let logic = Logic::start("logic-1", sessions).await;
        let rig = Self::start(database, &[&logic]).await;
        (rig, logic)
    }

    async fn ready(&self, nodes: usize) {
        wait_until(|| self.conn.stats().gauge(Gauge::Nodes) == nodes as u64).await;
    }

    /// Logs in, again where the link breaks, and gives the reply's status; its proof is right.
    async fn login(&mut self, account: &str, key: &DeviceKey) -> LoginStatus {
        let account: AccountName = account.parse().unwrap();
        let nonce = Nonce(rand::random());
        let mut frame = vec![];
        Login::sign(&account, "1.2.0", unix_ms(), nonce, key).encode(1, &mut frame);
        let login = message::Login {
            source: [127, 0, 0, 1].into(),
            body: frame.split_off(HEADER_BYTES),
        };
        let answer = timeout(PATIENCE, self.ask(login)).await;
        let answer = answer.expect("an answer in time");
        let reply = LoginReply::decode_body(&answer.body).unwrap();
        assert!(reply.verify(nonce, key));
        reply.status()
    }

    async fn ask(&mut self, login: message::Login) -> message::LoginAnswer {
        self.last_id += 1;
        let id = self.last_id;
        let ask = |hub: &Hub, link| hub.request(link, id, 3_000, login.clone());
        if let Some(link) = self.link {
            ask(&self.balancer, link);
        }
        loop {
            match self.events.recv().await.unwrap() {
                LinkEvent::Up { link, .. } => {
                    self.link = Some(link);
                    ask(&self.balancer, link);
                }
                LinkEvent::Answer {
                    id: answered,
                    message: Message::LoginAnswer(answer),
                    ..
                } if answered == id => return answer,
                _ => {}
            }
        }
    }

    /// Logs in until the status is this one.
    async fn login_until(&mut self, account: &str, key: &DeviceKey, status: LoginStatus) {
        let deadline = Instant::now() + PATIENCE;
        while self.login(account, key).await != status {
            assert!(Instant::now() < deadline, "never {status}");
            // More often it would be taken for guessing.
            sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn wait_until(is: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "not in time");
        sleep(Duration::from_millis(5)).await;
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

/// The account "a" in an empty database.
async fn accounts(test: &testing::Held) -> Accounts {
    let accounts = Accounts::new(test.owner.clone(), MASTER);
    accounts.add(&name(), &KEY, 1).await.unwrap();
    accounts
}

fn name() -> AccountName {
    "a".parse().unwrap()
}

fn held(account_version: u32) -> Held {
    Held {
        account_id: AccountId(1),
        epoch: Epoch::at_ms(1),
        account_version,
    }
}

async fn a_device_is_let_in_and_its_login_is_noted((test, database): (testing::Held, Database)) {
    let accounts = accounts(&test).await;
    let (mut rig, mut logic) = Rig::with_node(&database, vec![]).await;
    assert_eq!(rig.login("a", &KEY).await, LoginStatus::Ok);
    let grant = logic.next_grant().await;
    assert_eq!(grant.account_id, AccountId(1));
    assert_eq!(rig.login("a", &NEW_KEY).await, LoginStatus::Refused);
    assert_eq!(rig.login("nobody", &KEY).await, LoginStatus::Refused);
    let deadline = Instant::now() + PATIENCE;
    let noted = loop {
        let (described, _) = accounts.show(&name()).await.unwrap();
        if described.last_login_at_ms.is_some() {
            break described;
        }
        assert!(Instant::now() < deadline, "the login was not noted");
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(noted.firmware.as_deref(), Some("1.2.0"));
    assert_eq!(noted.last_source.as_deref(), Some("127.0.0.1"));
    assert_eq!(noted.last_node.as_deref(), Some("logic-1"));
    let stats = rig.conn.stats();
    assert_eq!(
        (stats.count(Counter::Logins), stats.count(Counter::Ok)),
        (3, 1)
    );
    rig.conn.shutdown().await;
}

async fn changes_are_in_effect_while_it_runs((test, database): (testing::Held, Database)) {
    let accounts = accounts(&test).await;
    let (mut rig, mut logic) = Rig::with_node(&database, vec![]).await;
    assert_eq!(rig.login("b", &KEY).await, LoginStatus::Refused);
    accounts.add(&"b".parse().unwrap(), &KEY, 1).await.unwrap();
    rig.login_until("b", &KEY, LoginStatus::Ok).await;
    assert_eq!(logic.next_grant().await.account.as_str(), "b");

    assert_eq!(rig.login("a", &KEY).await, LoginStatus::Ok);
    logic.next_grant().await;
    let revoke = |below_version, why| Revoke {
        account_id: AccountId(1),
        below_version,
        why,
    };
    assert!(accounts.disable(&name(), 1).await.unwrap());
    let expected = revoke(2, RevokeReason::Disabled);
    assert_eq!(logic.next_revoke().await, expected);
    assert_eq!(rig.login("a", &KEY).await, LoginStatus::Disabled);

    assert!(accounts.enable(&name(), 1).await.unwrap());
    rig.login_until("a", &KEY, LoginStatus::Ok).await;
    assert_eq!(logic.next_grant().await.account_version, 3);

    accounts.rotate_key(&name(), &NEW_KEY, 1).await.unwrap();
    let expected = revoke(4, RevokeReason::KeyRotated);
    assert_eq!(logic.next_revoke().await, expected);
    assert_eq!(rig.login("a", &KEY).await, LoginStatus::Refused);
    assert_eq!(rig.login("a", &NEW_KEY).await, LoginStatus::Ok);
    logic.next_grant().await;

    accounts.remove(&name(), 1).await.unwrap();
    let expected = revoke(u32::MAX, RevokeReason::Disabled);
    assert_eq!(logic.next_revoke().await, expected);
    assert_eq!(rig.login("a", &NEW_KEY).await, LoginStatus::Refused);
    rig.conn.shutdown().await;
}

async fn a_node_that_holds_what_was_revoked_meanwhile_is_told(
    (test, database): (testing::Held, Database),
) {
    let accounts = accounts(&test).await;
    accounts.rotate_key(&name(), &NEW_KEY, 1).await.unwrap();
    let gone = Held {
        account_id: AccountId(77),
        ..held(1)
    };
    let (rig, mut logic) = Rig::with_node(&database, vec![held(1), gone]).await;
    let mut told = [logic.next_revoke().await, logic.next_revoke().await];
    told.sort_by_key(|revoke| revoke.account_id);
    let [rotated, removed] = told;
    assert_eq!(
        (rotated.account_id, rotated.below_version),
        (AccountId(1), 2)
    );
    assert_eq!(rotated.why, RevokeReason::KeyRotated);
    assert_eq!(removed.account_id, AccountId(77));
    assert_eq!(removed.why, RevokeReason::Disabled);
    rig.conn.shutdown().await;
}

async fn of_two_sessions_the_older_one_ends((test, database): (testing::Held, Database)) {
    let _accounts = accounts(&test).await;
    let mut one = Logic::start("logic-1", vec![held(1)]).await;
    let two = Logic::start("logic-2", vec![]).await;
    let rig = Rig::start(&database, &[&one, &two]).await;
    wait_until(|| rig.conn.stats().gauge(Gauge::Sessions) == 1).await;
    let newer = Held {
        epoch: Epoch::at_ms(2),
        ..held(1)
    };
    two.attached(newer);
    let Message::End(end) = one.next().await else {
        panic!("no end");
    };
    assert_eq!((end.account_id, end.below), (AccountId(1), newer.epoch));
    rig.conn.shutdown().await;
}

async fn an_operators_command_reaches_the_session((test, database): (testing::Held, Database)) {
    let _accounts = accounts(&test).await;
    let (rig, mut logic) = Rig::with_node(&database, vec![held(1)]).await;
    let address = rig.conn.address().to_string();
    let ask = |account: &str| {
        let command = AccountCommand {
            account: account.parse().unwrap(),
            order: Order {
                command_id: 3,
                deadline_ms: 0,
                code: 1,
                payload: vec![1],
            },
        };
        let address = address.clone();
        async move { call(&address, Role::Operator, keys(), command, PATIENCE).await }
    };
    let answers = ask("a").await.unwrap();
    assert_eq!(answers, [replied(true).into(), replied(false).into()]);
    let Message::Command(command) = logic.next().await else {
        panic!("no command");
    };
    assert_eq!((command.account_id, command.order.code), (AccountId(1), 1));
    let answers = ask("nobody").await.unwrap();
    assert_eq!(answers, [CommandAnswer::NotAttached.into()]);
    rig.conn.shutdown().await;
}

async fn epochs_grow_from_start_to_start((test, database): (testing::Held, Database)) {
    let _accounts = accounts(&test).await;
    let mut last = Epoch::ZERO;
    for _ in 0..3 {
        let (mut rig, mut logic) = Rig::with_node(&database, vec![]).await;
        assert_eq!(rig.login("a", &KEY).await, LoginStatus::Ok);
        let epoch = logic.next_grant().await.epoch;
        assert!(epoch > last);
        let marks: Vec<(i64,)> = rows(&database, "SELECT mark FROM epoch_marks").await;
        let (mark,) = marks[0];
        assert!(epoch.to_i64() < mark);
        // The next start is above the mark, 60 s ahead, and so above everything before.
        last = Epoch::from_i64(mark).unwrap();
        rig.conn.shutdown().await;
    }
}

async fn what_cannot_start_says_why((test, database): (testing::Held, Database)) {
    let _accounts = accounts(&test).await;
    let start = |settings| {
        let node = "conn-1".parse().unwrap();
        ConnServer::start(settings, node, keys(), database.clone(), MASTER)
    };
    let wrong = Settings {
        grant_ttl_s: 0,
        ..Settings::default()
    };
    let error = start(wrong).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "wrong settings: grant_ttl_s: 1 to 600; logic_servers: at least one"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = Settings {
        listen: taken.local_addr().unwrap(),
        logic_servers: vec!["127.0.0.1:1".into()],
        ..Settings::default()
    };
    let error = start(in_use.clone()).await.unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
    database.close().await;
    let error = start(in_use).await.unwrap_err();
    assert!(matches!(error, StartError::Database(_)), "{error}");
}
