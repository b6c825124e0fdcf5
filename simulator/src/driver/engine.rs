//! The loop: readiness and time in, effects out. One thread, thousands of devices.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::process::clock::unix_ms;
use mio::event::Event as Readiness;
use mio::{Events, Poll, Token, Waker};

use super::connection::{Connection, Progress};
use super::resolver::Resolver;
use super::sources::source;
use super::stats::{Now, Stats, Tally};
use super::timers::Timers;
use super::{Order, Outcome, Settings, StartError};
use crate::device::{ConnId, Device, Effect, Effects, Event, Input};
use crate::drive::{Drive, Report, Vehicle};
use crate::history::History;

const WAKER: Token = Token(usize::MAX);
const EVENTS_MAX: usize = 1_024;
/// A frame to a device is at most 1 KiB; a read takes the frames of a burst.
const READ_BYTES: usize = 16 * 1_024;
/// How often the statistics are published, and the end is looked for.
const PUBLISH_MS: u64 = 100;
/// Keeps two devices' random decisions apart.
const SEED_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Debug)]
pub(super) struct Engine {
    poll: Poll,
    waker: Arc<Waker>,
    orders: Receiver<Order>,
    resolver: Resolver,
    timers: Timers,
    slots: Vec<Slot>,
    /// Slots before this one were switched on.
    started: usize,
    connects_per_s: u32,
    devices_per_source: u32,

    began: Instant,
    now_ms: u64,
    /// Of the one buffer that everything is read into.
    buffer: Vec<u8>,
    effects: Effects,
    report: Report,
    /// What follows from effects, for whom.
    follow_ups: VecDeque<(usize, FollowUp)>,

    tally: Tally,
    published: Arc<Mutex<Stats>>,
    publish_ms: u64,
    /// No new records; when to end whatever is open.
    ends_ms: Option<u64>,
}

#[derive(Debug)]
struct Slot {
    device: Device,
    drive: Drive,
    history: History,
    connection: Option<Connection>,
}

/// An input that an effect gives rise to.
#[derive(Clone, Copy, Debug)]
enum FollowUp {
    Resolve,
    Disconnected(ConnId),
    Measure,
}

impl Engine {
    pub(super) fn new(settings: Settings, orders: Receiver<Order>) -> Result<Self, StartError> {
        if settings.identities.is_empty() {
            return Err(StartError::NoDevices);
        }
        if settings.boot_counter >= 1 << 31 {
            return Err(StartError::BootCounter);
        }
        let poll = Poll::new().map_err(StartError::Loop)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(StartError::Loop)?;
        let waker = Arc::new(waker);
        let resolver = Resolver::new(&settings.balancers, Arc::clone(&waker))?;
        let make = Arc::new(settings.device);
        let unix_ms = unix_ms();
        let slots: Vec<Slot> = (1..)
            .zip(settings.identities)
            .map(|(nth, identity)| {
                let seed = settings.seed.wrapping_add(SEED_STEP.wrapping_mul(nth));
                let vehicle = Vehicle::of(&identity.account, unix_ms);
                let device = Device::new(identity, Arc::clone(&make), settings.boot_counter, seed);
                Slot {
                    history: History::new(&device),
                    drive: Drive::new(vehicle, !seed),
                    device,
                    connection: None,
                }
            })
            .collect();
        let tally = Tally::new(slots.len().try_into().unwrap_or(u32::MAX));
        Ok(Self {
            poll,
            waker,
            orders,
            resolver,
            timers: Timers::new(slots.len()),
            slots,
            started: 0,
            connects_per_s: settings.connects_per_s.max(1),
            devices_per_source: settings.devices_per_source,
            began: Instant::now(),
            now_ms: 0,
            buffer: vec![0; READ_BYTES],
            effects: Effects::default(),
            report: Report::default(),
            follow_ups: VecDeque::new(),
            published: Arc::new(Mutex::new(tally.snapshot(Now::default()))),
            tally,
            publish_ms: 0,
            ends_ms: None,
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Names the whole fleet even before the loop runs.
    pub(super) fn published(&self) -> Arc<Mutex<Stats>> {
        Arc::clone(&self.published)
    }

    /// Until it is told to end.
    pub(super) fn run(mut self) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        self.began = Instant::now();
        loop {
            match self.poll.poll(&mut events, Some(self.timeout())) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.now_ms = self.began.elapsed().as_millis() as u64;
            for event in events.iter().filter(|event| event.token() != WAKER) {
                self.ready(event);
            }
            self.take_resolved();
            self.tick_due();
            self.switch_on();
            if self.take_orders().is_break() || self.publish().is_break() {
                return Ok(self.finish());
            }
        }
    }

    /// At most until the next publication.
    fn timeout(&self) -> Duration {
        let next_start = self.next_start_ms().unwrap_or(u64::MAX);
        let next_timer = self.timers.next_ms().unwrap_or(u64::MAX);
        let next_ms = next_start.min(next_timer).min(self.publish_ms);
        Duration::from_millis(next_ms.saturating_sub(self.now_ms))
    }

    // ---- what happens -------------------------------------------------------------------------

    fn ready(&mut self, event: &Readiness) {
        let index = event.token().0;
        let Some(connection) = self.connection(index) else {
            return;
        };
        let conn = connection.id;
        let open = match connection.progress() {
            Ok(Progress::Connecting) => return,
            Ok(Progress::Connected) => {
                self.feed(index, Input::Connected { conn });
                true
            }
            Ok(Progress::Open) => connection.flush().is_ok(),
            Err(_) => false,
        };
        if !open {
            self.lost(index, conn);
        } else if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(index, conn);
        }
    }

    /// Reads until there is no more: readiness is told once.
    fn read(&mut self, index: usize, conn: ConnId) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(connection) = self.connection(index)
            && connection.id == conn
        {
            match connection.read(&mut buffer) {
                Ok(Some(count)) => {
                    let bytes = &buffer[..count];
                    self.feed(index, Input::Received { conn, bytes });
                }
                Ok(None) => break,
                Err(_) => self.lost(index, conn),
            }
        }
        self.buffer = buffer;
    }

