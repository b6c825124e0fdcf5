//! One telemetry record: it is set aside exactly where the contract says so, is made again byte for
//! byte, and can be rebuilt from its columns, as the checker does it after a run.
//!
//! ```text
//! 0      1 …
//! | kind | payload
//! ```

use records::{ColumnType, Record, Row};
use simulator::checker::rebuild::{
    self, DiagnosisColumns, FuelColumns, GpsColumns, GyroscopeColumns, Misfit, Rebuilt,
};

use crate::contract;

pub fn record(data: &[u8]) {
    let [kind, payload @ ..] = data else {
        return;
    };
    let (kind, payload) = (*kind, &payload[..payload.len().min(255)]);
    let decoded = Record::decode(kind, payload);
    let flaw = decoded.as_ref().err().map(|flaw| flaw.name());
    assert_eq!(flaw, contract::flaw(kind, payload));
    let Ok(record) = decoded else {
        return;
    };
    assert_eq!(record.kind(), kind);
    let mut again = vec![];
    record.encode_payload(&mut again);
    assert_eq!(again, payload);

    let mut columns = Columns::default();
    record.columns(&mut columns);
    let declared = record.table().columns();
    assert_eq!(columns.0.len(), declared.len());
    for (value, column) in columns.0.iter().zip(declared) {
        let fits = match value {
            Value::Null => true,
            Value::Integer(value) => match column.column_type {
                ColumnType::SmallInt => i16::try_from(*value).is_ok(),
                ColumnType::Integer => i32::try_from(*value).is_ok(),
                ColumnType::BigInt => true,
                _ => false,
            },
            Value::Real(real) => column.column_type == ColumnType::Real && real.is_finite(),
            Value::Boolean(_) => column.column_type == ColumnType::Boolean,
            Value::Text(_) => column.column_type == ColumnType::Text,
            Value::Bytes(_) => column.column_type == ColumnType::Bytes,
        };
        assert!(fits, "{value:?} in {}", column.name);
    }
    let rebuilt = rebuilt(record.table().name(), &columns.0);
    let sent = Rebuilt {
        kind,
        payload: payload.to_vec(),
    };
    assert_eq!(rebuilt, Ok(sent), "{:?}", columns.0);
}

fn rebuilt(table: &str, columns: &[Value]) -> Result<Rebuilt, Misfit> {
    let real = |at: usize| columns[at].real();
    let integer = |at: usize| columns[at].integer();
    match table {
        "telemetry_gps" => GpsColumns {
            latitude: real(0),
            longitude: real(1),
            altitude_m: real(2),
            speed_m_s: real(3),
            heading_deg: real(4),
            satellites: integer(5),
            hdop: real(6),
        }
        .rebuild(),
        "telemetry_fuel" => FuelColumns {
            level_percent: real(0),
            rate_ml_h: integer(1),
            used_ml: integer(2),
        }
        .rebuild(),
        "telemetry_gyroscope" => GyroscopeColumns {
            rate_deg_s: [real(0), real(1), real(2)],
            acceleration_g: [real(3), real(4), real(5)],
        }
        .rebuild(),
        "telemetry_diagnosis" => DiagnosisColumns {
            rpm: integer(0),
            coolant_c: real(1),
            battery_v: real(2),
            odometer_m: integer(3),
            malfunction_lamp: integer(4).expect("never unknown"),
            flags: integer(5).expect("never unknown"),
            trouble_codes: match &columns[6] {
                Value::Text(text) => text,
                other => panic!("{other:?} as trouble codes"),
            },
        }
        .rebuild(),
        "telemetry_custom" => match (integer(0), &columns[2]) {
            (Some(kind), Value::Bytes(payload)) => rebuild::custom(kind, integer(1), payload),
            other => panic!("{other:?} as a custom record"),
        },
        other => panic!("no table {other}"),
    }
}

/// A column as a database gives it back.
#[derive(Debug)]
enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Boolean(bool),
    Text(String),
    Bytes(Vec<u8>),
}

impl Value {
    fn real(&self) -> Option<f64> {
        match self {
            Self::Null => None,
            Self::Real(value) => Some(*value),
            other => panic!("{other:?} as a real"),
        }
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Self::Null => None,
            Self::Integer(value) => Some(*value),
            Self::Boolean(value) => Some((*value).into()),
            other => panic!("{other:?} as an integer"),
        }
    }
}

#[derive(Default)]
struct Columns(Vec<Value>);

impl Row for Columns {
    fn null(&mut self) {
        self.0.push(Value::Null);
    }

    fn integer(&mut self, value: i64) {
        self.0.push(Value::Integer(value));
    }

    fn real(&mut self, value: f64) {
        self.0.push(Value::Real(value));
    }

    fn boolean(&mut self, value: bool) {
        self.0.push(Value::Boolean(value));
    }

    fn text(&mut self, value: &str) {
        self.0.push(Value::Text(value.into()));
    }

    fn bytes(&mut self, value: &[u8]) {
        self.0.push(Value::Bytes(value.into()));
    }
}
