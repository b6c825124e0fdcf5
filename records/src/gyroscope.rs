//! Pure. Kind 3: how the device turns and is shaken.
//!
//! ```text
//! 0        2        4        6                8                10               12
//! | rate x | rate y | rate z | acceleration x | acceleration y | acceleration z |
//! ```

use super::wire::{Field, put_real, wire};
use super::{Column, Flaw, Row, real};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gyroscope {
    /// 0.1 °/s about x, y, z.
    pub rate: [Option<i16>; 3],
    /// 0.001 g along x, y, z.
    pub acceleration: [Option<i16>; 3],
}

impl Gyroscope {
    pub const KIND: u8 = 3;
    pub const TABLE: &'static str = "telemetry_gyroscope";
    pub const COLUMNS: &'static [Column] = &[
        real("rate_x_deg_s"),
        real("rate_y_deg_s"),
        real("rate_z_deg_s"),
        real("acceleration_x_g"),
        real("acceleration_y_g"),
        real("acceleration_z_g"),
    ];

    #[inline]
    pub fn decode(payload: &[u8]) -> Result<Self, Flaw> {
        let &[a, b, c, d, e, f, g, h, i, j, k, l] = payload else {
            return Err(Flaw::Length);
        };
        let axes = |axes: [[u8; 2]; 3]| axes.map(|axis| i16::from_le_bytes(axis).available());
        Ok(Self {
            rate: axes([[a, b], [c, d], [e, f]]),
            acceleration: axes([[g, h], [i, j], [k, l]]),
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        for axis in self.rate.into_iter().chain(self.acceleration) {
            out.extend_from_slice(&wire(axis).to_le_bytes());
        }
    }

    pub fn columns(&self, row: &mut impl Row) {
        for axis in self.rate {
            put_real(row, axis, 10.0);
        }
        for axis in self.acceleration {
            put_real(row, axis, 1000.0);
        }
    }
}
