//! Pure. The long connection's beginning: Attach, a resumption, and their one reply.

use super::body::{Reader, Sink};
use super::code::AttachStatus;
use super::error::MessageError;
use super::proof::{self, Mac, Proof};
use super::{frame, kind};
use common::ids::Ticket;
use common::secret::{Secret, SessionKey};

/// The longest `resumption` that the cluster hands out, in bytes.
pub const RESUMPTION_BYTES_MAX: usize = 256;

/// "Here is my ticket."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    pub ticket: Ticket,
    pub proof: Proof,
}

impl Attach {
    pub fn sign(ticket: Ticket, session_key: &SessionKey) -> Self {
        let proof = Self::mac(&ticket, session_key).finish();
        Self { ticket, proof }
    }

    /// Whether whoever presents the ticket knows the key of the login that earned it; in
    /// constant time.
    pub fn verify(&self, session_key: &SessionKey) -> bool {
        Self::mac(&self.ticket, session_key).verify(&self.proof)
    }

    pub fn decode_body(body: &[u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let attach = Self {
            ticket: Secret::new(body.array()?),
            proof: body.array()?,
        };
        body.end()?;
        Ok(attach)
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::ATTACH, id, out, |out| {
            out.put(self.ticket.expose());
            out.put(&self.proof);
        });
    }

    fn mac(ticket: &Ticket, session_key: &SessionKey) -> Mac {
        Mac::new(session_key, proof::ATTACH).with(ticket.expose())
    }
}

/// New for every connection that asks to resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge(pub [u8; 16]);

/// What an AttachReply answers to; its proof covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    Ticket(Ticket),
    Challenge(Challenge),
}

/// Answers an Attach or a ResumeProof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachReply<'a> {
    /// 0: the device uses its backoff.
    pub retry_after_ms: u32,
    pub server_time_ms: u64,
    pub verdict: AttachVerdict<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachVerdict<'a> {
    Ok { terms: Terms<'a>, proof: Proof },
    NotAdmitted,
    Full,
    Draining,
}

/// On what terms a device is attached, as sent: a device takes a `heartbeat_s` outside 5..=3600
/// as the nearer end and a `window` of 0 as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms<'a> {
    pub heartbeat_s: u16,
    /// How many Telemetry frames may be unanswered at once.
    pub window: u16,
    /// 0: no resumption, and `resumption` is empty.
    pub resume_ttl_s: u16,
    pub resumption: &'a [u8],
}

impl<'a> AttachReply<'a> {
    /// Status `ok` with its proof. The others are built as they are.
    pub fn ok(
        server_time_ms: u64,
        terms: Terms<'a>,
        credential: Credential,
        session_key: &SessionKey,
    ) -> Self {
        let reply = |proof| Self {
            retry_after_ms: 0,
            server_time_ms,
            verdict: AttachVerdict::Ok { terms, proof },
        };
        reply(reply([0; 32]).mac(credential, session_key).finish())
    }

    pub fn status(&self) -> AttachStatus {
        match self.verdict {
            AttachVerdict::Ok { .. } => AttachStatus::Ok,
            AttachVerdict::NotAdmitted => AttachStatus::NotAdmitted,
            AttachVerdict::Full => AttachStatus::Full,
            AttachVerdict::Draining => AttachStatus::Draining,
        }
    }

    /// Whether the server that admits knows the session key; true where the status has no
    /// proof. In constant time.
    pub fn verify(&self, credential: Credential, session_key: &SessionKey) -> bool {
        match &self.verdict {
            AttachVerdict::Ok { proof, .. } => self.mac(credential, session_key).verify(proof),
            _ => true,
        }
    }

