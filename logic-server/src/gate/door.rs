//! Pure. Connections that are not attached: the first frame of each, and who is let out with what answer.
//!
//! ```text
//!                           ┌─ none that the protocol allows there, or too many bytes ──▶ goodbye
//! bytes ──▶ a whole frame ──┤
//!                           └─ Claim ──▶ register ─┬─ not admitted, draining ─▶ it is told so
//!                              it is judged once   ╰─ a seat ─▶ a shard, from where it is welcomed
//! ```
//!
//! The door asks the register two things: whether anybody is expected from an address, before a connection costs
//! anything, and what becomes of a claim. It keeps nothing of what the register knows, so there may be several.

use std::mem;
use std::net::IpAddr;

use common::ids::AccountId;
use common::time::Now;
use protocols::rcu::code::CloseReason;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::pending::{Connection, Pending, State};
use super::{Effect, Listener, Settings};
use crate::adapter::{Adapter, Cut, Evidence, Heard, Protocol, Word, with_adapter};
use crate::counters::{Counter, Counters};
use crate::ids::{ConnId, ListenerIndex, ShardIndex};
use crate::shard::SessionSeed;

/// Who a device says that it is. Whether it is right, the register says.
pub(super) struct Claim {
    pub(super) conn: ConnId,
    /// Which of the connections of this id.
    pub(super) arrival: u64,
    pub(super) source: IpAddr,
    pub(super) protocol: Protocol,
    pub(super) frame_id: u16,
    pub(super) evidence: Evidence,
}

/// What the register makes of a claim.
pub(super) type Verdict = Result<Seat, Refusal>;

/// A place that the account has from now on.
pub(super) struct Seat {
    pub(super) shard: ShardIndex,
    pub(super) seed: SessionSeed,
}

/// Why a connection is not admitted, and what it is told.
pub(super) struct Refusal {
    pub(super) why: Counter,
    /// Whose ticket it showed.
    pub(super) account_id: Option<AccountId>,
    pub(super) answer: Answer,
}

pub(super) enum Answer {
    NotAdmitted,
    Draining,
    /// The protocol was broken.
    Broken,
}

impl Refusal {
    pub(super) fn not_admitted(why: Counter, account_id: Option<AccountId>) -> Self {
        Self {
            why,
            account_id,
            answer: Answer::NotAdmitted,
        }
    }

    fn broken(why: Counter) -> Self {
        Self {
            why,
            account_id: None,
            answer: Answer::Broken,
        }
    }
}

pub(super) struct Door {
    pending: Pending,
    listeners: Vec<Listener>,
    first_frame_ms: u64,
    shutdown_spread_ms: u32,
    counters: Counters,
    rng: SmallRng,
}

