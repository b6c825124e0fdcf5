//! Pure. The sessions of one loop: bytes in, replies and acks out, records into batches.
//!
//! ```text
//! Adopt ──▶ session ──Received──▶ heard ─┬─ alive ────────▶ reply
//!              │                         ├─ records ──────▶ batch ··· Finished ──▶ stored
//!              │                         ├─ answer ───────▶ whoever gave the order
//!              │                         ╰─ what the protocol does not allow ─▶ goodbye
//!              ╰── Disconnected, End, idle, slow reader, Shutdown ──▶ Ended
//! ```
//!
//! Output has two classes. What answers a device goes at once. An order, and whatever else the cluster begins by itself,
//! waits while output waits for the kernel, and is pulled when that has drained: so it is not behind what a slow device
//! still has to read, and one whose time is over by then is not sent at all.
//!
//! What a device hears and says goes through [`crate::adapter`]: here nothing knows a protocol. `stored` is said in
//! one place: from a batch that came back stored. A session that
//! is closed is forgotten at once; what it sent before goes on to the store, and the acks that
//! come back for it find nobody.

mod command;
mod effects;
mod outlets;
mod session;
mod sessions;
mod telemetry;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use common::epoch::Epoch;
use common::ids::{AccountId, Ticket};
use common::link::message::{Kicked, SessionLooked};
use common::secret::SessionKey;
use common::time::Now;
use protocols::rcu::code::CloseReason;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::adapter::{Protocol, Terms, Word, with_adapter};
use crate::ask::{Answer, Ask, Question};
use crate::batch::{self, Batch, BatchOutcome, Collector};
use crate::counters::{Counter, Counters};
use crate::ids::{SessionId, ShardIndex, Slot};
use crate::presence::{EndReason, Presence};
use crate::wheel::Wheel;
use session::{Session, Turn};
use sessions::Sessions;

pub use effects::{Effects, Ended, Explained, Send};
pub use outlets::Outlets;

/// The most that `window` can be set to.
pub const WINDOW_MAX: u16 = 10_000;

/// What a session may do and take.
#[derive(Clone, Debug)]
pub struct Settings {
    pub shard: ShardIndex,
    /// Telemetry frames of a session that may be unanswered at once; 1..=[`WINDOW_MAX`].
    pub window: u16,
    /// Output that the kernel has not taken; beyond it the session is closed `slow_reader`.
    pub unsent_bytes_max: usize,
    pub batch: batch::Limits,
    /// What a device is told to wait whose frame is beyond its window, before it is spread.
    pub overload_retry_ms: u32,
    /// At shutdown devices are told to come back within this time, spread evenly.
    pub shutdown_spread_ms: u32,
}

/// What the gate hands over with a socket: a session that is admitted and not told so yet.
#[derive(Clone, Debug)]
pub struct SessionSeed {
    pub session: SessionId,
    pub protocol: Protocol,
    pub account_id: AccountId,
    pub epoch: Epoch,
    pub session_key: SessionKey,
    pub ticket: Ticket,
    /// An IPv4-mapped address is an IPv4 address here.
    pub source: IpAddr,
    /// The claim's, which the welcome repeats.
    pub claim_frame_id: u16,
    pub heartbeat_s: u16,
    pub attached_unix_ms: u64,
}

/// What happens to a shard.
#[derive(Debug)]
pub enum Input<'a> {
    /// A socket of the gate's, now in this slot.
    Adopt {
        slot: Slot,
        seed: SessionSeed,
        unread: &'a [u8],
    },
    /// Plaintext, cut anywhere.
    Received { slot: Slot, bytes: &'a [u8] },
    /// The device went.
    Disconnected { slot: Slot },
    /// So many bytes of output wait for the kernel.
    Unsent { slot: Slot, bytes: usize },
    /// None do any more.
    Drained { slot: Slot },
    /// The gate ends a session.
    End {
        session: SessionId,
        reason: CloseReason,
        retry_after_ms: u32,
    },
    /// Of this session.
    Ask { session: SessionId, ask: Ask },
    /// The writer gives a batch back, or had no room for it.
    Finished { batch: Batch, outcome: BatchOutcome },
    /// Take no telemetry any more, have what was taken stored and acknowledged, say goodbye.
    Shutdown,
    /// The store takes too long for a shutdown: say goodbye now, whatever is not acknowledged.
    Abandon,
    /// The end of a turn, and [`Shard::next_deadline`] has come.
    Tick {
        /// What devices sent until then, in monotonic milliseconds, has been handed in. Nobody is
        /// taken for silent beyond it.
        read_until_ms: u64,
    },
}

