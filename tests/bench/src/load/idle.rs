//! Sessions that only heartbeat. A process of its own, for a process may open 20,000 files, and
//! the server needs as many as the load.
//!
//! Told `hold N`, it grows to N sessions and says `held N`; when its standard input closes it says
//! how many heartbeats were answered and how many sessions were lost, and ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use protocols::rcu::frame::{self, FRAME_BYTES_TO_DEVICE_MAX, Parsed};
use protocols::rcu::kind;
use protocols::rcu::message::FromDevice;
use serde::{Deserialize, Serialize};

use super::attach::attach_some;
use super::connect::connect_and_wait;
use super::grants::Grants;
use super::logins::Logins;
use super::sources::Sources;
use crate::error::{BenchError, Result, Tried as _};
use crate::fleet;
use crate::net::{is_not_yet, wait};
use crate::process::{self, Helper};

/// Logins under way at once while the fleet grows.
const SLOTS: usize = 64;
/// Connections to a server without login, in one turn of the loop.
const CONNECTS_PER_TURN: usize = 256;
/// Where no AttachReply says how often; as the cluster's own default.
const BARE_HEARTBEAT: Duration = Duration::from_secs(60);
const WAKER: Token = Token(usize::MAX);
const TICK: Duration = Duration::from_millis(100);
const GROW_MAX: Duration = Duration::from_secs(90);
const END_MAX: Duration = Duration::from_secs(10);

/// Where the sessions are held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held {
    /// Through the whole login.
    Cluster { balancer: SocketAddr, accounts: u32 },
    /// With grants of the load's own.
    Alone { link: SocketAddr },
    /// By connecting; nobody says how often to heartbeat.
    Bare { server: SocketAddr },
    /// As clients of a broker, over MQTT 3.1.1.
    Broker { broker: SocketAddr },
}

/// How the sessions fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fared {
    pub(crate) heartbeats: u64,
    pub(crate) replies: u64,
    pub(crate) lost: u64,
}

/// The load as a process of its own.
pub(crate) struct IdleLoad(Helper);

impl IdleLoad {
    /// `block` as in [`Sources`]: loads that run at the same time have blocks of their own.
    pub(crate) fn start(held: Held, block: u8) -> Result<Self> {
        let (door, address, accounts) = match held {
            Held::Cluster { balancer, accounts } => ("--balancer", balancer, Some(accounts)),
            Held::Alone { link } => ("--link", link, None),
            Held::Bare { server } => ("--bare", server, None),
            Held::Broker { broker } => ("--broker", broker, None),
        };
        let mut arguments = vec!["idle".into(), "--block".into(), block.to_string()];
        arguments.extend([door.into(), address.to_string()]);
        if let Some(accounts) = accounts {
            arguments.extend(["--accounts".into(), accounts.to_string()]);
        }
        Ok(Self(Helper::start(arguments.iter().map(String::as_str))?))
    }

    /// Returns when it holds `sessions`.
    pub(crate) fn hold(&mut self, sessions: usize) -> Result<()> {
        self.begin_to_hold(sessions)?;
        self.wait_held(sessions)
    }

    pub(crate) fn begin_to_hold(&mut self, sessions: usize) -> Result<()> {
        self.0.tell(&format!("hold {sessions}"))
    }

    pub(crate) fn wait_held(&mut self, sessions: usize) -> Result<()> {
        let said = self.0.hear(GROW_MAX)?;
        if said == format!("held {sessions}") {
            Ok(())
        } else {
            Err(BenchError::failed(format!("the idle load said {said:?}")))
        }
    }

    /// Ends all sessions.
    pub(crate) fn end(mut self) -> Result<Fared> {
        self.0.tell_to_end();
        serde_json::from_str(&self.0.hear(END_MAX)?).map_err(BenchError::failed)
    }
}

/// Carries out commands until standard input closes.
pub(crate) fn run(held: Held, block: u8) -> Result<()> {
    let poll = Poll::new().tried("poll")?;
    let waker = Waker::new(poll.registry(), WAKER).tried("make a waker")?;
    let commands = commands(Arc::new(waker));
    let sources = Sources::new(block, rand::random());
    let mut idle = Idle {
        poll,
        sessions: Vec::new(),
        due: BinaryHeap::new(),
        fared: Fared::default(),
    };
    let devices;
    let mut grow = match held {
        Held::Cluster { balancer, accounts } => {
            devices = fleet::devices(accounts);
            Grow::Login(Logins::new(balancer, &devices, sources, SLOTS))
        }
        Held::Alone { link } => Grow::Attach {
            grants: Grants::dial(link)?,
            sources,
        },
        Held::Bare { server } => Grow::Connect {
            server,
            sources,
            speech: Speech::Rcu,
        },
        Held::Broker { broker } => Grow::Connect {
            server: broker,
            sources,
            speech: Speech::Mqtt,
        },
    };
    idle.run(&mut grow, &commands)?;
    let fared = serde_json::to_string(&idle.fared).map_err(BenchError::failed)?;
    process::say(&fared)
}

