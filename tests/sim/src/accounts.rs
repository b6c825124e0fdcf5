//! The accounts database of the simulated world: who may log in, what people change, and the marks of
//! the conn servers' epochs. It outlives every process, and can be away for all of them.

use std::collections::{BTreeMap, BTreeSet};

use common::epoch::Epoch;
use common::ids::{AccountId, AccountName};
use common::secret::DeviceKey;
use conn_server::account::{Account, Change, ChangeKind, Found, LastLogin};
use conn_server::accounts::inquiries::{Answer, CHANGES_MAX, ChangeRow, Query};

use crate::conn::node_number;
use crate::device::{account_name, device_key};
use crate::world::account_of;

/// What a conn server asks of it.
#[derive(Debug)]
pub enum Request {
    Read(Query),
    StoreMark { node_number: u16, mark: Epoch },
    NoteLastLogins(Vec<LastLogin>),
}

/// And what comes back.
#[derive(Debug)]
pub enum Reply {
    Read(Answer),
    /// `None`: it could not be stored.
    MarkStored(Option<Epoch>),
    LastLoginsNoted,
}

#[derive(Debug)]
pub struct Accounts {
    rows: BTreeMap<AccountName, Account>,
    /// The n-th has the number n + 1.
    changes: Vec<Change>,
    /// By the node number of a conn server.
    marks: BTreeMap<u16, Epoch>,
    last_logins: BTreeMap<AccountId, LastLogin>,
    /// Nobody reaches it.
    pub is_away: bool,
    /// This conn server does not reach it.
    pub is_cut_from: Option<usize>,
}

impl Accounts {
    /// One for each device.
    pub fn new(devices: usize) -> Self {
        let row = |index| {
            let account = Account {
                id: account_of(index),
                key: device_key(index, 1),
                version: 1,
                enabled: true,
            };
            (account_name(index), account)
        };
        Self {
            rows: (0..devices).map(row).collect(),
            changes: vec![],
            marks: BTreeMap::new(),
            last_logins: BTreeMap::new(),
            is_away: false,
            is_cut_from: None,
        }
    }

    // ---- conn servers -------------------------------------------------------------------------

    /// Everybody reaches it.
    pub fn is_there(&self) -> bool {
        !self.is_away && self.is_cut_from.is_none()
    }

    pub fn is_away_for(&self, conn: usize) -> bool {
        self.is_away || self.is_cut_from == Some(conn)
    }

    /// Carries a conn server's request out, or fails it.
    pub fn answer(&mut self, conn: usize, request: Request) -> Reply {
        let is_away = self.is_away_for(conn);
        match request {
            Request::Read(_) if is_away => Reply::Read(Answer::Failed),
            Request::Read(query) => Reply::Read(self.read(conn, query)),
            Request::StoreMark { .. } if is_away => Reply::MarkStored(None),
            Request::StoreMark { node_number, mark } => {
                self.store_mark(node_number, mark);
                Reply::MarkStored(Some(mark))
            }
            Request::NoteLastLogins(notes) => {
                if !is_away {
                    let notes = notes.into_iter().map(|note| (note.account_id, note));
                    self.last_logins.extend(notes);
                }
                Reply::LastLoginsNoted
            }
        }
    }

    fn read(&self, conn: usize, query: Query) -> Answer {
        let mark = || self.mark(node_number(conn));
        match query {
            Query::Changes { from } => Answer::Changes {
                rows: self
                    .rows_of_changes()
                    .skip_while(|row| row.id < from)
                    .take(CHANGES_MAX)
                    .collect(),
                mark: mark(),
            },
            Query::Newest => Answer::Newest {
                row: self.newest(),
                mark: mark(),
            },
            Query::Accounts(names) => {
                let found = |name: &AccountName| {
                    let row = self.rows.get(name).copied();
                    row.map_or(Found::Unknown, Found::Account)
                };
                let accounts = names.into_iter().map(|name| (name.clone(), found(&name)));
                Answer::Accounts(accounts.collect())
            }
            Query::Names(ids) => {
                let ids: BTreeSet<_> = ids.into_iter().collect();
                let rows = self.rows.iter().filter(|(_, row)| ids.contains(&row.id));
                Answer::Names(rows.map(|(name, row)| (row.id, name.clone())).collect())
            }
            Query::Versions(ids) => {
                let ids: BTreeSet<_> = ids.into_iter().collect();
                let rows = self.rows.values().filter(|row| ids.contains(&row.id));
                Answer::Versions(
                    rows.map(|row| (row.id, (row.version, row.enabled)))
                        .collect(),
                )
            }
        }
    }

    fn rows_of_changes(&self) -> impl Iterator<Item = ChangeRow> + '_ {
        (1..).zip(&self.changes).map(|(id, change)| ChangeRow {
            id,
            change: Some(change.clone()),
            changed_at_ms: id,
        })
    }

    /// The last change that there is.
    pub fn newest(&self) -> Option<ChangeRow> {
        self.rows_of_changes().last()
    }

    pub fn mark(&self, node_number: u16) -> Epoch {
        self.marks.get(&node_number).copied().unwrap_or_default()
    }

    /// A mark only grows, whoever else believes to have this number.
    pub fn store_mark(&mut self, node_number: u16, mark: Epoch) {
        let stored = self.marks.entry(node_number).or_default();
        *stored = (*stored).max(mark);
    }

    // ---- people -------------------------------------------------------------------------------

    /// The account of a device; `None`: it was removed.
    pub fn of_device(&self, index: usize) -> Option<&Account> {
        self.rows.get(&account_name(index))
    }

    /// Account and change row in one transaction. `None`: there is no such account.
    pub fn change(&mut self, index: usize, kind: ChangeKind) -> Option<Change> {
        let name = account_name(index);
        let row = self.rows.get_mut(&name)?;
        row.version += 1;
        match kind {
            ChangeKind::Added | ChangeKind::Enabled => row.enabled = true,
            ChangeKind::Disabled => row.enabled = false,
            ChangeKind::KeyRotated => row.key = device_key(index, row.version),
            ChangeKind::Removed => {}
        }
        let change = Change {
            account_id: row.id,
            name: name.clone(),
            version: row.version,
            kind,
        };
        if kind == ChangeKind::Removed {
            self.rows.remove(&name);
        }
        self.changes.push(change.clone());
        Some(change)
    }

    /// The key that a device has to have now.
    pub fn key(&self, index: usize) -> Option<DeviceKey> {
        self.of_device(index).map(|row| row.key)
    }

    /// Accounts whose last login was noted.
    pub fn noted(&self) -> usize {
        self.last_logins.len()
    }
}
