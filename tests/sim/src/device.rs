//! The simulated devices of the simulated world.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use common::ids::{AccountId, AccountName};
use common::secret::DeviceKey;
use rand::RngExt;
use rand::rngs::SmallRng;
use simulator::device::{
    ConnId, Device, Effect, Effects, Event as Told, Identity, Input, Measurement, Stage,
};

use crate::clock::{Clock, true_unix_ms};
use crate::fault::CLOCK_STEP_MS;
use crate::firmware::Firmware;
use crate::marks::Mark;
use crate::model::{Broken, Keeper, OLDER_SESSION_AFTER_HEAL_MS, Situation, Standing};
use crate::network::{Client, Connection, Delivery, Read, Side, Stream};
use crate::plan::{Class, Plan};
use crate::process::Process;
use crate::timer::Timer;
use crate::world::{Event, World, account_of, balancer_address, logic_address};

#[derive(Debug)]
pub struct DeviceNode {
    core: Device,
    /// The number of its account.
    account: usize,
    firmware: Firmware,
    timer: Timer,
    /// Its monotonic clock; what time it believes to be is its core's.
    clock: Clock,
    streams: BTreeMap<ConnId, DeviceSocket>,
    rng: SmallRng,
    power: Power,
    /// How often its address changed.
    moves: u8,
    /// The second device of its account: switched off when faults end.
    is_clone: bool,
    /// Its account was removed, and it will never come in again.
    pub is_removed: bool,
    /// When anything was heard on the present connection.
    heard_at_ms: u64,
    /// Counted among the restless.
    is_restless: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    Off { until_ms: u64 },
    OffForGood,
}

/// A device's end of a stream.
#[derive(Debug)]
struct DeviceSocket {
    stream: Stream,
    /// What its kernel has not taken.
    unsent: Vec<u8>,
    /// There is something to read, and it will be read then.
    reads_at_ms: Option<u64>,
}

/// Of the first clone of an account, and between two: far above every one that a device comes to.
const CLONE_BOOT_COUNTER: u32 = 1 << 20;

/// How long a device is without power.
const OFF_MS: RangeInclusive<u64> = 100..=30_000;

/// From a server to a device, when no fault is in the way.
const ON_ITS_WAY_MS: u64 = 100;

/// What a device reads at a time.
const READ_BYTES: usize = 1_024;

impl DeviceNode {
    pub fn new(plan: &Plan, account: usize, rng: SmallRng) -> Self {
        Self::make(plan, account, 1, rng)
    }

    /// One more device with the account of the one with this number, and its key; `nth` from 1 on.
    pub fn clone_of(plan: &Plan, account: usize, nth: u32, rng: SmallRng) -> Self {
        Self {
            is_clone: true,
            ..Self::make(plan, account, nth * CLONE_BOOT_COUNTER, rng)
        }
    }

    fn make(plan: &Plan, account: usize, boot_counter: u32, mut rng: SmallRng) -> Self {
        let firmware = Firmware::draw(plan, &mut rng);
        let identity = Identity {
            account: account_name(account),
            key: device_key(account, 1),
        };
        let settings = Arc::new(firmware.settings.clone());
        let seed = rng.random();
        Self {
            core: Device::new(identity, settings, boot_counter, seed),
            account,
            firmware,
            timer: Timer::default(),
            clock: Clock {
                origin_ms: rng.random_range(0..1 << 40),
                ..Clock::default()
            },
            streams: BTreeMap::new(),
            rng,
            power: Power::Off { until_ms: 0 },
            moves: 0,
            is_clone: false,
            is_removed: false,
            heard_at_ms: 0,
            is_restless: true,
        }
    }

    /// The number of its account.
    pub fn account(&self) -> usize {
        self.account
    }

    /// Of a clone: the device that its account was made for.
    pub fn twin(&self) -> Option<usize> {
        self.is_clone.then_some(self.account)
    }

    /// The time by its own clock.
    pub fn unix_ms(&self, now_ms: u64) -> Option<u64> {
        self.core.unix_ms(self.clock.ms(now_ms))
    }

    pub fn account_id(&self) -> AccountId {
        account_of(self.account)
    }

