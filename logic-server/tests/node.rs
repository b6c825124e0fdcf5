//! A logic server over real sockets and a real database file.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use common::link::message::{
    Command, CommandAnswer, End, GrantVerdict, Message, Order, Revoke, RevokeReason,
};
use common::secret::Secret;
use logic_server::Settings;
use logic_server::counters::{Counter, Gauge};
use protocols::rcu::code::{AttachStatus, CloseReason};
use support::{
    Cluster, Device, Heard, attach, command_reply, heartbeat, settings, stored, telemetry,
};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

const SEQS: &str = "SELECT seq FROM telemetry_custom ORDER BY seq";

#[tokio::test]
async fn a_granted_device_attaches_and_its_records_are_rows_before_they_are_acknowledged() {
    let mut cluster = Cluster::start(settings()).await;
    let grant = cluster.conn.grant(7).await;
    let mut device = Device::attach(cluster.devices_at(), &grant).await;
    let attached = cluster.conn.hear(|message| match message {
        Message::Attached(attached) => Some(attached.sessions.clone()),
        _ => None,
    });
    let attached = attached.await;
    assert_eq!(attached[0].account_id, grant.account_id);
    assert_eq!(attached[0].epoch, grant.epoch);

    device.send(&heartbeat(2)).await;
    assert_eq!(device.hear().await, Heard::HeartbeatReply);
    device.send(&telemetry(3, 100, 3)).await;
    assert_eq!(device.hear().await, stored(3, 100, 3));
    assert_eq!(cluster.integers(SEQS).await, [100, 101, 102]);
    let whose = "SELECT DISTINCT account_id FROM telemetry_custom";
    assert_eq!(cluster.integers(whose).await, [7]);
    cluster
        .wait_for("SELECT epoch FROM sessions", &[grant.epoch.to_i64()])
        .await;

    drop(device);
    let ended = cluster.conn.hear(|message| match message {
        Message::Ended(ended) => Some(ended.sessions.clone()),
        _ => None,
    });
    assert_eq!(ended.await, [(grant.account_id, grant.epoch)]);
    let over = "SELECT count(*) FROM sessions WHERE reason = 'disconnected'";
    cluster.wait_for(over, &[1]).await;
    let stats = cluster.node.stats();
    assert_eq!(stats.count(Counter::RecordsStored), 3);
    assert_eq!(stats.gauge(Gauge::Sessions), 0);
    assert!(stats.ack_ms.count() > 0);
}