/// How far a shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Waits until what was taken is stored and acknowledged.
    Flushing,
    /// Every session has been told.
    Left,
}

/// The sessions of one loop.
///
/// How it is called: [`Shard::apply`] with each thing that happens; effects gather, and are carried out in their own
/// order whenever the driver likes, at the latest at the end of the turn, which [`Input::Tick`] ends. What comes of
/// carrying them out (`Unsent`, `Disconnected`, a batch that finds no room) is applied before anything else; an
/// `Unsent` is followed by a `Drained` when nothing waits any more, unless the slot is closed before. A slot
/// is the driver's: it is free again once the driver has closed what [`Effects::closes`] names, or has itself said
/// `Disconnected`. A batch comes back once, by [`Input::Finished`], in any order. [`Shard::next_deadline`] may have
/// moved with every input.
#[derive(Debug)]
pub struct Shard {
    settings: Settings,
    phase: Phase,
    sessions: Sessions,
    wheel: Wheel,
    collector: Collector,
    counters: Counters,
    rng: SmallRng,
    /// Slots whose timer fired; empty between turns, kept for its memory.
    fired: Vec<u32>,
}

impl Shard {
    /// `seed` governs the spread of retry times.
    ///
    /// # Panics
    /// A window outside 1..=[`WINDOW_MAX`].
    pub fn new(settings: Settings, seed: u64) -> Self {
        assert!((1..=WINDOW_MAX).contains(&settings.window), "window");
        Self {
            phase: Phase::Running,
            sessions: Sessions::default(),
            wheel: Wheel::new(),
            collector: Collector::new(settings.shard, settings.batch),
            counters: Counters::default(),
            rng: SmallRng::seed_from_u64(seed),
            fired: vec![],
            settings,
        }
    }

    /// Takes one input. Several may be taken before the effects are carried out, in order.
    /// A turn ends with [`Input::Tick`].
    pub fn apply(&mut self, input: Input<'_>, now: Now, effects: &mut Effects) {
        match input {
            Input::Adopt { slot, seed, unread } => self.adopt(slot, seed, unread, now, effects),
            Input::Received { slot, bytes } => self.received(slot, bytes, now, effects),
            Input::Disconnected { slot } => {
                self.end(slot, EndReason::Disconnected, 0, now, effects);
            }
            Input::Unsent { slot, bytes } => {
                if bytes > self.settings.unsent_bytes_max {
                    self.close(slot, CloseReason::SlowReader, now, effects);
                } else if let Some(session) = self.sessions.get_mut(slot) {
                    session.output_waits = true;
                }
            }
            Input::Drained { slot } => self.drained(slot, now, effects),
            Input::End {
                session,
                reason,
                retry_after_ms,
            } => {
                if let Some(slot) = self.sessions.slot_of(session) {
                    self.end(
                        slot,
                        EndReason::Closed(reason),
                        retry_after_ms,
                        now,
                        effects,
                    );
                }
            }
            Input::Ask { session, ask } => self.asked(session, ask, now, effects),
            Input::Finished { batch, outcome } => self.finished(batch, outcome, effects),
            Input::Shutdown => {
                if self.phase == Phase::Running {
                    self.phase = Phase::Flushing;
                }
            }
            Input::Abandon => {
                self.say_goodbye(now, effects);
                self.phase = Phase::Left;
            }
            Input::Tick { read_until_ms } => self.tick(read_until_ms, now, effects),
        }
    }

