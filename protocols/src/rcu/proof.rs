//! Pure. Who knows the key: HMAC-SHA256 over a label and the fields that a message signs.
//!
//! Every label ends in a zero byte and no two are the same, so that a proof made for one
//! message is none for another. Messages sign and verify themselves (`Login::sign`,
//! `Login::verify` …); here is what they do it with, and what belongs to no message.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::body::Sink;
use common::ids::{Nonce, Ticket};
use common::secret::{DeviceKey, Secret, SessionKey};

/// HMAC-SHA256 as it stands on the wire.
pub type Proof = [u8; 32];

pub(super) const LOGIN: &[u8] = b"rcu1 login\0";
pub(super) const GRANT: &[u8] = b"rcu1 grant\0";
pub(super) const TOLD: &[u8] = b"rcu1 told\0";
pub(super) const ATTACH: &[u8] = b"rcu1 attach\0";
pub(super) const ADMIT: &[u8] = b"rcu1 admit\0";
pub(super) const REDIRECT: &[u8] = b"rcu1 redirect\0";
pub(super) const RESUME: &[u8] = b"rcu1 resume\0";
const SESSION: &[u8] = b"rcu1 session\0";
const NONCE: &[u8] = b"rcu1 nonce\0";

/// A keyed hash under way. Signed fields are written to it as to a body.
pub(super) struct Mac(Hmac<Sha256>);

impl Mac {
    pub(super) fn new(key: &Secret<32>, label: &[u8]) -> Self {
        let mac = Hmac::new_from_slice(key.expose()).expect("HMAC takes a key of any length");
        Self(mac).with(label)
    }

    pub(super) fn with(mut self, bytes: &[u8]) -> Self {
        self.put(bytes);
        self
    }

    pub(super) fn finish(self) -> Proof {
        self.0.finalize().into_bytes().into()
    }

    /// Takes the same time wherever the proofs differ.
    pub(super) fn verify(self, proof: &Proof) -> bool {
        self.finish().ct_eq(proof).into()
    }
}

impl Sink for Mac {
    fn put(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac(***)")
    }
}

/// What device and conn server each compute from a granted login, and the logic server is given.
pub fn session_key(key: &DeviceKey, nonce: Nonce, ticket: &Ticket) -> SessionKey {
    let mac = Mac::new(key, SESSION).with(&nonce.0).with(ticket.expose());
    Secret::new(mac.finish())
}

/// Which login of a device's life this is, for devices without a random generator: `boot` is
/// kept in non-volatile memory and raised at each start, `login` counts since then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginCount {
    pub boot: u32,
    pub login: u32,
}

/// A nonce that nobody without the key can foretell, from two counters.
pub fn nonce_without_generator(key: &DeviceKey, count: LoginCount) -> Nonce {
    let mac = Mac::new(key, NONCE)
        .with(&count.boot.to_le_bytes())
        .with(&count.login.to_le_bytes())
        .finish();
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&mac[..16]);
    Nonce(nonce)
}
