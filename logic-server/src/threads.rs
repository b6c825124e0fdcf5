//! What a node runs on: threads for its loops, tasks for what waits on links and the database. A
//! panic in any of them ends the process.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task;
use tracing::{Instrument, Span};

/// A loop's thread. Dropped, it runs on.
#[derive(Debug)]
pub(crate) struct Thread {
    /// Its other end goes when the loop has ended.
    ended: oneshot::Receiver<()>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts it in the span of the caller.
    pub(crate) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let span = Span::current();
        let (running, ended) = oneshot::channel::<()>();
        let handle = thread::Builder::new().name(name).spawn(move || {
            or_abort(|| span.in_scope(work));
            drop(running);
        })?;
        Ok(Self {
            ended,
            handle: Some(handle),
        })
    }

    /// Waits until the thread is gone. May be asked again, also where it was dropped waiting.
    pub(crate) async fn ended(&mut self) {
        if let Some(handle) = &self.handle
            && !handle.is_finished()
        {
            let _ = (&mut self.ended).await;
        }
        // A loop that panicked has ended the process.
        let _ = self.handle.take().map(JoinHandle::join);
    }
}

/// A task. Dropped, it runs on.
#[derive(Debug)]
pub(crate) struct Task {
    handle: task::JoinHandle<()>,
}

impl Task {
    /// Starts it in the span of the caller, on the runtime of the caller.
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let work = async {
            let mut work = pin!(work);
            poll_fn(|context| or_abort(|| work.as_mut().poll(context))).await;
        };
        Self {
            handle: tokio::spawn(work.in_current_span()),
        }
    }

    /// Waits until the task is gone, with everything that it held. May be asked again, also where
    /// it was dropped waiting.
    pub(crate) async fn ended(&mut self) {
        if !self.handle.is_finished() {
            let _ = (&mut self.handle).await;
        }
    }

    /// Drops the task where it waits; [`Task::ended`] says when that is done.
    pub(crate) fn abort(&self) {
        self.handle.abort();
    }
}

/// Keeps the calling thread from its work for so long.
pub(crate) fn rest(duration: Duration) {
    thread::sleep(duration);
}

/// Ends the process where `work` panics: a node with a dead loop would answer some devices and be
/// deaf to others, and no supervisor would know.
fn or_abort<T>(work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| std::process::abort())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Command, ExitStatus};

    use super::*;

    /// How a process ends that runs this ignored test.
    fn ends(test: &str) -> ExitStatus {
        let name = format!("threads::tests::{test}");
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", &name])
            .output();
        process.unwrap().status
    }

    #[test]
    fn a_panic_in_a_loop_or_a_task_ends_the_process() {
        for test in ["panics_in_a_thread", "panics_in_a_task"] {
            let status = ends(test);
            // By abort, not by a failed test.
            assert_eq!(status.code(), None, "{test}: {status}");
        }
    }

    #[tokio::test]
    #[ignore = "ends the process: run by the test above, in one of its own"]
    async fn panics_in_a_thread() {
        let thread = Thread::spawn("panics".into(), || panic!("on purpose"));
        thread.unwrap().ended().await;
    }

    #[tokio::test]
    #[ignore = "ends the process: run by the test above, in one of its own"]
    async fn panics_in_a_task() {
        Task::spawn(async { panic!("on purpose") }).ended().await;
    }

    #[tokio::test]
    async fn waiting_may_be_given_up_and_taken_up_again() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let mut thread = Thread::spawn("waits".into(), move || {
            let _ = wait.recv();
        })
        .unwrap();
        let mut task = Task::spawn(std::future::pending());
        tokio::select! {
            biased;
            () = thread.ended() => panic!("it has not ended"),
            () = task.ended() => panic!("it has not ended"),
            () = tokio::task::yield_now() => {}
        }
        drop(go);
        task.abort();
        for _ in 0..2 {
            thread.ended().await;
            task.ended().await;
        }
    }
}
