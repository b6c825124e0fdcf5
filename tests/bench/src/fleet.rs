//! Pure. The devices that play in a measurement: accounts and their keys, from one fleet key.

use std::fmt::Write as _;

use common::fleet::{self, FleetKey};
use common::ids::AccountName;
use common::secret::DeviceKey;

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
    let account = fleet::account(PREFIX, number).expect("the prefix makes accounts");
    let key = fleet::device_key(&FleetKey::new(KEY), &account);
    Device { account, key }
}

pub(crate) fn key_hex() -> String {
    KEY.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