    /// Attached, and nothing waits for an acknowledgement; or out of the game.
    pub fn is_at_rest(&self) -> bool {
        self.is_removed
            || self.power == Power::OffForGood
            || self.core.is_attached() && self.core.unacknowledged() == 0
    }

    /// For whoever has to find out why it is not at rest.
    pub fn state(&self) -> String {
        format!(
            "{} {}, {} unacknowledged",
            self.core.identity().account,
            if self.core.is_attached() {
                "attached"
            } else {
                "not attached"
            },
            self.core.unacknowledged()
        )
    }

    /// A gps record whose numbers nobody else sends.
    fn payload(&mut self) -> (u8, Vec<u8>) {
        let mut payload: Vec<u8> = vec![];
        match self.rng.random_range(0..10) {
            // Known kinds, in range; a custom one; an unknown one; one that has a flaw.
            0..6 => {
                payload.extend(
                    self.rng
                        .random_range(-900_000_000..=900_000_000_i32)
                        .to_le_bytes(),
                );
                payload.extend(
                    self.rng
                        .random_range(-1_800_000_000..=1_800_000_000_i32)
                        .to_le_bytes(),
                );
                payload.extend([0; 10]);
                (1, payload)
            }
            6 | 7 => {
                payload.extend([1, 2]);
                payload.extend(self.rng.random::<[u8; 16]>());
                (5, payload)
            }
            8 => (200, self.rng.random::<[u8; 8]>().to_vec()),
            _ => (2, self.rng.random::<[u8; 5]>().to_vec()),
        }
    }
}

/// Of the account of the device with this number.
pub fn account_name(index: usize) -> AccountName {
    format!("sim-{index:06}").parse().expect("a valid name")
}

/// Its account's key, as it was given in this version.
pub fn device_key(index: usize, version: u32) -> DeviceKey {
    let mut key = [0x5A; 32];
    key[8..12].copy_from_slice(&version.to_le_bytes());
    key[..8].copy_from_slice(&(index as u64).to_le_bytes());
    DeviceKey::new(key)
}

/// Each device has addresses of its own.
fn address(index: usize, moves: u8) -> IpAddr {
    IpAddr::from([11, (index >> 8) as u8, index as u8, moves])
}

impl World {
    pub fn wake_device(&mut self, index: usize) -> Result<(), Broken> {
        let device = &mut self.devices[index];
        match device.power {
            Power::On if device.timer.fires(self.now_ms) => self.device(index, Input::Tick),
            Power::Off { until_ms } if until_ms <= self.now_ms => {
                device.power = Power::On;
                device.timer = Timer::default();
                if until_ms == 0 {
                    self.set_device_clock(index)?;
                }
                self.device(index, Input::PowerOn)
            }
            Power::On | Power::Off { .. } | Power::OffForGood => Ok(()),
        }
    }

    /// By whoever puts it to use.
    fn set_device_clock(&mut self, index: usize) -> Result<(), Broken> {
        if self.plan.faults.has(Class::DeviceClock) {
            return self.break_device_clock(index);
        }
        let unix_ms = Some(true_unix_ms(self.now_ms));
        self.device(index, Input::ClockSet { unix_ms })
    }

    /// A device loses power: its streams are not ended, they just lead nowhere.
    pub fn cut_power(&mut self) -> Result<(), Broken> {
        let index = self.rng.random_range(0..self.devices.len());
        if self.devices[index].power != Power::On {
            return Ok(());
        }
        let until_ms = self.now_ms + self.rng.random_range(OFF_MS);
        self.device_goes_off(index, Power::Off { until_ms })?;
        self.schedule(until_ms, Event::WakeDevice(index));
        Ok(())
    }

    fn device_goes_off(&mut self, index: usize, power: Power) -> Result<(), Broken> {
        self.device(index, Input::PowerCut)?;
        let device = &mut self.devices[index];
        device.power = power;
        self.note_rest(index);
        let device = &mut self.devices[index];
        let answers_at_ms = match power {
            Power::Off { until_ms } => until_ms,
            Power::On | Power::OffForGood => self.now_ms,
        };
        for socket in std::mem::take(&mut device.streams).into_values() {
            self.network
                .vanish(socket.stream, Side::Client, answers_at_ms);
        }
        Ok(())
    }

