//! Pure. The device against a scripted cluster in virtual time: every row of the contract's tables.

#![allow(clippy::unwrap_used)]

mod attach;
mod commands;
mod hostile;
mod login;
mod redirect;
mod resume;
mod session;
mod telemetry;

use std::net::SocketAddr;
use std::sync::Arc;

use common::ids::{Nonce, Ticket};
use common::secret::{DeviceKey, Secret, SessionKey};
use protocols::rcu::attach::{AttachReply, AttachVerdict, Credential, Terms};
use protocols::rcu::close::Close;
use protocols::rcu::code::{AckStatus, CloseReason};
use protocols::rcu::command::{Command, CommandId};
use protocols::rcu::frame::{FRAME_BYTES_MAX, Frame, Parsed, parse};
use protocols::rcu::login::{LoginReply, LoginVerdict, Target};
use protocols::rcu::message::{FromCluster, FromDevice};
use protocols::rcu::proof::session_key;
use protocols::rcu::telemetry::TelemetryAck;

use super::*;

const KEY: DeviceKey = Secret::new([7; 32]);
const TICKET: Ticket = Secret::new([0x40; 16]);
/// The cluster's time when the monotonic clock of a test stands at [`START_MS`].
const UNIX_MS: u64 = 1_767_225_600_000;
const START_MS: u64 = 1_000_000;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn balancers() -> Vec<SocketAddr> {
    ["192.0.2.1:10000", "192.0.2.2:10000", "192.0.2.3:10000"]
        .map(address)
        .into()
}

fn logic_server() -> SocketAddr {
    address("192.0.2.17:20000")
}

/// A frame that the device sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    conn: ConnId,
    kind: u8,
    id: u16,
    body: Vec<u8>,
}

impl Sent {
    fn message(&self) -> FromDevice<'_> {
        FromDevice::decode(&Frame {
            kind: self.kind,
            id: self.id,
            body: &self.body,
        })
        .unwrap()
    }
}

