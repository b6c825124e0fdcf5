//! What was measured on: a figure without its machine says nothing.

use std::time::Duration;
use std::{fs, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// One line: processor, cores, memory, kernel, descriptors.
pub(crate) fn describe() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
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

/// How long others' work is watched: the tail of a build that has just ended is over by then.
const WATCHED: Duration = Duration::from_secs(5);

/// What others keep busy while this process sleeps, in cores; what the host took away counts too.
/// `None` where the kernel does not say. Others' work on the machine spoils figures.
pub(crate) fn cores_busy() -> Option<f64> {
    let before = Cpu::read()?;
    thread::sleep(WATCHED);
    let after = Cpu::read()?;
    let all = (after.all - before.all) as f64;
    let idle = (after.idle - before.idle) as f64;
    let cores = thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    (all > 0.0).then(|| (1.0 - idle / all) * cores)
}

/// Ticks since the machine started, of all its cores.
struct Cpu {
    all: u64,
    idle: u64,
}

impl Cpu {
    /// From the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
    fn read() -> Option<Self> {
        let text = read("/proc/stat");
        let ticks: Vec<u64> = text
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .take(8)
            .map_while(|ticks| ticks.parse().ok())
            .collect();
        let [_, _, _, idle, iowait, ..] = ticks[..] else {
            return None;
        };
        Some(Self {
            all: ticks.iter().sum(),
            idle: idle + iowait,
        })
    }
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