/// Commands as they are read. `None`: there will be no more.
fn commands(waker: Arc<Waker>) -> Receiver<Option<usize>> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(|line| line.ok()) {
            let sessions = line
                .strip_prefix("hold ")
                .and_then(|text| text.parse().ok());
            if sessions.is_none() || tell.send(sessions).is_err() || waker.wake().is_err() {
                break;
            }
        }
        // Nobody listens any more when this fails.
        let _ = tell.send(None);
        let _ = waker.wake();
    });
    told
}

/// How sessions are made.
enum Grow<'a> {
    Login(Logins<'a>),
    Attach {
        grants: Grants,
        sources: Sources,
    },
    Connect {
        server: SocketAddr,
        sources: Sources,
        speech: Speech,
    },
}

/// What a session says, and hears.
#[derive(Clone, Copy)]
enum Speech {
    Rcu,
    Mqtt,
}

/// MQTT 3.1.1, sections 3.1 to 3.13.
mod mqtt {
    pub(super) const PINGREQ: [u8; 2] = [0xC0, 0];
    pub(super) const PINGRESP: [u8; 2] = [0xD0, 0];
    pub(super) const CONNACK_ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];

    /// CONNECT of a clean session that is lost after one and a half times `keep_alive_s` of silence.
    pub(super) fn connect(client: usize, keep_alive_s: u16) -> Vec<u8> {
        let client = format!("bench-{client}");
        let mut body = vec![0, 4];
        body.extend_from_slice(b"MQTT");
        body.extend_from_slice(&[4, 2]);
        body.extend_from_slice(&keep_alive_s.to_be_bytes());
        body.extend_from_slice(&(client.len() as u16).to_be_bytes());
        body.extend_from_slice(client.as_bytes());
        let mut packet = vec![0x10, body.len() as u8];
        packet.extend_from_slice(&body);
        packet
    }
}

impl Grow<'_> {
    /// How long a growing load may sleep when nothing happens.
    fn pause(&self) -> Duration {
        match self {
            Self::Login(_) => TICK,
            Self::Attach { .. } | Self::Connect { .. } => Duration::ZERO,
        }
    }
}

struct Idle {
    poll: Poll,
    sessions: Vec<Session>,
    /// When each session heartbeats next.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    fared: Fared,
}

struct Session {
    /// `None`: lost.
    stream: Option<TcpStream>,
    heartbeat: Duration,
    speech: Speech,
    /// Of its last heartbeat.
    id: u16,
    received: Vec<u8>,
}

impl Idle {
    fn run(&mut self, grow: &mut Grow<'_>, commands: &Receiver<Option<usize>>) -> Result<()> {
        let mut events = Events::with_capacity(1_024);
        let mut goal = 0;
        loop {
            while let Ok(command) = commands.try_recv() {
                let Some(sessions) = command else {
                    return Ok(());
                };
                if let Grow::Login(logins) = grow {
                    logins.want(sessions.saturating_sub(goal) as u64);
                }
                goal = goal.max(sessions);
            }
            let growing = self.sessions.len() < goal;
            if growing {
                self.grow(grow, goal - self.sessions.len())?;
            }
            if let Grow::Attach { grants, .. } = grow {
                grants.listen();
            }
            let timeout = self.heartbeat_all_due()?;
            let timeout = if growing {
                timeout.min(grow.pause())
            } else {
                timeout
            };
            wait(&mut self.poll, &mut events, Some(timeout))?;
            let now = Instant::now();
            for event in &events {
                match (event.token(), &mut *grow) {
                    (WAKER, _) => {}
                    (Token(slot), Grow::Login(logins)) if slot < SLOTS => {
                        let registry = self.poll.registry();
                        if let Some(login) = logins.ready(slot, registry, now)? {
                            logins.next(slot, registry, now)?;
                            let heartbeat = login.attached.heartbeat();
                            self.hold(login.stream, heartbeat, Speech::Rcu, true)?;
                        }
                    }
                    (Token(token), _) => self.ready(token - SLOTS),
                }
            }
            if growing && self.sessions.len() >= goal {
                process::say(&format!("held {goal}"))?;
            }
        }
    }

