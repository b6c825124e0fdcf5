//! Fresh inputs for every target, on stable Rust: random ones, and stored ones that were altered.
//! Another seed each time; a failure tells it, and the input.
//!
//! `FUZZ_SEED=n` repeats a run, `FUZZ_INPUTS=n` makes it longer than the usual one,
//! `FUZZ_TARGET=name` takes one target alone.

#![allow(clippy::unwrap_used)]

mod support;

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use fuzz_targets::TARGETS;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use support::{inputs, survives};

/// Of each target: some seconds in all, built for tests.
const INPUTS: u64 = 500;

/// As long as libFuzzer makes them where nothing else is said.
const INPUT_BYTES_MAX: usize = 4_096;

fn number(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

fn time_of_day() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
}

#[test]
fn fresh_inputs_pass() {
    let seed = number("FUZZ_SEED").unwrap_or_else(time_of_day);
    let count = number("FUZZ_INPUTS").unwrap_or(INPUTS);
    let only = env::var("FUZZ_TARGET").ok();
    let is_meant = |name: &str| only.as_ref().is_none_or(|only| only == name);
    for (name, target) in TARGETS.iter().filter(|(name, _)| is_meant(name)) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let stored: Vec<_> = inputs("corpus", name)
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect();
        for index in 0..count {
            let input = fresh(&stored, &mut rng);
            assert!(
                survives(*target, &input),
                "{name}, input {index} of FUZZ_SEED={seed}; keep it as fuzz/regressions/{name}/NAME:\n{}",
                hex(&input)
            );
        }
    }
}

/// Half of them from nothing, half from what is stored.
fn fresh(stored: &[Vec<u8>], rng: &mut SmallRng) -> Vec<u8> {
    if stored.is_empty() || rng.random_bool(0.5) {
        let length = rng.random_range(0..=INPUT_BYTES_MAX) >> rng.random_range(0..8_u32);
        let mut input = vec![0; length];
        rng.fill(&mut input[..]);
        return input;
    }
    let mut input = some(stored, rng).clone();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=input.len());
        match rng.random_range(0..5) {
            0 => input.truncate(at),
            1 => input.insert(at, rng.random()),
            2 => {
                let other = some(stored, rng);
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            3 if at < input.len() => drop(input.remove(at)),
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = rng.random();
                }
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn some<'a>(stored: &'a [Vec<u8>], rng: &mut SmallRng) -> &'a Vec<u8> {
    &stored[rng.random_range(0..stored.len())]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
