//! The fake database: rows behind a primary key, and the ways in which a write can go wrong.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use common::epoch::Epoch;
use common::ids::AccountId;
use logic_server::batch::Row;
use logic_server::presence::Presence;
use logic_server::store::refusal::SqliteCode;
use logic_server::writer::{Work, WriteResult, Written};
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

/// A line of `sessions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub node: usize,
    pub is_over: bool,
}

/// What a write will do, drawn when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    outcome: Outcome,
    /// How often the database had crashed.
    crashes: u32,
}

impl Fate {
    /// Nothing goes wrong, but for what the database refuses.
    pub fn commits(self) -> bool {
        self.outcome == Outcome::Commit
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Commit,
    /// The database says this, and nothing is stored.
    Refuse(SqliteCode),
    /// It is committed, and nobody hears of it.
    Unheard,
}

/// What ails the database for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ailment {
    Says(SqliteCode),
    /// It answers nothing at all.
    Mute,
    /// It takes so many times as long.
    Slow(u64),
}

#[derive(Debug)]
pub struct Store {
    faults: Faults,
    rng: SmallRng,
    rows: BTreeMap<Key, Stored>,
    sessions: BTreeMap<(AccountId, Epoch), Session>,
    crashes: u32,
    ailment: Option<(Ailment, u64)>,
    /// What went wrong with single writes so far.
    came: BTreeSet<Class>,
}

/// A stalled write takes this long.
const STALL_MS: RangeInclusive<u64> = 1_000..=30_000;

/// An attempt is given up after so long; what becomes of it nobody knows.
const WRITE_DEADLINE_MS: u64 = 2_000;

/// How long a database that crashed is not there.
const RECOVERY_MS: RangeInclusive<u64> = 100..=20_000;

/// What it says when it is there and takes nothing.
const PASSING: [SqliteCode; 7] = [
    SqliteCode::BUSY,
    SqliteCode::READONLY,
    SqliteCode::IO_ERROR,
    SqliteCode::FULL,
    SqliteCode::CANNOT_OPEN,
    // Another row has the key: that is no fault of the value's.
    SqliteCode::CONSTRAINT_PRIMARY_KEY,
    SqliteCode::CONSTRAINT_UNIQUE,
];

impl Store {
    pub fn new(faults: Faults, rng: SmallRng) -> Self {
        Self {
            faults,
            rng,
            rows: BTreeMap::new(),
            sessions: BTreeMap::new(),
            crashes: 0,
            ailment: None,
            came: BTreeSet::new(),
        }
    }

    /// The classes of what went wrong with single writes.
    pub fn came(&self) -> impl Iterator<Item = &Class> {
        self.came.iter()
    }

    /// From now on every write commits. What the store refuses to take it still refuses.
    pub fn heal(&mut self) {
        self.faults.keep(&[Class::Poison]);
        self.ailment = None;
    }

    /// Every write under way fails; whether it was committed is drawn for each.
    pub fn crash(&mut self, now_ms: u64) {
        self.crashes += 1;
        let until_ms = now_ms + self.rng.random_range(RECOVERY_MS);
        self.ailment = Some((Ailment::Says(SqliteCode::CANNOT_OPEN), until_ms));
    }

    pub fn goes_away(&mut self, until_ms: u64) {
        let ailment = match self.rng.random_ratio(1, 2) {
            true => Ailment::Mute,
            false => Ailment::Says(SqliteCode::CANNOT_OPEN),
        };
        self.ailment = Some((ailment, until_ms));
    }

    /// It is read-only, full, busy with others.
    pub fn takes_nothing(&mut self, until_ms: u64) {
        let code = self.passing();
        self.ailment = Some((Ailment::Says(code), until_ms));
    }

    pub fn slows_down(&mut self, until_ms: u64) {
        let times = 1 << self.rng.random_range(1..=6);
        self.ailment = Some((Ailment::Slow(times), until_ms));
    }

    fn passing(&mut self) -> SqliteCode {
        PASSING[self.rng.random_range(0..PASSING.len())]
    }

    fn ailment(&self, now_ms: u64) -> Option<Ailment> {
        let (ailment, until_ms) = self.ailment?;
        (now_ms < until_ms).then_some(ailment)
    }

    fn draw(&mut self, class: Class) -> bool {
        let comes = self.rng.random_range(0..1_000) < self.faults.of_1000(class);
        if comes {
            self.came.insert(class);
        }
        comes
    }

