//! What people do with accounts. Each change stands in one transaction with its row in
//! `account_changes`, so that every conn server hears of it, whether one runs now or not.

use std::collections::HashSet;

use common::database::Database;
use common::ids::AccountName;
use common::secret::DeviceKey;
use rand::TryRng;
use rand::rngs::{SysError, SysRng};
use sqlx::query::QueryAs;
use sqlx::sqlite::SqliteArguments;
use sqlx::{FromRow, QueryBuilder, Sqlite, Transaction};

use super::seal::{MasterKey, SealNonce, seal};
use crate::account::ChangeKind;

/// Rows of one INSERT: its values stay below SQLite's limit of bound parameters.
const ROWS_PER_INSERT: usize = 1_000;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Accounts {
    database: Database,
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

/// An account as people see it; its key stays sealed. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Described {
    pub id: i64,
    pub name: String,
    pub enabled: bool,
    /// Grows with every change of key or `enabled`.
    pub version: i64,
    #[sqlx(rename = "created_at")]
    pub created_at_ms: i64,
    /// As of the last login, like the three below.
    pub firmware: Option<String>,
    #[sqlx(rename = "last_login_at")]
    pub last_login_at_ms: Option<i64>,
    pub last_source: Option<String>,
    pub last_node: Option<String>,
}

/// A session that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Online {
    pub node: String,
    pub source: String,
    #[sqlx(rename = "attached_at")]
    pub attached_at_ms: i64,
}

const DESCRIBED: &str = "SELECT id, name, enabled, version, created_at, \
     firmware, last_login_at, last_source, last_node FROM accounts";