    fn lost(&mut self, index: usize, conn: ConnId) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.connection = None;
            self.feed(index, Input::Disconnected { conn });
        }
    }

    fn take_resolved(&mut self) {
        while let Some((addresses, waiting)) = self.resolver.take() {
            for index in waiting {
                let addresses = &addresses;
                self.feed(index, Input::Resolved { addresses });
            }
        }
    }

    fn tick_due(&mut self) {
        while let Some(index) = self.timers.pop(self.now_ms) {
            self.feed(index, Input::Tick);
        }
    }

    /// Switches devices on at the pace of the settings.
    fn switch_on(&mut self) {
        while self
            .next_start_ms()
            .is_some_and(|start_ms| start_ms <= self.now_ms)
        {
            let index = self.started;
            self.started += 1;
            self.tally.started();
            let unix_ms = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map(|since| since.as_millis() as u64)
                .ok();
            self.feed(index, Input::ClockSet { unix_ms });
            self.feed(index, Input::PowerOn);
        }
    }

    fn next_start_ms(&self) -> Option<u64> {
        let more = self.started < self.slots.len() && self.ends_ms.is_none();
        more.then(|| self.started as u64 * 1_000 / u64::from(self.connects_per_s))
    }

    fn take_orders(&mut self) -> std::ops::ControlFlow<()> {
        match self.orders.try_recv() {
            Ok(Order::Stop { patience }) => {
                let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
                self.ends_ms = Some(self.now_ms.saturating_add(patience_ms));
                self.publish_ms = self.now_ms;
                for index in 0..self.slots.len() {
                    self.feed(index, Input::StopReporting);
                }
                std::ops::ControlFlow::Continue(())
            }
            Err(TryRecvError::Empty) => std::ops::ControlFlow::Continue(()),
            Ok(Order::Abandon) | Err(TryRecvError::Disconnected) => {
                std::ops::ControlFlow::Break(())
            }
        }
    }

    // ---- the devices --------------------------------------------------------------------------

    fn connection(&mut self, index: usize) -> Option<&mut Connection> {
        self.slots.get_mut(index)?.connection.as_mut()
    }

    /// Gives a device an input, and everything that follows from it.
    fn feed(&mut self, index: usize, input: Input<'_>) {
        self.apply(index, input);
        while let Some((index, follow_up)) = self.follow_ups.pop_front() {
            match follow_up {
                FollowUp::Disconnected(conn) => self.apply(index, Input::Disconnected { conn }),
                FollowUp::Resolve => {
                    if let Some(addresses) = self.resolver.request(index) {
                        let addresses = &addresses;
                        self.apply(index, Input::Resolved { addresses });
                    }
                }
                FollowUp::Measure => self.measure(index),
            }
        }
    }

    fn measure(&mut self, index: usize) {
        let mut report = std::mem::take(&mut self.report);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.drive.report(self.now_ms, &mut report);
            let measurements: Vec<_> = report.measurements().collect();
            let measurements = &measurements;
            self.apply(index, Input::Report { measurements });
        }
        self.report = report;
    }

    /// Lets the device decide and carries out what it wants.
    fn apply(&mut self, index: usize, input: Input<'_>) {
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.device.apply(input, self.now_ms, &mut effects);
            // Frames that stand one behind the other go out in one write.
            let mut unsent = Unsent::default();
            for effect in effects.list.drain(..) {
                match effect {
                    Effect::Send { conn, bytes } => {
                        if !unsent.extend(conn, &bytes) {
                            self.send(index, &mut unsent, &effects.bytes);
                            unsent.begin(conn, bytes);
                        }
                    }
                    Effect::Connect { conn, address } => {
                        let from = source(index, self.devices_per_source, &address);
                        let registry = self.poll.registry();
                        let opened = Connection::open(conn, address, from, registry, Token(index));
                        if opened.is_err() {
                            let lost = FollowUp::Disconnected(conn);
                            self.follow_ups.push_back((index, lost));
                        }
                        self.slots[index].connection = opened.ok();
                    }
                    Effect::Disconnect { conn } => {
                        self.send(index, &mut unsent, &effects.bytes);
                        let connection = &mut self.slots[index].connection;
                        connection.take_if(|connection| connection.id == conn);
                    }
                    Effect::Resolve => self.follow_ups.push_back((index, FollowUp::Resolve)),
                    Effect::Measure => self.follow_ups.push_back((index, FollowUp::Measure)),
                    Effect::Tell(event) => self.note(index, &event),
                }
            }
            self.send(index, &mut unsent, &effects.bytes);
            if let Some(deadline_ms) = self.slots[index].device.next_deadline(self.now_ms) {
                self.timers.arm(index, deadline_ms);
            }
        }
        effects.clear();
        self.effects = effects;
    }

    fn note(&mut self, index: usize, event: &Event) {
        self.tally.note(event);
        self.slots[index].history.note(event);
    }

    fn send(&mut self, index: usize, unsent: &mut Unsent, bytes: &[u8]) {
        let Some((conn, range)) = unsent.0.take() else {
            return;
        };
        if let Some(connection) = self.connection(index)
            && connection.id == conn
            && connection.send(&bytes[range]).is_err()
        {
            let lost = FollowUp::Disconnected(conn);
            self.follow_ups.push_back((index, lost));
        }
    }

    // ---- the end ------------------------------------------------------------------------------

    /// Publishes when it is time; breaks when the run is over.
    fn publish(&mut self) -> std::ops::ControlFlow<()> {
        if self.now_ms < self.publish_ms {
            return std::ops::ControlFlow::Continue(());
        }
        self.publish_ms = self.now_ms + PUBLISH_MS;
        let stats = self.tally.snapshot(self.now());
        let over = self
            .ends_ms
            .is_some_and(|ends_ms| stats.unacknowledged == 0 || ends_ms <= self.now_ms);
        *self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = stats;
        if over {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        }
    }

    fn now(&self) -> Now {
        let mut now = Now {
            elapsed: self.began.elapsed(),
            ..Now::default()
        };
        for slot in &self.slots {
            now.attached += u32::from(slot.device.is_attached());
            now.connecting += u32::from(slot.device.is_connecting_or_asking());
            now.unacknowledged += slot.device.unacknowledged() as u64;
        }
        now
    }

    fn finish(self) -> Outcome {
        let stats = self.tally.snapshot(self.now());
        let boot_counters = self.slots.iter().map(|slot| slot.device.boot_counter());
        Outcome {
            next_boot_counter: boot_counters.max().map_or(0, |highest| highest + 1),
            histories: self.slots.into_iter().map(|slot| slot.history).collect(),
            stats,
        }
    }
}

/// Bytes of [`Effects`] that are to be sent on one connection.
#[derive(Debug, Default)]
struct Unsent(Option<(ConnId, Range<usize>)>);

impl Unsent {
    fn begin(&mut self, conn: ConnId, bytes: Range<usize>) {
        self.0 = Some((conn, bytes));
    }

    /// Whether `bytes` follow what is here, and are now here too.
    fn extend(&mut self, conn: ConnId, bytes: &Range<usize>) -> bool {
        match &mut self.0 {
            Some((same, range)) if *same == conn && range.end == bytes.start => {
                range.end = bytes.end;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records, an open session and a connection stand beside it on the heap while there are any.
    #[test]
    fn a_device_takes_less_than_a_kilobyte() {
        assert!(size_of::<Slot>() < 1_024, "{}", size_of::<Slot>());
    }
}
