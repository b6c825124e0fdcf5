//! A sequence of operations on the timer wheel, against a list of times.

use std::collections::BTreeMap;

use logic_server::wheel::{TICK_MS, Wheel};

use crate::choices::Choices;

/// The last tick of the wheel: a time beyond it fires there, early, for its owner to look.
const SPAN_MS: u64 = 1_023 * TICK_MS;

pub fn wheel(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut wheel = Wheel::new();
    let mut now_ms = u64::from(choices.u32());
    let mut fired = vec![];
    wheel.advance(now_ms, &mut fired);
    // What a slot is armed for, and when it was.
    let mut armed: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    while choices.next_step() {
        let slot = choices.below(300);
        match choices.below(4) {
            0..2 => {
                let ahead_ms = match choices.below(4) {
                    0 => u64::from(choices.u8()),
                    1 => SPAN_MS - 300 + u64::from(choices.u8()) * 2,
                    2 => 0,
                    _ => u64::from(choices.u32()) % (2 * SPAN_MS),
                };
                let at_ms = match choices.once_in(8) {
                    true => now_ms.saturating_sub(ahead_ms),
                    false => now_ms + ahead_ms,
                };
                wheel.arm(slot, at_ms);
                armed.insert(slot, (at_ms, now_ms));
            }
            2 => {
                wheel.cancel(slot);
                armed.remove(&slot);
            }
            _ => {
                let step_ms = choices.pick(&[100, 1_000, 400_000, 3_000_000]);
                now_ms += u64::from(choices.u32()) % step_ms;
                wheel.advance(now_ms, &mut fired);
                for slot in fired.drain(..) {
                    let (at_ms, since_ms) = armed.remove(&slot).expect("fires once");
                    // Never early, but for what is beyond the span.
                    assert!(
                        at_ms <= now_ms || at_ms > since_ms + SPAN_MS - TICK_MS,
                        "early"
                    );
                }
                let next = wheel.next_deadline();
                assert!(next.is_none_or(|next| next > now_ms), "a tick in vain");
            }
        }
        for (at_ms, since_ms) in armed.values() {
            // An arm in the past fires with the next tick.
            let due_ms = at_ms.max(since_ms).min(&(since_ms + SPAN_MS)) + 2 * TICK_MS;
            assert!(
                due_ms > now_ms,
                "late: armed for {at_ms} at {since_ms}, now {now_ms}"
            );
            assert!(wheel.next_deadline().is_some_and(|next| next <= due_ms));
        }
    }
}
