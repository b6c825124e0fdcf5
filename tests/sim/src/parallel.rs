//! Runs on every core of the machine. Each is single-threaded and knows nothing of the others; what
//! comes of them is handed on in the order in which they were asked for.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Who runs so long is named: it may hang.
const SLOW: Duration = Duration::from_secs(120);

/// Whether more is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    GoOn,
    Stop,
}

/// Does `work` for every job and tells `done`, until there are no more jobs or `done` has enough.
/// What had been begun by then is finished, and nobody hears of it.
pub fn each<J, R>(
    jobs: impl Iterator<Item = J> + Send,
    work: impl Fn(&J) -> R + Sync,
    mut done: impl FnMut(J, R) -> Next,
) where
    J: Send + Display,
    R: Send,
{
    let jobs = Mutex::new(jobs.enumerate());
    let running = Mutex::new(BTreeMap::new());
    let is_enough = AtomicBool::new(false);
    let (results, arrived) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            let results = results.clone();
            scope.spawn(|| {
                let results = results;
                while !is_enough.load(Ordering::Relaxed)
                    && let Some((index, job)) = next(&jobs)
                {
                    let begun = Instant::now();
                    lock(&running).insert(index, (begun, job.to_string(), false));
                    let result = work(&job);
                    lock(&running).remove(&index);
                    if results.send((index, job, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(results);
        let mut early = BTreeMap::new();
        let mut wanted = 0;
        loop {
            match arrived.recv_timeout(Duration::from_secs(1)) {
                Ok((index, job, result)) => {
                    early.insert(index, (job, result));
                }
                Err(RecvTimeoutError::Timeout) => name_slow_ones(&running),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Some((job, result)) = early.remove(&wanted) {
                wanted += 1;
                if !is_enough.load(Ordering::Relaxed) && done(job, result) == Next::Stop {
                    is_enough.store(true, Ordering::Relaxed);
                }
            }
        }
    });
}

fn next<J>(jobs: &Mutex<impl Iterator<Item = J>>) -> Option<J> {
    lock(jobs).next()
}

fn name_slow_ones(running: &Mutex<BTreeMap<usize, (Instant, String, bool)>>) {
    for (begun, job, is_named) in lock(running).values_mut() {
        if begun.elapsed() > SLOW && !*is_named {
            *is_named = true;
            eprintln!("still running after {} s: {job}", SLOW.as_secs());
        }
    }
}

/// A panic elsewhere is told elsewhere.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let mut told = vec![];
        let work = |job: &u64| {
            // The first are the slowest.
            thread::sleep(Duration::from_millis(20_u64.saturating_sub(*job)));
            job * 10
        };
        each(0..30, work, |job, result| {
            told.push((job, result));
            Next::GoOn
        });
        assert_eq!(told, (0..30).map(|job| (job, job * 10)).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_told_after_enough() {
        let mut told = vec![];
        each(
            0_u64..,
            |job| *job,
            |job, _| {
                told.push(job);
                if job == 4 { Next::Stop } else { Next::GoOn }
            },
        );
        assert_eq!(told, [0, 1, 2, 3, 4]);
    }
}
