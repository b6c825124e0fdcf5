//! Pure. A fleet's device keys from one key: a factory needs no list to make them.

use common::ids::AccountName;
use common::secret::{DeviceKey, Secret};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Makes the keys of all devices of a fleet. Whoever has it has them all.
pub type FleetKey = Secret<32>;

/// HMAC-SHA256(fleet key, `"rcu1 fleet\0"` ‖ account).
pub fn device_key(fleet: &FleetKey, account: &AccountName) -> DeviceKey {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(fleet.expose()).expect("HMAC takes a key of any length");
    mac.update(b"rcu1 fleet\0");
    mac.update(account.as_str().as_bytes());
    Secret::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_device_key_is_the_hmac_of_its_account() {
        // printf 'rcu1 fleet\0rcu-000001' | openssl dgst -sha256 -mac hmac -macopt hexkey:0505…05
        let key = device_key(&Secret::new([5; 32]), &"rcu-000001".parse().unwrap());
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
}
