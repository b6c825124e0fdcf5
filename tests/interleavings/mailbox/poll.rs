//! In the place of mio: a loop that sleeps until its eventfd is written to.
//!
//! As edge-triggered epoll has it: a wake-up stays until the loop sleeps next, several that come
//! before that are one, and to look at it is to use it up.

use std::io;

use loom::sync::{Arc, Condvar, Mutex};

#[derive(Clone, Copy, Debug)]
pub struct Token(pub usize);

#[derive(Clone, Debug)]
pub struct Registry {
    eventfd: Arc<Eventfd>,
}

#[derive(Debug)]
struct Eventfd {
    state: Mutex<State>,
    written: Condvar,
}

#[derive(Debug)]
struct State {
    signalled: bool,
    /// Writes since the start, those that found it signalled among them.
    writes: usize,
}

#[derive(Debug)]
pub struct Waker {
    eventfd: Arc<Eventfd>,
}

impl Waker {
    pub fn new(registry: &Registry, _token: Token) -> io::Result<Self> {
        let eventfd = registry.eventfd.clone();
        Ok(Self { eventfd })
    }

    pub fn wake(&self) -> io::Result<()> {
        let mut state = self.eventfd.state.lock().expect("no thread panics");
        state.signalled = true;
        state.writes += 1;
        self.eventfd.written.notify_one();
        Ok(())
    }
}

/// What a loop sleeps in.
#[derive(Debug)]
pub(crate) struct Poll {
    registry: Registry,
}

impl Poll {
    pub(crate) fn new() -> Self {
        let state = State {
            signalled: false,
            writes: 0,
        };
        let eventfd = Eventfd {
            state: Mutex::new(state),
            written: Condvar::new(),
        };
        let eventfd = Arc::new(eventfd);
        Self {
            registry: Registry { eventfd },
        }
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Until the next wake-up, without end: where none comes, loom finds that nobody can go on.
    pub(crate) fn sleep(&self) {
        let eventfd = &self.registry.eventfd;
        let mut state = eventfd.state.lock().expect("no thread panics");
        while !state.signalled {
            state = eventfd.written.wait(state).expect("no thread panics");
        }
        state.signalled = false;
    }

    pub(crate) fn wakes(&self) -> usize {
        let state = self.registry.eventfd.state.lock();
        state.expect("no thread panics").writes
    }
}
