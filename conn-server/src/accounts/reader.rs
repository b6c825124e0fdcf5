//! The one task that reads the accounts table of a conn server, as [`Inquiries`] says.

use std::collections::HashMap;
use std::time::Duration;

use common::codes::Code;
use common::epoch::Epoch;
use common::ids::{AccountId, AccountName};
use common::logging::outage::Outage;
use sqlx::postgres::PgListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::inquiries::{Answer, CHANGES_MAX, ChangeRow, Inquiries, News, Query, Question};
use super::millis_since;
use super::seal::{self, MasterKey};
use super::table::{ChangeColumns, Table, silent};
use crate::account::{Account, Change, ChangeKind, Found};

/// A login waits no longer: its device is told to come back. Nor does a change: what the cache holds is
/// good for some seconds, and not for longer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Reader {
    table: Table,
    master: MasterKey,
    mark: OwnMark,
    news: mpsc::Sender<News>,
    inquiries: Inquiries,
    /// The last change whose kind was not known and told: it may be read again.
    unknown_told: i64,
    ear: Ear,
    began: Instant,
    /// Of the table.
    outage: Outage,
}

impl Reader {
    pub(crate) async fn new(
        table: Table,
        master: MasterKey,
        mark: OwnMark,
        news: mpsc::Sender<News>,
    ) -> Result<Self, sqlx::Error> {
        // Before the newest change: what changes in between is heard of.
        let ear = Ear(table.listen().await?);
        let newest = table.newest().await?.map(row);
        Ok(Self {
            table,
            master,
            mark,
            news,
            inquiries: Inquiries::new(newest),
            unknown_told: 0,
            ear,
            began: Instant::now(),
            outage: Outage::default(),
        })
    }

    /// Until nobody asks or listens any more.
    pub(crate) async fn run(mut self, mut questions: mpsc::Receiver<Question>) {
        let mut ticks = interval(self.table.followed_every());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut news = Vec::new();
        let mut is_idle = true;
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {
                    self.inquiries.follow();
                    self.ear.listen_again(&self.table).await;
                }
                () = self.ear.hear() => self.inquiries.follow(),
                question = questions.recv(), if self.inquiries.has_room() => match question {
                    Some(question) => self.inquiries.ask(question),
                    None => return,
                },
                () = std::future::ready(()), if !is_idle => {}
            }
            // One query at a time: what has come meanwhile may go before the rest.
            while self.inquiries.has_room()
                && let Ok(question) = questions.try_recv()
            {
                self.inquiries.ask(question);
            }
            let query = self.next_query();
            is_idle = query.is_none();
            let Some(query) = query else { continue };
            let answer = timeout(ANSWER_DEADLINE, self.answer(query)).await;
            let answer = answer.unwrap_or_else(|_| Err(silent()));
            let answer = self.readable(answer).unwrap_or(Answer::Failed);
            self.inquiries.answered(answer, &mut news);
            for news in news.drain(..) {
                if self.news.send(news).await.is_err() {
                    return;
                }
            }
        }
    }

    fn next_query(&mut self) -> Option<Query> {
        let stored = &mut self.mark.stored;
        if stored.has_changed().unwrap_or(false) {
            self.inquiries.mark_stored(*stored.borrow_and_update());
        }
        self.inquiries.next_query()
    }

    async fn answer(&mut self, query: Query) -> Result<Answer, sqlx::Error> {
        Ok(match query {
            Query::Changes { from } => Answer::Changes {
                rows: self.changes(from).await?,
                mark: self.mark().await?,
            },
            Query::Newest => Answer::Newest {
                row: self.table.newest().await?.map(row),
                mark: self.mark().await?,
            },
            Query::Accounts(names) => Answer::Accounts(self.accounts(names).await?),
            Query::Versions(accounts) => Answer::Versions(self.versions(&accounts).await?),
            Query::Names(accounts) => Answer::Names(self.names(&accounts).await?),
        })
    }

    async fn mark(&self) -> Result<Epoch, sqlx::Error> {
        let mark = self.table.mark(self.mark.node_number).await?;
        Ok(mark.and_then(Epoch::from_i64).unwrap_or_default())
    }

    async fn changes(&mut self, from: i64) -> Result<Vec<ChangeRow>, sqlx::Error> {
        let rows = self.table.changes(from, CHANGES_MAX as i64).await?;
        let rows: Vec<_> = rows.into_iter().map(row).collect();
        for ChangeRow { id, change, .. } in &rows {
            if change.is_none() && *id != self.unknown_told {
                self.unknown_told = *id;
                tracing::error!(
                    code = Code::ChangeUnknown.number(),
                    id,
                    "a change of an account that this version does not know"
                );
            }
        }
        Ok(rows)
    }

    async fn accounts(
        &self,
        names: Vec<AccountName>,
    ) -> Result<HashMap<AccountName, Found>, sqlx::Error> {
        let rows = self.table.accounts(&names).await?;
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
        let rows = self.table.versions(accounts).await?;
        let rows = rows
            .into_iter()
            .map(|(id, version, enabled)| (AccountId(id), (version_of(version), enabled)));
        Ok(rows.collect())
    }

    async fn names(
        &self,
        accounts: &[AccountId],
    ) -> Result<HashMap<AccountId, AccountName>, sqlx::Error> {
        let rows = self.table.names(accounts).await?;
        let rows = rows
            .into_iter()
            .filter_map(|(id, name)| Some((AccountId(id), name.parse().ok()?)));
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
                tracing::error!(
                    code = Code::AccountUnreadable.number(),
                    account = %name, %error,
                    "an account cannot log in"
                );
                Found::Failed
            }
        }
    }

    /// What was read; and the log hears of an outage.
    fn readable<T>(&mut self, read: Result<T, sqlx::Error>) -> Option<T> {
        match &read {
            Ok(_) => {
                if let Some(failures) = self.outage.worked(millis_since(self.began)) {
                    tracing::info!(
                        code = Code::AccountsReadable.number(),
                        failures,
                        "the accounts can be read again"
                    );
                }
            }
            Err(error) => {
                if let Some(failures) = self.outage.failed(millis_since(self.began)) {
                    tracing::warn!(
                        code = Code::AccountsUnreadable.number(),
                        %error, failures,
                        "the accounts cannot be read"
                    );
                }
            }
        }
        read.ok()
    }
}

