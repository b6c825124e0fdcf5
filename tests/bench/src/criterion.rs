//! What criterion measured: it leaves two JSON files for each benchmark.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// One run of a benchmark.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// `group/function/value`, as the benchmark names itself.
    pub(crate) id: String,
    /// Median of an iteration.
    pub(crate) iteration_ns: f64,
    /// What an iteration handles, where the benchmark says so: frames, rows.
    pub(crate) elements: Option<f64>,
}

impl Estimate {
    /// Of one element; of an iteration where the benchmark names none.
    pub(crate) fn element_ns(&self) -> f64 {
        self.iteration_ns / self.elements.unwrap_or(1.0)
    }
}

#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
    throughput: Option<Throughput>,
}

/// `{"Elements": 16}`; other kinds have other names.
#[derive(Deserialize)]
struct Throughput {
    #[serde(rename = "Elements")]
    elements: Option<f64>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Point,
}

#[derive(Deserialize)]
struct Point {
    point_estimate: f64,
}

/// Every benchmark below `directory`, by name: several of a name where it ran several times, with
/// directories of its own. A directory that is not there holds none.
pub(crate) fn estimates(directory: &Path) -> Vec<Estimate> {
    let mut found = Vec::new();
    collect(directory, &mut found);
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

fn collect(directory: &Path, found: &mut Vec<Estimate>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            // Beside the newest estimates, criterion keeps those that it compared them with.
            if path.file_name().is_some_and(|name| name == "new") {
                found.extend(estimate(&path));
            } else {
                collect(&path, found);
            }
        }
    }
}

fn estimate(directory: &Path) -> Option<Estimate> {
    let read = |file| fs::read_to_string(directory.join(file)).ok();
    let benchmark: Benchmark = serde_json::from_str(&read("benchmark.json")?).ok()?;
    let estimates: Estimates = serde_json::from_str(&read("estimates.json")?).ok()?;
    Some(Estimate {
        id: benchmark.full_id,
        iteration_ns: estimates.median.point_estimate,
        elements: benchmark
            .throughput
            .and_then(|throughput| throughput.elements),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_estimate_of_each_run_of_a_benchmark_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let leave = |place: &str, benchmark: &str, estimates: &str| {
            let place = directory.path().join(place);
            fs::create_dir_all(&place).expect("a directory");
            fs::write(place.join("benchmark.json"), benchmark).expect("written");
            fs::write(place.join("estimates.json"), estimates).expect("written");
        };
        let median = r#"{"mean": {"point_estimate": 9.0}, "median": {"point_estimate": 80.5}}"#;
        let burst = r#"{"full_id": "shard/burst", "throughput": {"Elements": 16}}"#;
        let plain = r#"{"full_id": "crc", "throughput": null}"#;
        leave("1/shard/burst/new", burst, median);
        leave("2/shard/burst/new", burst, median);
        leave("1/shard/burst/base", burst, median);
        leave("1/crc/new", plain, median);
        leave("1/broken/new", "{", median);
        let estimate = |id: &str, elements| Estimate {
            id: id.into(),
            iteration_ns: 80.5,
            elements,
        };
        assert_eq!(
            estimates(directory.path()),
            [
                estimate("crc", None),
                estimate("shard/burst", Some(16.0)),
                estimate("shard/burst", Some(16.0))
            ]
        );
        assert_eq!(estimates(&directory.path().join("nowhere")), []);
    }
}
