//! In the place of `logic-server/src/threads.rs`: shuttle's threads and tasks.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, Waker};
use std::time::Duration;

use shuttle::sync::{Arc, Mutex};
use tokio::sync::oneshot;

use crate::world::{Started, World};

#[derive(Debug)]
pub(crate) struct Thread {
    ended: Option<oneshot::Receiver<()>>,
}

impl Thread {
    pub(crate) fn spawn(_name: String, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let world = World::current();
        let (running, ended) = oneshot::channel::<()>();
        world.begins();
        let of_world = world.clone();
        let handle = shuttle::thread::spawn(move || {
            work();
            world.ends();
            drop(running);
        });
        of_world.keep(Started::Thread(handle));
        Ok(Self { ended: Some(ended) })
    }

    pub(crate) async fn ended(&mut self) {
        wait(&mut self.ended).await;
    }
}

#[derive(Debug)]
pub(crate) struct Task {
    ended: Option<oneshot::Receiver<()>>,
    order: Arc<Mutex<Order>>,
}

#[derive(Debug, Default)]
struct Order {
    aborted: bool,
    /// Wakes the task, so that it sees the order.
    waker: Option<Waker>,
}

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let world = World::current();
        let (running, ended) = oneshot::channel::<()>();
        let order = Arc::new(Mutex::new(Order::default()));
        let given = order.clone();
        world.begins();
        let of_world = world.clone();
        let handle = shuttle::future::spawn(async move {
            let mut work = Box::pin(work);
            poll_fn(|context| {
                let mut order = given.lock().expect("no thread panics");
                if order.aborted {
                    return Poll::Ready(());
                }
                order.waker = Some(context.waker().clone());
                drop(order);
                work.as_mut().poll(context)
            })
            .await;
            drop(work);
            world.ends();
            drop(running);
        });
        of_world.keep(Started::Task(handle));
        Self {
            ended: Some(ended),
            order,
        }
    }

    pub(crate) async fn ended(&mut self) {
        wait(&mut self.ended).await;
    }

    pub(crate) fn abort(&self) {
        let mut order = self.order.lock().expect("no thread panics");
        order.aborted = true;
        let waker = order.waker.take();
        drop(order);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// How long does not matter to an order: whoever can go on may go first.
pub(crate) fn rest(_duration: Duration) {
    shuttle::thread::yield_now();
}

async fn wait(ended: &mut Option<oneshot::Receiver<()>>) {
    if let Some(running) = ended {
        let _ = running.await;
        *ended = None;
    }
}