    /// A status that the contract does not list is `NotAdmitted`, and the body has exactly its
    /// fields.
    pub fn decode_body(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let status = AttachStatus::from_code(body.u8()?).unwrap_or(AttachStatus::NotAdmitted);
        let reply = Self {
            retry_after_ms: body.u32()?,
            server_time_ms: body.u64()?,
            verdict: match status {
                AttachStatus::Ok => AttachVerdict::Ok {
                    terms: Terms::take(&mut body)?,
                    proof: body.array()?,
                },
                AttachStatus::NotAdmitted => AttachVerdict::NotAdmitted,
                AttachStatus::Full => AttachVerdict::Full,
                AttachStatus::Draining => AttachVerdict::Draining,
            },
        };
        body.end()?;
        Ok(reply)
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::ATTACH_REPLY, id, out, |out| {
            self.put_signed(out);
            if let AttachVerdict::Ok { proof, .. } = &self.verdict {
                out.put(proof);
            }
        });
    }

    fn mac(&self, credential: Credential, session_key: &SessionKey) -> Mac {
        let mut mac = Mac::new(session_key, proof::ADMIT);
        match &credential {
            Credential::Ticket(ticket) => mac.put(ticket.expose()),
            Credential::Challenge(challenge) => mac.put(&challenge.0),
        }
        self.put_signed(&mut mac);
        mac
    }

    fn put_signed(&self, to: &mut impl Sink) {
        to.put(&[self.status().code()]);
        to.put(&self.retry_after_ms.to_le_bytes());
        to.put(&self.server_time_ms.to_le_bytes());
        if let AttachVerdict::Ok { terms, .. } = &self.verdict {
            terms.put(to);
        }
    }
}

impl<'a> Terms<'a> {
    fn take(body: &mut Reader<'a>) -> Result<Self, MessageError> {
        let terms = Self {
            heartbeat_s: body.u16()?,
            window: body.u16()?,
            resume_ttl_s: body.u16()?,
            resumption: body.bytes16()?,
        };
        let length = terms.resumption.len();
        if length > RESUMPTION_BYTES_MAX || (terms.resume_ttl_s == 0 && length > 0) {
            return Err(MessageError::Body("resumption"));
        }
        Ok(terms)
    }

    fn put(&self, to: &mut impl Sink) {
        to.put(&self.heartbeat_s.to_le_bytes());
        to.put(&self.window.to_le_bytes());
        to.put(&self.resume_ttl_s.to_le_bytes());
        to.put_bytes16(self.resumption);
    }
}

/// "I was here a moment ago." Whether the resumption is one of ours is for the gate to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume<'a> {
    pub resumption: &'a [u8],
}

impl<'a> Resume<'a> {
    pub fn decode_body(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let resumption = body.bytes16()?;
        body.end()?;
        Ok(Self { resumption })
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::RESUME, id, out, |out| {
            out.put_bytes16(self.resumption);
        });
    }
}

/// Answers a Resume: "Prove it."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeChallenge {
    pub challenge: Challenge,
}

impl ResumeChallenge {
    pub fn decode_body(body: &[u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let challenge = Challenge(body.array()?);
        body.end()?;
        Ok(Self { challenge })
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::RESUME_CHALLENGE, id, out, |out| {
            out.put(&self.challenge.0);
        });
    }
}

/// The proof that the resumption is the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeProof {
    pub proof: Proof,
}

impl ResumeProof {
    pub fn sign(challenge: Challenge, resumption: &[u8], session_key: &SessionKey) -> Self {
        let proof = Self::mac(challenge, resumption, session_key).finish();
        Self { proof }
    }

    /// In constant time.
    pub fn verify(
        &self,
        challenge: Challenge,
        resumption: &[u8],
        session_key: &SessionKey,
    ) -> bool {
        Self::mac(challenge, resumption, session_key).verify(&self.proof)
    }

    pub fn decode_body(body: &[u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let proof = body.array()?;
        body.end()?;
        Ok(Self { proof })
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::RESUME_PROOF, id, out, |out| out.put(&self.proof));
    }

    fn mac(challenge: Challenge, resumption: &[u8], session_key: &SessionKey) -> Mac {
        Mac::new(session_key, proof::RESUME)
            .with(&challenge.0)
            .with(resumption)
    }
}