/// The mark of this conn server's epochs, whose going back gives a restored database away.
#[derive(Debug)]
pub(crate) struct OwnMark {
    pub(crate) node_number: u16,
    /// What was stored last.
    pub(crate) stored: watch::Receiver<Epoch>,
}

/// Hears of changes where the database tells of them. Deaf for a while, nothing is lost but time: the
/// changes are read at every tick.
#[derive(Debug)]
struct Ear(Option<PgListener>);

impl Ear {
    /// Until there is a change, or may have been.
    async fn hear(&mut self) {
        let Some(listener) = &mut self.0 else {
            return std::future::pending().await;
        };
        if !matches!(listener.try_recv().await, Ok(Some(_))) {
            self.0 = None;
        }
    }

    async fn listen_again(&mut self, table: &Table) {
        if self.0.is_none() {
            // What fails is told by whoever reads the changes.
            let listening = timeout(ANSWER_DEADLINE, table.listen()).await;
            self.0 = listening.ok().and_then(Result::ok).flatten();
        }
    }
}

#[derive(Debug)]
struct Row {
    id: AccountId,
    sealed_key: Vec<u8>,
    enabled: bool,
    version: u32,
}

fn row((id, account_id, name, kind, version, changed_at_ms): ChangeColumns) -> ChangeRow {
    let change = || {
        Some(Change {
            account_id: AccountId(account_id),
            name: name.parse().ok()?,
            version: version_of(version),
            kind: ChangeKind::from_name(&kind)?,
        })
    };
    ChangeRow {
        id,
        change: change(),
        changed_at_ms,
    }
}

