//! The statements of PostgreSQL. Any number of rows is one array, so each is prepared once.
//!
//! The tasks of a conn server give up at deadlines: their connections go back only when they were
//! answered. What people ask for takes as long as it takes.

use std::collections::HashSet;

use common::database::{self, UnixMs};
use common::ids::{AccountId, AccountName};
use sqlx::Transaction;
use sqlx::postgres::{PgArguments, PgListener};
use sqlx::query::QueryAs;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::{AccountRow, Added, ChangeColumns, Edit, Edited, Sealed, VersionRow, version_at};
use crate::account::{ChangeKind, LastLogin};
use crate::accounts::described::{Described, Online};

/// Where a trigger of the schema tells of changes.
const CHANGES: &str = "rcu_account_changes";

/// Rows of one INSERT or UPDATE.
const ROWS_PER_STATEMENT: usize = 10_000;

const CHANGED: &str = "SELECT id, account_id, name, change, version, \
     (extract(epoch FROM changed_at) * 1000)::bigint FROM account_changes";

const DESCRIBED: &str = "SELECT id, name, enabled, version, \
     (extract(epoch FROM created_at) * 1000)::bigint AS created_at, firmware, \
     (extract(epoch FROM last_login_at) * 1000)::bigint AS last_login_at, \
     host(last_source) AS last_source, last_node FROM accounts";

#[derive(Clone, Debug)]
pub(crate) struct Postgres(database::Postgres);

impl Postgres {
    pub(super) fn new(database: database::Postgres) -> Self {
        Self(database)
    }

    pub(super) async fn listen(&self) -> Result<PgListener, sqlx::Error> {
        // Without the library's own lines: what goes wrong is told by whoever listens.
        let connecting = PgListener::connect_with(self.0.pool());
        let connecting = connecting.with_subscriber(NoSubscriber::default());
        let mut listener = connecting.await?;
        // Whoever listens sees to it, at a time when it can be given up.
        listener.eager_reconnect(false);
        listener.listen(CHANGES).await?;
        Ok(listener)
    }

    pub(super) async fn newest(&self) -> Result<Option<ChangeColumns>, sqlx::Error> {
        let mut lease = self.0.lease().await?;
        let sql = format!("{CHANGED} ORDER BY id DESC LIMIT 1");
        let answer = sqlx::query_as(&sql).fetch_optional(&mut *lease).await;
        lease.answered(answer)
    }

    pub(super) async fn changes(
        &self,
        from: i64,
        max: i64,
    ) -> Result<Vec<ChangeColumns>, sqlx::Error> {
        let mut lease = self.0.lease().await?;
        let sql = format!("{CHANGED} WHERE id >= $1 ORDER BY id LIMIT $2");
        let changes = sqlx::query_as(&sql).bind(from).bind(max);
        let answer = changes.fetch_all(&mut *lease).await;
        lease.answered(answer)
    }

    pub(super) async fn accounts(
        &self,
        names: &[AccountName],
    ) -> Result<Vec<AccountRow>, sqlx::Error> {
        let names: Vec<_> = names.iter().map(AccountName::as_str).collect();
        let mut lease = self.0.lease().await?;
        let answer = sqlx::query_as(
            "SELECT name, id, sealed_key, enabled, version FROM accounts WHERE name = ANY($1)",
        )
        .bind(names)
        .fetch_all(&mut *lease)
        .await;
        lease.answered(answer)
    }

    pub(super) async fn versions(&self, ids: &[AccountId]) -> Result<Vec<VersionRow>, sqlx::Error> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let mut lease = self.0.lease().await?;
        let answer = sqlx::query_as("SELECT id, version, enabled FROM accounts WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(&mut *lease)
            .await;
        lease.answered(answer)
    }

    pub(super) async fn names(&self, ids: &[AccountId]) -> Result<Vec<(i64, String)>, sqlx::Error> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let mut lease = self.0.lease().await?;
        let answer = sqlx::query_as("SELECT id, name FROM accounts WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(&mut *lease)
            .await;
        lease.answered(answer)
    }

