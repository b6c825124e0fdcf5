//! What a run consists of: drawn from its seed, printed before it begins.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Every rate and every limit of one run. The same seed draws the same plan.
///
/// A regression (`tests/sim/regressions`) states the whole plan, so that it keeps its meaning when
/// later plans are drawn otherwise. Hence the rule for whoever adds a field: `#[serde(default)]`
/// with a default under which the world is as it was without the field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub seed: u64,
    pub devices: u32,
    /// Faults are on for this long; then they heal.
    pub faults_ms: u64,
    /// From the heal until everything must be quiet and right.
    pub heal_ms: u64,

    #[serde(default = "one")]
    pub balancers: u16,
    #[serde(default = "one")]
    pub conn_servers: u16,
    pub logic_servers: u16,
    pub shards: u16,
    /// Places of each logic server. Together they are never fewer than the accounts.
    pub places_max: u32,
    /// Connections that a logic server and the balancer keep that are not attached, or not answered.
    #[serde(default = "pending_ample")]
    pub pending_max: usize,
    /// Whether a ticket admits only from the address that logged in.
    #[serde(default = "yes")]
    pub source_exact: bool,
    pub heartbeat_s: u16,
    pub window: u16,
    pub grant_ttl_s: u16,
    pub report_interval_ms: u32,
    pub batch_rows_max: usize,
    /// Output of a session that may wait for the kernel.
    #[serde(default = "ample_bytes")]
    pub unsent_bytes_max: usize,

    /// What a kernel keeps of a stream's output.
    #[serde(default = "ample_bytes")]
    pub send_bytes: usize,
    /// What a kernel keeps of a stream until it is read.
    #[serde(default = "ample_bytes")]
    pub receive_bytes: usize,
    /// One-way delay of a piece of a TCP stream.
    pub network_ms: RangeInclusive<u64>,
    /// One-way delay of a link message.
    pub link_ms: RangeInclusive<u64>,
    /// From a write's beginning to its result.
    pub store_ms: RangeInclusive<u64>,

    #[serde(default)]
    pub limits: Limits,
    pub faults: Faults,
}

fn one() -> u16 {
    1
}

/// A class of what goes wrong: drawn, taken away and named as a whole.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A device's connection is reset.
    Reset,
    /// A device's connection falls silent for ever: the server is not told, the device perhaps.
    Silence,
    /// Connections are lost soon after their devices attached; the servers are not told.
    Flap,
    /// The same, in one direction.
    SilenceOneWay,
    /// Nothing of a device's connection arrives for a while; then all of it does.
    Stall,
    /// A link between two tiers breaks and is dialled again.
    Link,
    /// A logic server is killed and starts again, empty.
    KillLogic,
    /// A conn server is killed and starts again, empty.
    KillConn,
    /// A balancer is killed and starts again, empty.
    KillBalancer,
    /// Every process is killed at once, as by a power cut of the site, and starts again.
    Blackout,
    /// A process is told to end (SIGTERM), does, and starts again.
    Shutdown,
    /// A process is stopped for up to a minute and goes on.
    Pause,
    /// Nothing passes between two processes for up to a minute, both ways or one way.
    Partition,
    /// Nothing passes from one process to another for up to a second; then all of it does.
    LinkStall,
    /// The wall clock of a process is set forth or back by up to an hour.
    Clock,
    /// The accounts database does not answer, or fails, for all or one, for up to a minute.
    AccountsAway,
    /// Somebody switches an account off or on, gives it a new key, or removes it.
    AccountChange,
    /// The clock of a device is set anywhere, or forgets the time.
    DeviceClock,
    /// A recorded Login or a used Attach comes once more, from the same address.
    Replay,
    /// Writes fail, and nothing is stored.
    WriteFails,
    /// Writes commit, and are reported as failed.
    CommitUnknown,
    /// Writes take seconds.
    WriteStalls,
    /// The store refuses the row of a record, always the same ones.
    Poison,
    /// The database crashes: of each write under way nobody hears whether it was committed.
    DatabaseCrash,
    /// The database cannot be reached, or answers nothing, for seconds or for the rest of the run.
    DatabaseAway,
    /// The database is there and takes nothing: read-only, full, too many connections.
    DatabaseRefuses,
    /// The database takes many times as long.
    DatabaseSlow,
    /// Pieces of a stream come byte by byte.
    ByteByByte,
    /// Connections are refused although the server lives, and the cluster's name is not found.
    ConnectFails,
    /// A server is out of file descriptors for a while, and closes what it accepts.
    Descriptors,
    /// A device loses power, and its other side is told nothing.
    PowerCut,
    /// Devices that read late.
    SlowReader,
    /// Devices whose address changes between two connections.
    Roaming,
    /// Accounts that two to four devices use, all with the right key.
    Clone,
    /// Devices that do not keep the contract, beside the others.
    Hostile,
    /// No fault: an operator has devices do things, looks at nodes and sessions, and closes some.
    Commands,
}

