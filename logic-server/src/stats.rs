//! What a running node tells of itself: figures that its loops publish at the end of each turn,
//! and that anybody may read without asking them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use common::figures::{Published, PublishedHistogram, Round};
use common::histogram::Histogram;
use common::ids::NodeName;
use common::metrics::{Gathered, Source};

use crate::batch::Batch;
use crate::clock::Clock;
use crate::counters::{Counter, Gauge, ShellCounter};
use crate::settings::Settings;
use crate::store::refusal::Trouble;

/// A snapshot. The figures of different threads are not of the very same moment.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Milliseconds from a frame's arrival to its TelemetryAck `stored`.
    pub ack_ms: Histogram,
    /// Microseconds from a turn's begin to its end, of one turn in eight of every loop.
    pub turn_us: Histogram,
    /// Microseconds of each write of batches, whatever came of it.
    pub write_us: Histogram,
    /// Records of each write.
    pub write_rows: Histogram,
    gauges: [u64; Gauge::ALL.len()],
    counters: [u64; Counter::ALL.len()],
    shell_counters: [u64; ShellCounter::ALL.len()],
}

impl Stats {
    /// Counted since the start, by all cores of the node together.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Likewise by its loops and tasks.
    pub fn shell_count(&self, counter: ShellCounter) -> u64 {
        self.shell_counters[counter as usize]
    }

    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize]
    }

    /// Of every counter its name, what it is, and the count.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let of_cores = Counter::ALL.iter().zip(self.counters);
        let of_cores = of_cores.map(|(it, count)| (it.name(), it.help(), count));
        let of_shells = ShellCounter::ALL.iter().zip(self.shell_counters);
        of_cores.chain(of_shells.map(|(it, count)| (it.name(), it.help(), count)))
    }

    /// Likewise of every gauge.
    pub(crate) fn measured(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let gauges = Gauge::ALL.iter().zip(self.gauges);
        gauges.map(|(it, figure)| (it.name(), it.help(), figure))
    }
}

/// What one core counted.
pub(crate) type PublishedCounters = Published<{ Counter::ALL.len() }>;

/// What the gate's loop publishes.
#[derive(Debug, Default)]
pub(crate) struct GateFigures {
    pub(crate) counters: PublishedCounters,
    pub(crate) pending: AtomicU64,
    /// Sockets handed to shards since the start.
    pub(crate) admitted: AtomicU64,
    pub(crate) dropped_without_descriptor: AtomicU64,
    pub(crate) dropped_at_limit: AtomicU64,
    /// Conn servers linked.
    pub(crate) links: AtomicU64,
    /// No grants are taken any more.
    pub(crate) ends: AtomicBool,
    pub(crate) turn_us: PublishedHistogram,
    pub(crate) round: Round,
}

/// What the writer's task publishes.
#[derive(Debug, Default)]
pub(crate) struct WriterFigures {
    pub(crate) counters: PublishedCounters,
    pub(crate) queue_bytes: AtomicU64,
    pub(crate) round: Round,
    /// What the last write found.
    trouble: Mutex<Option<Trouble>>,
    pub(crate) write_us: PublishedHistogram,
    pub(crate) write_rows: PublishedHistogram,
}

