//! Pure. What operators see of the sessions, and close.

use super::bench::*;
use crate::gate::*;

impl Bench {
    /// What an operator was answered, or a shard told, since the last time.
    fn asked(&mut self, input: Input<'_>) -> Effect {
        self.effects.clear();
        self.apply(input);
        let mut effects: Vec<_> = self.effects.drain(..).collect();
        effects.pop().unwrap()
    }

    fn page(&mut self, after: Option<i64>, limit: u32) -> (Vec<i64>, bool) {
        let ask = SessionPageAsk {
            after: after.map(AccountId),
            limit,
        };
        let answer = self.asked(Input::SessionPageAsk {
            link: LINK,
            request: 3,
            ask,
        });
        let Effect::Answer {
            request: 3,
            message: Message::SessionPage(page),
            ..
        } = answer
        else {
            panic!("{answer:?}");
        };
        let accounts = page.sessions.iter().map(|(account_id, _)| account_id.0);
        (accounts.collect(), page.last)
    }
}

#[test]
fn pages_hold_who_is_attached_in_order_and_nobody_else() {
    let mut bench = Bench::new(settings());
    for account in [5, 1, 3] {
        bench.session(account, account as u64);
    }
    // Only granted, at the end and between.
    bench.grant(&grant(2, 9));
    bench.grant(&grant(7, 10));
    assert_eq!(bench.page(None, 2), (vec![1, 3], false));
    assert_eq!(bench.page(Some(3), 2), (vec![5], true));
    assert_eq!(bench.page(None, 3), (vec![1, 3, 5], true));
    assert_eq!(bench.page(None, 0), (vec![1], false), "at least one");
    assert_eq!(bench.page(Some(5), 2), (vec![], true));
}

#[test]
fn a_page_never_holds_more_than_a_message_does() {
    let mut bench = Bench::new(Settings {
        places_max: 5_000,
        ..settings()
    });
    for account in 1..=1_001 {
        bench.session(account, account as u64);
    }
    let (accounts, last) = bench.page(None, u32::MAX);
    assert_eq!((accounts.len(), last), (SESSIONS_PAGE_MAX as usize, false));
}

#[test]
fn a_kick_closes_the_current_session_alone_and_leaves_the_way_open() {
    let mut bench = Bench::new(settings());
    bench.session(1, 1);
    let current = bench.session(1, 2);
    let kick = |account| Input::Kick {
        link: LINK,
        request: 4,
        kick: Kick {
            account_id: AccountId(account),
        },
    };
    bench.effects.clear();
    bench.apply(kick(1));
    let effects: Vec<_> = bench.effects.drain(..).collect();
    let [
        Effect::EndSession {
            session,
            reason: CloseReason::Replaced,
            ..
        },
        Effect::Answer {
            request: 4,
            message: Message::Kicked(kicked),
            ..
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(*session, current.session);
    assert_eq!(kicked.epoch, Some(Epoch::at_ms(2)));
    assert_eq!(bench.core.counters().of(Counter::Kicked), 1);
    bench.apply(Input::SessionEnded {
        account_id: AccountId(1),
        epoch: Epoch::at_ms(2),
    });
    assert_eq!(bench.page(None, 9), (vec![], true));
    bench.session(1, 3);

    let answer = bench.asked(kick(2));
    let Effect::Answer {
        message: Message::Kicked(Kicked { epoch: None }),
        ..
    } = answer
    else {
        panic!("{answer:?}");
    };
    assert_eq!(bench.core.counters().of(Counter::Kicked), 1);
}

#[test]
fn a_session_is_shown_by_its_shard() {
    let mut bench = Bench::new(settings());
    let seed = bench.session(1, 1);
    let check = |account| Input::SessionCheck {
        link: LINK,
        request: 5,
        check: SessionCheck {
            account_id: AccountId(account),
        },
    };
    let effect = bench.asked(check(1));
    let Effect::ShowSession {
        session,
        request: 5,
        ..
    } = effect
    else {
        panic!("{effect:?}");
    };
    assert_eq!(session, seed.session);
    let effect = bench.asked(check(2));
    let Effect::Answer {
        message: Message::SessionLooked(SessionLooked { look: None }),
        ..
    } = effect
    else {
        panic!("{effect:?}");
    };
}
