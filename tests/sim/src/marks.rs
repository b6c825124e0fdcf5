//! What a long run must have hit at least once, or it proves less than it seems to.
//!
//! A mark is a status or a close reason as it leaves the cluster, a counter of a tier (every refusal
//! has one of its own name), a class of faults that came, a step in the life of a device, an answer
//! to an operator, a trick of a device that does not keep the contract. The list is
//! made from the enums that the product has: what is added there is a mark at once, and a long run
//! fails until something hits it. What nothing can hit is listed with its reason, and that list is
//! held too: a mark of it that is hit fails the run.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use protocols::rcu::code::{AckStatus, AttachStatus, CloseReason, LoginStatus};
use protocols::rcu::frame::{self, Parsed};
use protocols::rcu::message::FromCluster;
use simulator::device::Stage;

use crate::operator::ANSWERS;
use crate::plan::Class;
use crate::process::Tier;
use crate::tricks::Trick;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    LoginReply(LoginStatus),
    AttachReply(AttachStatus),
    Ack(AckStatus),
    Close(CloseReason),
    Counter(Tier, &'static str),
    Fault(Class),
    Step(Stage, Stage),
    /// An answer to an operator's command.
    Answer(&'static str),
    /// Of a device that does not keep the contract, answered as the contract has it.
    Trick(Trick),
}

/// From state to state, as `simulator/src/device/mod.rs` draws them; a power cut comes in any. A step from `LoggingIn` to the
/// next address stays in `LoggingIn`.
const STEPS: &[(Stage, Stage)] = &[
    (Stage::Off, Stage::Waiting),
    (Stage::Waiting, Stage::Off),
    (Stage::Resolving, Stage::Off),
    (Stage::LoggingIn, Stage::Off),
    (Stage::Attaching, Stage::Off),
    (Stage::Attached, Stage::Off),
    (Stage::Waiting, Stage::Resolving),
    (Stage::Waiting, Stage::LoggingIn),
    (Stage::Waiting, Stage::Attaching),
    (Stage::Resolving, Stage::LoggingIn),
    (Stage::Resolving, Stage::Waiting),
    (Stage::LoggingIn, Stage::Attaching),
    (Stage::LoggingIn, Stage::Waiting),
    (Stage::LoggingIn, Stage::Resolving),
    (Stage::Attaching, Stage::Attached),
    (Stage::Attaching, Stage::Waiting),
    (Stage::Attached, Stage::Waiting),
    (Stage::Attached, Stage::Attaching),
];

impl Mark {
    /// Every mark that there is.
    pub fn all() -> Vec<Self> {
        let mut all = vec![];
        all.extend(LoginStatus::ALL.iter().map(|it| Self::LoginReply(*it)));
        all.extend(AttachStatus::ALL.iter().map(|it| Self::AttachReply(*it)));
        all.extend(AckStatus::ALL.iter().map(|it| Self::Ack(*it)));
        all.extend(CloseReason::ALL.iter().map(|it| Self::Close(*it)));
        let balancer = balancer::counters::Counter::ALL.iter();
        all.extend(balancer.map(|it| Self::Counter(Tier::Balancer, it.name())));
        let conn = conn_server::counters::Counter::ALL.iter();
        all.extend(conn.map(|it| Self::Counter(Tier::Conn, it.name())));
        let logic = logic_server::counters::Counter::ALL.iter();
        all.extend(logic.map(|it| Self::Counter(Tier::Logic, it.name())));
        all.extend(Class::value_variants().iter().map(|it| Self::Fault(*it)));
        all.extend(STEPS.iter().map(|(from, to)| Self::Step(*from, *to)));
        all.extend(ANSWERS.map(Self::Answer));
        all.extend(Trick::all().into_iter().map(Self::Trick));
        all
    }

    /// Why nothing can hit it today.
    pub fn impossible(self) -> Option<&'static str> {
        let because = match self {
            Self::AttachReply(AttachStatus::Full) => {
                "a grant holds its place, so nobody attaches where there is none"
            }
            Self::Close(CloseReason::CloneSuspected)
            | Self::Counter(Tier::Logic, "closed_clone_suspected") => {
                "nothing judges yet whether two devices use one account"
            }
            Self::Counter(Tier::Conn, "malformed") => "a balancer answers what is malformed itself",
            Self::Counter(Tier::Conn, "last_logins_shed") => "counted by the shell around the core",
            Self::Counter(Tier::Logic, "presence_dropped") => {
                "more sessions end than a run has: writer/tests.rs holds it"
            }
            Self::Counter(Tier::Logic, "records_contradicting") => {
                "the model takes a number for one record: the fuzz target `writer` holds it"
            }
            Self::Answer("node too old") => "every process is of this version",
            Self::Step(Stage::Waiting, Stage::Attaching) => "no server resumes yet",
            Self::Step(Stage::Attached, Stage::Attaching) => "no server redirects yet",
            _ => return None,
        };
        Some(because)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoginReply(status) => write!(f, "LoginReply {status}"),
            Self::AttachReply(status) => write!(f, "AttachReply {status}"),
            Self::Ack(status) => write!(f, "TelemetryAck {status}"),
            Self::Close(reason) => write!(f, "Close {reason}"),
            Self::Counter(Tier::Balancer, name) => write!(f, "balancer counts {name}"),
            Self::Counter(Tier::Conn, name) => write!(f, "conn server counts {name}"),
            Self::Counter(Tier::Logic, name) => write!(f, "logic server counts {name}"),
            Self::Fault(class) => write!(f, "fault {class}"),
            Self::Step(from, to) => write!(f, "device {from:?} to {to:?}"),
            Self::Answer(answer) => write!(f, "operator is told {answer}"),
            Self::Trick(trick) => write!(f, "trick {trick:?}"),
        }
    }
}

