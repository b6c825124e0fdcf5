//! Pure. Telemetry records: what a kind's payload means, and the row that it becomes.
//!
//! Each kind is one file: number, layout, ranges, table, columns; and one line here, in `kinds!`. Nothing else
//! in the servers matches on kinds. A kind that is not in the list is kept as it came. Fields are the wire's integers; `None` is *not available* on the wire and NULL in
//! a column.

mod custom;
mod diagnosis;
mod fuel;
mod gps;
mod gyroscope;
mod wire;

pub use custom::{Custom, Unknown};
pub use diagnosis::{Diagnosis, TroubleCode, TroubleCodes};
pub use fuel::Fuel;
pub use gps::Gps;
pub use gyroscope::Gyroscope;

/// Why a record of a known kind is set aside: a wrong length, or the field out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    Length,
    Latitude,
    Longitude,
    Heading,
    Level,
    Used,
}

impl Flaw {
    /// The reason as `dead_letter` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Latitude => "latitude",
            Self::Longitude => "longitude",
            Self::Heading => "heading",
            Self::Level => "level",
            Self::Used => "used",
        }
    }
}

/// Everything that goes by kinds. [`Custom`] has the table of all kinds that are not listed, too.
macro_rules! kinds {
    ($($Kind:ident $(<$life:lifetime>)?,)+) => {
        /// One record, decoded and in range.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Record<'a> {
            $($Kind($Kind $(<$life>)?),)+
            Unknown(Unknown<'a>),
        }

        impl<'a> Record<'a> {
            /// Allocates nothing. A kind that is not listed has no flaws.
            pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, Flaw> {
                match kind {
                    $($Kind::KIND => $Kind::decode(payload).map(Self::$Kind),)+
                    kind => Ok(Self::Unknown(Unknown { kind, payload })),
                }
            }

            pub fn kind(&self) -> u8 {
                match self {
                    $(Self::$Kind(_) => $Kind::KIND,)+
                    Self::Unknown(unknown) => unknown.kind,
                }
            }

            /// Appends the payload as it stands on the wire.
            pub fn encode_payload(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$Kind(record) => record.encode(out),)+
                    Self::Unknown(unknown) => out.extend_from_slice(unknown.payload),
                }
            }

            pub fn table(&self) -> Table {
                Table::of_kind(self.kind())
            }

            /// Writes the record's own columns, one call each, in the order of [`Table::columns`].
            pub fn columns(&self, row: &mut impl Row) {
                match self {
                    $(Self::$Kind(record) => record.columns(row),)+
                    Self::Unknown(unknown) => unknown.columns(row),
                }
            }
        }

        /// A table of the telemetry database. Before these columns it has `account_id`, `seq`,
        /// `recorded_at` and `received_at`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Table { $($Kind,)+ }

        impl Table {
            /// In the order of `self as usize`.
            pub const ALL: [Self; [$($Kind::KIND,)+].len()] = [$(Self::$Kind,)+];

            /// Where the records of this kind go.
            pub const fn of_kind(kind: u8) -> Self {
                match kind {
                    $($Kind::KIND => Self::$Kind,)+
                    _ => Self::Custom,
                }
            }

            pub const fn name(self) -> &'static str {
                match self { $(Self::$Kind => $Kind::TABLE,)+ }
            }

            pub const fn columns(self) -> &'static [Column] {
                match self { $(Self::$Kind => $Kind::COLUMNS,)+ }
            }
        }
    };
}

kinds! {
    Gps,
    Fuel,
    Gyroscope,
    Diagnosis<'a>,
    Custom<'a>,
}

/// One record as it came: kind and payload may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Below 2^63.
    pub seq: u64,
    /// Unix milliseconds, until 9999-12-31T23:59:59.999Z; 0: not known.
    pub recorded_at_ms: u64,
    pub kind: u8,
    /// At most 255 bytes.
    pub payload: &'a [u8],
}

/// A column of a record's own; every one of them can be NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub column_type: ColumnType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Integers of 2, 4 and 8 bytes, where a database tells them apart.
    SmallInt,
    Integer,
    BigInt,
    Real,
    Boolean,
    Text,
    Bytes,
}

/// Where a record's columns are written to: one call per column, in order.
pub trait Row {
    fn null(&mut self);
    fn integer(&mut self, value: i64);
    fn real(&mut self, value: f64);
    fn boolean(&mut self, value: bool);
    fn text(&mut self, value: &str);
    fn bytes(&mut self, value: &[u8]);
}

const fn small_int(name: &'static str) -> Column {
    Column {
        name,
        column_type: ColumnType::SmallInt,
    }
}

const fn integer(name: &'static str) -> Column {
    Column {
        name,
        column_type: ColumnType::Integer,
    }
}

const fn big_int(name: &'static str) -> Column {
    Column {
        name,
        column_type: ColumnType::BigInt,
    }
}

const fn real(name: &'static str) -> Column {
    Column {
        name,
        column_type: ColumnType::Real,
    }
}

#[cfg(test)]
mod tests;
