//! A login of the model: what it claims, and the contract's judgement of it.

use std::net::IpAddr;

use common::ids::{AccountName, Nonce};
use common::secret::DeviceKey;
use conn_server::account::{Account, Found};
use protocols::rcu::code::LoginStatus;
use protocols::rcu::login::Login;

use crate::contract::{self, Body};

/// What a core says to a step, as far as logins go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    LookUp,
    Grant,
    Check,
    Reply(LoginStatus),
}

/// How far a login is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Asked,
    LookUp(u64),
    /// By what this look-up found.
    Judged(u64),
}

#[derive(Debug)]
pub(super) struct Asked {
    /// `None`: the body is no Login's.
    pub(super) claim: Option<Claim>,
    pub(super) source: IpAddr,
    pub(super) asked_at_ms: u64,
    pub(super) stage: Stage,
    /// As the look-up found it.
    pub(super) account: Option<Account>,
}

#[derive(Debug)]
pub(super) struct Claim {
    pub(super) account: AccountName,
    sent_at_ms: u64,
    pub(super) nonce: Nonce,
    body: Vec<u8>,
}

impl Claim {
    /// Whether a device with this key would have made this very body.
    pub(super) fn is_proven(&self, key: &DeviceKey) -> bool {
        let firmware_at = 2 + usize::from(self.body[0]);
        let firmware_bytes = usize::from(self.body[firmware_at - 1]);
        let firmware = &self.body[firmware_at..firmware_at + firmware_bytes];
        let firmware = str::from_utf8(firmware).unwrap();
        let mut frame = vec![];
        Login::sign(&self.account, firmware, self.sent_at_ms, self.nonce, key)
            .encode(1, &mut frame);
        frame[12..] == self.body
    }
}

impl Asked {
    pub(super) fn new(body: &[u8], source: IpAddr, now_ms: u64) -> Self {
        let claim = (contract::body(0x01, body) == Body::Right).then(|| {
            let account = &body[1..1 + usize::from(body[0])];
            let (rest, _proof) = body.split_last_chunk::<32>().unwrap();
            let (rest, nonce) = rest.split_last_chunk::<16>().unwrap();
            let (_, sent_at_ms) = rest.split_last_chunk::<8>().unwrap();
            Claim {
                account: str::from_utf8(account).unwrap().parse().unwrap(),
                sent_at_ms: u64::from_le_bytes(*sent_at_ms),
                nonce: Nonce(*nonce),
                body: body.to_vec(),
            }
        });
        Self {
            claim,
            source,
            asked_at_ms: now_ms,
            stage: Stage::Asked,
            account: None,
        }
    }

    /// The contract's table, in its order, for a nonce that was never used; `None`: it is worth a
    /// place.
    pub(super) fn judge(
        &self,
        found: Found,
        unix_ms: u64,
        skew_max_ms: u64,
    ) -> Option<LoginStatus> {
        let claim = self.claim.as_ref().expect("it was looked up");
        let account = match found {
            Found::Account(account) => account,
            Found::Unknown => return Some(LoginStatus::Refused),
            Found::Failed => return Some(LoginStatus::Busy),
        };
        if !claim.is_proven(&account.key) {
            Some(LoginStatus::Refused)
        } else if !account.enabled {
            Some(LoginStatus::Disabled)
        } else if claim.sent_at_ms.abs_diff(unix_ms) > skew_max_ms {
            Some(LoginStatus::ClockSkew)
        } else {
            None
        }
    }
}