    /// What the next write will do, and how long it takes where it takes `usual_ms` usually.
    pub fn fate(&mut self, usual_ms: u64, now_ms: u64) -> (Fate, u64) {
        let mut took_ms = usual_ms;
        if self.draw(Class::WriteStalls) {
            took_ms += self.rng.random_range(STALL_MS);
        }
        let mut outcome = if self.draw(Class::WriteFails) {
            Outcome::Refuse(self.passing())
        } else if self.draw(Class::CommitUnknown) {
            Outcome::Unheard
        } else {
            Outcome::Commit
        };
        match self.ailment(now_ms) {
            Some(Ailment::Says(code)) => outcome = Outcome::Refuse(code),
            Some(Ailment::Mute) => took_ms = u64::MAX,
            Some(Ailment::Slow(times)) => took_ms = took_ms.saturating_mul(times),
            None => {}
        }
        if took_ms > WRITE_DEADLINE_MS {
            took_ms = WRITE_DEADLINE_MS;
            outcome = self.unheard();
        }
        let crashes = self.crashes;
        (Fate { outcome, crashes }, took_ms)
    }

    /// Nobody hears what became of it.
    fn unheard(&mut self) -> Outcome {
        match self.rng.random_ratio(1, 2) {
            true => Outcome::Unheard,
            false => Outcome::Refuse(SqliteCode::IO_ERROR),
        }
    }

    /// Carries out a transaction of a node. Rows that are new are appended to `new`.
    pub fn write(
        &mut self,
        node: usize,
        work: &Work,
        fate: Fate,
        new: &mut Vec<(Key, Stored)>,
    ) -> WriteResult {
        let mut outcome = fate.outcome;
        if fate.crashes != self.crashes && outcome == Outcome::Commit {
            outcome = self.unheard();
        }
        let refused = work.rows().filter(|(row, _)| self.refuses(row)).count() as u64;
        if refused > 0 && !matches!(outcome, Outcome::Refuse(_)) {
            self.came.insert(Class::Poison);
            if !work.is_careful() {
                outcome = Outcome::Refuse(SqliteCode::CONSTRAINT_CHECK);
            }
        }
        if let Outcome::Refuse(code) = outcome {
            return match code.refuses_the_value() {
                true => WriteResult::Refused {
                    why: format!("{code:?}"),
                },
                false => WriteResult::Failed,
            };
        }
        let mut written = Written::refusing(refused);
        for (row, payload) in work.rows() {
            let key = Key {
                account_id: row.account_id,
                seq: millis(row.seq),
                recorded_at_ms: millis(row.recorded_at_ms),
            };
            let stored = Stored {
                digest: digest(key.recorded_at_ms, row.kind, payload),
                is_dead_letter: row.flaw.is_some() || self.refuses(row),
            };
            // ON CONFLICT DO NOTHING: the first is kept.
            match self.rows.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert(stored);
                    new.push((key, stored));
                }
                Entry::Occupied(kept) if kept.get().digest == stored.digest => written.alike += 1,
                Entry::Occupied(_) => {
                    let of_account = written.contradicting.entry(row.account_id);
                    *of_account.or_default() += 1;
                }
            }
        }
        self.write_sessions(node, work);
        match outcome {
            Outcome::Commit => WriteResult::Committed(written),
            Outcome::Refuse(_) | Outcome::Unheard => WriteResult::Failed,
        }
    }

    /// All that attached, then all that ended, as the statements have it: of a key that is there the
    /// first is kept, and what is not there is not ended.
    fn write_sessions(&mut self, node: usize, work: &Work) {
        for line in work.presence() {
            if let Presence::Attached {
                account_id, epoch, ..
            } = *line
            {
                let is_over = false;
                self.sessions
                    .entry((account_id, epoch))
                    .or_insert(Session { node, is_over });
            }
        }
        for line in work.presence() {
            if let Presence::Ended {
                account_id, epoch, ..
            } = *line
                && let Some(session) = self.sessions.get_mut(&(account_id, epoch))
            {
                session.is_over = true;
            }
        }
    }

    /// A node starts: the sessions that its last run left open are over. `false`: the database is
    /// not there, and the node cannot start.
    pub fn repair(&mut self, node: usize, now_ms: u64) -> bool {
        if matches!(self.ailment(now_ms), Some(Ailment::Says(_) | Ailment::Mute)) {
            return false;
        }
        for session in self.sessions.values_mut() {
            session.is_over |= session.node == node;
        }
        true
    }

    /// Sessions that the table shows as present.
    pub fn present(&self) -> impl Iterator<Item = (AccountId, Epoch, usize)> {
        self.sessions
            .iter()
            .filter(|(_, session)| !session.is_over)
            .map(|((account_id, epoch), session)| (*account_id, *epoch, session.node))
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
    fn refuses(&self, row: &Row) -> bool {
        let scattered = millis(row.seq).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let is_poison = scattered % 1_000 < u64::from(self.faults.of_1000(Class::Poison));
        row.flaw.is_none() && is_poison
    }
}

/// Columns are signed, and never negative.
fn millis(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
