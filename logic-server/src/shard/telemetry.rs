//! Pure. Records in, acknowledgements out: the window, and the answers that come with a batch.

use protocols::rcu::code::CloseReason;
use protocols::rcu::limit::OVERLOADED_WINDOWS;
use records::RawRecord;

use super::Shard;
use super::effects::{Effects, Explained, spread};
use super::session::{Session, Turn};
use crate::adapter::{Receipt, Word};
use crate::batch::{Batch, BatchOutcome, Sender};
use crate::counters::Counter;

impl Session {
    pub(super) fn records<'a>(
        &mut self,
        receipt: Receipt,
        records: impl Iterator<Item = RawRecord<'a>> + Clone,
        turn: &mut Turn<'_>,
    ) -> Result<(), CloseReason> {
        if !self.may_take(receipt, turn)? {
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
            .frame(sender, receipt, records, turn.now, full);
        turn.counters.count(Counter::Telemetry);
        turn.counters.add(Counter::Records, receipt.count.into());
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
    pub(super) fn malformed_records(
        &mut self,
        receipt: Receipt,
        turn: &mut Turn<'_>,
    ) -> Result<(), CloseReason> {
        if self.may_take(receipt, turn)? {
            self.explained(Counter::TelemetryMalformed, turn);
            self.say(&Word::Malformed(receipt), turn);
        }
        Ok(())
    }

    /// Whether there is a place in the window. Where there is none the frame is answered
    /// `overloaded`, and who does not care is sent away.
    fn may_take(&mut self, receipt: Receipt, turn: &mut Turn<'_>) -> Result<bool, CloseReason> {
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
        let word = Word::NotNow {
            receipt,
            retry_after_ms: spread(turn.rng, retry_ms, retry_ms),
        };
        self.say(&word, turn);
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
        self.counters.add(
            match outcome {
                BatchOutcome::Stored => Counter::TelemetryStored,
                BatchOutcome::Overloaded { .. } => Counter::TelemetryOverloaded,
            },
            frames,
        );
        for waiting in &batch.acks {
            // The slot may be another session's by now, or nobody's.
            let Some(session) = self
                .sessions
                .get_mut(waiting.slot)
                .filter(|session| session.id == waiting.session)
            else {
                self.counters.count(Counter::AckDropped);
                continue;
            };
            session.place_freed(window);
            if let Some(records) = batch.contradicting.remove(&session.account_id) {
                session.contradicted(records);
            }
            let receipt = waiting.receipt();
            let word = match outcome {
                BatchOutcome::Stored => Word::Stored(receipt),
                BatchOutcome::Overloaded { retry_after_ms } => {
                    effects.explain(session.account_id, Counter::TelemetryOverloaded);
                    // What the device sends again may have been written, with an unknown outcome.
                    session.may_repeat = window;
                    Word::NotNow {
                        receipt,
                        retry_after_ms: spread(&mut self.rng, retry_after_ms, retry_after_ms),
                    }
                }
            };
            effects.say(waiting.slot, session.protocol, &word);
        }
        self.collector.give_back(batch);
    }
}
