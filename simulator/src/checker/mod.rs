//! Pure. The judge: what the devices sent and were told, against what the database holds.
//!
//! It is written from the contract, from the devices' side only, and reads no server log:
//!
//! - what was acknowledged is in a telemetry table or in dead_letter,
//! - every record is in one row at most,
//! - every row of this run is a record that its device sent,
//! - with the same time, kind and payload; the payload is rebuilt from the columns ([`rebuild`]).
//!
//! Besides, every device was attached once and every kind of record has a row: a run in which
//! nothing happened proves nothing.

pub mod rebuild;
pub mod rows;
mod verdict;

use std::collections::BTreeMap;

use crate::digest::digest;
use crate::history::{Answer, History, HistoryRecord};
use rebuild::{Misfit, Rebuilt};
pub use verdict::{Class, Finding, Numbers, Verdict};

/// A row of the database that claims to be a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The table, as it is called in the database.
    pub table: &'static str,
    pub seq: i64,
    pub recorded_at_ms: i64,
    /// What its columns say was sent; in `dead_letter` the raw bytes.
    pub record: Result<Rebuilt, Misfit>,
    /// Set aside as unfit, with its raw bytes.
    pub dead_letter: bool,
}

/// Compares device by device, so that the rows of one are in memory at a time.
#[derive(Debug)]
pub struct Judge {
    verdict: Verdict,
    /// Rows of each kind that must be there.
    rows_by_kind: BTreeMap<u8, u64>,
}

impl Judge {
    /// `kinds`: what the devices were to send.
    pub fn new(kinds: &[u8]) -> Self {
        Self {
            verdict: Verdict::default(),
            rows_by_kind: kinds.iter().map(|&kind| (kind, 0)).collect(),
        }
    }

    /// The device's account is not in the database.
    pub fn judge_unknown(&mut self, history: &History) {
        self.find(
            history,
            Class::UnknownAccount,
            "no such account in the database",
        );
        self.judge(history, &[]);
    }

    /// `rows`: all rows of the device's account from [`History::first_seq`] on.
    pub fn judge(&mut self, history: &History, rows: &[Row]) {
        let numbers = &mut self.verdict.numbers;
        numbers.devices += 1;
        numbers.sent += history.len() as u64;
        if history.attached() == 0 {
            self.find(history, Class::NeverAttached, "was never attached");
        } else {
            numbers.attached += 1;
        }
        let mut rows_of: Vec<u32> = vec![0; history.len()];
        for row in rows {
            if let Some(index) = self.judge_row(history, row)
                && let Some(count) = rows_of.get_mut(index)
            {
                *count += 1;
                if *count > 1 {
                    self.find(
                        history,
                        Class::Duplicate,
                        &format!("seq {} again in {}", row.seq, row.table),
                    );
                }
            }
        }
        for (record, count) in history.records().zip(rows_of) {
            self.judge_record(history, &record, count > 0);
        }
    }

    /// The index of the record that the row is, where the device sent one.
    fn judge_row(&mut self, history: &History, row: &Row) -> Option<usize> {
        let numbers = &mut self.verdict.numbers;
        if row.dead_letter {
            numbers.dead_letter += 1;
        } else {
            numbers.rows += 1;
        }
        let place = format!("seq {} in {}", row.seq, row.table);
        let sent = u64::try_from(row.seq)
            .ok()
            .and_then(|seq| history.record(seq));
        let Some((index, sent)) = sent else {
            self.find(history, Class::NotSent, &place);
            return None;
        };
        let rebuilt = match &row.record {
            Ok(rebuilt) => rebuilt,
            Err(misfit) => {
                self.find(history, Class::Altered, &format!("{place}: {misfit}"));
                return Some(index);
            }
        };
        let time = u64::try_from(row.recorded_at_ms).ok();
        if time != Some(sent.recorded_at_ms) {
            let what = format!(
                "{place}: recorded at {}, sent as {}",
                row.recorded_at_ms, sent.recorded_at_ms
            );
            self.find(history, Class::Altered, &what);
        } else if rebuilt.kind != sent.kind {
            let what = format!("{place}: of kind {}, sent as {}", rebuilt.kind, sent.kind);
            self.find(history, Class::Altered, &what);
        } else if digest(sent.recorded_at_ms, rebuilt.kind, &rebuilt.payload) != sent.digest {
            let what = format!("{place}: another payload than was sent");
            self.find(history, Class::Altered, &what);
        } else if !row.dead_letter
            && let Some(rows) = self.rows_by_kind.get_mut(&rebuilt.kind)
        {
            *rows += 1;
        }
        Some(index)
    }

    fn judge_record(&mut self, history: &History, record: &HistoryRecord, found: bool) {
        let numbers = &mut self.verdict.numbers;
        match record.answer {
            Answer::Stored => {
                numbers.acknowledged += 1;
                if !found {
                    let what = format!("seq {} of kind {}", record.seq, record.kind);
                    self.find(history, Class::Missing, &what);
                }
            }
            Answer::Malformed => {
                let what = format!("seq {} of kind {}", record.seq, record.kind);
                self.find(history, Class::CalledMalformed, &what);
            }
            Answer::None if found => numbers.stored_unanswered += 1,
            Answer::None => numbers.unanswered += 1,
        }
    }

    fn find(&mut self, history: &History, class: Class, what: &str) {
        self.verdict.add(Finding {
            class,
            what: format!("{}: {what}", history.account()),
        });
    }

    pub fn finish(mut self) -> Verdict {
        for (kind, rows) in &self.rows_by_kind {
            if *rows == 0 {
                self.verdict.add(Finding {
                    class: Class::KindWithoutRow,
                    what: format!("no right row of kind {kind}"),
                });
            }
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests;
