//! The one task that reads the accounts table of a conn server, as [`Inquiries`] says.

use std::collections::HashMap;
use std::time::Duration;

use common::database::Database;
use common::ids::{AccountId, AccountName};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::inquiries::{
    Answer, CHANGES_MAX, FOLLOWED_EVERY_MS, Inquiries, LOOK_UPS_MAX, News, Query, Question,
};
use super::json;
use super::seal::{self, MasterKey};
use crate::account::{Account, Change, ChangeKind, Found};

#[derive(Debug)]
pub(crate) struct Reader {
    database: Database,
    master: MasterKey,
    news: mpsc::Sender<News>,
    inquiries: Inquiries,
    /// The table could not be read the last time.
    failing: bool,
}

impl Reader {
    pub(crate) async fn new(
        database: Database,
        master: MasterKey,
        news: mpsc::Sender<News>,
    ) -> Result<Self, sqlx::Error> {
        let position = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM account_changes")
            .fetch_one(database.reader())
            .await?;
        Ok(Self {
            database,
            master,
            news,
            inquiries: Inquiries::new(position),
            failing: false,
        })
    }

    /// Until nobody asks or listens any more.
    pub(crate) async fn run(mut self, mut questions: mpsc::Receiver<Question>) {
        let mut ticks = interval(Duration::from_millis(FOLLOWED_EVERY_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = Vec::with_capacity(LOOK_UPS_MAX);
        let mut news = Vec::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.inquiries.follow(),
                count = questions.recv_many(&mut asked, LOOK_UPS_MAX) => {
                    if count == 0 {
                        return;
                    }
                    asked.drain(..).for_each(|question| self.inquiries.ask(question));
                }
            }
            while let Some(query) = self.inquiries.next_query() {
                let answer = self.answer(query).await;
                let answer = self.readable(answer).unwrap_or(Answer::Failed);
                self.inquiries.answered(answer, &mut news);
                for news in news.drain(..) {
                    if self.news.send(news).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn answer(&self, query: Query) -> Result<Answer, sqlx::Error> {
        Ok(match query {
            Query::Changes { after } => Answer::Changes(self.changes(after).await?),
            Query::Accounts(names) => Answer::Accounts(self.accounts(names).await?),
            Query::Versions(accounts) => Answer::Versions(self.versions(&accounts).await?),
        })
    }

    async fn changes(&self, after: i64) -> Result<Vec<(i64, Option<Change>)>, sqlx::Error> {
        let rows: Vec<(i64, i64, String, String, i64)> = sqlx::query_as(
            "SELECT id, account_id, name, change, version FROM account_changes \
             WHERE id > ? ORDER BY id LIMIT ?",
        )
        .bind(after)
        .bind(CHANGES_MAX as i64)
        .fetch_all(self.database.reader())
        .await?;
        let changes = rows
            .into_iter()
            .map(|(id, account_id, name, kind, version)| {
                let change = change(account_id, &name, &kind, version);
                if change.is_none() {
                    tracing::error!(id, "a change of an account that this version does not know");
                }
                (id, change)
            });
        Ok(changes.collect())
    }

    async fn accounts(
        &self,
        names: Vec<AccountName>,
    ) -> Result<HashMap<AccountName, Found>, sqlx::Error> {
        let rows: Vec<(String, i64, Vec<u8>, bool, i64)> = sqlx::query_as(
            "SELECT name, id, sealed_key, enabled, version FROM accounts \
             WHERE name IN (SELECT value FROM json_each(?))",
        )
        .bind(json(names.iter()))
        .fetch_all(self.database.reader())
        .await?;
        let rows = rows
            .into_iter()
            .map(|(name, id, sealed_key, enabled, version)| {
                let row = Row {
                    id: AccountId(id),
                    sealed_key,
                    enabled,
                    version: version_of(version),
                };
                (name, row)
            });
        let rows: HashMap<_, _> = rows.collect();
        let found = names.into_iter().map(|name| {
            let found = self.opened(&name, rows.get(name.as_str()));
            (name, found)
        });
        Ok(found.collect())
    }

    async fn versions(
        &self,
        accounts: &[AccountId],
    ) -> Result<HashMap<AccountId, (u32, bool)>, sqlx::Error> {
        let rows: Vec<(i64, i64, bool)> = sqlx::query_as(
            "SELECT id, version, enabled FROM accounts \
             WHERE id IN (SELECT value FROM json_each(?))",
        )
        .bind(json(accounts.iter()))
        .fetch_all(self.database.reader())
        .await?;
        let rows = rows
            .into_iter()
            .map(|(id, version, enabled)| (AccountId(id), (version_of(version), enabled)));
        Ok(rows.collect())
    }

    /// With its key opened; of an account that is not there, somebody's is tried in vain, so that
    /// it takes as long.
    fn opened(&self, name: &AccountName, row: Option<&Row>) -> Found {
        let Some(row) = row else {
            let in_vain = seal::open(&self.master, name, &seal::NOBODYS);
            return std::hint::black_box(in_vain).map_or(Found::Unknown, |_| Found::Failed);
        };
        match seal::open(&self.master, name, &row.sealed_key) {
            Ok(key) => Found::Account(Account {
                id: row.id,
                key,
                version: row.version,
                enabled: row.enabled,
            }),
            Err(error) => {
                tracing::error!(account = %name, %error, "an account cannot log in");
                Found::Failed
            }
        }
    }

    /// What was read; a failure is logged when it begins and when it is over.
    fn readable<T>(&mut self, read: Result<T, sqlx::Error>) -> Option<T> {
        match (&read, self.failing) {
            (Err(error), false) => tracing::warn!(%error, "the accounts cannot be read"),
            (Ok(_), true) => tracing::info!("the accounts can be read again"),
            _ => {}
        }
        self.failing = read.is_err();
        read.ok()
    }
}

#[derive(Debug)]
struct Row {
    id: AccountId,
    sealed_key: Vec<u8>,
    enabled: bool,
    version: u32,
}

fn change(account_id: i64, name: &str, kind: &str, version: i64) -> Option<Change> {
    Some(Change {
        account_id: AccountId(account_id),
        name: name.parse().ok()?,
        version: version_of(version),
        kind: ChangeKind::from_name(kind)?,
    })
}

/// Versions begin at 1 and grow by 1 with each change that a person makes.
fn version_of(column: i64) -> u32 {
    u32::try_from(column).unwrap_or(u32::MAX)
}
