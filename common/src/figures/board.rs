//! What a tier of one owner tells of itself: figures that the owner publishes after each turn, and that anybody
//! may read without asking it.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::Instant;

use super::{PublishedHistogram, Round};
use crate::histogram::Histogram;
use crate::metrics::NodeFigures;
use crate::millis::millis;

/// A counter or a gauge of a tier, as `counters!` and `gauges!` declare them.
pub trait Figure: Copy + 'static {
    /// In the order of their numbers.
    const EACH: &'static [Self];

    fn index(self) -> usize;

    /// As it is shown.
    fn shown(self) -> &'static str;

    /// What it is.
    fn told(self) -> &'static str;
}

/// Where the owner publishes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Board<C, G>(Arc<Cells<C, G>>);

#[derive(Debug)]
struct Cells<C, G> {
    /// From when on the owner counts its milliseconds.
    started: Instant,
    round: Round,
    counters: Box<[AtomicU64]>,
    gauges: Box<[AtomicU64]>,
    login_ms: PublishedHistogram,
    ends: AtomicBool,
    of: PhantomData<(C, G)>,
}

/// All of it at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<C, G> {
    /// Milliseconds from a login's coming to its answer.
    pub login_ms: Histogram,
    counters: Box<[u64]>,
    gauges: Box<[u64]>,
    of: PhantomData<(C, G)>,
}

impl<C: Figure, G: Figure> Default for Board<C, G> {
    fn default() -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Cells {
            started: Instant::now(),
            round: Round::default(),
            counters: zeros(C::EACH.len()),
            gauges: zeros(G::EACH.len()),
            login_ms: PublishedHistogram::default(),
            ends: AtomicBool::new(false),
            of: PhantomData,
        }))
    }
}

impl<C: Figure, G: Figure> Board<C, G> {
    pub fn started(&self) -> Instant {
        self.0.started
    }

    /// Of the owner's loop.
    pub fn round(&self) -> &Round {
        &self.0.round
    }

    /// `counters` in the order of [`Figure::EACH`]. A store is all that a figure costs.
    pub fn publish(&self, gauge: impl Fn(G) -> u64, counters: &[u64], login_ms: &Histogram) {
        for (shown, &it) in self.0.gauges.iter().zip(G::EACH) {
            shown.store(gauge(it), Ordering::Relaxed);
        }
        for (shown, &count) in self.0.counters.iter().zip(counters) {
            shown.store(count, Ordering::Relaxed);
        }
        self.0.login_ms.publish(login_ms);
    }

    /// Nobody is let in any more.
    pub fn ends(&self) {
        self.0.ends.store(true, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> Snapshot<C, G> {
        let read =
            |cells: &[AtomicU64]| cells.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        Snapshot {
            login_ms: self.0.login_ms.read(),
            counters: read(&self.0.counters),
            gauges: read(&self.0.gauges),
            of: PhantomData,
        }
    }

    /// For metrics. `missing`: what it is not ready for want of; `login_help`: from when to when a login is.
    pub fn gather(
        &self,
        figures: &mut NodeFigures<'_>,
        missing: &[String],
        login_help: &'static str,
    ) {
        let all = self.snapshot();
        for &counter in C::EACH {
            figures.counter(counter.shown(), counter.told(), all.count(counter));
        }
        for &gauge in G::EACH {
            figures.gauge(gauge.shown(), gauge.told(), all.gauge(gauge));
        }
        figures.ready(missing);
        figures.histogram("login_seconds", login_help, all.login_ms, 1e3);
    }

    /// What is to be told where the owner's loop stands still.
    pub fn stuck(&self) -> Option<String> {
        let now_ms = millis(self.0.started.elapsed());
        self.0.round.stuck("the loop", now_ms)
    }

    /// Why it lets nobody in though nothing is wrong.
    pub fn is_ending(&self) -> Option<&'static str> {
        let ends = self.0.ends.load(Ordering::Relaxed);
        ends.then_some("it ends")
    }
}

impl<C: Figure, G: Figure> Snapshot<C, G> {
    /// Counted since the start.
    pub fn count(&self, counter: C) -> u64 {
        self.counters[counter.index()]
    }

    pub fn gauge(&self, gauge: G) -> u64 {
        self.gauges[gauge.index()]
    }

    /// All of them by name, for operators.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let gauges = G::EACH.iter().map(|&it| (it.shown(), self.gauge(it)));
        gauges.chain(C::EACH.iter().map(|&it| (it.shown(), self.count(it))))
    }
}

#[cfg(test)]
#[allow(dead_code, unreachable_pub)]
mod tests {
    use super::*;

    crate::counters! {
        /// Counted.
        Came = "came",
        /// Counted as well.
        Went = "went",
    }

    crate::gauges! {
        /// It goes up and down.
        Here = "here",
    }

    #[test]
    fn what_the_owner_publishes_is_read_by_name() {
        let board = Board::<Counter, Gauge>::default();
        let mut counters = Counters::default();
        counters.add(Counter::Came, 9);
        counters.add(Counter::Went, 2);
        let login_ms = Histogram::default();
        board.publish(|Gauge::Here| 7, counters.figures(), &login_ms);
        let all = board.snapshot();
        assert_eq!((all.count(Counter::Went), all.gauge(Gauge::Here)), (2, 7));
        let named: Vec<_> = all.named().collect();
        assert_eq!(named, [("here", 7), ("came", 9), ("went", 2)]);
        assert_eq!(board.is_ending(), None);
        board.ends();
        assert!(board.is_ending().is_some());
    }
}
