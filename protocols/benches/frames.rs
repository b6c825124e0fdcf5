//! What it costs to turn a burst of 16 telemetry frames into records: found in the stream, crc
//! checked, decoded to structs, ranges checked. Beside it, in the same run, a bare loop that only
//! walks the lengths and computes the crc; the difference is what our code adds.
//!
//! `cargo bench -p common --bench frames`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protocols::rcu::frame::{self, FRAME_BYTES_MAX, HEADER_BYTES, Parsed};
use protocols::rcu::message::FromDevice;
use protocols::rcu::telemetry::TelemetryWriter;
use records::{Custom, Diagnosis, Fuel, Gps, Gyroscope, Record, TroubleCodes};

const BURST: u64 = 16;

const GPS: Record<'_> = Record::Gps(Gps {
    latitude: Some(311_234_567),
    longitude: Some(1_214_567_890),
    altitude_cm: Some(-1_250),
    speed_cm_s: Some(1_389),
    heading: Some(27_015),
    satellites: Some(9),
    hdop: None,
});

fn one_of_each_kind() -> [Record<'static>; 5] {
    [
        GPS,
        Record::Fuel(Fuel {
            level: Some(7_350),
            rate_ml_h: Some(4_200),
            used_ml: Some(123_456_789_012),
        }),
        Record::Gyroscope(Gyroscope {
            rate: [Some(-15), Some(0), None],
            acceleration: [Some(5), Some(-12), Some(1_001)],
        }),
        Record::Diagnosis(Diagnosis {
            rpm: Some(2_150),
            coolant: Some(915),
            battery_mv: Some(13_850),
            odometer_m: None,
            flags: 1,
            trouble_codes: TroubleCodes::from_wire(&[1, 3, 0x23, 0x41]).expect("two codes"),
        }),
        Record::Custom(Custom {
            channel: 513,
            data: &[1, 2, 3],
        }),
    ]
}

fn burst(records: &[Record<'_>]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut writer = TelemetryWriter::default();
    for frame in 0..BURST {
        let now_ms = 1_767_225_600_000 + frame;
        writer.begin(frame * records.len() as u64, now_ms);
        for record in records {
            writer.push(now_ms, record).expect("room");
        }
        let telemetry = writer.telemetry().expect("records");
        telemetry.encode(frame as u16 + 1, &mut stream);
    }
    stream
}

/// The walk that any reader of length-prefixed, checksummed frames has to do.
fn bare(mut stream: &[u8]) -> u64 {
    let mut frames = 0;
    while let Some(header) = stream.first_chunk::<HEADER_BYTES>() {
        let length = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let Some((frame, rest)) = stream.split_at_checked(HEADER_BYTES + length) else {
            break;
        };
        let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..8]), &frame[HEADER_BYTES..]);
        assert_eq!(crc.to_le_bytes(), frame[8..HEADER_BYTES]);
        black_box(&frame[HEADER_BYTES..]);
        stream = rest;
        frames += 1;
    }
    frames
}

/// What a session does with its bytes, up to the records that the store takes.
fn decode(mut stream: &[u8]) -> u64 {
    let mut frames = 0;
    while let Ok(Parsed::Frame { frame, consumed }) = frame::parse(stream, FRAME_BYTES_MAX) {
        let Ok(FromDevice::Telemetry(telemetry)) = FromDevice::decode(&frame) else {
            break;
        };
        for raw in telemetry.records() {
            black_box((raw.seq, raw.recorded_at_ms));
            black_box(&Record::decode(raw.kind, raw.payload));
        }
        stream = &stream[consumed..];
        frames += 1;
    }
    frames
}

fn frames(criterion: &mut Criterion) {
    for (name, records) in [
        ("one gps record", &[GPS][..]),
        ("one record of each kind", &one_of_each_kind()),
    ] {
        let stream = burst(records);
        assert_eq!((bare(&stream), decode(&stream)), (BURST, BURST));
        let mut group = criterion.benchmark_group(format!("16 frames, {name}"));
        group.throughput(Throughput::Elements(BURST));
        group.bench_function("length walk and crc", |bencher| {
            bencher.iter(|| bare(black_box(&stream)));
        });
        group.bench_function("decode to structs", |bencher| {
            bencher.iter(|| decode(black_box(&stream)));
        });
        group.finish();
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
