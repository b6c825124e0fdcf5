//! Pure. What the accounts table is asked, one query after the other, and what is told of its
//! answers: look-ups, the changes, and what nodes hold that were cut off while accounts changed.
//!
//! Since there is one query at a time, what is told is in the order of the table's own history: what
//! was read before a change is told before that change, and nothing that is out of date outlives it.

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
    /// At most [`CHANGES_MAX`], the oldest first, after this one.
    Changes {
        after: i64,
    },
    Accounts(Vec<AccountName>),
    Versions(Vec<AccountId>),
    Names(Vec<AccountId>),
}

/// What came of a query.
#[derive(Debug)]
pub enum Answer {
    /// Each with its number; `None`: one that this version does not know.
    Changes(Vec<(i64, Option<Change>)>),
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
    Changes,
    Accounts(Vec<(u64, AccountName)>),
    Versions(LinkId, Vec<Held>),
    Names(u64),
}

#[derive(Debug)]
pub struct Inquiries {
    /// The last change that was told.
    position: i64,
    changes_due: bool,
    look_ups: VecDeque<(u64, AccountName)>,
    checks: VecDeque<(LinkId, Vec<Held>)>,
    /// For people who look at lists: after everything that a device waits for. Whoever asks bounds it.
    names: VecDeque<(u64, Vec<AccountId>)>,
    /// Could not be checked; again when the table has been read.
    unchecked: Vec<(LinkId, Vec<Held>)>,
    open: Option<Open>,
}

impl Inquiries {
    /// Follows the changes from the last one on that there is: whoever asks for an account later
    /// gets them with it.
    pub fn new(position: i64) -> Self {
        Self {
            position,
            changes_due: false,
            look_ups: VecDeque::new(),
            checks: VecDeque::new(),
            names: VecDeque::new(),
            unchecked: Vec::new(),
            open: None,
        }
    }

    pub fn ask(&mut self, question: Question) {
        match question {
            Question::LookUp { id, account } => self.look_ups.push_back((id, account)),
            Question::CheckVersions { link, held } => self.checks.push_back((link, held)),
            Question::Names { id, accounts } => self.names.push_back((id, accounts)),
        }
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
        let (open, query) = if self.changes_due {
            self.changes_due = false;
            let after = self.position;
            (Open::Changes, Query::Changes { after })
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
            (Open::Changes, Answer::Changes(changes)) => self.changed(changes, news),
            (Open::Changes, Answer::Failed) => {}
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

    fn changed(&mut self, changes: Vec<(i64, Option<Change>)>, news: &mut Vec<News>) {
        let is_last = changes.len() < CHANGES_MAX;
        for (id, change) in changes {
            self.position = id;
            news.extend(change.map(News::Changed));
        }
        if is_last {
            news.push(News::InStep);
            self.checks.extend(self.unchecked.drain(..));
        } else {
            self.changes_due = true;
        }
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

    fn change(id: i64) -> (i64, Option<Change>) {
        let change = Change {
            account_id: AccountId(id),
            name: name("a"),
            version: 2,
            kind: ChangeKind::Disabled,
        };
        (id, Some(change))
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
        let mut inquiries = Inquiries::new(7);
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
        let changes = Some(Query::Changes { after: 7 });
        assert_eq!(inquiries.next_query(), changes);
        let news = told(&mut inquiries, Answer::Changes(vec![change(8)]));
        let changed = News::Changed(change(8).1.unwrap());
        assert_eq!(news, [changed, News::InStep]);
        assert_eq!(inquiries.next_query(), accounts);
    }

    #[test]
    fn changes_are_followed_to_the_last_before_anybody_vouches_for_what_is_known() {
        let mut inquiries = Inquiries::new(0);
        inquiries.follow();
        assert_eq!(inquiries.next_query(), Some(Query::Changes { after: 0 }));
        let full: Vec<_> = (1..=CHANGES_MAX as i64).map(change).collect();
        let news = told(&mut inquiries, Answer::Changes(full));
        assert_eq!(news.len(), CHANGES_MAX, "not in step yet");
        let after = CHANGES_MAX as i64;
        assert_eq!(inquiries.next_query(), Some(Query::Changes { after }));
        // One that this version does not know is passed over, and not read again.
        let news = told(&mut inquiries, Answer::Changes(vec![(after + 1, None)]));
        assert_eq!(news, [News::InStep]);
        inquiries.follow();
        let after = after + 1;
        assert_eq!(inquiries.next_query(), Some(Query::Changes { after }));
        assert_eq!(told(&mut inquiries, Answer::Failed), [], "nobody vouches");
        assert_eq!(inquiries.next_query(), None, "until it is time again");
    }

    #[test]
    fn what_could_not_be_checked_is_checked_when_the_table_can_be_read() {
        let link = LinkId(3);
        let mut inquiries = Inquiries::new(0);
        let held = held(1);
        inquiries.ask(Question::CheckVersions { link, held });
        let versions = Some(Query::Versions(vec![AccountId(1)]));
        assert_eq!(inquiries.next_query(), versions);
        assert_eq!(told(&mut inquiries, Answer::Failed), []);
        assert_eq!(inquiries.next_query(), None);
        inquiries.follow();
        inquiries.next_query();
        told(&mut inquiries, Answer::Changes(vec![]));
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
        let mut inquiries = Inquiries::new(0);
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
        let mut inquiries = Inquiries::new(0);
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
