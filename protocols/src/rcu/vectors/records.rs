//! Pure. Telemetry vectors: the frame's figures, its records by way of their columns, what is
//! set aside.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Fields, Vectors, check_from_device, from_device, scaled};
use crate::rcu::code::AckStatus;
use crate::rcu::error::MessageError;
use crate::rcu::message::FromDevice;
use crate::rcu::telemetry::{Telemetry, TelemetryAck, TelemetryWriter};
use records::{Custom, Diagnosis, Fuel, Gps, Gyroscope, Record, Row, Table, TroubleCodes, Unknown};

pub(super) fn check_telemetry(
    vectors: &Vectors,
    fields: &Fields,
    id: u16,
    bytes: &[u8],
    name: &str,
) {
    if fields.has("ack") && fields.text("ack") == "malformed" {
        let Err(MessageError::TelemetryCannotBeCut {
            base_seq, count, ..
        }) = from_device(bytes)
        else {
            panic!("{name} cannot be cut");
        };
        // The acknowledgement of one of them is a vector itself.
        let ack = vectors.named("telemetry ack, malformed");
        if ack.number::<u16>("id") == id {
            let mut made = Vec::new();
            let message = TelemetryAck {
                base_seq,
                count,
                status: AckStatus::Malformed,
                retry_after_ms: 0,
            };
            message.encode(id, &mut made);
            assert_eq!(made, ack.bytes("frame"), "{name}");
        }
        return;
    }
    let Ok(FromDevice::Telemetry(telemetry)) = from_device(bytes) else {
        panic!("{name} can be cut");
    };
    let figures = (
        telemetry.base_seq(),
        telemetry.base_time_ms(),
        telemetry.count(),
    );
    let expected: (u64, u64, u8) = (
        fields.number("base_seq"),
        fields.number("base_time_ms"),
        fields.number("count"),
    );
    assert_eq!(figures, expected, "{name}");
    check_set_aside(&telemetry, fields, name);
    if fields.has("records") {
        check_records(&telemetry, fields, id, bytes, name);
    } else {
        check_from_device(FromDevice::Telemetry(telemetry), id, bytes, name);
    }
}

