//! Against real sockets on loopback.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::ids::AccountId;
use crate::link::call::call;
use crate::link::framing::FramingError;
use crate::link::keys::Key;
use crate::link::message::*;
use crate::secret::Secret;

const PATIENCE: Duration = Duration::from_secs(10);

fn key(byte: u8) -> Key {
    Key::new(Secret::new([byte; 32]))
}

/// The cluster's key 1 and the operator's key 2.
fn keys() -> Keys {
    Keys {
        cluster: vec![key(1)],
        operator: vec![key(2)],
    }
}

struct Process {
    hub: Hub,
    events: mpsc::Receiver<LinkEvent>,
}

impl Process {
    fn new(role: Role, keys: Keys) -> Self {
        Self::of_versions(role, keys, Versions::OURS, 1_024)
    }

    fn of_versions(role: Role, keys: Keys, versions: Versions, capacity: usize) -> Self {
        let (sender, events) = mpsc::channel(capacity);
        let settings = HubSettings {
            role,
            node: format!("{role:?}-1").parse().expect("a name"),
            keys,
            events: sender,
            listen_publicly: false,
        };
        Self {
            hub: Hub::with_versions(settings, versions),
            events,
        }
    }

    async fn listen(&self, roles: &[Role]) -> String {
        let any = "127.0.0.1:0".parse().expect("an address");
        let bound = self.hub.listen(any, roles).await.expect("bound");
        bound.to_string()
    }

    async fn next(&mut self) -> LinkEvent {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.expect("an event in time").expect("the hub lives")
    }

    async fn up(&mut self) -> (LinkId, Peer) {
        match self.next().await {
            LinkEvent::Up { link, peer } => (link, peer),
            other => panic!("{other:?} instead of Up"),
        }
    }

    async fn down(&mut self) -> String {
        match self.next().await {
            LinkEvent::Down { why, .. } => why,
            other => panic!("{other:?} instead of Down"),
        }
    }

    async fn refused(&mut self) -> String {
        match self.next().await {
            LinkEvent::Refused { why, .. } => why,
            other => panic!("{other:?} instead of Refused"),
        }
    }
}

/// A balancer linked to a conn server, and the two ids of their link.
async fn linked() -> (Process, LinkId, Process, LinkId) {
    let mut conn = Process::new(Role::Conn, keys());
    let mut balancer = Process::new(Role::Balancer, keys());
    balancer.hub.dial(conn.listen(&[Role::Balancer]).await);
    let (to_conn, _) = balancer.up().await;
    let (to_balancer, _) = conn.up().await;
    (balancer, to_conn, conn, to_balancer)
}

/// A conn server's link seen from a dialling peer without a hub: the test says what it reads and when.
struct Raw {
    stream: TcpStream,
    transport: Transport,
}

impl Raw {
    async fn dial(target: &str, role: Role) -> Self {
        let mut stream = TcpStream::connect(target).await.expect("connected");
        let identity = Identity {
            versions: Versions::OURS,
            role,
            node: "raw".parse().expect("a name"),
        };
        let dialled = handshake::dial(&mut stream, &keys(), &identity).await;
        let (transport, _) = dialled.expect("admitted");
        Self { stream, transport }
    }

    async fn say(&mut self, class: Class, message: Message) {
        let envelope = Envelope {
            class,
            id: 1,
            deadline_ms: 0,
            epoch: Epoch::ZERO,
            message,
        };
        let (mut plain, mut sealed) = (Vec::new(), Vec::new());
        wire::encode(&envelope, &mut plain);
        self.transport.seal(&plain, &mut sealed);
        self.stream.write_all(&sealed).await.expect("written");
    }

    /// All that comes, up to the first that `is_last`.
    async fn hear_until(&mut self, is_last: impl Fn(&Message) -> bool) -> Vec<Message> {
        let (mut received, mut heard) = (Vec::new(), Vec::new());
        while !heard.last().is_some_and(&is_last) {
            let read = self.stream.read_buf(&mut received).await.expect("read");
            assert!(read > 0, "closed after {} messages", heard.len());
            let opened = self.transport.open(&received, |message| {
                heard.push(wire::decode(message).expect("decoded").message);
                Ok::<(), FramingError>(())
            });
            received.drain(..opened.expect("opened"));
        }
        heard
    }
}

