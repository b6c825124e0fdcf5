//! Pure. What a device remembers of its records for the judge: appended at the first sending,
//! marked when it is answered. 24 bytes a record: tens of thousands of devices fit.

use common::ids::AccountName;
use protocols::rcu::code::AckStatus;

use crate::device::{Device, Event, SentRecord};

/// What the cluster said of a record that it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing, or `overloaded`: the device may not forget it.
    None,
    Stored,
    /// Not to be sent again. A simulated device sends nothing that deserves it.
    Malformed,
}

/// One record as its device knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRecord {
    pub seq: u64,
    /// Unix milliseconds; 0: not known.
    pub recorded_at_ms: u64,
    pub kind: u8,
    pub digest: u64,
    pub answer: Answer,
}

/// A device's records of one run, in order, each once.
#[derive(Clone, Debug)]
pub struct History {
    account: AccountName,
    /// Sequence numbers of this run begin here.
    first_seq: u64,
    attached: u32,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    seq: u64,
    recorded_at_ms: u64,
    /// Digest, kind, answer: 48, 8 and 8 bits.
    packed: u64,
}

impl History {
    /// For a device that has not sent anything yet.
    pub fn new(device: &Device) -> Self {
        Self {
            account: device.identity().account.clone(),
            first_seq: u64::from(device.boot_counter()) << 32,
            attached: 0,
            entries: Vec::new(),
        }
    }

    /// Takes note of what the device told.
    pub fn note(&mut self, event: &Event) {
        match *event {
            Event::AttachAnswered {
                status: protocols::rcu::code::AttachStatus::Ok,
                ..
            } => self.attached += 1,
            Event::FirstSent(record) => self.sent(record),
            Event::FrameAnswered {
                base_seq,
                count,
                status,
                ..
            } => self.answered(base_seq, count, status),
            _ => {}
        }
    }

    fn sent(&mut self, record: SentRecord) {
        let last = self.entries.last();
        assert!(
            last.is_none_or(|last| last.seq < record.seq),
            "a device sends records for the first time in order"
        );
        self.entries.push(Entry {
            seq: record.seq,
            recorded_at_ms: record.recorded_at_ms,
            packed: record.digest << 16 | u64::from(record.kind) << 8,
        });
    }

    fn answered(&mut self, base_seq: u64, count: u8, status: AckStatus) {
        let answer = match status {
            AckStatus::Stored => Answer::Stored,
            AckStatus::Malformed => Answer::Malformed,
            AckStatus::Overloaded => return,
        };
        let first = self.entries.partition_point(|entry| entry.seq < base_seq);
        let answered = self.entries[first..].iter_mut().take(count.into());
        for (entry, seq) in answered.zip(base_seq..) {
            assert_eq!(entry.seq, seq, "an answer to a frame that was sent");
            entry.packed = entry.packed & !0xFF | answer as u64;
        }
    }

    pub fn account(&self) -> &AccountName {
        &self.account
    }

    /// Rows of the account with this sequence number or a higher one are of this run.
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// How often the device was attached.
    pub fn attached(&self) -> u32 {
        self.attached
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// In order of sequence numbers.
    pub fn records(&self) -> impl Iterator<Item = HistoryRecord> {
        self.entries.iter().map(Entry::unpack)
    }

    /// The record with this number, where the device sent one.
    pub fn record(&self, seq: u64) -> Option<(usize, HistoryRecord)> {
        let index = self
            .entries
            .binary_search_by_key(&seq, |entry| entry.seq)
            .ok()?;
        Some((index, self.entries.get(index)?.unpack()))
    }
}

impl Entry {
    fn unpack(&self) -> HistoryRecord {
        HistoryRecord {
            seq: self.seq,
            recorded_at_ms: self.recorded_at_ms,
            kind: (self.packed >> 8) as u8,
            digest: self.packed >> 16,
            answer: match self.packed as u8 {
                0 => Answer::None,
                1 => Answer::Stored,
                _ => Answer::Malformed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use common::secret::Secret;

    use super::*;
    use crate::device::{Identity, Settings};
    use crate::digest::digest;

    fn history() -> History {
        let identity = Identity {
            account: "a".parse().expect("a name"),
            key: Secret::new([1; 32]),
        };
        History::new(&Device::new(identity, Arc::new(Settings::default()), 9, 1))
    }

    fn sent(seq: u64) -> Event {
        Event::FirstSent(SentRecord {
            seq,
            recorded_at_ms: 1_000 + seq,
            kind: 200,
            digest: digest(1_000 + seq, 200, b"payload"),
        })
    }

    fn answered(base_seq: u64, count: u8, status: AckStatus) -> Event {
        Event::FrameAnswered {
            base_seq,
            count,
            status,
            after_ms: 0,
        }
    }

    #[test]
    fn it_keeps_what_was_sent_and_what_was_answered() {
        let mut history = history();
        assert_eq!(history.first_seq(), 9 << 32);
        for seq in [5, 6, 7, 20, 21] {
            history.note(&sent(seq));
        }
        history.note(&answered(6, 2, AckStatus::Stored));
        history.note(&answered(20, 1, AckStatus::Overloaded));
        history.note(&answered(21, 1, AckStatus::Malformed));
        let answers: Vec<_> = history.records().map(|record| record.answer).collect();
        assert_eq!(
            answers,
            [
                Answer::None,
                Answer::Stored,
                Answer::Stored,
                Answer::None,
                Answer::Malformed
            ]
        );
        let (index, record) = history.record(20).expect("sent");
        assert_eq!(index, 3);
        assert_eq!(record.recorded_at_ms, 1_020);
        assert_eq!(record.kind, 200);
        assert_eq!(record.digest, digest(1_020, 200, b"payload"));
        assert_eq!(history.record(8), None);
    }

    #[test]
    fn a_record_takes_24_bytes() {
        assert_eq!(size_of::<Entry>(), 24);
    }
}
