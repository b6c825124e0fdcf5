//! Pure. The conversations of a login: with the accounts, with a logic server, and the answer.

use common::ids::AccountId;
use common::link::message::{self, GrantAnswer, GrantCheckAnswer, LoginAnswer, Message};
use common::link::{Asker, LinkId};
use common::time::Now;
use protocols::rcu;

use super::{Core, Effect, Timer};
use crate::account::{Change, Found};
use crate::counters::Counter;
use crate::desk::Desk;
use crate::desk::{Reply, Step};
use crate::login::{GRANTED_WITHIN_MS, Login, Lost};
use crate::pool::Reservation;

/// A grant whose answer never came is taken for gone this long after it expired on its node.
const FORGOTTEN_AFTER_MS: u64 = 1_000;

/// A conn server that does not notice that the database went back grants by what it remembers for no
/// longer than this: 5 s, and the time of a login.
const REMEMBERED_MS: u64 = 10_000;

/// Sessions and grants of one question to the accounts.
const CHECKED_MAX: usize = 1_000;

/// What a logic server was asked: for a grant, or about one.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) link: LinkId,
    /// Of a grant: held until it is answered or has expired, whether a login still waits for it or
    /// not. `None`: a question, which takes no place.
    reservation: Option<Reservation>,
    /// `None`: its time was over.
    pub(super) login: Option<u64>,
    at_ms: u64,
}

impl Core {
    pub(super) fn login(
        &mut self,
        asker: Asker,
        login: &message::Login,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let desk = &mut self.desk;
        desk.counters.count(Counter::Logins);
        let (begun, step) = if self.shutting_down {
            (None, desk.busy(Counter::ShuttingDown, now))
        } else if self.logins.len() >= self.logins_open_max {
            (None, desk.busy(Counter::TooManyOpen, now))
        } else {
            Login::begin(asker, login, desk, now)
        };
        let id = self.new_id();
        match begun {
            Some(begun) => {
                self.logins.insert(id, begun);
            }
            None => {
                if let Step::Reply(Reply { why: Some(why), .. }) = step {
                    let body = rcu::login::Login::decode_body(&login.body);
                    let account = body.ok().and_then(|body| body.account.parse().ok());
                    effects.push(Effect::Explain {
                        account,
                        source: login.source,
                        why,
                    });
                }
            }
        }
        self.settle(id, asker, step, now, effects);
    }

    pub(super) fn found(&mut self, id: u64, found: Found, now: Now, effects: &mut Vec<Effect>) {
        let is_login = self.step(id, now, effects, |login, desk| {
            login.account_found(found, desk, now)
        });
        if !is_login {
            self.command_found(id, found, now, effects);
        }
    }

    pub(super) fn look_up_expired(&mut self, id: u64, now: Now, effects: &mut Vec<Effect>) {
        let login = self.logins.get(&id);
        if login.is_some_and(|login| login.look_up_is_over(now)) {
            self.step(id, now, effects, |login, desk| {
                login.abandon(Counter::LookUpFailed, desk, now)
            });
        }
    }

