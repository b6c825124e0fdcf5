//! Pure. What a shard asks its driver to do.

use std::ops::Range;

use common::epoch::Epoch;
use common::ids::AccountId;
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::adapter::{Protocol, Word};
use crate::ask::Answer;
use crate::batch::{Batch, Flawed};
use crate::counters::Counter;
use crate::ids::{SessionId, Slot};
use crate::presence::{EndReason, Presence};

/// Bytes for one session, in [`Effects::out`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub slot: Slot,
    pub bytes: Range<usize>,
}

/// A session is over; the gate is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub session: SessionId,
    pub account_id: AccountId,
    pub epoch: Epoch,
    pub reason: EndReason,
}

/// What went wrong with a device, for whoever looks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained {
    pub account_id: AccountId,
    pub what: Counter,
    /// Of [`Counter::RecordsFlawed`], the first of its frame.
    pub record: Option<Flawed>,
}

/// What a shard asks for. The driver carries it out and clears it; kept, it stops allocating.
#[derive(Debug, Default)]
pub struct Effects {
    pub out: Vec<u8>,
    /// In order; what one turn has for a session stands together where it can.
    pub sends: Vec<Send>,
    /// After their sends: shut down writing, linger, close. The shard has forgotten the session;
    /// the slot may be used again when the driver is done with it. A slot whose device went
    /// (`Disconnected`) is not named here.
    pub closes: Vec<Slot>,
    /// To the writer; the lines first, so that they go with the batches.
    pub presence: Vec<Presence>,
    pub batches: Vec<Batch>,
    /// To the gate.
    pub ended: Vec<Ended>,
    /// To the links.
    pub answers: Vec<Answer>,
    pub explained: Vec<Explained>,
    /// After `Shutdown`, at a `Tick` when every batch is back and every session has been told, and at each from
    /// then on; after `Abandon`, at the next one.
    pub done: bool,
    /// What one socket gets, where it is not in one piece.
    pub(super) gathered: Vec<u8>,
}

impl Effects {
    pub fn clear(&mut self) {
        self.out.clear();
        self.sends.clear();
        self.closes.clear();
        self.presence.clear();
        self.batches.clear();
        self.ended.clear();
        self.answers.clear();
        self.explained.clear();
        self.done = false;
    }

    pub(super) fn explain(&mut self, account_id: AccountId, what: Counter) {
        self.explained.push(Explained {
            account_id,
            what,
            record: None,
        });
    }

    /// The word goes to `slot`, in one piece with what that was told just before.
    pub(super) fn say(&mut self, slot: Slot, protocol: Protocol, word: &Word<'_>) {
        let start = self.out.len();
        protocol.write(word, &mut self.out);
        let end = self.out.len();
        match self.sends.last_mut() {
            Some(last) if last.slot == slot && last.bytes.end == start => last.bytes.end = end,
            _ if start == end => {}
            _ => self.sends.push(Send {
                slot,
                bytes: start..end,
            }),
        }
    }
}

/// A wait between `least_ms` and `least_ms + width_ms`: who is turned away together does not come
/// back together.
pub(super) fn spread(rng: &mut SmallRng, least_ms: u32, width_ms: u32) -> u32 {
    least_ms.saturating_add(rng.random_range(0..=width_ms))
}
