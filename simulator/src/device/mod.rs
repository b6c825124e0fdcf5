//! Pure. A device of the contract (docs/protocol.md), every action of it.
//!
//! ```text
//!          ┌──────────── wait ◀──── no right reply · refused · lost · closed ─────────┐
//!          ▼                                                                          │
//!  Off ─▶ Waiting ─▶ Resolving ─▶ LoggingIn ──ok──▶ Attaching ──ok──▶ Attached ───────┤
//!          │ ▲            ▲            │                ▲ ▲               │           │
//!          │ └ named wait ┼────────────┘                │ └── Redirect ───┘           │
//!          │              └─ no address left            │                             │
//!          └───────── wait is over, a resumption is held ◀───────────────────────────┘
//! ```
//!
//! One connection at a time. What an input concerns is decided here; the actions stand with
//! their noun:
//! `login`: the short connection · `attach`: the long one's beginning, by ticket or by
//! resumption · `session`: heartbeats, silence, Redirect, the end · `telemetry`: records
//! until they are acknowledged · `commands` and `execute`: deciding and doing what is
//! ordered · `inbound`: from bytes to messages · `wait` and `backoff`: how long, and for
//! what · `clock`, `balancers`, `memory`, `reporter`.

mod attach;
mod backoff;
mod balancers;
mod clock;
mod commands;
mod effect;
mod execute;
mod inbound;
mod login;
mod memory;
mod reporter;
mod session;
mod settings;
mod telemetry;
mod wait;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use common::secret::DeviceKey;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use attach::Attaching;
use backoff::Backoff;
use balancers::Balancers;
use clock::Clock;
use commands::Commands;
pub use commands::WORK;
pub use effect::{ConnId, Effect, Effects, Event, Fault, SentRecord, Wait};
use login::LoggingIn;
use memory::NonVolatile;
use reporter::Reporter;
use session::{Resumption, Session};
pub use settings::{Identity, Settings};
use telemetry::Outbox;
use wait::Next;

/// A connection that is not made by then is given up.
const CONNECT_MS: u64 = 10_000;
/// The contract has no limit for DNS; without one a lost answer would end the device's life.
const RESOLVE_MS: u64 = 10_000;

/// Everything that can happen to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// It starts, or starts again after [`Input::PowerCut`].
    PowerOn,
    /// Its connection is gone without a word, and what is not in non-volatile memory with it.
    PowerCut,
    /// Its clock is set by other hands, or (`None`) forgets the time.
    ClockSet {
        unix_ms: Option<u64>,
    },
    /// It is given another key by hand, as after `rcu device rotate-key`. A session goes on until the
    /// cluster ends it.
    KeySet {
        key: DeviceKey,
    },
    /// The answer to [`Effect::Resolve`]; empty: DNS failed.
    Resolved {
        addresses: &'a [SocketAddr],
    },
    Connected {
        conn: ConnId,
    },
    /// Any piece of the stream.
    Received {
        conn: ConnId,
        bytes: &'a [u8],
    },
    /// The connection could not be made, or the other side ended it.
    Disconnected {
        conn: ConnId,
    },
    /// What it measures now: one record each.
    Report {
        measurements: &'a [Measurement<'a>],
    },
    /// From now on it measures nothing of itself.
    StopReporting,
    /// A deadline has passed.
    Tick,
}

/// A record to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement<'a> {
    pub kind: u8,
    /// At most 255 bytes.
    pub payload: &'a [u8],
}

/// A device that keeps the contract.
///
/// How it is called: [`Device::apply`] with each thing that happens, then its effects are carried out, in order;
/// [`Input::Tick`] once [`Device::next_deadline`] has passed, which every input may have moved. A connection that it
/// has left may still be heard of: that changes nothing.
#[derive(Debug)]
pub struct Device {
    identity: Identity,
    settings: Arc<Settings>,
    rng: SmallRng,
    memory: NonVolatile,
    clock: Clock,
    backoff: Backoff,
    balancers: Balancers,
    /// Logins since the start; with the boot counter it makes a nonce.
    logins: u32,
    /// The last LoginReply was `clock_skew`.
    skewed: bool,
    resumption: Option<Resumption>,
    outbox: Outbox,
    commands: Commands,
    reporter: Reporter,
    conns: u32,
    phase: Phase,
    /// An incomplete frame of the present connection.
    partial: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    Off,
    Waiting { until_ms: u64, then: Next },
    Resolving { deadline_ms: u64 },
    LoggingIn(LoggingIn),
    Attaching(Box<Attaching>),
    Attached(Box<Session>),
}

/// Where a device is in its life: the states of the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    Off,
    Waiting,
    Resolving,
    LoggingIn,
    Attaching,
    Attached,
}

