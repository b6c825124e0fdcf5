//! SQLite: multi-row inserts in one transaction, on the one writing connection of the process. In a
//! careful write each row is a statement of its own, and one that is refused goes to dead_letter.
//!
//! Statements say how many rows they inserted. Only where that is fewer than they were given is it asked which of
//! those that are there already say something else.

use common::database;
use common::ids::NodeName;
use records::{Row as _, Table};
use sqlx::sqlite::SqliteConnection;

use super::bulk::{Bulk, COMPARED_MAX, RECORDS_MAX, SESSIONS_MAX, Values};
use super::refusal::SqliteCode;
use super::sorted::{Aside, Item, KEY_COLUMNS, Sorted, record, refused};
use crate::batch::Row;
use crate::presence::Presence;
use crate::writer::{Work, Written};

/// Sessions that ended, joined with the table by its key.
pub(super) const ENDED_HEAD: &str = "WITH over (account_id, epoch, at, reason) AS (VALUES";
pub(super) const ENDED_TAIL: &str = ") UPDATE sessions SET ended_at = over.at, reason = over.reason FROM over \
     WHERE sessions.account_id = over.account_id AND sessions.epoch = over.epoch AND ended_at IS NULL";

#[derive(Debug)]
pub(super) struct Sqlite {
    database: database::Sqlite,
    node: String,
    /// In the order of [`Table::ALL`].
    telemetry: [Statements; Table::ALL.len()],
    dead_letter: Statements,
    attached: Bulk,
    ended: Bulk,
}

impl Sqlite {
    pub(super) fn new(database: database::Sqlite, node: &NodeName) -> Self {
        Self {
            database,
            node: node.to_string(),
            telemetry: Table::ALL.map(|table| {
                let own = table.columns().iter().map(|column| column.name);
                Statements::new(table.name(), own.collect())
            }),
            dead_letter: Statements::new("dead_letter", vec!["kind", "payload", "reason"]),
            attached: insert(
                "sessions",
                ["account_id", "epoch", "node", "source", "attached_at"],
                SESSIONS_MAX,
            ),
            ended: Bulk::new(ENDED_HEAD, 4, ENDED_TAIL, SESSIONS_MAX),
        }
    }

    pub(super) async fn repair(&self, unix_ms: u64) -> Result<u64, sqlx::Error> {
        let statement = "UPDATE sessions SET ended_at = max(attached_at, ?), reason = 'crash' \
                         WHERE node = ? AND ended_at IS NULL";
        let mut writing = self.database.begin().await?;
        let done = sqlx::query(statement)
            .bind(i64::try_from(unix_ms).unwrap_or(i64::MAX))
            .bind(&self.node)
            .execute(&mut *writing)
            .await?;
        writing.commit().await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn write(&self, work: &Work) -> Result<Written, sqlx::Error> {
        // Before a connection is opened, which would be to whatever has that name now.
        self.database.check()?;
        let mut connection = self.database.writer().acquire().await?;
        let written = self.write_in_transaction(&mut connection, work).await;
        if let Err(error) = &written
            && refusal(error).is_none()
            && self.database.check().is_ok()
        {
            // SQLite ends a transaction by itself when the disk fails or is full. sqlx does not
            // notice, and would begin none on this connection any more.
            connection.close_on_drop();
        }
        written
    }

    async fn write_in_transaction(
        &self,
        connection: &mut SqliteConnection,
        work: &Work,
    ) -> Result<Written, sqlx::Error> {
        let mut writing = self.database.begin_on(connection).await?;
        let written = self.write_rows(&mut writing, work).await?;
        self.write_presence(&mut writing, work).await?;
        writing.commit().await?;
        Ok(written)
    }

    async fn write_rows(
        &self,
        connection: &mut SqliteConnection,
        work: &Work,
    ) -> Result<Written, sqlx::Error> {
        let Sorted {
            tables, mut aside, ..
        } = Sorted::new(work);
        let flawed = aside.len();
        let mut written = Written::default();
        for (rows, items) in self.telemetry.iter().zip(&tables) {
            if !work.is_careful() {
                rows.write(connection, items, put_record, &mut written)
                    .await?;
                continue;
            }
            let mut repeated = vec![];
            let each = rows
                .insert
                .run_one_by_one(connection, items, put_record, |item, done| {
                    match done {
                        Ok(0) => repeated.push(*item),
                        Ok(_) => {}
                        Err(error) => {
                            let why = refusal(&error).ok_or(error)?;
                            aside.push(refused(item, &why));
                        }
                    }
                    Ok(())
                });
            each.await?;
            let count = repeated.len() as u64;
            rows.compare(connection, &repeated, put_record, count, &mut written)
                .await?;
        }
        let put = |(row, payload, reason): &Aside<'_>, values: &mut Values| {
            put_key(row, values);
            values.integer(row.kind.into());
            values.bytes(payload);
            values.text(reason);
        };
        self.dead_letter
            .write(connection, &aside, put, &mut written)
            .await?;
        written.refused = (aside.len() - flawed) as u64;
        Ok(written)
    }