impl Door {
    /// `seed` governs the spread of retry times.
    pub(super) fn new(settings: &Settings, seed: u64) -> Self {
        Self {
            pending: Pending::new(settings.pending_max),
            listeners: settings.listeners.clone(),
            first_frame_ms: settings.first_frame_ms,
            shutdown_spread_ms: settings.shutdown_spread_ms,
            counters: Counters::default(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections that are not attached.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Of them, what is kept of their first frames.
    pub(super) fn bytes(&self) -> usize {
        self.pending.bytes()
    }

    pub(super) fn protocol(&self, listener: ListenerIndex) -> Protocol {
        self.listeners[listener.index()].protocol
    }

    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.pending.next_late_ms()
    }

    pub(super) fn let_time_pass(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(conn) = self.pending.next_late(now.ms) {
            let because = (None, Counter::ClosedAttachTimeout);
            self.close(conn, CloseReason::AttachTimeout, because, effects);
        }
    }

    /// `is_expected`: somebody may attach from there.
    pub(super) fn accepted(
        &mut self,
        conn: ConnId,
        (listener, source): (ListenerIndex, IpAddr),
        is_expected: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.counters.count(Counter::Accepted);
        if !is_expected {
            self.count_refusal(source, Counter::WithoutGrant, effects);
            return effects.push(drop_silently(conn));
        }
        let protocol = self.protocol(listener);
        let late_at_ms = now.ms + self.first_frame_ms;
        if let Some((shed, source)) = self.pending.accept(conn, protocol, source, late_at_ms) {
            self.count_refusal(source, Counter::PendingShed, effects);
            effects.push(drop_silently(shed));
        }
    }

    pub(super) fn disconnected(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        if let Some(Connection { source, .. }) = self.pending.forget(conn) {
            self.count_refusal(source, Counter::PendingDisconnected, effects);
        }
    }

    /// A claim is answered by [`Door::judged`]; until then what comes of the connection is kept, as far as the
    /// protocol allows any.
    pub(super) fn received(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<Claim> {
        let protocol = self.pending.get_mut(conn)?.protocol;
        let received = with_adapter!(protocol, A => self.first_frame::<A>(conn, bytes));
        received.unwrap_or_else(|refusal| {
            self.refuse(conn, 0, refusal, now, effects);
            None
        })
    }

    /// # Errors
    /// What came is no claim, and nothing that may become one.
    fn first_frame<A: Adapter>(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
    ) -> Result<Option<Claim>, Refusal> {
        let Some(connection) = self.pending.get_mut(conn) else {
            return Ok(None);
        };
        // A frame that comes in one piece, as nearly all do, is looked at where it is.
        let mut kept = mem::take(&mut connection.bytes);
        let bytes = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept
        };
        // More may follow a claim without waiting for its answer, but not more than this.
        if bytes.len() > A::BYTES_BEFORE_ADMISSION_MAX {
            return Err(Refusal::broken(Counter::FrameEarly));
        }
        if connection.state == State::Asked {
            connection.bytes = bytes.to_vec();
            return Ok(None);
        }
        let cut = A::cut(bytes, A::BYTES_BEFORE_ADMISSION_MAX).map_err(Refusal::broken)?;
        let Cut::Frame { frame, consumed } = cut else {
            connection.bytes = bytes.to_vec();
            return Ok(None);
        };
        match A::read(&frame).map_err(Refusal::broken)? {
            Heard::Claim { frame_id, evidence } => {
                connection.state = State::Asked;
                connection.bytes = bytes[consumed..].to_vec();
                Ok(Some(Claim {
                    conn,
                    arrival: connection.arrival,
                    source: connection.source,
                    protocol: connection.protocol,
                    frame_id,
                    evidence,
                }))
            }
            Heard::Malformed { .. } => Err(Refusal::broken(Counter::FrameBody)),
            Heard::Alive { .. } | Heard::Records { .. } | Heard::Answer(_) | Heard::Unknown => {
                Err(Refusal::broken(Counter::FrameState))
            }
        }
    }

    /// The answer to a claim.
    ///
    /// # Errors
    /// The connection is gone: nobody takes the seat.
    pub(super) fn judged(
        &mut self,
        claim: &Claim,
        verdict: Verdict,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Seat> {
        let conn = claim.conn;
        // Its id may be another connection's by now.
        let connection = self.pending.get_mut(conn);
        let connection = connection.filter(|it| it.arrival == claim.arrival);
        match (verdict, connection) {
            (Ok(seat), None) => return Err(seat),
            (Err(_), None) => {}
            (Err(refusal), Some(_)) => self.refuse(conn, claim.frame_id, refusal, now, effects),
            (Ok(Seat { shard, seed }), Some(connection)) => {
                let unread = mem::take(&mut connection.bytes);
                self.pending.forget(conn);
                effects.push(Effect::Admit {
                    conn,
                    shard,
                    seed,
                    unread,
                });
            }
        }
        Ok(())
    }

    fn refuse(
        &mut self,
        conn: ConnId,
        frame_id: u16,
        refusal: Refusal,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Refusal {
            why,
            account_id,
            answer,
        } = refusal;
        self.counters.count(why);
        let unix_ms = now.unix_ms;
        let word = match answer {
            Answer::Broken => {
                let because = (account_id, why);
                return self.close(conn, CloseReason::ProtocolError, because, effects);
            }
            Answer::NotAdmitted => Word::NotAdmitted { frame_id, unix_ms },
            Answer::Draining => Word::Draining {
                frame_id,
                // 0 would mean the device's own backoff.
                retry_after_ms: self.rng.random_range(1..=self.shutdown_spread_ms.max(1)),
                unix_ms,
            },
        };
        self.part(conn, &word, (account_id, why), effects);
    }

    /// Ends a connection.
    fn close(
        &mut self,
        conn: ConnId,
        reason: CloseReason,
        because: (Option<AccountId>, Counter),
        effects: &mut Vec<Effect>,
    ) {
        self.counters.count(Counter::closed(reason));
        let goodbye = Word::Goodbye {
            reason,
            retry_after_ms: 0,
        };
        self.part(conn, &goodbye, because, effects);
    }

    /// Forgets a connection that has not gone, with a last word.
    fn part(
        &mut self,
        conn: ConnId,
        word: &Word<'_>,
        (account_id, why): (Option<AccountId>, Counter),
        effects: &mut Vec<Effect>,
    ) {
        let Some(Connection {
            protocol, source, ..
        }) = self.pending.forget(conn)
        else {
            return;
        };
        let mut reply = vec![];
        protocol.write(word, &mut reply);
        effects.push(Effect::Refuse { conn, reply });
        effects.push(Effect::Explain {
            source,
            account_id,
            why,
        });
    }

    /// A connection ends without a session, and without a word.
    fn count_refusal(&mut self, source: IpAddr, why: Counter, effects: &mut Vec<Effect>) {
        self.counters.count(why);
        effects.push(Effect::Explain {
            source,
            account_id: None,
            why,
        });
    }
}

fn drop_silently(conn: ConnId) -> Effect {
    Effect::Refuse {
        conn,
        reply: vec![],
    }
}
