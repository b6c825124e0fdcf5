//! The threads of a node and its writer: how they come to know each other, and how they end
//! together.
//!
//! ```text
//! shut_down:  gate: no grants ─▶ shards: last batches, acks, Close(shutdown) ─▶ threads end
//!             ─▶ writer: last rows ─▶ gate's thread ends
//! ```
//!
//! The gate tells the shards, so that no session is handed over behind the order to end. The gate
//! outlives the shards, because they tell it which sessions ended; the writer ends when the last
//! shard has let go of its queue. Nobody waits for one that waits for it: loops wait for nothing
//! but readiness and messages.
//!
//! Proven under many interleavings by `tests/interleavings`, with this file in it.

use std::io;
use std::net::SocketAddr;

use common::codes::Code;
use common::link::Hub;
use mio::net::TcpListener;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::driver::gate::{self as gate_driver, GateLoop};
use crate::driver::shard::{self as shard_driver, ShardLoop};
use crate::driver::{ToGate, ToShard};
use crate::gate;
use crate::ids::{ListenerIndex, ShardIndex};
use crate::mailbox::Mailbox;
use crate::settings::Settings;
use crate::shard::{self, Shard};
use crate::stats::Figures;
use crate::store::Store;
use crate::threads::{Task, Thread};
use crate::writer::Writer;
use crate::writer_task::{self, WriterTask};

/// Beyond the deadline of a shutdown: for the last word to every device, which a socket waits a
/// second for.
const GOODBYE_MS_MAX: u64 = 2_000;

/// What the loops of a node work with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) hub: Hub,
    /// For devices.
    pub(crate) listeners: Vec<(ListenerIndex, TcpListener)>,
    /// What devices are told.
    pub(crate) advertise: Vec<SocketAddr>,
    /// Where the cores' seeds come from.
    pub(crate) seed: fn() -> u64,
}

/// The loops of a node, and the writer. Dropped without [`Loops::shut_down`], they end at once.
#[derive(Debug)]
pub(crate) struct Loops {
    clock: Clock,
    gate: Mailbox<ToGate>,
    gate_thread: Option<Thread>,
    shards: Vec<Mailbox<ToShard>>,
    shard_threads: Vec<Thread>,
    writer: Task,
}

impl Loops {
    /// Runs the writer on the runtime that it is called on.
    pub(crate) fn start(settings: &Settings, parts: Parts, figures: &Figures) -> io::Result<Self> {
        let Parts {
            clock,
            store,
            hub,
            listeners,
            advertise,
            seed,
        } = parts;
        // The mailboxes first, then whoever writes to them.
        let (gate_seat, gate) = gate_driver::Seat::new()?;
        let seats: io::Result<Vec<_>> = (0..settings.shards())
            .map(|_| shard_driver::Seat::new())
            .collect();
        let (shard_seats, shards): (Vec<_>, Vec<_>) = seats?.into_iter().unzip();
        let (to_writer, mail) = writer_task::way();
        let writer = WriterTask {
            writer: Writer::new(settings.writer(), seed()),
            store,
            clock,
            mail,
            shards: shards.clone(),
            figures: figures.writer.clone(),
        };
        let mut loops = Self {
            clock,
            gate,
            gate_thread: None,
            shards,
            shard_threads: Vec::new(),
            writer: Task::spawn(writer.run()),
        };
        for (index, seat) in (0..).map(ShardIndex).zip(shard_seats) {
            let core = Shard::new(settings.shard(index), seed());
            let peers = shard_driver::Peers {
                gate: loops.gate.clone(),
                writer: to_writer.clone(),
                hub: hub.clone(),
                overload_retry_ms: settings.overload_retry_ms,
            };
            let figures = figures.shards[usize::from(index.0)].clone();
            let shard = ShardLoop::new(seat, clock, core, peers, figures);
            let thread = Thread::spawn(format!("shard-{}", index.0), || shard.run())?;
            loops.shard_threads.push(thread);
        }
        let core = gate::Core::new(&settings.gate(advertise), seed());
        let peers = gate_driver::Peers {
            shards: loops.shards.clone(),
            hub,
        };
        let sockets_max = settings.sockets_max();
        let gate = GateLoop::new(
            gate_seat,
            clock,
            core,
            listeners,
            sockets_max,
            peers,
            figures,
        )?;
        loops.gate_thread = Some(Thread::spawn("gate".into(), || gate.run())?);
        Ok(loops)
    }

    /// Where the gate is told of links and grants.
    pub(crate) fn gate(&self) -> Mailbox<ToGate> {
        self.gate.clone()
    }

    /// Takes no grants any more, has what was taken stored and acknowledged, sends every device
    /// `Close(shutdown)`, and returns when all has ended. What is not stored within `deadline_ms`
    /// is left: it was not acknowledged, so the devices send it again. `hurry`, once true, is such a deadline.
    pub(crate) async fn shut_down(&mut self, deadline_ms: u64, hurry: &watch::Receiver<bool>) {
        let clock = self.clock;
        let deadline_at_ms = clock.now().ms + deadline_ms;
        self.gate.post(ToGate::Input(gate::Input::Shutdown));
        let threads = &mut self.shard_threads;
        let in_time = clock.by(deadline_at_ms, unless(hurry, ended(threads)));
        if in_time.await.flatten().is_none() {
            tracing::warn!(
                code = Code::ShutdownTooLong.number(),
                "shutdown takes too long: what is not acknowledged is left"
            );
            for shard in &self.shards {
                shard.post(ToShard::Input(shard::Input::Abandon));
            }
            let goodbye_at_ms = clock.now().ms + GOODBYE_MS_MAX;
            clock.by(goodbye_at_ms, ended(threads)).await;
            for shard in &self.shards {
                shard.post(ToShard::Stop);
            }
            ended(threads).await;
        }
        let in_time = clock.by(deadline_at_ms, unless(hurry, self.writer.ended()));
        if in_time.await.flatten().is_none() {
            self.writer.abort();
            // Only then nobody writes to the database any more.
            self.writer.ended().await;
        }
        self.gate.post(ToGate::Stop);
        if let Some(thread) = &mut self.gate_thread {
            thread.ended().await;
        }
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        self.gate.post(ToGate::Stop);
        self.shards
            .iter()
            .for_each(|shard| shard.post(ToShard::Stop));
        self.writer.abort();
    }
}

/// What `future` gives; `None`: it is told to hurry.
async fn unless<T>(hurry: &watch::Receiver<bool>, future: impl Future<Output = T>) -> Option<T> {
    let mut hurry = hurry.clone();
    tokio::select! {
        biased;
        given = future => Some(given),
        // Where nobody is left who could tell it, nobody does.
        Ok(_) = hurry.wait_for(|hurry| *hurry) => None,
    }
}

/// Waits until all of them are gone.
async fn ended(threads: &mut [Thread]) {
    for thread in threads {
        thread.ended().await;
    }
}
