#![allow(clippy::unwrap_used)]

use common::secret::Secret;

use super::super::seal::open;
use super::*;
use crate::testing::{Held, on_both, rows, run};

const MASTER: MasterKey = Secret::new([1; 32]);
const KEY: DeviceKey = Secret::new([2; 32]);
const NEW_KEY: DeviceKey = Secret::new([3; 32]);
const NOW: i64 = 1_800_000_000_000;

on_both!(
    every_change_stands_beside_its_row_for_the_followers,
    no_version_comes_twice_in_a_table_that_went_back,
    an_account_that_is_not_there_cannot_be_changed,
    an_account_that_was_removed_comes_back_as_another,
    many_are_added_whole_or_not_at_all,
    a_live_session_is_shown,
);

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

/// What `account_changes` holds: (account, change, version).
async fn changes(database: &Database) -> Vec<(String, String, i64)> {
    rows(
        database,
        "SELECT name, change, version FROM account_changes ORDER BY id",
    )
    .await
}

async fn key_of(database: &Database, account: &str) -> DeviceKey {
    let sql = format!("SELECT sealed_key FROM accounts WHERE name = '{account}'");
    let sealed: Vec<(Vec<u8>,)> = rows(database, &sql).await;
    open(&MASTER, &name(account), &sealed[0].0).unwrap()
}

async fn every_change_stands_beside_its_row_for_the_followers((test, database): (Held, Database)) {
    let accounts = Accounts::new(test.owner.clone(), MASTER);
    let account = name("a");
    accounts.add(&account, &KEY, NOW).await.unwrap();
    assert!(accounts.disable(&account, NOW).await.unwrap());
    assert!(!accounts.disable(&account, NOW).await.unwrap(), "it was");
    assert!(accounts.enable(&account, NOW).await.unwrap());
    assert!(!accounts.enable(&account, NOW).await.unwrap(), "it was");
    accounts.rotate_key(&account, &NEW_KEY, NOW).await.unwrap();
    assert_eq!(key_of(&database, "a").await, NEW_KEY);
    let (described, _) = accounts.show(&account).await.unwrap();
    let first = NOW / 1_000;
    assert_eq!((described.version, described.enabled), (first + 3, true));
    accounts.remove(&account, NOW).await.unwrap();
    let told = changes(&database).await;
    let told: Vec<_> = told
        .iter()
        .map(|(name, change, version)| (&name[..], &change[..], *version))
        .collect();
    assert_eq!(
        told,
        [
            ("a", "added", first),
            ("a", "disabled", first + 1),
            ("a", "enabled", first + 2),
            ("a", "key_rotated", first + 3),
            ("a", "removed", first + 4),
        ]
    );
}

/// What a restored table forgot is never told from what comes next by counting on from where it stands.
async fn no_version_comes_twice_in_a_table_that_went_back((test, _database): (Held, Database)) {
    let accounts = Accounts::new(test.owner.clone(), MASTER);
    let account = name("a");
    accounts.add(&account, &KEY, NOW).await.unwrap();
    let version = async || accounts.show(&account).await.unwrap().0.version;
    let backed_up = version().await;
    accounts.disable(&account, NOW + 60_000).await.unwrap();
    let forgotten = version().await;
    let restore = format!("UPDATE accounts SET enabled = true, version = {backed_up}");
    run(&test.owner, &restore).await;
    accounts
        .rotate_key(&account, &NEW_KEY, NOW + 120_000)
        .await
        .unwrap();
    assert!(version().await > forgotten);
    accounts.remove(&account, NOW + 120_000).await.unwrap();
    accounts.add(&account, &KEY, NOW + 180_000).await.unwrap();
    assert!(version().await > forgotten, "of another account, maybe");
}

