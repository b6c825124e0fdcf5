//! The fake database: rows behind a primary key, and the ways in which a write can go wrong.

use std::collections::BTreeMap;

use common::ids::AccountId;
use logic_server::writer::{Work, WriteResult};
use rand::RngExt;
use rand::rngs::SmallRng;
use simulator::digest::digest;

use crate::plan::{Class, Faults};

/// The primary key of every telemetry table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub account_id: AccountId,
    pub seq: u64,
    pub recorded_at_ms: u64,
}

/// A row, as far as the model asks: what came, and whether it was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub digest: u64,
    pub is_dead_letter: bool,
}

/// What a write will do, drawn when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Commit,
    FailBefore,
    FailAfterCommit,
}

#[derive(Debug)]
pub struct Store {
    faults: Faults,
    rng: SmallRng,
    rows: BTreeMap<Key, Stored>,
}

/// A stalled write takes this long.
const STALL_MS: std::ops::RangeInclusive<u64> = 1_000..=30_000;

impl Store {
    pub fn new(faults: Faults, rng: SmallRng) -> Self {
        Self {
            faults,
            rng,
            rows: BTreeMap::new(),
        }
    }

    /// From now on every write commits. What the store refuses to take it still refuses.
    pub fn heal(&mut self) {
        self.faults.keep(&[Class::Poison]);
    }

    /// What the next write will do, and what it takes longer than usual.
    pub fn fate(&mut self) -> (Fate, u64) {
        let stall_ms = if self.rng.random_range(0..1_000) < self.faults.of_1000(Class::WriteStalls)
        {
            self.rng.random_range(STALL_MS)
        } else {
            0
        };
        let draw = self.rng.random_range(0..1_000);
        let fails = self.faults.of_1000(Class::WriteFails);
        let fate = if draw < fails {
            Fate::FailBefore
        } else if draw < fails + self.faults.of_1000(Class::CommitUnknown) {
            Fate::FailAfterCommit
        } else {
            Fate::Commit
        };
        (fate, stall_ms)
    }

    /// Carries out a transaction. Rows that are new are appended to `new`.
    pub fn write(&mut self, work: &Work, fate: Fate, new: &mut Vec<(Key, Stored)>) -> WriteResult {
        if fate == Fate::FailBefore {
            return WriteResult::Failed;
        }
        if work
            .rows()
            .any(|(row, _)| row.flaw.is_none() && self.refuses(millis(row.seq)))
        {
            return WriteResult::Refused {
                why: "poison".into(),
            };
        }
        let rows = work
            .rows()
            .map(|(row, payload)| (row, payload, row.flaw.is_some()));
        let aside = work
            .set_aside()
            .map(|(row, payload, _)| (row, payload, true));
        for (row, payload, is_dead_letter) in rows.chain(aside) {
            let key = Key {
                account_id: row.account_id,
                seq: millis(row.seq),
                recorded_at_ms: millis(row.recorded_at_ms),
            };
            let stored = Stored {
                digest: digest(key.recorded_at_ms, row.kind, payload),
                is_dead_letter,
            };
            // ON CONFLICT DO NOTHING: the first is kept.
            if let std::collections::btree_map::Entry::Vacant(entry) = self.rows.entry(key) {
                entry.insert(stored);
                new.push((key, stored));
            }
        }
        match fate {
            Fate::Commit => WriteResult::Committed,
            Fate::FailBefore | Fate::FailAfterCommit => WriteResult::Failed,
        }
    }

    pub fn row(&self, key: &Key) -> Option<&Stored> {
        self.rows.get(key)
    }

    /// Rows of one sequence number of an account, whatever their time.
    pub fn rows_of(
        &self,
        account_id: AccountId,
        seq: u64,
    ) -> impl Iterator<Item = (&Key, &Stored)> {
        let key = |recorded_at_ms| Key {
            account_id,
            seq,
            recorded_at_ms,
        };
        self.rows.range(key(0)..=key(u64::MAX))
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Which records it never takes as what they claim to be: always the same ones.
    fn refuses(&self, seq: u64) -> bool {
        let scattered = seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        scattered % 1_000 < u64::from(self.faults.of_1000(Class::Poison))
    }
}

/// Columns are signed, and never negative.
fn millis(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
