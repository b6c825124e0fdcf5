//! The one task that writes for a conn server: the mark of its epochs, and who logged in last.

use std::time::Duration;

use common::codes::Code;
use common::epoch::Epoch;
use common::logging::outage::Outage;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::inquiries::News;
use super::millis_since;
use super::table::{Table, silent};
use crate::account::LastLogin;

/// A mark is stored a minute ahead, and SQLite's one writer may be busy for some seconds.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) enum Errand {
    StoreMark(Epoch),
    /// At most one of each account.
    NoteLastLogins(Vec<LastLogin>),
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) table: Table,
    pub(crate) node_number: u16,
    pub(crate) news: mpsc::Sender<News>,
    /// What was stored last, for whoever looks whether it is still there.
    pub(crate) marks: watch::Sender<Epoch>,
}

impl Writer {
    /// The mark that was stored before; [`Epoch::ZERO`] at the first start.
    pub(crate) async fn mark(&self) -> Result<Epoch, sqlx::Error> {
        let mark = self.table.mark(self.node_number).await?;
        Ok(mark.and_then(Epoch::from_i64).unwrap_or(Epoch::ZERO))
    }

    /// Until no errands come any more.
    pub(crate) async fn run(self, mut errands: mpsc::Receiver<Errand>) {
        let mut outages = Outages::new();
        while let Some(errand) = errands.recv().await {
            match errand {
                Errand::StoreMark(mark) => {
                    let stored = in_time(self.store_mark(mark)).await;
                    outages.mark_stored(&stored);
                    let stored = stored.is_ok().then_some(mark);
                    if self.news.send(News::MarkStored(stored)).await.is_err() {
                        return;
                    }
                }
                Errand::NoteLastLogins(notes) => {
                    let noted = in_time(self.table.note_last_logins(&notes)).await;
                    outages.last_logins_noted(&noted);
                }
            }
        }
    }

    /// It only grows, whoever else believes to have this number.
    pub(crate) async fn store_mark(&self, mark: Epoch) -> Result<(), sqlx::Error> {
        let stored = self.table.store_mark(self.node_number, mark.to_i64());
        stored.await?;
        self.marks.send_replace(mark);
        Ok(())
    }
}

/// What the database did not take lately, for the log.
#[derive(Debug)]
struct Outages {
    began: Instant,
    mark: Outage,
    last_logins: Outage,
}

impl Outages {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            mark: Outage::default(),
            last_logins: Outage::default(),
        }
    }

    fn mark_stored(&mut self, stored: &Result<(), sqlx::Error>) {
        match stored {
            Ok(()) => {
                if let Some(failures) = self.mark.worked(millis_since(self.began)) {
                    tracing::info!(
                        code = Code::MarkStored.number(),
                        failures,
                        "the mark of the epochs is stored again"
                    );
                }
            }
            Err(error) => {
                if let Some(failures) = self.mark.failed(millis_since(self.began)) {
                    tracing::warn!(
                        code = Code::MarkNotStored.number(),
                        %error, failures,
                        "the mark of the epochs cannot be stored"
                    );
                }
            }
        }
    }

    fn last_logins_noted(&mut self, noted: &Result<(), sqlx::Error>) {
        match noted {
            Ok(()) => {
                if let Some(failures) = self.last_logins.worked(millis_since(self.began)) {
                    tracing::info!(
                        code = Code::LastLoginsNoted.number(),
                        failures,
                        "last logins are noted again"
                    );
                }
            }
            Err(error) => {
                if let Some(failures) = self.last_logins.failed(millis_since(self.began)) {
                    tracing::warn!(
                        code = Code::LastLoginsNotNoted.number(),
                        %error, failures,
                        "last logins cannot be noted"
                    );
                }
            }
        }
    }
}

async fn in_time(write: impl Future<Output = Result<(), sqlx::Error>>) -> Result<(), sqlx::Error> {
    let written = timeout(WRITE_DEADLINE, write).await;
    written.unwrap_or_else(|_| Err(silent()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use common::database::Database;
    use common::ids::AccountId;

    use super::*;
    use crate::testing::{Held, on_both, rows, run};

    on_both!(
        every_last_login_stands_in_its_row_however_many_there_are,
        a_mark_only_grows,
    );

    fn note(account_id: i64) -> LastLogin {
        LastLogin {
            account_id: AccountId(account_id),
            firmware: format!("\"{account_id}\\").into(),
            source: [10, 0, 0, 1].into(),
            node: "logic-1".parse().unwrap(),
            at_unix_ms: account_id as u64 * 1_000,
        }
    }

    async fn every_last_login_stands_in_its_row_however_many_there_are(
        (test, database): (Held, Database),
    ) {
        // More than one statement of either database takes.
        let accounts: i64 = 10_003;
        let (no_key, time) = match database {
            Database::Sqlite(_) => ("x''", "0"),
            Database::Postgres(_) => ("''", "now()"),
        };
        let insert = format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {accounts}) \
             INSERT INTO accounts (name, sealed_key, created_at) SELECT 'a' || n, {no_key}, {time} FROM n"
        );
        run(&test.owner, &insert).await;
        let (news, _) = mpsc::channel(1);
        let writer = Writer {
            table: Table::new(&database),
            node_number: 0,
            news,
            marks: watch::Sender::default(),
        };
        for noted in [0, 1, 16, 17, 1_030, accounts - 1] {
            // One of an account that was removed meanwhile is of no account.
            let notes: Vec<_> = (1..=noted).chain([accounts + 1]).map(note).collect();
            writer.table.note_last_logins(&notes).await.unwrap();
            let (ms, host) = match database {
                Database::Sqlite(_) => ("last_login_at", "last_source"),
                Database::Postgres(_) => (
                    "(extract(epoch FROM last_login_at) * 1000)::bigint",
                    "host(last_source)",
                ),
            };
            let sql = format!(
                "SELECT id, firmware, {ms}, {host}, last_node FROM accounts \
                 WHERE last_login_at IS NOT NULL ORDER BY id"
            );
            let rows: Vec<(i64, String, i64, String, String)> = rows(&test.owner, &sql).await;
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

    async fn a_mark_only_grows((_test, database): (Held, Database)) {
        let (news, _) = mpsc::channel(1);
        let writer = Writer {
            table: Table::new(&database),
            node_number: 7,
            news,
            marks: watch::Sender::default(),
        };
        assert_eq!(writer.mark().await.unwrap(), Epoch::ZERO);
        for (stored, expected) in [(5, 5), (3, 5), (9, 9)] {
            writer.store_mark(Epoch::at_ms(stored)).await.unwrap();
            assert_eq!(writer.mark().await.unwrap(), Epoch::at_ms(expected));
        }
    }
}
