//! Pure. What the judge found, for people: numbers, then the first findings of each class.

use std::collections::BTreeMap;
use std::fmt;

/// Of each class so many findings are kept; all are counted.
const FINDINGS_MAX: usize = 5;

/// What can be wrong with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Acknowledged, and in no table.
    Missing,
    /// In more than one row.
    Duplicate,
    /// A row that its device did not send.
    NotSent,
    /// A row whose time, kind or payload is not the one that was sent.
    Altered,
    /// A good record that the cluster called malformed, so that its device forgot it.
    CalledMalformed,
    NeverAttached,
    UnknownAccount,
    KindWithoutRow,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Missing => "acknowledged but not stored",
            Self::Duplicate => "stored more than once",
            Self::NotSent => "stored but never sent",
            Self::Altered => "stored otherwise than sent",
            Self::CalledMalformed => "good records called malformed",
            Self::NeverAttached => "devices never attached",
            Self::UnknownAccount => "accounts not in the database",
            Self::KindWithoutRow => "record kinds without a row",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub class: Class,
    /// Whose, and which.
    pub what: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub devices: u64,
    /// Devices that were attached at least once.
    pub attached: u64,
    /// Records that were sent at least once.
    pub sent: u64,
    /// Records that were answered `stored`.
    pub acknowledged: u64,
    /// Not acknowledged, but stored: their answer was lost, or had not come yet.
    pub stored_unanswered: u64,
    /// Neither.
    pub unanswered: u64,
    /// Rows of this run in the telemetry tables.
    pub rows: u64,
    /// Rows of this run in dead_letter.
    pub dead_letter: u64,
}

/// Display is a block of lines for a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub numbers: Numbers,
    findings: BTreeMap<Class, Findings>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Findings {
    count: u64,
    first: Vec<String>,
}

impl Verdict {
    /// Whether nothing was found.
    pub fn holds(&self) -> bool {
        self.findings.is_empty()
    }

    /// How many findings there are of a class.
    pub fn count(&self, class: Class) -> u64 {
        self.findings.get(&class).map_or(0, |found| found.count)
    }

    /// The first findings of a class.
    pub fn first(&self, class: Class) -> &[String] {
        self.findings.get(&class).map_or(&[], |found| &found.first)
    }

    pub(super) fn add(&mut self, finding: Finding) {
        let findings = self.findings.entry(finding.class).or_default();
        findings.count += 1;
        if findings.first.len() < FINDINGS_MAX {
            findings.first.push(finding.what);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = &self.numbers;
        writeln!(
            f,
            "devices        {:>10}   attached {}",
            numbers.devices, numbers.attached
        )?;
        writeln!(
            f,
            "records sent   {:>10}   acknowledged {}, stored without an answer {}, open {}",
            numbers.sent, numbers.acknowledged, numbers.stored_unanswered, numbers.unanswered
        )?;
        writeln!(
            f,
            "rows           {:>10}   in dead_letter {}",
            numbers.rows + numbers.dead_letter,
            numbers.dead_letter
        )?;
        if self.holds() {
            return write!(
                f,
                "verdict        holds: every acknowledged record is stored, once, as it was sent"
            );
        }
        write!(f, "verdict        FAILS")?;
        for (class, findings) in &self.findings {
            write!(f, "\n  {}: {}", class.name(), findings.count)?;
            for what in &findings.first {
                write!(f, "\n    {what}")?;
            }
            if findings.count > findings.first.len() as u64 {
                write!(f, "\n    …")?;
            }
        }
        Ok(())
    }
}