/// Exactly the records that the vector names are set aside, with the bytes as they came.
fn check_set_aside(telemetry: &Telemetry<'_>, fields: &Fields, name: &str) {
    let set_aside: Vec<_> = telemetry
        .records()
        .filter(|raw| Record::decode(raw.kind, raw.payload).is_err())
        .collect();
    let seqs: Vec<Value> = set_aside.iter().map(|raw| raw.seq.into()).collect();
    let expected = fields.0["dead_letter"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert_eq!(seqs, expected, "{name}");
    if fields.has("payload") {
        assert_eq!(set_aside[0].payload, fields.bytes("payload"), "{name}");
    }
}

/// Records with all their fields: made from physical values, and decoded to them by way of the
/// columns.
fn check_records(telemetry: &Telemetry<'_>, fields: &Fields, id: u16, bytes: &[u8], name: &str) {
    let mut writer = TelemetryWriter::default();
    writer.begin(telemetry.base_seq(), telemetry.base_time_ms());
    let records = fields.records();
    assert_eq!(records.len(), telemetry.records().count(), "{name}");
    for (expected, raw) in records.iter().zip(telemetry.records()) {
        let recorded_at_ms = telemetry.base_time_ms() + expected.number::<u64>("offset_ms");
        assert_eq!(raw.recorded_at_ms, recorded_at_ms, "{name}");
        let decoded = Record::decode(raw.kind, raw.payload);
        if expected.has("set_aside") {
            let flaw = decoded.expect_err("a flaw");
            assert_eq!(flaw.name(), expected.text("set_aside"), "{name}");
            let payload = expected.bytes("payload");
            assert_eq!(raw.payload, payload, "{name}");
            writer
                .push_raw(recorded_at_ms, expected.number("kind"), &payload)
                .expect("room");
            continue;
        }
        let decoded = decoded.expect("no flaw");
        let (codes, data) = (trouble_codes(expected), bytes_of(expected));
        let made = record(expected, &codes, &data);
        assert_eq!(made, decoded, "{name}");
        writer.push(recorded_at_ms, &made).expect("room");
        assert_eq!(columns_of(&decoded), expected_columns(expected), "{name}");
    }
    assert_eq!(writer.frame_bytes(), bytes.len(), "{name}");
    let made = writer.telemetry().expect("records");
    check_from_device(FromDevice::Telemetry(made), id, bytes, name);
}

fn bytes_of(fields: &Fields) -> Vec<u8> {
    ["data", "payload"]
        .iter()
        .find(|name| fields.has(name))
        .map(|name| fields.bytes(name))
        .unwrap_or_default()
}

fn trouble_codes(fields: &Fields) -> Vec<u8> {
    let Some(codes) = fields.0["trouble_codes"].as_array() else {
        return Vec::new();
    };
    codes
        .iter()
        .flat_map(|code| {
            let (letter, digits) = code.as_str().expect("a code").split_at(1);
            let letter = "PCBU".find(letter).expect("a letter") as u16;
            let digits = u16::from_str_radix(digits, 16).expect("hex digits");
            (letter << 14 | digits).to_le_bytes()
        })
        .collect()
}

fn record<'a>(fields: &Fields, codes: &'a [u8], data: &'a [u8]) -> Record<'a> {
    let available = !fields.has("all");
    let axes = |name: &str, per_unit| {
        [0, 1, 2].map(|axis| {
            available
                .then(|| scaled(&fields.0[name][axis], per_unit))
                .flatten()
        })
    };
    macro_rules! field {
        ($name:literal / $per_unit:literal) => {
            available.then(|| fields.scaled($name, $per_unit)).flatten()
        };
    }
    let Some(kind) = fields.0["kind"].as_str() else {
        return Record::Unknown(Unknown {
            kind: fields.number("kind"),
            payload: data,
        });
    };
    match kind {
        "gps" => Record::Gps(Gps {
            latitude: field!("latitude" / 1e7),
            longitude: field!("longitude" / 1e7),
            altitude_cm: field!("altitude_m" / 1e2),
            speed_cm_s: field!("speed_m_s" / 1e2),
            heading: field!("heading_deg" / 1e2),
            satellites: field!("satellites" / 1.0),
            hdop: field!("hdop" / 1e1),
        }),
        "fuel" => Record::Fuel(Fuel {
            level: field!("level_percent" / 1e2),
            rate_ml_h: field!("rate_ml_h" / 1.0),
            used_ml: field!("used_ml" / 1.0),
        }),
        "gyroscope" => Record::Gyroscope(Gyroscope {
            rate: axes("rate_deg_s", 1e1),
            acceleration: axes("acceleration_g", 1e3),
        }),
        "diagnosis" => Record::Diagnosis(Diagnosis {
            rpm: field!("rpm" / 1.0),
            coolant: field!("coolant_c" / 1e1),
            battery_mv: field!("battery_v" / 1e3),
            odometer_m: field!("odometer_m" / 1.0),
            flags: fields.0["malfunction_lamp"]
                .as_bool()
                .unwrap_or_default()
                .into(),
            trouble_codes: TroubleCodes::from_wire(codes).expect("codes"),
        }),
        "custom" => Record::Custom(Custom {
            channel: fields.number("channel"),
            data,
        }),
        kind => panic!("kind {kind}"),
    }
}

/// A row as JSON.
#[derive(Default)]
struct JsonRow(Vec<Value>);

impl Row for JsonRow {
    fn null(&mut self) {
        self.0.push(Value::Null);
    }

    fn integer(&mut self, value: i64) {
        self.0.push(value.into());
    }

    fn real(&mut self, value: f64) {
        self.0.push(value.into());
    }

    fn boolean(&mut self, value: bool) {
        self.0.push(value.into());
    }

    fn text(&mut self, value: &str) {
        self.0.push(value.into());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.0.push(value.to_vec().into());
    }
}

fn columns_of(record: &Record<'_>) -> BTreeMap<String, Value> {
    let mut row = JsonRow::default();
    record.columns(&mut row);
    let columns = record.table().columns();
    assert_eq!(columns.len(), row.0.len());
    let names = columns.iter().map(|column| column.name.to_owned());
    names.zip(row.0).collect()
}

/// The vector's fields under the columns' names, to the last bit of each double.
fn expected_columns(fields: &Fields) -> BTreeMap<String, Value> {
    let Some(kind) = fields.0["kind"].as_str() else {
        return expected_custom(fields.number("kind"), Value::Null, bytes_of(fields));
    };
    if kind == "custom" {
        return expected_custom(5, fields.0["channel"].clone(), bytes_of(fields));
    }
    let table = ["telemetry_", kind].concat();
    let table = Table::ALL.into_iter().find(|known| known.name() == table);
    let lamp = fields.0["malfunction_lamp"].as_bool().unwrap_or_default();
    let codes = fields.0["trouble_codes"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let codes: Vec<_> = codes
        .iter()
        .map(|code| code.as_str().expect("a code"))
        .collect();
    let value = |name: &str| match name {
        "malfunction_lamp" => lamp.into(),
        "flags" => i64::from(lamp).into(),
        "trouble_codes" => codes.join(" ").into(),
        name if fields.has("all") => {
            assert_eq!(fields.text("all"), "null", "{name}");
            Value::Null
        }
        name => match name
            .split_once("_x_")
            .or(name.split_once("_y_"))
            .or(name.split_once("_z_"))
        {
            Some((quantity, unit)) => {
                let axis = usize::from(name.as_bytes()[quantity.len() + 1] - b'x');
                fields.0[[quantity, "_", unit].concat()][axis].clone()
            }
            None => fields.0[name].clone(),
        },
    };
    let columns = table.expect("a table").columns().iter();
    columns
        .map(|column| (column.name.to_owned(), value(column.name)))
        .collect()
}

fn expected_custom(kind: u8, channel: Value, payload: Vec<u8>) -> BTreeMap<String, Value> {
    [
        ("kind", kind.into()),
        ("channel", channel),
        ("payload", payload.into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
