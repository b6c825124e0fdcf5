//! Every wire value survives wire → column → wire, or the record is set aside for what the
//! contract says.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Flaw, Record, Row};

#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Boolean(bool),
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Default)]
struct Cells(Vec<Cell>);

impl Row for Cells {
    fn null(&mut self) {
        self.0.push(Cell::Null);
    }

    fn integer(&mut self, value: i64) {
        self.0.push(Cell::Integer(value));
    }

    fn real(&mut self, value: f64) {
        self.0.push(Cell::Real(value));
    }

    fn boolean(&mut self, value: bool) {
        self.0.push(Cell::Boolean(value));
    }

    fn text(&mut self, value: &str) {
        self.0.push(Cell::Text(value.to_owned()));
    }

    fn bytes(&mut self, value: &[u8]) {
        self.0.push(Cell::Bytes(value.to_vec()));
    }
}

/// Layouts as the contract's table has them: width in bytes (negative: signed) and the divisor.
const LAYOUTS: [&[(i8, f64)]; 5] = [
    &[
        (-4, 1e7),
        (-4, 1e7),
        (-4, 1e2),
        (2, 1e2),
        (2, 1e2),
        (1, 1.0),
        (1, 1e1),
    ],
    &[(2, 1e2), (4, 1.0), (8, 1.0)],
    &[
        (-2, 1e1),
        (-2, 1e1),
        (-2, 1e1),
        (-2, 1e3),
        (-2, 1e3),
        (-2, 1e3),
    ],
    &[(2, 1.0), (-2, 1e1), (2, 1e3), (4, 1.0)],
    &[],
];

fn check_columns(kind: u8, payload: &[u8]) -> Result<(), TestCaseError> {
    let record = match Record::decode(kind, payload) {
        Ok(record) => record,
        Err(flaw) => {
            prop_assert!((1..=5).contains(&kind), "{:?} of kind {}", flaw, kind);
            return Ok(());
        }
    };
    let mut again = Vec::new();
    record.encode_payload(&mut again);
    prop_assert_eq!(&again, payload);
    prop_assert_eq!(record.kind(), kind);

    let mut cells = Cells::default();
    record.columns(&mut cells);
    prop_assert_eq!(cells.0.len(), record.table().columns().len());
    prop_assert_eq!(rebuild(kind, &cells.0), payload);
    Ok(())
}

/// The payload from the row alone, as a checker does it.
fn rebuild(kind: u8, cells: &[Cell]) -> Vec<u8> {
    let layout = LAYOUTS
        .get(usize::from(kind).wrapping_sub(1))
        .copied()
        .unwrap_or_default();
    let mut payload = Vec::new();
    for (&(width, per_unit), cell) in layout.iter().zip(cells) {
        let bytes = usize::from(width.unsigned_abs());
        let not_available = if width < 0 {
            i64::MIN >> (64 - 8 * bytes)
        } else {
            -1
        };
        let wire = match *cell {
            Cell::Null => not_available,
            Cell::Integer(value) => value,
            Cell::Real(value) => (value * per_unit).round() as i64,
            ref other => panic!("{other:?}"),
        };
        payload.extend_from_slice(&wire.to_le_bytes()[..bytes]);
    }
    match &cells[layout.len()..] {
        [Cell::Boolean(lamp), Cell::Integer(flags), Cell::Text(codes)] => {
            assert_eq!(*lamp, flags & 1 == 1);
            let codes: Vec<&str> = codes.split_terminator(' ').collect();
            payload.extend_from_slice(&[*flags as u8, codes.len() as u8]);
            for code in codes {
                let letter = "PCBU".find(&code[..1]).expect("a letter") as u16;
                let digits = u16::from_str_radix(&code[1..], 16).expect("hex digits");
                payload.extend_from_slice(&(letter << 14 | digits).to_le_bytes());
            }
        }
        [Cell::Integer(of_kind), channel, Cell::Bytes(bytes)] => {
            assert_eq!(*of_kind, i64::from(kind));
            if let Cell::Integer(channel) = channel {
                payload.extend_from_slice(&(*channel as u16).to_le_bytes());
            }
            payload.extend_from_slice(bytes);
        }
        [] => {}
        other => panic!("{other:?}"),
    }
    payload
}

