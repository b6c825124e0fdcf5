//! Many accounts at a time, of which some may be there already.

use std::collections::{HashMap, HashSet};

use common::ids::AccountName;
use common::secret::DeviceKey;
use rand::rngs::SysError;

use super::{Accounts, AccountsError};
use crate::accounts::seal;

impl Accounts {
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