fn login(body_bytes: usize) -> Login {
    Login {
        source: "10.0.0.1".parse().expect("an address"),
        body: vec![7; body_bytes],
    }
}

fn epoch(value: i64) -> Epoch {
    Epoch::from_i64(value).expect("positive")
}

#[tokio::test]
async fn a_request_is_answered_and_epochs_travel_with_it() {
    let mut conn = Process::new(Role::Conn, keys());
    let mut balancer = Process::new(Role::Balancer, keys());
    let target = conn.listen(&[Role::Balancer]).await;
    balancer.hub.dial(target.clone());
    balancer.hub.dial(target.clone());
    let (to_conn, peer) = balancer.up().await;
    assert_eq!(
        (peer.role, peer.node.as_str(), peer.version),
        (Role::Conn, "Conn-1", 3)
    );
    assert_eq!(peer.target, Some(target));
    let (to_balancer, peer) = conn.up().await;
    assert_eq!(
        (peer.role, peer.node.as_str()),
        (Role::Balancer, "Balancer-1")
    );
    assert_eq!(peer.target, None);

    balancer.hub.observe(epoch(5));
    balancer.hub.request(to_conn, 77, 2_500, login(3));
    let request = LinkEvent::Request {
        link: to_balancer,
        id: 77,
        deadline_ms: 2_500,
        message: login(3).into(),
        // A balancer makes none, and keeps none.
        epoch: Epoch::ZERO,
    };
    assert_eq!(conn.next().await, request);
    assert_eq!(conn.hub.highest(), Epoch::ZERO);

    conn.hub.observe(epoch(9));
    conn.hub.observe(epoch(8));
    conn.hub
        .answer(to_balancer, 77, LoginAnswer { body: vec![0] });
    conn.hub.notice(to_balancer, ConnLoad::default());
    let answer = LinkEvent::Answer {
        link: to_conn,
        id: 77,
        message: LoginAnswer { body: vec![0] }.into(),
        epoch: epoch(9),
    };
    assert_eq!(balancer.next().await, answer);
    assert_eq!(balancer.hub.highest(), epoch(9));
    assert!(matches!(balancer.next().await, LinkEvent::Notice { .. }));
}

#[tokio::test]
async fn large_and_small_messages_arrive_whole_through_a_small_owner_queue() {
    let mut conn = Process::of_versions(Role::Conn, keys(), Versions::OURS, 2);
    let mut balancer = Process::new(Role::Balancer, keys());
    balancer.hub.dial(conn.listen(&[Role::Balancer]).await);
    let (to_conn, _) = balancer.up().await;
    conn.up().await;
    let sizes: Vec<usize> = (0..200)
        .map(|n| if n % 50 == 7 { 1_000_000 } else { n })
        .collect();
    for (id, &size) in sizes.iter().enumerate() {
        balancer.hub.request(to_conn, id as u64, 0, login(size));
    }
    for (expected, &size) in sizes.iter().enumerate() {
        let LinkEvent::Request { id, message, .. } = conn.next().await else {
            panic!("no request {expected}");
        };
        assert_eq!((id, message), (expected as u64, login(size).into()));
    }
}

#[tokio::test]
async fn a_wrong_key_is_named_on_both_sides() {
    let mut conn = Process::new(Role::Conn, keys());
    let mut balancer = Process::new(
        Role::Balancer,
        Keys {
            cluster: vec![key(3)],
            ..keys()
        },
    );
    balancer.hub.dial(conn.listen(&[Role::Balancer]).await);
    let id = key(3).id();
    assert_eq!(
        balancer.refused().await,
        format!("it does not know our key {id}: the cluster keys differ")
    );
    assert_eq!(
        conn.refused().await,
        format!("its key {id} is unknown here: the cluster keys differ")
    );
}