impl Device {
    /// A device that is off and does not know the time. `boot_counter` is below 2^31 and above
    /// every one that the account's devices ever used; `seed` decides everything random.
    pub fn new(identity: Identity, settings: Arc<Settings>, boot_counter: u32, seed: u64) -> Self {
        Self {
            identity,
            settings,
            rng: SmallRng::seed_from_u64(seed),
            memory: NonVolatile::new(boot_counter),
            clock: Clock::default(),
            backoff: Backoff::default(),
            balancers: Balancers::default(),
            logins: 0,
            skewed: false,
            resumption: None,
            outbox: Outbox::new(),
            commands: Commands::default(),
            reporter: Reporter::default(),
            conns: 0,
            phase: Phase::Off,
            partial: Vec::new(),
        }
    }

    /// Takes what happened at `now_ms` (of a monotonic clock, below 2^62) and appends what is to
    /// be done to `effects`. Inputs of a connection that the device has left change nothing.
    pub fn apply(&mut self, input: Input<'_>, now_ms: u64, effects: &mut Effects) {
        match input {
            Input::PowerOn => self.power_on(now_ms),
            Input::PowerCut => self.power_cut(effects),
            Input::ClockSet { unix_ms: None } => self.clock.forget(),
            Input::ClockSet {
                unix_ms: Some(unix_ms),
            } => {
                self.clock.set(unix_ms, now_ms);
            }
            Input::KeySet { key } => self.identity.key = key,
            Input::Resolved { addresses } => self.resolved(addresses, now_ms, effects),
            Input::Connected { conn } if self.conn() == Some(conn) => {
                self.connected(now_ms, effects);
            }
            Input::Received { conn, bytes } => self.receive(conn, bytes, now_ms, effects),
            Input::Disconnected { conn } if self.conn() == Some(conn) => {
                let why = if self.is_connecting() {
                    Fault::Unreachable
                } else {
                    Fault::Lost
                };
                self.fail(why, 0, now_ms, effects);
            }
            Input::Connected { .. } | Input::Disconnected { .. } => {}
            Input::Report { measurements } => self.record(measurements, now_ms, effects),
            Input::StopReporting => self.reporter.stop(),
            Input::Tick => self.tick(now_ms, effects),
        }
        self.send_telemetry(now_ms, effects);
    }

