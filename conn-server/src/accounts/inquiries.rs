//! Pure. What the accounts table is asked, one query after the other, and what is told of its
//! answers: look-ups, the changes, and what nodes hold that were cut off while accounts changed.
//!
//! Since there is one query at a time, what is told is in the order of the table's own history: what
//! was read before a change is told before that change, and nothing that is out of date outlives it.
//!
//! That history can end: a database is restored from a backup, or fails over to a copy that lacks the last
//! transactions. Numbers of changes are then given anew, so a position alone would pass over what happens
//! next. Each look therefore begins with the last change that was told, which must stand there as it did,
//! and reads this conn server's mark, which only grows. Where either is not so, nothing that was ever read
//! holds:
//!
//! ```text
//! … 41 42 43            43 is there, the mark is not below ours ─▶ 44 45 … are told
//! … 41 42'              it is not ─▶ the newest of now ─▶ WentBack: everything is read and checked anew
//! ```

use std::collections::{HashMap, VecDeque};

use common::epoch::Epoch;
use common::ids::{AccountId, AccountName};
use common::link::LinkId;
use common::link::message::{Held, Revoke};

use crate::account::{Change, Found, stale};

/// How often the changes are read: a tenth of the time within which they are in effect everywhere.
pub const FOLLOWED_EVERY_MS: u64 = 500;

/// Look-ups of one query.
pub const LOOK_UPS_MAX: usize = 512;

/// Changes of one query.
pub const CHANGES_MAX: usize = 1_000;

/// Sessions and grants whose accounts could not be read, kept until they can. Beyond it the link is
/// closed: then its node lists them again.
const UNCHECKED_MAX: usize = 200_000;

/// A row of `account_changes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRow {
    pub id: i64,
    /// `None`: one that this version does not know.
    pub change: Option<Change>,
    pub changed_at_ms: i64,
}

/// What the owner of the decisions asks.
#[derive(Debug)]
pub enum Question {
    LookUp { id: u64, account: AccountName },
    CheckVersions { link: LinkId, held: Vec<Held> },
    Names { id: u64, accounts: Vec<AccountId> },
}

/// What the owner of the decisions is told.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    Found {
        id: u64,
        account: AccountName,
        found: Found,
    },
    Changed(Change),
    /// The database is an older one than it was: what was read of it before does not hold any more.
    WentBack,
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
    /// Names of those that there are; `None`: the table could not be read.
    Named {
        id: u64,
        names: Option<HashMap<AccountId, AccountName>>,
    },
    /// From the writer: the mark of the epochs; `None`: it could not be stored.
    MarkStored(Option<Epoch>),
}

/// A query of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// At most [`CHANGES_MAX`], the oldest first, from this one on; and the mark of this conn server.
    Changes {
        from: i64,
    },
    /// The last change that there is, and the mark.
    Newest,
    Accounts(Vec<AccountName>),
    Versions(Vec<AccountId>),
    Names(Vec<AccountId>),
}

/// What came of a query.
#[derive(Debug)]
pub enum Answer {
    Changes {
        rows: Vec<ChangeRow>,
        mark: Epoch,
    },
    Newest {
        row: Option<ChangeRow>,
        mark: Epoch,
    },
    /// Of each that was asked for.
    Accounts(HashMap<AccountName, Found>),
    /// Version, and whether it is enabled, of those that there are.
    Versions(HashMap<AccountId, (u32, bool)>),
    /// Of those that there are.
    Names(HashMap<AccountId, AccountName>),
    /// The table could not be read.
    Failed,
}

/// Whom the answer of the open query is for.
#[derive(Debug)]
enum Open {
    /// The mark that the database held when they were asked for.
    Changes(Epoch),
    Newest,
    Accounts(Vec<(u64, AccountName)>),
    Versions(LinkId, Vec<Held>),
    Names(u64),
}

#[derive(Debug)]
pub struct Inquiries {
    /// The last change that was told; `None`: there was none.
    newest: Option<ChangeRow>,
    /// The mark that the database was told, or that was found in it.
    mark: Epoch,
    /// The last look found another history, and where that ends is not known yet.
    went_back: bool,
    changes_due: bool,
    /// The last query was for the changes: where they never end (a long import), something else goes between
    /// two of them.
    changes_read: bool,
    look_ups: VecDeque<(u64, AccountName)>,
    checks: VecDeque<(LinkId, Vec<Held>)>,
    /// For people who look at lists: after everything that a device waits for.
    names: VecDeque<(u64, Vec<AccountId>)>,
    /// Could not be checked; again when the table has been read.
    unchecked: Vec<(LinkId, Vec<Held>)>,
    open: Option<Open>,
}