    /// When [`Input::Tick`] is due; monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        [self.wheel.next_deadline(), self.collector.due_at_ms()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Live sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// What it keeps, by name, for whoever checks that all of it is bounded. Goes
    /// through all sessions: now and then, not in each turn.
    pub fn held(&self) -> [(&'static str, usize); 7] {
        let sessions = || self.sessions.iter().map(|(_, session)| session);
        [
            ("sessions", self.sessions.len()),
            ("slots", self.sessions.slots()),
            (
                "partial_bytes",
                sessions().map(Session::partial_bytes).sum(),
            ),
            (
                "commands",
                sessions().filter(|it| it.command().is_some()).count(),
            ),
            ("rows", self.collector.collected()),
            ("row_bytes", self.collector.collected_bytes()),
            ("batches_spare", self.collector.spare()),
        ]
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn adopt(
        &mut self,
        slot: Slot,
        seed: SessionSeed,
        unread: &[u8],
        now: Now,
        effects: &mut Effects,
    ) {
        if self.phase != Phase::Running {
            return self.turn_away(slot, &seed, now, effects);
        }
        let session = Session::new(&seed, self.settings.window, now);
        let welcome = Word::Welcome {
            frame_id: seed.claim_frame_id,
            terms: Terms {
                heartbeat_s: seed.heartbeat_s,
                window: self.settings.window,
                ticket: seed.ticket,
                session_key: &session.session_key,
            },
            unix_ms: now.unix_ms,
        };
        effects.say(slot, seed.protocol, &welcome);

        let line = Presence::Attached {
            account_id: seed.account_id,
            epoch: seed.epoch,
            source: seed.source,
            at_ms: batch::bigint(seed.attached_unix_ms),
        };
        effects.presence.push(line);

        self.wheel.arm(slot.0, session.next_timer_ms());
        self.sessions.insert(slot, session);
        self.received(slot, unread, now, effects);
    }

    /// A session that the gate admitted before it heard of the shutdown.
    fn turn_away(&mut self, slot: Slot, seed: &SessionSeed, now: Now, effects: &mut Effects) {
        self.counters.count(Counter::AttachDraining);
        effects.explain(seed.account_id, Counter::AttachDraining);
        let draining = Word::Draining {
            frame_id: seed.claim_frame_id,
            retry_after_ms: effects::spread(&mut self.rng, 1, self.settings.shutdown_spread_ms),
            unix_ms: now.unix_ms,
        };
        effects.say(slot, seed.protocol, &draining);
        effects.closes.push(slot);
        effects.ended.push(Ended {
            session: seed.session,
            account_id: seed.account_id,
            epoch: seed.epoch,
            reason: EndReason::Closed(CloseReason::Shutdown),
        });
    }

    fn received(&mut self, slot: Slot, bytes: &[u8], now: Now, effects: &mut Effects) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let mut turn = Turn {
            slot,
            now,
            takes_telemetry: self.phase == Phase::Running,
            settings: &self.settings,
            collector: &mut self.collector,
            counters: &mut self.counters,
            rng: &mut self.rng,
            effects,
        };
        let received =
            with_adapter!(session.protocol, A => session.received::<A>(bytes, &mut turn));
        if let Err(reason) = received {
            self.close(slot, reason, now, effects);
        }
    }

    fn tick(&mut self, read_until_ms: u64, now: Now, effects: &mut Effects) {
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.advance(now.ms, &mut fired);
        for slot in fired.drain(..) {
            self.timer_fired(Slot(slot), read_until_ms, now, effects);
        }
        self.fired = fired;

        match self.phase {
            Phase::Running => effects.batches.extend(self.collector.due(now)),
            Phase::Flushing | Phase::Left => self.shut_down(now, effects),
        }
    }

    fn timer_fired(&mut self, slot: Slot, read_until_ms: u64, now: Now, effects: &mut Effects) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if session.is_idle(read_until_ms) {
            return self.close(slot, CloseReason::Idle, now, effects);
        }
        session.expire_command(|it| it.is_over(now), &mut self.counters, effects);
        // One that would be silent if nothing of it waits in the kernel is looked at again in a tick.
        self.wheel.arm(slot.0, session.next_timer_ms());
    }

