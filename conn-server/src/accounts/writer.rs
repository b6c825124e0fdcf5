//! The one task that writes for a conn server: the mark of its epochs, and who logged in last.

use common::database::Database;
use common::epoch::Epoch;
use sqlx::{QueryBuilder, Sqlite};
use tokio::sync::mpsc;

use super::reader::News;
use crate::account::LastLogin;

/// Rows of one UPDATE, and of one transaction: the logic servers' batches wait behind it.
const ROWS_PER_UPDATE: usize = 500;

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
