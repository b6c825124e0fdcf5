//! N slots, each with one full login under way: connect to the balancer, Login, LoginReply, close;
//! connect to the logic server from the same address, Attach, AttachReply.
//!
//! ```text
//! Free ──begin──▶ Login ──granted──▶ Attach ──ok──▶ Free, and the caller has the connection
//!                   └────── refused, lost, silent ──────┴──▶ Waiting ──▶ Free
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::ids::Nonce;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use protocols::rcu::frame::FRAME_BYTES_TO_DEVICE_MAX;

use super::connect::connect;
use super::exchange::{self, Answer, Attached, Granted, Refusal};
use super::sources::{Source, Sources};
use crate::clock;
use crate::error::{BenchError, Result};
use crate::fleet::Device;
use crate::net::is_not_yet;

/// As long as a device waits for a reply.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Before the next try, where the cluster did not say when.
const RETRY: Duration = Duration::from_millis(50);

/// Full logins under way. Slot `n` uses the token `n` of the caller's poll.
pub(crate) struct Logins<'a> {
    balancer: SocketAddr,
    devices: &'a [Device],
    sources: Sources,
    slots: Vec<Slot>,
    /// Logins to begin still.
    wanted: u64,
    /// Devices whose turn has come.
    begun: u64,
    nonces: Nonces,
    refused: BTreeMap<Refusal, u64>,
}

/// A session that began.
pub(crate) struct Done {
    pub(crate) stream: TcpStream,
    pub(crate) attached: Attached,
    /// From the device's first connect to AttachReply, waits included.
    pub(crate) took: Duration,
}

struct Slot {
    stage: Stage,
    stream: Option<TcpStream>,
    received: Vec<u8>,
    /// What the kernel has not taken yet: all of it while the connection is being made.
    unsent: Vec<u8>,
    source: Option<Source>,
    device: usize,
    /// When the device's turn came.
    begun_at: Instant,
    /// When this try began.
    asked_at: Instant,
}

/// Nonces that no other load has used.
struct Nonces {
    load: u64,
    count: u64,
}

impl Nonces {
    fn new(load: u64) -> Self {
        Self { load, count: 0 }
    }

    fn next(&mut self) -> Nonce {
        self.count += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.load.to_le_bytes());
        nonce[8..].copy_from_slice(&self.count.to_le_bytes());
        Nonce(nonce)
    }
}

enum Stage {
    Free,
    Login { nonce: Nonce },
    Attach { granted: Granted },
    Waiting { until: Instant },
}

/// Where a login stands after its bytes were looked at.
enum Step {
    Stay,
    Granted(Granted),
    Attached(Attached),
    Refused { why: Refusal, wait: Duration },
}

impl<'a> Logins<'a> {
    /// Devices are used in turn, so that none has two logins under way as long as there are more
    /// of them than slots.
    pub(crate) fn new(
        balancer: SocketAddr,
        devices: &'a [Device],
        sources: Sources,
        slots: usize,
    ) -> Self {
        let now = Instant::now();
        let free = || Slot {
            stage: Stage::Free,
            stream: None,
            received: Vec::with_capacity(FRAME_BYTES_TO_DEVICE_MAX),
            unsent: Vec::with_capacity(FRAME_BYTES_TO_DEVICE_MAX),
            source: None,
            device: 0,
            begun_at: now,
            asked_at: now,
        };
        Self {
            balancer,
            devices,
            sources,
            slots: (0..slots).map(|_| free()).collect(),
            wanted: 0,
            begun: 0,
            nonces: Nonces::new(rand::random()),
            refused: BTreeMap::new(),
        }
    }

    /// Asks for so many logins more.
    pub(crate) fn want(&mut self, logins: u64) {
        self.wanted = self.wanted.saturating_add(logins);
    }

    /// How often a login was refused or lost, by cause. Each was tried again.
    pub(crate) fn refused(&self) -> &BTreeMap<Refusal, u64> {
        &self.refused
    }

    /// Begins wanted logins in free slots, ends waits and gives up on silence. Called each turn
    /// of the caller's loop after which a slot may be free, and ten times a second.
    pub(crate) fn tick(&mut self, registry: &Registry, now: Instant) -> Result<()> {
        for index in 0..self.slots.len() {
            self.tick_slot(index, registry, now)?;
        }
        Ok(())
    }

