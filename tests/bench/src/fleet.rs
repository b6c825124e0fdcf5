//! Pure. The devices that play in a measurement: accounts and their keys, from one fleet key.

use std::fmt::Write as _;

use common::ids::AccountName;
use common::secret::DeviceKey;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What the accounts' names begin with; `rcu device add --fleet` is told the same.
pub(crate) const PREFIX: &str = "bench";

/// Every account of a measurement is worth nothing beyond it: the key is no secret.
pub(crate) const KEY: [u8; 32] = *b"a key of no worth, for benchmark";

pub(crate) struct Device {
    pub(crate) account: AccountName,
    pub(crate) key: DeviceKey,
}

/// `bench-000001` and so on, as `rcu device add --fleet bench --count COUNT` names them.
pub(crate) fn devices(count: u32) -> Vec<Device> {
    (1..=count).map(device).collect()
}

fn device(number: u32) -> Device {
    let name = format!("{PREFIX}-{number:06}");
    let mut mac = Hmac::<Sha256>::new_from_slice(&KEY).expect("HMAC takes a key of any length");
    mac.update(b"rcu1 fleet\0");
    mac.update(name.as_bytes());
    Device {
        account: name.parse().expect("letters, digits and a hyphen"),
        key: DeviceKey::new(mac.finalize().into_bytes().into()),
    }
}

pub(crate) fn key_hex() -> String {
    KEY.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