/// How the rate of a class is counted, and from which it is drawn.
#[derive(Clone, Debug)]
pub enum Rate {
    /// One each so many ms, in the mean.
    EveryMs(RangeInclusive<u32>),
    /// So many of 1,000.
    Of1000(RangeInclusive<u32>),
}

impl Class {
    pub fn rate(self) -> Rate {
        match self {
            Self::Reset => Rate::EveryMs(300..=20_000),
            Self::Silence | Self::SilenceOneWay => Rate::EveryMs(1_000..=60_000),
            Self::Stall => Rate::EveryMs(300..=20_000),
            Self::Descriptors => Rate::EveryMs(10_000..=60_000),
            Self::Link => Rate::EveryMs(3_000..=60_000),
            Self::KillLogic | Self::KillConn | Self::KillBalancer => {
                Rate::EveryMs(20_000..=120_000)
            }
            Self::Blackout => Rate::EveryMs(60_000..=240_000),
            Self::Shutdown => Rate::EveryMs(15_000..=120_000),
            Self::Pause | Self::Partition => Rate::EveryMs(10_000..=90_000),
            Self::LinkStall => Rate::EveryMs(300..=10_000),
            Self::AccountsAway => Rate::EveryMs(20_000..=120_000),
            Self::AccountChange => Rate::EveryMs(500..=20_000),
            Self::Clock => Rate::EveryMs(5_000..=60_000),
            Self::DeviceClock => Rate::EveryMs(1_000..=30_000),
            Self::Replay => Rate::EveryMs(500..=10_000),
            Self::WriteFails | Self::CommitUnknown | Self::ByteByByte => Rate::Of1000(1..=300),
            Self::WriteStalls => Rate::Of1000(1..=50),
            Self::DatabaseCrash | Self::DatabaseAway => Rate::EveryMs(5_000..=120_000),
            Self::DatabaseRefuses | Self::DatabaseSlow => Rate::EveryMs(5_000..=60_000),
            Self::Poison => Rate::Of1000(1..=20),
            Self::ConnectFails | Self::Flap => Rate::Of1000(1..=200),
            Self::PowerCut => Rate::EveryMs(1_000..=60_000),
            Self::SlowReader | Self::Roaming => Rate::Of1000(10..=500),
            Self::Clone => Rate::Of1000(1..=100),
            Self::Commands => Rate::EveryMs(100..=10_000),
            Self::Hostile => Rate::Of1000(1..=300),
        }
    }
}

/// The classes of a run, each with its rate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Faults(BTreeMap<Class, u32>);

impl Faults {
    /// `classes`: these and no others, each with its drawn rate.
    fn draw(rng: &mut SmallRng, classes: Option<&[Class]>) -> Self {
        let mut drawn = BTreeMap::new();
        for class in Class::value_variants() {
            let (Rate::EveryMs(range) | Rate::Of1000(range)) = class.rate();
            let rate = rng.random_range(range);
            let is_drawn = rng.random_ratio(2, 3);
            if classes.map_or(is_drawn, |classes| classes.contains(class)) {
                drawn.insert(*class, rate);
            }
        }
        Self(drawn)
    }

