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
