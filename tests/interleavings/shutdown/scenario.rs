//! What is tried, and what must hold however the threads take their turns.
//!
//! Whatever the database does: every session hears exactly one Close and nothing after it; what is
//! told to be stored is stored; when the node says that it has ended, no thread of it runs, and
//! nothing is written to the database or to a device any more. Where the end was in time, every
//! frame that was taken is answered before its session is closed, and both lines of every session
//! are stored. That the end comes at all needs no check: a thread that waits for ever stops the
//! run.

use std::future::pending;

use common::ids::AccountId;
use common::link::{Hub, HubSettings, Keys, LinkId, Role};
use shuttle::future::{block_on, yield_now};
use shuttle::rand::{Rng, RngCore, thread_rng};
use shuttle::sync::Arc;
use shuttle::thread;
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::counters::{Counter, Gauge};
use crate::device::{self, Heard, Manner};
use crate::driver::ToGate;
use crate::fake_mio::net::TcpListener;
use crate::gate;
use crate::loops::{Loops, Parts};
use crate::settings::{RCU_LISTENER, Settings};
use crate::stats::{Figures, Stats};
use crate::store::{Mood, Store};
use crate::world::{Mark, Marks, World};

const DEADLINE_MS: u64 = 10_000;

/// The node, its devices, and how it ends.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    mood: Mood,
    devices: &'static [Manner],
    /// Records in one batch.
    batch_rows_max: usize,
    /// What a socket takes that its device does not read. Where that is little, a device that is
    /// slow may miss its Close: nobody waits for it longer than a second.
    unread_bytes_max: usize,
    /// A signal comes whenever a loop would wake up by itself, as under a profiler.
    interrupts: bool,
    end: End,
    /// What must occur in one run at least.
    pub(crate) must_see: &'static [Mark],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Asked for, and waited for.
    Orderly,
    /// The gate is told twice.
    Twice,
    /// Asked for, and told to hurry at any time.
    Hurried,
    /// Asked for, and given up at any time.
    GivenUp,
    /// Dropped without a word.
    Dropped,
}

const STAYS: Manner = Manner {
    frames: 2,
    leaves: false,
    hangs: false,
};
const HANGS: Manner = Manner {
    frames: 2,
    leaves: false,
    hangs: true,
};
const LEAVES: Manner = Manner {
    frames: 2,
    leaves: true,
    hangs: false,
};
const QUIET: Manner = Manner {
    frames: 0,
    leaves: false,
    hangs: false,
};
/// More than the writer's queue holds, where each is a batch of its own.
const BUSY: Manner = Manner {
    frames: 40,
    leaves: false,
    hangs: false,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "all is well",
        mood: Mood::Prompt,
        devices: &[STAYS, HANGS],
        batch_rows_max: 5_000,
        unread_bytes_max: usize::MAX,
        interrupts: false,
        end: End::Orderly,
        must_see: &[
            Mark::InTime,
            Mark::Closed,
            Mark::Acknowledged,
            Mark::TurnedAway,
        ],
    },
    Scenario {
        name: "asked for twice, devices leave",
        mood: Mood::Prompt,
        devices: &[STAYS, LEAVES, LEAVES],
        batch_rows_max: 5_000,
        unread_bytes_max: usize::MAX,
        interrupts: false,
        end: End::Twice,
        must_see: &[Mark::InTime, Mark::Closed, Mark::Left],
    },
    Scenario {
        name: "the database is slow",
        mood: Mood::Slow,
        devices: &[STAYS, STAYS],
        batch_rows_max: 1,
        unread_bytes_max: usize::MAX,
        interrupts: false,
        end: End::Orderly,
        must_see: &[Mark::InTime, Mark::Late, Mark::Acknowledged],
    },
    Scenario {
        name: "the database fails now and then",
        mood: Mood::Flaky,
        devices: &[STAYS, STAYS],
        batch_rows_max: 1,
        unread_bytes_max: usize::MAX,
        interrupts: false,
        end: End::Orderly,
        must_see: &[Mark::InTime, Mark::Acknowledged],
    },
    Scenario {
        name: "the database is stuck",
        mood: Mood::Stuck,
        devices: &[STAYS, HANGS],
        batch_rows_max: 5_000,
        unread_bytes_max: usize::MAX,
        interrupts: false,
        end: End::Orderly,
        must_see: &[Mark::Late, Mark::Closed],
    },
    Scenario {
        name: "more batches than the writer's queue",
        mood: Mood::Prompt,
        devices: &[QUIET, BUSY],
        batch_rows_max: 1,
        unread_bytes_max: usize::MAX,
        interrupts: false,
        end: End::Orderly,
        must_see: &[Mark::InTime, Mark::Overloaded],
    },
    Scenario {
        name: "sockets take little",
        mood: Mood::Prompt,
        devices: &[BUSY, LEAVES],
        batch_rows_max: 5_000,
        unread_bytes_max: 40,
        interrupts: false,
        end: End::Orderly,
        must_see: &[Mark::InTime, Mark::Closed, Mark::Acknowledged],
    },
    Scenario {
        name: "signals interrupt",
        mood: Mood::Prompt,
        devices: &[HANGS, HANGS],
        batch_rows_max: 5_000,
        unread_bytes_max: usize::MAX,
        interrupts: true,
        end: End::Orderly,
        must_see: &[Mark::InTime, Mark::Closed, Mark::Acknowledged],
    },
    Scenario {
        name: "told to hurry at any time",
        mood: Mood::Stuck,
        devices: &[STAYS, LEAVES],
        batch_rows_max: 5_000,
        unread_bytes_max: usize::MAX,
        interrupts: false,
        end: End::Hurried,
        must_see: &[Mark::Late, Mark::Closed],
    },
    Scenario {
        name: "given up at any time",
        mood: Mood::Slow,
        devices: &[STAYS, LEAVES],
        batch_rows_max: 5_000,
        unread_bytes_max: usize::MAX,
        interrupts: false,
        end: End::GivenUp,
        must_see: &[Mark::Closed],
    },
    Scenario {
        name: "dropped",
        mood: Mood::Slow,
        devices: &[STAYS, STAYS],
        batch_rows_max: 5_000,
        unread_bytes_max: usize::MAX,
        interrupts: false,
        end: End::Dropped,
        must_see: &[],
    },
];

