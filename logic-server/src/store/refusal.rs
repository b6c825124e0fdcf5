//! Pure. What a database says when it does not take a batch, sorted by what helps.
//!
//! Only where it found a value that it will never take is the batch split, until the record is
//! alone. Everything else, whatever it is, passes: the disk is full, another writes, it is read-only,
//! too many are connected. To split for that would set good records aside.

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

#[cfg(test)]
mod tests {
    use super::*;

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
