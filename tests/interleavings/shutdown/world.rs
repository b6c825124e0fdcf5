//! What a run shares beside the product: its time, its database, and who is still running.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use common::ids::AccountId;
use shuttle::future::{JoinHandle, block_on, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
use shuttle::thread;

use crate::fake_mio::Queue;

/// Time does not jump farther: what is due later than this is for runs that take hours.
const JUMP_MS_MAX: u64 = 30_000;

std::thread_local! {
    /// All threads of a run are one thread of the system.
    static CURRENT: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

#[derive(Debug, Default)]
pub(crate) struct World {
    /// Whoever wakes up because its time has come finds that a signal came first.
    interrupts: bool,
    time: Mutex<Time>,
    /// There is an alarm, or time is over.
    wanted: Condvar,
    running: Mutex<usize>,
    all_ended: Condvar,
    database: Mutex<Rows>,
    started: Mutex<Vec<Started>>,
}

#[derive(Debug, Default)]
struct Time {
    now_ms: u64,
    alarms: BTreeMap<(u64, u64), Alarm>,
    alarms_set: u64,
    over: bool,
}

/// Whom a time that has come wakes.
#[derive(Debug)]
pub(crate) enum Alarm {
    Loop(Arc<Queue>),
    Task(Waker),
}

/// What shuttle knows a thread or a task by.
#[derive(Debug)]
pub(crate) enum Started {
    Thread(thread::JoinHandle<()>),
    Task(JoinHandle<()>),
}

/// Takes its alarm back when it is dropped.
#[derive(Debug)]
pub(crate) struct Set {
    world: Arc<World>,
    key: (u64, u64),
}

#[derive(Debug, Default)]
struct Rows {
    /// The node has said that it has ended.
    closed: bool,
    telemetry: BTreeSet<(AccountId, i64)>,
    /// Lines of `sessions`, and whether they end one.
    sessions: Vec<(AccountId, bool)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics")
}

impl World {
    /// Makes a world for this run, in the place of the last one's.
    pub(crate) fn begin(interrupts: bool) -> Arc<Self> {
        let world = Arc::new(Self {
            interrupts,
            ..Self::default()
        });
        CURRENT.set(Some(world.clone()));
        world
    }

    pub(crate) fn current() -> Arc<Self> {
        CURRENT.with_borrow(|world| world.clone().expect("a run has begun"))
    }

    pub(crate) fn interrupts(&self) -> bool {
        self.interrupts
    }

    // ---- time ---------------------------------------------------------------------------------

    pub(crate) fn now_ms(&self) -> u64 {
        locked(&self.time).now_ms
    }

    pub(crate) fn set_alarm(self: &Arc<Self>, at_ms: u64, alarm: Alarm) -> Set {
        let mut time = locked(&self.time);
        time.alarms_set += 1;
        let key = (at_ms, time.alarms_set);
        time.alarms.insert(key, alarm);
        drop(time);
        self.wanted.notify_one();
        let world = self.clone();
        Set { world, key }
    }

    /// Time, on a thread of its own: jumps to the next alarm whenever it has a turn, after it has
    /// let `patience` turns go by.
    pub(crate) fn pass(&self, patience: u32) {
        loop {
            for _ in 0..patience {
                thread::yield_now();
            }
            let mut time = locked(&self.time);
            let alarm = loop {
                if time.over {
                    return;
                }
                match time.next() {
                    Some(alarm) => break alarm,
                    None => time = self.wanted.wait(time).expect("no thread panics"),
                }
            };
            drop(time);
            match alarm {
                Alarm::Loop(queue) => queue.ring(),
                Alarm::Task(waker) => waker.wake(),
            }
        }
    }

    /// Lets [`World::pass`] return: nobody needs the time any more.
    pub(crate) fn end_time(&self) {
        CURRENT.set(None);
        let mut time = locked(&self.time);
        time.over = true;
        drop(time);
        self.wanted.notify_one();
    }

    // ---- threads and tasks --------------------------------------------------------------------

    pub(crate) fn begins(&self) {
        *locked(&self.running) += 1;
    }

    pub(crate) fn ends(&self) {
        *locked(&self.running) -= 1;
        self.all_ended.notify_all();
    }

    pub(crate) fn running(&self) -> usize {
        *locked(&self.running)
    }

    /// A handle of a task that is dropped would end it.
    pub(crate) fn keep(&self, started: Started) {
        locked(&self.started).push(started);
    }

    /// Where it would wait for ever, shuttle finds that nobody can go on.
    pub(crate) fn wait_until_all_ended(&self) {
        let mut running = locked(&self.running);
        while *running > 0 {
            running = self.all_ended.wait(running).expect("no thread panics");
        }
        drop(running);
        for started in std::mem::take(&mut *locked(&self.started)) {
            match started {
                Started::Thread(thread) => thread.join().expect("no thread panics"),
                Started::Task(task) => block_on(task).expect("no task is cut off"),
            }
        }
    }

    // ---- the database -------------------------------------------------------------------------

    pub(crate) fn close(&self) {
        locked(&self.database).closed = true;
    }

    pub(crate) fn assert_open(&self, what: &str) {
        assert!(!locked(&self.database).closed, "{what} after the end");
    }

    pub(crate) fn store(
        &self,
        rows: impl Iterator<Item = (AccountId, i64)>,
        lines: impl Iterator<Item = (AccountId, bool)>,
    ) {
        let mut database = locked(&self.database);
        database.telemetry.extend(rows);
        // As with the keys of the real table: a commit of unknown outcome is written once more.
        for line in lines {
            if !database.sessions.contains(&line) {
                database.sessions.push(line);
            }
        }
    }

    pub(crate) fn has_row(&self, account_id: AccountId, seq: i64) -> bool {
        locked(&self.database)
            .telemetry
            .contains(&(account_id, seq))
    }

    /// What `sessions` has of an account.
    pub(crate) fn lines(&self, account_id: AccountId) -> Vec<bool> {
        let database = locked(&self.database);
        let of_account = database.sessions.iter().filter(|(of, _)| *of == account_id);
        of_account.map(|(_, ends)| *ends).collect()
    }
}

impl Time {
    fn next(&mut self) -> Option<Alarm> {
        let first = self.alarms.first_entry()?;
        let (at_ms, _) = *first.key();
        if at_ms > self.now_ms + JUMP_MS_MAX {
            return None;
        }
        self.now_ms = self.now_ms.max(at_ms);
        Some(first.remove())
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        locked(&self.world.time).alarms.remove(&self.key);
    }
}

/// A few turns for others.
pub(crate) async fn pause() {
    for _ in 0..thread_rng().gen_range(1..8) {
        yield_now().await;
    }
}

/// In how many runs what happened: a scenario that never comes to what it is about proves nothing.
#[derive(Debug, Default)]
pub(crate) struct Marks([AtomicU64; Mark::ALL.len()]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    InTime,
    Late,
    Closed,
    Acknowledged,
    Overloaded,
    TurnedAway,
    CameTooLate,
    Left,
}

impl Mark {
    const ALL: [Self; 8] = [
        Self::InTime,
        Self::Late,
        Self::Closed,
        Self::Acknowledged,
        Self::Overloaded,
        Self::TurnedAway,
        Self::CameTooLate,
        Self::Left,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::InTime => "in time",
            Self::Late => "late",
            Self::Closed => "closed",
            Self::Acknowledged => "stored",
            Self::Overloaded => "overloaded",
            Self::TurnedAway => "turned away",
            Self::CameTooLate => "unheard",
            Self::Left => "left",
        }
    }
}

impl Marks {
    pub(crate) fn hit(&self, mark: Mark) {
        self.0[mark as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// # Panics
    /// One of these was never hit.
    pub(crate) fn check(&self, must_see: &[Mark]) {
        for mark in must_see {
            let hits = self.0[*mark as usize].load(Ordering::Relaxed);
            assert!(hits > 0, "no run where it is \"{}\"", mark.name());
        }
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mark in Mark::ALL {
            let hits = self.0[mark as usize].load(Ordering::Relaxed);
            if hits > 0 {
                write!(f, "{} {hits}  ", mark.name())?;
            }
        }
        Ok(())
    }
}
