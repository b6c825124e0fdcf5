//! The driver against a cluster of one thread per connection: real sockets, no judgement.

#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use common::ids::Ticket;
use common::secret::{Secret, SessionKey};
use protocols::rcu::attach::{AttachReply, Credential, Terms};
use protocols::rcu::close::Close;
use protocols::rcu::code::{AttachStatus, CloseReason, LoginStatus};
use protocols::rcu::frame::{FRAME_BYTES_MAX, Frame, Parsed, parse};
use protocols::rcu::login::{LoginReply, Target};
use protocols::rcu::message::{FromCluster, FromDevice, HeartbeatReply};
use protocols::rcu::proof::session_key;
use protocols::rcu::telemetry::TelemetryAck;

use super::*;
use crate::checker::{Judge, Row, rebuild::Rebuilt};
use crate::drive::KINDS;
use crate::keys::fleet;

const FLEET_KEY: common::fleet::FleetKey = Secret::new([3; 32]);
const PATIENCE: Duration = Duration::from_secs(20);

/// What the fake cluster knows.
#[derive(Default)]
struct Known {
    /// Grants by ticket: account, key, where from.
    grants: HashMap<[u8; 16], (String, SessionKey, IpAddr)>,
    sources: HashSet<IpAddr>,
    rows: HashMap<String, Vec<Row>>,
    sessions: u32,
}

impl Known {
    fn next_session(&mut self) -> u32 {
        self.sessions += 1;
        self.sessions
    }
}

#[derive(Clone)]
struct Cluster {
    address: SocketAddr,
    known: Arc<Mutex<Known>>,
    /// So many sessions, the first, end with a Close instead of their third acknowledgement.
    closes: u32,
}

impl Cluster {
    fn start(closes: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cluster = Self {
            address: listener.local_addr().unwrap(),
            known: Arc::default(),
            closes,
        };
        let serving = cluster.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let cluster = serving.clone();
                thread::spawn(move || cluster.serve(stream));
            }
        });
        cluster
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// Serves one connection until either side has had enough.
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let source = stream.peer_addr().ok()?.ip();
        let mut kept = vec![];
        let mut account = String::new();
        let mut session = 0;
        let mut frames = 0;
        loop {
            let (frame_bytes, kind, id) = next_frame(&mut stream, &mut kept)?;
            let frame = Frame {
                kind,
                id,
                body: &frame_bytes,
            };
            let mut out = vec![];
            match FromDevice::decode(&frame).unwrap() {
                FromDevice::Login(login) => self.grant(&login, source).encode_with(id, &mut out),
                FromDevice::Attach(attach) => {
                    let (name, key, from) = self.known().grants.remove(attach.ticket.expose())?;
                    assert_eq!(from, source, "Login and Attach come from one address");
                    assert!(attach.verify(&key));
                    account = name;
                    session = self.known().next_session();
                    let terms = Terms {
                        heartbeat_s: 5,
                        window: 4,
                        resume_ttl_s: 0,
                        resumption: b"",
                    };
                    let credential = Credential::Ticket(attach.ticket);
                    AttachReply::ok(unix_ms(), terms, credential, &key).encode(id, &mut out);
                }
                FromDevice::Heartbeat => HeartbeatReply {
                    server_time_ms: unix_ms(),
                }
                .encode(id, &mut out),
                FromDevice::Telemetry(telemetry) => {
                    let mut known = self.known();
                    let rows = known.rows.entry(account.clone()).or_default();
                    for record in telemetry.records() {
                        let row = Row {
                            table: "telemetry",
                            seq: record.seq.cast_signed(),
                            recorded_at_ms: record.recorded_at_ms.cast_signed(),
                            record: Ok(Rebuilt {
                                kind: record.kind,
                                payload: record.payload.to_vec(),
                            }),
                            dead_letter: false,
                        };
                        if !rows.contains(&row) {
                            rows.push(row);
                        }
                    }
                    let ack = TelemetryAck {
                        base_seq: telemetry.base_seq(),
                        count: telemetry.count(),
                        status: protocols::rcu::code::AckStatus::Stored,
                        retry_after_ms: 0,
                    };
                    ack.encode(id, &mut out);
                    frames += 1;
                    if frames == 3 && session <= self.closes {
                        // The rows are stored, and nobody hears of it.
                        out.clear();
                        let reason = CloseReason::Shutdown;
                        let retry_after_ms = 50;
                        Close {
                            reason,
                            retry_after_ms,
                        }
                        .encode(&mut out);
                    }
                }
                other => panic!("{other:?}"),
            }
            stream.write_all(&out).ok()?;
        }
    }

    fn grant(&self, login: &protocols::rcu::login::Login<'_>, source: IpAddr) -> Granted {
        let account = login.account.parse().unwrap();
        let key = common::fleet::device_key(&FLEET_KEY, &account);
        assert!(login.verify(&key));
        let mut known = self.known();
        let mut ticket = [0; 16];
        ticket[..8].copy_from_slice(&(known.grants.len() as u64).to_le_bytes());
        ticket[8..].copy_from_slice(&login.nonce.0[..8]);
        let session = session_key(&key, login.nonce, &Ticket::new(ticket));
        known
            .grants
            .insert(ticket, (login.account.into(), session, source));
        known.sources.insert(source);
        Granted {
            address: self.address,
            ticket: Ticket::new(ticket),
            nonce: login.nonce,
            key,
        }
    }
}

