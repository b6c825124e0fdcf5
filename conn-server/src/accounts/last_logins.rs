//! Pure. Last logins on their way to the table: one note of each account, however often it logs in.

use std::collections::HashMap;

use common::ids::AccountId;

use crate::account::LastLogin;

/// Accounts noted at a time; beyond it, and while the table cannot be written, notes are shed: the
/// next login makes a new one.
const NOTES_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub struct LastLogins {
    notes: HashMap<AccountId, LastLogin>,
}

impl LastLogins {
    /// False where there is no room for it.
    pub fn note(&mut self, login: LastLogin) -> bool {
        let has_room = self.notes.len() < NOTES_MAX || self.notes.contains_key(&login.account_id);
        if has_room {
            self.notes.insert(login.account_id, login);
        }
        has_room
    }

    /// All of them, in the order of the table.
    pub fn take(&mut self) -> Vec<LastLogin> {
        let mut notes: Vec<_> = self.notes.drain().map(|(_, note)| note).collect();
        notes.sort_unstable_by_key(|note| note.account_id);
        notes
    }

    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn login(account_id: i64, at_unix_ms: u64) -> LastLogin {
        LastLogin {
            account_id: AccountId(account_id),
            firmware: "1".into(),
            source: [10, 0, 0, 1].into(),
            node: "logic-1".parse().unwrap(),
            at_unix_ms,
        }
    }

    #[test]
    fn the_last_login_of_each_account_is_kept() {
        let mut logins = LastLogins::default();
        for (account_id, at_unix_ms) in [(2, 10), (1, 11), (2, 12)] {
            assert!(logins.note(login(account_id, at_unix_ms)));
        }
        assert_eq!(logins.take(), [login(1, 11), login(2, 12)]);
        assert!(logins.is_empty());
    }

    #[test]
    fn there_are_never_more_notes_than_may_be() {
        let mut logins = LastLogins::default();
        for account_id in 0..NOTES_MAX as i64 {
            assert!(logins.note(login(account_id, 1)));
        }
        assert!(!logins.note(login(NOTES_MAX as i64, 1)));
        assert!(logins.note(login(0, 2)), "one that is noted already");
        let notes = logins.take();
        assert_eq!(notes.len(), NOTES_MAX);
        assert_eq!(notes.first(), Some(&login(0, 2)));
    }
}
