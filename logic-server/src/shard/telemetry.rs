//! Pure. Telemetry in, TelemetryAck out: the window, and the answers that come with a batch.

use protocols::rcu::code::{AckStatus, CloseReason};
use protocols::rcu::limit::OVERLOADED_WINDOWS;
use protocols::rcu::telemetry::{Telemetry, TelemetryAck};

use super::Shard;
use super::effects::{Effects, Explained, spread};
use super::session::{Session, Turn};
use crate::batch::{Batch, BatchOutcome, Sender};
use crate::counters::Counter;

impl Session {
    pub(super) fn telemetry(
        &mut self,
        frame_id: u16,
        telemetry: &Telemetry<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), CloseReason> {
        let (base_seq, count) = (telemetry.base_seq(), telemetry.count());
        if !self.may_take(frame_id, base_seq, count, turn)? {
            return Ok(());
        }
        self.frames_open += 1;
        let sender = Sender {
            account_id: self.account_id,
            session: self.id,
            slot: turn.slot,
            may_repeat: self.may_repeat > 0,
        };
        self.may_repeat = self.may_repeat.saturating_sub(1);
        let full = &mut turn.effects.batches;
        let (flawed, first) = turn
            .collector
            .telemetry(sender, frame_id, telemetry, turn.now, full);
        turn.counters.count(Counter::Telemetry);
        turn.counters.add(Counter::Records, count.into());
        turn.counters.add(Counter::RecordsFlawed, flawed);
        if first.is_some() {
            turn.effects.explained.push(Explained {
                account_id: self.account_id,
                what: Counter::RecordsFlawed,
                record: first,
            });
        }
        Ok(())
    }

    /// Cannot be cut into records, and is told so at once: it takes no place in the window. But
    /// one that comes beyond the window is answered like any other that does.
    pub(super) fn malformed_telemetry(
        &mut self,
        frame_id: u16,
        base_seq: u64,
        count: u8,
        turn: &mut Turn<'_>,
    ) -> Result<(), CloseReason> {
        if self.may_take(frame_id, base_seq, count, turn)? {
            self.explained(Counter::TelemetryMalformed, turn);
            let ack = TelemetryAck {
                base_seq,
                count,
                status: AckStatus::Malformed,
                retry_after_ms: 0,
            };
            turn.effects
                .send(turn.slot, |out| ack.encode(frame_id, out));
        }
        Ok(())
    }

    /// Whether there is a place in the window. Where there is none the frame is answered
    /// `overloaded`, and who does not care is sent away.
    fn may_take(
        &mut self,
        frame_id: u16,
        base_seq: u64,
        count: u8,
        turn: &mut Turn<'_>,
    ) -> Result<bool, CloseReason> {
        if !turn.takes_telemetry {
            // Close(shutdown) is about to come; the device sends the frame again elsewhere.
            turn.counters.count(Counter::TelemetryAtShutdown);
            return Ok(false);
        }
        let window = turn.settings.window;
        if self.frames_open < window {
            return Ok(true);
        }
        self.explained(Counter::TelemetryBeyondWindow, turn);
        let retry_ms = turn.settings.overload_retry_ms;
        let ack = TelemetryAck {
            base_seq,
            count,
            status: AckStatus::Overloaded,
            retry_after_ms: spread(turn.rng, retry_ms, retry_ms),
        };
        turn.effects
            .send(turn.slot, |out| ack.encode(frame_id, out));
        self.frames_open += 1;
        let beyond_window = self.frames_open - window;
        if u32::from(beyond_window) >= OVERLOADED_WINDOWS * u32::from(window) {
            return Err(CloseReason::ProtocolError);
        }
        Ok(false)
    }

    /// Telemetry frames that are at the store.
    pub(super) fn unanswered(&self, window: u16) -> u16 {
        self.frames_open.min(window)
    }

    /// An ack is on its way to the device.
    fn place_freed(&mut self, window: u16) {
        let unanswered = self.unanswered(window).checked_sub(1);
        self.frames_open = unanswered.expect("a frame was unanswered");
    }
}

impl Shard {
    /// Answers the frames of a batch that came back: the only place where `stored` is said.
    pub(super) fn finished(
        &mut self,
        mut batch: Batch,
        outcome: BatchOutcome,
        effects: &mut Effects,
    ) {
        let window = self.settings.window;
        let frames = batch.acks.len() as u64;
        let status = match outcome {
            BatchOutcome::Stored => {
                self.counters.add(Counter::TelemetryStored, frames);
                AckStatus::Stored
            }
            BatchOutcome::Overloaded { .. } => {
                self.counters.add(Counter::TelemetryOverloaded, frames);
                AckStatus::Overloaded
            }
        };
        for waiting in &batch.acks {
            // The slot may be another session's by now, or nobody's.
            let Some(session) = self
                .sessions
                .get_mut(waiting.slot.index())
                .and_then(Option::as_mut)
                .filter(|session| session.id == waiting.session)
            else {
                self.counters.count(Counter::AckDropped);
                continue;
            };
            session.place_freed(window);
            if let Some(records) = batch.contradicting.remove(&session.account_id) {
                session.contradicting = session.contradicting.saturating_add(records as u32);
            }
            let retry_after_ms = match outcome {
                BatchOutcome::Stored => 0,
                BatchOutcome::Overloaded { retry_after_ms } => {
                    effects.explain(session.account_id, Counter::TelemetryOverloaded);
                    // What the device sends again may have been written, with an unknown outcome.
                    session.may_repeat = window;
                    spread(&mut self.rng, retry_after_ms, retry_after_ms)
                }
            };
            let ack = TelemetryAck {
                base_seq: waiting.base_seq,
                count: waiting.count,
                status,
                retry_after_ms,
            };
            effects.send(waiting.slot, |out| ack.encode(waiting.frame_id, out));
        }
        self.collector.give_back(batch);
    }
}
