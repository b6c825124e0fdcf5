//! Pure. Telemetry, record by record, with physical values.

use protocols::rcu::telemetry::{RECORDED_AT_MS_MAX, SEQ_END};
use records::{Custom, Diagnosis, Flaw, Fuel, Gps, Gyroscope, Record, TroubleCode};

use super::field::{Stop, Told, Walk, count as plural, number, text, time};
use super::hex::hex;

/// The whole body; records that run past it, or bytes left over, are wrong.
pub(super) fn walk_telemetry(walk: &mut Walk<'_>) -> Result<(), Stop> {
    let mut base_time_ms = 0;
    let base_seq = walk.u64("base_seq", |seq| {
        // Devices are told to use boot_counter x 2^32 + n.
        let parts = format!("{seq} = {} x 2^32 + {}", seq >> 32, seq & 0xFFFF_FFFF);
        Told::right(if seq >> 32 == 0 {
            seq.to_string()
        } else {
            parts
        })
    })?;
    walk.u64("base_time_ms", |at| {
        base_time_ms = at;
        Told::right(match at {
            0 => "0: the records' times are not known".to_owned(),
            at => time(at),
        })
        .unless(
            at <= RECORDED_AT_MS_MAX,
            "a recorded time after the year 9999",
        )
    })?;
    let count = walk.u8("count", |count| {
        Told::right(plural(count.into(), "record"))
            .unless(count > 0, "a frame has 1..=255 records")
            .unless(
                base_seq <= SEQ_END - u64::from(count),
                "base_seq + count is beyond 2^63",
            )
    })?;
    for index in 0..u64::from(count) {
        let seq = base_seq.saturating_add(index);
        walk.heading(format!(
            "record {} of {count}, sequence number {seq}",
            index + 1
        ));
        walk_record(walk, base_time_ms)?;
    }
    Ok(())
}

fn walk_record(walk: &mut Walk<'_>, base_time_ms: u64) -> Result<(), Stop> {
    let kind = walk.u8("kind", |kind| {
        Told::right(match name(kind) {
            Some(name) => format!("{kind} {name}"),
            None => format!("{kind}, not listed: stored as it came"),
        })
    })?;
    let length = walk.u8("length", |length| {
        Told::right(format!("{} of payload", plural(length.into(), "byte")))
    })?;
    walk.u32("offset_ms", |offset_ms| {
        let at = base_time_ms.saturating_add(offset_ms.into());
        let told = match base_time_ms {
            0 => Told::right(format!("{offset_ms} ms")),
            _ => Told::right(format!("{offset_ms} ms: recorded at {}", time(at))),
        };
        // A base time that is too late is told there.
        let right = at <= RECORDED_AT_MS_MAX || base_time_ms > RECORDED_AT_MS_MAX;
        told.unless(right, "a recorded time after the year 9999")
    })?;
    walk.within("payload", length.into(), |walk, payload| {
        walk_payload(walk, kind, payload)
    })
}

/// A number of the wire with its unit.
struct Quantity {
    name: &'static str,
    bytes: usize,
    signed: bool,
    /// Where the decimal point stands, from the right.
    decimals: usize,
    unit: &'static str,
}

const fn unsigned(
    name: &'static str,
    bytes: usize,
    decimals: usize,
    unit: &'static str,
) -> Quantity {
    Quantity {
        name,
        bytes,
        signed: false,
        decimals,
        unit,
    }
}

const fn signed(name: &'static str, bytes: usize, decimals: usize, unit: &'static str) -> Quantity {
    Quantity {
        name,
        bytes,
        signed: true,
        decimals,
        unit,
    }
}

const GPS: [Quantity; 7] = [
    signed("latitude", 4, 7, "°"),
    signed("longitude", 4, 7, "°"),
    signed("altitude", 4, 2, "m"),
    unsigned("speed", 2, 2, "m/s"),
    unsigned("heading", 2, 2, "°"),
    unsigned("satellites", 1, 0, ""),
    unsigned("hdop", 1, 1, ""),
];

const FUEL: [Quantity; 3] = [
    unsigned("level", 2, 2, "%"),
    unsigned("rate", 4, 0, "mL/h"),
    unsigned("used", 8, 0, "mL since manufacture"),
];