    pub fn classes(&self) -> impl Iterator<Item = Class> {
        self.0.keys().copied()
    }

    pub fn has(&self, class: Class) -> bool {
        self.0.contains_key(&class)
    }

    /// Takes all other classes away.
    pub fn keep(&mut self, classes: &[Class]) {
        self.0.retain(|class, _| classes.contains(class));
    }

    /// The mean time between two, of a class that is counted so and is part of the run.
    pub fn every_ms(&self, class: Class) -> Option<u64> {
        match class.rate() {
            Rate::EveryMs(_) => self.0.get(&class).copied().map(u64::from),
            Rate::Of1000(_) => None,
        }
    }

    /// 0 of a class that is not part of the run.
    pub fn of_1000(&self, class: Class) -> u32 {
        match class.rate() {
            Rate::EveryMs(_) => 0,
            Rate::Of1000(_) => self.0.get(&class).copied().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("skipped", |value| value.get_name()))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no faults");
        }
        for (index, (class, rate)) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            match class.rate() {
                Rate::EveryMs(_) => write!(f, "{class} each {rate} ms")?,
                Rate::Of1000(_) => write!(f, "{class} {rate} of 1000")?,
            }
        }
        Ok(())
    }
}

/// What is not left to the seed. Everything else is drawn as it would have been, but for the places,
/// which follow from the devices.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub devices: Option<u32>,
    pub faults_ms: Option<u64>,
    pub classes: Option<Vec<Class>>,
}

impl Plan {
    pub fn draw(seed: u64, overrides: &Overrides) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let drawn_devices = rng.random_range(2..=60);
        let devices = overrides.devices.unwrap_or(drawn_devices);
        let logic_servers: u16 = rng.random_range(1..=3);
        let slow_links = rng.random_ratio(1, 4);
        let faults = Faults::draw(&mut rng, overrides.classes.as_deref());
        let drawn_faults_ms = rng.random_range(30_000..=240_000);
        let accounts = devices + hostiles(devices, &faults);
        let fair = accounts.div_ceil(logic_servers.into());
        Self {
            seed,
            devices,
            faults_ms: overrides.faults_ms.unwrap_or(drawn_faults_ms),
            heal_ms: 900_000,
            balancers: rng.random_range(1..=2),
            conn_servers: rng.random_range(1..=3),
            logic_servers,
            shards: rng.random_range(1..=3),
            places_max: rng.random_range(fair..=2 * fair.max(1)),
            pending_max: match rng.random_ratio(1, 3) {
                true => accounts as usize + rng.random_range(0..=16),
                false => PENDING_AMPLE,
            },
            source_exact: rng.random_ratio(3, 4),
            heartbeat_s: rng.random_range(5..=30),
            window: rng.random_range(1..=8),
            grant_ttl_s: rng.random_range(5..=30),
            report_interval_ms: rng.random_range(200..=10_000),
            batch_rows_max: rng.random_range(1..=5_000),
            unsent_bytes_max: 1 << rng.random_range(8..=16),
            send_bytes: 1 << rng.random_range(10..=16),
            receive_bytes: 1 << rng.random_range(10..=16),
            network_ms: 1..=rng.random_range(2..=800),
            link_ms: 0..=if slow_links {
                rng.random_range(1..=400)
            } else {
                5
            },
            store_ms: 1..=rng.random_range(2..=200),
            limits: Limits::default(),
            faults,
        }
        .narrowed(&mut SmallRng::seed_from_u64(!seed))
    }

    /// Some runs meet limits: those of the servers' settings, and of the connections that may wait; some
    /// have a quick network.
    fn narrowed(mut self, rng: &mut SmallRng) -> Self {
        self.limits = Limits::draw(rng, self.devices, self.hostiles());
        if self.limits != Limits::default() && rng.random_ratio(1, 3) {
            let accounts = (self.devices + self.hostiles()) as usize;
            self.pending_max = 2 + rng.random_range(0..=accounts / 4);
        }
        // Where devices are quicker than links, what is old may come after what is new.
        if rng.random_ratio(1, 4) {
            self.network_ms = 1..=rng.random_range(2..=20);
        }
        if rng.random_ratio(1, 8) {
            self.limits.gate_connections_max = 2 + rng.random_range(0..=self.devices as usize / 8);
        }
        self
    }
}