    pub(super) fn grant_answered(
        &mut self,
        link: LinkId,
        id: u64,
        answer: GrantAnswer,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Asked {
            reservation: Some(reservation),
            login,
            ..
        }) = self.answered(link, id, true)
        else {
            return;
        };
        self.desk.pool.answered(reservation, answer.load);
        if let Some(login) = login {
            self.step(login, now, effects, |login, desk| {
                login.grant_answered(answer.verdict, desk, now)
            });
        }
    }

    pub(super) fn grant_checked(
        &mut self,
        link: LinkId,
        id: u64,
        answer: GrantCheckAnswer,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let asked = self.answered(link, id, false);
        if let Some(login) = asked.and_then(|asked| asked.login) {
            self.step(login, now, effects, |login, desk| {
                login.grant_checked(answer.is_open, desk, now)
            });
        }
    }

    /// What this is the answer to: asked on that link, and of that kind.
    fn answered(&mut self, link: LinkId, id: u64, for_grant: bool) -> Option<Asked> {
        let asked = self.asked.get(&id)?;
        if asked.link != link || asked.reservation.is_some() != for_grant {
            return None;
        }
        self.asked.remove(&id)
    }

    /// Its login asks elsewhere. A grant that is never answered gives its place back when it must
    /// have expired on its node.
    pub(super) fn asked_expired(&mut self, id: u64, now: Now, effects: &mut Vec<Effect>) {
        let gone_after_ms = u64::from(self.desk.rules.grant_ttl_ms) + FORGOTTEN_AFTER_MS;
        let Some(asked) = self.asked.get_mut(&id) else {
            return;
        };
        let login = asked.login.take();
        match &asked.reservation {
            Some(reservation) if login.is_some() => {
                if now.ms >= asked.at_ms + GRANTED_WITHIN_MS {
                    self.desk.pool.silent(reservation);
                }
                let gone_at_ms = asked.at_ms + gone_after_ms;
                self.set_timer(gone_at_ms, Timer::Asked(id));
            }
            _ => {
                let asked = self.asked.remove(&id);
                if let Some(reservation) = asked.and_then(|asked| asked.reservation) {
                    self.desk.pool.give_back(reservation);
                }
            }
        }
        if let Some(login) = login {
            self.step(login, now, effects, |login, desk| {
                login.grant_lost(Lost::TimedOut, desk, now)
            });
        }
    }

    /// In effect everywhere: on every node that can be reached, now; on the others when they are
    /// adopted; in the logins that are being decided; and in the next ones, which look it up anew.
    pub(super) fn changed(&mut self, change: &Change, now: Now, effects: &mut Vec<Effect>) {
        let Some(revoke) = change.revocation() else {
            return;
        };
        self.revoke_everywhere(revoke, effects);
        let is_outdated =
            |account_id, version| account_id == revoke.account_id && version < revoke.below_version;
        self.judge_again(is_outdated, now, effects);
    }

    /// The accounts table is another one. Logins are judged anew; what nodes hold is compared with it, and
    /// for a while what attaches is, too: a conn server that did not notice yet may grant by what it
    /// remembers, and be gone before it tells. A node that is cut off is looked at when it is adopted.
    pub(super) fn went_back(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.desk.epochs.mark_lost();
        let mark = self.desk.epochs.mark_to_store(now.unix_ms);
        effects.extend(mark.map(Effect::StoreMark));
        self.judge_again(|_, _| true, now, effects);
        let grant_ttl_ms = u64::from(self.desk.rules.grant_ttl_ms);
        self.doubted_until_ms = now.ms + REMEMBERED_MS + grant_ttl_ms;
        for (node, it) in self.desk.pool.iter() {
            for held in self.desk.directory.held_by(node).chunks(CHECKED_MAX) {
                effects.push(Effect::CheckVersions {
                    link: it.link,
                    held: held.to_vec(),
                });
            }
        }
    }

    /// Those that were judged by such an account and version.
    fn judge_again(
        &mut self,
        by: impl Fn(AccountId, u32) -> bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let outdated = self.logins.iter().filter(|(_, login)| {
            let rests_on = login.rests_on();
            rests_on.is_some_and(|(account_id, version)| by(account_id, version))
        });
        let mut outdated: Vec<_> = outdated.map(|(id, _)| *id).collect();
        outdated.sort_unstable();
        for asked in self.asked.values_mut() {
            asked
                .login
                .take_if(|login| outdated.binary_search(login).is_ok());
        }
        for id in outdated {
            self.desk.counters.count(Counter::JudgedAgain);
            self.step(id, now, effects, |login, desk| login.judge_again(desk, now));
        }
    }

    pub(super) fn shut_down(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.shutting_down = true;
        self.bulletin.something_happened();
        let mut open: Vec<_> = self.logins.keys().copied().collect();
        open.sort_unstable();
        for id in open {
            self.step(id, now, effects, |login, desk| {
                login.abandon(Counter::ShuttingDown, desk, now)
            });
        }
    }

    /// Takes a login a step on; false where none of this id is being decided.
    pub(super) fn step(
        &mut self,
        id: u64,
        now: Now,
        effects: &mut Vec<Effect>,
        step: impl FnOnce(&mut Login, &mut Desk) -> Step,
    ) -> bool {
        let Some(login) = self.logins.get_mut(&id) else {
            return false;
        };
        let step = step(login, &mut self.desk);
        let asker = login.asker;
        self.settle(id, asker, step, now, effects);
        true
    }

    /// Carries out what a step came to.
    fn settle(&mut self, id: u64, asker: Asker, step: Step, now: Now, effects: &mut Vec<Effect>) {
        match step {
            Step::LookUp { account, until_ms } => {
                self.set_timer(until_ms, Timer::LookUp(id));
                effects.push(Effect::LookUp { id, account });
            }
            Step::Ask {
                reservation,
                grant,
                until_ms,
            } => {
                let asked = Asked {
                    link: reservation.link(),
                    reservation: Some(reservation),
                    login: Some(id),
                    at_ms: now.ms,
                };
                effects.push(self.ask(asked, (*grant).into(), until_ms, now));
            }
            Step::Check {
                link,
                check,
                until_ms,
            } => {
                let asked = Asked {
                    link,
                    reservation: None,
                    login: Some(id),
                    at_ms: now.ms,
                };
                effects.push(self.ask(asked, check.into(), until_ms, now));
            }
            Step::Reply(reply) => {
                let decided = self.logins.remove(&id);
                let since_ms = decided.as_ref().map_or(now.ms, |login| login.since_ms);
                self.login_ms.record(now.ms.saturating_sub(since_ms));
                if let (Some(login), Some(why)) = (decided, reply.why) {
                    effects.push(Effect::Explain {
                        account: Some(login.account().clone()),
                        source: login.source,
                        why,
                    });
                }
                effects.push(Effect::answer(&asker, LoginAnswer { body: reply.body }));
                effects.extend(reply.last_login.map(Effect::NoteLastLogin));
            }
        }
    }

    fn ask(&mut self, asked: Asked, message: Message, until_ms: u64, now: Now) -> Effect {
        let id = self.new_id();
        let link = asked.link;
        self.set_timer(until_ms, Timer::Asked(id));
        self.asked.insert(id, asked);
        Effect::Request {
            link,
            id,
            deadline_ms: now.until(until_ms),
            message,
        }
    }
}
