//! In the place of `logic-server/src/clock.rs`: the time of the run, which passes when its thread
//! has a turn. So any thread may be slow, and any time-out come before what it waits for.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use common::time::Now;

use crate::world::{Alarm, World};

const START_UNIX_MS: u64 = 1_700_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock;

impl Clock {
    pub(crate) fn now(&self) -> Now {
        let ms = World::current().now_ms();
        Now {
            ms,
            unix_ms: START_UNIX_MS + ms,
        }
    }

    pub(crate) fn us(&self) -> u64 {
        World::current().now_ms() * 1_000
    }

    pub(crate) async fn sleep_until(&self, at_ms: u64) {
        let world = World::current();
        let mut alarm = None;
        poll_fn(|context| {
            if world.now_ms() >= at_ms {
                return Poll::Ready(());
            }
            alarm = Some(world.set_alarm(at_ms, Alarm::Task(context.waker().clone())));
            Poll::Pending
        })
        .await;
    }

    pub(crate) async fn by<T>(&self, at_ms: u64, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut sleep = pin!(self.sleep_until(at_ms));
        poll_fn(|context| {
            if let Poll::Ready(given) = future.as_mut().poll(context) {
                return Poll::Ready(Some(given));
            }
            sleep.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}