/// Nobody is there to tell it.
fn unhurried() -> watch::Receiver<bool> {
    watch::channel(false).1
}

impl Scenario {
    /// One run, under the scheduler that calls it.
    pub(crate) fn run(&self, marks: &Marks) {
        let world = World::begin(self.interrupts);
        let patience = [1, 100, 1_000][thread_rng().gen_range(0..3)];
        let passing = world.clone();
        let time = thread::spawn(move || passing.pass(patience));

        let settings = Settings {
            threads: 2,
            max_connections: Some(8),
            window: 64,
            // Not what is tried here.
            attach_deadline_ms: 3_600_000,
            heartbeat_s: 3_600,
            batch_rows_max: self.batch_rows_max,
            ..Settings::default()
        };
        let (listener, address) = TcpListener::new(self.unread_bytes_max);
        let figures = Figures::new(&settings);
        let parts = Parts {
            clock: Clock,
            store: Store { mood: self.mood },
            hub: hub(),
            listeners: vec![(RCU_LISTENER, listener)],
            advertise: settings.listen.clone(),
            seed: || thread_rng().next_u64(),
        };
        let mut devices = vec![];
        let in_time = block_on(async {
            let loops = Loops::start(&settings, parts, &figures).expect("fakes do not fail");
            for (account, manner) in (1..).zip(self.devices.iter().copied()) {
                let grant = gate::Input::Grant {
                    link: LinkId(1),
                    request: 1,
                    grant: device::grant(account),
                };
                loops.gate().post(ToGate::Input(grant));
                let (world, address) = (world.clone(), address.clone());
                let run = move || device::run(&world, &address, account, manner);
                devices.push(thread::spawn(run));
            }
            for _ in 0..thread_rng().gen_range(0..400) {
                yield_now().await;
            }
            self.end(&world, loops).await
        });
        world.wait_until_all_ended();
        let heard: Vec<_> = devices
            .into_iter()
            .map(|device| device.join().expect("a device that panics ends the run"))
            .collect();
        world.end_time();
        time.join().expect("time does not panic");
        self.judge(&world, in_time, &heard, &figures.snapshot(), marks);
    }

