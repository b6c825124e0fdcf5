//! The balancer from the outside: real devices' sockets before it, a real link behind it.

mod conn_server;
mod device;

use std::net::SocketAddr;
use std::time::Duration;

use balancer::counters::{Counter, Gauge};
use balancer::{Balancer, Settings, StartError};
use common::config::Policy;
use common::link::Keys;
use protocols::rcu::code::{CloseReason, LoginStatus};
use protocols::rcu::login::LoginVerdict;
use protocols::rcu::{frame, kind};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use conn_server::{ConnServer, Manner, keys};
use device::{Device, Heard, login_frame};

const PATIENCE: Duration = Duration::from_secs(10);

fn settings(conn_servers: &[&ConnServer]) -> Settings {
    Settings {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        conn_servers: conn_servers.iter().map(|it| it.target.clone()).collect(),
        ..Settings::default()
    }
}

fn start(settings: Settings, keys: Keys) -> Result<Balancer, StartError> {
    Balancer::start(settings, "balancer-1".parse().expect("a name"), keys)
}

/// A balancer whose conn servers are all linked and have reported.
async fn ready(settings: Settings) -> Balancer {
    let conn_servers = settings.conn_servers.len() as u64;
    let balancer = start(settings, keys()).expect("started");
    wait_for("the links", || {
        balancer.stats().gauge(Gauge::ConnServers) == conn_servers
            && balancer.stats().gauge(Gauge::PlacesFree) > 0
    })
    .await;
    balancer
}

