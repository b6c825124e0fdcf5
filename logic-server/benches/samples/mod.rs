//! The records that benchmarks of the store write: as a batch, and as raw columns.

use std::time::{SystemTime, UNIX_EPOCH};

use common::ids::AccountId;
use logic_server::batch::{Batch, Row};
use logic_server::ids::ShardIndex;
use logic_server::presence::Lines;
use logic_server::writer::{Effect, Input, Settings, Work, WriteResult, Writer};
use records::{Gps, Record};

pub(crate) const ROWS: usize = 5_000;
const DEVICES: u64 = 10_000;
const DAY_MS: i64 = 86_400_000;
const RECORDS_PER_FRAME: usize = 16;

/// Where a table refuses these, one row in 64 of [`refused`] is (1.6 %).
pub(crate) const IS_REFUSED: &str = "satellites = 13";
const REFUSED_EACH: usize = 64;

/// Of small batches, as they gather while the store is busy.
const SMALL_ROWS: usize = 50;

/// A record as both writers get it, and as raw columns.
pub(crate) struct Sample {
    pub(crate) account: i64,
    pub(crate) seq: i64,
    pub(crate) recorded_at_ms: i64,
    pub(crate) gps: Gps,
}

/// The samples of one batch: frames of 16 from devices that follow no order.
pub(crate) fn samples(batch: u64) -> Vec<Sample> {
    let midnight_ms = now_ms() - now_ms() % DAY_MS;
    let mut chance = batch;
    (0..ROWS)
        .map(|index| {
            if index % RECORDS_PER_FRAME == 0 {
                chance = chance
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
            }
            let seq = (batch as i64) * ROWS as i64 + index as i64;
            Sample {
                account: (chance >> 33).wrapping_rem(DEVICES) as i64,
                seq,
                recorded_at_ms: midnight_ms + seq % DAY_MS,
                gps: Gps {
                    latitude: Some(525_200_000 + index as i32),
                    longitude: Some(134_050_000 - index as i32),
                    altitude_cm: Some(3_400),
                    speed_cm_s: Some(1_389),
                    heading: Some((index % 36_000) as u16),
                    satellites: Some(9),
                    hdop: None,
                },
            }
        })
        .collect()
}

pub(crate) fn work(batch: u64) -> Work {
    let batch = of_samples(batch, samples(batch));
    let (mut lines, mut effects) = (Lines::new(0), Vec::new());
    Writer::new(Settings::default(), 0).apply(Input::Submit(batch), 0, &mut lines, &mut effects);
    match effects.pop() {
        Some(Effect::Write(work)) => work,
        other => panic!("an idle writer writes, not {other:?}"),
    }
}

/// The same rows in small batches, some of which are refused.
pub(crate) fn refused(batch: u64) -> Vec<Batch> {
    let mut samples = samples(batch);
    for sample in samples.iter_mut().step_by(REFUSED_EACH) {
        sample.gps.satellites = Some(13);
    }
    let mut batches = vec![];
    while !samples.is_empty() {
        let rest = samples.split_off(samples.len().min(SMALL_ROWS));
        batches.push(of_samples(batches.len() as u64, samples));
        samples = rest;
    }
    batches
}

/// Has a writer write all of it.
pub(crate) fn write_all(batches: Vec<Batch>, mut write: impl FnMut(&Work) -> WriteResult) {
    let mut writer = Writer::new(Settings::default(), 0);
    let (submitted, mut finished) = (batches.len(), 0);
    let (mut lines, mut effects) = (Lines::new(0), vec![]);
    for batch in batches {
        writer.apply(Input::Submit(batch), 0, &mut lines, &mut effects);
    }
    while let Some(effect) = effects.pop() {
        match effect {
            Effect::Write(work) => {
                let result = write(&work);
                writer.apply(Input::Done { work, result }, 0, &mut lines, &mut effects);
            }
            Effect::Finished { .. } => finished += 1,
            Effect::Contradicts { .. } => panic!("samples are all different"),
        }
    }
    assert_eq!(finished, submitted);
}

fn of_samples(id: u64, samples: Vec<Sample>) -> Batch {
    let mut arena = Vec::new();
    let rows = samples
        .into_iter()
        .map(|sample| {
            let start = arena.len() as u32;
            Record::Gps(sample.gps).encode_payload(&mut arena);
            Row {
                account_id: AccountId(sample.account),
                seq: sample.seq,
                recorded_at_ms: sample.recorded_at_ms,
                received_at_ms: sample.recorded_at_ms + 40,
                payload: start..arena.len() as u32,
                kind: Gps::KIND,
                flaw: None,
                may_be_there: false,
            }
        })
        .collect();
    Batch {
        id,
        shard: ShardIndex(0),
        rows,
        arena,
        acks: Vec::new(),
        contradicting: Default::default(),
        opened_at_ms: 0,
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_millis() as i64
}
