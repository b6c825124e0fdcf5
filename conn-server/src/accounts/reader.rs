//! The one task that reads the accounts of a conn server: look-ups, the changes, and what nodes
//! hold that were cut off while accounts changed. One after the other, so that what it tells is in
//! the order of the table's own history.

use std::collections::HashMap;
use std::time::Duration;

use common::database::Database;
use common::epoch::Epoch;
use common::ids::{AccountId, AccountName};
use common::link::LinkId;
use common::link::message::{Held, Revoke};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::json;
use super::seal::{self, MasterKey};
use crate::account::{Account, Change, ChangeKind, Found, stale};

/// How often the changes are read: a tenth of the time within which they are in effect everywhere.
const FOLLOWED_EVERY: Duration = Duration::from_millis(500);

/// Look-ups of one query.
pub(crate) const LOOK_UPS_MAX: usize = 512;

/// Changes of one query.
const CHANGES_MAX: i64 = 1_000;

/// Sessions and grants whose accounts could not be read, kept until they can. Beyond it the link is
/// closed: then its node lists them again.
const UNCHECKED_MAX: usize = 200_000;

/// What the table is asked.
#[derive(Debug)]
pub(crate) enum Question {
    LookUp { id: u64, account: AccountName },
    CheckVersions { link: LinkId, held: Vec<Held> },
}

/// What the table says.
#[derive(Debug)]
pub(crate) enum News {
    Found {
        id: u64,
        account: AccountName,
        found: Found,
    },
    Changed(Change),
    /// Every change until now was told.
    InStep,
    Stale {
        link: LinkId,
        revocations: Vec<Revoke>,
    },
    /// What this link's node holds could not be checked.
    Unchecked {
        link: LinkId,
    },
    /// From the writer: the mark of the epochs; `None`: it could not be stored.
    MarkStored(Option<Epoch>),
}

#[derive(Debug)]
pub(crate) struct Reader {
    database: Database,
    master: MasterKey,
    news: mpsc::Sender<News>,
    /// The last change that was told.
    position: i64,
    unchecked: Vec<(LinkId, Vec<Held>)>,
    /// The table could not be read the last time.
    failing: bool,
}

impl Reader {
    /// Follows the changes from here on: whoever asks for an account later gets them with it.
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
            position,
            unchecked: Vec::new(),
            failing: false,
        })
    }

    /// Until nobody asks or listens any more.
    pub(crate) async fn run(mut self, mut questions: mpsc::Receiver<Question>) {
        let mut ticks = interval(FOLLOWED_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = Vec::with_capacity(LOOK_UPS_MAX);
        loop {
            let told = tokio::select! {
                _ = ticks.tick() => self.follow().await,
                count = questions.recv_many(&mut asked, LOOK_UPS_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.answer(&mut asked).await
                }
            };
            if told.is_err() {
                return;
            }
        }
    }

    async fn follow(&mut self) -> Result<(), Gone> {
        loop {
            let changes = self.changes().await;
            let Some(changes) = self.readable(changes) else {
                return Ok(());
            };
            let last = changes.len() < CHANGES_MAX as usize;
            for (id, change) in changes {
                self.position = id;
                if let Some(change) = change {
                    self.tell(News::Changed(change)).await?;
                }
            }
            if last {
                break;
            }
        }
        self.tell(News::InStep).await?;
        for (link, held) in std::mem::take(&mut self.unchecked) {
            self.check(link, held).await?;
        }
        Ok(())
    }

    async fn answer(&mut self, asked: &mut Vec<Question>) -> Result<(), Gone> {
        let mut look_ups = Vec::with_capacity(asked.len());
        let mut checks = Vec::new();
        for question in asked.drain(..) {
            match question {
                Question::LookUp { id, account } => look_ups.push((id, account)),
                Question::CheckVersions { link, held } => checks.push((link, held)),
            }
        }
        if !look_ups.is_empty() {
            let found = self.accounts(&look_ups).await;
            let found = self.readable(found);
            for (id, account) in look_ups {
                let found = match &found {
                    Some(accounts) => self.opened(&account, accounts.get(account.as_str())),
                    None => Found::Failed,
                };
                self.tell(News::Found { id, account, found }).await?;
            }
        }
        for (link, held) in checks {
            self.check(link, held).await?;
        }
        Ok(())
    }

    /// Compares what a node holds with the accounts of now.
    async fn check(&mut self, link: LinkId, held: Vec<Held>) -> Result<(), Gone> {
        let versions = self.versions(&held).await;
        let Some(versions) = self.readable(versions) else {
            let waiting: usize = self.unchecked.iter().map(|(_, held)| held.len()).sum();
            if waiting + held.len() > UNCHECKED_MAX {
                return self.tell(News::Unchecked { link }).await;
            }
            self.unchecked.push((link, held));
            return Ok(());
        };
        let revocations: Vec<_> = held
            .iter()
            .filter_map(|held| stale(held, versions.get(&held.account_id).copied()))
            .collect();
        if revocations.is_empty() {
            return Ok(());
        }
        self.tell(News::Stale { link, revocations }).await
    }

    async fn changes(&self) -> Result<Vec<(i64, Option<Change>)>, sqlx::Error> {
        let rows: Vec<(i64, i64, String, String, i64)> = sqlx::query_as(
            "SELECT id, account_id, name, change, version FROM account_changes \
             WHERE id > ? ORDER BY id LIMIT ?",
        )
        .bind(self.position)
        .bind(CHANGES_MAX)
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
        look_ups: &[(u64, AccountName)],
    ) -> Result<HashMap<String, Row>, sqlx::Error> {
        let rows: Vec<(String, i64, Vec<u8>, bool, i64)> = sqlx::query_as(
            "SELECT name, id, sealed_key, enabled, version FROM accounts \
             WHERE name IN (SELECT value FROM json_each(?))",
        )
        .bind(json(look_ups.iter().map(|(_, name)| name)))
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
        Ok(rows.collect())
    }

    async fn versions(
        &self,
        held: &[Held],
    ) -> Result<HashMap<AccountId, (u32, bool)>, sqlx::Error> {
        let rows: Vec<(i64, i64, bool)> = sqlx::query_as(
            "SELECT id, version, enabled FROM accounts \
             WHERE id IN (SELECT value FROM json_each(?))",
        )
        .bind(json(held.iter().map(|held| held.account_id)))
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

    async fn tell(&self, news: News) -> Result<(), Gone> {
        self.news.send(news).await.map_err(|_| Gone)
    }
}

/// Nobody listens any more.
struct Gone;

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
