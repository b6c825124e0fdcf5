//! Pure. Connections that are not attached: the first frame of each, and who is let out with what answer.
//!
//! ```text
//!                           ┌─ wrong header, body, kind; more than 512 bytes ──▶ Close(protocol_error)
//! bytes ──▶ a whole frame ──┼─ Resume ─────────────────────────────────────────▶ not_admitted
//!                           └─ Attach ── Claim ──▶ register ─┬─ not_admitted, draining ─▶ AttachReply
//!                              it is judged once             ╰─ a seat ─▶ a shard; AttachReply comes from there
//! ```
//!
//! The door asks the register two things: whether anybody is expected from an address, before a connection costs
//! anything, and what becomes of a claim. It keeps nothing of what the register knows, so there may be several.

use std::mem;
use std::net::IpAddr;

use common::ids::AccountId;
use common::time::Now;
use protocols::rcu::attach::{Attach, AttachReply, AttachVerdict};
use protocols::rcu::close::Close;
use protocols::rcu::code::CloseReason;
use protocols::rcu::error::MessageError;
use protocols::rcu::frame::{self, FRAME_BYTES_BEFORE_ATTACH_MAX, Frame, Parsed};
use protocols::rcu::message::FromDevice;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::pending::{Pending, State};
use super::{Effect, Settings};
use crate::counters::{Counter, Counters};
use crate::ids::{ConnId, ShardIndex};
use crate::shard::SessionSeed;

/// An Attach that is one. Whether it is right, the register says.
pub(super) struct Claim {
    pub(super) conn: ConnId,
    pub(super) source: IpAddr,
    pub(super) attach: Attach,
    pub(super) attach_frame_id: u16,
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
    /// The contract was broken: a Close.
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
        source: IpAddr,
        is_expected: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.counters.count(Counter::Accepted);
        if !is_expected {
            self.count_refusal(source, Counter::WithoutGrant, effects);
            return effects.push(drop_silently(conn));
        }
        let late_at_ms = now.ms + self.first_frame_ms;
        if let Some((shed, source)) = self.pending.accept(conn, source, late_at_ms) {
            self.count_refusal(source, Counter::PendingShed, effects);
            effects.push(drop_silently(shed));
        }
    }

    pub(super) fn disconnected(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        if let Some(source) = self.pending.forget(conn) {
            self.count_refusal(source, Counter::PendingDisconnected, effects);
        }
    }

    /// A claim is answered by [`Door::judged`]; until then what comes of the connection is kept, as far as the
    /// contract allows any.
    pub(super) fn received(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<Claim> {
        let connection = self.pending.get_mut(conn)?;
        let source = connection.source;
        // A frame that comes in one piece, as nearly all do, is looked at where it is.
        let mut kept = mem::take(&mut connection.bytes);
        let bytes = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept
        };
        // More may follow an Attach without waiting for its reply, but not more than this.
        if bytes.len() > FRAME_BYTES_BEFORE_ATTACH_MAX {
            let refusal = Refusal::broken(Counter::FrameEarly);
            self.refuse(conn, 0, refusal, now, effects);
            return None;
        }
        if connection.state == State::Asked {
            connection.bytes = bytes.to_vec();
            return None;
        }
        match frame::parse(bytes, FRAME_BYTES_BEFORE_ATTACH_MAX) {
            Ok(Parsed::Incomplete { .. }) => connection.bytes = bytes.to_vec(),
            Ok(Parsed::Frame { frame, consumed }) => match attach(&frame) {
                Ok(attach) => {
                    connection.state = State::Asked;
                    connection.bytes = bytes[consumed..].to_vec();
                    return Some(Claim {
                        conn,
                        source,
                        attach,
                        attach_frame_id: frame.id,
                    });
                }
                Err(refusal) => self.refuse(conn, frame.id, refusal, now, effects),
            },
            Err(error) => {
                let refusal = Refusal::broken(Counter::frame(error));
                self.refuse(conn, 0, refusal, now, effects);
            }
        }
        None
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
        let Seat { shard, seed } = match verdict {
            Ok(seat) => seat,
            Err(refusal) => {
                self.refuse(conn, claim.attach_frame_id, refusal, now, effects);
                return Ok(());
            }
        };
        let Some(connection) = self.pending.get_mut(conn) else {
            return Err(Seat { shard, seed });
        };
        let unread = mem::take(&mut connection.bytes);
        self.pending.forget(conn);
        effects.push(Effect::Admit {
            conn,
            shard,
            seed,
            unread,
        });
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
        let (retry_after_ms, verdict) = match answer {
            Answer::Broken => {
                let because = (account_id, why);
                return self.close(conn, CloseReason::ProtocolError, because, effects);
            }
            Answer::NotAdmitted => (0, AttachVerdict::NotAdmitted),
            Answer::Draining => {
                // 0 would mean the device's own backoff.
                let spread_ms = self.shutdown_spread_ms.max(1);
                (
                    self.rng.random_range(1..=spread_ms),
                    AttachVerdict::Draining,
                )
            }
        };
        let reply = AttachReply {
            retry_after_ms,
            server_time_ms: now.unix_ms,
            verdict,
        };
        let encode = |out: &mut Vec<u8>| reply.encode(frame_id, out);
        self.drop_with(conn, encode, (account_id, why), effects);
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
        let close = Close {
            reason,
            retry_after_ms: 0,
        };
        self.drop_with(conn, |out| close.encode(out), because, effects);
    }

    fn drop_with(
        &mut self,
        conn: ConnId,
        encode: impl FnOnce(&mut Vec<u8>),
        (account_id, why): (Option<AccountId>, Counter),
        effects: &mut Vec<Effect>,
    ) {
        let mut reply = vec![];
        encode(&mut reply);
        effects.push(Effect::Refuse { conn, reply });
        if let Some(source) = self.pending.forget(conn) {
            effects.push(Effect::Explain {
                source,
                account_id,
                why,
            });
        }
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

/// The first frame of a connection.
fn attach(frame: &Frame<'_>) -> Result<Attach, Refusal> {
    match FromDevice::decode(frame) {
        Ok(FromDevice::Attach(attach)) => Ok(attach),
        Ok(FromDevice::Resume(_)) => Err(Refusal::not_admitted(Counter::NotAdmittedResume, None)),
        Ok(_) | Err(MessageError::UnknownKind | MessageError::WrongDirection) => {
            Err(Refusal::broken(Counter::FrameState))
        }
        Err(MessageError::Body(_) | MessageError::TelemetryCannotBeCut { .. }) => {
            Err(Refusal::broken(Counter::FrameBody))
        }
    }
}

fn drop_silently(conn: ConnId) -> Effect {
    Effect::Refuse {
        conn,
        reply: vec![],
    }
}
