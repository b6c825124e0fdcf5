//! What people do to accounts while everything goes on: switch off and on, give new keys, remove.

use std::ops::RangeInclusive;

use common::ids::AccountId;
use conn_server::account::ChangeKind;
use rand::RngExt;
use simulator::device::Input;

use crate::model::Broken;
use crate::world::{Event, World, account_of};

/// From a new key in the database until somebody has put it into the device.
const KEY_GIVEN_MS: RangeInclusive<u64> = 0..=20_000;

/// Of so many devices at most one is removed for good.
const REMOVED_OF: usize = 4;

impl World {
    /// Somebody changes an account, if the database is there.
    pub fn change_an_account(&mut self) {
        let index = self.rng.random_range(0..self.plan.devices as usize);
        let Some(account) = self.accounts.of_device(index) else {
            return;
        };
        let is_enabled = account.enabled;
        let may_remove = (self.model.removed() + 1) * REMOVED_OF <= self.plan.devices as usize;
        let kind = match self.rng.random_range(0..8) {
            0 if may_remove => ChangeKind::Removed,
            0..3 => ChangeKind::KeyRotated,
            _ if is_enabled => ChangeKind::Disabled,
            _ => ChangeKind::Enabled,
        };
        self.change_account(index, kind);
    }

    fn change_account(&mut self, index: usize, kind: ChangeKind) {
        if self.accounts.is_away {
            return;
        }
        let Some(change) = self.accounts.change(index, kind) else {
            return;
        };
        self.trace_device(index, || format!("its account is changed: {kind:?}"));
        if let Some(revoke) = change.revocation() {
            let account_id: AccountId = account_of(index);
            self.model
                .account_changed(account_id, revoke.below_version, self.now_ms);
        }
        match kind {
            ChangeKind::KeyRotated => {
                let at_ms = self.now_ms + self.rng.random_range(KEY_GIVEN_MS);
                self.schedule(at_ms, Event::KeyGiven { device: index });
            }
            ChangeKind::Removed => {
                self.devices[index].is_removed = true;
                self.note_rest(index);
            }
            ChangeKind::Added | ChangeKind::Enabled | ChangeKind::Disabled => {}
        }
    }

    /// Somebody puts the key of now into a device.
    pub fn give_key(&mut self, index: usize) -> Result<(), Broken> {
        match self.accounts.key(index) {
            Some(key) => self.device(index, Input::KeySet { key }),
            None => Ok(()),
        }
    }

    /// Every account that there is can log in again.
    pub fn enable_everybody(&mut self) -> Result<(), Broken> {
        for index in 0..self.plan.devices as usize {
            if self.accounts.of_device(index).is_some_and(|it| !it.enabled) {
                self.change_account(index, ChangeKind::Enabled);
            }
            self.give_key(index)?;
        }
        Ok(())
    }
}
