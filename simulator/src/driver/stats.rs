//! Pure. What a fleet did, counted from what its devices tell.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use protocols::rcu::code::{AckStatus, AttachStatus, CommandStatus, LoginStatus};

use crate::device::{Event, Fault};

/// Longer ones count as this long.
const LATENCY_MS_MAX: u64 = 120_000;

/// Counts are since the start; a rate is the difference of two.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Since the start.
    pub elapsed: Duration,
    pub devices: u32,
    /// Devices that were switched on.
    pub started: u32,
    /// Now.
    pub attached: u32,
    /// Now on their way to a session.
    pub connecting: u32,
    /// Records that are not acknowledged now.
    pub unacknowledged: u64,

    /// Right LoginReplies by status.
    pub logins: BTreeMap<LoginStatus, u64>,
    /// Addresses that gave no right LoginReply.
    pub login_faults: BTreeMap<Fault, u64>,
    /// Right AttachReplies by status.
    pub attaches: BTreeMap<AttachStatus, u64>,
    /// Connections that gave no right AttachReply.
    pub attach_faults: BTreeMap<Fault, u64>,
    /// Ends of sessions; `Fault::Closed` with its reason.
    pub ends: BTreeMap<Fault, u64>,

    /// Records that were sent at least once.
    pub records_sent: u64,
    pub records_acknowledged: u64,
    /// Records that were called malformed.
    pub records_malformed: u64,
    /// Telemetry frames that were answered `overloaded`.
    pub frames_overloaded: u64,
    /// Measurements that became no records, because a device's memory was full.
    pub not_recorded: u64,
    /// Final replies to commands by status, repeats among them.
    pub commands: BTreeMap<CommandStatus, u64>,
    /// Redirects that were obeyed.
    pub redirects: u64,

    /// From connecting to LoginReply, whatever it says.
    pub login_ms: Percentiles,
    /// From Telemetry to its acknowledgement, whatever it says.
    pub ack_ms: Percentiles,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    pub count: u64,
    pub p50_ms: u64,
    pub p99_ms: u64,
    pub max_ms: u64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50_ms: histogram.value_at_quantile(0.5),
            p99_ms: histogram.value_at_quantile(0.99),
            max_ms: histogram.max(),
        }
    }
}

impl Stats {
    /// Logins that ended in a ticket.
    pub fn logins_ok(&self) -> u64 {
        self.logins.get(&LoginStatus::Ok).copied().unwrap_or(0)
    }
}

#[derive(Debug)]
pub(super) struct Tally {
    counts: Stats,
    login_ms: Histogram<u64>,
    ack_ms: Histogram<u64>,
}

impl Tally {
    pub(super) fn new(devices: u32) -> Self {
        let histogram =
            || Histogram::new_with_max(LATENCY_MS_MAX, 2).expect("two digits up to two minutes");
        Self {
            counts: Stats {
                devices,
                ..Stats::default()
            },
            login_ms: histogram(),
            ack_ms: histogram(),
        }
    }

    pub(super) fn note(&mut self, event: &Event) {
        let counts = &mut self.counts;
        match *event {
            Event::LoginAnswered { status, after_ms } => {
                count(&mut counts.logins, status);
                self.login_ms.saturating_record(after_ms.into());
            }
            Event::LoginFailed { why } => count(&mut counts.login_faults, why),
            Event::AttachAnswered { status, .. } => count(&mut counts.attaches, status),
            Event::AttachFailed { why, .. } => count(&mut counts.attach_faults, why),
            Event::Ended { why } => count(&mut counts.ends, why),
            Event::FirstSent(_) => counts.records_sent += 1,
            Event::FrameAnswered {
                count,
                status,
                after_ms,
                ..
            } => {
                match status {
                    AckStatus::Stored => counts.records_acknowledged += u64::from(count),
                    AckStatus::Malformed => counts.records_malformed += u64::from(count),
                    AckStatus::Overloaded => counts.frames_overloaded += 1,
                }
                self.ack_ms.saturating_record(after_ms.into());
            }
            Event::NotRecorded { count } => counts.not_recorded += u64::from(count),
            Event::CommandAnswered { status, .. } => count(&mut counts.commands, status),
            Event::RedirectTaken { .. } => counts.redirects += 1,
            Event::Waits { .. }
            | Event::ClockSet { .. }
            | Event::CommandBegun { .. }
            | Event::RedirectIgnored
            | Event::RedirectVoid
            | Event::UnknownKindIgnored { .. }
            | Event::AnswerIgnored { .. }
            | Event::Restarted { .. } => {}
        }
    }

    pub(super) fn started(&mut self) {
        self.counts.started += 1;
    }

    /// The counts, with what holds now as the caller says.
    pub(super) fn snapshot(&self, now: Now) -> Stats {
        Stats {
            elapsed: now.elapsed,
            attached: now.attached,
            connecting: now.connecting,
            unacknowledged: now.unacknowledged,
            login_ms: Percentiles::of(&self.login_ms),
            ack_ms: Percentiles::of(&self.ack_ms),
            ..self.counts.clone()
        }
    }
}

/// What holds at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Now {
    pub(super) elapsed: Duration,
    pub(super) attached: u32,
    pub(super) connecting: u32,
    pub(super) unacknowledged: u64,
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    *counts.entry(key).or_default() += 1;
}
