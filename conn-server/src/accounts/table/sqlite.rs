//! The statements of SQLite, on the file's own reading and writing connections.

use std::collections::HashSet;
use std::iter::repeat;

use common::database;
use common::ids::{AccountId, AccountName};
use serde::Serialize;
use sqlx::QueryBuilder;
use sqlx::query::QueryAs;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqlitePool};

use super::{AccountRow, Added, ChangeColumns, Edit, Edited, Sealed, VersionRow, version_at};
use crate::account::{ChangeKind, LastLogin};
use crate::accounts::described::{Described, Online};

/// Rows of one INSERT: its values stay below SQLite's limit of bound parameters.
const ROWS_PER_INSERT: usize = 1_000;

/// Rows of one UPDATE, and of one transaction: the logic servers' batches wait behind it. Only two
/// sizes, so that the statement is prepared twice in a process's life and not for every number of rows.
pub(in crate::accounts) const ROWS_PER_UPDATE: usize = 512;
const ROWS_PER_SMALL_UPDATE: usize = 16;

const CHANGED: &str =
    "SELECT id, account_id, name, change, version, changed_at FROM account_changes";

const DESCRIBED: &str = "SELECT id, name, enabled, version, created_at, \
     firmware, last_login_at, last_source, last_node FROM accounts";

#[derive(Clone, Debug)]
pub(crate) struct Sqlite(database::Sqlite);

impl Sqlite {
    pub(super) fn new(database: database::Sqlite) -> Self {
        Self(database)
    }

    /// As long as the file is the one of its name: what stands in another is no answer.
    fn reader(&self) -> Result<&SqlitePool, sqlx::Error> {
        self.0.check()?;
        Ok(self.0.reader())
    }

    pub(super) async fn newest(&self) -> Result<Option<ChangeColumns>, sqlx::Error> {
        let sql = format!("{CHANGED} ORDER BY id DESC LIMIT 1");
        let newest = sqlx::query_as(&sql);
        newest.fetch_optional(self.reader()?).await
    }

    pub(super) async fn changes(
        &self,
        from: i64,
        max: i64,
    ) -> Result<Vec<ChangeColumns>, sqlx::Error> {
        let sql = format!("{CHANGED} WHERE id >= ? ORDER BY id LIMIT ?");
        let changes = sqlx::query_as(&sql).bind(from).bind(max);
        changes.fetch_all(self.reader()?).await
    }

    pub(super) async fn accounts(
        &self,
        names: &[AccountName],
    ) -> Result<Vec<AccountRow>, sqlx::Error> {
        sqlx::query_as(
            "SELECT name, id, sealed_key, enabled, version FROM accounts \
             WHERE name IN (SELECT value FROM json_each(?))",
        )
        .bind(json(names))
        .fetch_all(self.reader()?)
        .await
    }

    pub(super) async fn versions(&self, ids: &[AccountId]) -> Result<Vec<VersionRow>, sqlx::Error> {
        sqlx::query_as(
            "SELECT id, version, enabled FROM accounts \
             WHERE id IN (SELECT value FROM json_each(?))",
        )
        .bind(json(ids))
        .fetch_all(self.reader()?)
        .await
    }

    pub(super) async fn names(&self, ids: &[AccountId]) -> Result<Vec<(i64, String)>, sqlx::Error> {
        sqlx::query_as("SELECT id, name FROM accounts WHERE id IN (SELECT value FROM json_each(?))")
            .bind(json(ids))
            .fetch_all(self.reader()?)
            .await
    }

