//! Pure. Random devices, segments, stores and times, against a model written from the contract.
//!
//! The model knows of each session which frames it sent and which of them are answered, and says
//! what a device must hear next. What it may not know is when a batch is cut; it learns that from
//! the rows of the batches, and checks that they are what the devices sent.

use std::collections::BTreeMap;

use protocols::rcu::code::AckStatus;
use protocols::rcu::kind;
use rand::RngExt;

use super::bench::*;
use crate::shard::*;
use crate::wheel::TICK_MS;

const SLOTS: u32 = 4;
const SILENCE_MS: u64 = 180_000;

/// A frame as a device means it.
#[derive(Clone, Debug)]
enum Said {
    Telemetry { base_seq: u64, count: u8 },
    Malformed,
    Heartbeat,
    Unknown,
    Wrong,
}

/// What a device must hear.
#[derive(Debug)]
enum Due {
    Attached,
    Heartbeat {
        id: u16,
    },
    Ack {
        id: u16,
        base_seq: u64,
        status: AckStatus,
    },
    Close(CloseReason),
}

#[derive(Debug)]
struct Device {
    session: u64,
    next_id: u16,
    next_seq: u64,
    /// What it has sent and the network has not delivered.
    stream: Vec<u8>,
    /// The frames in there, each with the bytes that are missing until it is whole.
    undelivered: Vec<(usize, u16, Said)>,
    /// Telemetry that is taken and not answered, by base_seq.
    waiting: BTreeMap<u64, (u16, u8)>,
    /// Answered `overloaded` for want of a place, since a place was freed.
    beyond: u16,
    heard_at_ms: u64,
}

