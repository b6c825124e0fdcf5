//! What processes use, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::error::{BenchError, Result, Tried as _};

/// CPU time of one or several processes so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuTime {
    threads: BTreeMap<u32, Thread>,
    /// Of whole processes, ended threads included, but only to a tick of 10 ms.
    ticked: Duration,
}

#[derive(Clone, Debug)]
struct Thread {
    name: String,
    ran_ns: u64,
}

impl CpuTime {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut time = Self {
            threads: BTreeMap::new(),
            ticked: ticked(pid)?,
        };
        for entry in fs::read_dir(format!("/proc/{pid}/task")).tried("list threads")? {
            let entry = entry.tried("list threads")?;
            let number = entry.file_name().to_string_lossy().parse();
            // A thread may have ended since it was listed.
            let read = |file| fs::read_to_string(entry.path().join(file));
            if let (Ok(number), Ok(name), Ok(said)) = (number, read("comm"), read("schedstat")) {
                let ran_ns = said.split(' ').next().and_then(|field| field.parse().ok());
                let thread = Thread {
                    name: name.trim_end().to_owned(),
                    ran_ns: ran_ns.unwrap_or(0),
                };
                time.threads.insert(number, thread);
            }
        }
        Ok(time)
    }

    pub(crate) fn of_all(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for &pid in pids {
            let one = Self::of(pid)?;
            sum.threads.extend(one.threads);
            sum.ticked += one.ticked;
        }
        Ok(sum)
    }

    /// CPU time used since `before`. To the nanosecond as long as no thread ended in between,
    /// else to the tick: an ended thread takes its share with it.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let ended = |number| !self.threads.contains_key(number);
        let not_counted = self.threads.values().all(|thread| thread.ran_ns == 0);
        if not_counted || before.threads.keys().any(ended) {
            return self.ticked.saturating_sub(before.ticked);
        }
        self.since_in(before, "")
    }

    /// Of the threads whose names begin so, and that still run.
    pub(crate) fn since_in(&self, before: &Self, name: &str) -> Duration {
        let threads = self.threads.iter();
        let used_ns = threads
            .filter(|(_, thread)| thread.name.starts_with(name))
            .map(|(number, thread)| {
                let before = before.threads.get(number);
                let before_ns = before.map_or(0, |thread| thread.ran_ns);
                thread.ran_ns.saturating_sub(before_ns)
            });
        Duration::from_nanos(used_ns.sum())
    }
}

fn ticked(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).tried("read a process's times")?;
    // The name, in brackets, may hold anything; utime and stime are the fields 14 and 15.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = after_name.split_whitespace().skip(11);
    let mut field = || fields.next().and_then(|field| field.parse::<u64>().ok());
    match (field(), field()) {
        (Some(user), Some(system)) => {
            let per_s = rustix::param::clock_ticks_per_second();
            Ok(Duration::from_millis((user + system) * 1_000 / per_s))
        }
        _ => Err(BenchError::failed(format!("/proc/{pid}/stat: {stat:?}"))),
    }
}

/// User memory of a process in RAM, in bytes. What the kernel keeps for its sockets is not in it.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).tried("read a process's memory")?;
    text.lines()
        .find_map(|line| line.strip_prefix("Rss:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map(|kib| kib * 1_024)
        .ok_or_else(|| BenchError::failed(format!("/proc/{pid}/smaps_rollup has no Rss")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_the_cpu_time_of_this_process() {
        let me = std::process::id();
        let before = CpuTime::of(me).expect("readable");
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let used = CpuTime::of(me).expect("readable").since(&before);
        assert!(
            used > Duration::ZERO && used < Duration::from_secs(60),
            "{used:?}"
        );
    }

    #[test]
    fn touched_memory_is_resident() {
        let me = std::process::id();
        let before = resident_bytes(me).expect("readable");
        let touched = vec![1_u8; 64 << 20];
        let after = resident_bytes(me).expect("readable");
        assert!(after > before + (48 << 20), "{before} {after}");
        drop(touched);
    }

    #[test]
    fn a_thread_that_ended_makes_the_ticks_count() {
        let time = |threads: &[(u32, u64)], ticked_ms| CpuTime {
            threads: threads
                .iter()
                .map(|&(number, ran_ns)| {
                    let name = format!("shard-{number}");
                    (number, Thread { name, ran_ns })
                })
                .collect(),
            ticked: Duration::from_millis(ticked_ms),
        };
        let before = time(&[(1, 5), (2, 70)], 10);
        let after = time(&[(1, 15), (2, 90), (3, 4)], 50);
        assert_eq!(after.since(&before), Duration::from_nanos(34));
        assert_eq!(after.since_in(&before, "shard-2"), Duration::from_nanos(20));
        let after = time(&[(1, 15)], 50);
        assert_eq!(after.since(&before), Duration::from_millis(40));
    }
}