impl Inquiries {
    /// Follows the changes from the last one on that there is: whoever asks for an account later
    /// gets them with it.
    pub fn new(newest: Option<ChangeRow>) -> Self {
        Self {
            newest,
            mark: Epoch::ZERO,
            went_back: false,
            changes_due: false,
            changes_read: false,
            look_ups: VecDeque::new(),
            checks: VecDeque::new(),
            names: VecDeque::new(),
            unchecked: Vec::new(),
            open: None,
        }
    }

    /// Whether a look-up more may be asked for: as many as go into one query wait here. Of all other questions
    /// whoever asks bounds the number.
    pub fn has_room(&self) -> bool {
        self.look_ups.len() < LOOK_UPS_MAX
    }

    pub fn ask(&mut self, question: Question) {
        match question {
            Question::LookUp { id, account } => self.look_ups.push_back((id, account)),
            Question::CheckVersions { link, held } => self.checks.push_back((link, held)),
            Question::Names { id, accounts } => self.names.push_back((id, accounts)),
        }
    }

    /// The database holds this mark, or a higher one, from now on.
    pub fn mark_stored(&mut self, mark: Epoch) {
        self.mark = mark;
    }

    /// [`FOLLOWED_EVERY_MS`] have passed.
    pub fn follow(&mut self) {
        self.changes_due = true;
    }

    /// What to ask now; `None` while an answer is awaited, and when nothing is to be asked.
    pub fn next_query(&mut self) -> Option<Query> {
        if self.open.is_some() {
            return None;
        }
        let others_wait =
            !(self.look_ups.is_empty() && self.checks.is_empty() && self.names.is_empty());
        let others_turn = self.changes_read && others_wait && !self.went_back;
        self.changes_read = self.changes_due && !others_turn;
        let (open, query) = if self.changes_read {
            self.changes_due = false;
            let from = self.newest.as_ref().map_or(0, |newest| newest.id);
            match self.went_back {
                true => (Open::Newest, Query::Newest),
                false => (Open::Changes(self.mark), Query::Changes { from }),
            }
        } else if !self.look_ups.is_empty() {
            let count = self.look_ups.len().min(LOOK_UPS_MAX);
            let asked: Vec<_> = self.look_ups.drain(..count).collect();
            let names = asked.iter().map(|(_, name)| name.clone()).collect();
            (Open::Accounts(asked), Query::Accounts(names))
        } else if let Some((link, held)) = self.checks.pop_front() {
            let accounts = held.iter().map(|held| held.account_id).collect();
            (Open::Versions(link, held), Query::Versions(accounts))
        } else {
            let (id, accounts) = self.names.pop_front()?;
            (Open::Names(id), Query::Names(accounts))
        };
        self.open = Some(open);
        Some(query)
    }

    /// The answer to the open query.
    ///
    /// # Panics
    /// There is none, or it asked something else.
    pub fn answered(&mut self, answer: Answer, news: &mut Vec<News>) {
        let open = self.open.take().expect("a query is open");
        match (open, answer) {
            (Open::Changes(known), Answer::Changes { rows, mark }) => {
                match mark >= known && self.begins_where_we_are(&rows) {
                    true => self.changed(rows, news),
                    false => {
                        self.went_back = true;
                        self.changes_due = true;
                    }
                }
            }
            (Open::Newest, Answer::Newest { row, mark }) => {
                self.newest = row;
                self.mark = mark;
                self.went_back = false;
                news.push(News::WentBack);
                self.in_step(news);
            }
            (Open::Changes(_) | Open::Newest, Answer::Failed) => {}
            (Open::Accounts(asked), Answer::Accounts(accounts)) => {
                news.extend(asked.into_iter().map(|(id, account)| {
                    let found = accounts.get(&account).copied().unwrap_or(Found::Unknown);
                    News::Found { id, account, found }
                }));
            }
            (Open::Accounts(asked), Answer::Failed) => {
                let found = Found::Failed;
                news.extend(asked.into_iter().map(|(id, account)| News::Found {
                    id,
                    account,
                    found,
                }));
            }
            (Open::Versions(link, held), Answer::Versions(versions)) => {
                let now = |held: &Held| versions.get(&held.account_id).copied();
                let revocations = held.iter().filter_map(|held| stale(held, now(held)));
                let revocations: Vec<_> = revocations.collect();
                if !revocations.is_empty() {
                    news.push(News::Stale { link, revocations });
                }
            }
            (Open::Versions(link, held), Answer::Failed) => self.keep_unchecked(link, held, news),
            (Open::Names(id), Answer::Names(names)) => {
                let names = Some(names);
                news.push(News::Named { id, names });
            }
            (Open::Names(id), Answer::Failed) => news.push(News::Named { id, names: None }),
            (open, answer) => panic!("{answer:?} is no answer to {open:?}"),
        }
    }

