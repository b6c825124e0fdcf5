//! What people do with accounts. Each change stands in one transaction with its row in
//! `account_changes`, so that every conn server hears of it, whether one runs now or not.
//!
//! A version is the second of the change that made it, or the next number where the account has that
//! already. So none comes twice, also after the database was restored and the same ids are given again:
//! what was granted before is told from what is granted now by (id, version) alone.

mod import;

use common::database::Database;
use common::ids::AccountName;
use common::secret::DeviceKey;
use rand::TryRng;
use rand::rngs::{SysError, SysRng};

use super::described::{Described, Online};
use super::seal::{MasterKey, SealNonce, seal};
use super::table::{Added, Edit, Edited, Table};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Accounts {
    table: Table,
    master: MasterKey,
}

#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    #[error("there is an account {0} already")]
    Exists(AccountName),
    #[error("there is no account {0}")]
    Unknown(AccountName),
    #[error("the accounts table cannot be used")]
    Database(#[from] sqlx::Error),
    #[error("the system has no random numbers")]
    Random(#[from] SysError),
}

impl Accounts {
    pub fn new(database: Database, master: MasterKey) -> Self {
        let table = Table::new(&database);
        Self { table, master }
    }

    /// # Errors
    /// [`AccountsError::Exists`]; the table cannot be used.
    pub async fn add(
        &self,
        name: &AccountName,
        key: &DeviceKey,
        unix_ms: i64,
    ) -> Result<(), AccountsError> {
        self.add_many(&[(name.clone(), *key)], unix_ms).await
    }

    /// Adds all of them or none.
    ///
    /// # Errors
    /// [`AccountsError::Exists`] for the first that exists; the table cannot be used.
    pub async fn add_many(
        &self,
        accounts: &[(AccountName, DeviceKey)],
        unix_ms: i64,
    ) -> Result<(), AccountsError> {
        // Before the transaction: it holds up whoever else writes.
        let sealed = accounts
            .iter()
            .map(|(name, key)| Ok((name, self.sealed(name, key)?)))
            .collect::<Result<Vec<_>, SysError>>()?;
        match self.table.add(&sealed, unix_ms).await? {
            Added::All => Ok(()),
            Added::Exists(name) => Err(AccountsError::Exists(name)),
        }
    }

    /// Names in order, beginning after `after`; an empty page is the end.
    pub async fn list(
        &self,
        after: &str,
        accounts_max: u32,
    ) -> Result<Vec<Described>, AccountsError> {
        Ok(self.table.list(after, accounts_max).await?)
    }

    /// The account, and its newest session that has not ended.
    ///
    /// # Errors
    /// [`AccountsError::Unknown`]; the table cannot be used.
    pub async fn show(
        &self,
        name: &AccountName,
    ) -> Result<(Described, Option<Online>), AccountsError> {
        let described = self.table.describe(name).await?;
        let described = described.ok_or_else(|| AccountsError::Unknown(name.clone()))?;
        let online = self.table.online(described.id).await?;
        Ok((described, online))
    }

    /// Switches it on; false where it was.
    ///
    /// # Errors
    /// As those of the three below: [`AccountsError::Unknown`]; the table cannot be used.
    pub async fn enable(&self, name: &AccountName, unix_ms: i64) -> Result<bool, AccountsError> {
        self.edit(name, Edit::Enable, unix_ms).await
    }

    /// Switches it off, ends its session and its open grants; false where it was.
    pub async fn disable(&self, name: &AccountName, unix_ms: i64) -> Result<bool, AccountsError> {
        self.edit(name, Edit::Disable, unix_ms).await
    }

    /// From now on only the new key lets it in; its session ends.
    pub async fn rotate_key(
        &self,
        name: &AccountName,
        key: &DeviceKey,
        unix_ms: i64,
    ) -> Result<(), AccountsError> {
        let sealed = self.sealed(name, key)?;
        self.edit(name, Edit::RotateKey(sealed), unix_ms)
            .await
            .map(drop)
    }

    /// Removes it and ends its session; what it sent stays.
    pub async fn remove(&self, name: &AccountName, unix_ms: i64) -> Result<(), AccountsError> {
        self.edit(name, Edit::Remove, unix_ms).await.map(drop)
    }

    /// False where there was nothing to change.
    async fn edit(
        &self,
        name: &AccountName,
        edit: Edit,
        unix_ms: i64,
    ) -> Result<bool, AccountsError> {
        match self.table.edit(name, edit, unix_ms).await? {
            Edited::Done => Ok(true),
            Edited::Nothing => Ok(false),
            Edited::Unknown => Err(AccountsError::Unknown(name.clone())),
        }
    }

    fn sealed(&self, name: &AccountName, key: &DeviceKey) -> Result<Vec<u8>, SysError> {
        let mut nonce = SealNonce::default();
        SysRng.try_fill_bytes(&mut nonce)?;
        Ok(seal(&self.master, name, key, &nonce))
    }
}

#[cfg(test)]
mod tests;
