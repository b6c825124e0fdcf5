//! A conn server at the end of a link: what it knows of the gate from what it was told.

use std::collections::{BTreeMap, BTreeSet};

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::message::{LogicLoad, Message};

#[derive(Default)]
pub(super) struct Mirror {
    /// The first message of a link.
    is_introduced: bool,
    /// The last page of what the gate holds has come.
    is_adopted: bool,
    sessions: BTreeMap<AccountId, (Epoch, u32)>,
    /// Those that it asked for itself, and those that the pages listed.
    grants: BTreeSet<(AccountId, Epoch)>,
    load: Option<LogicLoad>,
}

impl Mirror {
    /// Its own grant was acknowledged.
    pub(super) fn granted(&mut self, account_id: AccountId, epoch: Epoch) {
        self.grants.insert((account_id, epoch));
    }

    pub(super) fn hear(&mut self, message: Message) {
        match message {
            Message::LogicInfo(info) => {
                assert!(!self.is_introduced, "once");
                self.is_introduced = true;
                self.load = Some(info.load);
            }
            Message::LogicLoad(load) => self.load = Some(load),
            Message::Adopt(page) => {
                assert!(self.is_introduced && !self.is_adopted);
                for held in page.sessions {
                    self.attached(held.account_id, held.epoch, held.account_version);
                }
                let grants = page.grants.iter();
                self.grants
                    .extend(grants.map(|held| (held.account_id, held.epoch)));
                self.is_adopted = page.last;
            }
            Message::Attached(attached) => {
                for held in attached.sessions {
                    self.attached(held.account_id, held.epoch, held.account_version);
                }
            }
            Message::Ended(ended) => {
                for (account_id, epoch) in ended.sessions {
                    if self.sessions.get(&account_id).map(|it| it.0) == Some(epoch) {
                        self.sessions.remove(&account_id);
                    }
                }
                for grant in ended.grants {
                    self.grants.remove(&grant);
                }
            }
            other => panic!("{other:?} as a notice of a logic server"),
        }
    }

    fn attached(&mut self, account_id: AccountId, epoch: Epoch, version: u32) {
        self.grants.remove(&(account_id, epoch));
        self.sessions.insert(account_id, (epoch, version));
    }

    /// At the end of a turn: the sessions are the gate's, and every grant that it takes for open is.
    pub(super) fn check(
        &self,
        sessions: Vec<(AccountId, Epoch, u32)>,
        open: BTreeSet<(AccountId, Epoch)>,
        load: LogicLoad,
    ) {
        assert!(self.is_introduced && self.is_adopted);
        let known = self.sessions.iter();
        let known = known.map(|(account_id, &(epoch, version))| (*account_id, epoch, version));
        assert_eq!(known.collect::<Vec<_>>(), sessions);
        let stale: Vec<_> = self.grants.difference(&open).collect();
        assert!(stale.is_empty(), "taken for open: {stale:?}");
        let told = self.load.expect("told with the introduction");
        assert_eq!(told.draining, load.draining, "told at once");
    }
}