/// A version is a number of seconds at most; see [`store`](super::store).
fn version_of(column: i64) -> u32 {
    u32::try_from(column).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use common::database::Database;
    use common::secret::Secret;
    use servers::{PostgresServer, Role};
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;
    use crate::accounts::store::Accounts;
    use crate::testing::{self, on_both};

    const PATIENCE: Duration = Duration::from_secs(25);

    async fn hears(ear: &mut Ear) {
        timeout(PATIENCE, ear.hear()).await.expect("a change");
        assert!(ear.0.is_some(), "it was only deaf");
    }

    #[tokio::test]
    async fn postgresql_tells_of_a_change_and_a_broken_ear_is_mended() {
        let (test, database) = testing::postgres().await;
        let table = Table::new(&database);
        let accounts = Accounts::new(test.owner.clone(), Secret::new([9; 32]));
        let mut ear = Ear(table.listen().await.unwrap());
        let name = "a".parse().unwrap();
        accounts.add(&name, &Secret::new([1; 32]), 0).await.unwrap();
        hears(&mut ear).await;
        accounts.disable(&name, 0).await.unwrap();
        hears(&mut ear).await;

        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                    WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        test.administer(kill);
        timeout(PATIENCE, ear.hear()).await.unwrap();
        assert!(ear.0.is_none(), "it does not know that it is deaf");
        while ear.0.is_none() {
            ear.listen_again(&table).await;
            sleep(Duration::from_millis(10)).await;
        }
        accounts.enable(&name, 0).await.unwrap();
        hears(&mut ear).await;
    }

    /// A reader that runs, what it is asked by, and what it tells.
    async fn start(
        database: &Database,
        news_max: usize,
    ) -> (JoinHandle<()>, mpsc::Sender<Question>, mpsc::Receiver<News>) {
        let (sender, news) = mpsc::channel(news_max);
        let (ask, asked) = mpsc::channel(64);
        let mark = OwnMark {
            node_number: 1,
            stored: watch::Sender::default().subscribe(),
        };
        let reader = Reader::new(Table::new(database), Secret::new([9; 32]), mark, sender);
        let running = tokio::spawn(reader.await.unwrap().run(asked));
        (running, ask, news)
    }

    /// F8: what it asks fails in time, and is answered again when the database is back; whatever became
    /// of the connections.
    #[tokio::test]
    async fn a_database_that_stands_still_fails_in_time_and_answers_later() {
        let server = PostgresServer::start("").unwrap();
        server.make_database("rcu").unwrap();
        let database = testing::connect(&server.tcp_url("rcu", Role::Login)).await;
        let owner = testing::connect(&server.tcp_url("rcu", Role::Owner)).await;
        let accounts = Accounts::new(owner, Secret::new([9; 32]));
        let name: AccountName = "a".parse().unwrap();
        accounts.add(&name, &Secret::new([1; 32]), 0).await.unwrap();
        let (running, ask, mut news) = start(&database, 64).await;
        let mut found = async |id| {
            let account = name.clone();
            ask.send(Question::LookUp { id, account }).await.unwrap();
            loop {
                match news.recv().await.unwrap() {
                    News::Found { id: of, found, .. } if of == id => return found,
                    _ => {}
                }
            }
        };
        assert!(matches!(found(0).await, Found::Account(_)));
        server.freeze().unwrap();
        for id in 1..4 {
            let answer = timeout(PATIENCE, found(id)).await.unwrap();
            assert_eq!(answer, Found::Failed);
        }
        server.thaw().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut id = 4;
        while !matches!(found(id).await, Found::Account(_)) {
            assert!(Instant::now() < deadline, "it never answers again");
            id += 1;
        }
        drop(ask);
        running.await.unwrap();
    }

    on_both!(a_table_that_went_back_is_noticed_and_followed);

    /// With the numbers of its changes given anew, before anybody looks.
    async fn a_table_that_went_back_is_noticed_and_followed(
        (test, database): (testing::Held, Database),
    ) {
        let accounts = Accounts::new(test.owner.clone(), Secret::new([9; 32]));
        let name: AccountName = "a".parse().unwrap();
        let key = Secret::new([1; 32]);
        accounts.add(&name, &key, 1_000_000).await.unwrap();
        accounts.disable(&name, 2_000_000).await.unwrap();
        let (running, ask, mut news) = start(&database, 64).await;
        let mut hears = async |awaited: fn(&News) -> bool| {
            let heard = async { while !awaited(&news.recv().await.unwrap()) {} };
            timeout(PATIENCE, heard).await.expect("news of it");
        };
        hears(|news| *news == News::InStep).await;
        let number = match &database {
            Database::Sqlite(_) => {
                "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'account_changes'"
            }
            Database::Postgres(_) => "ALTER TABLE account_changes ALTER id RESTART WITH 2",
        };
        let restore = format!(
            "BEGIN; DELETE FROM account_changes WHERE id = 2; {number}; \
             INSERT INTO account_changes (account_id, name, change, version, changed_at) \
             SELECT account_id, name, 'key_rotated', version + 1, changed_at FROM account_changes; COMMIT"
        );
        testing::run(&test.owner, &restore).await;
        hears(|news| *news == News::WentBack).await;
        accounts.enable(&name, 3_000_000).await.unwrap();
        hears(|news| matches!(news, News::Changed(it) if it.kind == ChangeKind::Enabled)).await;
        drop(ask);
        running.await.unwrap();
    }

    /// Else whoever looks at long lists has devices wait.
    #[tokio::test]
    async fn a_device_is_looked_up_before_the_rest_of_a_list() {
        let (_held, database) = testing::sqlite().await;
        let (running, ask, mut news) = start(&database, 1).await;
        for id in 0..50 {
            let accounts = vec![AccountId(1)];
            ask.send(Question::Names { id, accounts }).await.unwrap();
        }
        while !matches!(news.recv().await.unwrap(), News::Named { .. }) {}
        let account = "a".parse().unwrap();
        ask.send(Question::LookUp { id: 0, account }).await.unwrap();
        let mut named = 0;
        loop {
            match news.recv().await.unwrap() {
                News::Found { .. } => break,
                News::Named { .. } => named += 1,
                _ => {}
            }
        }
        // One is told, one waits for room, one was asked when the look-up came.
        assert!(named <= 3, "{named} came before it");
        drop((ask, news));
        running.await.unwrap();
    }

    #[tokio::test]
    async fn sqlite_tells_nobody() {
        let (_held, database) = testing::sqlite().await;
        let mut ear = Ear(Table::new(&database).listen().await.unwrap());
        let heard = timeout(Duration::from_millis(50), ear.hear()).await;
        assert!(heard.is_err());
    }
}
