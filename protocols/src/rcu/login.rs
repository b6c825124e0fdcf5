//! Pure. The short connection: Login and LoginReply.

use std::net::IpAddr;

use super::body::{Reader, Sink};
use super::code::LoginStatus;
use super::error::MessageError;
use super::proof::{self, Mac, Proof};
use super::{frame, kind};
use common::ids::{AccountName, Nonce, Ticket};
use common::secret::{DeviceKey, Secret};

/// The longest firmware version, in bytes of printable ASCII.
pub const FIRMWARE_BYTES_MAX: usize = 32;

/// "This account wants in." Account and firmware are as the contract has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login<'a> {
    pub account: &'a str,
    pub firmware: &'a str,
    /// By the device's clock; 0 where it has none.
    pub sent_at_ms: u64,
    pub nonce: Nonce,
    pub proof: Proof,
}

impl<'a> Login<'a> {
    /// A login with its proof. `firmware` is at most 32 printable ASCII characters.
    pub fn sign(
        account: &'a AccountName,
        firmware: &'a str,
        sent_at_ms: u64,
        nonce: Nonce,
        key: &DeviceKey,
    ) -> Self {
        let mut login = Self {
            account: account.as_str(),
            firmware,
            sent_at_ms,
            nonce,
            proof: [0; 32],
        };
        login.proof = login.mac(key).finish();
        login
    }

    /// Whether whoever sent this knows the account's key; in constant time.
    pub fn verify(&self, key: &DeviceKey) -> bool {
        self.mac(key).verify(&self.proof)
    }

    /// From the body alone, as balancers forward it.
    pub fn decode_body(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let account = account(body.str8()?)?;
        let firmware = firmware(body.str8()?)?;
        let login = Self {
            account,
            firmware,
            sent_at_ms: body.u64()?,
            nonce: Nonce(body.array()?),
            proof: body.array()?,
        };
        body.end()?;
        Ok(login)
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::LOGIN, id, out, |out| {
            self.put_signed(out);
            out.put(&self.proof);
        });
    }

    fn mac(&self, key: &DeviceKey) -> Mac {
        let mut mac = Mac::new(key, proof::LOGIN);
        self.put_signed(&mut mac);
        mac
    }

    fn put_signed(&self, to: &mut impl Sink) {
        to.put_str8(self.account.as_bytes());
        to.put_str8(self.firmware.as_bytes());
        to.put(&self.sent_at_ms.to_le_bytes());
        to.put(&self.nonce.0);
    }
}

fn account(bytes: &[u8]) -> Result<&str, MessageError> {
    str::from_utf8(bytes)
        .ok()
        .filter(|text| text.parse::<AccountName>().is_ok())
        .ok_or(MessageError::Body("account"))
}

fn firmware(bytes: &[u8]) -> Result<&str, MessageError> {
    let printable = |byte| matches!(byte, b' '..=b'~');
    str::from_utf8(bytes)
        .ok()
        .filter(|text| text.len() <= FIRMWARE_BYTES_MAX && text.bytes().all(printable))
        .ok_or(MessageError::Body("firmware"))
}

/// Answers a Login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginReply<'a> {
    /// 0: the device uses its backoff.
    pub retry_after_ms: u32,
    pub server_time_ms: u64,
    pub verdict: LoginVerdict<'a>,
}

/// How the login ended, with what belongs to that status. The proofs of `Disabled` and
/// `ClockSkew` are there so that nobody on the way sets a fleet's clocks or sends it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginVerdict<'a> {
    Ok(SignedTarget<'a>),
    Refused,
    Disabled { proof: Proof },
    ClockSkew { proof: Proof },
    Full,
    Busy,
    Malformed,
}

/// Where to attach, and the ticket that admits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// An IPv4 or IPv6 address in text, without brackets or zone.
    pub host: &'a str,
    pub port: u16,
    pub ticket: Ticket,
    pub ticket_ttl_s: u16,
}

