//! Pure. In which order what a shard asks for leaves it.
//!
//! ```text
//! lines ─▶ batches ─▶ one write for each socket ─▶ closes ─▶ ends ─▶ answers
//! ```
//!
//! Lines come before the batches, which may take them along. A socket is closed behind what is sent to it. The gate
//! hears of an end when the socket is closed, so that its place is not another's while it is open. Whoever asked for
//! something is told when it has been done.
//!
//! The loops of `driver` bring sockets and mailboxes, the simulated cluster what it has in their place.

use std::vec::Drain;

use super::{Effects, Ended, Input};
use crate::ask::Answer;
use crate::batch::{Batch, BatchOutcome};
use crate::ids::Slot;
use crate::presence::Presence;

/// Where it goes.
pub trait Outlets {
    /// What devices are told to wait where there is no room for their batch.
    fn overload_retry_ms(&self) -> u32;

    /// To the writer, which always has room for them.
    fn tell(&mut self, lines: Drain<'_, Presence>);

    /// To the writer.
    ///
    /// # Errors
    /// There is no room: the batch comes back.
    fn submit(&mut self, batch: Batch) -> Result<(), Batch>;

    /// All that a socket gets now. Returns what the core has to be told of it: [`Input::Unsent`],
    /// [`Input::Disconnected`].
    fn send(&mut self, slot: Slot, bytes: &[u8]) -> Option<Input<'static>>;

    /// Shut down writing, linger, close.
    fn close(&mut self, slot: Slot);

    /// To the gate.
    fn end(&mut self, ended: Ended);

    /// To a link.
    fn answer(&mut self, answer: Answer);
}

impl Effects {
    /// Lets go of all but what is explained. What came of it goes to `back`: to be applied before anything else.
    pub fn leave(&mut self, outlets: &mut impl Outlets, back: &mut Vec<Input<'static>>) {
        if !self.presence.is_empty() {
            outlets.tell(self.presence.drain(..));
        }
        for batch in self.batches.drain(..) {
            if let Err(batch) = outlets.submit(batch) {
                let retry_after_ms = outlets.overload_retry_ms();
                let outcome = BatchOutcome::Overloaded { retry_after_ms };
                back.push(Input::Finished { batch, outcome });
            }
        }
        self.write(outlets, back);
        for slot in self.closes.drain(..) {
            outlets.close(slot);
        }
        for ended in self.ended.drain(..) {
            outlets.end(ended);
        }
        for answer in self.answers.drain(..) {
            outlets.answer(answer);
        }
    }

    /// One write for each socket, whatever it gets.
    fn write(&mut self, outlets: &mut impl Outlets, back: &mut Vec<Input<'static>>) {
        let Self {
            out,
            sends,
            gathered,
            ..
        } = self;
        sends.sort_unstable_by_key(|send| (send.slot, send.bytes.start));
        for sends in sends.chunk_by(|a, b| a.slot == b.slot) {
            let slot = sends[0].slot;
            back.extend(match sends {
                [send] => outlets.send(slot, &out[send.bytes.clone()]),
                sends => {
                    gathered.clear();
                    for send in sends {
                        gathered.extend_from_slice(&out[send.bytes.clone()]);
                    }
                    outlets.send(slot, gathered)
                }
            });
        }
        sends.clear();
        out.clear();
    }
}
