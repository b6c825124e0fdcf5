//! What is still to happen: the earliest first, and of two at the same time the one that was put
//! there first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slab::Slab;

/// The heap moves small keys about; what happens stays where it was put.
#[derive(Debug)]
pub struct Heap<E> {
    keys: BinaryHeap<Reverse<Key>>,
    events: Slab<E>,
    order: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    at_ms: u64,
    order: u64,
    event: usize,
}

impl<E> Heap<E> {
    pub fn push(&mut self, at_ms: u64, event: E) {
        let key = Key {
            at_ms,
            order: self.order,
            event: self.events.insert(event),
        };
        self.order += 1;
        self.keys.push(Reverse(key));
    }

    /// The next event, with its time.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse(key) = self.keys.pop()?;
        Some((key.at_ms, self.events.remove(key.event)))
    }
}

impl<E> Default for Heap<E> {
    fn default() -> Self {
        Self {
            keys: BinaryHeap::new(),
            events: Slab::new(),
            order: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_in_which_they_were_put() {
        let mut heap = Heap::default();
        for (at_ms, event) in [(5, 'a'), (3, 'b'), (5, 'c'), (3, 'd')] {
            heap.push(at_ms, event);
        }
        assert_eq!(heap.pop(), Some((3, 'b')));
        // A slot that is used again changes nothing in the order.
        heap.push(3, 'e');
        let rest: Vec<_> = std::iter::from_fn(|| heap.pop()).collect();
        assert_eq!(rest, [(3, 'd'), (3, 'e'), (5, 'a'), (5, 'c')]);
    }
}
