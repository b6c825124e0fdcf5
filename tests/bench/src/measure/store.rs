//! G7: rows into SQLite, beside prepared statements of the plain library. Both are benchmarks of
//! logic-server, on the same schema and the same disk.

use super::Plan;
use crate::criterion;
use crate::error::{BenchError, Result};
use crate::report::{Beside, Figure, Line, Standard};

const OURS: &str = "sqlite_rows/store";
const RAW: &str = "sqlite_rows/rusqlite";

pub(crate) fn measure(plan: &Plan) -> Result<Vec<Line>> {
    let estimates = criterion::estimates(&plan.criterion);
    let rows_per_s = |id| {
        let found = estimates.iter().find(|estimate| estimate.id == id);
        found
            .map(|estimate| 1e9 / estimate.element_ns())
            .ok_or_else(|| BenchError::failed(format!("criterion left no estimate of {id}")))
    };
    Ok(vec![Line::Figure(Figure {
        goal: "G7",
        what: "rows into SQLite, batches of 5,000, each committed".into(),
        unit: "/s",
        runs: vec![rows_per_s(OURS)?],
        beside: Some(Beside {
            name: "rusqlite",
            runs: vec![rows_per_s(RAW)?],
        }),
        standard: Standard::ShareOfLimit {
            goal: 0.85,
            refused_below: 0.70,
        },
    })])
}
