//! Pure. What a database says when it does not take a batch, sorted by what helps.
//!
//! Only where it found a value that it will never take is the record set aside. Everything else is no
//! record's fault: the disk is full, another writes, it is read-only, too many are connected. To set
//! records aside for that would be to lose good ones. Most of it passes by itself; where only a person
//! can mend it, he is told what to do ([`Trouble`]).

/// What is the matter with a database that took no work, for no fault of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Likely to pass. It is tried again, as in every case.
    Passing,
    /// The user of the database may not do what has to be done.
    Rights,
    /// Its tables are not those that this program knows.
    Tables,
}

impl Trouble {
    /// As `/readyz` has it.
    pub const fn told(self) -> &'static str {
        match self {
            Self::Passing => "the database does not take batches",
            Self::Rights => "the database does not let it write: run roles.sql again",
            Self::Tables => "the database has not the tables that it needs: run `rcu db migrate`",
        }
    }
}

/// An extended result code of SQLite; its lowest byte is the primary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqliteCode(pub u32);

impl SqliteCode {
    pub const BUSY: Self = Self(5);
    pub const READONLY: Self = Self(8);
    pub const IO_ERROR: Self = Self(10);
    pub const FULL: Self = Self(13);
    pub const CANNOT_OPEN: Self = Self(14);
    const TOO_BIG: u32 = 18;
    const CONSTRAINT: u32 = 19;
    const MISMATCH: u32 = 20;
    pub const CONSTRAINT_CHECK: Self = Self(Self::CONSTRAINT | 1 << 8);
    pub const CONSTRAINT_PRIMARY_KEY: Self = Self(Self::CONSTRAINT | 6 << 8);
    pub const CONSTRAINT_UNIQUE: Self = Self(Self::CONSTRAINT | 8 << 8);

    /// Whether it is about a value that the database will never take. A unique key that is taken is
    /// none: that row is there.
    pub fn refuses_the_value(self) -> bool {
        let of_value = matches!(
            self.0 & 0xFF,
            Self::TOO_BIG | Self::CONSTRAINT | Self::MISMATCH
        );
        of_value && self != Self::CONSTRAINT_PRIMARY_KEY && self != Self::CONSTRAINT_UNIQUE
    }
}

/// What PostgreSQL says: an SQLSTATE, of which the first two characters are its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlState([u8; 5]);

impl SqlState {
    pub const UNIQUE_VIOLATION: Self = Self(*b"23505");
    /// A value is outside of its constraint; or, without the name of a constraint, a row belongs into
    /// no partition.
    pub const CHECK_VIOLATION: Self = Self(*b"23514");
    /// COPY data that is not what the columns are: how it was sent is wrong, not what.
    const BINARY_REPRESENTATION: Self = Self(*b"22P03");
    const COPY_FILE_FORMAT: Self = Self(*b"22P04");
    const OF_VALUES: [&[u8]; 2] = [b"22", b"23"];
    const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    /// Syntax and names; schemas; what a table of this kind cannot do.
    const OF_TABLES: [&[u8]; 3] = [b"42", b"3F", b"0A"];

    /// `None`: it has not five characters.
    pub fn from_code(code: &str) -> Option<Self> {
        code.as_bytes().try_into().ok().map(Self)
    }

    /// Whether it is about a value that the database will never take. A unique key that is taken is
    /// none: that row is there.
    pub fn refuses_the_value(self, names_constraint: bool) -> bool {
        match self {
            Self::UNIQUE_VIOLATION | Self::BINARY_REPRESENTATION | Self::COPY_FILE_FORMAT => false,
            Self::CHECK_VIOLATION => names_constraint,
            Self(code) => Self::OF_VALUES.contains(&&code[..2]),
        }
    }

    /// Where it refuses no value.
    pub fn trouble(self) -> Trouble {
        match self {
            Self::INSUFFICIENT_PRIVILEGE => Trouble::Rights,
            // A column of another type; a row without a partition.
            Self::BINARY_REPRESENTATION | Self::COPY_FILE_FORMAT | Self::CHECK_VIOLATION => {
                Trouble::Tables
            }
            Self(code) if Self::OF_TABLES.contains(&&code[..2]) => Trouble::Tables,
            Self(_) => Trouble::Passing,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_a_value_is_refused_by_postgresql() {
        let refuses = |code: &str, names_constraint| {
            let state = SqlState::from_code(code).unwrap();
            state.refuses_the_value(names_constraint)
        };
        // numeric_value_out_of_range, datetime_field_overflow, character_not_in_repertoire,
        // not_null_violation, check_violation of a constraint.
        for code in ["22003", "22008", "22021", "23502", "23514"] {
            assert!(refuses(code, true), "{code}");
        }
        // unique_violation, then wrong COPY data, serialization_failure, deadlock, read-only, disk
        // full, too many connections, shutdown, canceled, no privilege, no table.
        for code in [
            "23505", "22P03", "22P04", "40001", "40P01", "25006", "53100", "53300", "57P01",
            "57014", "42501", "42P01",
        ] {
            assert!(!refuses(code, true), "{code}");
        }
        // "no partition of relation found for row" is a check_violation without a constraint.
        assert!(!refuses("23514", false));
        assert_eq!(SqlState::from_code("22"), None);
    }

    #[test]
    fn what_only_a_person_mends_is_told_from_what_passes() {
        let trouble = |code: &str| SqlState::from_code(code).unwrap().trouble();
        assert_eq!(trouble("42501"), Trouble::Rights);
        // No table, no column, no function, another type of a column, no partition.
        for code in [
            "42P01", "42703", "42883", "42804", "22P03", "22P04", "23514",
        ] {
            assert_eq!(trouble(code), Trouble::Tables, "{code}");
        }
        for code in [
            "40001", "40P01", "25006", "53100", "53300", "57P01", "57014",
        ] {
            assert_eq!(trouble(code), Trouble::Passing, "{code}");
        }
    }

    #[test]
    fn only_a_value_is_refused() {
        // SQLITE_CONSTRAINT_CHECK, _NOTNULL, _DATATYPE; SQLITE_TOOBIG, SQLITE_MISMATCH.
        for code in [275, 1_299, 3_091, 18, 20] {
            assert!(SqliteCode(code).refuses_the_value(), "{code}");
        }
        // SQLITE_CONSTRAINT_PRIMARYKEY and _UNIQUE, then BUSY, LOCKED, READONLY, IOERR_FSYNC,
        // CORRUPT, FULL, CANTOPEN.
        for code in [1_555, 2_067, 5, 6, 8, 1_034, 11, 13, 14] {
            assert!(!SqliteCode(code).refuses_the_value(), "{code}");
        }
        assert_eq!(SqliteCode::CONSTRAINT_CHECK, SqliteCode(275));
        assert_eq!(SqliteCode::CONSTRAINT_PRIMARY_KEY, SqliteCode(1_555));
        assert_eq!(SqliteCode::CONSTRAINT_UNIQUE, SqliteCode(2_067));
    }
}