impl WriterFigures {
    pub(crate) fn publish_trouble(&self, trouble: Option<Trouble>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn trouble(&self) -> Option<Trouble> {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a shard's loop publishes.
#[derive(Debug, Default)]
pub(crate) struct ShardFigures {
    pub(crate) counters: PublishedCounters,
    pub(crate) sessions: AtomicU64,
    /// Of the sockets that the gate handed over so many are closed.
    pub(crate) closed: AtomicU64,
    pub(crate) turn_us: PublishedHistogram,
    pub(crate) round: Round,
    ack_ms: PublishedHistogram,
}

impl ShardFigures {
    /// The batch is stored, and its frames are acknowledged in this turn. Its first frame waited
    /// longest; the others are counted as if they had come with it.
    pub(crate) fn stored(&self, batch: &Batch, now_ms: u64) {
        let waited_ms = now_ms.saturating_sub(batch.opened_at_ms);
        self.ack_ms.record(waited_ms, batch.acks.len() as u64);
    }
}

/// A logic server's figures, for the metrics of its process; outlives it.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) node: NodeName,
    pub(crate) figures: Figures,
    pub(crate) clock: Clock,
}

impl Source for Metrics {
    fn gather(&self, gathered: &mut Gathered) {
        let node = self.node.to_string();
        let mut figures = gathered.node("logic_server", &node);
        let stats = self.figures.snapshot();
        for (name, help, count) in stats.counted() {
            figures.counter(name, help, count);
        }
        for (name, help, figure) in stats.measured() {
            figures.gauge(name, help, figure);
        }
        figures.ready(&self.missing());
        for (name, help, histogram, per_unit) in [
            (
                "turn_seconds",
                "Turns of the event loops, one in eight.",
                stats.turn_us,
                1e6,
            ),
            (
                "ack_seconds",
                "From a Telemetry frame to its TelemetryAck stored.",
                stats.ack_ms,
                1e3,
            ),
            (
                "write_seconds",
                "Writes of batches, whatever came of them.",
                stats.write_us,
                1e6,
            ),
            ("write_rows", "Records of a write.", stats.write_rows, 1.0),
        ] {
            figures.histogram(name, help, histogram, per_unit);
        }
    }

    fn stuck(&self) -> Vec<String> {
        let stuck = self.figures.stuck(self.clock.now().ms);
        let told = stuck
            .into_iter()
            .map(|told| format!("{}: {told}", self.node));
        told.collect()
    }

    fn missing(&self) -> Vec<String> {
        let (gate, writer) = (&self.figures.gate, &self.figures.writer);
        let mut missing = vec![];
        if gate.links.load(Ordering::Relaxed) == 0 {
            missing.push(format!("{}: no conn server is linked", self.node));
        }
        let trouble = writer.trouble();
        missing.extend(trouble.map(|trouble| format!("{}: {}", self.node, trouble.told())));
        if gate.ends.load(Ordering::Relaxed) {
            missing.push(format!("{}: it ends", self.node));
        }
        missing
    }
}

/// All figures of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) gate: Arc<GateFigures>,
    pub(crate) shards: Vec<Arc<ShardFigures>>,
    pub(crate) writer: Arc<WriterFigures>,
    pub(crate) requests_shed: Arc<AtomicU64>,
    /// Sessions that the node may have.
    places_max: u64,
}

impl Figures {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            gate: Arc::default(),
            shards: (0..settings.shards()).map(|_| Arc::default()).collect(),
            writer: Arc::default(),
            requests_shed: Arc::default(),
            places_max: settings.places_max().into(),
        }
    }

    /// The loops that have stood still for too long, by the names of their threads.
    pub(crate) fn stuck(&self, now_ms: u64) -> Vec<String> {
        let gate = [("gate".to_owned(), &self.gate.round)];
        let shards = self.shards.iter().enumerate();
        let shards = shards.map(|(index, shard)| (format!("shard-{index}"), &shard.round));
        let writer = [("writer".to_owned(), &self.writer.round)];
        gate.into_iter()
            .chain(shards)
            .chain(writer)
            .filter_map(|(name, round)| round.stuck(&name, now_ms))
            .collect()
    }

    fn gauge(&self, gauge: Gauge) -> u64 {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        match gauge {
            Gauge::Sessions => self.shards.iter().map(|shard| read(&shard.sessions)).sum(),
            Gauge::PlacesMax => self.places_max,
            Gauge::Pending => read(&self.gate.pending),
            Gauge::ConnServers => read(&self.gate.links),
            Gauge::QueueBytes => read(&self.writer.queue_bytes),
        }
    }

    fn shell_count(&self, counter: ShellCounter) -> u64 {
        let count = match counter {
            ShellCounter::DroppedWithoutDescriptor => &self.gate.dropped_without_descriptor,
            ShellCounter::DroppedAtLimit => &self.gate.dropped_at_limit,
            ShellCounter::RequestsShed => &self.requests_shed,
        };
        count.load(Ordering::Relaxed)
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let mut ack_ms = Histogram::default();
        let mut turn_us = self.gate.turn_us.read();
        let mut counters = [0; Counter::ALL.len()];
        let mut add = |published: &PublishedCounters| {
            for (sum, shown) in counters.iter_mut().zip(published.read()) {
                *sum += shown;
            }
        };
        add(&self.gate.counters);
        add(&self.writer.counters);
        for shard in &self.shards {
            add(&shard.counters);
            turn_us.merge(&shard.turn_us.read());
            ack_ms.merge(&shard.ack_ms.read());
        }
        Stats {
            ack_ms,
            turn_us,
            write_us: self.writer.write_us.read(),
            write_rows: self.writer.write_rows.read(),
            gauges: Gauge::figures(|gauge| self.gauge(gauge)),
            counters,
            shell_counters: std::array::from_fn(|index| self.shell_count(ShellCounter::ALL[index])),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_is_named() {
        let figures = Figures::new(&Settings {
            threads: 2,
            ..Settings::default()
        });
        figures.shards[1].round.begins(5_000);
        figures.gate.round.begins(15_000);
        let stuck = figures.stuck(15_001);
        assert_eq!(stuck, ["shard-1 has stood still for 10001 ms"]);
        let names = figures.stuck(u64::MAX);
        let names = names.iter().map(|it| it.split(' ').next().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), ["gate", "shard-1"]);
    }
}