async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_login_gets_the_conn_servers_reply_however_its_bytes_come() {
    let conn = ConnServer::start(Manner::Answer(LoginVerdict::Refused)).await;
    let balancer = ready(settings(&[&conn])).await;
    let frame = login_frame(9);
    for piece_bytes in [frame.len(), 1, 13] {
        let mut device = Device::connect(balancer.addresses()[0]).await;
        for piece in frame.chunks(piece_bytes) {
            device.say(piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(device.hear().await, Heard::Reply(9, LoginStatus::Refused));
    }
    assert_eq!(conn.logins(), 3);
    let stats = balancer.stats();
    assert_eq!(
        (stats.count(Counter::Logins), stats.count(Counter::Refused)),
        (3, 3)
    );
    wait_for("the connections to be over", || {
        balancer.stats().gauge(Gauge::Pending) == 0
    })
    .await;
}

#[tokio::test]
async fn what_is_not_one_login_is_closed_for_protocol_error() {
    let conn = ConnServer::start(Manner::Silent).await;
    let balancer = ready(settings(&[&conn])).await;
    let mut followed = login_frame(1);
    followed.push(b'R');
    let mut wrong_crc = login_frame(1);
    wrong_crc[8] ^= 1;
    let mut attach = Vec::new();
    frame::write(kind::ATTACH, 1, &mut attach, |body| body.extend([0; 48]));
    let mut too_long = Vec::new();
    frame::write(kind::LOGIN, 1, &mut too_long, |body| body.extend([0; 501]));
    let cases = [
        ("a byte after the Login", followed),
        ("a wrong crc", wrong_crc),
        ("an Attach", attach),
        ("513 bytes", too_long),
        // More than the balancer reads before it answers: a reset must not destroy the Close.
        ("another protocol, and much of it", vec![b'G'; 40_000]),
    ];
    for (what, bytes) in &cases {
        let mut device = Device::connect(balancer.addresses()[0]).await;
        device.say(bytes).await;
        assert_eq!(
            device.hear().await,
            Heard::Close(CloseReason::ProtocolError),
            "{what}"
        );
    }
    let closed = || balancer.stats().count(Counter::ProtocolError) == cases.len() as u64;
    wait_for("the counter", closed).await;
    assert_eq!(balancer.stats().count(Counter::Logins), 0);

    // Nor may anything follow while the Login is being decided.
    let mut device = Device::connect(balancer.addresses()[0]).await;
    device.say(&login_frame(1)).await;
    wait_for("the login", || conn.logins() == 1).await;
    device.say(b"R").await;
    assert_eq!(
        device.hear().await,
        Heard::Close(CloseReason::ProtocolError)
    );
}

#[tokio::test]
async fn a_login_that_is_not_complete_in_time_is_closed_for_attach_timeout() {
    let conn = ConnServer::start(Manner::Silent).await;
    let balancer = ready(Settings {
        login_deadline_ms: 300,
        ..settings(&[&conn])
    })
    .await;
    let mut silent = Device::connect(balancer.addresses()[0]).await;
    let mut slow = Device::connect(balancer.addresses()[0]).await;
    let since = Instant::now();
    // The deadline is absolute: single bytes do not put it off.
    for byte in &login_frame(1)[..20] {
        slow.say(&[*byte]).await;
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        silent.hear().await,
        Heard::Close(CloseReason::AttachTimeout)
    );
    assert_eq!(slow.hear().await, Heard::Close(CloseReason::AttachTimeout));
    assert!(since.elapsed() >= Duration::from_millis(280));
    wait_for("the counter", || {
        balancer.stats().count(Counter::AttachTimeout) == 2
    })
    .await;
}

#[tokio::test]
async fn a_login_whose_body_is_nonsense_is_malformed() {
    let conn = ConnServer::start(Manner::Silent).await;
    let balancer = ready(settings(&[&conn])).await;
    let mut device = Device::connect(balancer.addresses()[0]).await;
    let mut nonsense = Vec::new();
    frame::write(kind::LOGIN, 5, &mut nonsense, |body| body.extend([1, 2]));
    device.say(&nonsense).await;
    assert_eq!(device.hear().await, Heard::Reply(5, LoginStatus::Malformed));
    assert_eq!(conn.logins(), 0);
}

#[tokio::test]
async fn a_device_that_shuts_its_sending_side_is_answered() {
    let conn = ConnServer::start(Manner::Answer(LoginVerdict::Refused)).await;
    let balancer = ready(settings(&[&conn])).await;
    let mut device = Device::connect(balancer.addresses()[0]).await;
    device.say(&login_frame(2)).await;
    device.stream.shutdown().await.expect("shut down");
    assert_eq!(device.hear().await, Heard::Reply(2, LoginStatus::Refused));
}

#[tokio::test]
async fn the_login_of_a_conn_server_that_dies_goes_to_another() {
    let doomed = ConnServer::start(Manner::Silent).await;
    let other = ConnServer::start(Manner::Answer(LoginVerdict::Refused)).await;
    let balancer = ready(Settings {
        policy: Policy::Fill,
        ..settings(&[&doomed, &other])
    })
    .await;
    let mut device = Device::connect(balancer.addresses()[0]).await;
    device.say(&login_frame(1)).await;
    wait_for("the login", || doomed.logins() == 1).await;
    doomed.stop().await;
    assert_eq!(device.hear().await, Heard::Reply(1, LoginStatus::Refused));
    assert_eq!(balancer.stats().count(Counter::Retried), 1);
}

#[tokio::test]
async fn the_login_of_a_conn_server_that_is_silent_goes_to_another_and_the_next_ones_pass_it_over()
{
    let silent = ConnServer::start(Manner::Silent).await;
    let other = ConnServer::start(Manner::Answer(LoginVerdict::Refused)).await;
    let balancer = ready(Settings {
        policy: Policy::Fill,
        ..settings(&[&silent, &other])
    })
    .await;
    let since = Instant::now();
    let mut device = Device::connect(balancer.addresses()[0]).await;
    device.say(&login_frame(1)).await;
    assert_eq!(device.hear().await, Heard::Reply(1, LoginStatus::Refused));
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(2_400), "{took:?}");
    assert_eq!(balancer.stats().count(Counter::TriesTimedOut), 1);
}

#[tokio::test]
async fn with_no_conn_server_it_is_busy() {
    let unlinked = Settings {
        conn_servers: vec!["127.0.0.1:1".into()],
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        ..Settings::default()
    };
    let balancer = start(unlinked, keys()).expect("started");
    let mut device = Device::connect(balancer.addresses()[0]).await;
    device.say(&login_frame(1)).await;
    assert_eq!(device.hear().await, Heard::Reply(1, LoginStatus::Busy));
}

#[tokio::test]
async fn the_oldest_connection_that_said_nothing_makes_room() {
    let conn = ConnServer::start(Manner::Silent).await;
    let balancer = ready(Settings {
        connections_pending_max: 2,
        ..settings(&[&conn])
    })
    .await;
    let address = balancer.addresses()[0];
    let mut known = Device::connect(address).await;
    known.say(&login_frame(1)).await;
    wait_for("the login", || conn.logins() == 1).await;
    let mut oldest = Device::connect(address).await;
    wait_for("the second", || balancer.stats().gauge(Gauge::Pending) == 2).await;
    let _newest = Device::connect(address).await;
    assert_eq!(oldest.hear().await, Heard::Nothing);
    assert_eq!(balancer.stats().count(Counter::DroppedInAll), 1);
    assert_eq!(balancer.stats().gauge(Gauge::Pending), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_is_answered_to_the_last_device() {
    let conn = ConnServer::start(Manner::Answer(LoginVerdict::Refused)).await;
    let balancer = ready(settings(&[&conn])).await;
    let address = balancer.addresses()[0];
    let devices: Vec<_> = (0..1_000)
        .map(|id: u16| {
            tokio::spawn(async move {
                let mut device = Device::connect(address).await;
                device.say(&login_frame(id + 1)).await;
                let heard = device.hear().await;
                assert_eq!(heard, Heard::Reply(id + 1, LoginStatus::Refused));
            })
        })
        .collect();
    for device in devices {
        device.await.expect("answered");
    }
    assert_eq!(conn.logins(), 1_000);
    wait_for("the end of all", || {
        balancer.stats().gauge(Gauge::Pending) == 0
    })
    .await;
}

#[tokio::test]
async fn it_listens_on_several_addresses_and_says_where_a_device_came_from() {
    let conn = ConnServer::start(Manner::Answer(LoginVerdict::Refused)).await;
    let balancer = ready(Settings {
        listen: vec![
            SocketAddr::from(([127, 0, 0, 1], 0)),
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0)),
        ],
        ..settings(&[&conn])
    })
    .await;
    for &address in balancer.addresses() {
        let mut device = Device::connect(address).await;
        device.say(&login_frame(1)).await;
        assert_eq!(device.hear().await, Heard::Reply(1, LoginStatus::Refused));
        assert_eq!(conn.last_source(), Some(address.ip()));
    }
}

#[tokio::test]
async fn at_shutdown_who_waits_is_told_busy_and_nobody_comes_in_any_more() {
    let conn = ConnServer::start(Manner::Silent).await;
    let balancer = ready(settings(&[&conn])).await;
    let address = balancer.addresses()[0];
    let mut waiting = Device::connect(address).await;
    waiting.say(&login_frame(1)).await;
    let mut silent = Device::connect(address).await;
    wait_for("the login", || conn.logins() == 1).await;
    wait_for("both", || balancer.stats().gauge(Gauge::Pending) == 2).await;
    let (waited, dropped, ()) = tokio::join!(waiting.hear(), silent.hear(), balancer.shutdown());
    assert_eq!(waited, Heard::Reply(1, LoginStatus::Busy));
    assert_eq!(dropped, Heard::Nothing);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_told_all_at_once() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let taken = holder.local_addr().expect("an address");
    let other = SocketAddr::from(([192, 0, 2, 1], 10_000));
    let wrong = Settings {
        listen: vec![taken, other],
        conn_servers: vec!["127.0.0.1:1".into()],
        ..Settings::default()
    };
    let error = start(wrong, keys()).expect_err("refused").to_string();
    assert!(error.contains(&taken.to_string()), "{error}");
    assert!(error.contains(&other.to_string()), "{error}");
    drop(holder);

    let nothing = Settings {
        listen: vec![],
        ..Settings::default()
    };
    let error = start(nothing, keys()).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "wrong settings: listen: at least one address; conn_servers: at least one"
    );
}
