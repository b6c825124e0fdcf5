//! What the accounts table is told and asked, in the dialects of both databases.

mod postgres;
mod sqlite;

use std::io::{self, ErrorKind};
use std::time::Duration;

use common::database::Database;
use common::ids::{AccountId, AccountName};
use sqlx::postgres::PgListener;

use super::described::{Described, Online};
use super::inquiries::FOLLOWED_EVERY_MS;
use crate::account::{ChangeKind, LastLogin};
use postgres::Postgres;
use sqlite::Sqlite;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Table {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// A row of `account_changes`: its number; the account, its name, what happened to it, its version, when.
pub(super) type ChangeColumns = (i64, i64, String, String, i64, i64);

/// Of `accounts`: name, id, sealed key, enabled, version.
pub(super) type AccountRow = (String, i64, Vec<u8>, bool, i64);

/// Id, version, enabled.
pub(super) type VersionRow = (i64, i64, bool);

/// An account to be added, with its sealed key.
pub(super) type Sealed<'a> = (&'a AccountName, Vec<u8>);

/// What a person changes.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Enable,
    Disable,
    /// To this sealed key.
    RotateKey(Vec<u8>),
    Remove,
}

impl Edit {
    fn kind(&self) -> ChangeKind {
        match self {
            Self::Enable => ChangeKind::Enabled,
            Self::Disable => ChangeKind::Disabled,
            Self::RotateKey(_) => ChangeKind::KeyRotated,
            Self::Remove => ChangeKind::Removed,
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edited {
    Done,
    /// It was so before.
    Nothing,
    /// There is no such account.
    Unknown,
}

/// What came of adding accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Added {
    All,
    /// None of them: the first that was there already, or is in the list twice.
    Exists(AccountName),
}

/// The least version of what is changed, or added, then; see [`store`](super::store).
fn version_at(unix_ms: i64) -> i64 {
    unix_ms.div_euclid(1_000).max(1)
}

/// It did not answer in time.
pub(super) fn silent() -> sqlx::Error {
    io::Error::from(ErrorKind::TimedOut).into()
}

macro_rules! on_either {
    ($table:expr, $it:ident => $asked:expr) => {
        match $table {
            Table::Sqlite($it) => $asked.await,
            Table::Postgres($it) => $asked.await,
        }
    };
}

impl Table {
    pub(crate) fn new(database: &Database) -> Self {
        match database {
            Database::Sqlite(sqlite) => Self::Sqlite(Sqlite::new(sqlite.clone())),
            Database::Postgres(postgres) => Self::Postgres(Postgres::new(postgres.clone())),
        }
    }

    /// Hears of changes as they happen; `None`: this database tells nobody.
    pub(super) async fn listen(&self) -> Result<Option<PgListener>, sqlx::Error> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(postgres) => postgres.listen().await.map(Some),
        }
    }

    /// How often changes are to be looked for. Where they are told of, looking is for what was missed.
    pub(super) fn followed_every(&self) -> Duration {
        match self {
            Self::Sqlite(_) => Duration::from_millis(FOLLOWED_EVERY_MS),
            Self::Postgres(_) => Duration::from_millis(2 * FOLLOWED_EVERY_MS),
        }
    }

    /// The newest change.
    pub(super) async fn newest(&self) -> Result<Option<ChangeColumns>, sqlx::Error> {
        on_either!(self, it => it.newest())
    }

    /// At most so many from this one on, the oldest first.
    pub(super) async fn changes(
        &self,
        from: i64,
        max: i64,
    ) -> Result<Vec<ChangeColumns>, sqlx::Error> {
        on_either!(self, it => it.changes(from, max))
    }

    /// Of those names, the accounts that there are.
    pub(super) async fn accounts(
        &self,
        names: &[AccountName],
    ) -> Result<Vec<AccountRow>, sqlx::Error> {
        on_either!(self, it => it.accounts(names))
    }

    pub(super) async fn versions(&self, ids: &[AccountId]) -> Result<Vec<VersionRow>, sqlx::Error> {
        on_either!(self, it => it.versions(ids))
    }

    /// Id and name of those that there are.
    pub(super) async fn names(&self, ids: &[AccountId]) -> Result<Vec<(i64, String)>, sqlx::Error> {
        on_either!(self, it => it.names(ids))
    }