#[tokio::test]
async fn frames_may_come_in_one_piece_with_attach_or_byte_by_byte() {
    let mut cluster = Cluster::start(settings()).await;
    let grant = cluster.conn.grant(1).await;
    let mut at_once = Device::connect(cluster.devices_at()).await;
    let frames = [attach(&grant), telemetry(2, 1, 2), heartbeat(3)].concat();
    at_once.send(&frames).await;
    at_once.admitted(&grant).await;
    assert_eq!(at_once.hear().await, Heard::HeartbeatReply);
    assert_eq!(at_once.hear().await, stored(2, 1, 2));

    let grant = cluster.conn.grant(2).await;
    let mut slowly = Device::connect(cluster.devices_at()).await;
    slowly.stream.set_nodelay(true).unwrap();
    for byte in [attach(&grant), telemetry(2, 5, 1)].concat() {
        slowly.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    slowly.admitted(&grant).await;
    assert_eq!(slowly.hear().await, stored(2, 5, 1));
    assert_eq!(cluster.integers(SEQS).await, [1, 2, 5]);
}

#[tokio::test]
async fn more_than_one_read_takes_is_answered_whole_and_stored_though_the_device_went() {
    let mut cluster = Cluster::start(settings()).await;
    let mut device = cluster.attach(1).await;
    let many: Vec<u8> = (1..=5_000).flat_map(heartbeat).collect();
    device.send(&many).await;
    for _ in 0..5_000 {
        assert_eq!(device.hear().await, Heard::HeartbeatReply);
    }
    // As many as the window allows, each as long as a frame can be, and gone.
    let most: Vec<u8> = (0..8)
        .flat_map(|id| telemetry(id + 1, u64::from(id) * 1_000, 255))
        .collect();
    assert!(most.len() > 2 * 16_384);
    device.send(&most).await;
    drop(device);
    let rows = "SELECT count(*) FROM telemetry_custom";
    cluster.wait_for(rows, &[8 * 255]).await;
}

#[tokio::test]
async fn who_holds_no_grant_is_dropped_without_a_frame_and_a_refusal_arrives() {
    let mut cluster = Cluster::start(settings()).await;
    let mut stranger = Device::connect(cluster.devices_at()).await;
    assert_eq!(stranger.hear().await, Heard::End);

    let grant = cluster.conn.grant(1).await;
    let mut wrong = grant.clone();
    wrong.session_key = Secret::new([0xEE; 32]);
    let mut guesser = Device::connect(cluster.devices_at()).await;
    // It goes on sending: the reply must survive that.
    guesser.send(&[attach(&wrong), vec![0; 300]].concat()).await;
    assert_eq!(
        guesser.hear().await,
        Heard::Attach(AttachStatus::NotAdmitted)
    );
    assert_eq!(guesser.hear().await, Heard::End);

    let mut babbler = Device::connect(cluster.devices_at()).await;
    babbler.send(&[0x55; 4_000]).await;
    assert_eq!(
        babbler.hear().await,
        Heard::Close(CloseReason::ProtocolError, 0)
    );
    assert_eq!(babbler.hear().await, Heard::End);

    let mut device = Device::attach(cluster.devices_at(), &grant).await;
    device.send(&heartbeat(2)).await;
    assert_eq!(device.hear().await, Heard::HeartbeatReply);
    let mut again = Device::connect(cluster.devices_at()).await;
    assert_eq!(again.hear().await, Heard::End, "the only grant is used up");
    cluster.wait_for_count(Counter::WithoutGrant, 2).await;
    cluster.wait_for_count(Counter::NotAdmittedProof, 1).await;
}

#[tokio::test]
async fn whoever_does_not_say_who_it_is_in_time_is_told_and_closed() {
    let mut cluster = Cluster::start(Settings {
        attach_deadline_ms: 200,
        ..settings()
    })
    .await;
    let grant = cluster.conn.grant(1).await;
    let mut device = Device::connect(cluster.devices_at()).await;
    device.send(&attach(&grant)[..20]).await;
    assert_eq!(
        device.hear().await,
        Heard::Close(CloseReason::AttachTimeout, 0)
    );
    assert_eq!(device.hear().await, Heard::End);
}

#[tokio::test]
async fn a_newer_session_replaces_the_older_and_conn_servers_end_sessions() {
    let mut cluster = Cluster::start(settings()).await;
    let mut first = cluster.attach(1).await;
    let mut second = cluster.attach(1).await;
    assert_eq!(first.hear().await, Heard::Close(CloseReason::Replaced, 0));
    assert_eq!(first.hear().await, Heard::End);
    second.send(&heartbeat(2)).await;
    assert_eq!(second.hear().await, Heard::HeartbeatReply);

    let newer = cluster.conn.new_grant(1);
    cluster.conn.notify(End {
        account_id: newer.account_id,
        below: newer.epoch,
    });
    assert_eq!(second.hear().await, Heard::Close(CloseReason::Replaced, 0));

    let mut third = cluster.attach(1).await;
    cluster.conn.notify(Revoke {
        account_id: newer.account_id,
        below_version: 2,
        why: RevokeReason::Disabled,
    });
    assert_eq!(third.hear().await, Heard::Close(CloseReason::Disabled, 0));
    let reasons = "SELECT count(*) FROM sessions WHERE reason IN ('replaced', 'disabled')";
    cluster.wait_for(reasons, &[3]).await;
}

#[tokio::test]
async fn places_are_limited_and_free_again_when_a_device_goes() {
    let mut cluster = Cluster::start(Settings {
        max_connections: Some(1),
        ..settings()
    })
    .await;
    let device = cluster.attach(1).await;
    let grant = cluster.conn.new_grant(2);
    assert_eq!(cluster.conn.open(grant.clone()).await, GrantVerdict::Full);
    // The account that has the place may come again.
    let own = cluster.conn.new_grant(1);
    assert_eq!(cluster.conn.open(own.clone()).await, GrantVerdict::Granted);
    let second = Device::attach(cluster.devices_at(), &own).await;
    drop((device, second));
    let free = cluster.conn.hear(|message| match message {
        Message::LogicLoad(load) => (load.places_used == 0).then_some(()),
        _ => None,
    });
    free.await;
    assert_eq!(cluster.conn.open(grant).await, GrantVerdict::Granted);
}

#[tokio::test]
async fn a_command_goes_to_the_device_and_its_reply_comes_back() {
    let mut cluster = Cluster::start(settings()).await;
    let grant = cluster.conn.grant(1).await;
    let mut device = Device::attach(cluster.devices_at(), &grant).await;
    cluster.conn.ask(Command {
        account_id: grant.account_id,
        order: Order {
            command_id: 77,
            deadline_ms: 0,
            code: 1,
            payload: b"hello".to_vec(),
        },
    });
    let Heard::Command {
        id,
        command_id,
        payload,
    } = device.hear().await
    else {
        panic!("no command");
    };
    assert_eq!((command_id, payload.as_slice()), (77, &b"hello"[..]));
    device.send(&command_reply(id, 77, b"hello")).await;
    let answer = cluster.conn.hear(|message| match message {
        Message::CommandAnswer(answer) => Some(answer.clone()),
        _ => None,
    });
    let replied = CommandAnswer::Replied {
        status: 0,
        more: false,
        payload: b"hello".to_vec(),
    };
    assert_eq!(answer.await, replied);
}

#[tokio::test]
async fn a_device_that_falls_silent_is_closed_idle() {
    let mut cluster = Cluster::start(settings()).await;
    let mut grant = cluster.conn.new_grant(1);
    grant.heartbeat_s = Some(1);
    assert_eq!(
        cluster.conn.open(grant.clone()).await,
        GrantVerdict::Granted
    );
    let mut device = Device::attach(cluster.devices_at(), &grant).await;
    let silent = tokio::time::Instant::now();
    assert_eq!(device.hear().await, Heard::Close(CloseReason::Idle, 0));
    assert!(silent.elapsed() > Duration::from_millis(2_900));
    assert_eq!(device.hear().await, Heard::End);
    // It does not hang up either: the server does.
    let hung_up = timeout(support::PATIENCE, async {
        while device.stream.write_all(&heartbeat(2)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(hung_up.await.is_ok(), "the socket is still open");
    let gone = "SELECT count(*) FROM sessions WHERE reason = 'idle'";
    cluster.wait_for(gone, &[1]).await;
}

#[tokio::test]
async fn a_slow_reader_is_closed_at_its_high_water_mark_and_costs_the_others_nothing() {
    let mut cluster = Cluster::start(Settings {
        threads: 1,
        ..settings()
    })
    .await;
    let grant = cluster.conn.grant(1).await;
    let mut slow = Device::connect_narrow(cluster.devices_at()).await;
    slow.send(&attach(&grant)).await;
    slow.admitted(&grant).await;
    let mut other = cluster.attach(2).await;

    // Replies fill both kernels' buffers, then the session's, until the server hangs up.
    let many: Vec<u8> = (1..=5_000).flat_map(heartbeat).collect();
    let flood = timeout(support::PATIENCE, async {
        while slow.stream.write_all(&many).await.is_ok() {}
    });
    assert!(flood.await.is_ok(), "the server still reads");
    other.send(&heartbeat(9)).await;
    assert_eq!(other.hear().await, Heard::HeartbeatReply);
    let closed = "SELECT count(*) FROM sessions WHERE reason = 'slow_reader'";
    cluster.wait_for(closed, &[1]).await;
    assert_eq!(cluster.node.stats().count(Counter::ClosedSlowReader), 1);
}

#[tokio::test]
async fn a_database_that_stalls_delays_acknowledgements_and_nothing_else() {
    let mut cluster = Cluster::start(Settings {
        write_deadline_ms: 100,
        ..settings()
    })
    .await;
    let mut device = cluster.attach(1).await;
    cluster
        .wait_for("SELECT count(*) FROM sessions", &[1])
        .await;
    let held = cluster
        .database
        .sqlite()
        .unwrap()
        .writer()
        .acquire()
        .await
        .unwrap();
    device.send(&telemetry(2, 50, 2)).await;
    for id in 3..8 {
        device.send(&heartbeat(id)).await;
        assert_eq!(device.hear().await, Heard::HeartbeatReply);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(held);
    assert_eq!(device.hear().await, stored(2, 50, 2));
    assert_eq!(cluster.integers(SEQS).await, [50, 51]);
    assert!(cluster.node.stats().count(Counter::WriteFailed) > 0);
}

#[tokio::test]
async fn a_shutdown_stores_acknowledges_and_says_goodbye_to_everybody() {
    let mut cluster = Cluster::start(Settings {
        shutdown_spread_ms: 8_000,
        ..settings()
    })
    .await;
    let mut devices = vec![];
    for account in 1..=8 {
        devices.push(cluster.attach(account).await);
    }
    for (account, device) in (1..).zip(&mut devices) {
        device.send(&telemetry(2, account * 100, 5)).await;
    }
    let Cluster {
        node,
        database,
        directory,
        ..
    } = cluster;
    let listening = node.addresses().devices[0];
    let shutdown = tokio::spawn(node.shutdown());

    let (mut waits, mut acknowledged) = (vec![], 0);
    for (account, device) in (1..).zip(&mut devices) {
        // What came too late is not taken and not answered.
        let mut heard = device.hear().await;
        if heard == stored(2, account * 100, 5) {
            acknowledged += 5;
            heard = device.hear().await;
        }
        let Heard::Close(CloseReason::Shutdown, wait_ms) = heard else {
            panic!("{heard:?} instead of Close(shutdown)");
        };
        waits.push(wait_ms);
        assert_eq!(device.hear().await, Heard::End);
    }
    devices.clear();
    timeout(support::PATIENCE, shutdown).await.unwrap().unwrap();
    assert!(waits.iter().all(|wait| (1..=8_000).contains(wait)));
    waits.sort_unstable();
    waits.dedup();
    // Each of the two shards spreads its own.
    assert!(waits.len() >= 4, "they come back together: {waits:?}");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM telemetry_custom")
        .fetch_one(database.sqlite().unwrap().reader())
        .await
        .unwrap();
    assert_eq!(rows, acknowledged);
    let left = sqlx::query_scalar("SELECT count(*) FROM sessions WHERE reason = 'shutdown'");
    let left: i64 = left
        .fetch_one(database.sqlite().unwrap().reader())
        .await
        .unwrap();
    assert_eq!(left, 8);
    assert!(tokio::net::TcpStream::connect(listening).await.is_err());
    drop(directory);
}

#[tokio::test]
async fn a_shutdown_waits_for_a_database_no_longer_than_its_deadline() {
    let mut cluster = Cluster::start(Settings {
        shutdown_deadline_ms: 300,
        ..settings()
    })
    .await;
    let mut device = cluster.attach(1).await;
    cluster
        .wait_for("SELECT count(*) FROM sessions", &[1])
        .await;
    let held = cluster
        .database
        .sqlite()
        .unwrap()
        .writer()
        .acquire()
        .await
        .unwrap();
    device.send(&telemetry(2, 1, 1)).await;
    let Cluster { node, database, .. } = cluster;
    let shutdown = timeout(Duration::from_secs(5), node.shutdown());
    assert!(shutdown.await.is_ok());
    // Not acknowledged, so it is the device's to send again.
    let last = device.hear().await;
    assert!(
        matches!(last, Heard::Close(CloseReason::Shutdown, 1..)),
        "{last:?}"
    );
    assert_eq!(device.hear().await, Heard::End);
    drop(held);
    database.close().await;
}

#[tokio::test]
async fn wrong_settings_and_a_port_in_use_are_said_at_start() {
    let cluster = Cluster::start(settings()).await;
    let start = |settings| {
        let name = "logic-2".parse().unwrap();
        logic_server::LogicServer::start(settings, name, Default::default(), &cluster.database)
    };
    let wrong = start(Settings {
        heartbeat_s: 1,
        ..settings()
    });
    let why = wrong.await.unwrap_err().to_string();
    assert!(why.contains("heartbeat_s"), "{why}");
    let taken = start(Settings {
        listen: vec![cluster.devices_at()],
        ..settings()
    });
    let why = taken.await.unwrap_err().to_string();
    assert!(why.contains(&cluster.devices_at().to_string()), "{why}");
}
