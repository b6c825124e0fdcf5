//! Pure. What conn servers are told.

use common::link::message::{ADOPT_PAGE_MAX, Adopt, Attached, Ended, Held, LogicInfo};

use super::bench::*;
use crate::gate::*;

impl Bench {
    /// Ends the turn and takes what links were told: `None` is all of them.
    fn told(&mut self) -> Vec<(Option<LinkId>, Message)> {
        self.apply(Input::Tick);
        let told = self.effects.drain(..);
        told.filter_map(|effect| match effect {
            Effect::Notice { link, message } => Some((Some(link), message)),
            Effect::Broadcast { message } => Some((None, message)),
            _ => None,
        })
        .collect()
    }
}

fn held(account: i64, number: u64) -> Held {
    Held {
        account_id: AccountId(account),
        epoch: Epoch::at_ms(number),
        account_version: 1,
    }
}

fn page(sessions: Vec<Held>, grants: Vec<Held>, last: bool) -> (Option<LinkId>, Message) {
    let page = Adopt {
        sessions,
        grants,
        last,
    };
    (Some(LINK), page.into())
}

#[test]
fn a_new_link_is_told_who_this_is_and_what_it_holds() {
    let advertise = vec!["192.0.2.9:20000".parse().unwrap()];
    let mut bench = Bench::new(Settings {
        advertise: advertise.clone(),
        ..settings()
    });
    bench.session(1, 1);
    bench.grant(&grant(1, 2));
    bench.grant(&grant(2, 3));
    bench.apply(Input::LinkUp { link: LINK });
    let load = bench.core.load();
    assert_eq!(load.places_used, 2);
    let info = LogicInfo { advertise, load };
    let expected = [
        (Some(LINK), info.into()),
        page(vec![held(1, 1)], vec![held(1, 2), held(2, 3)], true),
        (None, load.into()),
    ];
    assert_eq!(bench.told(), expected);
    assert_eq!(bench.told(), []);
}

#[test]
fn many_sessions_are_told_page_by_page_and_what_happens_meanwhile_behind_its_page() {
    let mut bench = Bench::new(Settings {
        places_max: 5_000,
        ..settings()
    });
    let mut seeds = vec![];
    for account in 1..=2_500 {
        seeds.push(bench.session(account, account as u64));
    }
    bench.apply(Input::LinkUp { link: LINK });
    let page_of = |bench: &mut Bench| {
        let told = bench.told();
        let adopt = told.iter().find_map(|(link, message)| match message {
            Message::Adopt(adopt) if *link == Some(LINK) => Some(adopt.clone()),
            _ => None,
        });
        (adopt.unwrap(), told)
    };
    let (first, _) = page_of(&mut bench);
    assert_eq!(first.sessions.len(), ADOPT_PAGE_MAX);
    assert!(!first.last);
    assert_eq!(bench.core.next_deadline(), Some(0), "there is more");

    // One ends that was told, and one that was not.
    bench.session_ended(&seeds[0]);
    bench.session_ended(&seeds[1_500]);
    let (second, told) = page_of(&mut bench);
    let ended = Ended {
        sessions: vec![
            (AccountId(1), Epoch::at_ms(1)),
            (AccountId(1_501), Epoch::at_ms(1_501)),
        ],
        grants: vec![],
    };
    assert!(told.contains(&(None, ended.into())));
    let (third, _) = page_of(&mut bench);
    assert!(third.last && !second.last);

    let mut known: Vec<_> = [first, second, third]
        .iter()
        .flat_map(|page| page.sessions.clone())
        .map(|held| held.account_id.0)
        .collect();
    known.retain(|account| *account != 1);
    let is_live = |account: &i64| *account != 1 && *account != 1_501;
    let live: Vec<_> = (1..=2_500).filter(is_live).collect();
    assert_eq!(known, live);
}

#[test]
fn what_begins_and_ends_is_told_once_a_turn() {
    let mut bench = Bench::new(settings());
    bench.apply(Input::LinkUp { link: LINK });
    bench.told();
    let old = bench.session(1, 1);
    bench.session(1, 2);
    bench.session_ended(&old);
    let over = bench.session(2, 3);
    bench.session_ended(&over);
    bench.grant(&grant(3, 4));
    bench.now.ms += 30_000;
    let told = bench.told();
    let attached = Attached {
        sessions: vec![held(1, 1), held(1, 2), held(2, 3)],
    };
    let ended_sessions = Ended {
        sessions: vec![(AccountId(2), Epoch::at_ms(3))],
        grants: vec![],
    };
    let ended_grants = Ended {
        sessions: vec![],
        grants: vec![(AccountId(3), Epoch::at_ms(4))],
    };
    let expected = [
        (None, attached.into()),
        (None, ended_sessions.into()),
        (None, ended_grants.into()),
        (None, bench.core.load().into()),
    ];
    assert_eq!(told, expected);
}

#[test]
fn load_is_told_on_change_and_each_second_but_not_for_every_change() {
    let mut bench = Bench::new(settings());
    bench.apply(Input::LinkUp { link: LINK });
    bench.told();
    let load = |used, draining| {
        let load = LogicLoad {
            places_used: used,
            places_max: 10,
            draining,
        };
        (None, load.into())
    };
    bench.grant(&grant(1, 1));
    bench.grant(&grant(2, 2));
    assert_eq!(bench.told(), []);
    bench.now.ms += 50;
    assert_eq!(bench.told(), [load(2, false)]);
    assert_eq!(bench.core.next_deadline(), Some(bench.now.ms + 1_000));
    bench.now.ms += 999;
    assert_eq!(bench.told(), []);
    bench.now.ms += 1;
    assert_eq!(bench.told(), [load(2, false)]);
    bench.apply(Input::Shutdown);
    assert_eq!(bench.told(), [load(2, true)], "at once");
}

#[test]
fn nobody_is_told_when_nobody_listens() {
    let mut bench = Bench::new(settings());
    bench.apply(Input::LinkUp { link: LINK });
    bench.apply(Input::LinkDown { link: LINK });
    bench.effects.clear();
    bench.session(1, 1);
    bench.now.ms += 5_000;
    assert_eq!(bench.told(), []);
    assert_eq!(bench.core.next_deadline(), None);
}

#[test]
fn a_link_hears_nothing_of_what_was_before_it() {
    let mut bench = Bench::new(settings());
    bench.apply(Input::LinkUp { link: LINK });
    bench.told();
    let over = bench.session(1, 1);
    bench.apply(Input::LinkDown { link: LINK });
    assert_eq!(bench.core.next_deadline(), None);
    bench.session_ended(&over);
    bench.apply(Input::LinkUp { link: LINK });
    let told = bench.told();
    assert!(told.contains(&page(vec![], vec![], true)));
    let told_of_sessions = told
        .iter()
        .any(|(_, message)| matches!(message, Message::Attached(_) | Message::Ended(_)));
    assert!(!told_of_sessions, "{told:?}");
}
