//! The simulated devices of the simulated world.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use common::ids::AccountName;
use common::secret::DeviceKey;
use rand::RngExt;
use rand::rngs::SmallRng;
use simulator::device::{
    ConnId, Device, Effect, Effects, Event as Told, Identity, Input, Measurement, Settings,
};

use crate::clock::{Clock, true_unix_ms};
use crate::fault::CLOCK_STEP_MS;
use crate::model::Broken;
use crate::network::{Arrival, Client, Side, Stream};
use crate::plan::{Class, Plan};
use crate::process::Process;
use crate::timer::Timer;
use crate::world::{Event, World, account_of, balancer_address, logic_address};

#[derive(Debug)]
pub struct DeviceNode {
    core: Device,
    timer: Timer,
    /// Its monotonic clock; what time it believes to be is its core's.
    clock: Clock,
    streams: BTreeMap<ConnId, Stream>,
    rng: SmallRng,
    is_on: bool,
    /// Its account was removed, and it will never come in again.
    pub is_removed: bool,
}

impl DeviceNode {
    pub fn new(plan: &Plan, index: usize, mut rng: SmallRng) -> Self {
        let settings = Settings {
            report_interval_ms: plan.report_interval_ms,
            frame_records_max: rng.random_range(1..=20),
            ..Settings::default()
        };
        let identity = Identity {
            account: account_name(index),
            key: device_key(index, 1),
        };
        let seed = rng.random();
        Self {
            core: Device::new(identity, Arc::new(settings), 1, seed),
            timer: Timer::default(),
            clock: Clock {
                origin_ms: rng.random_range(0..1 << 40),
                ..Clock::default()
            },
            streams: BTreeMap::new(),
            rng,
            is_on: false,
            is_removed: false,
        }
    }

    /// Attached, and nothing waits for an acknowledgement; or out of the game.
    pub fn is_at_rest(&self) -> bool {
        self.is_removed || (self.core.is_attached() && self.core.unacknowledged() == 0)
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

/// Each device has an address of its own.
fn address(index: usize) -> IpAddr {
    IpAddr::from([10, 1, (index >> 8) as u8, index as u8])
}

impl World {
    pub fn wake_device(&mut self, index: usize) -> Result<(), Broken> {
        if !self.devices[index].is_on {
            self.devices[index].is_on = true;
            if self.plan.faults.has(Class::DeviceClock) {
                self.break_device_clock(index)?;
            } else {
                let unix_ms = Some(true_unix_ms(self.now_ms));
                self.device(index, Input::ClockSet { unix_ms })?;
            }
            return self.device(index, Input::PowerOn);
        }
        if self.devices[index].timer.fires(self.now_ms) {
            self.device(index, Input::Tick)?;
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
        let addresses = &addresses;
        self.device(index, Input::Resolved { addresses })
    }

    pub fn device_connected(&mut self, index: usize, conn: ConnId) -> Result<(), Broken> {
        self.device(index, Input::Connected { conn })
    }

    pub fn device_hears(
        &mut self,
        index: usize,
        conn: ConnId,
        arrival: Arrival,
    ) -> Result<(), Broken> {
        match arrival {
            Arrival::Bytes(bytes) => self.device(
                index,
                Input::Received {
                    conn,
                    bytes: &bytes,
                },
            ),
            Arrival::End => {
                self.devices[index].streams.remove(&conn);
                self.device(index, Input::Disconnected { conn })
            }
        }
    }

    /// From now on they make no records; what they have they still send.
    pub fn devices_stop_reporting(&mut self) -> Result<(), Broken> {
        (0..self.devices.len()).try_for_each(|index| self.device(index, Input::StopReporting))
    }

    pub fn device(&mut self, index: usize, input: Input<'_>) -> Result<(), Broken> {
        let mut effects = Effects::default();
        let device = &mut self.devices[index];
        let device_ms = device.clock.ms(self.now_ms);
        device.core.apply(input, device_ms, &mut effects);
        let mut measure = false;
        for effect in std::mem::take(&mut effects.list) {
            match effect {
                Effect::Resolve => {
                    let at_ms = self.now_ms + self.network.delay_ms();
                    self.schedule(at_ms, Event::Resolved { device: index });
                }
                Effect::Connect { conn, address } => self.connect(index, conn, address),
                Effect::Send { conn, bytes } => {
                    if let Some(stream) = self.devices[index].streams.get(&conn) {
                        let bytes = &effects.bytes[bytes];
                        self.network.send(
                            *stream,
                            Side::Client,
                            bytes,
                            self.now_ms,
                            &mut self.deliveries,
                        );
                    }
                }
                Effect::Disconnect { conn } => {
                    if let Some(stream) = self.devices[index].streams.remove(&conn) {
                        self.network
                            .close(stream, Side::Client, self.now_ms, &mut self.deliveries);
                    }
                }
                Effect::Measure => measure = true,
                Effect::Tell(Told::FirstSent(record)) => {
                    self.model.record_sent(account_of(index), record)
                }
                Effect::Tell(told) => self.trace_device(index, || format!("{told:?}")),
            }
        }
        if measure {
            let (kind, payload) = self.devices[index].payload();
            let measurements = [Measurement {
                kind,
                payload: &payload,
            }];
            self.device(
                index,
                Input::Report {
                    measurements: &measurements,
                },
            )?;
        }
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
        let stream = self.network.open(client, server, address(index));
        self.devices[index].streams.insert(conn, stream);
        let at_ms = self.now_ms + self.network.delay_ms();
        self.schedule(at_ms, Event::Reaches { stream });
    }
}