struct Granted {
    address: SocketAddr,
    ticket: Ticket,
    nonce: common::ids::Nonce,
    key: Secret<32>,
}

impl Granted {
    fn encode_with(&self, id: u16, out: &mut Vec<u8>) {
        let host = self.address.ip().to_string();
        let target = Target {
            host: &host,
            port: self.address.port(),
            ticket: self.ticket,
            ticket_ttl_s: 30,
        };
        let reply = LoginReply::ok(unix_ms(), target, self.nonce, &self.key);
        FromCluster::LoginReply(reply).encode(id, out);
    }
}

fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

/// Body, kind and id of the next frame; `None` at the end of the stream.
fn next_frame(stream: &mut TcpStream, kept: &mut Vec<u8>) -> Option<(Vec<u8>, u8, u16)> {
    loop {
        if let Parsed::Frame { frame, consumed } = parse(kept, FRAME_BYTES_MAX).unwrap() {
            let found = (frame.body.to_vec(), frame.kind, frame.id);
            kept.drain(..consumed);
            return Some(found);
        }
        let mut buffer = [0; 4_096];
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => kept.extend_from_slice(&buffer[..count]),
        }
    }
}

fn settings(balancer: String, devices: u32) -> Settings {
    Settings {
        balancers: vec![balancer],
        identities: fleet("demo", &FLEET_KEY, devices).unwrap(),
        device: device::Settings {
            report_interval_ms: 100,
            ..device::Settings::default()
        },
        boot_counter: 7,
        seed: 1,
        connects_per_s: 500,
        devices_per_source: 2,
    }
}

/// Waits for a condition of the statistics, with a deadline.
fn wait_until(simulator: &Simulator, holds: impl Fn(&Stats) -> bool) -> Stats {
    let began = Instant::now();
    loop {
        let stats = simulator.stats();
        if holds(&stats) {
            return stats;
        }
        assert!(began.elapsed() < PATIENCE, "{stats:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn judge(cluster: &Cluster, outcome: &Outcome) -> crate::checker::Verdict {
    let known = cluster.known();
    let mut judge = Judge::new(&KINDS);
    for history in &outcome.histories {
        let rows = known.rows.get(history.account().as_str());
        judge.judge(history, rows.map_or(&[], |rows| rows));
    }
    judge.finish()
}

#[test]
fn the_size_of_the_fleet_is_known_before_its_loop_runs() {
    let (_orders, taken) = mpsc::channel();
    let engine = Engine::new(settings("127.0.0.1:1".into(), 40), taken).unwrap();
    assert_eq!(engine.published().lock().unwrap().devices, 40);
}

#[test]
fn a_fleet_logs_in_attaches_reports_and_stops_with_everything_answered() {
    let cluster = Cluster::start(0);
    let simulator = Simulator::start(settings(cluster.address.to_string(), 40)).unwrap();
    let stats = wait_until(&simulator, |stats| {
        stats.attached == 40 && stats.records_acknowledged > 1_000
    });
    assert_eq!(stats.started, 40);
    assert_eq!(stats.logins.get(&LoginStatus::Ok), Some(&40));
    assert!(stats.ack_ms.count > 0);
    let outcome = simulator.stop(PATIENCE).unwrap();
    assert_eq!(outcome.stats.unacknowledged, 0);
    assert_eq!(outcome.next_boot_counter, 8);
    assert_eq!(outcome.histories.len(), 40);
    let verdict = judge(&cluster, &outcome);
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.numbers.acknowledged, verdict.numbers.sent);
    // Two devices a source.
    assert_eq!(cluster.known().sources.len(), 20);
}

#[test]
fn what_a_lost_session_did_not_acknowledge_is_sent_again_on_the_next() {
    let cluster = Cluster::start(5);
    let simulator = Simulator::start(settings(cluster.address.to_string(), 10)).unwrap();
    let why = crate::device::Fault::Closed(CloseReason::Shutdown);
    wait_until(&simulator, |stats| {
        stats.ends.get(&why) == Some(&5)
            && stats.attached == 10
            && stats
                .attaches
                .get(&AttachStatus::Ok)
                .is_some_and(|&ok| ok >= 15)
    });
    let outcome = simulator.stop(PATIENCE).unwrap();
    let verdict = judge(&cluster, &outcome);
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.numbers.unanswered, 0);
}

#[test]
fn a_name_is_resolved_and_a_port_where_nobody_listens_is_a_fault_that_is_counted() {
    let cluster = Cluster::start(0);
    let port = cluster.address.port();
    let simulator = Simulator::start(settings(format!("localhost:{port}"), 2)).unwrap();
    wait_until(&simulator, |stats| stats.attached == 2);
    drop(simulator);

    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let simulator = Simulator::start(settings(nobody.to_string(), 3)).unwrap();
    wait_until(&simulator, |stats| {
        let unreachable = crate::device::Fault::Unreachable;
        stats
            .login_faults
            .get(&unreachable)
            .is_some_and(|&faults| faults >= 3)
    });
    let outcome = simulator.stop(Duration::ZERO).unwrap();
    assert!(!judge(&cluster, &outcome).holds());
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let start = |settings| {
        Simulator::start(settings)
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(start(Settings::default()), "there is no device to simulate");
    let wrong = settings("nowhere".into(), 1);
    assert_eq!(start(wrong), "nowhere is not HOST:PORT");
    let mut wrong = settings("127.0.0.1:1".into(), 1);
    wrong.boot_counter = 1 << 31;
    assert_eq!(start(wrong), "a boot counter is below 2^31");
}
