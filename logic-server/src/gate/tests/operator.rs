//! Pure. What operators see of the sessions, and close.

use common::link::Asker;
use common::link::message::{CommandAnswer, Kicked, Order, SESSIONS_PAGE_MAX, SessionLooked};

use super::bench::*;
use crate::ask::Question;
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

/// Unopened, whatever it is.
#[test]
fn a_question_goes_to_the_current_session_or_is_answered() {
    let order = Order {
        command_id: 4,
        deadline_ms: 0,
        code: 1,
        payload: vec![],
    };
    let unattached: [(Question, Message); 3] = [
        (Question::Command(order), CommandAnswer::NotAttached.into()),
        (Question::Look, SessionLooked { look: None }.into()),
        (Question::Kick, Kicked { epoch: None }.into()),
    ];
    for (question, answer) in unattached {
        let mut bench = Bench::new(settings());
        bench.session(1, 1);
        let current = bench.session(1, 2);
        let ask = |account| Ask {
            asker: Asker {
                link: LINK,
                request: 8,
                until_ms: 500,
            },
            account_id: AccountId(account),
            question: question.clone(),
        };
        let Effect::Ask {
            session,
            ask: carried,
            ..
        } = bench.asked(Input::Ask(ask(1)))
        else {
            panic!("it goes to the shard");
        };
        assert_eq!((session, carried), (current.session, ask(1)));

        let Effect::Answer {
            link: LINK,
            request: 8,
            message,
        } = bench.asked(Input::Ask(ask(2)))
        else {
            panic!("nobody is there");
        };
        assert_eq!(message, answer);
        let commands = u64::from(matches!(question, Question::Command(_)));
        assert_eq!(bench.counted(Counter::CommandNotAttached), commands);
    }
}
