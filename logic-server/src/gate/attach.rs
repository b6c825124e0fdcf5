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
use rand::RngExt;

use super::grants::{Grant, Source};
use super::places::Current;
use super::{Core, Effect, end_session};
use crate::counters::Counter;
use crate::ids::{ConnId, Now, SessionId};
use crate::shard::SessionSeed;

/// Why a connection is not admitted, and what it is told.
enum Refusal {
    NotAdmitted(Counter),
    Draining,
    /// The contract was broken.
    Broken(Counter),
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
            let refusal = Refusal::Broken(Counter::FrameEarly);
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
                let refusal = Refusal::Broken(Counter::frame(error));
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
            Ok(FromDevice::Resume(_)) => Err(Refusal::NotAdmitted(Counter::NotAdmittedResume)),
            Ok(_) | Err(MessageError::UnknownKind | MessageError::WrongDirection) => {
                Err(Refusal::Broken(Counter::FrameState))
            }
            Err(MessageError::Body(_) | MessageError::TelemetryCannotBeCut { .. }) => {
                Err(Refusal::Broken(Counter::FrameBody))
            }
        }
    }

    /// The ticket's grant. Only a right proof from an allowed address uses it up.
    fn use_up(&mut self, attach: &Attach, source: Source) -> Result<Grant, Refusal> {
        let grant = self
            .grants
            .get(&attach.ticket)
            .ok_or(Refusal::NotAdmitted(Counter::NotAdmittedTicket))?;
        if !grant.admits_from(source) {
            return Err(Refusal::NotAdmitted(Counter::NotAdmittedSource));
        }
        if !attach.verify(&grant.session_key) {
            return Err(Refusal::NotAdmitted(Counter::NotAdmittedProof));
        }
        let grant = grant.clone();
        self.grants.close(&attach.ticket);

        if self.draining {
            self.grant_ended(&grant);
            return Err(Refusal::Draining);
        }
        if !self.places.is_newest(grant.account_id, grant.epoch) {
            self.grant_ended(&grant);
            return Err(Refusal::NotAdmitted(Counter::NotAdmittedEpoch));
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
        match refusal {
            Refusal::Broken(how) => {
                self.counters.count(how);
                self.close(conn, CloseReason::ProtocolError, effects);
            }
            Refusal::NotAdmitted(why) => {
                self.counters.count(why);
                let reply = AttachReply {
                    retry_after_ms: 0,
                    server_time_ms: now.unix_ms,
                    verdict: AttachVerdict::NotAdmitted,
                };
                self.drop_with(conn, |out| reply.encode(frame_id, out), effects);
            }
            Refusal::Draining => {
                self.counters.count(Counter::AttachDraining);
                let spread_ms = self.settings.shutdown_spread_ms;
                let reply = AttachReply {
                    // 0 would mean the device's own backoff.
                    retry_after_ms: self.rng.random_range(1..=spread_ms.max(1)),
                    server_time_ms: now.unix_ms,
                    verdict: AttachVerdict::Draining,
                };
                self.drop_with(conn, |out| reply.encode(frame_id, out), effects);
            }
        }
    }

    /// Ends a connection that is not attached.
    pub(super) fn close(&mut self, conn: ConnId, reason: CloseReason, effects: &mut Vec<Effect>) {
        self.counters.count(Counter::closed(reason));
        let close = Close {
            reason,
            retry_after_ms: 0,
        };
        self.drop_with(conn, |out| close.encode(out), effects);
    }

    fn drop_with(
        &mut self,
        conn: ConnId,
        encode: impl FnOnce(&mut Vec<u8>),
        effects: &mut Vec<Effect>,
    ) {
        self.pending.forget(conn);
        let mut reply = vec![];
        encode(&mut reply);
        effects.push(Effect::Refuse { conn, reply });
    }
}
