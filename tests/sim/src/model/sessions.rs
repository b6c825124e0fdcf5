//! P5: one current session per account, and the links by which an older one can be reached.
//!
//! An epoch takes effect when its Attach is proven. Of two sessions of an account the one with the
//! higher epoch is the current one, wherever they are and in whatever order they began.

use std::collections::{BTreeMap, BTreeSet};

use common::epoch::Epoch;
use common::ids::AccountId;

use super::Broken;
use super::stillness::Stillness;
use crate::network::Stream;

/// An older session may live so long beside a newer one whose node can be reached.
const OLDER_SESSION_MS: u64 = 1_000;
/// The same, from the heal of a cut.
pub const OLDER_SESSION_AFTER_HEAL_MS: u64 = 5_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) account_id: AccountId,
    pub(super) node: usize,
    pub(super) epoch: Epoch,
    pub(super) account_version: u32,
    /// Its device was told `ok`.
    pub(super) is_told: bool,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    stream: Stream,
    node: usize,
    epoch: Epoch,
    began_at_ms: u64,
}

#[derive(Debug, Default)]
struct OfAccount {
    /// The highest epoch under which a session ever began, and when.
    newest: Epoch,
    newest_at_ms: u64,
    /// Its sessions; more than one for moments only.
    live: Vec<Live>,
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_stream: BTreeMap<Stream, Session>,
    of_account: BTreeMap<AccountId, OfAccount>,
    /// The highest epoch that each conn server ever published, over all its lives.
    highest: BTreeMap<usize, Epoch>,
    published: BTreeSet<Epoch>,
    /// Sessions that an operator closes.
    kicked: BTreeSet<Epoch>,
    /// Accounts that have more than one session.
    contested: Vec<AccountId>,
    /// Since when a conn server and a logic server are linked, by both.
    links: BTreeMap<(usize, usize), u64>,
}

impl Sessions {
    /// What a conn server publishes only grows, over restarts and clocks that are set back; no epoch
    /// is published twice; and where everybody can reach everybody, whatever their clocks show, a
    /// grant is newer than every session of the account that others know of.
    pub(super) fn published(
        &mut self,
        conn: usize,
        account_id: AccountId,
        epoch: Epoch,
        now_ms: u64,
        healed_at_ms: Option<u64>,
    ) -> Result<(), Broken> {
        let broken = |what: &str, than: Epoch| {
            let what = format_args!("conn server {conn} publishes {epoch} {what} {than}");
            Err(Broken::new("P5", what))
        };
        let highest = self.highest.entry(conn).or_default();
        if epoch <= *highest {
            return broken("after", *highest);
        }
        *highest = epoch;
        if !self.published.insert(epoch) {
            return broken("a second time:", epoch);
        }
        let of_account = self.of_account.entry(account_id).or_default();
        if epoch <= of_account.newest
            && healed_at_ms.is_some_and(|healed_at_ms| healed_at_ms <= of_account.newest_at_ms)
            && now_ms > of_account.newest_at_ms + OLDER_SESSION_MS
        {
            return broken("though everybody knows the attached", of_account.newest);
        }
        Ok(())
    }

    /// An Attach was proven.
    pub(super) fn began(
        &mut self,
        stream: Stream,
        session: Session,
        now_ms: u64,
    ) -> Result<(), Broken> {
        self.by_stream.insert(stream, session);
        let Session {
            account_id,
            node,
            epoch,
            ..
        } = session;
        let of_account = self.of_account.entry(account_id).or_default();
        let here = of_account.live.iter().filter(|live| live.node == node);
        if let Some(newer) = here.map(|live| live.epoch).max().filter(|it| *it >= epoch) {
            return Err(Broken::new(
                "P5",
                format_args!("{account_id} is admitted under {epoch} where it has {newer}"),
            ));
        }
        if epoch > of_account.newest {
            of_account.newest = epoch;
            of_account.newest_at_ms = now_ms;
        }
        of_account.live.push(Live {
            stream,
            node,
            epoch,
            began_at_ms: now_ms,
        });
        if of_account.live.len() == 2 {
            self.contested.push(account_id);
        }
        Ok(())
    }

