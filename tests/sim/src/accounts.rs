//! The accounts database of the simulated world: who may log in, and the marks of the conn servers'
//! epochs. It outlives every process.

use std::collections::BTreeMap;

use common::epoch::Epoch;
use common::ids::AccountName;
use conn_server::account::{Account, Found};

use crate::device::{account_name, device_key};
use crate::world::account_of;

#[derive(Debug)]
pub struct Accounts {
    rows: BTreeMap<AccountName, Account>,
    /// By the node number of a conn server.
    marks: BTreeMap<u16, Epoch>,
}

impl Accounts {
    /// One for each device.
    pub fn new(devices: usize) -> Self {
        let row = |index| {
            let account = Account {
                id: account_of(index),
                key: device_key(index),
                version: 1,
                enabled: true,
            };
            (account_name(index), account)
        };
        Self {
            rows: (0..devices).map(row).collect(),
            marks: BTreeMap::new(),
        }
    }

    pub fn look_up(&self, name: &AccountName) -> Found {
        self.rows
            .get(name)
            .map_or(Found::Unknown, |account| Found::Account(*account))
    }

    pub fn mark(&self, node_number: u16) -> Epoch {
        self.marks.get(&node_number).copied().unwrap_or_default()
    }

    /// A mark only grows, whoever else believes to have this number.
    pub fn store_mark(&mut self, node_number: u16, mark: Epoch) {
        let stored = self.marks.entry(node_number).or_default();
        *stored = (*stored).max(mark);
    }
}
