//! The rows of a work by the table that they go to, each table in the order of its key: first those that
//! cannot be there yet, then those that may.

use std::borrow::Cow;

use common::device::record::{Record, Table};

use crate::batch::Row;
use crate::writer::Work;

/// What stands before a record's own columns in every telemetry table, and in dead_letter.
pub(super) const KEY_COLUMNS: &[&str] = &["account_id", "recorded_at", "seq", "received_at"];

/// A record on its way into a table, with its payload.
pub(super) type Item<'w> = (&'w Row, &'w [u8]);

/// One on its way to dead_letter, with the reason.
pub(super) type Aside<'w> = (&'w Row, &'w [u8], Cow<'w, str>);

/// The items of a table that cannot be there yet, and those that may.
pub(super) fn split<'i, 'w>(items: &'i [Item<'w>]) -> (&'i [Item<'w>], &'i [Item<'w>]) {
    items.split_at(items.partition_point(|(row, _)| !row.may_be_there))
}

#[derive(Debug)]
pub(super) struct Sorted<'w> {
    /// In the order of [`Table::ALL`].
    pub(super) tables: [Vec<Item<'w>>; Table::ALL.len()],
    pub(super) aside: Vec<Aside<'w>>,
}

impl<'w> Sorted<'w> {
    pub(super) fn new(work: &'w Work) -> Self {
        let mut tables: [Vec<Item<'_>>; Table::ALL.len()] = Default::default();
        let mut aside: Vec<Aside<'_>> = vec![];
        for (row, payload) in work.rows() {
            match (row.flaw, Record::decode(row.kind, payload)) {
                (None, Ok(record)) => tables[record.table() as usize].push((row, payload)),
                (Some(flaw), _) | (None, Err(flaw)) => {
                    aside.push((row, payload, flaw.name().into()));
                }
            }
        }
        for items in &mut tables {
            // Neighbours share pages: a third faster on SQLite when measured. And two nodes that
            // write the same rows wait for each other in one order. Stable, so that of two records
            // with one key the first is kept; and one that may be a repetition is none of the others.
            items.sort_by_key(|(row, _)| (row.may_be_there, key(row)));
        }
        Self { tables, aside }
    }
}

/// A record that the database refused, of which it said this.
pub(super) fn refused<'w>(&(row, payload): &Item<'w>, why: &str) -> Aside<'w> {
    let reason = format!("refused by the database: {why}");
    (row, payload, reason.into())
}

/// Decoded a second time, which is cheaper than to keep what the first time gave.
pub(super) fn record<'w>(&(row, payload): &Item<'w>) -> Record<'w> {
    Record::decode(row.kind, payload).expect("it was decoded when its table was chosen")
}

fn key(row: &Row) -> (i64, i64, i64) {
    (row.account_id.0, row.recorded_at_ms, row.seq)
}