    /// When to apply [`Input::Tick`] next.
    pub fn next_deadline(&self, now_ms: u64) -> Option<u64> {
        let phase = match &self.phase {
            Phase::Off => return None,
            Phase::Waiting { until_ms, .. } => Some(*until_ms),
            Phase::Resolving { deadline_ms } => Some(*deadline_ms),
            Phase::LoggingIn(login) => Some(login.deadline_ms()),
            Phase::Attaching(attaching) => Some(attaching.deadline_ms()),
            Phase::Attached(session) => [
                Some(session.deadline_ms()),
                self.outbox.unanswered_ms(),
                self.outbox.held_until_ms(now_ms),
            ]
            .into_iter()
            .flatten()
            .min(),
        };
        [
            phase,
            self.commands.deadline_ms(),
            self.reporter.deadline_ms(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn stage(&self) -> Stage {
        match self.phase {
            Phase::Off => Stage::Off,
            Phase::Waiting { .. } => Stage::Waiting,
            Phase::Resolving { .. } => Stage::Resolving,
            Phase::LoggingIn(_) => Stage::LoggingIn,
            Phase::Attaching(_) => Stage::Attaching,
            Phase::Attached(_) => Stage::Attached,
        }
    }

    pub fn is_attached(&self) -> bool {
        matches!(self.phase, Phase::Attached(_))
    }

    /// Whether it is on its way to a session: a connection that is not attached, or a look-up.
    pub fn is_connecting_or_asking(&self) -> bool {
        matches!(
            self.phase,
            Phase::Resolving { .. } | Phase::LoggingIn(_) | Phase::Attaching(_)
        )
    }

    /// Records that no acknowledgement has released yet.
    pub fn unacknowledged(&self) -> usize {
        self.outbox.unacknowledged()
    }

    /// What it keeps, by name: for metrics, and for whoever checks that all of it is bounded.
    pub fn held(&self) -> [(&'static str, usize); 3] {
        [
            ("records", self.outbox.unacknowledged()),
            ("frames_open", self.outbox.open_frames()),
            ("partial_bytes", self.partial.len()),
        ]
    }

    pub fn boot_counter(&self) -> u32 {
        self.memory.sequence.boot_counter()
    }

    /// The time by the device's own clock.
    pub fn unix_ms(&self, now_ms: u64) -> Option<u64> {
        self.clock.unix_ms(now_ms)
    }

    fn power_on(&mut self, now_ms: u64) {
        if let Phase::Off = self.phase {
            self.boot(now_ms);
        }
    }

    fn power_cut(&mut self, effects: &mut Effects) {
        if let Phase::Off = self.phase {
            return;
        }
        self.phase = Phase::Off;
        self.forget(effects);
    }

    fn boot(&mut self, now_ms: u64) {
        self.phase = Phase::Waiting {
            until_ms: now_ms + u64::from(self.settings.boot_ms),
            then: Next::Resolve,
        };
        self.reporter
            .start(self.report_interval_ms(), now_ms, &mut self.rng);
    }

    /// Everything that is not in non-volatile memory goes.
    fn forget(&mut self, effects: &mut Effects) {
        if !self.settings.battery_clock {
            self.clock.forget();
        }
        self.backoff.reset();
        self.balancers = Balancers::default();
        self.logins = 0;
        self.skewed = false;
        self.resumption = None;
        self.commands = Commands::default();
        self.reporter.pause();
        self.partial = Vec::new();
        self.outbox.restart();
        self.memory.sequence.raise();
        effects.tell(Event::Restarted {
            boot_counter: self.boot_counter(),
        });
    }

    fn report_interval_ms(&self) -> u32 {
        match self.memory.report_interval_ms {
            Some(interval_ms) => interval_ms.get(),
            None => self.settings.report_interval_ms,
        }
    }

    fn record(&mut self, measurements: &[Measurement<'_>], now_ms: u64, effects: &mut Effects) {
        let mut count = 0;
        for measurement in measurements {
            let full = self.outbox.unacknowledged() >= self.settings.records_max;
            let seq = if full {
                None
            } else {
                self.memory.sequence.next()
            };
            match seq {
                Some(seq) => self.outbox.record(seq, measurement, &self.clock, now_ms),
                None => count += 1,
            }
        }
        if count > 0 {
            effects.tell(Event::NotRecorded { count });
        }
    }

    // ---- the present connection ---------------------------------------------------------------

    fn conn(&self) -> Option<ConnId> {
        match &self.phase {
            Phase::Off | Phase::Waiting { .. } | Phase::Resolving { .. } => None,
            Phase::LoggingIn(login) => Some(login.conn),
            Phase::Attaching(attaching) => Some(attaching.conn),
            Phase::Attached(session) => Some(session.conn),
        }
    }

    fn is_connecting(&self) -> bool {
        match &self.phase {
            Phase::LoggingIn(login) => login.is_connecting(),
            Phase::Attaching(attaching) => attaching.is_connecting(),
            _ => false,
        }
    }

    fn connect(&mut self, address: SocketAddr, effects: &mut Effects) -> ConnId {
        self.conns = self.conns.wrapping_add(1);
        self.partial = Vec::new();
        let conn = ConnId(self.conns);
        effects.push(Effect::Connect { conn, address });
        conn
    }

    fn connected(&mut self, now_ms: u64, effects: &mut Effects) {
        match &self.phase {
            Phase::LoggingIn(_) => self.send_login(now_ms, effects),
            Phase::Attaching(_) => self.send_attach(now_ms, effects),
            _ => {}
        }
    }

    /// The present connection came to nothing, or to its end. `retry_after_ms` is a Close's.
    fn fail(&mut self, why: Fault, retry_after_ms: u32, now_ms: u64, effects: &mut Effects) {
        match std::mem::replace(&mut self.phase, Phase::Off) {
            Phase::LoggingIn(login) => self.login_failed(&login, why, now_ms, effects),
            Phase::Attaching(attaching) => {
                self.attach_failed(&attaching, why, retry_after_ms, now_ms, effects);
            }
            Phase::Attached(session) => {
                self.session_ended(*session, why, retry_after_ms, now_ms, effects);
            }
            phase => self.phase = phase,
        }
    }

    // ---- time ---------------------------------------------------------------------------------

    fn tick(&mut self, now_ms: u64, effects: &mut Effects) {
        if self.reporter.is_due(now_ms, &mut self.rng) {
            effects.push(Effect::Measure);
        }
        self.progress_command(now_ms, effects);
        match &self.phase {
            Phase::Off => {}
            Phase::Waiting { until_ms, then } if *until_ms <= now_ms => {
                let then = *then;
                self.wait_is_over(then, now_ms, effects);
            }
            Phase::Resolving { deadline_ms } if *deadline_ms <= now_ms => {
                self.resolved(&[], now_ms, effects);
            }
            Phase::LoggingIn(login) if login.deadline_ms() <= now_ms => {
                self.time_out(now_ms, effects);
            }
            Phase::Attaching(attaching) if attaching.deadline_ms() <= now_ms => {
                self.time_out(now_ms, effects);
            }
            Phase::Attached(_) => self.session_due(now_ms, effects),
            _ => {}
        }
    }

    fn time_out(&mut self, now_ms: u64, effects: &mut Effects) {
        let why = if self.is_connecting() {
            Fault::Unreachable
        } else {
            Fault::Unanswered
        };
        self.fail(why, 0, now_ms, effects);
    }

    /// The cluster's time, as it came with a proof or on a proven connection.
    fn follow_clock(&mut self, server_time_ms: u64, now_ms: u64, effects: &mut Effects) {
        if let Some(by_ms) = self.clock.follow(server_time_ms, now_ms) {
            effects.tell(Event::ClockSet { by_ms });
        }
    }
}

/// For statistics.
fn elapsed_ms(from_ms: u64, to_ms: u64) -> u32 {
    to_ms.saturating_sub(from_ms).try_into().unwrap_or(u32::MAX)
}