    fn tick_slot(&mut self, index: usize, registry: &Registry, now: Instant) -> Result<()> {
        let slot = &mut self.slots[index];
        match slot.stage {
            Stage::Waiting { until } if now >= until => self.login(index, registry, now),
            Stage::Free if self.wanted > 0 => {
                self.wanted -= 1;
                slot.device = (self.begun % self.devices.len() as u64) as usize;
                slot.begun_at = now;
                self.begun += 1;
                self.login(index, registry, now)
            }
            Stage::Login { .. } | Stage::Attach { .. }
                if now.duration_since(slot.asked_at) > ANSWER_TIMEOUT =>
            {
                self.refuse(index, Refusal::Silent, RETRY, now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The login of the slot's device, for the first time or again.
    fn login(&mut self, index: usize, registry: &Registry, now: Instant) -> Result<()> {
        let nonce = self.nonces.next();
        let slot = &mut self.slots[index];
        slot.asked_at = now;
        slot.source = Some(self.sources.next());
        slot.unsent.clear();
        let device = &self.devices[slot.device];
        exchange::login(device, nonce, clock::unix_ms(), &mut slot.unsent);
        slot.stage = Stage::Login { nonce };
        self.connect(index, self.balancer, registry, now)
    }

    /// Connects a slot; what it has to send is in `unsent`.
    fn connect(
        &mut self,
        index: usize,
        target: SocketAddr,
        registry: &Registry,
        now: Instant,
    ) -> Result<()> {
        let slot = &mut self.slots[index];
        slot.received.clear();
        let source = slot.source.expect("set when the login began");
        let connected = connect(source, target).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, Token(index), interest)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => slot.stream = Some(stream),
            Err(error) if is_ours(&error) => {
                return Err(BenchError::Io {
                    what: "the load cannot connect",
                    source: error,
                });
            }
            Err(_) => {
                self.refuse(index, Refusal::Lost, RETRY, now);
                return Ok(());
            }
        }
        // On loopback the connection stands by now.
        if self.slots[index].send().is_err() {
            self.refuse(index, Refusal::Lost, RETRY, now);
        }
        Ok(())
    }

    /// Goes on with a slot whose connection is readable or writable. `Some`: its session began.
    pub(crate) fn ready(
        &mut self,
        index: usize,
        registry: &Registry,
        now: Instant,
    ) -> Result<Option<Done>> {
        let step = self.slots[index].step(self.devices);
        match step {
            Step::Stay => Ok(None),
            Step::Refused { why, wait } => {
                self.refuse(index, why, wait, now);
                Ok(None)
            }
            Step::Granted(granted) => {
                let slot = &mut self.slots[index];
                // The device disconnects before it comes back to the server that it was told.
                slot.stream = None;
                slot.unsent.clear();
                exchange::attach(&granted, &mut slot.unsent);
                slot.stage = Stage::Attach { granted };
                self.connect(index, granted.server(), registry, now)?;
                Ok(None)
            }
            Step::Attached(attached) => {
                let slot = &mut self.slots[index];
                slot.stage = Stage::Free;
                let done = slot.stream.take().map(|stream| Done {
                    stream,
                    attached,
                    took: slot.begun_at.elapsed(),
                });
                Ok(done)
            }
        }
    }

    /// Begins the next login in a slot that has just become free.
    pub(crate) fn next(&mut self, index: usize, registry: &Registry, now: Instant) -> Result<()> {
        self.tick_slot(index, registry, now)
    }

    fn refuse(&mut self, index: usize, why: Refusal, wait: Duration, now: Instant) {
        *self.refused.entry(why).or_default() += 1;
        let slot = &mut self.slots[index];
        slot.stream = None;
        slot.stage = Stage::Waiting { until: now + wait };
    }
}

/// The load itself is at its end: no descriptors or no ports left.
fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    ) || error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error())
}

impl Slot {
    fn send(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        while !self.unsent.is_empty() {
            match stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends, reads and judges; changes nothing but the slot's bytes.
    fn step(&mut self, devices: &[Device]) -> Step {
        if self.send().is_err() {
            return Step::lost();
        }
        let Some(stream) = &mut self.stream else {
            return Step::Stay;
        };
        let mut buffer = [0; FRAME_BYTES_TO_DEVICE_MAX];
        let ended = match stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(length) => {
                self.received.extend_from_slice(&buffer[..length]);
                false
            }
            Err(error) if is_not_yet(&error) => return Step::Stay,
            Err(_) => true,
        };
        let step = match &self.stage {
            Stage::Login { nonce } => {
                let device = &devices[self.device];
                Step::of(
                    exchange::login_answer(device, *nonce, &self.received),
                    Step::Granted,
                )
            }
            Stage::Attach { granted } => Step::of(
                exchange::attach_answer(granted, &self.received),
                Step::Attached,
            ),
            Stage::Free | Stage::Waiting { .. } => Step::Stay,
        };
        match step {
            Step::Stay if ended => Step::lost(),
            step => step,
        }
    }
}

impl Step {
    fn of<T>(answer: Answer<T>, done: impl FnOnce(T) -> Self) -> Self {
        match answer {
            Answer::Incomplete => Self::Stay,
            Answer::Done(value) => done(value),
            Answer::Refused {
                why,
                retry_after_ms,
            } => Self::Refused {
                why,
                wait: RETRY.max(Duration::from_millis(retry_after_ms.into())),
            },
        }
    }

    fn lost() -> Self {
        Self::Refused {
            why: Refusal::Lost,
            wait: RETRY,
        }
    }
}