    /// Returns whether the node ended in time; `None`: it was not let.
    async fn end(&self, world: &Arc<World>, mut loops: Loops) -> Option<bool> {
        let asked_at_ms = world.now_ms();
        match self.end {
            End::Orderly | End::Twice => {
                if self.end == End::Twice {
                    let shutdown = gate::Input::Shutdown;
                    loops.gate().post(ToGate::Input(shutdown));
                }
                loops.shut_down(DEADLINE_MS, &unhurried()).await;
                world.close();
                assert_eq!(world.running(), 0, "threads and tasks run on");
                Some(world.now_ms() < asked_at_ms + DEADLINE_MS)
            }
            End::Hurried => {
                let at_ms = asked_at_ms + thread_rng().gen_range(0..DEADLINE_MS);
                let (told, hurry) = watch::channel(false);
                let hurrying = async {
                    Clock.sleep_until(at_ms).await;
                    told.send_replace(true);
                    pending().await
                };
                tokio::select! {
                    biased;
                    () = loops.shut_down(DEADLINE_MS, &hurry) => {}
                    () = hurrying => {}
                }
                world.close();
                assert_eq!(world.running(), 0, "threads and tasks run on");
                Some(world.now_ms() < at_ms)
            }
            End::GivenUp => {
                let wait_ms = thread_rng().gen_range(0..2 * DEADLINE_MS);
                let hurry = unhurried();
                let shutdown = loops.shut_down(DEADLINE_MS, &hurry);
                Clock.by(asked_at_ms + wait_ms, shutdown).await;
                None
            }
            End::Dropped => None,
        }
    }

    fn judge(
        &self,
        world: &World,
        in_time: Option<bool>,
        heard: &[Heard],
        stats: &Stats,
        marks: &Marks,
    ) {
        let stayed = || {
            (1..)
                .zip(self.devices)
                .zip(heard)
                .filter(|((_, it), _)| !it.leaves)
        };
        for ((account, _), heard) in stayed() {
            assert!(!(heard.attached && heard.turned_away), "{heard:?}");
            assert!(
                heard.closes.len() <= usize::from(heard.attached),
                "{heard:?}"
            );
            if in_time.is_some() && heard.attached && self.unread_bytes_max == usize::MAX {
                assert_eq!(heard.closes.len(), 1, "{heard:?} is not closed");
            }
            if in_time == Some(true) && heard.attached {
                let lines = world.lines(AccountId(account));
                assert_eq!(lines, [false, true], "lines of the session of {heard:?}");
            }
        }
        let told = |count: fn(&Heard) -> u64| heard.iter().map(count).sum::<u64>();
        let (stored, overloaded) = (told(|it| it.stored), told(|it| it.overloaded));
        let everybody_stayed = self.devices.iter().all(|it| !it.leaves);
        if in_time == Some(true) {
            let answered =
                stats.count(Counter::TelemetryStored) + stats.count(Counter::TelemetryOverloaded);
            assert_eq!(
                stats.count(Counter::Telemetry),
                answered,
                "frames without an answer"
            );
            if everybody_stayed {
                let beyond = stats.count(Counter::TelemetryBeyondWindow);
                assert_eq!(
                    stored + overloaded,
                    answered + beyond,
                    "answers that did not arrive"
                );
                assert_eq!(stats.count(Counter::AckDropped), 0, "acks behind Close");
                let replies = told(|it| u64::from(it.attached || it.turned_away));
                let admitted = stats.count(Counter::Attached);
                assert!(
                    replies >= admitted,
                    "{admitted} admitted, {replies} told so"
                );
            }
        }
        if in_time.is_some() {
            assert_eq!(stats.gauge(Gauge::Sessions), 0);
        }

        let mark = |occurred: bool, mark| {
            if occurred {
                marks.hit(mark);
            }
        };
        mark(in_time == Some(true), Mark::InTime);
        mark(in_time == Some(false), Mark::Late);
        mark(heard.iter().any(|it| !it.closes.is_empty()), Mark::Closed);
        mark(stored > 0, Mark::Acknowledged);
        mark(overloaded > 0, Mark::Overloaded);
        mark(heard.iter().any(|it| it.turned_away), Mark::TurnedAway);
        let came_too_late = |it: &Heard| !it.connected;
        mark(heard.iter().any(came_too_late), Mark::CameTooLate);
        let left = stats.count(Counter::Disconnected) > 0;
        mark(!everybody_stayed && left, Mark::Left);
    }
}

/// Without links: whoever is spoken to is gone.
fn hub() -> Hub {
    let (events, _) = mpsc::channel(1);
    Hub::new(HubSettings {
        role: Role::Logic,
        node: "logic-1".parse().expect("a name"),
        keys: Keys::default(),
        events,
        listen_publicly: false,
    })
}
