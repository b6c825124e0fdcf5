//! Pure. How the long connection begins: by the ticket of a login or of a Redirect, or by a
//! resumption of the session before.

use std::net::SocketAddr;

use common::ids::Ticket;
use common::secret::SessionKey;
use protocols::rcu::attach::{
    Attach, AttachReply, AttachVerdict, Credential, Resume, ResumeChallenge, ResumeProof,
};
use protocols::rcu::code::CloseReason;
use protocols::rcu::frame::Frame;
use protocols::rcu::message::FromCluster;

use super::effect::{ConnId, Effect, Effects, Event, Fault};
use super::session::Session;
use super::wait::Next;
use super::{CONNECT_MS, Device, Phase};

/// For AttachReply and for ResumeChallenge.
const REPLY_MS: u64 = 10_000;
/// Attach or Resume.
const FIRST_ID: u16 = 1;
/// ResumeProof.
const PROOF_ID: u16 = 2;

#[derive(Debug)]
pub(super) struct Attaching {
    pub(super) conn: ConnId,
    address: SocketAddr,
    session_key: SessionKey,
    by: By,
    step: Step,
    deadline_ms: u64,
}

#[derive(Debug)]
enum By {
    Ticket(Ticket),
    Resumption(Box<[u8]>),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Connecting,
    /// Resume is sent; its challenge is to come.
    Challenge,
    /// Attach or ResumeProof is sent, with this id and for this credential.
    Reply {
        id: u16,
        credential: Credential,
    },
}

impl Attaching {
    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.step, Step::Connecting)
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    fn resumed(&self) -> bool {
        matches!(self.by, By::Resumption(_))
    }
}

impl Device {
    /// Connects to the server that a LoginReply or a Redirect named.
    pub(super) fn attach(
        &mut self,
        address: SocketAddr,
        ticket: Ticket,
        session_key: SessionKey,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        self.connect_to_server(address, session_key, By::Ticket(ticket), now_ms, effects);
    }

    /// Uses the resumption that is held, where its time has not passed; else logs in.
    pub(super) fn resume(&mut self, now_ms: u64, effects: &mut Effects) {
        match self.resumption.take() {
            Some(held) if now_ms <= held.expires_ms => {
                let by = By::Resumption(held.resumption);
                self.connect_to_server(held.address, held.session_key, by, now_ms, effects);
            }
            _ => self.begin_login(now_ms, effects),
        }
    }

    fn connect_to_server(
        &mut self,
        address: SocketAddr,
        session_key: SessionKey,
        by: By,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let conn = self.connect(address, effects);
        self.phase = Phase::Attaching(Box::new(Attaching {
            conn,
            address,
            session_key,
            by,
            step: Step::Connecting,
            deadline_ms: now_ms + CONNECT_MS,
        }));
    }

    pub(super) fn send_attach(&mut self, now_ms: u64, effects: &mut Effects) {
        let Phase::Attaching(attaching) = &mut self.phase else {
            return;
        };
        if !attaching.is_connecting() {
            return;
        }
        attaching.deadline_ms = now_ms + REPLY_MS;
        match &attaching.by {
            By::Ticket(ticket) => {
                attaching.step = Step::Reply {
                    id: FIRST_ID,
                    credential: Credential::Ticket(*ticket),
                };
                let attach = Attach::sign(*ticket, &attaching.session_key);
                effects.send(attaching.conn, |out| attach.encode(FIRST_ID, out));
            }
            By::Resumption(resumption) => {
                attaching.step = Step::Challenge;
                let resume = Resume { resumption };
                effects.send(attaching.conn, |out| resume.encode(FIRST_ID, out));
            }
        }
    }

    pub(super) fn handle_while_attaching(
        &mut self,
        frame: &Frame<'_>,
        message: FromCluster<'_>,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let Phase::Attaching(attaching) = &self.phase else {
            return;
        };
        match (attaching.step, message) {
            (Step::Challenge, FromCluster::ResumeChallenge(challenge)) if frame.id == FIRST_ID => {
                self.send_resume_proof(challenge, now_ms, effects);
            }
            // A resumption may be refused before a challenge is made.
            (Step::Challenge, FromCluster::AttachReply(reply))
                if frame.id == FIRST_ID && !matches!(reply.verdict, AttachVerdict::Ok { .. }) =>
            {
                self.not_admitted(&reply, now_ms, effects);
            }
            (Step::Reply { id, credential }, FromCluster::AttachReply(reply)) if frame.id == id => {
                self.attach_answered(&reply, credential, now_ms, effects);
            }
            (Step::Challenge, FromCluster::ResumeChallenge(_))
            | (Step::Reply { .. }, FromCluster::AttachReply(_)) => {
                effects.tell(Event::AnswerIgnored { kind: frame.kind });
            }
            _ => self.fail(Fault::WrongFrame, 0, now_ms, effects),
        }
    }

    fn send_resume_proof(
        &mut self,
        challenge: ResumeChallenge,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let Phase::Attaching(attaching) = &mut self.phase else {
            return;
        };
        let By::Resumption(resumption) = &attaching.by else {
            return;
        };
        let challenge = challenge.challenge;
        let proof = ResumeProof::sign(challenge, resumption, &attaching.session_key);
        attaching.step = Step::Reply {
            id: PROOF_ID,
            credential: Credential::Challenge(challenge),
        };
        attaching.deadline_ms = now_ms + REPLY_MS;
        effects.send(attaching.conn, |out| proof.encode(PROOF_ID, out));
    }

    fn attach_answered(
        &mut self,
        reply: &AttachReply<'_>,
        credential: Credential,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let Phase::Attaching(attaching) = &self.phase else {
            return;
        };
        let AttachVerdict::Ok { terms, .. } = &reply.verdict else {
            self.not_admitted(reply, now_ms, effects);
            return;
        };
        if !reply.verify(credential, &attaching.session_key) {
            self.fail(Fault::WrongProof, 0, now_ms, effects);
            return;
        }
        effects.tell(Event::AttachAnswered {
            status: reply.status(),
            resumed: attaching.resumed(),
        });
        let session = Session::new(
            attaching.conn,
            attaching.address,
            attaching.session_key,
            terms,
            now_ms,
            &mut self.rng,
        );
        self.phase = Phase::Attached(Box::new(session));
        self.follow_clock(reply.server_time_ms, now_ms, effects);
    }

    /// Any status but `ok`: from the start again, after the wait.
    fn not_admitted(&mut self, reply: &AttachReply<'_>, now_ms: u64, effects: &mut Effects) {
        let Phase::Attaching(attaching) = &self.phase else {
            return;
        };
        effects.push(Effect::Disconnect {
            conn: attaching.conn,
        });
        effects.tell(Event::AttachAnswered {
            status: reply.status(),
            resumed: attaching.resumed(),
        });
        self.wait(reply.retry_after_ms, Next::Resolve, now_ms, effects);
    }

    /// No right AttachReply: on a logic server that is a lost connection. The resumption went
    /// with the try.
    pub(super) fn attach_failed(
        &mut self,
        attaching: &Attaching,
        why: Fault,
        retry_after_ms: u32,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        effects.push(Effect::Disconnect {
            conn: attaching.conn,
        });
        effects.tell(Event::AttachFailed {
            why,
            resumed: attaching.resumed(),
        });
        match why {
            Fault::Closed(CloseReason::Disabled | CloseReason::CloneSuspected) => {
                self.wait_longest(retry_after_ms, now_ms, effects);
            }
            _ => self.wait(retry_after_ms, Next::Resolve, now_ms, effects),
        }
    }
}
