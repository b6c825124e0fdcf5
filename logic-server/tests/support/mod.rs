//! A logic server with a real database, between a conn server and devices that the test plays.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::database::Database;
use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::message::{Grant, GrantVerdict, Message};
use common::link::{Hub, HubSettings, Key, Keys, LinkEvent, LinkId, Role};
use common::secret::Secret;
use logic_server::counters::Counter;
use logic_server::{LogicServer, Settings};
use protocols::rcu::attach::{Attach, Credential};
use protocols::rcu::close::Close;
use protocols::rcu::code::{AckStatus, AttachStatus, CloseReason, CommandStatus};
use protocols::rcu::command::{CommandId, CommandReply};
use protocols::rcu::frame::{self, Parsed};
use protocols::rcu::message::{FromCluster, FromDevice};
use protocols::rcu::telemetry::TelemetryWriter;
use records::{Custom, Record};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// For what must happen; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn keys() -> Keys {
    Keys {
        cluster: vec![Key::new(Secret::new([1; 32]))],
        operator: vec![],
    }
}

pub fn settings() -> Settings {
    Settings {
        listen: vec![SocketAddr::new(LOOPBACK, 0)],
        link_listen: SocketAddr::new(LOOPBACK, 0),
        threads: 2,
        max_connections: Some(100),
        ..Settings::default()
    }
}

/// A node that runs, and the conn server that it is linked to.
pub struct Cluster {
    pub directory: TempDir,
    pub database: Database,
    pub node: LogicServer,
    pub conn: Conn,
}