    /// Of the conn server with this number.
    pub(super) async fn mark(&self, node_number: u16) -> Result<Option<i64>, sqlx::Error> {
        on_either!(self, it => it.mark(node_number))
    }

    /// It only grows, whoever else believes to have this number.
    pub(super) async fn store_mark(&self, node_number: u16, mark: i64) -> Result<(), sqlx::Error> {
        on_either!(self, it => it.store_mark(node_number, mark))
    }

    /// At most one of each account; those of accounts that are gone are of no account.
    pub(super) async fn note_last_logins(&self, notes: &[LastLogin]) -> Result<(), sqlx::Error> {
        on_either!(self, it => it.note_last_logins(notes))
    }

    /// All or none.
    pub(super) async fn add(
        &self,
        accounts: &[Sealed<'_>],
        unix_ms: i64,
    ) -> Result<Added, sqlx::Error> {
        on_either!(self, it => it.add(accounts, unix_ms))
    }

    /// Those that are not there yet, together; returns their names.
    pub(super) async fn add_new(
        &self,
        accounts: &[Sealed<'_>],
        unix_ms: i64,
    ) -> Result<Vec<String>, sqlx::Error> {
        on_either!(self, it => it.add_new(accounts, unix_ms))
    }

    /// Changes the account and records it.
    pub(super) async fn edit(
        &self,
        name: &AccountName,
        edit: Edit,
        unix_ms: i64,
    ) -> Result<Edited, sqlx::Error> {
        on_either!(self, it => it.edit(name, edit, unix_ms))
    }

    /// In order of their names, beginning after `after`.
    pub(super) async fn list(&self, after: &str, max: u32) -> Result<Vec<Described>, sqlx::Error> {
        on_either!(self, it => it.list(after, max))
    }

    pub(super) async fn describe(
        &self,
        name: &AccountName,
    ) -> Result<Option<Described>, sqlx::Error> {
        on_either!(self, it => it.describe(name))
    }

    /// Its newest session that has not ended.
    pub(super) async fn online(&self, id: i64) -> Result<Option<Online>, sqlx::Error> {
        on_either!(self, it => it.online(id))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use common::secret::Secret;
    use servers::{Role, TestDatabase};

    use super::*;
    use crate::accounts::store::Accounts;
    use crate::testing;

    /// All that a conn server does with its database, from the first connection on.
    async fn do_everything(test: &TestDatabase) -> Result<(), String> {
        let database = testing::try_connect(&test.url(Role::Login)).await;
        let database = database.map_err(|error| error.to_string())?;
        let table = Table::new(&database);
        let done = async {
            table.listen().await?;
            table.newest().await?;
            table.changes(0, 10).await?;
            table.accounts(&["a".parse().unwrap()]).await?;
            table.versions(&[AccountId(1)]).await?;
            table.names(&[AccountId(1)]).await?;
            table.mark(1).await?;
            table.store_mark(1, 7).await?;
            table.note_last_logins(&[login()]).await
        };
        let done = done.await.map_err(|error: sqlx::Error| error.to_string());
        database.close().await;
        done
    }

    fn login() -> LastLogin {
        LastLogin {
            account_id: AccountId(1),
            firmware: "1.0".into(),
            at_unix_ms: 1,
            source: "192.0.2.7".parse().unwrap(),
            node: "logic-1".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_conn_server_may_what_it_does_and_nothing_else() {
        let test = TestDatabase::new();
        let owner = testing::connect(&test.url(Role::Owner)).await;
        let accounts = Accounts::new(owner, Secret::new([9; 32]));
        let (name, key) = ("a".parse().unwrap(), Secret::new([1; 32]));
        accounts.add(&name, &key, 0).await.unwrap();
        do_everything(&test).await.unwrap();
        let rights = test.rights(Role::Login).unwrap();
        assert!(rights.len() > 15, "{rights:?}");
        let mut useless = vec![];
        for right in &rights {
            test.take(right).unwrap();
            if do_everything(&test).await.is_ok() {
                useless.push(&right.name);
            }
            test.give(right).unwrap();
        }
        assert!(useless.is_empty(), "nothing fails without {useless:?}");
        do_everything(&test).await.unwrap();
    }
}
