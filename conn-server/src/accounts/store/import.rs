//! Many accounts at a time, of which some may be there already.

use std::collections::{HashMap, HashSet};

use common::ids::AccountName;
use common::secret::DeviceKey;
use rand::rngs::SysError;

use super::{Accounts, AccountsError};
use crate::accounts::seal;

/// Names that are looked up in one statement.
const LOOK_UP_MAX: usize = 1_000;

impl Accounts {
    /// Whether all of these may still be added, as far as can be known before it is tried.
    ///
    /// # Errors
    /// [`AccountsError::Exists`] for one that exists; the table cannot be used.
    pub async fn none_exists<'a>(
        &self,
        names: impl IntoIterator<Item = &'a AccountName>,
    ) -> Result<(), AccountsError> {
        let names: Vec<_> = names.into_iter().cloned().collect();
        for some in names.chunks(LOOK_UP_MAX) {
            let rows = self.table.accounts(some).await?;
            let mut existing = rows.into_iter().filter_map(|(name, ..)| name.parse().ok());
            if let Some(name) = existing.next() {
                return Err(AccountsError::Exists(name));
            }
        }
        Ok(())
    }

    /// Of these names those that are accounts, each with its key; `None`: it was sealed under
    /// another master key.
    ///
    /// # Errors
    /// The table cannot be used.
    pub async fn keys_of(
        &self,
        names: &[AccountName],
    ) -> Result<HashMap<AccountName, Option<DeviceKey>>, AccountsError> {
        let rows = self.table.accounts(names).await?;
        let opened = rows.into_iter().filter_map(|(name, _, sealed, ..)| {
            let name: AccountName = name.parse().ok()?;
            let key = seal::open(&self.master, &name, &sealed).ok();
            Some((name, key))
        });
        Ok(opened.collect())
    }

    /// Adds those that are no accounts yet, in one transaction; returns the names of those.
    ///
    /// # Errors
    /// The table cannot be used: none is added, or where the commit failed, perhaps all.
    pub async fn add_new(
        &self,
        accounts: &[(AccountName, DeviceKey)],
        unix_ms: i64,
    ) -> Result<HashSet<AccountName>, AccountsError> {
        // Before the transaction: it holds up whoever else writes.
        let sealed = accounts
            .iter()
            .map(|(name, key)| Ok((name, self.sealed(name, key)?)))
            .collect::<Result<Vec<_>, SysError>>()?;
        let added = self.table.add_new(&sealed, unix_ms).await?;
        Ok(added
            .into_iter()
            .filter_map(|name| name.parse().ok())
            .collect())
    }
}
