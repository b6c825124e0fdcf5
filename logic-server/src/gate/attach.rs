//! Pure. The first frame of a connection, judged: in, or out with an answer.
//!
//! ```text
//!                           ┌─ wrong header, body, kind; more than 512 bytes ──▶ Close(protocol_error)
//! bytes ──▶ a whole frame ──┼─ Resume ─────────────────────────────────────────▶ not_admitted
//!                           └─ Attach ── ticket, source, proof ── any wrong ───▶ not_admitted
//!                                          │ right: the ticket is used up
//!                                          ├─ shutting down ───────────────────▶ draining
//!                                          ├─ a newer epoch was attached ──────▶ not_admitted
//!                                          ╰─▶ a shard; AttachReply comes from there
//! ```

use std::mem;
use std::net::IpAddr;

use common::device::attach::{Attach, AttachReply, AttachVerdict};
use common::device::close::Close;
use common::device::code::CloseReason;
use common::device::error::MessageError;
use common::device::frame::{self, FRAME_BYTES_BEFORE_ATTACH_MAX, Frame, Parsed};
use common::device::message::FromDevice;
use common::ids::AccountId;
use common::pacing::Source;
use common::time::Now;
use rand::RngExt;

use super::grants::Grant;
use super::places::Current;
use super::{Core, Effect, end_session};
use crate::counters::Counter;
use crate::ids::{ConnId, SessionId};
use crate::shard::SessionSeed;

/// Why a connection is not admitted, and what it is told.
struct Refusal {
    why: Counter,
    /// Whose ticket it showed.
    account_id: Option<AccountId>,
    answer: Answer,
}

enum Answer {
    NotAdmitted,
    Draining,
    /// The contract was broken: a Close.
    Broken,
}

impl Refusal {
    fn not_admitted(why: Counter, account_id: Option<AccountId>) -> Self {
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

/// A right Attach, and the grant that it used up.
struct Admitted {
    attach: Attach,
    attach_frame_id: u16,
    grant: Grant,
    source: IpAddr,
}

impl Core {
    pub(super) fn received(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(connection) = self.pending.get_mut(conn) else {
            return;
        };
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
            return self.refuse(conn, 0, refusal, now, effects);
        }
        match frame::parse(bytes, FRAME_BYTES_BEFORE_ATTACH_MAX) {
            Ok(Parsed::Incomplete { .. }) => connection.bytes = bytes.to_vec(),
            Ok(Parsed::Frame { frame, consumed }) => match self.judge(&frame, source) {
                Ok(admitted) => {
                    let unread = bytes[consumed..].to_vec();
                    self.hand_over(conn, admitted, unread, now, effects);
                }
                Err(refusal) => self.refuse(conn, frame.id, refusal, now, effects),
            },
            Err(error) => {
                let refusal = Refusal::broken(Counter::frame(error));
                self.refuse(conn, 0, refusal, now, effects);
            }
        }
    }

    fn judge(&mut self, frame: &Frame<'_>, source: IpAddr) -> Result<Admitted, Refusal> {
        match FromDevice::decode(frame) {
            Ok(FromDevice::Attach(attach)) => Ok(Admitted {
                grant: self.use_up(&attach, source.into())?,
                attach,
                attach_frame_id: frame.id,
                source,
            }),
            Ok(FromDevice::Resume(_)) => {
                Err(Refusal::not_admitted(Counter::NotAdmittedResume, None))
            }
            Ok(_) | Err(MessageError::UnknownKind | MessageError::WrongDirection) => {
                Err(Refusal::broken(Counter::FrameState))
            }
            Err(MessageError::Body(_) | MessageError::TelemetryCannotBeCut { .. }) => {
                Err(Refusal::broken(Counter::FrameBody))
            }
        }
    }

    /// The ticket's grant. Only a right proof from an allowed address uses it up.
    fn use_up(&mut self, attach: &Attach, source: Source) -> Result<Grant, Refusal> {
        let grant = self
            .grants
            .get(&attach.ticket)
            .ok_or(Refusal::not_admitted(Counter::NotAdmittedTicket, None))?;
        let account_id = Some(grant.account_id);
        if !grant.admits_from(source) {
            let why = Counter::NotAdmittedSource;
            return Err(Refusal::not_admitted(why, account_id));
        }
        if !attach.verify(&grant.session_key) {
            let why = Counter::NotAdmittedProof;
            return Err(Refusal::not_admitted(why, account_id));
        }
        let grant = grant.clone();
        self.grants.close(&attach.ticket);

        if self.draining {
            self.grant_ended(&grant);
            return Err(Refusal {
                why: Counter::AttachDraining,
                account_id,
                answer: Answer::Draining,
            });
        }
        if !self.places.is_newest(grant.account_id, grant.epoch) {
            self.grant_ended(&grant);
            let why = Counter::NotAdmittedEpoch;
            return Err(Refusal::not_admitted(why, account_id));
        }
        Ok(grant)
    }

    /// The account's current session from now on, in a shard; an older one ends.
    fn hand_over(
        &mut self,
        conn: ConnId,
        admitted: Admitted,
        unread: Vec<u8>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Admitted { grant, attach, .. } = &admitted;
        let account_id = grant.account_id;
        self.sessions += 1;
        let current = Current {
            session: SessionId(self.sessions),
            shard: self.places.idlest_shard(),
            epoch: grant.epoch,
            account_version: grant.account_version,
        };
        let replaced = self.places.attached(account_id, current);
        self.places.grant_closed(account_id);
        // An older grant would never be admitted any more: its place is worth more.
        let is_older = |other: &Grant| other.epoch < grant.epoch;
        for older in self.grants.close_of_account(account_id, is_older) {
            self.counters.count(Counter::GrantSuperseded);
            self.grant_ended(&older);
        }
        self.notices.attached(account_id, &current);
        self.counters.count(Counter::Attached);
        self.pending.forget(conn);

        if let Some(replaced) = replaced {
            effects.push(end_session(&replaced, CloseReason::Replaced));
        }
        effects.push(Effect::Admit {
            conn,
            shard: current.shard,
            seed: SessionSeed {
                session: current.session,
                account_id,
                epoch: grant.epoch,
                session_key: grant.session_key,
                ticket: attach.ticket,
                source: admitted.source,
                attach_frame_id: admitted.attach_frame_id,
                heartbeat_s: grant.heartbeat_s.unwrap_or(self.settings.heartbeat_s),
                attached_unix_ms: now.unix_ms,
            },
            unread,
        });
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
                let spread_ms = self.settings.shutdown_spread_ms.max(1);
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

    /// Ends a connection that is not attached.
    pub(super) fn close(
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
}