    pub(super) async fn mark(&self, node_number: u16) -> Result<Option<i64>, sqlx::Error> {
        let mut lease = self.0.lease().await?;
        let answer = sqlx::query_scalar("SELECT mark FROM epoch_marks WHERE node_number = $1")
            .bind(i32::from(node_number))
            .fetch_optional(&mut *lease)
            .await;
        lease.answered(answer)
    }

    pub(super) async fn store_mark(&self, node_number: u16, mark: i64) -> Result<(), sqlx::Error> {
        let mut lease = self.0.lease().await?;
        sqlx::query(
            "INSERT INTO epoch_marks AS known (node_number, mark) VALUES ($1, $2) \
             ON CONFLICT (node_number) DO UPDATE SET mark = greatest(known.mark, excluded.mark)",
        )
        .bind(i32::from(node_number))
        .bind(mark)
        .execute(&mut *lease)
        .await?;
        lease.give_back();
        Ok(())
    }

    pub(super) async fn note_last_logins(&self, notes: &[LastLogin]) -> Result<(), sqlx::Error> {
        let mut lease = self.0.lease().await?;
        for notes in notes.chunks(ROWS_PER_STATEMENT) {
            // Sorted, as every conn server does it: else two that note the same accounts could each
            // wait for the other.
            let mut notes: Vec<_> = notes.iter().collect();
            notes.sort_by_key(|note| note.account_id);
            let at = |note: &&LastLogin| UnixMs(i64::try_from(note.at_unix_ms).unwrap_or(i64::MAX));
            let ids: Vec<_> = notes.iter().map(|note| note.account_id.0).collect();
            let firmwares: Vec<_> = notes.iter().map(|note| &*note.firmware).collect();
            let times: Vec<_> = notes.iter().map(at).collect();
            let sources: Vec<_> = notes.iter().map(|note| note.source.to_string()).collect();
            let nodes: Vec<_> = notes.iter().map(|note| note.node.as_str()).collect();
            sqlx::query(
                "UPDATE accounts SET firmware = note.firmware, last_login_at = note.at, \
                 last_source = note.source::inet, last_node = note.node \
                 FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::text[], $5::text[]) \
                 AS note (id, firmware, at, source, node) WHERE accounts.id = note.id",
            )
            .bind(ids)
            .bind(firmwares)
            .bind(times)
            .bind(sources)
            .bind(nodes)
            .execute(&mut *lease)
            .await?;
        }
        lease.give_back();
        Ok(())
    }