proptest! {
    /// Every payload of a known kind survives wire → columns → wire, or is set aside.
    #[test]
    fn a_payload_survives_its_columns(
        kind in 0_u8..7,
        payload in vec(prop_oneof![Just(0), Just(0xFF), Just(0x80), any::<u8>()], 0..40),
        length in prop_oneof![Just(18_usize), Just(14), Just(12), 0_usize..40],
    ) {
        let mut payload = payload;
        payload.resize(length, 0);
        check_columns(kind, &payload)?;
    }

    #[test]
    fn positions_survive_their_columns(
        latitude in -900_000_000..=900_000_000_i32,
        longitude in -1_800_000_000..=1_800_000_000_i32,
        altitude_cm: i32,
        rest in vec(any::<u8>(), 6),
    ) {
        let mut payload = [latitude, longitude, altitude_cm].map(i32::to_le_bytes).concat();
        payload.extend_from_slice(&rest);
        payload[14..16].copy_from_slice(&35_999_u16.to_le_bytes());
        check_columns(1, &payload)?;
    }
}

#[test]
fn sixteen_bit_fields_survive_their_columns_whatever_they_hold() {
    for wire in 0..=u16::MAX {
        let [low, high] = wire.to_le_bytes();
        let gyroscope = [low, high].repeat(6);
        check_columns(3, &gyroscope).expect("every gyroscope record is right");
        let mut diagnosis = [low, high].repeat(5);
        diagnosis.extend_from_slice(&[low, 1, low, high]);
        check_columns(4, &diagnosis).expect("every diagnosis record of this length is right");
    }
}

#[test]
fn ranges_end_where_the_contract_says() {
    let gps = |latitude: i32, longitude: i32, heading: u16| {
        let mut payload = [latitude, longitude, 0].map(i32::to_le_bytes).concat();
        payload.extend_from_slice(&[0, 0]);
        payload.extend_from_slice(&heading.to_le_bytes());
        payload.extend_from_slice(&[0, 0]);
        Record::decode(1, &payload).err()
    };
    let fuel = |level: u16, used_ml: u64| {
        let payload = [&level.to_le_bytes()[..], &[0; 4], &used_ml.to_le_bytes()].concat();
        Record::decode(2, &payload).err()
    };
    let right = None;
    for (latitude, flaw) in [
        (900_000_000, right),
        (-900_000_000, right),
        (i32::MIN, right),
        (900_000_001, Some(Flaw::Latitude)),
        (-900_000_001, Some(Flaw::Latitude)),
        (i32::MIN + 1, Some(Flaw::Latitude)),
    ] {
        assert_eq!(gps(latitude, 0, 0), flaw, "latitude {latitude}");
    }
    for (longitude, flaw) in [
        (1_800_000_000, right),
        (i32::MIN, right),
        (1_800_000_001, Some(Flaw::Longitude)),
        (-1_800_000_001, Some(Flaw::Longitude)),
    ] {
        assert_eq!(gps(0, longitude, 0), flaw, "longitude {longitude}");
    }
    for (heading, flaw) in [
        (35_999, right),
        (u16::MAX, right),
        (36_000, Some(Flaw::Heading)),
        (u16::MAX - 1, Some(Flaw::Heading)),
    ] {
        assert_eq!(gps(0, 0, heading), flaw, "heading {heading}");
    }
    for (level, used_ml, flaw) in [
        (10_000, (1 << 63) - 1, right),
        (u16::MAX, u64::MAX, right),
        (10_001, 0, Some(Flaw::Level)),
        (0, 1 << 63, Some(Flaw::Used)),
        (0, u64::MAX - 1, Some(Flaw::Used)),
    ] {
        assert_eq!(fuel(level, used_ml), flaw, "level {level}, used {used_ml}");
    }
}

#[test]
fn a_payload_of_another_length_is_a_flaw_of_that_name() {
    for (kind, right) in [(1, 18), (2, 14), (3, 12)] {
        for length in 0..=255 {
            let flaw = Record::decode(kind, &vec![0; length]).err();
            assert_eq!(
                flaw,
                (length != right).then_some(Flaw::Length),
                "{kind}, {length}"
            );
        }
    }
    for length in 0..=255_usize {
        for n in 0..=255_u8 {
            let mut payload = vec![0; length];
            if let Some(place) = payload.get_mut(11) {
                *place = n;
            }
            let right = length == 12 + 2 * usize::from(n);
            assert_eq!(Record::decode(4, &payload).is_ok(), right, "{length}, {n}");
        }
    }
    assert_eq!(Record::decode(5, &[1]), Err(Flaw::Length));
    assert!(Record::decode(5, &[1, 2]).is_ok());
    assert!(Record::decode(0, &[]).is_ok());
}