/// How often each mark was hit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(BTreeMap<Mark, u64>);

impl Marks {
    pub fn hit(&mut self, mark: Mark) {
        self.add(mark, 1);
    }

    fn add(&mut self, mark: Mark, times: u64) {
        if times > 0 {
            *self.0.entry(mark).or_default() += times;
        }
    }

    /// What a process counted in its life.
    pub fn counted(&mut self, tier: Tier, counters: impl Iterator<Item = (&'static str, u64)>) {
        for (name, times) in counters {
            self.add(Mark::Counter(tier, name), times);
        }
    }

    /// What a device went through. One input may take it through several states; only where it
    /// stays is seen.
    pub fn step(&mut self, from: Stage, to: Stage) {
        if from != to {
            self.hit(Mark::Step(from, to));
        }
    }

    /// A frame leaves a server for a device.
    pub fn leaves(&mut self, message: &FromCluster<'_>) {
        match message {
            FromCluster::LoginReply(reply) => self.hit(Mark::LoginReply(reply.status())),
            FromCluster::AttachReply(reply) => self.hit(Mark::AttachReply(reply.status())),
            FromCluster::TelemetryAck(ack) => self.hit(Mark::Ack(ack.status)),
            FromCluster::Close(close) => self.hit(Mark::Close(close.reason)),
            _ => {}
        }
    }

    /// The same for bytes that nobody else takes apart.
    pub fn bytes_leave(&mut self, mut bytes: &[u8]) {
        while let Ok(Parsed::Frame { frame, consumed }) =
            frame::parse(bytes, frame::FRAME_BYTES_MAX)
        {
            if let Ok(message) = FromCluster::decode(&frame) {
                self.leaves(&message);
            }
            bytes = &bytes[consumed..];
        }
    }

    /// What a device that does not keep the contract was answered.
    pub fn tricks(&mut self, answered: &BTreeMap<Trick, u64>) {
        for (trick, times) in answered {
            self.add(Mark::Trick(*trick), *times);
            self.add(Mark::Fault(Class::Hostile), *times);
        }
    }

    /// What an operator was told.
    pub fn answers(&mut self, answers: &BTreeMap<&'static str, u64>) {
        for (answer, times) in answers {
            self.add(Mark::Answer(answer), *times);
        }
    }

    /// What another run hit.
    pub fn unite(&mut self, other: &Self) {
        for (mark, times) in &other.0 {
            self.add(*mark, *times);
        }
    }

    pub fn times(&self, mark: Mark) -> u64 {
        self.0.get(&mark).copied().unwrap_or_default()
    }

    /// What must be hit and was not.
    pub fn missed(&self) -> Vec<Mark> {
        let mut all = Mark::all();
        all.retain(|mark| mark.impossible().is_none() && self.times(*mark) == 0);
        all
    }

    /// What was hit although nothing can: the table is wrong, or the product is. A step that is not
    /// drawn is of these.
    pub fn surprises(&self) -> Vec<Mark> {
        let all = Mark::all();
        let hit = self.0.keys();
        let surprises = hit.filter(|mark| mark.impossible().is_some() || !all.contains(mark));
        surprises.copied().collect()
    }

    /// # Errors
    /// What was missed, and what was hit that cannot be.
    pub fn judge_long_run(&self) -> Result<(), String> {
        let name =
            |marks: Vec<Mark>| -> Vec<String> { marks.iter().map(ToString::to_string).collect() };
        let (missed, surprises) = (name(self.missed()), name(self.surprises()));
        match (missed.is_empty(), surprises.is_empty()) {
            (true, true) => Ok(()),
            _ => Err(format!(
                "never hit: [{}]; hit though nothing can: [{}]",
                missed.join(", "),
                surprises.join(", ")
            )),
        }
    }
}

/// How often each was hit, the rarest first; then what nothing can hit, and why.
impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<_> = Mark::all()
            .into_iter()
            .map(|mark| (self.times(mark), mark))
            .collect();
        all.extend(self.surprises().into_iter().map(|it| (self.times(it), it)));
        all.sort_unstable();
        all.dedup();
        for (times, mark) in &all {
            match mark.impossible() {
                None => writeln!(f, "{times:>10}  {mark}")?,
                Some(why) => writeln!(f, "{times:>10}  {mark} (cannot be hit: {why})")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_there_once_and_has_a_name_of_its_own() {
        let all = Mark::all();
        let names: std::collections::BTreeSet<_> =
            all.iter().map(|mark| mark.to_string()).collect();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn a_long_run_fails_by_what_it_missed_and_by_what_cannot_be() {
        let mut marks = Marks::default();
        for mark in Mark::all() {
            if mark.impossible().is_none() {
                marks.hit(mark);
            }
        }
        assert_eq!(marks.judge_long_run(), Ok(()));

        let mut fewer = marks.clone();
        fewer.0.remove(&Mark::Close(CloseReason::Idle));
        let missed = fewer.judge_long_run();
        assert!(missed.is_err_and(|what| what.contains("never hit: [Close idle]")));

        let mut more = marks.clone();
        more.hit(Mark::Close(CloseReason::CloneSuspected));
        more.hit(Mark::Step(Stage::Off, Stage::Attached));
        let surprised = more.judge_long_run();
        assert!(
            surprised
                .is_err_and(|what| what.contains("Close clone_suspected, device Off to Attached"))
        );
    }

    #[test]
    fn runs_are_united_and_shown_with_the_rarest_first() {
        let mut marks = Marks::default();
        marks.hit(Mark::Ack(AckStatus::Stored));
        let mut other = Marks::default();
        other.counted(Tier::Logic, [("records", 5), ("granted", 0)].into_iter());
        other.hit(Mark::Ack(AckStatus::Stored));
        marks.unite(&other);
        assert_eq!(marks.times(Mark::Ack(AckStatus::Stored)), 2);
        let shown = marks.to_string();
        let last: Vec<_> = shown.lines().rev().take(2).map(str::trim).collect();
        assert_eq!(
            last,
            ["5  logic server counts records", "2  TelemetryAck stored"]
        );
    }
}
