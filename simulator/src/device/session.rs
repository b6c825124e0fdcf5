//! Pure. The long connection from AttachReply to its end, and where the device goes from there.

use std::net::SocketAddr;

use common::ids::Ticket;
use common::secret::SessionKey;
use protocols::rcu::attach::Terms;
use protocols::rcu::close;
use protocols::rcu::code::CloseReason;
use protocols::rcu::frame::Frame;
use protocols::rcu::limit::SILENT_HEARTBEATS;
use protocols::rcu::message::{FromCluster, FromDevice};
use protocols::rcu::telemetry::TelemetryAck;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::backoff;
use super::effect::{ConnId, Effect, Effects, Event, Fault, Wait};
use super::telemetry::Outbox;
use super::wait::Next;
use super::{Device, Phase};

/// After this long attached on one connection the backoff begins anew.
const SETTLED_MS: u64 = 60_000;
/// More unanswered heartbeats need not be told apart: three of them are silence.
const HEARTBEATS_OPEN_MAX: usize = 4;
/// Ids must stay free for the frames that are open.
const FRAMES_OPEN_MAX: u16 = 1_000;
/// Attach and ResumeProof had lower ones.
const IDS_USED: u16 = 2;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) conn: ConnId,
    address: SocketAddr,
    session_key: SessionKey,
    attached_ms: u64,
    /// A whole frame with a right checksum came, of whatever kind.
    heard_ms: u64,
    heartbeat_ms: u64,
    next_heartbeat_ms: u64,
    heartbeats_open: Vec<u16>,
    last_id: u16,
    window: u16,
    resume_ttl_ms: u64,
    resumption: Box<[u8]>,
    redirect: Option<Redirect>,
}

/// A Redirect that is obeyed when its time comes, or when the connection ends before.
#[derive(Clone, Copy, Debug)]
struct Redirect {
    leave_ms: u64,
    /// `None`: through a new login.
    target: Option<(SocketAddr, Ticket)>,
}

/// What is kept of a lost session, for one try.
#[derive(Debug)]
pub(super) struct Resumption {
    pub(super) address: SocketAddr,
    pub(super) session_key: SessionKey,
    pub(super) resumption: Box<[u8]>,
    /// Its time since the loss is over after this moment.
    pub(super) expires_ms: u64,
}

impl Session {
    pub(super) fn new(
        conn: ConnId,
        address: SocketAddr,
        session_key: SessionKey,
        terms: &Terms<'_>,
        now_ms: u64,
        rng: &mut SmallRng,
    ) -> Self {
        let heartbeat_ms = 1_000 * u64::from(terms.heartbeat_s.clamp(5, 3_600));
        Self {
            conn,
            address,
            session_key,
            attached_ms: now_ms,
            heard_ms: now_ms,
            heartbeat_ms,
            next_heartbeat_ms: now_ms + rng.random_range(0..=heartbeat_ms),
            heartbeats_open: Vec::new(),
            last_id: IDS_USED,
            window: terms.window.max(1),
            resume_ttl_ms: 1_000 * u64::from(terms.resume_ttl_s),
            resumption: terms.resumption.into(),
            redirect: None,
        }
    }

    pub(super) fn hear(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    fn silent_ms(&self) -> u64 {
        self.heard_ms + SILENT_HEARTBEATS * self.heartbeat_ms
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        let leave_ms = self.redirect.map_or(u64::MAX, |redirect| redirect.leave_ms);
        self.next_heartbeat_ms.min(self.silent_ms()).min(leave_ms)
    }

    /// Never 0, and none of an open question's.
    fn next_id(&mut self, outbox: &Outbox) -> u16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let id = self.last_id;
            if id != 0 && !self.heartbeats_open.contains(&id) && !outbox.is_open(id) {
                return id;
            }
        }
    }

    fn send_heartbeat(&mut self, outbox: &Outbox, now_ms: u64, effects: &mut Effects) {
        let id = self.next_id(outbox);
        if self.heartbeats_open.len() == HEARTBEATS_OPEN_MAX {
            self.heartbeats_open.remove(0);
        }
        self.heartbeats_open.push(id);
        self.next_heartbeat_ms += self.heartbeat_ms;
        if self.next_heartbeat_ms <= now_ms {
            self.next_heartbeat_ms = now_ms + self.heartbeat_ms;
        }
        effects.send(self.conn, |out| FromDevice::Heartbeat.encode(id, out));
    }

    fn is_heartbeat_open(&mut self, id: u16) -> bool {
        let open = self.heartbeats_open.len();
        self.heartbeats_open.retain(|&open| open != id);
        self.heartbeats_open.len() < open
    }

    /// What is kept for a resumption after a loss at `now_ms`.
    fn into_resumption(self, now_ms: u64) -> Option<Resumption> {
        (self.resume_ttl_ms > 0).then_some(Resumption {
            address: self.address,
            session_key: self.session_key,
            resumption: self.resumption,
            expires_ms: now_ms + self.resume_ttl_ms,
        })
    }
}