/// A device, the time, and what it asked for and told since it was last looked at.
struct Bench {
    device: Device,
    now_ms: u64,
    resolves: usize,
    connects: Vec<(ConnId, SocketAddr)>,
    /// Where its last connection went.
    peer: Option<SocketAddr>,
    sent: Vec<Sent>,
    disconnects: Vec<ConnId>,
    measures: usize,
    events: Vec<Event>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings {
            report_interval_ms: 0,
            ..Settings::default()
        })
    }

    fn with(settings: Settings) -> Self {
        Self::seeded(settings, 1)
    }

    fn seeded(settings: Settings, seed: u64) -> Self {
        let identity = Identity {
            account: "rcu-000001".parse().unwrap(),
            key: KEY,
        };
        let mut device = Device::new(identity, Arc::new(settings), 3, seed);
        let unix_ms = Some(UNIX_MS);
        device.apply(
            Input::ClockSet { unix_ms },
            START_MS,
            &mut Effects::default(),
        );
        Self {
            device,
            now_ms: START_MS,
            resolves: 0,
            connects: vec![],
            peer: None,
            sent: vec![],
            disconnects: vec![],
            measures: 0,
            events: vec![],
        }
    }

    fn apply(&mut self, input: Input<'_>) {
        let mut effects = Effects::default();
        self.device.apply(input, self.now_ms, &mut effects);
        for effect in effects.list {
            match effect {
                Effect::Resolve => self.resolves += 1,
                Effect::Connect { conn, address } => {
                    self.connects.push((conn, address));
                    self.peer = Some(address);
                }
                Effect::Send { conn, bytes } => self.note_sent(conn, &effects.bytes[bytes]),
                Effect::Disconnect { conn } => self.disconnects.push(conn),
                Effect::Measure => self.measures += 1,
                Effect::Tell(event) => self.events.push(event),
            }
        }
    }

    fn note_sent(&mut self, conn: ConnId, bytes: &[u8]) {
        let Ok(Parsed::Frame { frame, consumed }) = parse(bytes, FRAME_BYTES_MAX) else {
            panic!("the device sent no frame");
        };
        assert_eq!(consumed, bytes.len(), "one frame a send");
        self.sent.push(Sent {
            conn,
            kind: frame.kind,
            id: frame.id,
            body: frame.body.to_vec(),
        });
    }

    /// Lets time pass, ticking where the device asks for it.
    fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while let Some(deadline_ms) = self.device.next_deadline(self.now_ms)
            && deadline_ms <= end_ms
        {
            self.now_ms = deadline_ms.max(self.now_ms);
            self.apply(Input::Tick);
        }
        self.now_ms = end_ms;
    }

    /// Sends `message` to the device on its present connection.
    fn say(&mut self, id: u16, message: FromCluster<'_>) {
        let mut bytes = vec![];
        message.encode(id, &mut bytes);
        self.say_bytes(&bytes);
    }

    fn say_bytes(&mut self, bytes: &[u8]) {
        let conn = self.device.conn().expect("a connection");
        self.apply(Input::Received { conn, bytes });
    }

    fn lose(&mut self) {
        let conn = self.device.conn().expect("a connection");
        self.apply(Input::Disconnected { conn });
    }

    fn close(&mut self, reason: CloseReason, retry_after_ms: u32) {
        self.say(
            0,
            FromCluster::Close(Close {
                reason,
                retry_after_ms,
            }),
        );
    }

    // ---- what it did --------------------------------------------------------------------------

    fn took_resolve(&mut self) -> bool {
        std::mem::take(&mut self.resolves) > 0
    }

    /// The one connection that it asked for.
    fn take_connect(&mut self) -> SocketAddr {
        let connects = std::mem::take(&mut self.connects);
        let [(_, address)] = connects[..] else {
            panic!("one connect, not {connects:?}");
        };
        address
    }

    /// The one frame that it sent.
    fn take_sent(&mut self) -> Sent {
        let mut sent = std::mem::take(&mut self.sent);
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    fn take_event<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> T {
        let picked = self.events.iter().find_map(pick);
        let events = std::mem::take(&mut self.events);
        picked.unwrap_or_else(|| panic!("not among {events:?}"))
    }

    fn told(&mut self, event: Event) -> bool {
        let told = self.events.contains(&event);
        self.events.clear();
        told
    }

    /// The wait that it told of, which is also its next deadline.
    fn take_wait(&mut self) -> (Wait, u64) {
        let (why, ms) = self.take_event(|event| match *event {
            Event::Waits { ms, why } => Some((why, ms)),
            _ => None,
        });
        if why != Wait::Overloaded {
            assert_eq!(
                self.device.next_deadline(self.now_ms),
                Some(self.now_ms + ms)
            );
        }
        (why, ms)
    }

    /// Waits as it told, and a failed try as it must be: at most the limit of its attempt.
    fn expect_wait(&mut self, expected: Wait, told_ms: u64) {
        let (why, ms) = self.take_wait();
        assert_eq!(why, expected);
        match why {
            Wait::Told => assert_eq!(ms, told_ms),
            Wait::Backoff | Wait::Overloaded => assert!(ms <= 300_000),
            Wait::Longest => assert!((150_000..=300_000).contains(&ms)),
        }
        self.pass(ms);
    }

    // ---- the usual course ---------------------------------------------------------------------

    fn power_on(&mut self) {
        self.apply(Input::PowerOn);
        self.pass(0);
        assert!(self.took_resolve());
    }

    fn resolve(&mut self, addresses: &[SocketAddr]) {
        self.apply(Input::Resolved { addresses });
    }

    fn connected(&mut self) {
        let conn = self.device.conn().expect("a connection");
        self.apply(Input::Connected { conn });
    }

    /// From power-on to a Login that is sent; its nonce.
    fn reach_login(&mut self) -> Nonce {
        self.power_on();
        self.resolve(&balancers());
        self.ask()
    }

    /// Connects to whatever it asked for; the nonce of its Login.
    fn ask(&mut self) -> Nonce {
        self.take_connect();
        self.connected();
        let sent = self.take_sent();
        let FromDevice::Login(login) = sent.message() else {
            panic!("{sent:?}");
        };
        assert!(login.verify(&KEY));
        login.nonce
    }

    fn cluster_unix_ms(&self) -> u64 {
        UNIX_MS + self.now_ms - START_MS
    }

    fn grant(&mut self, nonce: Nonce) {
        let target = Target {
            host: "192.0.2.17",
            port: 20_000,
            ticket: TICKET,
            ticket_ttl_s: 30,
        };
        let reply = LoginReply::ok(self.cluster_unix_ms(), target, nonce, &KEY);
        self.say(1, FromCluster::LoginReply(reply));
    }

    /// From power-on to an Attach that is sent; its session key.
    fn reach_attach(&mut self) -> SessionKey {
        let nonce = self.reach_login();
        self.grant(nonce);
        self.follow_grant(nonce)
    }

    fn follow_grant(&mut self, nonce: Nonce) -> SessionKey {
        let key = session_key(&KEY, nonce, &TICKET);
        assert_eq!(self.take_connect(), logic_server());
        self.connected();
        let sent = self.take_sent();
        let FromDevice::Attach(attach) = sent.message() else {
            panic!("{sent:?}");
        };
        assert_eq!(attach.ticket, TICKET);
        assert!(attach.verify(&key));
        key
    }

    fn admit(&mut self, key: &SessionKey, terms: Terms<'_>) {
        let credential = Credential::Ticket(TICKET);
        let reply = AttachReply::ok(self.cluster_unix_ms(), terms, credential, key);
        self.say(1, FromCluster::AttachReply(reply));
        assert!(self.device.is_attached());
        self.events.clear();
        self.disconnects.clear();
    }

    /// From power-on to a session on the usual terms.
    fn reach_session(&mut self) -> SessionKey {
        self.reach_session_with(TERMS)
    }

    fn reach_session_with(&mut self, terms: Terms<'_>) -> SessionKey {
        let key = self.reach_attach();
        self.admit(&key, terms);
        key
    }

    /// From a look-up that it just asked for to a session.
    fn back_to_session(&mut self) -> SessionKey {
        assert!(self.took_resolve());
        self.resolve(&balancers());
        let nonce = self.ask();
        self.grant(nonce);
        let key = self.follow_grant(nonce);
        self.admit(&key, TERMS);
        key
    }

    fn command(&mut self, id: u16, command_id: u64, code: u16, payload: &[u8]) {
        self.command_until(id, command_id, 0, code, payload);
    }

    fn command_until(
        &mut self,
        id: u16,
        command_id: u64,
        deadline_ms: u64,
        code: u16,
        payload: &[u8],
    ) {
        let command_id = CommandId(command_id);
        self.say(
            id,
            FromCluster::Command(Command {
                command_id,
                deadline_ms,
                code,
                payload,
            }),
        );
    }

    fn report(&mut self, kinds: &[u8]) {
        let measurements: Vec<_> = kinds
            .iter()
            .map(|&kind| Measurement {
                kind,
                payload: &[1, 2, 3],
            })
            .collect();
        self.apply(Input::Report {
            measurements: &measurements,
        });
    }

    fn ack(&mut self, frame: &Sent, status: AckStatus, retry_after_ms: u32) {
        let FromDevice::Telemetry(telemetry) = frame.message() else {
            panic!("{frame:?}");
        };
        let ack = TelemetryAck {
            base_seq: telemetry.base_seq(),
            count: telemetry.count(),
            status,
            retry_after_ms,
        };
        self.say(frame.id, FromCluster::TelemetryAck(ack));
    }
}

const TERMS: Terms<'static> = Terms {
    heartbeat_s: 60,
    window: 2,
    resume_ttl_s: 0,
    resumption: b"",
};

const RESUMABLE: Terms<'static> = Terms {
    heartbeat_s: 60,
    window: 2,
    resume_ttl_s: 600,
    resumption: b"sealed by the cluster",
};

fn login_reply(verdict: LoginVerdict<'_>, retry_after_ms: u32) -> FromCluster<'_> {
    FromCluster::LoginReply(LoginReply {
        retry_after_ms,
        server_time_ms: UNIX_MS,
        verdict,
    })
}

fn attach_reply(verdict: AttachVerdict<'_>, retry_after_ms: u32) -> FromCluster<'_> {
    FromCluster::AttachReply(AttachReply {
        retry_after_ms,
        server_time_ms: UNIX_MS,
        verdict,
    })
}