    /// All that attached, then all that ended: a session that did both in one batch is there when
    /// it is to be ended.
    async fn write_presence(
        &self,
        connection: &mut SqliteConnection,
        work: &Work,
    ) -> Result<(), sqlx::Error> {
        let (attached, ended): (Vec<_>, Vec<_>) = work
            .presence()
            .iter()
            .partition(|presence| matches!(presence, Presence::Attached { .. }));
        let put = |presence: &&Presence, values: &mut Values| match **presence {
            Presence::Attached {
                account_id,
                epoch,
                source,
                at_ms,
            } => {
                values.integer(account_id.0);
                values.integer(epoch.to_i64());
                values.text(&self.node);
                values.text(&source.to_string());
                values.integer(at_ms);
            }
            Presence::Ended {
                account_id,
                epoch,
                at_ms,
                reason,
            } => {
                values.integer(account_id.0);
                values.integer(epoch.to_i64());
                values.integer(at_ms);
                values.text(reason.name());
            }
        };
        self.attached.run(connection, &attached, put).await?;
        self.ended.run(connection, &ended, put).await?;
        Ok(())
    }
}

/// What a table of records is told and asked.
#[derive(Debug)]
struct Statements {
    insert: Bulk,
    /// By account, how many of these rows say something else than the one of their key.
    contradicting: Bulk,
}

impl Statements {
    /// `own`: its columns beside those of the key. What dead_letter gives as the reason is no part of what a device said.
    fn new(table: &str, own: Vec<&str>) -> Self {
        let columns = KEY_COLUMNS.iter().chain(&own);
        let listed: Vec<_> = columns.copied().collect();
        let said = own.iter().filter(|name| **name != "reason");
        let differs: Vec<_> = said
            .map(|name| format!("kept.{name} IS NOT given.{name}"))
            .collect();
        let head = format!("WITH given ({}) AS (VALUES", listed.join(", "));
        let tail = format!(
            ") SELECT account_id, count(*) FROM given \
             JOIN {table} AS kept USING (account_id, recorded_at, seq) \
             WHERE {} GROUP BY account_id",
            differs.join(" OR ")
        );
        Self {
            contradicting: Bulk::new(&head, listed.len(), &tail, COMPARED_MAX),
            insert: insert(table, listed, RECORDS_MAX),
        }
    }

    async fn write<T>(
        &self,
        connection: &mut SqliteConnection,
        items: &[T],
        put: impl Fn(&T, &mut Values),
        written: &mut Written,
    ) -> Result<(), sqlx::Error> {
        let inserted = self.insert.run(connection, items, &put).await?;
        let repeated = items.len() as u64 - inserted;
        self.compare(connection, items, put, repeated, written)
            .await
    }

    /// `repeated` of these rows were there already.
    async fn compare<T>(
        &self,
        connection: &mut SqliteConnection,
        items: &[T],
        put: impl Fn(&T, &mut Values),
        repeated: u64,
        written: &mut Written,
    ) -> Result<(), sqlx::Error> {
        if repeated > 0 {
            let contradicting = self.contradicting.ask(connection, items, put).await?;
            written.repeated(repeated, contradicting);
        }
        Ok(())
    }
}

/// Inserts rows; of a primary key that is there already the old row is kept. Unlike
/// `INSERT OR IGNORE` this lets every other constraint speak. `OR FAIL` leaves what a refused
/// statement did before it failed, which the transaction undoes anyhow, and which is nothing where it has
/// one row: else SQLite would keep a journal for each statement, a fifth of the whole cost.
fn insert<'a>(table: &str, columns: impl IntoIterator<Item = &'a str>, rows_max: usize) -> Bulk {
    let columns: Vec<_> = columns.into_iter().collect();
    let head = format!(
        "INSERT OR FAIL INTO {table} ({}) VALUES",
        columns.join(", ")
    );
    Bulk::new(&head, columns.len(), "ON CONFLICT DO NOTHING", rows_max)
}

fn put_key(row: &Row, values: &mut Values) {
    values.integer(row.account_id.0);
    values.integer(row.recorded_at_ms);
    values.integer(row.seq);
    values.integer(row.received_at_ms);
}

fn put_record(item: &Item<'_>, values: &mut Values) {
    put_key(item.0, values);
    record(item).columns(values);
}

/// What the database said, where it is about a value that it will never take.
pub(super) fn refusal(error: &sqlx::Error) -> Option<String> {
    let database = error.as_database_error()?;
    let code = SqliteCode(database.code()?.parse().ok()?);
    code.refuses_the_value()
        .then(|| database.message().to_owned())
}
