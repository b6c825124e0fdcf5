//! Pure. Proofs, judged with the device's key by what the frames before said.
//!
//! ```text
//! Login ── nonce ──▶ LoginReply ── ticket ──▶ session_key ──▶ Attach, AttachReply, Redirect
//!           Resume ── resumption ──▶ ResumeChallenge ── challenge ──▶ ResumeProof, AttachReply
//! ```
//!
//! The verdict is that of the messages themselves, as servers and devices ask it. Only the guess at what
//! a wrong one was made of is made here.

use common::ids::Nonce;
use common::secret::{DeviceKey, SessionKey};
use hmac::{Hmac, KeyInit, Mac as _};
use protocols::rcu::attach::{Challenge, Credential};
use protocols::rcu::frame::{self, Frame, HEADER_BYTES};
use protocols::rcu::login::LoginVerdict;
use protocols::rcu::message::{FromCluster, FromDevice};
use protocols::rcu::proof::{Proof, session_key};
use sha2::{Digest as _, Sha256};

use super::hex::hex;

/// What came of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    /// With the mistake behind it, where one fits.
    Wrong(Option<&'static str>),
    /// It takes this, which did not come before it.
    Lacks(&'static str),
}

impl Verdict {
    /// Of what the cluster says: nobody asks why it is wrong.
    fn of(is_right: bool) -> Self {
        match is_right {
            true => Self::Right,
            false => Self::Wrong(None),
        }
    }
}

/// What a device's key says of one frame after the other.
#[derive(Debug)]
pub(super) struct Proofs {
    key: DeviceKey,
    /// Of the last Login.
    nonce: Option<Nonce>,
    /// Stays the same where a Redirect sends the device on.
    session_key: Option<SessionKey>,
    /// Of the last Attach or ResumeChallenge: what the AttachReply answers.
    credential: Option<Credential>,
    challenge: Option<Challenge>,
    resumption: Option<Vec<u8>>,
}

const NONCE: &str = "the Login (its nonce)";
const SESSION_KEY: &str = "the Login (its nonce) and the LoginReply or Attach (its ticket)";
const CREDENTIAL: &str = "the Attach (its ticket) or the ResumeChallenge";
const RESUMED: &str = "the Resume and the ResumeChallenge";

impl Proofs {
    pub(super) fn new(key: DeviceKey) -> Self {
        Self {
            key,
            nonce: None,
            session_key: None,
            credential: None,
            challenge: None,
            resumption: None,
        }
    }

    /// The verdict on the proof of this frame, where it has one and can be decoded.
    pub(super) fn hear(&mut self, frame: &Frame<'_>) -> Option<Verdict> {
        match FromDevice::decode(frame) {
            Ok(message) => self.hear_device(&message, frame),
            Err(_) => self.hear_cluster(&FromCluster::decode(frame).ok()?),
        }
    }

    fn hear_device(&mut self, message: &FromDevice<'_>, frame: &Frame<'_>) -> Option<Verdict> {
        Some(match message {
            FromDevice::Login(login) => {
                (self.nonce, self.session_key) = (Some(login.nonce), None);
                match login.verify(&self.key) {
                    true => Verdict::Right,
                    false => Verdict::Wrong(self.mistake("rcu1 login", &self.key, frame)),
                }
            }
            FromDevice::Attach(attach) => {
                self.credential = Some(Credential::Ticket(attach.ticket));
                let of_ticket = |nonce| session_key(&self.key, nonce, &attach.ticket);
                self.session_key = self.session_key.or_else(|| self.nonce.map(of_ticket));
                match self.session_key {
                    None => Verdict::Lacks(NONCE),
                    Some(key) if attach.verify(&key) => Verdict::Right,
                    Some(key) => Verdict::Wrong(self.mistake("rcu1 attach", &key, frame)),
                }
            }
            FromDevice::Resume(resume) => {
                self.resumption = Some(resume.resumption.to_vec());
                return None;
            }
            FromDevice::ResumeProof(proof) => {
                let Some(key) = self.session_key else {
                    return Some(Verdict::Lacks(SESSION_KEY));
                };
                let (Some(challenge), Some(resumption)) = (self.challenge, &self.resumption) else {
                    return Some(Verdict::Lacks(RESUMED));
                };
                Verdict::of(proof.verify(challenge, resumption, &key))
            }
            FromDevice::Heartbeat | FromDevice::Telemetry(_) | FromDevice::CommandReply(_) => {
                return None;
            }
        })
    }

    fn hear_cluster(&mut self, message: &FromCluster<'_>) -> Option<Verdict> {
        Some(match message {
            FromCluster::LoginReply(reply) => {
                let Some(nonce) = self.nonce else {
                    return Some(Verdict::Lacks(NONCE));
                };
                if let LoginVerdict::Ok(signed) = &reply.verdict {
                    self.session_key = Some(session_key(&self.key, nonce, &signed.target.ticket));
                }
                Verdict::of(reply.verify(nonce, &self.key))
            }
            FromCluster::AttachReply(reply) => match (self.session_key, self.credential) {
                (None, _) => Verdict::Lacks(SESSION_KEY),
                (_, None) => Verdict::Lacks(CREDENTIAL),
                (Some(key), Some(credential)) => Verdict::of(reply.verify(credential, &key)),
            },
            FromCluster::ResumeChallenge(asked) => {
                self.challenge = Some(asked.challenge);
                self.credential = Some(Credential::Challenge(asked.challenge));
                return None;
            }
            FromCluster::Redirect(redirect) => match self.session_key {
                None => Verdict::Lacks(SESSION_KEY),
                Some(key) => Verdict::of(redirect.verify(&key)),
            },
            FromCluster::HeartbeatReply(_)
            | FromCluster::TelemetryAck(_)
            | FromCluster::Command(_)
            | FromCluster::Close(_) => return None,
        })
    }

    /// What the author of a device probably did; `None` where nothing fits. `key` is the right one.
    fn mistake(&self, label: &str, key: &SessionKey, frame: &Frame<'_>) -> Option<&'static str> {
        let (signed, found) = frame.body.split_last_chunk::<32>()?;
        let (key, label) = (&key.expose()[..], label.as_bytes());
        let ended = &[label, b"\0"].concat()[..];
        let lower = hex(key);
        let upper = lower.to_uppercase();
        let header = unfinished_header(frame);
        let mistakes = [
            (
                mac(key, &[label, signed]),
                "made without the zero byte behind the label",
            ),
            (mac(key, &[signed]), "made without the label"),
            (mac(lower.as_bytes(), &[ended, signed]), KEY_AS_TEXT),
            (mac(upper.as_bytes(), &[ended, signed]), KEY_AS_TEXT),
            (
                mac(key, &[ended, &header, signed]),
                "made over the header too",
            ),
            (
                mac(self.key.expose(), &[ended, signed]),
                "made with the account's key instead of the session key",
            ),
            (
                Sha256::digest([key, ended, signed].concat()).into(),
                "a plain SHA-256 of key and text instead of HMAC-SHA256",
            ),
        ];
        let fits = mistakes.into_iter().find(|(value, _)| value == found);
        fits.map(|(_, mistake)| mistake)
    }
}

const KEY_AS_TEXT: &str = "made with the key's hex digits as text instead of its 32 bytes";

/// As it is while a proof is made: the crc covers the proof, and comes later.
fn unfinished_header(frame: &Frame<'_>) -> Vec<u8> {
    let mut header = vec![];
    frame::write(frame.kind, frame.id, &mut header, |out| {
        out.extend_from_slice(frame.body);
    });
    header.truncate(HEADER_BYTES);
    header[8..].fill(0);
    header
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Proof {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