    pub(super) fn get(&self, stream: Stream) -> Option<&Session> {
        self.by_stream.get(&stream)
    }

    /// Its device is told `ok`.
    pub(super) fn told(&mut self, stream: Stream) -> Option<&Session> {
        let session = self.by_stream.get_mut(&stream)?;
        session.is_told = true;
        Some(session)
    }

    /// Those that were told `ok`, in order.
    pub(super) fn attached(&self) -> impl Iterator<Item = &Session> {
        self.by_stream.values().filter(|session| session.is_told)
    }

    pub(super) fn of_account(&self, account_id: AccountId) -> impl Iterator<Item = &Session> {
        let of_account = self.of_account.get(&account_id);
        let live = of_account.into_iter().flat_map(|it| &it.live);
        live.filter_map(|live| self.by_stream.get(&live.stream))
    }

    /// The highest epoch under which a session of it ever began.
    pub(super) fn newest(&self, account_id: AccountId) -> Epoch {
        let of_account = self.of_account.get(&account_id);
        of_account.map(|it| it.newest).unwrap_or_default()
    }

    pub(super) fn ended(&mut self, stream: Stream) -> Option<Session> {
        let session = self.by_stream.remove(&stream)?;
        let of_account = self.of_account.entry(session.account_id).or_default();
        of_account.live.retain(|live| live.stream != stream);
        if of_account.live.len() == 1 {
            self.contested.retain(|other| *other != session.account_id);
        }
        Some(session)
    }

    /// An operator closes the session of this epoch.
    pub(super) fn kicked(&mut self, epoch: Epoch) {
        self.kicked.insert(epoch);
    }

    /// Whether anybody was ever granted this epoch.
    pub(super) fn is_published(&self, epoch: Epoch) -> bool {
        self.published.contains(&epoch)
    }

    /// `Close(replaced)` leaves. There must be something that replaced it, or an operator who did.
    pub(super) fn closes_replaced(&self, stream: Stream) -> Result<(), Broken> {
        let Some(session) = self.by_stream.get(&stream) else {
            return Ok(());
        };
        let Some(of_account) = self.of_account.get(&session.account_id) else {
            return Ok(());
        };
        let mut live = of_account.live.iter();
        let closed = live.find(|live| live.stream == stream);
        let is_kicked = self.kicked.contains(&session.epoch);
        if !is_kicked && closed.is_some_and(|live| live.epoch >= of_account.newest) {
            return Err(Broken::new(
                "P5",
                format_args!(
                    "the newest session of {} is closed replaced: {closed:?}",
                    session.account_id
                ),
            ));
        }
        Ok(())
    }

    /// A conn server has sessions of an account ended that are older than this epoch.
    pub(super) fn ends_below(&self, account_id: AccountId, below: Epoch) -> Result<(), Broken> {
        let newest = self.of_account.get(&account_id).map(|it| it.newest);
        if newest.unwrap_or_default() < below {
            return Err(Broken::new(
                "P5",
                format_args!("sessions of {account_id} end for {below}, which never attached"),
            ));
        }
        Ok(())
    }

    pub(super) fn node_died(&mut self, node: usize) {
        let of_node = self.by_stream.iter();
        let of_node = of_node.filter(|(_, session)| session.node == node);
        let gone: Vec<_> = of_node.map(|(stream, _)| *stream).collect();
        for stream in gone {
            self.ended(stream);
        }
    }

    /// Whether a conn server and a logic server can speak with one another.
    pub(super) fn linked(&mut self, conn: usize, node: usize, stands: bool, now_ms: u64) {
        if stands {
            self.links.entry((conn, node)).or_insert(now_ms);
        } else {
            self.links.remove(&(conn, node));
        }
    }