    /// It forgets the time, or is some days, an hour or minutes off.
    pub fn break_device_clock(&mut self, index: usize) -> Result<(), Broken> {
        let most_ms = [400_000, CLOCK_STEP_MS, 100 * CLOCK_STEP_MS][self.rng.random_range(0..3)];
        let off_ms = self.rng.random_range(-most_ms..=most_ms);
        let unix_ms = true_unix_ms(self.now_ms).saturating_add_signed(off_ms);
        let unix_ms = self.rng.random_ratio(3, 4).then_some(unix_ms);
        self.device(index, Input::ClockSet { unix_ms })
    }

    pub fn resolved(&mut self, index: usize) -> Result<(), Broken> {
        let addresses: Vec<_> = (0..self.balancers.len()).map(balancer_address).collect();
        let fails_of_1000 = self.plan.faults.of_1000(Class::ConnectFails);
        let fails = self.devices[index].rng.random_range(0..1_000) < fails_of_1000;
        let addresses = match fails && !self.is_healed {
            true => &[],
            false => &addresses[..],
        };
        self.device(index, Input::Resolved { addresses })
    }

    pub fn device_connected(&mut self, index: usize, conn: ConnId) -> Result<(), Broken> {
        self.device(index, Input::Connected { conn })
    }

    /// A device's end of a stream is worth a look.
    pub fn device_ready(
        &mut self,
        index: usize,
        conn: ConnId,
        stream: Stream,
    ) -> Result<(), Broken> {
        self.device_flushes(index, conn);
        if self.reads_later(index, conn) {
            return Ok(());
        }
        while self.devices[index].streams.contains_key(&conn) {
            let (now_ms, deliveries) = (self.now_ms, &mut self.deliveries);
            let read = self
                .network
                .read(stream, Side::Client, READ_BYTES, now_ms, deliveries);
            match read {
                Read::Bytes(bytes) => {
                    let bytes = &bytes;
                    self.devices[index].heard_at_ms = self.now_ms;
                    self.device(index, Input::Received { conn, bytes })?;
                }
                Read::Nothing => break,
                Read::End | Read::Reset => return self.device_lost(index, conn),
            }
        }
        Ok(())
    }

    /// A device's connection is gone, and it knows.
    pub fn device_lost(&mut self, index: usize, conn: ConnId) -> Result<(), Broken> {
        self.device_leaves(index, conn);
        self.device(index, Input::Disconnected { conn })
    }

    /// It reads what it left for later.
    fn device_catches_up(&mut self, index: usize) -> Result<(), Broken> {
        let sockets = self.devices[index].streams.iter_mut();
        let late: Vec<_> = sockets
            .filter_map(|(conn, socket)| socket.reads_at_ms.take().map(|_| (*conn, socket.stream)))
            .collect();
        for (conn, stream) in late {
            self.device_ready(index, conn, stream)?;
        }
        Ok(())
    }

    /// Of a device that reads late: not now.
    fn reads_later(&mut self, index: usize, conn: ConnId) -> bool {
        let device = &mut self.devices[index];
        let late_ms = device.firmware.reads_late_ms;
        let Some(socket) = device.streams.get_mut(&conn) else {
            return false;
        };
        match socket.reads_at_ms {
            Some(at_ms) if at_ms > self.now_ms => true,
            None if late_ms > 0 => {
                let at_ms = self.now_ms + device.rng.random_range(1..=late_ms);
                socket.reads_at_ms = Some(at_ms);
                self.marks.hit(Mark::Fault(Class::SlowReader));
                self.deliveries.push(Delivery {
                    at_ms,
                    stream: socket.stream,
                    to: Side::Client,
                });
                true
            }
            Some(_) | None => {
                socket.reads_at_ms = None;
                false
            }
        }
    }

    /// Sends what the kernel did not take before.
    fn device_flushes(&mut self, index: usize, conn: ConnId) {
        if let Some(socket) = self.devices[index].streams.get_mut(&conn) {
            let (now_ms, deliveries) = (self.now_ms, &mut self.deliveries);
            let taken = self.network.write(
                socket.stream,
                Side::Client,
                &socket.unsent,
                now_ms,
                deliveries,
            );
            socket.unsent.drain(..taken.unwrap_or_default());
        }
    }