const GYROSCOPE: [Quantity; 6] = [
    signed("rate x", 2, 1, "°/s"),
    signed("rate y", 2, 1, "°/s"),
    signed("rate z", 2, 1, "°/s"),
    signed("acceleration x", 2, 3, "g"),
    signed("acceleration y", 2, 3, "g"),
    signed("acceleration z", 2, 3, "g"),
];

const DIAGNOSIS: [Quantity; 4] = [
    unsigned("engine rpm", 2, 0, "rpm"),
    signed("coolant", 2, 1, "°C"),
    unsigned("battery", 2, 3, "V"),
    unsigned("odometer", 4, 0, "m"),
];

fn walk_payload(walk: &mut Walk<'_>, kind: u8, payload: &[u8]) -> Result<(), Stop> {
    let flaw = Record::decode(kind, payload).err();
    if flaw == Some(Flaw::Length) {
        let expected = match kind {
            Gps::KIND => "18 bytes",
            Fuel::KIND => "14 bytes",
            Gyroscope::KIND => "12 bytes",
            Diagnosis::KIND => "12 bytes and 2 for each of its n trouble codes",
            _ => "at least 2 bytes",
        };
        let name = name(kind).unwrap_or_default();
        let wrong = format!("a {name} record has {expected}, not {}", payload.len());
        let told = Told::right(hex(payload)).unless(false, set_aside(Flaw::Length, &wrong));
        return walk.bytes("payload", payload.len(), |_| told).map(|_| ());
    }
    match kind {
        Gps::KIND => quantities(walk, &GPS, flaw),
        Fuel::KIND => quantities(walk, &FUEL, flaw),
        Gyroscope::KIND => quantities(walk, &GYROSCOPE, flaw),
        Diagnosis::KIND => {
            quantities(walk, &DIAGNOSIS, flaw)?;
            diagnosis_flags_and_codes(walk)
        }
        Custom::KIND => {
            walk.u16("channel", number)?;
            walk.skip_rest("data", text);
            Ok(())
        }
        _ => {
            walk.skip_rest("payload", text);
            Ok(())
        }
    }
}

fn quantities(
    walk: &mut Walk<'_>,
    quantities: &[Quantity],
    flaw: Option<Flaw>,
) -> Result<(), Stop> {
    for quantity in quantities {
        walk.bytes(quantity.name, quantity.bytes, |bytes| {
            let told = Told::right(quantity.tell(bytes));
            match flaw {
                Some(flaw) if flaw.name() == quantity.name => {
                    told.unless(false, set_aside(flaw, "out of its range"))
                }
                _ => told,
            }
        })?;
    }
    Ok(())
}

fn set_aside(flaw: Flaw, why: &str) -> String {
    format!(
        "{why}: the record is set aside in dead_letter as \"{}\"",
        flaw.name()
    )
}

fn diagnosis_flags_and_codes(walk: &mut Walk<'_>) -> Result<(), Stop> {
    walk.u8("flags", |flags| {
        let lamp = if flags & 1 == 1 { "on" } else { "off" };
        Told::right(format!("0b{flags:08b}: malfunction lamp {lamp}"))
    })?;
    let n = walk.u8("n", |n| Told::right(plural(n.into(), "trouble code")))?;
    for _ in 0..n {
        walk.u16("trouble code", |code| number(TroubleCode(code)))?;
    }
    Ok(())
}

impl Quantity {
    fn tell(&self, little_endian: &[u8]) -> String {
        let bits = 8 * self.bytes;
        let wire = little_endian
            .iter()
            .rev()
            .fold(0_i128, |wire, &byte| wire << 8 | i128::from(byte));
        let value = if self.signed && wire >> (bits - 1) == 1 {
            wire - (1 << bits)
        } else {
            wire
        };
        let not_available = if self.signed {
            -(1 << (bits - 1))
        } else {
            (1 << bits) - 1
        };
        if value == not_available {
            return "not available".to_owned();
        }
        format!("{} {}", decimal(value, self.decimals), self.unit)
            .trim_end()
            .to_owned()
    }
}

/// The number with its decimal point, exactly.
fn decimal(value: i128, decimals: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", value.unsigned_abs(), width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let point = if decimals > 0 { "." } else { "" };
    [sign, whole, point, fraction].concat()
}

fn name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        Gps::KIND => "gps",
        Fuel::KIND => "fuel",
        Gyroscope::KIND => "gyroscope",
        Diagnosis::KIND => "diagnosis",
        Custom::KIND => "custom",
        _ => return None,
    })
}