/// A target with the proof of the message that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedTarget<'a> {
    pub target: Target<'a>,
    pub proof: Proof,
}

impl LoginVerdict<'_> {
    pub fn status(&self) -> LoginStatus {
        match self {
            Self::Ok(_) => LoginStatus::Ok,
            Self::Refused => LoginStatus::Refused,
            Self::Disabled { .. } => LoginStatus::Disabled,
            Self::ClockSkew { .. } => LoginStatus::ClockSkew,
            Self::Full => LoginStatus::Full,
            Self::Busy => LoginStatus::Busy,
            Self::Malformed => LoginStatus::Malformed,
        }
    }
}

impl<'a> LoginReply<'a> {
    /// Status `ok` with its proof. The statuses without a proof are built as they are.
    pub fn ok(server_time_ms: u64, target: Target<'a>, nonce: Nonce, key: &DeviceKey) -> Self {
        Self::sign(0, server_time_ms, nonce, key, |proof| {
            LoginVerdict::Ok(SignedTarget { target, proof })
        })
    }

    /// Status `disabled` with its proof.
    pub fn disabled(
        retry_after_ms: u32,
        server_time_ms: u64,
        nonce: Nonce,
        key: &DeviceKey,
    ) -> Self {
        Self::sign(retry_after_ms, server_time_ms, nonce, key, |proof| {
            LoginVerdict::Disabled { proof }
        })
    }

    /// Status `clock_skew` with its proof.
    pub fn clock_skew(
        retry_after_ms: u32,
        server_time_ms: u64,
        nonce: Nonce,
        key: &DeviceKey,
    ) -> Self {
        Self::sign(retry_after_ms, server_time_ms, nonce, key, |proof| {
            LoginVerdict::ClockSkew { proof }
        })
    }

    fn sign(
        retry_after_ms: u32,
        server_time_ms: u64,
        nonce: Nonce,
        key: &DeviceKey,
        verdict: impl Fn(Proof) -> LoginVerdict<'a>,
    ) -> Self {
        let reply = |proof| Self {
            retry_after_ms,
            server_time_ms,
            verdict: verdict(proof),
        };
        reply(reply([0; 32]).mac(nonce, key).finish())
    }

    pub fn status(&self) -> LoginStatus {
        self.verdict.status()
    }

    /// Whether the cluster that answered knows the account's key and answers this login; true
    /// where the status has no proof. In constant time.
    pub fn verify(&self, nonce: Nonce, key: &DeviceKey) -> bool {
        self.proof()
            .is_none_or(|proof| self.mac(nonce, key).verify(proof))
    }

    /// A status that the contract does not list is `Busy`; then, too, a body has exactly the
    /// fields of `Busy`, for new fields come as new kinds.
    pub fn decode_body(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let status = LoginStatus::from_code(body.u8()?).unwrap_or(LoginStatus::Busy);
        let reply = Self {
            retry_after_ms: body.u32()?,
            server_time_ms: body.u64()?,
            verdict: match status {
                LoginStatus::Ok => LoginVerdict::Ok(SignedTarget::take(&mut body)?),
                LoginStatus::Refused => LoginVerdict::Refused,
                LoginStatus::Disabled => LoginVerdict::Disabled {
                    proof: body.array()?,
                },
                LoginStatus::ClockSkew => LoginVerdict::ClockSkew {
                    proof: body.array()?,
                },
                LoginStatus::Full => LoginVerdict::Full,
                LoginStatus::Busy => LoginVerdict::Busy,
                LoginStatus::Malformed => LoginVerdict::Malformed,
            },
        };
        body.end()?;
        Ok(reply)
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::LOGIN_REPLY, id, out, |out| {
            self.put_signed(out);
            if let Some(proof) = self.proof() {
                out.put(proof);
            }
        });
    }

    fn proof(&self) -> Option<&Proof> {
        match &self.verdict {
            LoginVerdict::Ok(SignedTarget { proof, .. })
            | LoginVerdict::Disabled { proof }
            | LoginVerdict::ClockSkew { proof } => Some(proof),
            LoginVerdict::Refused
            | LoginVerdict::Full
            | LoginVerdict::Busy
            | LoginVerdict::Malformed => None,
        }
    }

    fn mac(&self, nonce: Nonce, key: &DeviceKey) -> Mac {
        let label = match self.verdict {
            LoginVerdict::Ok(_) => proof::GRANT,
            _ => proof::TOLD,
        };
        let mut mac = Mac::new(key, label).with(&nonce.0);
        self.put_signed(&mut mac);
        mac
    }

    fn put_signed(&self, to: &mut impl Sink) {
        to.put(&[self.status().code()]);
        to.put(&self.retry_after_ms.to_le_bytes());
        to.put(&self.server_time_ms.to_le_bytes());
        if let LoginVerdict::Ok(signed) = &self.verdict {
            signed.target.put(to);
        }
    }
}

