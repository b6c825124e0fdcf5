//! Carries out what [`Writer`] decides: batches in, one write at a time, outcomes back to shards.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::codes::Code;
use tokio::sync::mpsc;

use crate::batch::Batch;
use crate::clock::Clock;
use crate::driver::ToShard;
use crate::mailbox::Mailbox;
use crate::shard;
use crate::stats::WriterFigures;
use crate::store::Store;
use crate::writer::{Effect, Input, Work, WriteResult, Writer};

/// Batches between the shards and the task, which takes them at once: what waits is bounded in
/// bytes by [`Writer`]. A shard that finds it full tells its devices `overloaded`.
pub(crate) const BATCHES_WAITING_MAX: usize = 32;

/// What the task needs.
#[derive(Debug)]
pub(crate) struct WriterTask {
    pub(crate) writer: Writer,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) batches: mpsc::Receiver<Batch>,
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
            mut batches,
            shards,
            figures,
        } = self;
        let mut effects = Vec::new();
        let mut attempt: Option<Attempt<'_>> = None;
        let mut open = true;
        while open || !writer.is_idle() {
            let due = writer.next_deadline();
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
                batch = batches.recv(), if open => match batch {
                    Some(batch) => Input::Submit(batch),
                    None => {
                        open = false;
                        continue;
                    }
                },
                () = wait_until(due, clock) => Input::Tick,
            };
            let now_ms = clock.now().ms;
            writer.apply(input, now_ms, &mut effects);
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
    }
}

async fn wait_until(at_ms: Option<u64>, clock: Clock) {
    match at_ms {
        Some(at_ms) => clock.sleep_until(at_ms).await,
        None => pending().await,
    }
}