async fn an_account_that_is_not_there_cannot_be_changed((test, database): (Held, Database)) {
    let accounts = Accounts::new(test.owner.clone(), MASTER);
    let account = name("a");
    let unknown = |error| matches!(error, AccountsError::Unknown(named) if named == account);
    assert!(unknown(accounts.show(&account).await.unwrap_err()));
    assert!(unknown(accounts.enable(&account, NOW).await.unwrap_err()));
    assert!(unknown(accounts.disable(&account, NOW).await.unwrap_err()));
    assert!(unknown(accounts.remove(&account, NOW).await.unwrap_err()));
    let rotated = accounts.rotate_key(&account, &KEY, NOW).await;
    assert!(unknown(rotated.unwrap_err()));
    assert_eq!(changes(&database).await, []);
}

async fn an_account_that_was_removed_comes_back_as_another((test, _): (Held, Database)) {
    let accounts = Accounts::new(test.owner.clone(), MASTER);
    let account = name("a");
    accounts.add(&account, &KEY, NOW).await.unwrap();
    let (before, _) = accounts.show(&account).await.unwrap();
    accounts.remove(&account, NOW).await.unwrap();
    accounts.add(&account, &KEY, NOW).await.unwrap();
    let (after, _) = accounts.show(&account).await.unwrap();
    assert!(after.id > before.id, "ids are never used again");
}

async fn many_are_added_whole_or_not_at_all((test, database): (Held, Database)) {
    let accounts = Accounts::new(test.owner.clone(), MASTER);
    let fleet = |from: u32, to: u32| -> Vec<_> {
        (from..to)
            .map(|n| (name(&format!("truck-{n:06}")), KEY))
            .collect()
    };
    accounts.add_many(&fleet(1, 2_502), NOW).await.unwrap();
    assert_eq!(changes(&database).await.len(), 2_501);
    let exists = |error, account: &str| matches!(error, AccountsError::Exists(named) if named.as_str() == account);
    let refused = accounts.add_many(&fleet(2_500, 4_000), NOW).await;
    assert!(exists(refused.unwrap_err(), "truck-002500"));
    let mut twice = fleet(5_000, 5_010);
    twice.push(twice[3].clone());
    let refused = accounts.add_many(&twice, NOW).await;
    assert!(exists(refused.unwrap_err(), "truck-005003"));
    assert_eq!(changes(&database).await.len(), 2_501);

    let mut listed = vec![];
    let mut after = String::new();
    loop {
        let page = accounts.list(&after, 1_000).await.unwrap();
        let Some(last) = page.last() else { break };
        after.clone_from(&last.name);
        listed.extend(page.into_iter().map(|account| account.name));
    }
    assert_eq!(listed.len(), 2_501);
    assert!(listed.is_sorted());
}

async fn a_live_session_is_shown((test, database): (Held, Database)) {
    let accounts = Accounts::new(test.owner.clone(), MASTER);
    let account = name("a");
    accounts.add(&account, &KEY, NOW).await.unwrap();
    let (described, online) = accounts.show(&account).await.unwrap();
    assert_eq!(online, None);
    for (epoch, ended_at) in [(1, Some(NOW)), (2, None)] {
        let time = |ms: i64| match database {
            Database::Sqlite(_) => ms.to_string(),
            Database::Postgres(_) => format!("to_timestamp({ms} / 1000.0)"),
        };
        let id = described.id;
        let attached = time(NOW + epoch);
        let ended = ended_at.map_or("NULL".into(), time);
        let sql = format!(
            "INSERT INTO sessions (account_id, epoch, node, source, attached_at, ended_at) \
             VALUES ({id}, {epoch}, 'logic-1', '10.0.0.1', {attached}, {ended})"
        );
        run(&test.owner, &sql).await;
    }
    let (_, online) = accounts.show(&account).await.unwrap();
    let online = online.unwrap();
    assert_eq!(
        (&online.node[..], &online.source[..], online.attached_at_ms),
        ("logic-1", "10.0.0.1", NOW + 2)
    );
}
