//! Pure. Device keys as they stand in the database: under a master key that is not in it.
//!
//! ```text
//! 0         1          25                57      73
//! | version | nonce … | sealed key …   | tag … |     XChaCha20-Poly1305, the account's name authenticated
//! ```
//!
//! The nonce is random and long enough to stay unique without a count. The name is bound in, so that
//! nobody who can write the table makes one account's key open for another.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use common::ids::AccountName;
use common::secret::{DeviceKey, Secret};

/// Seals the keys of all accounts; kept in a file of its own.
pub type MasterKey = Secret<32>;

/// Random, new for every sealing.
pub type SealNonce = [u8; NONCE_BYTES];

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const SEALED_BYTES: usize = 1 + NONCE_BYTES + 32 + TAG_BYTES;

/// As long as a sealed key, and opens for nobody.
pub const NOBODYS: [u8; SEALED_BYTES] = [VERSION; SEALED_BYTES];

/// It was not sealed under this master key for this account, or was changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is not sealed under this master key")]
pub struct SealError;

pub fn seal(
    master: &MasterKey,
    account: &AccountName,
    key: &DeviceKey,
    nonce: &SealNonce,
) -> Vec<u8> {
    let payload = Payload {
        msg: key.expose(),
        aad: account.as_str().as_bytes(),
    };
    let sealed = cipher(master)
        .encrypt(XNonce::from_slice(nonce), payload)
        .expect("32 bytes can be sealed");
    let mut bytes = Vec::with_capacity(SEALED_BYTES);
    bytes.push(VERSION);
    bytes.extend_from_slice(nonce);
    bytes.extend_from_slice(&sealed);
    bytes
}

pub fn open(
    master: &MasterKey,
    account: &AccountName,
    sealed: &[u8],
) -> Result<DeviceKey, SealError> {
    let (version, rest) = sealed.split_first().ok_or(SealError)?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError)?;
    if *version != VERSION {
        return Err(SealError);
    }
    let payload = Payload {
        msg: sealed,
        aad: account.as_str().as_bytes(),
    };
    let key = cipher(master)
        .decrypt(XNonce::from_slice(nonce), payload)
        .map_err(|_| SealError)?;
    key.try_into().map(Secret::new).map_err(|_| SealError)
}

fn cipher(master: &MasterKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(Key::from_slice(master.expose()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MASTER: MasterKey = Secret::new([1; 32]);
    const KEY: DeviceKey = Secret::new([2; 32]);

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    fn sealed() -> Vec<u8> {
        seal(&MASTER, &name("a"), &KEY, &[3; NONCE_BYTES])
    }

    #[test]
    fn what_was_sealed_opens_for_its_account_and_master_key_only() {
        assert_eq!(open(&MASTER, &name("a"), &sealed()), Ok(KEY));
        assert_eq!(open(&MASTER, &name("b"), &sealed()), Err(SealError));
        let other = Secret::new([9; 32]);
        assert_eq!(open(&other, &name("a"), &sealed()), Err(SealError));
    }

    #[test]
    fn no_changed_byte_and_no_other_length_opens() {
        let sealed = sealed();
        assert_eq!(sealed.len(), SEALED_BYTES);
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(open(&MASTER, &name("a"), &changed), Err(SealError));
            assert_eq!(open(&MASTER, &name("a"), &sealed[..index]), Err(SealError));
        }
        let longer = [&sealed[..], &[0]].concat();
        assert_eq!(open(&MASTER, &name("a"), &longer), Err(SealError));
    }

    #[test]
    fn the_key_does_not_stand_in_what_is_sealed() {
        assert!(!sealed().windows(4).any(|bytes| bytes == [2; 4]));
    }
}