    pub(super) async fn mark(&self, node_number: u16) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar("SELECT mark FROM epoch_marks WHERE node_number = ?")
            .bind(node_number)
            .fetch_optional(self.reader()?)
            .await
    }

    pub(super) async fn store_mark(&self, node_number: u16, mark: i64) -> Result<(), sqlx::Error> {
        let mut transaction = self.0.begin().await?;
        sqlx::query(
            "INSERT INTO epoch_marks (node_number, mark) VALUES (?, ?) \
             ON CONFLICT (node_number) DO UPDATE SET mark = max(mark, excluded.mark)",
        )
        .bind(node_number)
        .bind(mark)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    pub(super) async fn note_last_logins(&self, notes: &[LastLogin]) -> Result<(), sqlx::Error> {
        for notes in notes.chunks(ROWS_PER_UPDATE) {
            let rows = match notes.len() <= ROWS_PER_SMALL_UPDATE {
                true => ROWS_PER_SMALL_UPDATE,
                false => ROWS_PER_UPDATE,
            };
            // The last note again changes nothing, and the statement stays the same.
            let notes = notes
                .iter()
                .chain(repeat(notes.last()).flatten())
                .take(rows);
            let mut update = QueryBuilder::<sqlx::Sqlite>::new(
                "UPDATE accounts SET firmware = note.column2, last_login_at = note.column3, \
                 last_source = note.column4, last_node = note.column5 FROM (",
            );
            update.push_values(notes, |mut row, note| {
                row.push_bind(note.account_id.0)
                    .push_bind(&*note.firmware)
                    .push_bind(i64::try_from(note.at_unix_ms).unwrap_or(i64::MAX))
                    .push_bind(note.source.to_string())
                    .push_bind(note.node.as_str());
            });
            update.push(") AS note WHERE accounts.id = note.column1");
            let mut transaction = self.0.begin().await?;
            update.build().execute(&mut *transaction).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    pub(super) async fn add(
        &self,
        accounts: &[Sealed<'_>],
        unix_ms: i64,
    ) -> Result<Added, sqlx::Error> {
        let mut transaction = self.0.begin().await?;
        let newest: i64 = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM accounts")
            .fetch_one(&mut *transaction)
            .await?;
        for chunk in accounts.chunks(ROWS_PER_INSERT) {
            let mut insert = QueryBuilder::<sqlx::Sqlite>::new(
                "INSERT INTO accounts (name, sealed_key, created_at, version) ",
            );
            insert.push_values(chunk, |mut row, (name, sealed)| {
                row.push_bind(name.as_str())
                    .push_bind(&sealed[..])
                    .push_bind(unix_ms)
                    .push_bind(version_at(unix_ms));
            });
            insert.push(" ON CONFLICT (name) DO NOTHING");
            let added = insert.build().execute(&mut *transaction).await?;
            if added.rows_affected() < chunk.len() as u64 {
                return first_existing(&mut transaction, chunk, newest)
                    .await
                    .map(Added::Exists);
            }
        }
        tell_of_new(&mut transaction, newest, unix_ms).await?;
        transaction.commit().await?;
        Ok(Added::All)
    }

    pub(super) async fn add_new(
        &self,
        accounts: &[Sealed<'_>],
        unix_ms: i64,
    ) -> Result<Vec<String>, sqlx::Error> {
        let mut transaction = self.0.begin().await?;
        let newest: i64 = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM accounts")
            .fetch_one(&mut *transaction)
            .await?;
        let mut added = Vec::with_capacity(accounts.len());
        for chunk in accounts.chunks(ROWS_PER_INSERT) {
            let mut insert = QueryBuilder::<sqlx::Sqlite>::new(
                "INSERT INTO accounts (name, sealed_key, created_at, version) ",
            );
            insert.push_values(chunk, |mut row, (name, sealed)| {
                row.push_bind(name.as_str())
                    .push_bind(&sealed[..])
                    .push_bind(unix_ms)
                    .push_bind(version_at(unix_ms));
            });
            insert.push(" ON CONFLICT (name) DO NOTHING RETURNING name");
            let names = insert.build_query_scalar::<String>();
            added.extend(names.fetch_all(&mut *transaction).await?);
        }
        tell_of_new(&mut transaction, newest, unix_ms).await?;
        transaction.commit().await?;
        Ok(added)
    }

    pub(super) async fn edit(
        &self,
        name: &AccountName,
        edit: Edit,
        unix_ms: i64,
    ) -> Result<Edited, sqlx::Error> {
        let kind = edit.kind();
        let edited: QueryAs<'_, sqlx::Sqlite, (i64, i64), SqliteArguments<'_>> = match &edit {
            Edit::Enable => sqlx::query_as(
                "UPDATE accounts SET enabled = 1, version = max(version + 1, ?2) \
                 WHERE name = ?1 AND enabled = 0 RETURNING id, version",
            ),
            Edit::Disable => sqlx::query_as(
                "UPDATE accounts SET enabled = 0, version = max(version + 1, ?2) \
                 WHERE name = ?1 AND enabled = 1 RETURNING id, version",
            ),
            Edit::RotateKey(_) => sqlx::query_as(
                "UPDATE accounts SET sealed_key = ?3, version = max(version + 1, ?2) \
                 WHERE name = ?1 RETURNING id, version",
            ),
            Edit::Remove => sqlx::query_as(
                "DELETE FROM accounts WHERE name = ?1 RETURNING id, max(version + 1, ?2)",
            ),
        };
        let mut edited = edited.bind(name.as_str()).bind(version_at(unix_ms));
        if let Edit::RotateKey(sealed) = edit {
            edited = edited.bind(sealed);
        }
        let mut transaction = self.0.begin().await?;
        let edited = edited.fetch_optional(&mut *transaction);
        let Some((id, version)) = edited.await? else {
            return Ok(match id_of(&mut transaction, name).await? {
                Some(_) => Edited::Nothing,
                None => Edited::Unknown,
            });
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
        Ok(Edited::Done)
    }

    pub(super) async fn list(&self, after: &str, max: u32) -> Result<Vec<Described>, sqlx::Error> {
        let sql = format!("{DESCRIBED} WHERE name > ? ORDER BY name LIMIT ?");
        let rows = sqlx::query_as(&sql).bind(after).bind(max);
        rows.fetch_all(self.reader()?).await
    }

    pub(super) async fn describe(
        &self,
        name: &AccountName,
    ) -> Result<Option<Described>, sqlx::Error> {
        let sql = format!("{DESCRIBED} WHERE name = ?");
        let row = sqlx::query_as(&sql).bind(name.as_str());
        row.fetch_optional(self.reader()?).await
    }

    pub(super) async fn online(&self, id: i64) -> Result<Option<Online>, sqlx::Error> {
        sqlx::query_as(
            "SELECT node, source, attached_at FROM sessions \
             WHERE account_id = ? AND ended_at IS NULL ORDER BY epoch DESC LIMIT 1",
        )
        .bind(id)
        .fetch_optional(self.reader()?)
        .await
    }
}

/// Any number of rows as one bound value, for `json_each`: the statement stays the same, and so it
/// is prepared once.
fn json(rows: &[impl Serialize]) -> String {
    serde_json::to_string(rows).expect("names and numbers can be written")
}

/// Records the accounts that were added in this transaction. Ids only grow, and nobody else writes
/// meanwhile: they are those above `newest`.
async fn tell_of_new(
    transaction: &mut SqliteConnection,
    newest: i64,
    unix_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO account_changes (account_id, name, change, version, changed_at) \
         SELECT id, name, ?, version, ? FROM accounts WHERE id > ? ORDER BY id",
    )
    .bind(ChangeKind::Added.name())
    .bind(unix_ms)
    .bind(newest)
    .execute(&mut *transaction)
    .await
    .map(drop)
}

async fn id_of(
    transaction: &mut SqliteConnection,
    name: &AccountName,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM accounts WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(&mut *transaction)
        .await
}

/// Which account could not be added: it was there, or it is in the list twice.
async fn first_existing(
    transaction: &mut SqliteConnection,
    accounts: &[Sealed<'_>],
    newest: i64,
) -> Result<AccountName, sqlx::Error> {
    let mut seen = HashSet::new();
    for &(name, _) in accounts {
        match id_of(transaction, name).await? {
            Some(id) if id > newest && seen.insert(name) => {}
            _ => return Ok(name.clone()),
        }
    }
    Err(sqlx::Error::RowNotFound)
}