    pub(super) async fn add(
        &self,
        accounts: &[Sealed<'_>],
        unix_ms: i64,
    ) -> Result<Added, sqlx::Error> {
        let mut transaction = self.begin().await?;
        for chunk in accounts.chunks(ROWS_PER_STATEMENT) {
            let added = insert(&mut transaction, chunk, unix_ms).await?;
            if added.len() < chunk.len() {
                let mut added: HashSet<_> = added.iter().map(String::as_str).collect();
                let existing = chunk.iter().find(|(name, _)| !added.remove(name.as_str()));
                let (name, _) = existing.ok_or(sqlx::Error::RowNotFound)?;
                return Ok(Added::Exists((*name).clone()));
            }
        }
        transaction.commit().await?;
        Ok(Added::All)
    }

    pub(super) async fn add_new(
        &self,
        accounts: &[Sealed<'_>],
        unix_ms: i64,
    ) -> Result<Vec<String>, sqlx::Error> {
        let mut transaction = self.begin().await?;
        let mut added = Vec::with_capacity(accounts.len());
        for chunk in accounts.chunks(ROWS_PER_STATEMENT) {
            added.extend(insert(&mut transaction, chunk, unix_ms).await?);
        }
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
        let edited: QueryAs<'_, sqlx::Postgres, (i64, i64), PgArguments> = match edit {
            Edit::Enable => sqlx::query_as(
                "UPDATE accounts SET enabled = true, version = greatest(version + 1, $2) \
                 WHERE name = $1 AND NOT enabled RETURNING id, version",
            )
            .bind(name.as_str())
            .bind(version_at(unix_ms)),
            Edit::Disable => sqlx::query_as(
                "UPDATE accounts SET enabled = false, version = greatest(version + 1, $2) \
                 WHERE name = $1 AND enabled RETURNING id, version",
            )
            .bind(name.as_str())
            .bind(version_at(unix_ms)),
            Edit::RotateKey(sealed) => sqlx::query_as(
                "UPDATE accounts SET sealed_key = $3, version = greatest(version + 1, $2) \
                 WHERE name = $1 RETURNING id, version",
            )
            .bind(name.as_str())
            .bind(version_at(unix_ms))
            .bind(sealed),
            Edit::Remove => sqlx::query_as(
                "DELETE FROM accounts WHERE name = $1 RETURNING id, greatest(version + 1, $2)",
            )
            .bind(name.as_str())
            .bind(version_at(unix_ms)),
        };
        let mut transaction = self.begin().await?;
        let Some((id, version)) = edited.fetch_optional(&mut *transaction).await? else {
            let exists = sqlx::query_scalar("SELECT EXISTS (SELECT FROM accounts WHERE name = $1)")
                .bind(name.as_str())
                .fetch_one(&mut *transaction);
            return Ok(match exists.await? {
                true => Edited::Nothing,
                false => Edited::Unknown,
            });
        };
        sqlx::query(
            "INSERT INTO account_changes (account_id, name, change, version, changed_at) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(id)
        .bind(name.as_str())
        .bind(kind.name())
        .bind(version)
        .bind(UnixMs(unix_ms))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Edited::Done)
    }

    pub(super) async fn list(&self, after: &str, max: u32) -> Result<Vec<Described>, sqlx::Error> {
        let sql = format!("{DESCRIBED} WHERE name > $1 ORDER BY name LIMIT $2");
        let rows = sqlx::query_as(&sql).bind(after).bind(i64::from(max));
        rows.fetch_all(self.0.pool()).await
    }

    pub(super) async fn describe(
        &self,
        name: &AccountName,
    ) -> Result<Option<Described>, sqlx::Error> {
        let sql = format!("{DESCRIBED} WHERE name = $1");
        let row = sqlx::query_as(&sql).bind(name.as_str());
        row.fetch_optional(self.0.pool()).await
    }

    pub(super) async fn online(&self, id: i64) -> Result<Option<Online>, sqlx::Error> {
        sqlx::query_as(
            "SELECT node, host(source) AS source, \
             (extract(epoch FROM attached_at) * 1000)::bigint AS attached_at FROM sessions \
             WHERE account_id = $1 AND ended_at IS NULL ORDER BY epoch DESC LIMIT 1",
        )
        .bind(id)
        .fetch_optional(self.0.pool())
        .await
    }

    /// Whoever changes accounts does so one after the other, as the trigger of `account_changes` has
    /// it; here before the first row is locked, so that no two wait for each other.
    async fn begin(&self) -> Result<Transaction<'static, sqlx::Postgres>, sqlx::Error> {
        let mut transaction = self.0.pool().begin().await?;
        sqlx::query("SELECT rcu_lock_account_changes()")
            .execute(&mut *transaction)
            .await?;
        Ok(transaction)
    }
}

/// Adds and records those that are not there yet; returns their names.
async fn insert(
    transaction: &mut Transaction<'_, sqlx::Postgres>,
    accounts: &[Sealed<'_>],
    unix_ms: i64,
) -> Result<Vec<String>, sqlx::Error> {
    let names: Vec<_> = accounts.iter().map(|(name, _)| name.as_str()).collect();
    let keys: Vec<_> = accounts.iter().map(|(_, sealed)| &sealed[..]).collect();
    sqlx::query_scalar(
        "WITH added AS ( \
             INSERT INTO accounts (name, sealed_key, created_at, version) \
             SELECT name, key, $3, $5 FROM unnest($1::text[], $2::bytea[]) \
                 WITH ORDINALITY AS new (name, key, place) ORDER BY place \
             ON CONFLICT (name) DO NOTHING RETURNING id, name, version \
         ), told AS ( \
             INSERT INTO account_changes (account_id, name, change, version, changed_at) \
             SELECT id, name, $4, version, $3 FROM added ORDER BY id \
         ) SELECT name FROM added",
    )
    .bind(names)
    .bind(keys)
    .bind(UnixMs(unix_ms))
    .bind(ChangeKind::Added.name())
    .bind(version_at(unix_ms))
    .fetch_all(&mut **transaction)
    .await
}
