//! The shrinker against runs that are no runs: conditions on plans.

use std::cell::Cell;

use crate::plan::{Class, Overrides, Plan};
use crate::run::Failure;

use super::*;

fn plan() -> Plan {
    let all = <Class as clap::ValueEnum>::value_variants();
    let mut plan = Plan::draw(
        7,
        &Overrides {
            devices: Some(50),
            faults_ms: Some(200_000),
            classes: Some(all.to_vec()),
        },
    );
    plan.logic_servers = 3;
    plan.shards = 3;
    plan.places_max = 30;
    plan
}

fn failure(promise: &str, at_ms: u64) -> Failure {
    Failure {
        promise: promise.into(),
        what: format!("{promise}: made up"),
        at_ms,
        device: None,
        backtrace: None,
    }
}

fn has(plan: &Plan, class: Class) -> bool {
    plan.faults.classes().any(|other| other == class)
}

/// Shrinks under a condition, which the plan at the beginning meets.
fn shrunk(limits: Limits, at_ms: u64, fails: impl Fn(&Plan) -> Option<&'static str>) -> Shrunk {
    let first = plan();
    assert_eq!(fails(&first), Some("P1"));
    shrink(
        first,
        failure("P1", at_ms),
        limits,
        &mut |plan| Some(fails(plan).map(|promise| failure(promise, at_ms))),
        &mut |_, _| {},
    )
}

#[test]
fn only_what_the_failure_needs_is_left() {
    let fails = |plan: &Plan| {
        let is_it = has(plan, Class::Reset)
            && has(plan, Class::Poison)
            && plan.devices >= 3
            && plan.faults_ms >= 17_000
            && plan.logic_servers >= 2;
        is_it.then_some("P1")
    };
    let shrunk = shrunk(Limits::default(), 150_000, fails);
    assert!(shrunk.is_smallest);
    let classes: Vec<_> = shrunk.plan.faults.classes().collect();
    assert_eq!(classes, [Class::Reset, Class::Poison]);
    assert_eq!(shrunk.plan.devices, 3);
    assert_eq!(shrunk.plan.faults_ms, 17_000);
    assert_eq!((shrunk.plan.logic_servers, shrunk.plan.shards), (2, 1));
    assert!(u32::from(shrunk.plan.logic_servers) * shrunk.plan.places_max >= 3);
    assert_eq!(shrunk.plan.seed, plan().seed, "the seed was good enough");
}

#[test]
fn a_failure_without_faults_loses_all_of_them_at_once() {
    let first = Cell::new(None);
    let fails = |plan: &Plan| {
        if plan.faults.classes().next().is_none() && first.get().is_none() {
            first.set(Some(()));
        }
        Some("P1")
    };
    let shrunk = shrunk(Limits::default(), 900_000, fails);
    assert_eq!(shrunk.plan.faults.classes().count(), 0);
    assert_eq!((shrunk.plan.devices, shrunk.plan.faults_ms), (1, 1_000));
    assert!(shrunk.tries < 10, "{} tries", shrunk.tries);
    assert!(first.get().is_some());
}

#[test]
fn what_comes_after_the_failure_goes_first() {
    let mut tried = vec![];
    let first = plan();
    shrink(
        first,
        failure("P1", 41_234),
        Limits {
            tries_max: 1,
            seeds_max: 1,
        },
        &mut |plan| {
            tried.push(plan.faults_ms);
            Some(Some(failure("P1", 41_234)))
        },
        &mut |_, _| {},
    );
    assert_eq!(tried, [41_235]);
}

#[test]
fn a_candidate_gets_several_seeds() {
    // One seed in four breaks it, and never that of the plan.
    let fails = |plan: &Plan| {
        let is_lucky = plan.seed.is_multiple_of(4) || plan.faults.classes().count() > 6;
        (is_lucky && has(plan, Class::KillConn)).then_some("P1")
    };
    let generous = Limits {
        seeds_max: 40,
        ..Limits::default()
    };
    let left = shrunk(generous, 900_000, fails).plan;
    assert_eq!(left.faults.classes().collect::<Vec<_>>(), [Class::KillConn]);
    assert!(left.seed.is_multiple_of(4));
}

#[test]
fn a_few_devices_get_the_time_that_they_need() {
    // So many seconds of devices make the failure likely: 50 need two seconds, one needs 100.
    let fails_at = |plan: &Plan| 100_000 / u64::from(plan.devices);
    let first = plan();
    let mut attempt = |plan: &Plan| {
        let at_ms = fails_at(plan);
        Some((at_ms < plan.faults_ms).then(|| failure("P1", at_ms)))
    };
    let limits = Limits::default();
    let shrunk = shrink(
        first,
        failure("P1", 2_000),
        limits,
        &mut attempt,
        &mut |_, _| {},
    );
    assert_eq!((shrunk.plan.devices, shrunk.plan.faults_ms), (1, 100_001));
    assert_eq!(shrunk.failure.at_ms, 100_000);
}

#[test]
fn another_promise_is_another_case_and_is_named_once() {
    let fails = |plan: &Plan| match has(plan, Class::Silence) {
        true => Some("P1"),
        false => Some("P9"),
    };
    let shrunk = shrunk(Limits::default(), 900_000, fails);
    assert!(has(&shrunk.plan, Class::Silence));
    assert_eq!(shrunk.failure.promise, "P1");
    let others: Vec<_> = shrunk
        .others
        .iter()
        .map(|(_, other)| &other.promise)
        .collect();
    assert_eq!(others, ["P9"]);
}

#[test]
fn tries_are_bounded() {
    let fails = |plan: &Plan| (plan.devices == 50).then_some("P1");
    let limits = Limits {
        tries_max: 5,
        seeds_max: 2,
    };
    let shrunk = shrunk(limits, 900_000, fails);
    assert_eq!(shrunk.tries, 5);
    assert!(!shrunk.is_smallest);
}

#[test]
fn it_stops_when_there_is_no_time_and_keeps_what_it_has() {
    let mut left = 3;
    let shrunk = shrink(
        plan(),
        failure("P1", 900_000),
        Limits::default(),
        &mut |plan| {
            left -= 1;
            (left >= 0).then(|| has(plan, Class::Link).then(|| failure("P1", 1)))
        },
        &mut |_, _| {},
    );
    assert!(!shrunk.is_smallest);
    assert!(has(&shrunk.plan, Class::Link));
}

#[test]
fn fewer_devices_and_servers_still_have_places() {
    let mut smallest = plan();
    smallest.places_max = 17;
    for devices in [1, 2, 7, 49] {
        let fewer = with_devices(&smallest, devices);
        assert!(u32::from(fewer.logic_servers) * fewer.places_max >= devices);
    }
    smallest.logic_servers = 1;
    assert_eq!(with_room(smallest).places_max, 50);
}
