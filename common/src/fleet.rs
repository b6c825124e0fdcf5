//! Pure. A fleet's accounts by number, and their keys from one key: a factory needs no list to make
//! them, and a simulator none to play them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::ids::{AccountName, NameError};
use crate::secret::{DeviceKey, Secret};

/// Makes the keys of all devices of a fleet. Whoever has it has them all.
pub type FleetKey = Secret<32>;

/// The account of a fleet's device: PREFIX-000001 is the first.
///
/// # Errors
/// The prefix has a character that no account has, or is too long.
pub fn account(prefix: &str, number: u32) -> Result<AccountName, NameError> {
    format!("{prefix}-{number:06}").parse()
}

/// HMAC-SHA256(fleet key, `"rcu1 fleet\0"` ‖ account).
pub fn device_key(fleet: &FleetKey, account: &AccountName) -> DeviceKey {
    let mac = Hmac::<Sha256>::new_from_slice(fleet.expose())
        .expect("HMAC takes a key of any length")
        .chain_update(b"rcu1 fleet\0")
        .chain_update(account.as_str());
    Secret::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_device_key_is_the_hmac_of_its_account() {
        // printf 'rcu1 fleet\0rcu-000001' | openssl dgst -sha256 -mac hmac -macopt hexkey:0505…05
        let key = device_key(&Secret::new([5; 32]), &account("rcu", 1).unwrap());
        let hex: String = key
            .expose()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "3023501eef301ba8eba9bff5dde9c4705c12f273bcff97dc6816173ea48d4959"
        );
    }

    #[test]
    fn a_prefix_that_makes_no_account_is_refused() {
        assert!(account("no blanks", 1).is_err());
        assert!(account(&"x".repeat(26), 1).is_err());
    }
}
