//! The one task that writes for a conn server: the mark of its epochs, and who logged in last.

use std::iter::repeat;

use common::database::Database;
use common::epoch::Epoch;
use sqlx::{QueryBuilder, Sqlite};
use tokio::sync::mpsc;

use super::inquiries::News;
use crate::account::LastLogin;

/// Rows of one UPDATE, and of one transaction: the logic servers' batches wait behind it. Only two
/// sizes, so that the statement is prepared twice in a process's life and not for every number of rows.
const ROWS_PER_UPDATE: usize = 512;
const ROWS_PER_SMALL_UPDATE: usize = 16;

#[derive(Debug)]
pub(crate) enum Errand {
    StoreMark(Epoch),
    /// At most one of each account.
    NoteLastLogins(Vec<LastLogin>),
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) database: Database,
    pub(crate) node_number: u16,
    pub(crate) news: mpsc::Sender<News>,
}

impl Writer {
    /// The mark that was stored before; [`Epoch::ZERO`] at the first start.
    pub(crate) async fn mark(&self) -> Result<Epoch, sqlx::Error> {
        let sql = "SELECT mark FROM epoch_marks WHERE node_number = ?";
        let mark: Option<i64> = sqlx::query_scalar(sql)
            .bind(self.node_number)
            .fetch_optional(self.database.reader())
            .await?;
        Ok(mark.and_then(Epoch::from_i64).unwrap_or(Epoch::ZERO))
    }

    /// Until no errands come any more.
    pub(crate) async fn run(self, mut errands: mpsc::Receiver<Errand>) {
        while let Some(errand) = errands.recv().await {
            match errand {
                Errand::StoreMark(mark) => {
                    let stored = self.store_mark(mark).await;
                    if let Err(error) = &stored {
                        tracing::warn!(%error, "the mark of the epochs cannot be stored");
                    }
                    let stored = stored.is_ok().then_some(mark);
                    if self.news.send(News::MarkStored(stored)).await.is_err() {
                        return;
                    }
                }
                Errand::NoteLastLogins(notes) => {
                    if let Err(error) = self.note_last_logins(&notes).await {
                        let accounts = notes.len();
                        tracing::warn!(%error, accounts, "last logins cannot be noted");
                    }
                }
            }
        }
    }

    /// It only grows, whoever else believes to have this number.
    pub(crate) async fn store_mark(&self, mark: Epoch) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO epoch_marks (node_number, mark) VALUES (?, ?) \
             ON CONFLICT (node_number) DO UPDATE SET mark = max(mark, excluded.mark)",
        )
        .bind(self.node_number)
        .bind(mark.to_i64())
        .execute(self.database.writer())
        .await
        .map(drop)
    }

    async fn note_last_logins(&self, notes: &[LastLogin]) -> Result<(), sqlx::Error> {
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
            let mut update = QueryBuilder::<Sqlite>::new(
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
            update.build().execute(self.database.writer()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use common::ids::AccountId;

    use super::*;

    fn note(account_id: i64) -> LastLogin {
        LastLogin {
            account_id: AccountId(account_id),
            firmware: format!("\"{account_id}\\").into(),
            source: [10, 0, 0, 1].into(),
            node: "logic-1".parse().unwrap(),
            at_unix_ms: account_id as u64 * 1_000,
        }
    }

    #[tokio::test]
    async fn every_last_login_stands_in_its_row_however_many_there_are() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("rcu.db"))
            .await
            .unwrap();
        let accounts = ROWS_PER_UPDATE as i64 * 2 + 3;
        sqlx::query(
            "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n LIMIT ?) \
             INSERT INTO accounts (name, sealed_key, created_at) SELECT 'a' || n, x'', 0 FROM n",
        )
        .bind(accounts)
        .execute(database.writer())
        .await
        .unwrap();
        let (news, _) = mpsc::channel(1);
        let writer = Writer {
            database: database.clone(),
            node_number: 0,
            news,
        };
        for noted in [0, 1, 16, 17, accounts - 1] {
            // One of an account that was removed meanwhile is of no account.
            let notes: Vec<_> = (1..=noted).chain([accounts + 1]).map(note).collect();
            writer.note_last_logins(&notes).await.unwrap();
            let rows: Vec<(i64, String, i64, String, String)> = sqlx::query_as(
                "SELECT id, firmware, last_login_at, last_source, last_node FROM accounts \
                 WHERE last_login_at IS NOT NULL ORDER BY id",
            )
            .fetch_all(database.reader())
            .await
            .unwrap();
            assert_eq!(rows.len() as i64, noted);
            for (id, firmware, at_ms, source, node) in rows {
                assert_eq!(firmware, *note(id).firmware);
                assert_eq!(
                    (at_ms, &source[..], &node[..]),
                    (id * 1_000, "10.0.0.1", "logic-1")
                );
            }
        }
    }

    #[tokio::test]
    async fn a_mark_only_grows() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("rcu.db"))
            .await
            .unwrap();
        let (news, _) = mpsc::channel(1);
        let writer = Writer {
            database,
            node_number: 7,
            news,
        };
        assert_eq!(writer.mark().await.unwrap(), Epoch::ZERO);
        for (stored, expected) in [(5, 5), (3, 5), (9, 9)] {
            writer.store_mark(Epoch::at_ms(stored)).await.unwrap();
            assert_eq!(writer.mark().await.unwrap(), Epoch::at_ms(expected));
        }
    }
}
