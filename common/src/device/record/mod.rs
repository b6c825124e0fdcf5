//! Pure. Telemetry records: what a kind's payload means, and the row that it becomes.
//!
//! Each kind is one entry, in the file of its name: layout, ranges, columns. Here they are
//! listed; nothing else in the servers matches on kinds. A kind that is not in the list is kept
//! as it came. Fields are the wire's integers; `None` is *not available* on the wire and NULL in
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

/// One record, decoded and in range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Gps(Gps),
    Fuel(Fuel),
    Gyroscope(Gyroscope),
    Diagnosis(Diagnosis<'a>),
    Custom(Custom<'a>),
    Unknown(Unknown<'a>),
}

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

impl<'a> Record<'a> {
    /// Allocates nothing. A kind that is not listed has no flaws.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, Flaw> {
        match kind {
            Gps::KIND => Gps::decode(payload).map(Self::Gps),
            Fuel::KIND => Fuel::decode(payload).map(Self::Fuel),
            Gyroscope::KIND => Gyroscope::decode(payload).map(Self::Gyroscope),
            Diagnosis::KIND => Diagnosis::decode(payload).map(Self::Diagnosis),
            Custom::KIND => Custom::decode(payload).map(Self::Custom),
            kind => Ok(Self::Unknown(Unknown { kind, payload })),
        }
    }

    pub fn kind(&self) -> u8 {
        match self {
            Self::Gps(_) => Gps::KIND,
            Self::Fuel(_) => Fuel::KIND,
            Self::Gyroscope(_) => Gyroscope::KIND,
            Self::Diagnosis(_) => Diagnosis::KIND,
            Self::Custom(_) => Custom::KIND,
            Self::Unknown(unknown) => unknown.kind,
        }
    }

    /// Appends the payload as it stands on the wire.
    pub fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Gps(gps) => gps.encode(out),
            Self::Fuel(fuel) => fuel.encode(out),
            Self::Gyroscope(gyroscope) => gyroscope.encode(out),
            Self::Diagnosis(diagnosis) => diagnosis.encode(out),
            Self::Custom(custom) => custom.encode(out),
            Self::Unknown(unknown) => out.extend_from_slice(unknown.payload),
        }
    }

    pub fn table(&self) -> Table {
        match self {
            Self::Gps(_) => Table::Gps,
            Self::Fuel(_) => Table::Fuel,
            Self::Gyroscope(_) => Table::Gyroscope,
            Self::Diagnosis(_) => Table::Diagnosis,
            Self::Custom(_) | Self::Unknown(_) => Table::Custom,
        }
    }

    /// Writes the record's own columns, one call each, in the order of [`Table::columns`].
    pub fn columns(&self, row: &mut impl Row) {
        match self {
            Self::Gps(gps) => gps.columns(row),
            Self::Fuel(fuel) => fuel.columns(row),
            Self::Gyroscope(gyroscope) => gyroscope.columns(row),
            Self::Diagnosis(diagnosis) => diagnosis.columns(row),
            Self::Custom(custom) => custom.columns(row),
            Self::Unknown(unknown) => unknown.columns(row),
        }
    }
}

/// A table of the telemetry database. Before these columns it has `account_id`, `seq`,
/// `recorded_at` and `received_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    Gps,
    Fuel,
    Gyroscope,
    Diagnosis,
    /// Unknown kinds too.
    Custom,
}

impl Table {
    /// In the order of `self as usize`.
    pub const ALL: [Self; 5] = [
        Self::Gps,
        Self::Fuel,
        Self::Gyroscope,
        Self::Diagnosis,
        Self::Custom,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Gps => Gps::TABLE,
            Self::Fuel => Fuel::TABLE,
            Self::Gyroscope => Gyroscope::TABLE,
            Self::Diagnosis => Diagnosis::TABLE,
            Self::Custom => Custom::TABLE,
        }
    }

    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Gps => Gps::COLUMNS,
            Self::Fuel => Fuel::COLUMNS,
            Self::Gyroscope => Gyroscope::COLUMNS,
            Self::Diagnosis => Diagnosis::COLUMNS,
            Self::Custom => Custom::COLUMNS,
        }
    }
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