impl Accounts {
    pub fn new(database: Database, master: MasterKey) -> Self {
        Self { database, master }
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
            .map(|(name, key)| self.sealed(name, key))
            .collect::<Result<Vec<_>, _>>()?;
        let mut transaction = self.begin().await?;
        let (newest,): (i64,) = sqlx::query_as("SELECT coalesce(max(id), 0) FROM accounts")
            .fetch_one(&mut *transaction)
            .await?;
        for (accounts, sealed) in accounts
            .chunks(ROWS_PER_INSERT)
            .zip(sealed.chunks(ROWS_PER_INSERT))
        {
            let mut insert =
                QueryBuilder::<Sqlite>::new("INSERT INTO accounts (name, sealed_key, created_at) ");
            insert.push_values(
                accounts.iter().zip(sealed),
                |mut row, ((name, _), sealed)| {
                    row.push_bind(name.as_str())
                        .push_bind(&sealed[..])
                        .push_bind(unix_ms);
                },
            );
            insert.push(" ON CONFLICT (name) DO NOTHING");
            let added = insert.build().execute(&mut *transaction).await?;
            if added.rows_affected() < accounts.len() as u64 {
                return Err(first_existing(&mut transaction, accounts, newest).await);
            }
        }
        // Ids only grow: these are the rows that were just added.
        sqlx::query(
            "INSERT INTO account_changes (account_id, name, change, version, changed_at) \
             SELECT id, name, ?, version, ? FROM accounts WHERE id > ? ORDER BY id",
        )
        .bind(ChangeKind::Added.name())
        .bind(unix_ms)
        .bind(newest)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Names in order, beginning after `after`; an empty page is the end.
    pub async fn list(
        &self,
        after: &str,
        accounts_max: u32,
    ) -> Result<Vec<Described>, AccountsError> {
        let sql = format!("{DESCRIBED} WHERE name > ? ORDER BY name LIMIT ?");
        Ok(sqlx::query_as(&sql)
            .bind(after)
            .bind(accounts_max)
            .fetch_all(self.database.reader())
            .await?)
    }

    /// The account, and its newest session that has not ended.
    ///
    /// # Errors
    /// [`AccountsError::Unknown`]; the table cannot be used.
    pub async fn show(
        &self,
        name: &AccountName,
    ) -> Result<(Described, Option<Online>), AccountsError> {
        let sql = format!("{DESCRIBED} WHERE name = ?");
        let described: Described = sqlx::query_as(&sql)
            .bind(name.as_str())
            .fetch_optional(self.database.reader())
            .await?
            .ok_or_else(|| AccountsError::Unknown(name.clone()))?;
        let online = sqlx::query_as(
            "SELECT node, source, attached_at FROM sessions \
             WHERE account_id = ? AND ended_at IS NULL ORDER BY epoch DESC LIMIT 1",
        )
        .bind(described.id)
        .fetch_optional(self.database.reader())
        .await?;
        Ok((described, online))
    }

    /// Switches it on; false where it was.
    ///
    /// # Errors
    /// As those of the three below: [`AccountsError::Unknown`]; the table cannot be used.
    pub async fn enable(&self, name: &AccountName, unix_ms: i64) -> Result<bool, AccountsError> {
        let sql = "UPDATE accounts SET enabled = 1, version = version + 1 \
                   WHERE name = ? AND enabled = 0 RETURNING id, version";
        let changed = sqlx::query_as(sql).bind(name.as_str());
        self.change(name, changed, ChangeKind::Enabled, unix_ms)
            .await
    }

    /// Switches it off, ends its session and its open grants; false where it was.
    pub async fn disable(&self, name: &AccountName, unix_ms: i64) -> Result<bool, AccountsError> {
        let sql = "UPDATE accounts SET enabled = 0, version = version + 1 \
                   WHERE name = ? AND enabled = 1 RETURNING id, version";
        let changed = sqlx::query_as(sql).bind(name.as_str());
        self.change(name, changed, ChangeKind::Disabled, unix_ms)
            .await
    }

    /// From now on only the new key lets it in; its session ends.
    pub async fn rotate_key(
        &self,
        name: &AccountName,
        key: &DeviceKey,
        unix_ms: i64,
    ) -> Result<(), AccountsError> {
        let sql = "UPDATE accounts SET sealed_key = ?, version = version + 1 \
                   WHERE name = ? RETURNING id, version";
        let changed = sqlx::query_as(sql)
            .bind(self.sealed(name, key)?)
            .bind(name.as_str());
        self.change(name, changed, ChangeKind::KeyRotated, unix_ms)
            .await
            .map(drop)
    }

    /// Removes it and ends its session; what it sent stays.
    pub async fn remove(&self, name: &AccountName, unix_ms: i64) -> Result<(), AccountsError> {
        let sql = "DELETE FROM accounts WHERE name = ? RETURNING id, version + 1";
        let changed = sqlx::query_as(sql).bind(name.as_str());
        self.change(name, changed, ChangeKind::Removed, unix_ms)
            .await
            .map(drop)
    }

    /// Runs the change of one account, which returns its id and its new version, and records it.
    /// False where there was nothing to change.
    async fn change<'q>(
        &self,
        name: &'q AccountName,
        changed: QueryAs<'q, Sqlite, (i64, i64), SqliteArguments<'q>>,
        kind: ChangeKind,
        unix_ms: i64,
    ) -> Result<bool, AccountsError> {
        let mut transaction = self.begin().await?;
        let Some((id, version)) = changed.fetch_optional(&mut *transaction).await? else {
            let exists = id_of(&mut transaction, name).await?.is_some();
            return exists
                .then_some(false)
                .ok_or_else(|| AccountsError::Unknown(name.clone()));
        };
        sqlx::query(
            "INSERT INTO account_changes (account_id, name, change, version, changed_at) \
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(name.as_str())
        .bind(kind.name())
        .bind(version)
        .bind(unix_ms)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.database.writer().begin_with("BEGIN IMMEDIATE").await
    }

    fn sealed(&self, name: &AccountName, key: &DeviceKey) -> Result<Vec<u8>, AccountsError> {
        let mut nonce = SealNonce::default();
        SysRng.try_fill_bytes(&mut nonce)?;
        Ok(seal(&self.master, name, key, &nonce))
    }
}

async fn id_of(
    transaction: &mut Transaction<'_, Sqlite>,
    name: &AccountName,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM accounts WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(&mut **transaction)
        .await
}

/// Which account could not be added: it was there, or it is in the list twice.
async fn first_existing(
    transaction: &mut Transaction<'_, Sqlite>,
    accounts: &[(AccountName, DeviceKey)],
    newest: i64,
) -> AccountsError {
    let mut seen = HashSet::new();
    for (name, _) in accounts {
        match id_of(transaction, name).await {
            Ok(Some(id)) if id > newest && seen.insert(name) => {}
            Ok(_) => return AccountsError::Exists(name.clone()),
            Err(error) => return error.into(),
        }
    }
    sqlx::Error::RowNotFound.into()
}

#[cfg(test)]
mod tests;
