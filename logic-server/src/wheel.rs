//! Pure. A coarse timer wheel: one timer per slot, armed late and checked by its owner.
//!
//! ```text
//! heads   0 ── 1 ── 2 ── … ── 1023        a bucket per tick, used again each turn of the wheel
//!         │         ╰─ slot 7 ─ slot 31   intrusive, circular: 8 bytes per slot, no allocation
//!         ╰─ slot 12                      to arm or cancel, no entry that outlives its session
//! ```
//!
//! A frame does not touch the wheel: it writes the time of hearing into its session. When the
//! timer fires, the owner looks whether the session is really overdue, and arms it again if not.
//! So a timer fires once per idle time, not once per frame. A time beyond the wheel's span is
//! armed at its end and looked at there.

/// Ticks of the wheel: with 250 ms each, 256 s, above the idle time of the default heartbeat.
const BUCKETS: usize = 1_024;
/// A timer fires up to this much late, never early.
pub const TICK_MS: u64 = 250;

#[derive(Clone, Copy, Debug)]
struct Node {
    previous: u32,
    next: u32,
}

/// Timers of slots 0, 1, 2, …
#[derive(Debug)]
pub struct Wheel {
    /// The heads of the buckets, then a node per slot; a node that points to itself is in no list.
    nodes: Vec<Node>,
    /// The tick up to which everything has fired.
    tick: u64,
    /// No bucket before this tick holds a timer; `None`: none does.
    earliest: Option<u64>,
    /// Armed timers.
    armed: usize,
}

impl Wheel {
    pub fn new() -> Self {
        Self {
            nodes: (0..BUCKETS as u32).map(alone).collect(),
            tick: 0,
            earliest: None,
            armed: 0,
        }
    }

    /// Fires `slot` at `at_ms` or up to a tick later; replaces its earlier time.
    pub fn arm(&mut self, slot: u32, at_ms: u64) {
        let node = self.node_of(slot);
        self.unlink(node);
        let span_end = self.tick + BUCKETS as u64 - 1;
        let tick = at_ms.div_ceil(TICK_MS).clamp(self.tick + 1, span_end);
        let head = bucket(tick);
        let last = self.nodes[head as usize].previous;
        self.nodes[node as usize] = Node {
            previous: last,
            next: head,
        };
        self.nodes[last as usize].next = node;
        self.nodes[head as usize].previous = node;
        self.armed += 1;
        self.earliest = Some(self.earliest.map_or(tick, |earliest| earliest.min(tick)));
    }

    pub fn cancel(&mut self, slot: u32) {
        let node = self.node_of(slot);
        self.unlink(node);
        self.nodes[node as usize] = alone(node);
    }

    /// Appends to `due` every slot whose time has come, and disarms it.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<u32>) {
        let now = now_ms / TICK_MS;
        while let Some(earliest) = self.earliest.filter(|&earliest| earliest <= now) {
            self.tick = earliest;
            self.empty(bucket(earliest), due);
            self.earliest = self.earliest_after(earliest);
        }
        self.tick = self.tick.max(now);
    }

    /// The earliest time at which a timer may be due; at worst nothing is.
    pub fn next_deadline(&self) -> Option<u64> {
        self.earliest.map(|tick| tick * TICK_MS)
    }

    fn empty(&mut self, head: u32, due: &mut Vec<u32>) {
        loop {
            let node = self.nodes[head as usize].next;
            if node == head {
                return;
            }
            self.unlink(node);
            self.nodes[node as usize] = alone(node);
            due.push(node - BUCKETS as u32);
        }
    }

    fn earliest_after(&self, tick: u64) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        (tick + 1..tick + BUCKETS as u64).find(|&tick| {
            let head = bucket(tick);
            self.nodes[head as usize].next != head
        })
    }

    /// The node of a slot, made where the slot is new.
    fn node_of(&mut self, slot: u32) -> u32 {
        let node = slot + BUCKETS as u32;
        let known = self.nodes.len() as u32;
        self.nodes.extend((known..=node).map(alone));
        node
    }

    fn unlink(&mut self, node: u32) {
        let Node { previous, next } = self.nodes[node as usize];
        if previous != node {
            self.nodes[previous as usize].next = next;
            self.nodes[next as usize].previous = previous;
            self.armed -= 1;
        }
    }
}

