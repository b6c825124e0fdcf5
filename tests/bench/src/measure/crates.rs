//! G3, G4, G5, G7 as the benchmarks of the crates have them, each beside its limit in the same
//! process; and every other benchmark as it is. `scripts/bench` runs them; here their estimates
//! are read.

use super::Plan;
use crate::criterion::{self, Estimate};
use crate::error::Result;
use crate::report::{Beside, Figure, Line, Standard};

/// Two benchmarks: ours and its limit.
struct Pair {
    goal: &'static str,
    what: &'static str,
    ours: &'static str,
    limit: &'static str,
    limit_name: &'static str,
    standard: Standard,
}

const PAIRS: [Pair; 4] = [
    Pair {
        goal: "G3",
        what: "shard core on sockets, a store that accepts at once: frames one by one",
        ours: "loopback/1 frames/shard",
        limit: "loopback/1 frames/bare",
        limit_name: "bare loop",
        standard: super::G3,
    },
    Pair {
        goal: "G4",
        what: "shard core on sockets, a store that accepts at once: bursts of 16",
        ours: "loopback/16 frames/shard",
        limit: "loopback/16 frames/bare",
        limit_name: "bare loop",
        standard: super::G4,
    },
    Pair {
        goal: "G5",
        what: "rows into PostgreSQL, batches of 5,000, each committed",
        ours: "postgres_rows/store",
        limit: "postgres_rows/copy",
        limit_name: "COPY BINARY",
        standard: Standard::ShareOfLimit {
            goal: 0.95,
            refused_below: 0.85,
        },
    },
    Pair {
        goal: "G7",
        what: "rows into SQLite, batches of 5,000, each committed",
        ours: "sqlite_rows/store",
        limit: "sqlite_rows/rusqlite",
        limit_name: "rusqlite",
        standard: Standard::ShareOfLimit {
            goal: 0.85,
            refused_below: 0.70,
        },
    },
];

pub(crate) fn measure(plan: &Plan) -> Result<Vec<Line>> {
    let estimates = criterion::estimates(&plan.criterion);
    let mut lines: Vec<_> = PAIRS.iter().map(|pair| pair.line(&estimates)).collect();
    let paired = |id: &str| PAIRS.iter().any(|pair| pair.ours == id || pair.limit == id);
    let benchmarks = estimates.chunk_by(|a, b| a.id == b.id);
    let others = benchmarks.filter(|runs| !paired(&runs[0].id));
    lines.extend(others.map(told));
    Ok(lines)
}

impl Pair {
    fn line(&self, estimates: &[Estimate]) -> Line {
        let per_s = |id| -> Vec<f64> {
            let runs = estimates.iter().filter(|estimate| estimate.id == id);
            runs.map(|run| 1e9 / run.element_ns()).collect()
        };
        let (ours, limit) = (per_s(self.ours), per_s(self.limit));
        if ours.is_empty() || limit.is_empty() {
            return Line::Missing {
                goal: self.goal,
                what: self.what,
                why: format!("criterion left no estimate of {} and its limit", self.ours),
            };
        }
        Line::Figure(Figure {
            goal: self.goal,
            what: self.what.into(),
            unit: "/s",
            runs: ours,
            beside: Some(Beside {
                name: self.limit_name,
                runs: limit,
            }),
            standard: self.standard,
        })
    }
}

/// Runs of one benchmark.
fn told(runs: &[Estimate]) -> Line {
    Line::Figure(Figure {
        goal: "",
        what: format!("criterion: {}", runs[0].id),
        unit: "ns per element",
        runs: runs.iter().map(Estimate::element_ns).collect(),
        beside: None,
        standard: Standard::Told,
    })
}