impl Cluster {
    pub async fn start(settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("rcu.db"))
            .await
            .unwrap();
        let name = "logic-1".parse().unwrap();
        let node = LogicServer::start(settings, name, keys(), &database)
            .await
            .unwrap();
        let conn = Conn::dial(node.addresses().link).await;
        Self {
            directory,
            database,
            node,
            conn,
        }
    }

    pub fn devices_at(&self) -> SocketAddr {
        self.node.addresses().devices[0]
    }

    /// Lets a device of this account in.
    pub async fn attach(&mut self, account: i64) -> Device {
        let grant = self.conn.grant(account).await;
        Device::attach(self.devices_at(), &grant).await
    }

    /// The first column of the query's rows.
    pub async fn integers(&self, query: &str) -> Vec<i64> {
        sqlx::query_scalar(query)
            .fetch_all(self.database.sqlite().unwrap().reader())
            .await
            .unwrap()
    }

    /// Waits until the query gives these rows.
    pub async fn wait_for(&self, query: &str, expected: &[i64]) {
        let mut rows = vec![];
        let waited = timeout(PATIENCE, async {
            loop {
                rows = self.integers(query).await;
                if rows == expected {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "{query} gave {rows:?}");
    }

    /// Waits until the node has counted so many: figures are published once a turn, after what they count.
    pub async fn wait_for_count(&self, counter: Counter, expected: u64) {
        let waited = timeout(PATIENCE, async {
            while self.node.stats().count(counter) != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let counted = || self.node.stats().count(counter);
        assert!(waited.await.is_ok(), "{counter:?}: {}", counted());
    }
}

/// A conn server, as far as a logic server knows one.
pub struct Conn {
    hub: Hub,
    events: mpsc::Receiver<LinkEvent>,
    pub link: LinkId,
    requests: u64,
    epochs: u64,
}

impl Conn {
    pub async fn dial(node: SocketAddr) -> Self {
        let (sender, mut events) = mpsc::channel(1_024);
        let hub = Hub::new(HubSettings {
            role: Role::Conn,
            node: "conn-1".parse().unwrap(),
            keys: keys(),
            events: sender,
            listen_publicly: false,
        });
        hub.dial(node.to_string());
        let up = timeout(PATIENCE, events.recv()).await.unwrap();
        let Some(LinkEvent::Up { link, .. }) = up else {
            panic!("{up:?} instead of Up");
        };
        Self {
            hub,
            events,
            link,
            requests: 0,
            epochs: 0,
        }
    }

    /// The next message that `pick` wants; what comes before it is passed over.
    pub async fn hear<T>(&mut self, pick: impl Fn(&Message) -> Option<T>) -> T {
        let heard = timeout(PATIENCE, async {
            loop {
                match self.events.recv().await {
                    Some(LinkEvent::Notice { message, .. } | LinkEvent::Answer { message, .. }) => {
                        if let Some(wanted) = pick(&message) {
                            break wanted;
                        }
                    }
                    Some(LinkEvent::Down { why, .. }) => panic!("the link is down: {why}"),
                    Some(_) => {}
                    None => panic!("the hub is gone"),
                }
            }
        });
        heard.await.expect("the message in time")
    }

    pub fn ask(&mut self, message: impl Into<Message>) {
        self.requests += 1;
        self.hub.request(self.link, self.requests, 5_000, message);
    }

    pub fn notify(&self, message: impl Into<Message>) {
        self.hub.notice(self.link, message);
    }

    /// A grant for loopback that has not been asked for yet; each with a newer epoch.
    pub fn new_grant(&mut self, account: i64) -> Grant {
        self.epochs += 1;
        let mut ticket = [0; 16];
        ticket[..8].copy_from_slice(&account.to_le_bytes());
        ticket[8..].copy_from_slice(&self.epochs.to_le_bytes());
        Grant {
            account_id: AccountId(account),
            account: format!("device-{account}").parse().unwrap(),
            account_version: 1,
            session_key: Secret::new([account as u8; 32]),
            ticket: Secret::new(ticket),
            source: Some(LOOPBACK),
            epoch: Epoch::at_ms(1_000 + self.epochs),
            ttl_ms: 30_000,
            heartbeat_s: None,
        }
    }

    pub async fn open(&mut self, grant: Grant) -> GrantVerdict {
        self.ask(grant);
        self.hear(|message| match message {
            Message::GrantAnswer(answer) => Some(answer.verdict),
            _ => None,
        })
        .await
    }

    pub async fn grant(&mut self, account: i64) -> Grant {
        let grant = self.new_grant(account);
        assert_eq!(self.open(grant.clone()).await, GrantVerdict::Granted);
        grant
    }
}

/// A frame that a device got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Attach(AttachStatus),
    HeartbeatReply,
    Ack {
        id: u16,
        base_seq: u64,
        count: u8,
        status: AckStatus,
    },
    Command {
        id: u16,
        command_id: u64,
        payload: Vec<u8>,
    },
    Close(CloseReason, u32),
    /// The end of the stream.
    End,
}

pub struct Device {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl Device {
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await;
        Self {
            stream: stream.unwrap().unwrap(),
            received: vec![],
        }
    }

    /// With a receive buffer as small as the kernel lets it be.
    pub async fn connect_narrow(to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2_048).unwrap();
        Self {
            stream: socket.connect(to).await.unwrap(),
            received: vec![],
        }
    }

    pub async fn attach(to: SocketAddr, grant: &Grant) -> Self {
        let mut device = Self::connect(to).await;
        device.send(&attach(grant)).await;
        device.admitted(grant).await;
        device
    }

    /// Reads AttachReply, which must be `ok` with the right proof.
    pub async fn admitted(&mut self, grant: &Grant) {
        let reply = self.read_frame().await.expect("a reply");
        let Parsed::Frame { frame, .. } = frame::parse(&reply, 1_024).unwrap() else {
            panic!("half a frame");
        };
        match FromCluster::decode(&frame).unwrap() {
            FromCluster::AttachReply(reply) => {
                assert_eq!(reply.status(), AttachStatus::Ok);
                assert!(reply.verify(Credential::Ticket(grant.ticket), &grant.session_key));
            }
            other => panic!("{other:?} instead of AttachReply"),
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .unwrap()
            .unwrap();
    }

    pub async fn hear(&mut self) -> Heard {
        let Some(bytes) = self.read_frame().await else {
            return Heard::End;
        };
        let Parsed::Frame { frame, .. } = frame::parse(&bytes, 1_024).unwrap() else {
            panic!("half a frame");
        };
        match FromCluster::decode(&frame).unwrap() {
            FromCluster::AttachReply(reply) => Heard::Attach(reply.status()),
            FromCluster::HeartbeatReply(_) => Heard::HeartbeatReply,
            FromCluster::TelemetryAck(ack) => Heard::Ack {
                id: frame.id,
                base_seq: ack.base_seq,
                count: ack.count,
                status: ack.status,
            },
            FromCluster::Command(command) => Heard::Command {
                id: frame.id,
                command_id: command.command_id.0,
                payload: command.payload.to_vec(),
            },
            FromCluster::Close(Close {
                reason,
                retry_after_ms,
            }) => Heard::Close(reason, retry_after_ms),
            other => panic!("{other:?} is not to be heard here"),
        }
    }

    /// The next whole frame; `None`: the end of the stream.
    async fn read_frame(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Parsed::Frame { consumed, .. } = frame::parse(&self.received, 1_024).unwrap() {
                let rest = self.received.split_off(consumed);
                return Some(std::mem::replace(&mut self.received, rest));
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
            // A reset here would mean that the server destroyed what it had sent.
            if read.expect("bytes or their end in time").unwrap() == 0 {
                assert!(self.received.is_empty(), "ended within a frame");
                return None;
            }
        }
    }
}

pub fn attach(grant: &Grant) -> Vec<u8> {
    encode(
        1,
        &FromDevice::Attach(Attach::sign(grant.ticket, &grant.session_key)),
    )
}

pub fn heartbeat(id: u16) -> Vec<u8> {
    encode(id, &FromDevice::Heartbeat)
}

/// `count` custom records from `base_seq` on, with times of their own.
pub fn telemetry(id: u16, base_seq: u64, count: u8) -> Vec<u8> {
    let mut writer = TelemetryWriter::default();
    let at_ms = |seq| 1_700_000_000_000 + seq * 1_000;
    writer.begin(base_seq, at_ms(base_seq));
    for seq in base_seq..base_seq + u64::from(count) {
        let data = seq.to_le_bytes();
        let record = Record::Custom(Custom {
            channel: 3,
            data: &data,
        });
        writer.push(at_ms(seq), &record).unwrap();
    }
    encode(id, &FromDevice::Telemetry(writer.telemetry().unwrap()))
}

pub fn command_reply(id: u16, command_id: u64, payload: &[u8]) -> Vec<u8> {
    encode(
        id,
        &FromDevice::CommandReply(CommandReply {
            command_id: CommandId(command_id),
            status: CommandStatus::Ok,
            more: false,
            payload,
        }),
    )
}

fn encode(id: u16, message: &FromDevice<'_>) -> Vec<u8> {
    let mut bytes = vec![];
    message.encode(id, &mut bytes);
    bytes
}

pub fn stored(id: u16, base_seq: u64, count: u8) -> Heard {
    Heard::Ack {
        id,
        base_seq,
        count,
        status: AckStatus::Stored,
    }
}