struct Model {
    bench: Bench,
    rng: SmallRng,
    window: u16,
    devices: BTreeMap<u32, Device>,
    sessions: u64,
    /// Every record that was taken: whether it came in a batch.
    taken: BTreeMap<(AccountId, i64), bool>,
    due: Vec<(u32, Due)>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let window = rng.random_range(1..5);
        let settings = Settings {
            window,
            batch: batch::Limits {
                rows_max: rng.random_range(1..40),
                bytes_max: rng.random_range(1..300),
                age_ms_max: 20,
            },
            ..settings()
        };
        Self {
            bench: Bench::new(settings),
            rng,
            window,
            devices: BTreeMap::new(),
            sessions: 0,
            taken: BTreeMap::new(),
            due: vec![],
        }
    }

    fn step(&mut self) {
        let slot = self.rng.random_range(0..SLOTS);
        match self.rng.random_range(0..100) {
            0..40 => self.say(slot),
            40..70 => self.deliver(slot),
            70..85 => self.finish(),
            85..94 => self.pass(),
            94..96 => self.leave(slot),
            _ => self.attach(slot),
        }
        self.check();
    }

    fn attach(&mut self, slot: u32) {
        if self.devices.contains_key(&slot) {
            return;
        }
        self.sessions += 1;
        let device = Device {
            session: self.sessions,
            next_id: 1,
            next_seq: 1,
            stream: vec![],
            undelivered: vec![],
            waiting: BTreeMap::new(),
            beyond: 0,
            heard_at_ms: self.bench.now.ms,
        };
        self.devices.insert(slot, device);
        self.due.push((slot, Due::Attached));
        self.bench.adopt(slot, self.sessions);
    }

    fn say(&mut self, slot: u32) {
        let Some(device) = self.devices.get_mut(&slot) else {
            return;
        };
        let id = device.next_id;
        device.next_id += 1;
        let (base_seq, count) = (device.next_seq, self.rng.random_range(1..6));
        let (said, bytes) = match self.rng.random_range(0..60) {
            0..40 => {
                device.next_seq += u64::from(count);
                let bytes = telemetry(id, base_seq, count);
                (Said::Telemetry { base_seq, count }, bytes)
            }
            40..45 => (Said::Malformed, frame_of(kind::TELEMETRY, id, &[0; 17])),
            45..53 => (Said::Heartbeat, frame_of(kind::HEARTBEAT, id, &[])),
            53..59 => (Said::Unknown, frame_of(0x3F, id, &[1; 30])),
            _ => (Said::Wrong, frame_of(kind::LOGIN, id, &[])),
        };
        device.undelivered.push((bytes.len(), id, said));
        device.stream.extend(bytes);
    }

    fn deliver(&mut self, slot: u32) {
        let Some(device) = self.devices.get_mut(&slot) else {
            return;
        };
        let length = self.rng.random_range(0..=device.stream.len());
        let segment: Vec<u8> = device.stream.drain(..length).collect();
        let mut left = length;
        while let Some((missing, ..)) = device.undelivered.first_mut() {
            if *missing > left {
                *missing -= left;
                break;
            }
            left -= *missing;
            let (_, id, said) = device.undelivered.remove(0);
            device.heard_at_ms = self.bench.now.ms;
            let due = hear(device, self.window, id, &said, &mut self.taken);
            let is_over = due.iter().any(|it| matches!(it, Due::Close(_)));
            self.due.extend(due.into_iter().map(|it| (slot, it)));
            if is_over {
                self.devices.remove(&slot);
                break;
            }
        }
        self.bench.receive(slot, &segment);
    }

    /// One of the batches at the store, in any order, comes back.
    fn finish(&mut self) {
        if self.bench.batches.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.bench.batches.len());
        let batch = self.bench.batches.remove(index);
        let (outcome, status) = match self.rng.random_bool(0.8) {
            true => (BatchOutcome::Stored, AckStatus::Stored),
            false => {
                let retry_after_ms = 700;
                (
                    BatchOutcome::Overloaded { retry_after_ms },
                    AckStatus::Overloaded,
                )
            }
        };
        self.check_rows(&batch);
        for row in &batch.rows {
            let account = |device: &Device| seed(device.session).account_id;
            let sender = self
                .devices
                .iter_mut()
                .find(|(_, it)| account(it) == row.account_id);
            // Rows of a frame follow one another, and the first of them bears its name.
            let base_seq = row.seq as u64;
            if let Some((&slot, device)) = sender
                && let Some((id, _)) = device.waiting.remove(&base_seq)
            {
                device.beyond = 0;
                self.due.push((
                    slot,
                    Due::Ack {
                        id,
                        base_seq,
                        status,
                    },
                ));
            }
        }
        self.bench.apply(Input::Finished { batch, outcome });
    }

    fn check_rows(&mut self, batch: &Batch) {
        for row in &batch.rows {
            let came = self.taken.get_mut(&(row.account_id, row.seq));
            assert_eq!(came, Some(&mut false), "{row:?}: taken, and once");
            *came.unwrap() = true;
            assert_eq!(batch.payload(row), row.seq.to_le_bytes());
        }
        for ack in &batch.acks {
            let last = ack.base_seq + u64::from(ack.count) - 1;
            let rows = batch.rows.iter().map(|row| row.seq as u64);
            let of_frame = rows.filter(|seq| (ack.base_seq..=last).contains(seq));
            assert!(
                of_frame.count() >= ack.count.into(),
                "a frame is in one batch"
            );
        }
    }

    fn pass(&mut self) {
        let step_ms = [1, 30, 5_000, 100_000][self.rng.random_range(0..4)];
        self.bench.now.ms += self.rng.random_range(0..=step_ms);
        self.bench.tick();
        let now_ms = self.bench.now.ms;
        for slot in std::mem::take(&mut self.bench.closed) {
            let device = self.devices.remove(&slot.0).expect("an attached device");
            assert!(now_ms >= device.heard_at_ms + SILENCE_MS, "{slot:?} early");
            self.due.push((slot.0, Due::Close(CloseReason::Idle)));
        }
        for (slot, device) in &self.devices {
            let late_ms = device.heard_at_ms + SILENCE_MS + TICK_MS;
            assert!(now_ms < late_ms, "{slot} is silent and not closed");
        }
    }

    fn leave(&mut self, slot: u32) {
        let Some(device) = self.devices.remove(&slot) else {
            return;
        };
        let input = if self.rng.random_bool(0.5) {
            Input::Disconnected { slot: Slot(slot) }
        } else {
            let reason = CloseReason::Replaced;
            self.due.push((slot, Due::Close(reason)));
            Input::End {
                session: SessionId(device.session),
                reason,
                retry_after_ms: 0,
            }
        };
        self.bench.apply(input);
    }

    fn check(&mut self) {
        let heard = std::mem::take(&mut self.bench.heard);
        let due = std::mem::take(&mut self.due);
        let is_right = heard.len() == due.len()
            && heard
                .iter()
                .zip(&due)
                .all(|((slot, heard), (to, due))| *slot == Slot(*to) && matches(heard, due));
        assert!(is_right, "heard {heard:?}\ndue {due:?}");
        for (slot, device) in &self.devices {
            let session = self.bench.shard.sessions.get(Slot(*slot)).unwrap();
            assert_eq!(session.id, SessionId(device.session));
        }
        assert_eq!(self.bench.shard.sessions(), self.devices.len());
        self.bench.closed.clear();
    }
}