    /// Goes a step towards `wanted` sessions more.
    fn grow(&mut self, grow: &mut Grow<'_>, wanted: usize) -> Result<()> {
        match grow {
            Grow::Login(logins) => logins.tick(self.poll.registry(), Instant::now()),
            Grow::Attach { grants, sources } => {
                for session in attach_some(grants, sources, wanted)? {
                    let heartbeat = session.attached.heartbeat();
                    self.hold(session.stream, heartbeat, Speech::Rcu, false)?;
                }
                Ok(())
            }
            Grow::Connect {
                server,
                sources,
                speech,
            } => {
                for _ in 0..CONNECTS_PER_TURN.min(wanted) {
                    let mut stream = connect_and_wait(sources.next(), *server).tried("connect")?;
                    if matches!(speech, Speech::Mqtt) {
                        greet(&mut stream, self.sessions.len())?;
                    }
                    stream.set_nonblocking(true).tried("use a socket")?;
                    self.hold(TcpStream::from_std(stream), BARE_HEARTBEAT, *speech, false)?;
                }
                Ok(())
            }
        }
    }

    /// Keeps a session; its first heartbeat comes after a random time, as the contract says.
    fn hold(
        &mut self,
        mut stream: TcpStream,
        heartbeat: Duration,
        speech: Speech,
        registered: bool,
    ) -> Result<()> {
        let token = Token(SLOTS + self.sessions.len());
        let registry = self.poll.registry();
        if registered {
            registry.reregister(&mut stream, token, Interest::READABLE)
        } else {
            registry.register(&mut stream, token, Interest::READABLE)
        }
        .tried("register a connection")?;
        let first = heartbeat.mul_f64(rand::random());
        self.due
            .push(Reverse((Instant::now() + first, self.sessions.len())));
        self.sessions.push(Session {
            stream: Some(stream),
            heartbeat,
            speech,
            id: 0,
            received: Vec::new(),
        });
        Ok(())
    }

    /// Sends the heartbeats whose time has come; returns how long until the next.
    fn heartbeat_all_due(&mut self) -> Result<Duration> {
        let mut frame = Vec::with_capacity(frame::HEADER_BYTES);
        loop {
            let now = Instant::now();
            let Some(&Reverse((at, index))) = self.due.peek() else {
                return Ok(Duration::from_secs(1));
            };
            if at > now {
                return Ok(at - now);
            }
            self.due.pop();
            let session = &mut self.sessions[index];
            let Some(stream) = &mut session.stream else {
                continue;
            };
            session.id = session.id.wrapping_add(1).max(1);
            frame.clear();
            match session.speech {
                Speech::Rcu => FromDevice::Heartbeat.encode(session.id, &mut frame),
                Speech::Mqtt => frame.extend_from_slice(&mqtt::PINGREQ),
            }
            if stream.write_all(&frame).is_err() {
                self.lose(index);
                continue;
            }
            self.fared.heartbeats += 1;
            self.due.push(Reverse((at + session.heartbeat, index)));
        }
    }

    /// Reads replies; anything else ends the session.
    fn ready(&mut self, index: usize) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let Some(stream) = &mut session.stream else {
            return;
        };
        let mut buffer = [0; FRAME_BYTES_TO_DEVICE_MAX];
        let fine = match stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                session.received.extend_from_slice(&buffer[..length]);
                match session.speech {
                    Speech::Rcu => session.take_replies(&mut self.fared.replies),
                    Speech::Mqtt => session.take_pings(&mut self.fared.replies),
                }
            }
            Err(error) => is_not_yet(&error),
        };
        if !fine {
            self.lose(index);
        }
    }

    fn lose(&mut self, index: usize) {
        self.sessions[index].stream = None;
        self.fared.lost += 1;
    }
}

/// Becomes a broker's client.
fn greet(stream: &mut std::net::TcpStream, client: usize) -> Result<()> {
    let packet = mqtt::connect(client, BARE_HEARTBEAT.as_secs() as u16);
    stream.write_all(&packet).tried("greet a broker")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).tried("hear a broker")?;
    match answer {
        mqtt::CONNACK_ACCEPTED => Ok(()),
        other => Err(BenchError::failed(format!("a broker answered {other:?}"))),
    }
}

impl Session {
    /// Takes PINGRESPs off what was received. False: something was none.
    fn take_pings(&mut self, replies: &mut u64) -> bool {
        while let Some(packet) = self.received.first_chunk() {
            if *packet != mqtt::PINGRESP {
                return false;
            }
            *replies += 1;
            self.received.drain(..mqtt::PINGRESP.len());
        }
        true
    }

    /// Takes whole frames off what was received. False: one was no HeartbeatReply.
    fn take_replies(&mut self, replies: &mut u64) -> bool {
        loop {
            match frame::parse(&self.received, FRAME_BYTES_TO_DEVICE_MAX) {
                Ok(Parsed::Incomplete { .. }) => return true,
                Ok(Parsed::Frame { frame, consumed }) if frame.kind == kind::HEARTBEAT_REPLY => {
                    *replies += 1;
                    self.received.drain(..consumed);
                }
                _ => return false,
            }
        }
    }
}
