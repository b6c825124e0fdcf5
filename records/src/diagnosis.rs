//! Pure. Kind 4: what the vehicle says of itself.
//!
//! ```text
//! 0     2         4         6          10      11  12          12 + 2n
//! | rpm | coolant | battery | odometer | flags | n | n × u16 … |
//! ```

use std::fmt;

use super::wire::{Field, put_integer, put_real, wire};
use super::{Column, ColumnType, Flaw, Row, big_int, integer, real, small_int};

const FIXED_BYTES: usize = 12;
/// `P0301 `, with the space that follows.
const CODE_TEXT_BYTES: usize = 6;
/// As many as a payload of 255 bytes holds.
const CODES_MAX: usize = (u8::MAX as usize - FIXED_BYTES) / 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnosis<'a> {
    pub rpm: Option<u16>,
    /// 0.1 °C.
    pub coolant: Option<i16>,
    pub battery_mv: Option<u16>,
    pub odometer_m: Option<u32>,
    /// Bit 0: malfunction lamp. The others are kept as they came.
    pub flags: u8,
    pub trouble_codes: TroubleCodes<'a>,
}

impl<'a> Diagnosis<'a> {
    pub const KIND: u8 = 4;
    pub const TABLE: &'static str = "telemetry_diagnosis";
    pub const COLUMNS: &'static [Column] = &[
        integer("rpm"),
        real("coolant_c"),
        real("battery_v"),
        big_int("odometer_m"),
        Column {
            name: "malfunction_lamp",
            column_type: ColumnType::Boolean,
        },
        small_int("flags"),
        Column {
            name: "trouble_codes",
            column_type: ColumnType::Text,
        },
    ];

    #[inline]
    pub fn decode(payload: &'a [u8]) -> Result<Self, Flaw> {
        let &[
            r0,
            r1,
            c0,
            c1,
            b0,
            b1,
            o0,
            o1,
            o2,
            o3,
            flags,
            n,
            ref codes @ ..,
        ] = payload
        else {
            return Err(Flaw::Length);
        };
        if codes.len() != 2 * usize::from(n) {
            return Err(Flaw::Length);
        }
        Ok(Self {
            rpm: u16::from_le_bytes([r0, r1]).available(),
            coolant: i16::from_le_bytes([c0, c1]).available(),
            battery_mv: u16::from_le_bytes([b0, b1]).available(),
            odometer_m: u32::from_le_bytes([o0, o1, o2, o3]).available(),
            flags,
            trouble_codes: TroubleCodes { wire: codes },
        })
    }

    pub fn malfunction_lamp(&self) -> bool {
        self.flags & 1 != 0
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&wire(self.rpm).to_le_bytes());
        out.extend_from_slice(&wire(self.coolant).to_le_bytes());
        out.extend_from_slice(&wire(self.battery_mv).to_le_bytes());
        out.extend_from_slice(&wire(self.odometer_m).to_le_bytes());
        out.extend_from_slice(&[self.flags, self.trouble_codes.count()]);
        out.extend_from_slice(self.trouble_codes.wire);
    }

    pub fn columns(&self, row: &mut impl Row) {
        put_integer(row, self.rpm);
        put_real(row, self.coolant, 10.0);
        put_real(row, self.battery_mv, 1000.0);
        put_integer(row, self.odometer_m);
        row.boolean(self.malfunction_lamp());
        row.integer(self.flags.into());
        self.trouble_codes.with_text(|text| row.text(text));
    }
}

/// The trouble codes of a record, as on the wire: two bytes each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TroubleCodes<'a> {
    wire: &'a [u8],
}

impl<'a> TroubleCodes<'a> {
    /// From codes as they stand on the wire; `None` for half a code or more than a record holds.
    pub fn from_wire(wire: &'a [u8]) -> Option<Self> {
        (wire.len().is_multiple_of(2) && wire.len() / 2 <= CODES_MAX).then_some(Self { wire })
    }

    pub fn iter(&self) -> impl Iterator<Item = TroubleCode> + use<'a> {
        let (codes, _) = self.wire.as_chunks();
        codes
            .iter()
            .map(|&code| TroubleCode(u16::from_le_bytes(code)))
    }

    fn count(&self) -> u8 {
        (self.wire.len() / 2) as u8
    }

    /// `P0301 C0123`, without an allocation.
    fn with_text<T>(&self, take: impl FnOnce(&str) -> T) -> T {
        let mut text = [b' '; CODES_MAX * CODE_TEXT_BYTES];
        let mut end = 0;
        for (place, code) in text.as_chunks_mut().0.iter_mut().zip(self.iter()) {
            let [code_text @ .., _space]: &mut [u8; CODE_TEXT_BYTES] = place;
            *code_text = code.text();
            end += CODE_TEXT_BYTES;
        }
        let text = &text[..end.saturating_sub(1)];
        take(str::from_utf8(text).expect("trouble codes are ASCII"))
    }
}

/// `P0301` is 0x0301: letter (P 0, C 1, B 2, U 3) << 14, first digit << 12, three hex digits.
/// Every u16 is a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TroubleCode(pub u16);

impl TroubleCode {
    fn text(self) -> [u8; 5] {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let nibble = |shift: u16| usize::from(self.0 >> shift & 0xF);
        [
            b"PCBU"[nibble(12) >> 2],
            HEX[nibble(12) & 3],
            HEX[nibble(8)],
            HEX[nibble(4)],
            HEX[nibble(0)],
        ]
    }
}

impl fmt::Display for TroubleCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(str::from_utf8(&self.text()).expect("trouble codes are ASCII"))
    }
}
