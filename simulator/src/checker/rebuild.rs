//! Pure. From the columns of a row back to the payload that was sent.
//!
//! Written from the contract and the schema alone: it shares nothing with the code that made the
//! columns, so that a mistake there is not made twice.

use thiserror::Error;

/// A wire number times its unit lands this close to a whole number, or the column was altered.
const TOLERANCE: f64 = 1e-3;

/// A record as its device sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    pub kind: u8,
    pub payload: Vec<u8>,
}

/// Columns that no payload gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Misfit {
    #[error("{0} is no value of its field")]
    Value(&'static str),
    #[error("malfunction_lamp is not bit 0 of flags")]
    Lamp,
    #[error("kind {0} does not belong into this table")]
    Table(i64),
}

/// `telemetry_gps`, column by column.
#[derive(Clone, Copy, Debug)]
pub struct GpsColumns {
    pub latitude: Option<f64>,
    pub longitude: Option<f64>,
    pub altitude_m: Option<f64>,
    pub speed_m_s: Option<f64>,
    pub heading_deg: Option<f64>,
    pub satellites: Option<i64>,
    pub hdop: Option<f64>,
}

/// `telemetry_fuel`.
#[derive(Clone, Copy, Debug)]
pub struct FuelColumns {
    pub level_percent: Option<f64>,
    pub rate_ml_h: Option<i64>,
    pub used_ml: Option<i64>,
}

/// `telemetry_gyroscope`: x, y, z.
#[derive(Clone, Copy, Debug)]
pub struct GyroscopeColumns {
    pub rate_deg_s: [Option<f64>; 3],
    pub acceleration_g: [Option<f64>; 3],
}

/// `telemetry_diagnosis`.
#[derive(Clone, Copy, Debug)]
pub struct DiagnosisColumns<'a> {
    pub rpm: Option<i64>,
    pub coolant_c: Option<f64>,
    pub battery_v: Option<f64>,
    pub odometer_m: Option<i64>,
    pub malfunction_lamp: i64,
    pub flags: i64,
    pub trouble_codes: &'a str,
}

impl GpsColumns {
    pub fn rebuild(&self) -> Result<Rebuilt, Misfit> {
        let mut out = Payload::default();
        out.signed("latitude", scaled("latitude", self.latitude, 1e7)?, 4)?;
        out.signed("longitude", scaled("longitude", self.longitude, 1e7)?, 4)?;
        out.signed(
            "altitude_m",
            scaled("altitude_m", self.altitude_m, 100.0)?,
            4,
        )?;
        out.unsigned("speed_m_s", scaled("speed_m_s", self.speed_m_s, 100.0)?, 2)?;
        out.unsigned(
            "heading_deg",
            scaled("heading_deg", self.heading_deg, 100.0)?,
            2,
        )?;
        out.unsigned("satellites", self.satellites, 1)?;
        out.unsigned("hdop", scaled("hdop", self.hdop, 10.0)?, 1)?;
        Ok(out.of_kind(1))
    }
}

impl FuelColumns {
    pub fn rebuild(&self) -> Result<Rebuilt, Misfit> {
        let mut out = Payload::default();
        out.unsigned(
            "level_percent",
            scaled("level_percent", self.level_percent, 100.0)?,
            2,
        )?;
        out.unsigned("rate_ml_h", self.rate_ml_h, 4)?;
        out.unsigned("used_ml", self.used_ml, 8)?;
        Ok(out.of_kind(2))
    }
}

impl GyroscopeColumns {
    pub fn rebuild(&self) -> Result<Rebuilt, Misfit> {
        let mut out = Payload::default();
        for rate in self.rate_deg_s {
            out.signed("rate_deg_s", scaled("rate_deg_s", rate, 10.0)?, 2)?;
        }
        for acceleration in self.acceleration_g {
            out.signed(
                "acceleration_g",
                scaled("acceleration_g", acceleration, 1_000.0)?,
                2,
            )?;
        }
        Ok(out.of_kind(3))
    }
}

impl DiagnosisColumns<'_> {
    pub fn rebuild(&self) -> Result<Rebuilt, Misfit> {
        let flags = u8::try_from(self.flags).map_err(|_| Misfit::Value("flags"))?;
        if self.malfunction_lamp != i64::from(flags & 1) {
            return Err(Misfit::Lamp);
        }
        let codes = trouble_codes(self.trouble_codes)?;
        let count = u8::try_from(codes.len()).map_err(|_| Misfit::Value("trouble_codes"))?;
        let mut out = Payload::default();
        out.unsigned("rpm", self.rpm, 2)?;
        out.signed("coolant_c", scaled("coolant_c", self.coolant_c, 10.0)?, 2)?;
        out.unsigned(
            "battery_v",
            scaled("battery_v", self.battery_v, 1_000.0)?,
            2,
        )?;
        out.unsigned("odometer_m", self.odometer_m, 4)?;
        out.bytes.extend([flags, count]);
        for code in codes {
            out.bytes.extend(code.to_le_bytes());
        }
        Ok(out.of_kind(4))
    }
}

