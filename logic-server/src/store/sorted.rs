//! The rows of a work by the table that they go to, each table in the order of its key: first those that
//! cannot be there yet, then those that may.

use std::borrow::Cow;

use records::{Record, Table};

use crate::batch::Row;
use crate::writer::Work;

/// What stands before a record's own columns in every telemetry table, and in dead_letter.
pub(super) const KEY_COLUMNS: &[&str] = &["account_id", "recorded_at", "seq", "received_at"];

/// A record on its way into a table, with its payload.
pub(super) type Item<'w> = (&'w Row, &'w [u8]);

/// One on its way to dead_letter, with the reason.
pub(super) type Aside<'w> = (&'w Row, &'w [u8], Cow<'w, str>);

#[derive(Debug)]
pub(super) struct Sorted<'w> {
    /// In the order of [`Table::ALL`].
    pub(super) tables: [Vec<Item<'w>>; Table::ALL.len()],
    /// So many of each table's items, the first ones, cannot be there yet.
    pub(super) new: [usize; Table::ALL.len()],
    pub(super) aside: Vec<Aside<'w>>,
}

impl<'w> Sorted<'w> {
    pub(super) fn new(work: &'w Work) -> Self {
        let mut tables: [Vec<Item<'_>>; Table::ALL.len()] = Default::default();
        let mut aside: Vec<Aside<'_>> = vec![];
        for (row, payload) in work.rows() {
            match row.flaw {
                None => tables[Table::of_kind(row.kind) as usize].push((row, payload)),
                Some(flaw) => aside.push((row, payload, flaw.name().into())),
            }
        }
        let new = tables.each_mut().map(sort);
        Self { tables, new, aside }
    }
}

/// Neighbours share pages: a third faster on SQLite when measured. And two nodes that write the same rows wait
/// for each other in one order. Stable, so that of two records with one key the first is kept: the second
/// is a repetition, whatever is known of it. Returns how many may be none.
fn sort(items: &mut Vec<Item<'_>>) -> usize {
    items.sort_by_key(|(row, _)| key(row));
    let mut before = None;
    let (new, others): (Vec<_>, Vec<_>) = items.drain(..).partition(|(row, _)| {
        let is_second = before.replace(key(row)) == Some(key(row));
        !is_second && !row.may_be_there
    });
    items.extend(new);
    let count = items.len();
    items.extend(others);
    count
}

/// A record that the database refused, of which it said this.
pub(super) fn refused<'w>(&(row, payload): &Item<'w>, why: &str) -> Aside<'w> {
    let reason = format!("refused by the database: {why}");
    (row, payload, reason.into())
}

/// Decoded a second time, which is cheaper than to keep what the first time gave.
pub(super) fn record<'w>(&(row, payload): &Item<'w>) -> Record<'w> {
    Record::decode(row.kind, payload).expect("it was decoded when it came, and had no flaw")
}

fn key(row: &Row) -> (i64, i64, i64) {
    (row.account_id.0, row.recorded_at_ms, row.seq)
}
