//! Pure. What a device does while it does nothing: how long it waits, and for what.

use std::net::SocketAddr;

use super::backoff;
use super::effect::{Effects, Event, Wait};
use super::{Device, Phase};

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Step 1 of the contract's section 2.
    Resolve,
    /// The address that named the wait: another would not know the place in the queue.
    Balancer(SocketAddr),
    /// The resumption that is held.
    Resume,
}

impl Device {
    pub(super) fn wait_is_over(&mut self, then: Next, now_ms: u64, effects: &mut Effects) {
        match then {
            Next::Resolve => self.begin_login(now_ms, effects),
            Next::Balancer(address) => self.ask_again(address, now_ms, effects),
            Next::Resume => self.resume(now_ms, effects),
        }
    }

    /// Waits as long as the cluster said, else a step of the backoff.
    pub(super) fn wait(
        &mut self,
        retry_after_ms: u32,
        then: Next,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let (ms, why) = match backoff::told(retry_after_ms) {
            Some(ms) => (ms, Wait::Told),
            None => (self.backoff.step(&mut self.rng), Wait::Backoff),
        };
        self.wait_for(ms, why, then, now_ms, effects);
    }

    /// Waits the longest step, whatever the cluster said.
    pub(super) fn wait_longest(&mut self, retry_after_ms: u32, now_ms: u64, effects: &mut Effects) {
        let ms = self.backoff.longest(retry_after_ms, &mut self.rng);
        self.wait_for(ms, Wait::Longest, Next::Resolve, now_ms, effects);
    }

    fn wait_for(&mut self, ms: u64, why: Wait, then: Next, now_ms: u64, effects: &mut Effects) {
        effects.tell(Event::Waits { ms, why });
        self.phase = Phase::Waiting {
            until_ms: now_ms + ms,
            then,
        };
    }
}
