//! Pure. Grants, places, and what ends them.

use common::link::message::{GrantVerdict, RevokeReason};

use super::bench::*;
use crate::gate::*;

#[test]
fn a_place_is_in_use_by_an_account_once_and_is_refused_when_there_is_none() {
    let mut bench = Bench::new(Settings {
        places_max: 2,
        ..settings()
    });
    let session = bench.session(1, 1);
    assert_eq!(bench.grant(&grant(1, 2)), GrantVerdict::Granted);
    assert_eq!(bench.grant(&grant(2, 3)), GrantVerdict::Granted);
    assert_eq!(bench.grant(&grant(2, 4)), GrantVerdict::Granted);
    assert_eq!(bench.places_used(), 2);
    assert_eq!(bench.grant(&grant(3, 5)), GrantVerdict::Full);
    assert_eq!(bench.counted(Counter::GrantFull), 1);
    // Who has a place may always come back to it.
    assert_eq!(bench.grant(&grant(1, 6)), GrantVerdict::Granted);

    bench.session_ended(&session);
    assert_eq!(bench.places_used(), 2, "its grants hold the place");
    bench.pass(30_000);
    assert_eq!(bench.places_used(), 0);
    assert_eq!(bench.grant(&grant(3, 5)), GrantVerdict::Granted);
}

/// Whichever came first: several conn servers may grant at once.
#[test]
fn a_fifth_open_grant_drops_that_of_the_lowest_epoch() {
    let mut bench = Bench::new(settings());
    for number in [2, 1, 5, 4, 3] {
        bench.grant(&grant(1, number));
    }
    assert_eq!(bench.counted(Counter::GrantDropped), 1);
    assert_eq!(bench.attach(&grant(1, 1)).unwrap_err(), not_admitted(7));
    assert!(bench.attach(&grant(1, 2)).is_ok());
    assert_eq!(bench.places_used(), 1);
    bench.pass(30_000);
    assert_eq!(bench.places_used(), 1, "the session");
}

#[test]
fn whoever_asks_learns_whether_a_grant_is_still_open() {
    let mut bench = Bench::new(settings());
    let granted = grant(1, 1);
    let check = |bench: &mut Bench, account_id, epoch| {
        let check = GrantCheck { account_id, epoch };
        bench.apply(Input::GrantCheck {
            link: LINK,
            request: 77,
            check,
        });
        match bench.effects.pop() {
            Some(Effect::Answer {
                link: LINK,
                request: 77,
                message: Message::GrantCheckAnswer(answer),
            }) => answer.is_open,
            other => panic!("{other:?}"),
        }
    };
    let (account, other) = (granted.account_id, AccountId(2));
    assert!(!check(&mut bench, account, granted.epoch));
    bench.grant(&granted);
    bench.grant(&grant(2, 2));
    assert!(check(&mut bench, account, granted.epoch));
    assert!(!check(&mut bench, other, granted.epoch));
    assert!(bench.attach(&granted).is_ok());
    assert!(!check(&mut bench, account, granted.epoch), "used up");
    let second = grant(2, 2).epoch;
    assert!(check(&mut bench, other, second));
    bench.pass(30_000);
    assert!(!check(&mut bench, other, second), "expired");
}

#[test]
fn a_grant_that_is_repeated_counts_once_and_lasts_longer() {
    let mut bench = Bench::new(settings());
    let granted = grant(1, 1);
    bench.grant(&granted);
    bench.pass(20_000);
    bench.grant(&granted);
    bench.pass(20_000);
    assert_eq!(bench.places_used(), 1);
    assert!(bench.attach(&granted).is_ok());
    bench.pass(60_000);
    assert_eq!(bench.places_used(), 1);
    assert_eq!(bench.counted(Counter::GrantExpired), 0);
}

#[test]
fn a_revocation_ends_what_was_granted_under_an_older_version() {
    for (why, reason) in [
        (RevokeReason::Disabled, CloseReason::Disabled),
        (RevokeReason::KeyRotated, CloseReason::Replaced),
    ] {
        let mut bench = Bench::new(settings());
        let mut newer = grant(1, 3);
        newer.account_version = 2;
        let session = bench.session(1, 1);
        bench.grant(&grant(1, 2));
        bench.grant(&newer);
        let revoke = |below_version| {
            Input::Revoke(Revoke {
                account_id: AccountId(1),
                below_version,
                why,
            })
        };
        bench.apply(revoke(1));
        assert_eq!(bench.endings(), []);
        bench.apply(revoke(2));
        assert_eq!(bench.endings(), [(session.session, reason)]);
        assert_eq!(bench.counted(Counter::GrantRevoked), 1);
        bench.session_ended(&session);
        assert_eq!(bench.places_used(), 1);
        assert!(bench.attach(&newer).is_ok());

        bench.apply(revoke(u32::MAX));
        assert_eq!(bench.endings().len(), 1, "the account was removed");
    }
}

/// Versions go back with a database that is restored.
#[test]
fn a_revocation_is_no_bar_to_what_is_granted_after_it() {
    let mut bench = Bench::new(settings());
    bench.apply(Input::Revoke(Revoke {
        account_id: AccountId(1),
        below_version: 9,
        why: RevokeReason::KeyRotated,
    }));
    let mut lower = grant(1, 3);
    lower.account_version = 2;
    bench.grant(&lower);
    assert!(bench.attach(&lower).is_ok());
}

#[test]
fn an_end_closes_an_older_session_and_no_other() {
    let mut bench = Bench::new(settings());
    let session = bench.session(1, 5);
    let end = |account, below| {
        Input::End(End {
            account_id: AccountId(account),
            below: Epoch::at_ms(below),
        })
    };
    bench.apply(end(1, 5));
    bench.apply(end(2, 9));
    assert_eq!(bench.endings(), []);
    bench.apply(end(1, 6));
    assert_eq!(bench.endings(), [(session.session, CloseReason::Replaced)]);
    assert_eq!(bench.places_used(), 1, "until the shard says so");
}

#[test]
fn nothing_of_a_ticket_or_key_is_printed() {
    let mut bench = Bench::new(settings());
    let seed = bench.session(1, 1);
    assert_eq!(format!("{:?}", bench.core), "Core { .. }");
    let printed = format!("{seed:?}");
    assert!(
        printed.contains("session_key: ***, ticket: ***"),
        "{printed}"
    );
}