/// `telemetry_custom`: kind 5 with its channel, or a kind that the contract does not list
/// without one.
pub fn custom(kind: i64, channel: Option<i64>, payload: &[u8]) -> Result<Rebuilt, Misfit> {
    let kind = match kind {
        0 | 5..=255 => kind as u8,
        _ => return Err(Misfit::Table(kind)),
    };
    let channel = match (kind, channel) {
        (5, Some(channel)) => Some(u16::try_from(channel).map_err(|_| Misfit::Value("channel"))?),
        (5, None) | (_, Some(_)) => return Err(Misfit::Value("channel")),
        (_, None) => None,
    };
    let head = channel.map(u16::to_le_bytes);
    let payload = [head.as_ref().map_or(&[][..], |head| head), payload].concat();
    Ok(Rebuilt { kind, payload })
}

/// `dead_letter` keeps what came.
pub fn dead_letter(kind: i64, payload: &[u8]) -> Result<Rebuilt, Misfit> {
    Ok(Rebuilt {
        kind: u8::try_from(kind).map_err(|_| Misfit::Value("kind"))?,
        payload: payload.to_vec(),
    })
}

#[derive(Default)]
struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    /// All ones where it is not available, which no value may be.
    fn unsigned(
        &mut self,
        name: &'static str,
        value: Option<i64>,
        bytes: usize,
    ) -> Result<(), Misfit> {
        let not_available = u64::MAX >> (64 - 8 * bytes);
        let wire = match value {
            Some(value) => u64::try_from(value)
                .ok()
                .filter(|&value| value < not_available)
                .ok_or(Misfit::Value(name))?,
            None => not_available,
        };
        self.bytes.extend(&wire.to_le_bytes()[..bytes]);
        Ok(())
    }

    /// The most negative number where it is not available, which no value may be.
    fn signed(
        &mut self,
        name: &'static str,
        value: Option<i64>,
        bytes: usize,
    ) -> Result<(), Misfit> {
        let not_available = i64::MIN >> (64 - 8 * bytes);
        let wire = match value {
            Some(value) if value > not_available && value <= -(not_available + 1) => value,
            Some(_) => return Err(Misfit::Value(name)),
            None => not_available,
        };
        self.bytes.extend(&wire.to_le_bytes()[..bytes]);
        Ok(())
    }

    fn of_kind(self, kind: u8) -> Rebuilt {
        Rebuilt {
            kind,
            payload: self.bytes,
        }
    }
}

/// A column in physical units as the wire's whole number.
fn scaled(name: &'static str, value: Option<f64>, per_unit: f64) -> Result<Option<i64>, Misfit> {
    let Some(value) = value else {
        return Ok(None);
    };
    let wire = value * per_unit;
    let whole = wire.round();
    if !wire.is_finite() || (wire - whole).abs() > TOLERANCE || whole.abs() > 1e15 {
        return Err(Misfit::Value(name));
    }
    Ok(Some(whole as i64))
}

/// `P0301 C0123`; empty for none.
fn trouble_codes(text: &str) -> Result<Vec<u16>, Misfit> {
    let mut codes = Vec::new();
    for code in text.split(' ').filter(|_| !text.is_empty()) {
        codes.push(trouble_code(code).ok_or(Misfit::Value("trouble_codes"))?);
    }
    Ok(codes)
}