#[tokio::test]
async fn a_wrong_version_is_named_on_both_sides_and_a_neighbouring_one_is_agreed_on() {
    let versions = |oldest, newest| Versions { oldest, newest };
    let mut conn = Process::of_versions(Role::Conn, keys(), versions(3, 4), 64);
    let target = conn.listen(&[Role::Balancer]).await;
    let mut old = Process::of_versions(Role::Balancer, keys(), versions(1, 2), 64);
    old.hub.dial(target.clone());
    assert_eq!(
        old.refused().await,
        "it speaks link versions 3..=4, we speak 1..=2"
    );
    assert_eq!(
        conn.refused().await,
        "it speaks link versions 1..=2, we speak 3..=4"
    );
    old.hub.shutdown().await;

    let mut neighbour = Process::of_versions(Role::Balancer, keys(), versions(2, 3), 64);
    neighbour.hub.dial(target);
    assert_eq!(neighbour.up().await.1.version, 3);
    loop {
        match conn.next().await {
            LinkEvent::Up { peer, .. } => break assert_eq!(peer.version, 3),
            LinkEvent::Refused { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_role_that_is_not_admitted_is_named_on_both_sides() {
    let mut logic = Process::new(Role::Logic, keys());
    let mut balancer = Process::new(Role::Balancer, keys());
    balancer.hub.dial(logic.listen(&[Role::Conn]).await);
    let id = key(1).id();
    assert_eq!(
        balancer.refused().await,
        format!("it admits no balancer with our key {id}")
    );
    assert_eq!(
        logic.refused().await,
        format!("its key {id} admits no balancer here")
    );
}

#[tokio::test]
async fn the_operators_key_does_not_make_a_balancer() {
    let mut conn = Process::new(Role::Conn, keys());
    let target = conn.listen(&[Role::Balancer, Role::Operator]).await;
    let mut thief = Process::new(
        Role::Balancer,
        Keys {
            cluster: vec![key(2)],
            operator: vec![],
        },
    );
    thief.hub.dial(target);
    let id = key(2).id();
    assert_eq!(
        thief.refused().await,
        format!("it admits no balancer with our key {id}")
    );
    assert_eq!(
        conn.refused().await,
        format!("its key {id} admits no balancer here")
    );
}

#[tokio::test]
async fn during_a_rotation_two_keys_are_valid() {
    let both = Keys {
        cluster: vec![key(3), key(1)],
        operator: vec![],
    };
    let mut conn = Process::new(Role::Conn, both);
    let target = conn.listen(&[Role::Balancer]).await;
    for byte in [1, 3] {
        let one = Keys {
            cluster: vec![key(byte)],
            operator: vec![],
        };
        let mut balancer = Process::new(Role::Balancer, one);
        balancer.hub.dial(target.clone());
        balancer.up().await;
        conn.up().await;
        balancer.hub.shutdown().await;
        conn.down().await;
    }
}

#[tokio::test]
async fn a_stranger_is_told_nothing() {
    let mut conn = Process::new(Role::Conn, keys());
    let target = conn.listen(&[Role::Balancer]).await;
    let mut stranger = TcpStream::connect(target).await.expect("connected");
    stranger
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("written");
    assert_eq!(conn.refused().await, "it does not speak link");
    let mut told = Vec::new();
    // A reset is as good as an end: it did not read all that we sent.
    let _ = stranger.read_to_end(&mut told).await;
    assert_eq!(told, b"");
}

#[tokio::test]
async fn a_lost_link_comes_back_as_another_one() {
    let mut conn = Process::new(Role::Conn, keys());
    let mut balancer = Process::new(Role::Balancer, keys());
    let target = conn.listen(&[Role::Balancer]).await;
    balancer.hub.dial(target.clone());
    let (first, _) = balancer.up().await;
    conn.hub.shutdown().await;
    assert_eq!(balancer.down().await, "closed by the peer");

    conn = Process::new(Role::Conn, keys());
    let address = target.parse().expect("an address");
    conn.hub
        .listen(address, &[Role::Balancer])
        .await
        .expect("bound again");
    let second = loop {
        match balancer.next().await {
            LinkEvent::Up { link, .. } => break link,
            LinkEvent::Refused { why, .. } => assert!(why.starts_with("cannot connect"), "{why}"),
            other => panic!("{other:?}"),
        }
    };
    assert_ne!(first, second);
    balancer.hub.request(first, 1, 0, login(1));
    balancer.hub.request(second, 2, 0, login(2));
    conn.up().await;
    assert!(matches!(
        conn.next().await,
        LinkEvent::Request { id: 2, .. }
    ));
}

#[tokio::test]
async fn a_silent_peer_goes_down_and_an_idle_one_does_not() {
    let (mut balancer, _, mut conn, _) = linked().await;
    let target = conn.listen(&[Role::Balancer]).await;
    let _silent = Raw::dial(&target, Role::Balancer).await;
    let (silent, _) = conn.up().await;
    assert_eq!(
        conn.next().await,
        LinkEvent::Down {
            link: silent,
            why: "silent for 3 s".to_owned()
        }
    );
    sleep(Duration::from_millis(500)).await;
    assert!(balancer.events.try_recv().is_err(), "the idle link lives");
}

#[tokio::test]
async fn a_full_queue_closes_the_link() {
    let mut conn = Process::new(Role::Conn, keys());
    let target = conn.listen(&[Role::Balancer]).await;
    let _deaf = Raw::dial(&target, Role::Balancer).await;
    let (link, _) = conn.up().await;
    for id in 0..40 {
        conn.hub.answer(
            link,
            id,
            LoginAnswer {
                body: vec![0; 1_000_000],
            },
        );
    }
    assert_eq!(conn.down().await, "its queue is full");
}

#[tokio::test]
async fn an_epoch_beyond_all_clocks_is_not_followed() {
    let mut conn = Process::new(Role::Conn, keys());
    let mut logic = Process::new(Role::Logic, keys());
    conn.hub.dial(logic.listen(&[Role::Conn]).await);
    let (to_logic, _) = conn.up().await;
    logic.up().await;
    let beyond = Epoch::from_i64(i64::MAX).expect("positive");
    for (said, heard) in [(epoch(5), epoch(5)), (beyond, Epoch::ZERO)] {
        conn.hub.observe(said);
        conn.hub.notice(
            to_logic,
            End {
                account_id: AccountId(1),
                below: epoch(1),
            },
        );
        let LinkEvent::Notice { epoch, .. } = logic.next().await else {
            panic!("no notice");
        };
        assert_eq!(epoch, heard);
    }
    assert_eq!(logic.hub.highest(), epoch(5));
}

#[tokio::test]
async fn control_goes_before_bulk() {
    let mut logic = Process::new(Role::Logic, keys());
    let target = logic.listen(&[Role::Conn]).await;
    let mut conn = Raw::dial(&target, Role::Conn).await;
    let (link, _) = logic.up().await;
    let held = Held {
        account_id: AccountId(1),
        epoch: epoch(1),
        account_version: 1,
    };
    let page = Adopt {
        sessions: vec![held; ADOPT_PAGE_MAX],
        grants: vec![],
        last: false,
    };
    // More than the sockets hold, then a control message and the end of the bulk.
    let pages = 600;
    (0..pages).for_each(|_| logic.hub.notice(link, page.clone()));
    logic.hub.notice(link, LogicLoad::default());
    logic.hub.notice(
        link,
        Attached {
            sessions: vec![held],
        },
    );
    let is_last = |message: &Message| matches!(message, Message::Attached(_));
    let heard = conn.hear_until(is_last).await;
    assert_eq!(heard.len(), pages + 2);
    let control = heard
        .iter()
        .position(|message| matches!(message, Message::LogicLoad(_)));
    assert!(control.is_some_and(|at| at < pages / 2), "{control:?}");
    logic.hub.close(link);
    assert_eq!(logic.down().await, "closed by us");
}

#[tokio::test]
async fn a_message_that_is_not_the_peers_to_say_ends_the_link() {
    let mut conn = Process::new(Role::Conn, keys());
    let target = conn.listen(&[Role::Operator]).await;
    let mut operator = Raw::dial(&target, Role::Operator).await;
    conn.up().await;
    operator.say(Class::Request, login(3).into()).await;
    assert_eq!(
        conn.down().await,
        "the peer (operator) sent message number 10, which is not its to say"
    );
}

#[tokio::test]
async fn what_is_queued_is_sent_before_a_shutdown_and_nothing_is_told_after_it() {
    let (mut balancer, to_conn, mut conn, _) = linked().await;
    for id in 0..1_000 {
        balancer.hub.request(to_conn, id, 0, login(400));
    }
    balancer.hub.shutdown().await;
    for expected in 0..1_000 {
        assert!(matches!(conn.next().await, LinkEvent::Request { id, .. } if id == expected));
    }
    assert_eq!(conn.down().await, "closed by the peer");
    assert!(balancer.events.try_recv().is_err());
}

#[tokio::test]
async fn the_hub_ends_with_its_owner() {
    let (balancer, _, mut conn, _) = linked().await;
    drop(balancer.events);
    assert_eq!(conn.down().await, "closed by the peer");
}

#[tokio::test]
async fn a_public_address_is_not_bound_unless_told() {
    let conn = Process::new(Role::Conn, keys());
    let everywhere = "0.0.0.0:0".parse().expect("an address");
    let error = conn.hub.listen(everywhere, &[Role::Balancer]).await;
    let text = error.expect_err("refused").to_string();
    assert!(text.starts_with("0.0.0.0:0 is a public address"), "{text}");

    let (events, _owner) = mpsc::channel(1);
    let hub = Hub::new(HubSettings {
        role: Role::Conn,
        node: "conn".parse().expect("a name"),
        keys: keys(),
        events,
        listen_publicly: true,
    });
    assert!(hub.listen(everywhere, &[Role::Balancer]).await.is_ok());
}

// ---- call -------------------------------------------------------------------------------------

fn question() -> AccountCommand {
    AccountCommand {
        account: "a-1".parse().expect("a name"),
        order: Order {
            command_id: 1,
            deadline_ms: 0,
            code: 1,
            payload: vec![],
        },
    }
}

#[tokio::test]
async fn a_call_returns_all_answers_up_to_the_final_one() {
    let mut conn = Process::new(Role::Conn, keys());
    let target = conn.listen(&[Role::Operator]).await;
    let replied = |more| CommandAnswer::Replied {
        status: 0,
        more,
        payload: vec![],
    };
    let answering = async {
        conn.up().await;
        let LinkEvent::Request {
            link, id, message, ..
        } = conn.next().await
        else {
            panic!("no request");
        };
        assert_eq!(message, question().into());
        conn.hub.answer(link, id, replied(true));
        conn.hub.answer(link, id, replied(false));
    };
    let calling = call(&target, Role::Operator, keys(), question(), PATIENCE);
    let (answers, ()) = tokio::join!(calling, answering);
    let expected = [replied(true).into(), replied(false).into()];
    assert_eq!(answers.expect("answered"), expected);
}

#[tokio::test]
async fn a_call_that_fails_says_why_in_one_line() {
    let conn = Process::new(Role::Conn, keys());
    let target = conn.listen(&[Role::Operator]).await;
    let wrong = Keys {
        operator: vec![key(9)],
        ..keys()
    };
    let error = call(&target, Role::Operator, wrong, question(), PATIENCE).await;
    assert_eq!(
        error.expect_err("refused").to_string(),
        format!(
            "no link to {target}: it does not know our key {}: the cluster keys differ",
            key(9).id()
        )
    );
    let short = Duration::from_millis(300);
    let error = call(&target, Role::Operator, keys(), question(), short).await;
    assert_eq!(
        error.expect_err("late").to_string(),
        format!("no answer from {target} within 300 ms")
    );
    conn.hub.shutdown().await;
    let error = call(&target, Role::Operator, keys(), question(), PATIENCE).await;
    let text = error.expect_err("nobody listens").to_string();
    assert!(
        text.starts_with(&format!("no link to {target}: cannot connect: ")),
        "{text}"
    );
}
