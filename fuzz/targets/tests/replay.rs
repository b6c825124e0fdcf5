//! The stored corpus and every finding of the past, run through their targets on stable Rust.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;

use balancer::counters::Counter as BalancerCounter;
use common::link::fuzz as link;
use conn_server::counters::Counter as ConnCounter;
use fuzz_targets::{TARGETS, gate, login, route, shard, writer};
use logic_server::counters::Counter as LogicCounter;

use support::{inputs, root, survives};

#[test]
fn every_stored_input_passes() {
    let mut failed = vec![];
    for (name, target) in TARGETS {
        let corpus = inputs("corpus", name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        let regressions = inputs("regressions", name);
        let stored = corpus.into_iter().chain(regressions);
        let fails = stored.filter(|(_, bytes)| !survives(*target, bytes));
        failed.extend(fails.map(|(path, _)| path));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A file in a folder that is no target's would never be run.
#[test]
fn every_folder_is_a_targets() {
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len());
    for kind in ["corpus", "regressions"] {
        for entry in fs::read_dir(root().join(kind)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_dir() {
                let name = entry.file_name().into_string().unwrap();
                assert!(names.contains(&name), "{kind}/{name}");
            }
        }
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in &names {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is no binary"
        );
        let body = fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert_eq!(
            body.lines().count(),
            3,
            "{name}: the body belongs into the library"
        );
    }
}

/// A target that panics is a failure here, and one that does not is none.
#[test]
fn a_replay_can_fail() {
    let breaks = |data: &[u8]| assert_ne!(data, b"bad");
    assert!(survives(breaks, b"good"));
    assert!(!survives(breaks, b"bad"));
}

/// What a real dialler says, which no mutation finds, gets as far as it can.
#[test]
fn a_dialler_of_the_cluster_is_heard() {
    let said = link::dial();
    assert!(link::first_flight(&said));
    for at in [0, 4, 8, 16, said.len() - 1] {
        let mut altered = said.clone();
        altered[at] ^= 1;
        assert!(!link::first_flight(&altered), "byte {at}");
    }
    assert_ne!(said, link::dial(), "every time others");
}

/// The corpus of a target reaches everything that its core counts, but for what no input of the
/// target can bring about: a corpus that has withered is no test.
#[test]
fn the_corpus_reaches_every_counter() {
    use LogicCounter as L;
    let of_gate: &[_] = &[
        L::Accepted,
        L::WithoutGrant,
        L::PendingShed,
        L::PendingDisconnected,
        L::ClosedAttachTimeout,
        L::Attached,
        L::AttachDraining,
        L::NotAdmittedTicket,
        L::NotAdmittedSource,
        L::NotAdmittedProof,
        L::NotAdmittedEpoch,
        L::NotAdmittedResume,
        L::Granted,
        L::GrantFull,
        L::GrantDraining,
        L::GrantExpired,
        L::GrantDropped,
        L::GrantSuperseded,
        L::GrantRevoked,
        L::FrameMagic,
        L::FrameVersion,
        L::FrameLength,
        L::FrameCrc,
        L::FrameBody,
        L::FrameState,
        L::FrameEarly,
        L::ClosedProtocolError,
        L::CommandNotAttached,
    ];
    let of_shard: &[_] = &[
        L::AttachDraining,
        L::FrameMagic,
        L::FrameVersion,
        L::FrameLength,
        L::FrameCrc,
        L::FrameBody,
        L::FrameState,
        L::FrameUnknown,
        L::Disconnected,
        L::ClosedProtocolError,
        L::ClosedIdle,
        L::ClosedReplaced,
        L::ClosedDisabled,
        L::ClosedShutdown,
        L::ClosedSlowReader,
        L::Heartbeats,
        L::Telemetry,
        L::TelemetryStored,
        L::TelemetryMalformed,
        L::TelemetryOverloaded,
        L::TelemetryBeyondWindow,
        L::TelemetryAtShutdown,
        L::AckDropped,
        L::Records,
        L::RecordsFlawed,
        L::CommandSent,
        L::CommandReplied,
        L::CommandReplyIgnored,
        L::CommandNotAttached,
        L::CommandBusy,
        L::CommandExpired,
        L::CommandTooLarge,
        L::CommandLost,
    ];
    let of_writer: &[_] = &[
        L::BatchStored,
        L::BatchOverloaded,
        L::WriteFailed,
        L::WriteRefused,
        L::RecordsStored,
        L::RecordsRefused,
        L::RecordsRepeated,
        L::RecordsContradicting,
        L::PresenceDropped,
    ];
    for (name, run, reachable) in [
        ("gate", gate::run as fn(&[u8]) -> _, of_gate),
        ("shard", shard::run, of_shard),
        ("writer", writer::run, of_writer),
    ] {
        let counted: Vec<_> = inputs("corpus", name)
            .iter()
            .map(|(_, bytes)| run(bytes))
            .collect();
        for counter in reachable {
            let is_reached = counted.iter().any(|it| it.of(*counter) > 0);
            assert!(is_reached, "{name}: {}", counter.name());
        }
    }

    // The writer of the accounts table is no core; of operators the target sends commands alone, and
    // the simulation the rest.
    let counted: Vec<_> = inputs("corpus", "login")
        .iter()
        .map(|(_, bytes)| login::run(bytes))
        .collect();
    let elsewhere = [
        ConnCounter::LastLoginsShed,
        ConnCounter::Kicks,
        ConnCounter::Questions,
    ];
    for counter in ConnCounter::ALL.iter().filter(|it| !elsewhere.contains(it)) {
        let is_reached = counted.iter().any(|it| it.of(*counter) > 0);
        assert!(is_reached, "login: {}", counter.name());
    }
    let counted: Vec<_> = inputs("corpus", "route")
        .iter()
        .map(|(_, bytes)| route::run(bytes))
        .collect();
    // A conn server's `ok` has a proof and a host, which the target's do not.
    let elsewhere = [BalancerCounter::Ok, BalancerCounter::ClockSkew];
    for counter in BalancerCounter::ALL
        .iter()
        .filter(|it| !elsewhere.contains(it))
    {
        let is_reached = counted.iter().any(|it| it.of(*counter) > 0);
        assert!(is_reached, "route: {}", counter.name());
    }
}