    /// Keeps count of the devices that are not at rest: called whenever one may have changed.
    pub fn note_rest(&mut self, index: usize) {
        let device = &mut self.devices[index];
        let is_restless = !device.is_at_rest();
        if std::mem::replace(&mut device.is_restless, is_restless) != is_restless {
            match is_restless {
                true => self.restless += 1,
                false => self.restless -= 1,
            }
            self.model.device_rests(index, !is_restless);
        }
    }

    /// How things stand with it at the heal.
    pub fn situation(&self, index: usize) -> Situation {
        let now_ms = self.now_ms;
        let device = &self.devices[index];
        let connections = || {
            let sockets = device.streams.values();
            sockets.filter_map(|socket| self.network.connection(socket.stream))
        };
        let stalled_until_ms = connections().map(Connection::arrives_by_ms).max();
        let account_id = device.account_id();
        let in_doubt_until_ms = self.model.in_doubt_until_ms(account_id, now_ms);
        let has_clone = self
            .devices
            .iter()
            .any(|it| it.is_clone && it.account == device.account);
        let is_kicked = self.operator.may_kick(device.account());
        let hurt_until_ms = [
            stalled_until_ms,
            in_doubt_until_ms.map(|ms| ms + ON_ITS_WAY_MS),
            (has_clone || is_kicked)
                .then_some(now_ms + OLDER_SESSION_AFTER_HEAL_MS + ON_ITS_WAY_MS),
        ];
        let hurt_until_ms = hurt_until_ms.into_iter().flatten().max().unwrap_or(now_ms);
        Situation {
            standing: self.standing(index, hurt_until_ms),
            hurt_until_ms,
            backlog_ms: self.backlog_ms(index),
        }
    }

    /// What a device has still to send, if each frame carries one record and waits for the write
    /// that is under way and for its own.
    fn backlog_ms(&self, index: usize) -> u64 {
        let core = &self.devices[index].core;
        let window = self
            .plan
            .window
            .min(self.devices[index].firmware.settings.frames_open_max);
        let rounds = core.unacknowledged().div_ceil(window.max(1).into()) as u64;
        rounds * (2 * self.plan.store_ms.end() + ON_ITS_WAY_MS)
    }

    fn standing(&self, index: usize, hurt_until_ms: u64) -> Standing {
        let device = &self.devices[index];
        if device.is_removed || device.power == Power::OffForGood {
            return Standing::Gone;
        }
        if !device.core.is_attached() {
            return Standing::Away;
        }
        let mut sockets = device.streams.values();
        let is_whole = sockets.any(|socket| {
            let connection = self.network.connection(socket.stream);
            connection.is_some_and(Connection::is_whole) && self.model.has_session(socket.stream)
        });
        if is_whole {
            return Standing::Whole;
        }
        // What is on its way to it may be the last that it hears.
        let heard_ms = device.heard_at_ms.max(hurt_until_ms);
        Standing::Deaf {
            notices_at_ms: heard_ms + 3_000 * u64::from(self.plan.heartbeat_s),
        }
    }

    fn device_leaves(&mut self, index: usize, conn: ConnId) {
        if let Some(socket) = self.devices[index].streams.remove(&conn) {
            self.network.close(
                socket.stream,
                Side::Client,
                self.now_ms,
                &mut self.deliveries,
            );
        }
    }

