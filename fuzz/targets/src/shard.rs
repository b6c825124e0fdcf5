//! A sequence of operations on a shard: devices whose bytes come in pieces, a store that takes its
//! time and its order, commands, slow readers, time, a wall clock that jumps, shutdown.
//!
//! The model knows of each device what it said and what it must hear, by the contract. What it does
//! not foresee is when a batch is cut; but a batch holds exactly the frames that were taken, in
//! order, and nobody waits for one in vain.

mod device;
mod heard;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::message::{CommandAnswer, Order};
use common::link::{Asker, LinkId};
use common::secret::Secret;
use common::time::Now;
use logic_server::adapter::Protocol;
use logic_server::ask::{Ask, Question};
use logic_server::batch::{self, Batch, BatchOutcome};
use logic_server::counters::Counters;
use logic_server::ids::{SessionId, ShardIndex, Slot};
use logic_server::presence::{EndReason, Presence};
use logic_server::shard::{Effects, Input, SessionSeed, Settings, Shard};
use logic_server::wheel::TICK_MS;
use protocols::rcu::code::{AckStatus, CloseReason};

use crate::choices::Choices;
use device::{Asked, Device, Expected, Frame, Rules};
use heard::{Happened, Heard};

const SLOTS: u32 = 4;
const UNSENT_BYTES_MAX: usize = 65_536;
const UNIX_MS: u64 = 1_767_225_600_000;

pub fn shard(data: &[u8]) {
    run(data);
}

/// The same; tells what the shard counted.
pub fn run(data: &[u8]) -> Counters {
    let mut choices = Choices::new(data);
    let mut model = Model::new(&mut choices);
    while choices.next_step() {
        model.step(&mut choices);
    }
    model.settle();
    model.shard.counters().clone()
}

/// How far a shutdown is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// What was taken is being stored.
    Flushing,
    /// Everybody has been told.
    Left,
}

struct Model {
    shard: Shard,
    settings: Settings,
    effects: Effects,
    now_ms: u64,
    unix_ms: u64,
    /// How far reading is behind, and the last turn at which it was.
    behind_ms: u64,
    was_behind_at_ms: u64,
    phase: Phase,
    devices: BTreeMap<u32, Device>,
    /// Every session that ever was; session n has account n / 2.
    sessions: u64,
    requests: u64,
    /// Frames that were taken and are in no batch yet, and when.
    collected: VecDeque<(u64, Frame)>,
    /// Lines of `sessions` that this step has to tell, in order.
    lines: Vec<Presence>,
    /// At the store.
    batches: Vec<Batch>,
    next_batch: u64,
    done: bool,
}