impl Device {
    pub(super) fn handle_while_attached(
        &mut self,
        frame: &Frame<'_>,
        message: FromCluster<'_>,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let Phase::Attached(session) = &mut self.phase else {
            return;
        };
        match message {
            FromCluster::HeartbeatReply(reply) if session.is_heartbeat_open(frame.id) => {
                self.follow_clock(reply.server_time_ms, now_ms, effects);
            }
            FromCluster::TelemetryAck(ack) => self.acknowledged(frame, &ack, now_ms, effects),
            FromCluster::Command(command) => self.execute(frame, &command, now_ms, effects),
            FromCluster::Redirect(redirect) => self.redirected(&redirect, now_ms, effects),
            FromCluster::HeartbeatReply(_)
            | FromCluster::LoginReply(_)
            | FromCluster::AttachReply(_)
            | FromCluster::ResumeChallenge(_)
            // A Close has been dealt with, whatever the phase.
            | FromCluster::Close(_) => {
                effects.tell(Event::AnswerIgnored { kind: frame.kind });
            }
        }
    }

    fn acknowledged(
        &mut self,
        frame: &Frame<'_>,
        ack: &TelemetryAck,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let Some(answered) = self.outbox.answer(frame.id, ack, now_ms, &mut self.rng) else {
            effects.tell(Event::AnswerIgnored { kind: frame.kind });
            return;
        };
        effects.tell(Event::FrameAnswered {
            base_seq: ack.base_seq,
            count: ack.count,
            status: ack.status,
            after_ms: answered.after_ms,
        });
        if let Some(ms) = answered.wait_ms {
            let why = Wait::Overloaded;
            effects.tell(Event::Waits { ms, why });
        }
    }

    fn redirected(&mut self, redirect: &close::Redirect<'_>, now_ms: u64, effects: &mut Effects) {
        let Phase::Attached(session) = &mut self.phase else {
            return;
        };
        if !redirect.verify(&session.session_key) {
            effects.tell(Event::RedirectIgnored);
            return;
        }
        effects.tell(Event::RedirectTaken {
            with_target: redirect.target.is_some(),
        });
        let stay_ms = backoff::told(redirect.retry_after_ms).unwrap_or(0);
        session.redirect = Some(Redirect {
            leave_ms: now_ms + stay_ms,
            target: redirect.target.as_ref().and_then(|signed| {
                let host = signed.target.host.parse().ok()?;
                Some((
                    SocketAddr::new(host, signed.target.port),
                    signed.target.ticket,
                ))
            }),
        });
        if stay_ms == 0 {
            self.fail(Fault::Redirected, 0, now_ms, effects);
        }
    }

    /// Sends what may be sent now.
    pub(super) fn send_telemetry(&mut self, now_ms: u64, effects: &mut Effects) {
        let Phase::Attached(session) = &mut self.phase else {
            return;
        };
        let frames_open_max = self.settings.frames_open_max.clamp(1, FRAMES_OPEN_MAX);
        let window = session.window.min(frames_open_max);
        while self.outbox.may_send(window, now_ms) {
            let id = session.next_id(&self.outbox);
            self.outbox.send(
                session.conn,
                id,
                &self.settings,
                &self.clock,
                now_ms,
                effects,
            );
        }
    }

    /// What is due on the long connection.
    pub(super) fn session_due(&mut self, now_ms: u64, effects: &mut Effects) {
        let Phase::Attached(session) = &mut self.phase else {
            return;
        };
        let unanswered_ms = self.outbox.unanswered_ms();
        if session.silent_ms() <= now_ms {
            self.fail(Fault::Silent, 0, now_ms, effects);
        } else if unanswered_ms.is_some_and(|unanswered_ms| unanswered_ms <= now_ms) {
            self.fail(Fault::Unanswered, 0, now_ms, effects);
        } else if session
            .redirect
            .is_some_and(|redirect| redirect.leave_ms <= now_ms)
        {
            self.fail(Fault::Redirected, 0, now_ms, effects);
        } else if session.next_heartbeat_ms <= now_ms {
            session.send_heartbeat(&self.outbox, now_ms, effects);
        }
    }

    /// The long connection is over: steps 6 and 7 of the contract's section 2.
    pub(super) fn session_ended(
        &mut self,
        session: Session,
        why: Fault,
        retry_after_ms: u32,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        effects.push(Effect::Disconnect { conn: session.conn });
        effects.tell(Event::Ended { why });
        self.outbox.reopen();
        if now_ms.saturating_sub(session.attached_ms) >= SETTLED_MS {
            self.backoff.reset();
        }
        match session.redirect {
            Some(_) if forbids_redirect(why) => effects.tell(Event::RedirectVoid),
            Some(Redirect {
                target: Some((address, ticket)),
                ..
            }) => {
                return self.attach(address, ticket, session.session_key, now_ms, effects);
            }
            Some(Redirect { target: None, .. }) => return self.begin_login(now_ms, effects),
            None => {}
        }
        if let Fault::Closed(CloseReason::Disabled | CloseReason::CloneSuspected) = why {
            return self.wait_longest(retry_after_ms, now_ms, effects);
        }
        if allows_resumption(why) {
            self.resumption = session.into_resumption(now_ms);
        }
        let then = match self.resumption {
            Some(_) => Next::Resume,
            None => Next::Resolve,
        };
        self.wait(retry_after_ms, then, now_ms, effects);
    }
}

/// After these a pending Redirect is void.
fn forbids_redirect(why: Fault) -> bool {
    matches!(
        why,
        Fault::Closed(
            CloseReason::ProtocolError
                | CloseReason::Replaced
                | CloseReason::Disabled
                | CloseReason::AttachTimeout
                | CloseReason::CloneSuspected
        )
    )
}

/// After a wrong frame, and where the cluster says so, the resumption is dropped.
fn allows_resumption(why: Fault) -> bool {
    matches!(
        why,
        Fault::Lost
            | Fault::Silent
            | Fault::Unanswered
            | Fault::Closed(CloseReason::Idle | CloseReason::Shutdown | CloseReason::SlowReader)
    )
}