impl<'a> Target<'a> {
    pub(super) fn put(&self, to: &mut impl Sink) {
        to.put_str8(self.host.as_bytes());
        to.put(&self.port.to_le_bytes());
        to.put(self.ticket.expose());
        to.put(&self.ticket_ttl_s.to_le_bytes());
    }
}

impl<'a> SignedTarget<'a> {
    /// Target and proof stand together at the end of both messages that have them.
    pub(super) fn take(body: &mut Reader<'a>) -> Result<Self, MessageError> {
        Ok(Self {
            target: Target {
                host: host(body.str8()?)?,
                port: body.u16()?,
                ticket: Secret::new(body.array()?),
                ticket_ttl_s: body.u16()?,
            },
            proof: body.array()?,
        })
    }
}

fn host(bytes: &[u8]) -> Result<&str, MessageError> {
    str::from_utf8(bytes)
        .ok()
        .filter(|text| text.parse::<IpAddr>().is_ok())
        .ok_or(MessageError::Body("host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fields_hold_what_the_contract_allows() {
        let decode = |account: &[u8], firmware: &[u8]| {
            let mut body = Vec::new();
            body.put_str8(account);
            body.put_str8(firmware);
            body.extend_from_slice(&[0; 56]);
            Login::decode_body(&body).map(|_| ())
        };
        let account = Err(MessageError::Body("account"));
        let firmware = Err(MessageError::Body("firmware"));
        assert_eq!(decode(b"a.B_c:d-9", b" ~"), Ok(()));
        assert_eq!(decode(&[b'x'; 32], &[b'x'; 32]), Ok(()));
        assert_eq!(decode(b"a", b""), Ok(()));
        for wrong in [
            &b""[..],
            b"a b",
            b"a\0",
            &[b'x'; 33],
            "\u{fc}".as_bytes(),
            b"\xff",
        ] {
            assert_eq!(decode(wrong, b""), account, "{wrong:?}");
        }
        for wrong in [
            &b"1\n"[..],
            b"\x7f",
            &[b'x'; 33],
            "\u{fc}".as_bytes(),
            b"\xff",
        ] {
            assert_eq!(decode(b"a", wrong), firmware, "{wrong:?}");
        }
    }

    #[test]
    fn a_host_is_an_address_without_brackets_or_zone() {
        let decode = |host: &str| {
            let mut body = vec![0; 13];
            body.put_str8(host.as_bytes());
            body.extend_from_slice(&[0; 52]);
            LoginReply::decode_body(&body).map(|_| ())
        };
        for right in ["192.0.2.17", "2001:db8::17", "::", "::ffff:192.0.2.1"] {
            assert_eq!(decode(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "[::1]",
            "fe80::1%eth0",
            "example.com",
            "192.0.2.17:1",
            "192.0.2.017",
        ] {
            assert_eq!(decode(wrong), Err(MessageError::Body("host")), "{wrong}");
        }
    }
}