impl Model {
    fn new(choices: &mut Choices<'_>) -> Self {
        let settings = Settings {
            shard: ShardIndex(3),
            window: choices.pick(&[2, 1, 4]),
            unsent_bytes_max: UNSENT_BYTES_MAX,
            batch: batch::Limits {
                rows_max: choices.pick(&[10, 1, 40]),
                bytes_max: choices.pick(&[300, 0, 10_000]),
                age_ms_max: choices.pick(&[20, 0, 2_000]),
            },
            overload_retry_ms: choices.pick(&[1_000, 1]),
            shutdown_spread_ms: choices.pick(&[10_000, 0]),
        };
        Self {
            shard: Shard::new(settings.clone(), 1),
            settings,
            effects: Effects::default(),
            now_ms: 1_000_000,
            unix_ms: UNIX_MS,
            behind_ms: 0,
            was_behind_at_ms: 0,
            phase: Phase::Running,
            devices: BTreeMap::new(),
            sessions: 0,
            requests: 0,
            collected: VecDeque::new(),
            lines: vec![],
            batches: vec![],
            next_batch: 0,
            done: false,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let slot = choices.below(SLOTS);
        match choices.below(16) {
            0..6 => self.say(slot, choices),
            6 => self.attach(slot, choices),
            7..9 => self.command(slot, choices),
            9..11 => self.finish(choices),
            11..13 => self.pass(choices),
            13 => self.tick(),
            14 => self.leave(slot, choices),
            _ => match choices.below(16) {
                14 => {
                    if self.phase == Phase::Running {
                        self.phase = Phase::Flushing;
                    }
                    self.apply(Input::Shutdown, &Expected::default());
                }
                15 => {
                    let expected = self.goodbye();
                    self.phase = Phase::Left;
                    self.apply(Input::Abandon, &expected);
                }
                // The wall clock is set; no time-out may notice.
                _ => self.unix_ms = UNIX_MS + u64::from(choices.u32()) - u64::from(u32::MAX / 2),
            },
        }
        assert_eq!(self.shard.sessions(), self.devices.len());
        self.check_deadline();
    }

    fn now(&self) -> Now {
        Now {
            ms: self.now_ms,
            unix_ms: self.unix_ms,
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            window: self.settings.window,
            takes_telemetry: self.phase == Phase::Running,
            now_ms: self.now_ms,
            unix_ms: self.unix_ms,
        }
    }

    /// Applies an input of which exactly this is expected.
    fn apply(&mut self, input: Input<'_>, expected: &Expected) {
        let happened = self.carry_out(input);
        assert_eq!(happened.presence, std::mem::take(&mut self.lines));
        assert_eq!(happened.heard, expected.heard);
        let mut closes = happened.closes.clone();
        closes.sort_unstable();
        assert_eq!(closes, expected.closes);
        self.check_waits(&happened);
        let ended: BTreeMap<_, _> = happened
            .ended
            .iter()
            .map(|it| (it.session.0, it.reason))
            .collect();
        assert_eq!(ended.len(), happened.ended.len(), "a session ends once");
        assert_eq!(ended, expected.ended);
        let mut answers = happened.answers;
        answers.sort_by_key(|(request, _)| *request);
        assert_eq!(answers, expected.answers);
        assert!(!happened.done, "told at the end of a turn alone");
    }

    fn carry_out(&mut self, input: Input<'_>) -> Happened {
        let now = self.now();
        self.shard.apply(input, now, &mut self.effects);
        let devices = &self.devices;
        let last = self.sessions;
        let mut happened = Happened::take(&mut self.effects, |slot| {
            let session = devices.get(&slot.0).map_or(last, |it| it.session);
            seed(session, 60)
        });
        for ended in &happened.ended {
            let seed = seed(ended.session.0, 60);
            assert_eq!(
                (ended.account_id, ended.epoch),
                (seed.account_id, seed.epoch)
            );
        }
        for batch in happened.batches.drain(..) {
            self.check_batch(&batch);
            self.batches.push(batch);
        }
        happened
    }

    fn check_waits(&self, happened: &Happened) {
        let spread = self.settings.shutdown_spread_ms;
        for (slot, heard) in &happened.heard {
            for (heard, &wait_ms) in heard.iter().zip(&happened.waits_ms[slot]) {
                let waits = match heard {
                    Heard::TurnedAway { .. } => 1..=spread + 1,
                    Heard::Close(CloseReason::Shutdown) => 1..=spread.max(1),
                    // The store's own word, or the shard's, and up to twice as long.
                    Heard::Ack {
                        status: AckStatus::Overloaded,
                        ..
                    } => 1..=2_000,
                    // What the gate said with it.
                    Heard::Close(CloseReason::Disabled) => 7..=7,
                    _ => 0..=0,
                };
                assert!(waits.contains(&wait_ms), "{heard:?}: {wait_ms} ms");
            }
        }
    }

    fn attach(&mut self, slot: u32, choices: &mut Choices<'_>) {
        if self.devices.contains_key(&slot) {
            return;
        }
        self.sessions += 1;
        let heartbeat_s = choices.pick(&[60, 5, 3_600]);
        let seed = seed(self.sessions, heartbeat_s);
        let mut expected = Expected::default();
        let mut unread = vec![];
        if self.phase == Phase::Running {
            let mut device = Device::new(self.sessions, heartbeat_s, self.now_ms);
            self.lines.push(Presence::Attached {
                account_id: seed.account_id,
                epoch: seed.epoch,
                source: seed.source,
                at_ms: seed.attached_unix_ms as i64,
            });
            expected.hear(
                slot,
                Heard::Attached {
                    id: seed.claim_frame_id,
                },
            );
            // What a device says before AttachReply, as the gate hands it over.
            if choices.once_in(2) {
                unread = device.say(choices);
                unread.truncate(450);
            }
            self.devices.insert(slot, device);
            self.received(slot, &unread, &mut expected);
        } else {
            expected.hear(
                slot,
                Heard::TurnedAway {
                    id: seed.claim_frame_id,
                },
            );
            expected.closes.push(slot);
            let reason = EndReason::Closed(CloseReason::Shutdown);
            expected.ended.insert(self.sessions, reason);
        }
        let slot = Slot(slot);
        let unread = &unread;
        self.apply(Input::Adopt { slot, seed, unread }, &expected);
    }

    /// A device says something, and the network delivers some of what it said.
    fn say(&mut self, slot: u32, choices: &mut Choices<'_>) {
        let Some(device) = self.devices.get_mut(&slot) else {
            return self.attach(slot, choices);
        };
        let said = device.say(choices);
        device.stream.extend(said);
        let length = match choices.below(4) {
            3 => choices.below(device.stream.len() as u32 + 1) as usize,
            _ => device.stream.len(),
        };
        let bytes: Vec<u8> = device.stream.drain(..length).collect();
        let mut expected = Expected::default();
        self.received(slot, &bytes, &mut expected);
        let slot = Slot(slot);
        self.apply(
            Input::Received {
                slot,
                bytes: &bytes,
            },
            &expected,
        );
    }

    /// What comes of bytes that reach the session of this slot.
    fn received(&mut self, slot: u32, bytes: &[u8], expected: &mut Expected) {
        let rules = self.rules();
        let Some(device) = self.devices.get_mut(&slot) else {
            return;
        };
        let mut taken = vec![];
        let is_over = device.receive(slot, bytes, &rules, expected, &mut taken);
        self.collected
            .extend(taken.into_iter().map(|it| (rules.now_ms, it)));
        if is_over {
            self.end(
                slot,
                EndReason::Closed(CloseReason::ProtocolError),
                expected,
            );
        }
    }

    /// The session of this slot is over.
    fn end(&mut self, slot: u32, reason: EndReason, expected: &mut Expected) {
        let Some(device) = self.devices.remove(&slot) else {
            return;
        };
        if let EndReason::Closed(reason) = reason {
            expected.hear(slot, Heard::Close(reason));
            expected.closes.push(slot);
            expected.closes.sort_unstable();
        }
        expected.ended.insert(device.session, reason);
        if let Some(request) = device.command.map(|it| it.asker.request) {
            expected.answer(request, CommandAnswer::Lost);
        }
        let seed = seed(device.session, 60);
        self.lines.push(Presence::Ended {
            account_id: seed.account_id,
            epoch: seed.epoch,
            at_ms: self.unix_ms as i64,
            reason,
        });
    }

    /// In the order of sessions, as the shard does it: so stand the lines of `sessions`.
    fn goodbye(&mut self) -> Expected {
        let mut expected = Expected::default();
        let mut leaving: Vec<_> = self
            .devices
            .iter()
            .map(|(slot, it)| (it.session, *slot))
            .collect();
        leaving.sort_unstable();
        for (_, slot) in leaving {
            self.end(
                slot,
                EndReason::Closed(CloseReason::Shutdown),
                &mut expected,
            );
        }
        expected
    }

    fn leave(&mut self, slot: u32, choices: &mut Choices<'_>) {
        let mut expected = Expected::default();
        let session = self.devices.get(&slot).map_or(9_999, |it| it.session);
        let rules = self.rules();
        let input = match choices.below(5) {
            0 => {
                self.end(slot, EndReason::Disconnected, &mut expected);
                Input::Disconnected { slot: Slot(slot) }
            }
            1 => {
                let waits = match self.devices.get_mut(&slot) {
                    Some(device) => {
                        let waits = !device.output_waits;
                        device.output_waits(slot, waits, &rules, &mut expected);
                        waits
                    }
                    None => true,
                };
                let slot = Slot(slot);
                match waits {
                    true => Input::Unsent {
                        slot,
                        bytes: UNSENT_BYTES_MAX,
                    },
                    false => Input::Drained { slot },
                }
            }
            2 => {
                let reason = EndReason::Closed(CloseReason::SlowReader);
                self.end(slot, reason, &mut expected);
                let bytes = UNSENT_BYTES_MAX + 1;
                Input::Unsent {
                    slot: Slot(slot),
                    bytes,
                }
            }
            which => {
                let (reason, retry_after_ms) = match which {
                    3 => (CloseReason::Replaced, 0),
                    _ => (CloseReason::Disabled, 7),
                };
                self.end(slot, EndReason::Closed(reason), &mut expected);
                Input::End {
                    session: SessionId(session),
                    reason,
                    retry_after_ms,
                }
            }
        };
        self.apply(input, &expected);
    }

    fn command(&mut self, slot: u32, choices: &mut Choices<'_>) {
        self.requests += 1;
        let request = self.requests;
        let order = Order {
            // Few, so that the same is asked for again.
            command_id: choices.below(3).into(),
            deadline_ms: choices.pick(&[0, self.unix_ms, self.unix_ms - 1]),
            code: 1,
            payload: vec![7; choices.pick(&[0, 5, 992, 993])],
        };
        let deadline_at_ms =
            self.now_ms + u64::from(choices.pick(&[10_000_u32, 0, 700, 3_000_000]));
        let asked = Asked {
            request,
            deadline_at_ms,
        };
        let session = self.devices.get(&slot).map_or(9_999, |it| it.session);
        let mut expected = Expected::default();
        let rules = self.rules();
        match self.devices.get_mut(&slot) {
            None => expected.answer(request, CommandAnswer::NotAttached),
            Some(device) => device.ask(slot, asked, &order, &rules, &mut expected),
        }
        let ask = Ask {
            asker: Asker {
                link: LinkId(9),
                request,
                until_ms: deadline_at_ms,
            },
            account_id: seed(session, 60).account_id,
            question: Question::Command(order),
        };
        let session = SessionId(session);
        self.apply(Input::Ask { session, ask }, &expected);
    }

    /// A batch comes back, in any order.
    fn finish(&mut self, choices: &mut Choices<'_>) {
        if self.batches.is_empty() {
            return self.tick();
        }
        let index = choices.below(self.batches.len() as u32) as usize;
        let outcome = match choices.once_in(4) {
            true => BatchOutcome::Overloaded {
                retry_after_ms: 500,
            },
            false => BatchOutcome::Stored,
        };
        self.finish_one(index, outcome);
    }

    fn finish_one(&mut self, index: usize, outcome: BatchOutcome) {
        let batch = self.batches.remove(index);
        let status = match outcome {
            BatchOutcome::Stored => AckStatus::Stored,
            BatchOutcome::Overloaded { .. } => AckStatus::Overloaded,
        };
        let mut expected = Expected::default();
        for ack in &batch.acks {
            let device = self.devices.get_mut(&ack.slot.0);
            if let Some(device) = device.filter(|it| it.session == ack.session.0) {
                device.unanswered -= 1;
                device.beyond = 0;
                expected.hear(
                    ack.slot.0,
                    Heard::Ack {
                        id: ack.frame_id,
                        base_seq: ack.base_seq,
                        count: ack.count,
                        status,
                    },
                );
            }
        }
        self.apply(Input::Finished { batch, outcome }, &expected);
    }

    fn pass(&mut self, choices: &mut Choices<'_>) {
        let step_ms = choices.pick(&[1, 30, 250, 5_000, 200_000, 4_000_000]);
        let step_ms = u64::from(choices.u16()) % step_ms + 1;
        self.now_ms += step_ms * choices.pick(&[1, 1, 1, 100]);
        self.unix_ms += step_ms;
        // Now and then a loop wakes late, and what devices said waits in the kernel.
        self.behind_ms = match choices.once_in(8) {
            true => u64::from(choices.u16()),
            false => 0,
        };
        self.tick();
        self.behind_ms = 0;
    }

    /// The end of a turn. Time-outs are never early, and late by a tick of the wheel at most.
    fn tick(&mut self) {
        let leaves = self.phase == Phase::Flushing && self.unanswered() == 0;
        let happened = self.carry_out_tick();
        let mut expected = Expected::default();
        for (request, answer) in &happened.answers {
            if *answer == CommandAnswer::Expired {
                let now_ms = self.now_ms;
                let mut devices = self.devices.values_mut();
                let device = devices
                    .find(|it| it.asker_is(*request))
                    .expect("somebody asked");
                let command = device.command.take().unwrap();
                assert!(command.asker.deadline_at_ms <= now_ms, "early");
                expected.answer(*request, CommandAnswer::Expired);
            }
        }
        let closed_idle =
            |it: &&logic_server::shard::Ended| it.reason == EndReason::Closed(CloseReason::Idle);
        for ended in happened.ended.iter().filter(closed_idle) {
            let mut devices = self.devices.iter();
            let silent = devices.find(|(_, it)| it.session == ended.session.0);
            let (&slot, device) = silent.expect("an attached device");
            assert!(self.read_until_ms() >= device.idle_at_ms(), "early");
            self.end(slot, EndReason::Closed(CloseReason::Idle), &mut expected);
        }
        if leaves {
            self.phase = Phase::Left;
            let goodbye = self.goodbye();
            expected.add(goodbye);
        }
        assert_eq!(happened.presence, std::mem::take(&mut self.lines));
        let mut batches = happened.batches;
        for batch in batches.drain(..) {
            self.check_batch(&batch);
            self.batches.push(batch);
        }
        self.compare_tick(
            &happened.heard,
            &happened.closes,
            &happened.ended,
            &happened.answers,
            &expected,
        );
        for (slot, device) in &self.devices {
            let idle_at_ms = device.idle_at_ms();
            let is_silent =
                self.read_until_ms() >= idle_at_ms && self.now_ms >= self.fires_by_ms(idle_at_ms);
            assert!(!is_silent, "slot {slot} is silent and not closed");
            let asker = device.command.as_ref().map(|it| it.asker);
            let is_late = |it: Asked| self.now_ms >= due_by(it.deadline_at_ms);
            assert!(
                !asker.is_some_and(is_late),
                "slot {slot}: nobody told the asker"
            );
        }
        self.done = happened.done;
        self.check_rest();
    }

    fn read_until_ms(&self) -> u64 {
        self.now_ms - self.behind_ms
    }

    /// By when a time-out of this time has fired: at the next tick of the wheel, and not in one in
    /// which reading was behind.
    fn fires_by_ms(&self, at_ms: u64) -> u64 {
        due_by(at_ms).max(due_by(self.was_behind_at_ms + 1))
    }

    fn carry_out_tick(&mut self) -> Happened {
        let now = self.now();
        let read_until_ms = self.read_until_ms();
        if read_until_ms < self.now_ms {
            self.was_behind_at_ms = self.now_ms;
        }
        let tick = Input::Tick { read_until_ms };
        self.shard.apply(tick, now, &mut self.effects);
        let devices = &self.devices;
        Happened::take(&mut self.effects, |slot| seed(devices[&slot.0].session, 60))
    }

    fn compare_tick(
        &self,
        heard: &BTreeMap<u32, Vec<Heard>>,
        closes: &[u32],
        ended: &[logic_server::shard::Ended],
        answers: &[(u64, CommandAnswer)],
        expected: &Expected,
    ) {
        assert_eq!(*heard, expected.heard);
        let sorted = |values: &[u32]| {
            let mut values = values.to_vec();
            values.sort_unstable();
            values
        };
        assert_eq!(sorted(closes), sorted(&expected.closes));
        let ended: BTreeMap<_, _> = ended.iter().map(|it| (it.session.0, it.reason)).collect();
        assert_eq!(ended, expected.ended);
        let mut answers = answers.to_vec();
        answers.sort_by_key(|(request, _)| *request);
        assert_eq!(answers, expected.answers);
    }

    /// Frames that were taken and not answered.
    fn unanswered(&self) -> usize {
        let at_store: usize = self.batches.iter().map(|it| it.acks.len()).sum();
        self.collected.len() + at_store
    }

    /// A batch holds what was taken, in order, and is as large as it may be.
    fn check_batch(&mut self, batch: &Batch) {
        assert_eq!((batch.id, batch.shard), (self.next_batch, ShardIndex(3)));
        self.next_batch += 1;
        assert!(!batch.rows.is_empty());
        let mut rows = batch.rows.iter();
        for ack in &batch.acks {
            let (_, frame) = self.collected.pop_front().expect("a frame that was taken");
            assert_eq!(
                (ack.session.0, ack.slot.0, ack.frame_id),
                (frame.session, frame.slot, frame.id)
            );
            assert_eq!(ack.base_seq, frame.records[0].seq);
            assert_eq!(usize::from(ack.count), frame.records.len());
            for record in &frame.records {
                let row = rows.next().expect("a row for each record");
                device::check_row(row, batch.payload(row), record, &frame);
            }
        }
        assert_eq!(rows.next(), None, "a row without a record");
        let limits = &self.settings.batch;
        let fits = batch.rows.len() <= limits.rows_max && batch.arena.len() <= limits.bytes_max;
        assert!(fits || batch.acks.len() == 1, "{batch:?}");
    }

    /// After a turn: nobody waits in vain, and there is nothing left to do now.
    fn check_rest(&self) {
        let now_ms = self.now_ms;
        if self.phase != Phase::Running {
            assert!(self.collected.is_empty());
        }
        if let Some((since_ms, _)) = self.collected.front() {
            assert!(!self.batches.is_empty(), "it waits, and the store is idle");
            assert!(
                now_ms < since_ms + self.settings.batch.age_ms_max,
                "too old"
            );
        }
        let next = self.shard.next_deadline();
        assert!(next.is_none_or(|at_ms| at_ms > now_ms), "a tick in vain");
        assert_eq!(self.done, self.phase == Phase::Left);
    }

    /// The shard wants to be woken in time.
    fn check_deadline(&self) {
        let Some(first) = self.devices.values().map(Device::due_at_ms).min() else {
            return;
        };
        let next = self
            .shard
            .next_deadline()
            .expect("a session may fall silent");
        assert!(next <= self.fires_by_ms(first), "{next} is after {first}");
    }

    /// When everything has come back and a silent time has passed, nobody is left, and everything
    /// that was taken was answered.
    fn settle(&mut self) {
        self.store_all();
        assert!(self.devices.values().all(|it| it.unanswered == 0));
        self.now_ms += 3 * 3_600_000 + TICK_MS;
        self.tick();
        assert!(self.devices.is_empty());
    }

    fn store_all(&mut self) {
        self.tick();
        while !self.batches.is_empty() {
            self.finish_one(0, BatchOutcome::Stored);
            self.tick();
        }
        assert!(self.collected.is_empty());
    }
}

/// By when a time-out of this time has fired: at the next tick of the wheel.
fn due_by(at_ms: u64) -> u64 {
    at_ms.div_ceil(TICK_MS) * TICK_MS
}

fn seed(session: u64, heartbeat_s: u16) -> SessionSeed {
    SessionSeed {
        session: SessionId(session),
        protocol: Protocol::Rcu,
        account_id: AccountId(1_000 + session as i64 / 2),
        epoch: Epoch::at_ms(session),
        session_key: Secret::new([7; 32]),
        ticket: Secret::new([session as u8; 16]),
        source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, session as u8)),
        claim_frame_id: session as u16,
        heartbeat_s,
        attached_unix_ms: UNIX_MS + session,
    }
}
