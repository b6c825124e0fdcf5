//! Pure. Kind 1: where the device is and how it moves.
//!
//! ```text
//! 0         4          8         12     14       16          17    18
//! | latitude | longitude | altitude | speed | heading | satellites | hdop |
//! ```

use super::wire::{Field, put_integer, put_real, wire};
use super::{Column, Flaw, Row, real, small_int};

const DEGREE: u32 = 10_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gps {
    /// 1e-7 °, within ± 90 °.
    pub latitude: Option<i32>,
    /// 1e-7 °, within ± 180 °.
    pub longitude: Option<i32>,
    pub altitude_cm: Option<i32>,
    pub speed_cm_s: Option<u16>,
    /// 0.01 °, below 360 °.
    pub heading: Option<u16>,
    pub satellites: Option<u8>,
    /// 0.1.
    pub hdop: Option<u8>,
}

impl Gps {
    pub const KIND: u8 = 1;
    pub const TABLE: &'static str = "telemetry_gps";
    pub const COLUMNS: &'static [Column] = &[
        real("latitude"),
        real("longitude"),
        real("altitude_m"),
        real("speed_m_s"),
        real("heading_deg"),
        small_int("satellites"),
        real("hdop"),
    ];

    #[inline]
    #[rustfmt::skip]
    pub fn decode(payload: &[u8]) -> Result<Self, Flaw> {
        let &[a0, a1, a2, a3, o0, o1, o2, o3, h0, h1, h2, h3, s0, s1, d0, d1, satellites, hdop] = payload else {
            return Err(Flaw::Length);
        };
        let gps = Self {
            latitude: i32::from_le_bytes([a0, a1, a2, a3]).available(),
            longitude: i32::from_le_bytes([o0, o1, o2, o3]).available(),
            altitude_cm: i32::from_le_bytes([h0, h1, h2, h3]).available(),
            speed_cm_s: u16::from_le_bytes([s0, s1]).available(),
            heading: u16::from_le_bytes([d0, d1]).available(),
            satellites: satellites.available(),
            hdop: hdop.available(),
        };
        if gps.latitude.is_some_and(|latitude| latitude.unsigned_abs() > 90 * DEGREE) {
            return Err(Flaw::Latitude);
        }
        if gps.longitude.is_some_and(|longitude| longitude.unsigned_abs() > 180 * DEGREE) {
            return Err(Flaw::Longitude);
        }
        if gps.heading.is_some_and(|heading| heading >= 36_000) {
            return Err(Flaw::Heading);
        }
        Ok(gps)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&wire(self.latitude).to_le_bytes());
        out.extend_from_slice(&wire(self.longitude).to_le_bytes());
        out.extend_from_slice(&wire(self.altitude_cm).to_le_bytes());
        out.extend_from_slice(&wire(self.speed_cm_s).to_le_bytes());
        out.extend_from_slice(&wire(self.heading).to_le_bytes());
        out.extend_from_slice(&[wire(self.satellites), wire(self.hdop)]);
    }

    pub fn columns(&self, row: &mut impl Row) {
        put_real(row, self.latitude, f64::from(DEGREE));
        put_real(row, self.longitude, f64::from(DEGREE));
        put_real(row, self.altitude_cm, 100.0);
        put_real(row, self.speed_cm_s, 100.0);
        put_real(row, self.heading, 100.0);
        put_integer(row, self.satellites);
        put_real(row, self.hdop, 10.0);
    }
}
