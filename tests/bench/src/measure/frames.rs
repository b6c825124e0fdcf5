//! G3, G4: frames through decode and shard core, beside a bare loop over sockets.
//!
//! The core is measured without sockets, by criterion; the bare loop with them. So the share of
//! the limit is an estimate: what the bare loop would reach if each frame cost it the core's time
//! on top. The bare loop decodes too, so decoding counts twice; a driver's own work counts not
//! at all.

use std::time::Duration;

use super::{Plan, block};
use crate::bare::Bare;
use crate::criterion::{self, Estimate};
use crate::error::Result;
use crate::load::frames::server_us_per_frame;
use crate::load::sources::Sources;
use crate::report::{Beside, Figure, Line, Standard, median};

const RUNS: usize = 3;

/// One of the two goals.
struct Burst {
    goal: &'static str,
    frames: usize,
    what: &'static str,
    /// The benchmark of logic-server that handles such frames, by its id.
    core: &'static str,
    standard: Standard,
}

const BURSTS: [Burst; 2] = [
    Burst {
        goal: "G3",
        frames: 1,
        what: "acknowledged frames per core-second, one by one",
        core: "shard/frame",
        standard: Standard::ShareOfLimit {
            goal: 0.85,
            refused_below: 0.70,
        },
    },
    Burst {
        goal: "G4",
        frames: 16,
        what: "frames per core-second, in bursts of 16",
        core: "shard/burst_of_16",
        standard: Standard::ShareOfLimit {
            goal: 0.70,
            refused_below: 0.50,
        },
    },
];

pub(crate) fn measure(plan: &Plan) -> Result<Vec<Line>> {
    let window = Duration::from_secs(if plan.quick { 1 } else { 3 });
    let estimates = criterion::estimates(&plan.criterion);
    let mut lines = Vec::new();
    for burst in &BURSTS {
        let mut bare_us = Vec::new();
        for _ in 0..RUNS {
            let bare = Bare::start()?;
            let sources = Sources::new(block::FRAMES, rand::random());
            let (address, pid) = (bare.address, bare.pid());
            bare_us.push(server_us_per_frame(
                address,
                pid,
                burst.frames,
                sources,
                window,
            )?);
        }
        eprintln!("{}: bare loop {bare_us:?} µs per frame", burst.goal);
        lines.push(burst.line(&estimates, &bare_us));
    }
    lines.extend(estimates.iter().map(told));
    Ok(lines)
}

impl Burst {
    fn line(&self, estimates: &[Estimate], bare_us: &[f64]) -> Line {
        let core = estimates.iter().find(|estimate| estimate.id == self.core);
        let core_us = core.map(|estimate| estimate.element_ns() / 1e3);
        let per_s = |us: f64| 1e6 / us;
        Line::Figure(Figure {
            goal: self.goal,
            what: format!("{} (estimate: bare loop and shard core)", self.what),
            unit: "/s",
            runs: core_us
                .map(|core_us| per_s(median(bare_us) + core_us))
                .into_iter()
                .collect(),
            beside: Some(Beside {
                name: "bare loop",
                runs: bare_us.iter().copied().map(per_s).collect(),
            }),
            standard: self.standard,
        })
    }
}

/// Every benchmark of the run as it is.
fn told(estimate: &Estimate) -> Line {
    Line::Figure(Figure {
        goal: "",
        what: format!("criterion: {}", estimate.id),
        unit: "ns per element",
        runs: vec![estimate.element_ns()],
        beside: None,
        standard: Standard::Told,
    })
}
