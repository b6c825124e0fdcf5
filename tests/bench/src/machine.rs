//! What was measured on: a figure without its machine says nothing.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// One line: processor, cores, memory, kernel, descriptors.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into());
    let memory_gib = value("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or(0.0, |kib| kib / 1_048_576.0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let files = getrlimit(Resource::Nofile)
        .current
        .map_or("unlimited".into(), |files| files.to_string());
    format!(
        "{processor}, {cores} cores, {memory_gib:.0} GiB, Linux {}, {files} descriptors per process",
        kernel.trim()
    )
}

/// Runnable threads of the last minute, on average. Others' work on the machine spoils figures.
pub(crate) fn load_average() -> f64 {
    let text = read("/proc/loadavg");
    text.split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0)
}

/// As many descriptors as the hard limit allows, for this process and those that it starts.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where the kernel refuses, the soft limit stays, and the table names it.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

/// `value` of the first line `key : value` of a file.
fn value(file: &str, key: &str) -> Option<String> {
    read(file).lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}