    pub(super) fn check(&self, now_ms: u64, stillness: &Stillness) -> Result<(), Broken> {
        for account_id in &self.contested {
            let Some(OfAccount { live, .. }) = self.of_account.get(account_id) else {
                continue;
            };
            for older in live {
                let newer = live.iter().filter(|newer| newer.epoch > older.epoch);
                let due_ms = newer
                    .filter_map(|newer| self.due_ms(older, newer, stillness))
                    .min();
                if due_ms.is_some_and(|due_ms| now_ms > due_ms) {
                    return Err(Broken::new(
                        "P5",
                        format_args!("{account_id} has an older session still: {live:?}"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Until when the older one may live; for ever where no conn server can speak with both nodes, or
    /// its own stands still.
    fn due_ms(&self, older: &Live, newer: &Live, stillness: &Stillness) -> Option<u64> {
        let contested_ms = older.began_at_ms.max(newer.began_at_ms);
        let contested_ms = stillness.can_from_ms(older.node, contested_ms)?;
        let soon_ms = contested_ms + OLDER_SESSION_MS;
        if older.node == newer.node {
            return Some(soon_ms);
        }
        let between = self.links.iter();
        let between = between.filter(|((_, node), _)| *node == older.node);
        let between = between.filter_map(|((conn, _), since_ms)| {
            let other_ms = self.links.get(&(*conn, newer.node))?;
            Some(*since_ms.max(other_ms))
        });
        let linked_ms = between.min()?;
        Some(soon_ms.max(linked_ms + OLDER_SESSION_AFTER_HEAL_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId(1);

    fn session(node: usize, epoch: Epoch) -> Session {
        Session {
            account_id: ACCOUNT,
            node,
            epoch,
            account_version: 1,
            is_told: false,
        }
    }

    fn began(sessions: &mut Sessions, stream: u64, node: usize, epoch: u64, now_ms: u64) {
        let epoch = Epoch::at_ms(epoch);
        let began = sessions.began(Stream(stream), session(node, epoch), now_ms);
        assert!(began.is_ok());
    }

    #[test]
    fn an_older_session_on_the_same_node_has_a_second() {
        let mut sessions = Sessions::default();
        began(&mut sessions, 1, 0, 10, 1_000);
        began(&mut sessions, 2, 0, 20, 5_000);
        assert!(sessions.check(6_000, &Stillness::default()).is_ok());
        assert!(sessions.check(6_001, &Stillness::default()).is_err());
        sessions.ended(Stream(1));
        assert!(sessions.check(99_000, &Stillness::default()).is_ok());
    }

    #[test]
    fn one_elsewhere_has_a_second_where_a_conn_server_is_linked_with_both() {
        let mut sessions = Sessions::default();
        sessions.linked(0, 0, true, 0);
        sessions.linked(1, 1, true, 0);
        began(&mut sessions, 1, 0, 10, 10_000);
        // The older one may also be the one that began later.
        began(&mut sessions, 2, 1, 5, 10_000);
        assert!(
            sessions.check(99_000, &Stillness::default()).is_ok(),
            "nobody can tell them"
        );
        sessions.linked(0, 1, true, 20_000);
        assert!(sessions.check(25_000, &Stillness::default()).is_ok());
        assert!(sessions.check(25_001, &Stillness::default()).is_err());
        sessions.linked(0, 1, false, 24_000);
        assert!(sessions.check(99_000, &Stillness::default()).is_ok());
    }

    #[test]
    fn only_an_older_one_is_replaced_and_none_comes_in_behind_a_newer_one() {
        let mut sessions = Sessions::default();
        began(&mut sessions, 1, 0, 10, 0);
        began(&mut sessions, 2, 1, 20, 0);
        assert!(sessions.closes_replaced(Stream(1)).is_ok());
        assert!(sessions.closes_replaced(Stream(2)).is_err());
        assert!(sessions.ends_below(ACCOUNT, Epoch::at_ms(20)).is_ok());
        assert!(sessions.ends_below(ACCOUNT, Epoch::at_ms(21)).is_err());
        let late = sessions.began(Stream(3), session(1, Epoch::at_ms(15)), 0);
        assert!(late.is_err());
    }
}