fn alone(node: u32) -> Node {
    Node {
        previous: node,
        next: node,
    }
}

fn bucket(tick: u64) -> u32 {
    (tick % BUCKETS as u64) as u32
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The last tick of the wheel: what is armed beyond it fires there, early.
    const SPAN_MS: u64 = (BUCKETS as u64 - 1) * TICK_MS;

    fn fired(wheel: &mut Wheel, now_ms: u64) -> Vec<u32> {
        let mut due = vec![];
        wheel.advance(now_ms, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn a_timer_fires_once_and_not_early() {
        let mut wheel = Wheel::new();
        wheel.arm(3, 1_001);
        wheel.arm(4, 1_250);
        wheel.arm(5, 1_251);
        assert_eq!(wheel.next_deadline(), Some(1_250));
        assert!(fired(&mut wheel, 1_249).is_empty());
        assert_eq!(fired(&mut wheel, 1_250), [3, 4]);
        assert!(fired(&mut wheel, 1_499).is_empty());
        assert_eq!(wheel.next_deadline(), Some(1_500));
        assert_eq!(fired(&mut wheel, 1_000_000), [5]);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_timer_that_is_cancelled_or_armed_again_does_not_fire_at_its_old_time() {
        let mut wheel = Wheel::new();
        wheel.arm(0, 500);
        wheel.arm(1, 500);
        wheel.cancel(0);
        wheel.arm(1, 750);
        assert!(fired(&mut wheel, 500).is_empty());
        assert_eq!(fired(&mut wheel, 750), [1]);
    }

    #[test]
    fn a_time_beyond_the_span_is_looked_at_at_its_end() {
        let mut wheel = Wheel::new();
        wheel.arm(0, 10 * SPAN_MS);
        assert!(fired(&mut wheel, SPAN_MS - 1).is_empty());
        assert_eq!(fired(&mut wheel, SPAN_MS), [0]);
    }

    fn run(seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut wheel = Wheel::new();
        let mut armed: BTreeMap<u32, u64> = BTreeMap::new();
        let mut now_ms = rng.random_range(0..1_000_000);
        fired(&mut wheel, now_ms);
        for _ in 0..2_000 {
            let slot = rng.random_range(0..40);
            match rng.random_range(0..10) {
                0..5 => {
                    let at_ms = now_ms + rng.random_range(0..SPAN_MS - 2 * TICK_MS);
                    wheel.arm(slot, at_ms);
                    armed.insert(slot, at_ms);
                }
                5 => {
                    wheel.cancel(slot);
                    armed.remove(&slot);
                }
                _ => {
                    let step_ms = [100, 1_000, 400_000][rng.random_range(0..3)];
                    now_ms += rng.random_range(0..step_ms);
                    for slot in fired(&mut wheel, now_ms) {
                        let at_ms = armed.remove(&slot).expect("fires once");
                        assert!(at_ms <= now_ms, "{slot} fired early");
                    }
                }
            }
            for (slot, at_ms) in &armed {
                assert!(at_ms + TICK_MS > now_ms, "{slot} is late");
            }
            match (wheel.next_deadline(), armed.values().min()) {
                (None, None) => {}
                (Some(next), Some(earliest)) => assert!(next < earliest + 2 * TICK_MS),
                // A lower bound may be left of timers that were cancelled.
                (Some(_), None) => {}
                (None, Some(earliest)) => panic!("{earliest} would be missed"),
            }
        }
    }

    #[test]
    fn it_does_what_a_list_of_times_would_do() {
        for seed in 0..50 {
            assert!(
                std::panic::catch_unwind(|| run(seed)).is_ok(),
                "seed {seed}"
            );
        }
    }
}