/// What the contract has the cluster answer to a frame.
fn hear(
    device: &mut Device,
    window: u16,
    id: u16,
    said: &Said,
    taken: &mut BTreeMap<(AccountId, i64), bool>,
) -> Vec<Due> {
    let is_full = device.waiting.len() >= window.into();
    let overloaded = |device: &mut Device, base_seq| {
        device.beyond += 1;
        let status = AckStatus::Overloaded;
        let mut due = vec![Due::Ack {
            id,
            base_seq,
            status,
        }];
        if device.beyond == 3 * window {
            due.push(Due::Close(CloseReason::ProtocolError));
        }
        due
    };
    match *said {
        Said::Telemetry { base_seq, .. } if is_full => overloaded(device, base_seq),
        Said::Malformed if is_full => overloaded(device, 0),
        Said::Telemetry { base_seq, count } => {
            device.waiting.insert(base_seq, (id, count));
            let account_id = seed(device.session).account_id;
            for seq in (base_seq..).take(count.into()) {
                taken.insert((account_id, seq as i64), false);
            }
            vec![]
        }
        Said::Malformed => vec![Due::Ack {
            id,
            base_seq: 0,
            status: AckStatus::Malformed,
        }],
        Said::Heartbeat => vec![Due::Heartbeat { id }],
        Said::Unknown => vec![],
        Said::Wrong => vec![Due::Close(CloseReason::ProtocolError)],
    }
}

fn matches(heard: &Heard, due: &Due) -> bool {
    match (heard, due) {
        (Heard::Attached { .. }, Due::Attached) => true,
        (Heard::Heartbeat { id, .. }, Due::Heartbeat { id: due }) => id == due,
        (Heard::Close { reason, .. }, Due::Close(due)) => reason == due,
        (
            Heard::Ack { id, ack },
            Due::Ack {
                id: due,
                base_seq,
                status,
            },
        ) => {
            let waits = ack.retry_after_ms > 0;
            (id, &ack.base_seq, &ack.status) == (due, base_seq, status)
                && waits == (*status == AckStatus::Overloaded)
        }
        _ => false,
    }
}

fn run(seed: u64) {
    let mut model = Model::new(seed);
    for _ in 0..1_000 {
        model.step();
    }
    // Everything that was taken comes to the store, also of sessions that are over.
    model.bench.now.ms += 20;
    model.bench.tick();
    while !model.bench.batches.is_empty() {
        model.finish();
        model.check();
        model.bench.tick();
    }
    let lost: Vec<_> = model.taken.iter().filter(|(_, came)| !**came).collect();
    assert!(lost.is_empty(), "never came to the store: {lost:?}");
    assert!(model.devices.values().all(|it| it.waiting.is_empty()));
}

#[test]
fn devices_hear_what_the_contract_says() {
    for seed in 0..300 {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}