    /// From now on they make no records; what they have they still send. They read at once and
    /// stay where they are, and of two with one account the second goes.
    pub fn devices_settle(&mut self) -> Result<(), Broken> {
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            device.firmware.reads_late_ms = 0;
            device.firmware.roams = 0;
            if device.is_clone {
                self.device_goes_off(index, Power::OffForGood)?;
            } else {
                self.device(index, Input::StopReporting)?;
                self.device_catches_up(index)?;
            }
        }
        Ok(())
    }

    pub fn device(&mut self, index: usize, input: Input<'_>) -> Result<(), Broken> {
        let mut effects = Effects::default();
        let device = &mut self.devices[index];
        let device_ms = device.clock.ms(self.now_ms);
        let mut unix_ms = device.core.unix_ms(device_ms);
        let before = device.core.stage();
        device.core.apply(input, device_ms, &mut effects);
        let after = device.core.stage();
        self.marks.step(before, after);
        if device.is_clone && after == Stage::Attached {
            self.marks.hit(Mark::Fault(Class::Clone));
        }
        let mut measure = false;
        for effect in std::mem::take(&mut effects.list) {
            match effect {
                Effect::Resolve => {
                    let at_ms = self.now_ms + self.network.delay_ms();
                    self.schedule(at_ms, Event::Resolved { device: index });
                }
                Effect::Connect { conn, address } => self.connect(index, conn, address),
                Effect::Send { conn, bytes } => {
                    if let Some(socket) = self.devices[index].streams.get_mut(&conn) {
                        socket.unsent.extend_from_slice(&effects.bytes[bytes]);
                        self.device_flushes(index, conn);
                    }
                }
                Effect::Disconnect { conn } => self.device_leaves(index, conn),
                Effect::Measure => measure = true,
                Effect::Tell(Told::FirstSent(record)) => {
                    let device = &self.devices[index];
                    match device.is_clone {
                        false => self.model.record_sent(device.account_id(), record),
                        true => self.model.record_sent_in_vain(device.account_id(), record),
                    }
                }
                Effect::Tell(Told::ClockSet { by_ms }) => {
                    self.trace_device(index, || format!("clock set by {by_ms} ms"));
                    // Before it knew the time its clock was taken to be its uptime.
                    let before_ms = unix_ms.unwrap_or(device_ms);
                    unix_ms = Some(before_ms.saturating_add_signed(by_ms));
                }
                Effect::Tell(told) => {
                    self.trace_device(index, || format!("{told:?}"));
                    self.model.device_told(index, &told, self.now_ms)?;
                    self.device_obeys(index, &told, unix_ms)?;
                }
            }
        }
        if measure {
            let device = &mut self.devices[index];
            let count = device.rng.random_range(1..=device.firmware.burst_max);
            let records: Vec<_> = (0..count).map(|_| device.payload()).collect();
            let measurements: Vec<_> = records
                .iter()
                .map(|(kind, payload)| Measurement {
                    kind: *kind,
                    payload,
                })
                .collect();
            self.device(
                index,
                Input::Report {
                    measurements: &measurements,
                },
            )?;
        }
        self.model
            .note_held(Keeper::Device, &self.devices[index].core.held());
        self.note_rest(index);
        let device = &mut self.devices[index];
        let deadline_ms = device.core.next_deadline(device.clock.ms(self.now_ms));
        let deadline_ms = deadline_ms.map(|ms| device.clock.world_ms(ms));
        if let Some(at_ms) = device.timer.arm(deadline_ms, self.now_ms) {
            self.schedule(at_ms, Event::WakeDevice(index));
        }
        Ok(())
    }

    /// Which process devices reach at this address.
    fn listens(&self, address: SocketAddr) -> Option<Process> {
        let balancers =
            (0..self.balancers.len()).map(|it| (balancer_address(it), Process::balancer(it)));
        let logic = (0..self.logic.len()).map(|it| (logic_address(it), Process::logic(it)));
        let mut all = balancers.chain(logic);
        all.find_map(|(at, process)| (at == address).then_some(process))
    }

    fn connect(&mut self, index: usize, conn: ConnId, to: SocketAddr) {
        let Some(server) = self.listens(to) else {
            return;
        };
        let client = Client::Device { index, conn };
        let device = &mut self.devices[index];
        if device.rng.random_range(0..1_000) < device.firmware.roams {
            device.moves = device.moves.wrapping_add(1);
            self.marks.hit(Mark::Fault(Class::Roaming));
        }
        let source = address(index, device.moves);
        let stream = self.network.open(client, server, source);
        let socket = DeviceSocket {
            stream,
            unsent: vec![],
            reads_at_ms: None,
        };
        self.devices[index].streams.insert(conn, socket);
        let at_ms = self.now_ms + self.network.delay_ms();
        self.schedule(at_ms, Event::Reaches { stream });
    }
}