    fn shut_down(&mut self, now: Now, effects: &mut Effects) {
        effects.batches.extend(self.collector.flush());
        if self.phase == Phase::Flushing && self.collector.is_answered() {
            self.phase = Phase::Left;
            self.say_goodbye(now, effects);
        }
        effects.done = self.phase == Phase::Left;
    }

    /// Devices come back one after another, not all at once.
    fn say_goodbye(&mut self, now: Now, effects: &mut Effects) {
        let sessions = self.sessions.iter();
        let mut leaving: Vec<(SessionId, Slot)> =
            sessions.map(|(slot, it)| (it.id, slot)).collect();
        leaving.sort_unstable();
        let spread_ms = u64::from(self.settings.shutdown_spread_ms);
        for (index, &(_, slot)) in (1..).zip(&leaving) {
            // 0 would mean the device's own backoff.
            let wait_ms = (spread_ms * index / leaving.len() as u64).max(1);
            let reason = EndReason::Closed(CloseReason::Shutdown);
            self.end(slot, reason, wait_ms as u32, now, effects);
        }
    }

    fn close(&mut self, slot: Slot, reason: CloseReason, now: Now, effects: &mut Effects) {
        self.end(slot, EndReason::Closed(reason), 0, now, effects);
    }

    /// Ends the session of a slot, if there is one, and forgets it.
    fn end(
        &mut self,
        slot: Slot,
        reason: EndReason,
        retry_after_ms: u32,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some(session) = self.sessions.remove(slot) else {
            return;
        };
        self.wheel.cancel(slot.0);
        let what = match reason {
            EndReason::Disconnected => Counter::Disconnected,
            EndReason::Closed(reason) => Counter::closed(reason),
        };
        self.counters.count(what);
        effects.explain(session.account_id, what);
        match reason {
            EndReason::Disconnected => {}
            EndReason::Closed(reason) => {
                let goodbye = Word::Goodbye {
                    reason,
                    retry_after_ms,
                };
                effects.say(slot, session.protocol, &goodbye);
                effects.closes.push(slot);
            }
        }
        let line = Presence::Ended {
            account_id: session.account_id,
            epoch: session.epoch,
            at_ms: batch::bigint(now.unix_ms),
            reason,
        };
        effects.presence.push(line);
        effects.ended.push(Ended {
            session: session.id,
            account_id: session.account_id,
            epoch: session.epoch,
            reason,
        });
        session.lose_command(&mut self.counters, effects);
    }

    fn asked(&mut self, session: SessionId, ask: Ask, now: Now, effects: &mut Effects) {
        let slot = self.sessions.slot_of(session);
        let found = slot.and_then(|slot| Some((slot, self.sessions.get(slot)?)));
        let Some((slot, session)) = found else {
            effects.answers.push(ask.unattached(&mut self.counters));
            return;
        };
        match ask.question {
            Question::Command(order) => self.command(slot, ask.asker, order, now, effects),
            Question::Look => {
                let look = Some(session.look(self.settings.window, now));
                effects.answers.push(Answer {
                    looked_at: Some(slot),
                    ..Answer::new(ask.asker, SessionLooked { look })
                });
            }
            // The device is to log in, not to resume: the contract's word for that is `replaced`.
            Question::Kick => {
                let epoch = Some(session.epoch);
                effects
                    .answers
                    .push(Answer::new(ask.asker, Kicked { epoch }));
                self.counters.count(Counter::Kicked);
                self.close(slot, CloseReason::Replaced, now, effects);
            }
        }
    }
}