fn pending_ample() -> usize {
    PENDING_AMPLE
}

fn yes() -> bool {
    true
}

fn ample_bytes() -> usize {
    64 * 1_024
}

/// More connections than ever wait in a run.
const PENDING_AMPLE: usize = 10_000;

/// Devices that do not keep the contract, beside so many that do.
fn hostiles(devices: u32, faults: &Faults) -> u32 {
    match faults.of_1000(Class::Hostile) {
        0 => 0,
        of_1000 => (devices * of_1000).div_ceil(1_000),
    }
}

impl Plan {
    pub fn hostiles(&self) -> u32 {
        hostiles(self.devices, &self.faults)
    }

    /// Whether a connection that says nothing wrong may have to go because there are too many.
    pub fn sheds(&self) -> bool {
        let limits = Limits::default();
        self.gate_connections_max() < PENDING_AMPLE
            || self.limits.connections_per_source_max < limits.connections_per_source_max
    }

    /// Connections that a logic server keeps that are not attached.
    pub fn gate_connections_max(&self) -> usize {
        self.pending_max.min(self.limits.gate_connections_max)
    }
}

impl Plan {
    /// A fleet as it is on most days, by which the speed of the simulation is judged: nothing fails,
    /// every device reports each 30 s and is asked for a heartbeat each 60 s, on three logic servers.
    pub fn fleet(seed: u64, devices: u32, for_ms: u64) -> Self {
        let quiet = Overrides {
            devices: Some(devices),
            faults_ms: Some(for_ms),
            classes: Some(vec![]),
        };
        Self {
            balancers: 2,
            conn_servers: 2,
            logic_servers: 3,
            shards: 2,
            places_max: devices,
            heartbeat_s: 60,
            window: 8,
            grant_ttl_s: 30,
            report_interval_ms: 30_000,
            batch_rows_max: 5_000,
            network_ms: 1..=80,
            link_ms: 0..=5,
            store_ms: 1..=20,
            limits: Limits::default(),
            ..Self::draw(seed, &quiet)
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {} | {} devices | {} balancers, {} conn servers, {} logic servers of {} shards and {} places | faults {} s, then heal",
            self.seed,
            self.devices,
            self.balancers,
            self.conn_servers,
            self.logic_servers,
            self.shards,
            self.places_max,
            self.faults_ms / 1_000
        )?;
        writeln!(
            f,
            "  heartbeat {} s, window {}, grants {} s, a report each {} ms, batches of {}",
            self.heartbeat_s,
            self.window,
            self.grant_ttl_s,
            self.report_interval_ms,
            self.batch_rows_max
        )?;
        writeln!(
            f,
            "  {} hostile devices, {} connections may wait, tickets admit from {}",
            self.hostiles(),
            self.pending_max,
            if self.source_exact {
                "one address"
            } else {
                "anywhere"
            }
        )?;
        writeln!(
            f,
            "  kernels keep {} bytes to send and {} to read, sessions {} unsent",
            self.send_bytes, self.receive_bytes, self.unsent_bytes_max
        )?;
        writeln!(
            f,
            "  network {:?} ms, links {:?} ms, store {:?} ms",
            self.network_ms, self.link_ms, self.store_ms
        )?;
        writeln!(f, "  {}", self.limits)?;
        write!(f, "  {}", self.faults)
    }
}
