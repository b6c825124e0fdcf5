//! Carries out what [`Writer`] decides: batches and lines of `sessions` in, one write at a time, outcomes back
//! to shards.

use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use common::codes::Code;
use tokio::sync::mpsc;

use crate::batch::Batch;
use crate::clock::Clock;
use crate::driver::ToShard;
use crate::mailbox::Mailbox;
use crate::presence::{LINES_MAX, Lines, Presence};
use crate::shard;
use crate::stats::WriterFigures;
use crate::store::Store;
use crate::sync::{self, Mutex, MutexGuard};
use crate::writer::{Effect, Input, Work, WriteResult, Writer};

/// Batches between the shards and the task, which takes them at once: what waits is bounded in
/// bytes by [`Writer`]. A shard that finds it full tells its devices `overloaded`.
pub(crate) const BATCHES_WAITING_MAX: usize = 32;

/// What comes to the task.
#[derive(Debug)]
pub(crate) enum ToWriter {
    Batch(Batch),
    /// There are some, where there were none.
    Lines,
}

/// A shard's end of the way to the task.
#[derive(Clone, Debug)]
pub(crate) struct WriterEnd {
    mail: mpsc::Sender<ToWriter>,
    lines: SharedLines,
}

impl WriterEnd {
    /// # Errors
    /// There is no room: the batch comes back.
    pub(crate) fn submit(&self, batch: Batch) -> Result<(), Batch> {
        self.mail
            .try_send(ToWriter::Batch(batch))
            .map_err(|refused| match refused.into_inner() {
                ToWriter::Batch(batch) => batch,
                ToWriter::Lines => unreachable!("a batch was sent"),
            })
    }

    /// There is always room, for the oldest give way.
    pub(crate) fn tell(&self, lines: impl Iterator<Item = Presence>, now_ms: u64) {
        let mut all = self.lines.lock();
        let mut are_new = false;
        for line in lines {
            are_new |= all.push(line, now_ms);
        }
        drop(all);
        if are_new {
            // Full: it is about to look, whatever it is told.
            let _ = self.mail.try_send(ToWriter::Lines);
        }
    }
}

/// Held for as long as a decision takes, by whoever adds some and whoever takes some.
#[derive(Clone, Debug)]
struct SharedLines(sync::Arc<Mutex<Lines>>);

impl SharedLines {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two ends, before there is a task: what comes is kept for it.
pub(crate) fn way() -> (WriterEnd, Mail) {
    let (mail, from_shards) = mpsc::channel(BATCHES_WAITING_MAX);
    let lines = SharedLines(sync::Arc::new(Mutex::new(Lines::new(LINES_MAX))));
    let end = WriterEnd {
        mail,
        lines: lines.clone(),
    };
    (end, Mail { from_shards, lines })
}

/// The task's end.
#[derive(Debug)]
pub(crate) struct Mail {
    from_shards: mpsc::Receiver<ToWriter>,
    lines: SharedLines,
}

/// What the task needs.
#[derive(Debug)]
pub(crate) struct WriterTask {
    pub(crate) writer: Writer,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) mail: Mail,
    pub(crate) shards: Vec<Mailbox<ToShard>>,
    pub(crate) figures: Arc<WriterFigures>,
}

type Attempt<'s> = Pin<Box<dyn Future<Output = (Work, WriteResult)> + Send + 's>>;

impl WriterTask {
    /// Runs until all shards have ended and what they left is written.
    pub(crate) async fn run(self) {
        let Self {
            mut writer,
            store,
            clock,
            mail: Mail {
                mut from_shards,
                lines,
            },
            shards,
            figures,
        } = self;
        let mut effects = Vec::new();
        let mut attempt: Option<Attempt<'_>> = None;
        let mut open = true;
        while open || !writer.is_idle(&lines.lock()) {
            let due = writer.next_deadline(&lines.lock());
            figures.round.ends(due);
            let input = tokio::select! {
                biased;
                // First, so that what is stored is acknowledged before more is taken.
                (work, result) = async {
                    match &mut attempt {
                        Some(attempt) => attempt.await,
                        None => pending().await,
                    }
                } => {
                    attempt = None;
                    Input::Done { work, result }
                }
                mail = from_shards.recv(), if open => match mail {
                    Some(ToWriter::Batch(batch)) => Input::Submit(batch),
                    Some(ToWriter::Lines) => Input::Tick,
                    None => {
                        open = false;
                        Input::Close
                    }
                },
                () = wait_until(due, clock) => Input::Tick,
            };
            let now_ms = clock.now().ms;
            figures.round.begins(now_ms);
            writer.apply(input, now_ms, &mut lines.lock(), &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Write(work) => {
                        assert!(attempt.is_none(), "one write at a time");
                        let (store, figures) = (&store, &figures);
                        attempt = Some(Box::pin(async move {
                            let (rows, began_us) = (work.rows_len(), clock.us());
                            let result = store.write(&work).await;
                            figures.write_us.record(clock.us() - began_us, 1);
                            figures.write_rows.record(rows as u64, 1);
                            figures.publish_trouble(store.trouble());
                            (work, result)
                        }));
                    }
                    Effect::Finished { batch, outcome } => {
                        let shard = usize::from(batch.shard.0);
                        let finished = shard::Input::Finished { batch, outcome };
                        shards[shard].post(ToShard::Input(finished));
                    }
                    Effect::Contradicts {
                        account_id,
                        records,
                    } => tracing::warn!(
                        code = Code::NumbersUsedAgain.number(),
                        %account_id, records,
                        "a device uses its record numbers again: what was stored first is kept"
                    ),
                }
            }
            figures.counters.publish(writer.counters().figures());
            let queue_bytes = writer.queue_bytes() as u64;
            figures.queue_bytes.store(queue_bytes, Ordering::Relaxed);
        }
        figures.round.ends(None);
    }
}

async fn wait_until(at_ms: Option<u64>, clock: Clock) {
    match at_ms {
        Some(at_ms) => clock.sleep_until(at_ms).await,
        None => pending().await,
    }
}
