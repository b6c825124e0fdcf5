//! Pure. Rows as COPY BINARY has them.
//!
//! ```text
//! 0                11          15           19
//! | PGCOPY\n…\r\n\0 | flags = 0 | extra = 0  | row … | row … | -1 (i16)
//!
//! row:   | columns (i16) | length (i32) | value … | length | value … |      length -1: NULL
//! ```
//!
//! All of it in big-endian; a `timestamptz` is microseconds since 2000. Values have no type: each column
//! must be of the one that stands here ([`KEY_TYPES`], [`sql_type`]).

use std::slice;

use common::database::UnixMs;
use records::{self, Column, ColumnType};

use super::sorted::KEY_COLUMNS;
use crate::batch::Row;

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// Of [`KEY_COLUMNS`].
pub(super) const KEY_TYPES: [&str; KEY_COLUMNS.len()] =
    ["bigint", "timestamptz", "bigint", "timestamptz"];

/// The type of a column that takes what [`Columns`] writes for it.
pub(super) const fn sql_type(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::SmallInt => "smallint",
        ColumnType::Integer => "integer",
        ColumnType::BigInt => "bigint",
        ColumnType::Real => "double precision",
        ColumnType::Boolean => "boolean",
        ColumnType::Text => "text",
        ColumnType::Bytes => "bytea",
    }
}

/// Rows of one table, a piece at a time.
#[derive(Debug)]
pub(super) struct Copy {
    /// What is not sent yet.
    pub(super) bytes: Vec<u8>,
}

impl Copy {
    pub(super) fn new(capacity_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity_bytes);
        bytes.extend_from_slice(HEADER);
        Self { bytes }
    }

    /// A row of a table with these columns behind its key; `put` writes them.
    pub(super) fn row(
        &mut self,
        row: &Row,
        columns: &'static [Column],
        put: impl FnOnce(&mut Columns<'_>),
    ) {
        let count = (KEY_COLUMNS.len() + columns.len()) as i16;
        self.bytes.extend_from_slice(&count.to_be_bytes());
        let key = [
            row.account_id.0,
            UnixMs(row.recorded_at_ms).to_wire(),
            row.seq,
            UnixMs(row.received_at_ms).to_wire(),
        ];
        for value in key {
            self.value(value.to_be_bytes());
        }
        let mut own = Columns {
            copy: self,
            columns: columns.iter(),
        };
        put(&mut own);
        assert!(own.columns.next().is_none(), "a row has all its columns");
    }

    pub(super) fn finish(&mut self) {
        self.bytes.extend_from_slice(&TRAILER);
    }

    fn value<const BYTES: usize>(&mut self, value: [u8; BYTES]) {
        self.bytes.extend_from_slice(&(BYTES as i32).to_be_bytes());
        self.bytes.extend_from_slice(&value);
    }

    fn varying(&mut self, value: &[u8]) {
        let length = i32::try_from(value.len()).expect("a payload has 255 bytes at most");
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
    }
}

/// Takes the columns of one row, each as wide as the table has it.
#[derive(Debug)]
pub(super) struct Columns<'c> {
    copy: &'c mut Copy,
    columns: slice::Iter<'static, Column>,
}

impl Columns<'_> {
    fn next(&mut self) -> &'static Column {
        self.columns.next().expect("a row has no more columns")
    }
}

impl records::Row for Columns<'_> {
    fn null(&mut self) {
        self.next();
        self.copy.bytes.extend_from_slice(&NULL);
    }

    fn integer(&mut self, value: i64) {
        const FITS: &str = "a column is as wide as its field";
        match self.next().column_type {
            ColumnType::SmallInt => self
                .copy
                .value(i16::try_from(value).expect(FITS).to_be_bytes()),
            ColumnType::Integer => self
                .copy
                .value(i32::try_from(value).expect(FITS).to_be_bytes()),
            _ => self.copy.value(value.to_be_bytes()),
        }
    }

    fn real(&mut self, value: f64) {
        self.next();
        self.copy.value(value.to_be_bytes());
    }

    fn boolean(&mut self, value: bool) {
        self.next();
        self.copy.value([value.into()]);
    }

    fn text(&mut self, value: &str) {
        self.next();
        self.copy.varying(value.as_bytes());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.next();
        self.copy.varying(value);
    }
}
