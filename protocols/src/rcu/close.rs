//! Pure. How the cluster ends a connection: at once, or by asking the device to move.

use super::body::{Reader, Sink};
use super::code::CloseReason;
use super::error::MessageError;
use super::login::{SignedTarget, Target};
use super::proof::{self, Mac};
use super::{frame, kind};
use common::secret::SessionKey;

/// "Go." Bears id 0, also where it comes in place of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    pub reason: CloseReason,
    /// 0: the device uses its backoff.
    pub retry_after_ms: u32,
}

impl Close {
    /// A reason that the contract does not list is `Idle`.
    pub fn decode_body(body: &[u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let close = Self {
            reason: CloseReason::from_code(body.u8()?).unwrap_or(CloseReason::Idle),
            retry_after_ms: body.u32()?,
        };
        body.end()?;
        Ok(close)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::write(kind::CLOSE, 0, out, |out| {
            out.put(&[self.reason.code()]);
            out.put(&self.retry_after_ms.to_le_bytes());
        });
    }
}

/// Why a device is asked to move. It changes nothing for the device, and the proof covers it:
/// so one that the contract does not list is kept as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RedirectReason {
    Draining,
    Rebalancing,
    Other(u8),
}

impl RedirectReason {
    pub const fn code(self) -> u8 {
        match self {
            Self::Draining => 1,
            Self::Rebalancing => 2,
            Self::Other(code) => code,
        }
    }

    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Draining,
            2 => Self::Rebalancing,
            other => Self::Other(other),
        }
    }
}

/// "Go on for a while, then move", to a target or through a new login. Bears id 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect<'a> {
    pub reason: RedirectReason,
    /// How long the device goes on as usual; 0: not at all.
    pub retry_after_ms: u32,
    /// `None`: through a new login; then there is no proof either.
    pub target: Option<SignedTarget<'a>>,
}

impl<'a> Redirect<'a> {
    /// A redirect to a target with its proof. One without a target is built as it is.
    pub fn sign(
        reason: RedirectReason,
        retry_after_ms: u32,
        target: Target<'a>,
        session_key: &SessionKey,
    ) -> Self {
        let redirect = |proof| Self {
            reason,
            retry_after_ms,
            target: Some(SignedTarget { target, proof }),
        };
        redirect(redirect([0; 32]).mac(session_key).finish())
    }

    /// Whether the sender knows the session key; true without a target, which has no proof.
    /// In constant time.
    pub fn verify(&self, session_key: &SessionKey) -> bool {
        match &self.target {
            Some(signed) => self.mac(session_key).verify(&signed.proof),
            None => true,
        }
    }

    pub fn decode_body(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let redirect = Self {
            reason: RedirectReason::from_code(body.u8()?),
            retry_after_ms: body.u32()?,
            target: match body.flag("has_target")? {
                true => Some(SignedTarget::take(&mut body)?),
                false => None,
            },
        };
        body.end()?;
        Ok(redirect)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::write(kind::REDIRECT, 0, out, |out| {
            self.put_signed(out);
            if let Some(signed) = &self.target {
                out.put(&signed.proof);
            }
        });
    }

    fn mac(&self, session_key: &SessionKey) -> Mac {
        let mut mac = Mac::new(session_key, proof::REDIRECT);
        self.put_signed(&mut mac);
        mac
    }

    fn put_signed(&self, to: &mut impl Sink) {
        to.put(&[self.reason.code()]);
        to.put(&self.retry_after_ms.to_le_bytes());
        to.put(&[u8::from(self.target.is_some())]);
        if let Some(signed) = &self.target {
            signed.target.put(to);
        }
    }
}