    fn begins_where_we_are(&self, rows: &[ChangeRow]) -> bool {
        let newest = self.newest.as_ref();
        newest.is_none_or(|newest| rows.first() == Some(newest))
    }

    fn changed(&mut self, rows: Vec<ChangeRow>, news: &mut Vec<News>) {
        let is_last = rows.len() < CHANGES_MAX;
        let told = usize::from(self.newest.is_some());
        for row in rows.into_iter().skip(told) {
            news.extend(row.change.clone().map(News::Changed));
            self.newest = Some(row);
        }
        match is_last {
            true => self.in_step(news),
            false => self.changes_due = true,
        }
    }

    fn in_step(&mut self, news: &mut Vec<News>) {
        news.push(News::InStep);
        self.checks.extend(self.unchecked.drain(..));
    }

    fn keep_unchecked(&mut self, link: LinkId, held: Vec<Held>, news: &mut Vec<News>) {
        let waiting: usize = self.unchecked.iter().map(|(_, held)| held.len()).sum();
        if waiting + held.len() > UNCHECKED_MAX {
            news.push(News::Unchecked { link });
        } else {
            self.unchecked.push((link, held));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use common::link::message::RevokeReason;

    use super::*;
    use crate::account::ChangeKind;

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    fn change(id: i64) -> ChangeRow {
        let change = Change {
            account_id: AccountId(id),
            name: name("a"),
            version: 2,
            kind: ChangeKind::Disabled,
        };
        ChangeRow {
            id,
            change: Some(change),
            changed_at_ms: id * 1_000,
        }
    }

    fn changes(rows: Vec<ChangeRow>) -> Answer {
        let mark = Epoch::ZERO;
        Answer::Changes { rows, mark }
    }

    fn changed(id: i64) -> News {
        News::Changed(change(id).change.unwrap())
    }

    fn held(account_version: u32) -> Vec<Held> {
        vec![Held {
            account_id: AccountId(1),
            epoch: Epoch::ZERO,
            account_version,
        }]
    }

    fn look_up(id: u64) -> Question {
        let account = name("a");
        Question::LookUp { id, account }
    }

    fn told(inquiries: &mut Inquiries, answer: Answer) -> Vec<News> {
        let mut news = vec![];
        inquiries.answered(answer, &mut news);
        news
    }

    #[test]
    fn one_query_at_a_time_and_changes_first() {
        let mut inquiries = Inquiries::new(Some(change(7)));
        inquiries.ask(look_up(1));
        let accounts = Some(Query::Accounts(vec![name("a")]));
        assert_eq!(inquiries.next_query(), accounts);
        inquiries.follow();
        assert_eq!(inquiries.next_query(), None, "an answer is awaited");
        // What was read before the change is told before it.
        let found = Found::Unknown;
        let first = told(&mut inquiries, Answer::Accounts(HashMap::new()));
        let account = name("a");
        assert_eq!(
            first,
            [News::Found {
                id: 1,
                account,
                found
            }]
        );
        inquiries.ask(look_up(2));
        assert_eq!(inquiries.next_query(), Some(Query::Changes { from: 7 }));
        let news = told(&mut inquiries, changes(vec![change(7), change(8)]));
        assert_eq!(news, [changed(8), News::InStep]);
        assert_eq!(inquiries.next_query(), accounts);
    }

    /// A long import tells of changes without end.
    #[test]
    fn changes_that_never_end_leave_every_second_query_to_the_others() {
        let mut inquiries = Inquiries::new(None);
        for id in [1, 2] {
            inquiries.ask(look_up(id));
            inquiries.follow();
            assert_eq!(inquiries.next_query(), Some(Query::Changes { from: 0 }));
            told(&mut inquiries, changes(vec![]));
            inquiries.follow();
            let accounts = Some(Query::Accounts(vec![name("a")]));
            assert_eq!(inquiries.next_query(), accounts);
            told(&mut inquiries, Answer::Accounts(HashMap::new()));
        }
    }

    #[test]
    fn changes_are_followed_to_the_last_before_anybody_vouches_for_what_is_known() {
        let mut inquiries = Inquiries::new(None);
        inquiries.follow();
        assert_eq!(inquiries.next_query(), Some(Query::Changes { from: 0 }));
        let full: Vec<_> = (1..=CHANGES_MAX as i64).map(change).collect();
        let news = told(&mut inquiries, changes(full));
        assert_eq!(news.len(), CHANGES_MAX, "not in step yet");
        let from = CHANGES_MAX as i64;
        assert_eq!(inquiries.next_query(), Some(Query::Changes { from }));
        // One that this version does not know is passed over.
        let unknown = ChangeRow {
            change: None,
            ..change(from + 1)
        };
        let rows = vec![change(from), unknown];
        assert_eq!(told(&mut inquiries, changes(rows)), [News::InStep]);
        inquiries.follow();
        let from = from + 1;
        assert_eq!(inquiries.next_query(), Some(Query::Changes { from }));
        assert_eq!(told(&mut inquiries, Answer::Failed), [], "nobody vouches");
        assert_eq!(inquiries.next_query(), None, "until it is time again");
    }

    /// The look that finds `rows` and `mark` finds another history, and goes on from `newest`.
    fn goes_back(
        inquiries: &mut Inquiries,
        rows: Vec<ChangeRow>,
        mark: Epoch,
        newest: Option<ChangeRow>,
    ) {
        inquiries.ask(look_up(1));
        inquiries.follow();
        assert!(matches!(
            inquiries.next_query(),
            Some(Query::Changes { .. })
        ));
        assert_eq!(told(inquiries, Answer::Changes { rows, mark }), []);
        // Nothing is read before it is known where the other history ends, however long that takes.
        assert_eq!(inquiries.next_query(), Some(Query::Newest));
        assert_eq!(told(inquiries, Answer::Failed), [], "nobody vouches");
        let accounts = Some(Query::Accounts(vec![name("a")]));
        assert_eq!(inquiries.next_query(), accounts, "a device waits");
        told(inquiries, Answer::Accounts(HashMap::new()));
        inquiries.follow();
        assert_eq!(inquiries.next_query(), Some(Query::Newest));
        let from = newest.as_ref().map_or(0, |newest| newest.id);
        let answer = Answer::Newest { row: newest, mark };
        assert_eq!(told(inquiries, answer), [News::WentBack, News::InStep]);
        inquiries.follow();
        assert_eq!(inquiries.next_query(), Some(Query::Changes { from }));
    }

    #[test]
    fn a_change_that_is_there_no_more_or_is_another_one_ends_the_history() {
        let gone = vec![];
        let later_ones = vec![change(44)];
        let another_time = vec![ChangeRow {
            changed_at_ms: 1,
            ..change(43)
        }];
        let another_account = vec![ChangeRow {
            change: change(42).change,
            ..change(43)
        }];
        for rows in [gone, later_ones, another_time, another_account] {
            for newest in [None, Some(change(7)), Some(change(50))] {
                let mut inquiries = Inquiries::new(Some(change(43)));
                goes_back(&mut inquiries, rows.clone(), Epoch::ZERO, newest.clone());
                let told_before = newest.iter().cloned();
                let next = newest.as_ref().map_or(1, |newest| newest.id + 1);
                let rows = told_before.chain([change(next)]).collect();
                let news = told(&mut inquiries, changes(rows));
                assert_eq!(news, [changed(next), News::InStep], "it is followed");
            }
        }
    }

    #[test]
    fn a_mark_below_ours_ends_the_history_where_no_account_changed() {
        for newest in [None, Some(change(43))] {
            let mut inquiries = Inquiries::new(newest.clone());
            inquiries.mark_stored(Epoch::at_ms(2));
            let rows: Vec<_> = newest.iter().cloned().collect();
            goes_back(&mut inquiries, rows.clone(), Epoch::at_ms(1), newest);
            // Until it is stored anew, which may take long, it is known to be lower.
            let mark = Epoch::at_ms(1);
            let news = told(&mut inquiries, Answer::Changes { rows, mark });
            assert_eq!(news, [News::InStep]);
        }
    }

    #[test]
    fn a_mark_that_is_stored_while_the_changes_are_read_may_be_missing_in_them() {
        let mut inquiries = Inquiries::new(None);
        inquiries.mark_stored(Epoch::at_ms(1));
        inquiries.follow();
        inquiries.next_query();
        inquiries.mark_stored(Epoch::at_ms(2));
        let (rows, mark) = (vec![], Epoch::at_ms(1));
        let news = told(&mut inquiries, Answer::Changes { rows, mark });
        assert_eq!(news, [News::InStep]);
    }

    #[test]
    fn what_could_not_be_checked_is_checked_when_the_table_can_be_read() {
        let link = LinkId(3);
        let mut inquiries = Inquiries::new(None);
        let held = held(1);
        inquiries.ask(Question::CheckVersions { link, held });
        let versions = Some(Query::Versions(vec![AccountId(1)]));
        assert_eq!(inquiries.next_query(), versions);
        assert_eq!(told(&mut inquiries, Answer::Failed), []);
        assert_eq!(inquiries.next_query(), None);
        inquiries.follow();
        inquiries.next_query();
        told(&mut inquiries, changes(vec![]));
        assert_eq!(inquiries.next_query(), versions);
        let now = HashMap::from([(AccountId(1), (2, false))]);
        let news = told(&mut inquiries, Answer::Versions(now));
        let revoke = Revoke {
            account_id: AccountId(1),
            below_version: 2,
            why: RevokeReason::Disabled,
        };
        let revocations = vec![revoke];
        assert_eq!(news, [News::Stale { link, revocations }]);
    }

    #[test]
    fn names_come_after_all_that_devices_wait_for() {
        let link = LinkId(3);
        let mut inquiries = Inquiries::new(None);
        let names = |id| Question::Names {
            id,
            accounts: vec![AccountId(1)],
        };
        inquiries.ask(names(5));
        inquiries.ask(names(6));
        let held = held(1);
        inquiries.ask(Question::CheckVersions { link, held });
        inquiries.ask(look_up(1));
        let accounts = Some(Query::Accounts(vec![name("a")]));
        assert_eq!(inquiries.next_query(), accounts);
        told(&mut inquiries, Answer::Accounts(HashMap::new()));
        let versions = Some(Query::Versions(vec![AccountId(1)]));
        assert_eq!(inquiries.next_query(), versions);
        let now = HashMap::from([(AccountId(1), (1, true))]);
        assert_eq!(told(&mut inquiries, Answer::Versions(now)), []);
        assert_eq!(
            inquiries.next_query(),
            Some(Query::Names(vec![AccountId(1)]))
        );
        let known = HashMap::from([(AccountId(1), name("a"))]);
        let news = told(&mut inquiries, Answer::Names(known.clone()));
        let names = Some(known);
        assert_eq!(news, [News::Named { id: 5, names }]);
        inquiries.next_query();
        let news = told(&mut inquiries, Answer::Failed);
        assert_eq!(news, [News::Named { id: 6, names: None }]);
        assert_eq!(inquiries.next_query(), None);
    }

    #[test]
    fn a_look_up_that_fails_is_told_so_and_too_much_unchecked_closes_the_link() {
        let link = LinkId(3);
        let mut inquiries = Inquiries::new(None);
        inquiries.ask(look_up(1));
        inquiries.next_query();
        let (account, found) = (name("a"), Found::Failed);
        let news = told(&mut inquiries, Answer::Failed);
        assert_eq!(
            news,
            [News::Found {
                id: 1,
                account,
                found
            }]
        );
        let held = held(1).repeat(UNCHECKED_MAX / 2 + 1);
        for expected in [vec![], vec![News::Unchecked { link }]] {
            let held = held.clone();
            inquiries.ask(Question::CheckVersions { link, held });
            inquiries.next_query();
            assert_eq!(told(&mut inquiries, Answer::Failed), expected);
        }
    }
}
