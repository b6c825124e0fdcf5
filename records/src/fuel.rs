//! Pure. Kind 2: what is in the tank and what the engine takes from it.
//!
//! ```text
//! 0       2      6      14
//! | level | rate | used |
//! ```

use super::wire::{Field, put_integer, put_real, wire};
use super::{Column, Flaw, Row, big_int, real};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fuel {
    /// 0.01 %, at most 100 %.
    pub level: Option<u16>,
    pub rate_ml_h: Option<u32>,
    /// Since manufacture; below 2^63, for the column is a BIGINT.
    pub used_ml: Option<u64>,
}

impl Fuel {
    pub const KIND: u8 = 2;
    pub const TABLE: &'static str = "telemetry_fuel";
    pub const COLUMNS: &'static [Column] = &[
        real("level_percent"),
        big_int("rate_ml_h"),
        big_int("used_ml"),
    ];

    #[inline]
    pub fn decode(payload: &[u8]) -> Result<Self, Flaw> {
        let &[l0, l1, r0, r1, r2, r3, ref used @ ..] = payload else {
            return Err(Flaw::Length);
        };
        let &used = <&[u8; 8]>::try_from(used).map_err(|_| Flaw::Length)?;
        let fuel = Self {
            level: u16::from_le_bytes([l0, l1]).available(),
            rate_ml_h: u32::from_le_bytes([r0, r1, r2, r3]).available(),
            used_ml: u64::from_le_bytes(used).available(),
        };
        if fuel.level.is_some_and(|level| level > 10_000) {
            return Err(Flaw::Level);
        }
        if fuel.used_ml.is_some_and(|used_ml| used_ml >= 1 << 63) {
            return Err(Flaw::Used);
        }
        Ok(fuel)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&wire(self.level).to_le_bytes());
        out.extend_from_slice(&wire(self.rate_ml_h).to_le_bytes());
        out.extend_from_slice(&wire(self.used_ml).to_le_bytes());
    }

    pub fn columns(&self, row: &mut impl Row) {
        put_real(row, self.level, 100.0);
        put_integer(row, self.rate_ml_h);
        put_integer(row, self.used_ml.map(u64::cast_signed));
    }
}
