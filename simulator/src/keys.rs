//! Pure. Who the simulated devices are, where one fleet key makes them.

use common::fleet::{self, FleetKey};
use common::ids::NameError;
use common::secret::Secret;
use thiserror::Error;

use crate::device::Identity;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeysError {
    #[error("the fleet's prefix makes no account: {0}")]
    Prefix(#[from] NameError),
    #[error("a key is 64 hexadecimal digits")]
    Key,
}

/// The first `count` devices of a fleet.
pub fn fleet(prefix: &str, fleet_key: &FleetKey, count: u32) -> Result<Vec<Identity>, KeysError> {
    (1..=count)
        .map(|number| {
            let account = fleet::account(prefix, number)?;
            let key = fleet::device_key(fleet_key, &account);
            Ok(Identity { account, key })
        })
        .collect()
}

/// A device key or fleet key from 64 hexadecimal digits.
pub fn key_from_hex(text: &str) -> Result<Secret<32>, KeysError> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut key = [0; 32];
    if pairs.len() != key.len() || !rest.is_empty() {
        return Err(KeysError::Key);
    }
    for (byte, &[high, low]) in key.iter_mut().zip(pairs) {
        let (high, low) = digit(high).zip(digit(low)).ok_or(KeysError::Key)?;
        *byte = (high << 4 | low) as u8;
    }
    Ok(Secret::new(key))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1F";

    #[test]
    fn what_is_no_key_is_refused() {
        for wrong in [
            &HEX[1..],
            &format!("{HEX}00"),
            &HEX.replace('a', "g"),
            &HEX.replace("0a", "ä"),
        ] {
            assert_eq!(key_from_hex(wrong), Err(KeysError::Key));
        }
    }

    /// Made with another implementation: Python's `hmac.new(bytes(range(32)), b"rcu1 fleet\0demo-000001", "sha256")`.
    #[test]
    fn a_fleet_has_numbered_accounts_with_keys_of_their_own() {
        let fleet_key = key_from_hex(HEX).unwrap();
        let devices = fleet("demo", &fleet_key, 3).unwrap();
        let accounts: Vec<_> = devices.iter().map(|id| id.account.as_str()).collect();
        assert_eq!(accounts, ["demo-000001", "demo-000002", "demo-000003"]);
        assert_eq!(devices[0].key, key_from_hex(FIRST_KEY).unwrap());
        assert_ne!(devices[0].key, devices[1].key);
        assert!(fleet("no blanks", &fleet_key, 1).is_err());
        assert!(fleet(&"x".repeat(26), &fleet_key, 1).is_err());
    }

    const FIRST_KEY: &str = "7ddd81eda51b98a1ab66cc511dde4335d9a5666ef4a50d5034aee2790520423f";
}