/// Letter and first digit in two bits each, then three digits of four bits.
fn trouble_code(text: &str) -> Option<u16> {
    let &[letter, first, ref digits @ ..] = text.as_bytes() else {
        return None;
    };
    let letter = b"PCBU".iter().position(|&known| known == letter)? as u16;
    if !(b'0'..=b'3').contains(&first) || digits.len() != 3 {
        return None;
    }
    let head = letter << 2 | u16::from(first - b'0');
    digits.iter().try_fold(head, |bits, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        Some(bits << 4 | u16::from(value))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The records of the contract's vector "telemetry, one record of each kind".
    #[test]
    fn the_contracts_example_is_rebuilt() {
        let gps = GpsColumns {
            latitude: Some(31.1234567),
            longitude: Some(121.456789),
            altitude_m: Some(-12.5),
            speed_m_s: Some(13.89),
            heading_deg: Some(270.15),
            satellites: Some(9),
            hdop: Some(0.8),
        };
        let fuel = FuelColumns {
            level_percent: Some(73.5),
            rate_ml_h: Some(4_200),
            used_ml: Some(123_456_789_012),
        };
        let gyroscope = GyroscopeColumns {
            rate_deg_s: [Some(-1.5), Some(0.0), Some(3.2)],
            acceleration_g: [Some(0.005), Some(-0.012), Some(1.001)],
        };
        let diagnosis = DiagnosisColumns {
            rpm: Some(2_150),
            coolant_c: Some(91.5),
            battery_v: Some(13.85),
            odometer_m: Some(84_213_377),
            malfunction_lamp: 1,
            flags: 1,
            trouble_codes: "P0301 C0123",
        };
        for (rebuilt, payload) in [
            (gps.rebuild(), "07108d12d2d564481efbffff6d0587690908"),
            (fuel.rebuild(), "b61c68100000141a99be1c000000"),
            (gyroscope.rebuild(), "f1ff000020000500f4ffe903"),
            (diagnosis.rebuild(), "660893031a3681fe0405010201032341"),
            (custom(5, Some(513), &[1, 2, 3]), "0102010203"),
            (custom(200, None, &[0xaa, 0xbb]), "aabb"),
        ] {
            assert_eq!(hex(&rebuilt.unwrap().payload), payload);
        }
    }

    #[test]
    fn null_is_not_available() {
        let gps = GpsColumns {
            latitude: None,
            longitude: None,
            altitude_m: None,
            speed_m_s: None,
            heading_deg: None,
            satellites: None,
            hdop: None,
        };
        let payload = gps.rebuild().unwrap().payload;
        assert_eq!(hex(&payload), "000000800000008000000080ffffffffffff");
        let fuel = FuelColumns {
            level_percent: None,
            rate_ml_h: None,
            used_ml: None,
        };
        assert_eq!(fuel.rebuild().unwrap().payload, [0xFF; 14]);
        let gyroscope = GyroscopeColumns {
            rate_deg_s: [None; 3],
            acceleration_g: [None; 3],
        };
        assert_eq!(gyroscope.rebuild().unwrap().payload, [0, 0x80].repeat(6));
    }

    #[test]
    fn a_value_that_no_wire_number_gives_is_a_misfit() {
        for (value, per_unit) in [
            (31.12345678, 1e7),
            (0.5, 1.0),
            (f64::NAN, 10.0),
            (f64::INFINITY, 10.0),
            (1e300, 10.0),
        ] {
            assert_eq!(scaled("x", Some(value), per_unit), Err(Misfit::Value("x")));
        }
        // The number that means *not available* is no value.
        let mut out = Payload::default();
        for (value, bytes) in [(0xFF, 1), (0xFFFF, 2), (-1, 4), (1 << 32, 4)] {
            assert!(out.unsigned("x", Some(value), bytes).is_err());
        }
        for value in [-32_768, 32_768, i64::MIN, i64::MAX] {
            assert!(out.signed("x", Some(value), 2).is_err());
        }
        assert!(out.signed("x", Some(-32_767), 2).is_ok());
        assert!(out.signed("x", Some(32_767), 2).is_ok());
        assert!(out.unsigned("x", Some(i64::MAX), 8).is_ok());
    }

    #[test]
    fn every_trouble_code_is_read_back() {
        for (text, code) in [
            ("P0301", 0x0301),
            ("C0123", 0x4123),
            ("B2ABC", 0xAABC),
            ("U3FFF", 0xFFFF),
            ("P0000", 0),
        ] {
            assert_eq!(trouble_codes(text), Ok(vec![code]));
        }
        assert_eq!(trouble_codes(""), Ok(vec![]));
        for wrong in [
            " ", "P030", "P4000", "X0301", "P0301 ", "P03012", "p0301", "P03O1",
        ] {
            assert!(trouble_codes(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_kind_with_a_table_of_its_own_is_a_misfit_in_custom() {
        for kind in [1, 2, 3, 4, -1, 256] {
            assert_eq!(custom(kind, None, b""), Err(Misfit::Table(kind)));
        }
        assert!(custom(5, None, b"").is_err());
        assert!(custom(6, Some(1), b"").is_err());
        assert!(custom(5, Some(65_536), b"").is_err());
    }

    #[test]
    fn the_lamp_is_a_bit_of_the_flags() {
        let diagnosis = |malfunction_lamp, flags| {
            DiagnosisColumns {
                rpm: None,
                coolant_c: None,
                battery_v: None,
                odometer_m: None,
                malfunction_lamp,
                flags,
                trouble_codes: "",
            }
            .rebuild()
        };
        assert!(diagnosis(0, 0xFE).is_ok());
        assert_eq!(diagnosis(1, 0xFE), Err(Misfit::Lamp));
        assert_eq!(diagnosis(0, 1), Err(Misfit::Lamp));
        assert_eq!(diagnosis(0, 256), Err(Misfit::Value("flags")));
    }
}
