//! In the place of `logic-server/src/store`: a database that keeps its rows in the world.

use shuttle::rand::{Rng, thread_rng};

#[allow(dead_code, reason = "no database says anything here")]
#[path = "../../../logic-server/src/store/refusal.rs"]
pub(crate) mod refusal;

use refusal::Trouble;

use crate::clock::Clock;
use crate::presence::Presence;
use crate::world::{World, pause};
use crate::writer::{Work, WriteResult, Written};

/// As `write_deadline_ms` has it.
const DEADLINE_MS: u64 = 2_000;

/// How the database is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mood {
    Prompt,
    /// Takes its time, within the deadline.
    Slow,
    /// Fails every other time, before the commit or after it.
    Flaky,
    /// Does not answer at all.
    Stuck,
}

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) mood: Mood,
}

impl Store {
    /// Whatever fails here passes.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        None
    }

    pub(crate) async fn write(&self, work: &Work) -> WriteResult {
        let world = World::current();
        world.assert_open("a write begins");
        let now_ms = world.now_ms();
        match self.mood {
            Mood::Prompt => pause().await,
            Mood::Slow => {
                let wait_ms = thread_rng().gen_range(1..DEADLINE_MS);
                Clock.sleep_until(now_ms + wait_ms).await;
            }
            Mood::Flaky => {
                pause().await;
                match thread_rng().gen_range(0..4) {
                    0 => return WriteResult::Failed,
                    1 => {
                        commit(&world, work);
                        return WriteResult::Failed;
                    }
                    _ => {}
                }
            }
            Mood::Stuck => {
                Clock.sleep_until(now_ms + DEADLINE_MS).await;
                return WriteResult::Failed;
            }
        }
        commit(&world, work);
        WriteResult::Committed(Written::default())
    }
}

fn commit(world: &World, work: &Work) {
    world.assert_open("a write is committed");
    let rows = work.rows().map(|(row, _)| (row.account_id, row.seq));
    let lines = work.presence().iter().map(|line| match line {
        Presence::Attached { account_id, .. } => (*account_id, false),
        Presence::Ended { account_id, .. } => (*account_id, true),
    });
    world.store(rows, lines);
}
