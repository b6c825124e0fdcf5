//! In the place of mio: readiness and sockets, as far as the loops use them.
//!
//! Edge-triggered like epoll with mio's settings: what becomes ready is told once, when it does
//! and when it is registered; a wake-up stays until the next poll, and several are one.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::BitOr;
use std::time::Duration;

use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::world::{Alarm, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub usize);

#[derive(Clone, Copy, Debug)]
pub struct Interest(u8);

impl Interest {
    pub const READABLE: Self = Self(1);
    pub const WRITABLE: Self = Self(2);

    const fn is_writable(self) -> bool {
        self.0 & 2 != 0
    }
}

impl BitOr for Interest {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a poll sleeps over.
#[derive(Debug, Default)]
pub struct Queue {
    ready: Mutex<Ready>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Ready {
    events: BTreeMap<Token, event::Readiness>,
    /// The time-out of the poll has come.
    rung: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().expect("no thread panics")
    }

    fn tell(&self, token: Token, what: impl FnOnce(&mut event::Readiness)) {
        what(self.lock().events.entry(token).or_default());
        self.changed.notify_one();
    }

    fn forget(&self, token: Token) {
        self.lock().events.remove(&token);
    }

    pub(crate) fn ring(&self) {
        self.lock().rung = true;
        self.changed.notify_one();
    }
}

#[derive(Clone, Debug, Default)]
pub struct Registry {
    queue: Arc<Queue>,
}

impl Registry {
    pub fn register(
        &self,
        source: &mut impl event::Source,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        source.watch(self.queue.clone(), token, interest);
        Ok(())
    }

    pub fn reregister(
        &self,
        source: &mut impl event::Source,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        source.forget();
        source.watch(self.queue.clone(), token, interest);
        Ok(())
    }

    pub fn deregister(&self, source: &mut impl event::Source) -> io::Result<()> {
        source.forget();
        Ok(())
    }
}

#[derive(Debug)]
pub struct Waker {
    queue: Arc<Queue>,
    token: Token,
}

impl Waker {
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let queue = registry.queue.clone();
        Ok(Self { queue, token })
    }

    pub fn wake(&self) -> io::Result<()> {
        self.queue.tell(self.token, |ready| ready.readable = true);
        Ok(())
    }
}

#[derive(Debug)]
pub struct Events {
    events: Vec<event::Event>,
    capacity: usize,
}

impl Events {
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            events: vec![],
            capacity,
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, event::Event> {
        self.events.iter()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a event::Event;
    type IntoIter = std::slice::Iter<'a, event::Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[derive(Debug)]
pub struct Poll {
    registry: Registry,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            registry: Registry::default(),
        })
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.events.clear();
        let queue = &self.registry.queue;
        queue.lock().rung = timeout == Some(Duration::ZERO);
        let alarm = timeout.filter(|wait| !wait.is_zero()).map(|wait| {
            let world = World::current();
            let at_ms = world.now_ms() + wait.as_millis() as u64;
            world.set_alarm(at_ms, Alarm::Loop(queue.clone()))
        });
        let mut ready = queue.lock();
        while ready.events.is_empty() && !ready.rung {
            ready = queue.changed.wait(ready).expect("no thread panics");
        }
        while events.events.len() < events.capacity
            && let Some((token, readiness)) = ready.events.pop_first()
        {
            events.events.push(event::Event { token, readiness });
        }
        let by_itself = alarm.is_some() && events.events.is_empty();
        drop(ready);
        drop(alarm);
        if by_itself && World::current().interrupts() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }
}

pub mod event {
    use super::{Arc, Interest, Queue, Token};

    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct Readiness {
        pub(super) readable: bool,
        pub(super) writable: bool,
        pub(super) read_closed: bool,
    }

    #[derive(Debug)]
    pub struct Event {
        pub(super) token: Token,
        pub(super) readiness: Readiness,
    }

    impl Event {
        pub fn token(&self) -> Token {
            self.token
        }

        pub fn is_readable(&self) -> bool {
            self.readiness.readable
        }

        pub fn is_writable(&self) -> bool {
            self.readiness.writable
        }

        pub fn is_read_closed(&self) -> bool {
            self.readiness.read_closed
        }

        pub fn is_error(&self) -> bool {
            false
        }
    }

    /// What can be ready.
    pub trait Source {
        fn watch(&mut self, queue: Arc<Queue>, token: Token, interest: Interest);
        fn forget(&mut self);
    }
}

/// Who is told of readiness.
#[derive(Debug)]
struct Watch {
    queue: Arc<Queue>,
    token: Token,
    writable: bool,
}

pub mod net {
    use std::io::{Read, Write};
    use std::net::Shutdown;

    use super::{
        Arc, Condvar, Interest, Mutex, MutexGuard, Queue, SocketAddr, Token, VecDeque, Watch,
        World, event, io,
    };

    /// The listening socket of the gate.
    #[derive(Debug)]
    pub struct TcpListener {
        backlog: Arc<Backlog>,
    }

    /// Where devices connect.
    #[derive(Clone, Debug)]
    pub(crate) struct Address {
        backlog: Arc<Backlog>,
    }

    #[derive(Debug)]
    struct Backlog {
        state: Mutex<Listening>,
        /// What a socket holds that its device does not read.
        unread_bytes_max: usize,
    }

    #[derive(Debug, Default)]
    struct Listening {
        waiting: VecDeque<TcpStream>,
        watch: Option<Watch>,
        closed: bool,
    }

    impl Backlog {
        fn lock(&self) -> MutexGuard<'_, Listening> {
            self.state.lock().expect("no thread panics")
        }
    }

    impl TcpListener {
        pub(crate) fn new(unread_bytes_max: usize) -> (Self, Address) {
            let backlog = Arc::new(Backlog {
                state: Mutex::default(),
                unread_bytes_max,
            });
            let address = Address {
                backlog: backlog.clone(),
            };
            (Self { backlog }, address)
        }

        pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
            let waiting = self.backlog.lock().waiting.pop_front();
            let stream = waiting.ok_or(io::ErrorKind::WouldBlock)?;
            Ok((stream, SocketAddr::from(([127, 0, 0, 1], 1))))
        }
    }

    impl Address {
        /// `None`: nobody listens.
        pub(crate) fn connect(&self) -> Option<Peer> {
            let mut backlog = self.backlog.lock();
            if backlog.closed {
                return None;
            }
            let pipe = Arc::new(Pipe {
                state: Mutex::default(),
                sent: Condvar::new(),
                unread_bytes_max: self.backlog.unread_bytes_max,
            });
            let peer = Peer { pipe: pipe.clone() };
            backlog.waiting.push_back(TcpStream { pipe });
            if let Some(watch) = &backlog.watch {
                watch.queue.tell(watch.token, |ready| ready.readable = true);
            }
            Some(peer)
        }
    }

    impl event::Source for TcpListener {
        fn watch(&mut self, queue: Arc<Queue>, token: Token, _interest: Interest) {
            let mut backlog = self.backlog.lock();
            if !backlog.waiting.is_empty() {
                queue.tell(token, |ready| ready.readable = true);
            }
            let writable = false;
            backlog.watch = Some(Watch {
                queue,
                token,
                writable,
            });
        }

        fn forget(&mut self) {
            if let Some(watch) = self.backlog.lock().watch.take() {
                watch.queue.forget(watch.token);
            }
        }
    }

    impl Drop for TcpListener {
        fn drop(&mut self) {
            event::Source::forget(self);
            let mut backlog = self.backlog.lock();
            backlog.closed = true;
            let waiting = std::mem::take(&mut backlog.waiting);
            drop(backlog);
            drop(waiting);
        }
    }

    /// The server's end of a connection.
    #[derive(Debug)]
    pub struct TcpStream {
        pipe: Arc<Pipe>,
    }

    /// The device's end.
    #[derive(Debug)]
    pub(crate) struct Peer {
        pipe: Arc<Pipe>,
    }

    #[derive(Debug)]
    struct Pipe {
        state: Mutex<Both>,
        /// The device has something to read.
        sent: Condvar,
        unread_bytes_max: usize,
    }

    #[derive(Debug, Default)]
    struct Both {
        to_server: VecDeque<u8>,
        device_gone: bool,
        to_device: VecDeque<u8>,
        /// The server sends nothing more.
        server_shut: bool,
        watch: Option<Watch>,
    }

    impl Both {
        fn tell(&self, what: impl FnOnce(&mut event::Readiness)) {
            if let Some(watch) = &self.watch {
                watch.queue.tell(watch.token, what);
            }
        }
    }

    impl Pipe {
        fn lock(&self) -> MutexGuard<'_, Both> {
            self.state.lock().expect("no thread panics")
        }
    }

    impl TcpStream {
        /// Nobody asks here.
        pub fn peer_addr(&self) -> io::Result<SocketAddr> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
            assert_eq!(how, Shutdown::Write);
            self.pipe.lock().server_shut = true;
            self.pipe.sent.notify_one();
            Ok(())
        }
    }

    impl Read for TcpStream {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let mut both = self.pipe.lock();
            let count = both.to_server.len().min(buffer.len());
            if count == 0 && !both.device_gone {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            for (into, byte) in buffer.iter_mut().zip(both.to_server.drain(..count)) {
                *into = byte;
            }
            Ok(count)
        }
    }

    impl Write for TcpStream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            World::current().assert_open("a device is written to");
            let mut both = self.pipe.lock();
            assert!(!both.server_shut, "written after the end");
            if both.device_gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let count = bytes
                .len()
                .min(self.pipe.unread_bytes_max - both.to_device.len());
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            both.to_device.extend(&bytes[..count]);
            drop(both);
            self.pipe.sent.notify_one();
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl event::Source for TcpStream {
        fn watch(&mut self, queue: Arc<Queue>, token: Token, interest: Interest) {
            let mut both = self.pipe.lock();
            let now = event::Readiness {
                readable: !both.to_server.is_empty() || both.device_gone,
                writable: interest.is_writable()
                    && both.to_device.len() < self.pipe.unread_bytes_max,
                read_closed: both.device_gone,
            };
            if now.readable || now.writable {
                queue.tell(token, |ready| *ready = now);
            }
            both.watch = Some(Watch {
                queue,
                token,
                writable: interest.is_writable(),
            });
        }

        fn forget(&mut self) {
            if let Some(watch) = self.pipe.lock().watch.take() {
                watch.queue.forget(watch.token);
            }
        }
    }

    impl Drop for TcpStream {
        fn drop(&mut self) {
            event::Source::forget(self);
            self.pipe.lock().server_shut = true;
            self.pipe.sent.notify_one();
        }
    }

    impl Peer {
        pub(crate) fn send(&self, bytes: &[u8]) {
            let mut both = self.pipe.lock();
            both.to_server.extend(bytes);
            both.tell(|ready| ready.readable = true);
        }

        /// What has come; empty: the end.
        pub(crate) fn read(&self) -> Vec<u8> {
            let mut both = self.pipe.lock();
            while both.to_device.is_empty() && !both.server_shut {
                both = self.pipe.sent.wait(both).expect("no thread panics");
            }
            let bytes = both.to_device.drain(..).collect();
            if both.watch.as_ref().is_some_and(|watch| watch.writable) {
                both.tell(|ready| ready.writable = true);
            }
            bytes
        }
    }

    impl Drop for Peer {
        fn drop(&mut self) {
            let mut both = self.pipe.lock();
            both.device_gone = true;
            both.tell(|ready| {
                ready.readable = true;
                ready.read_closed = true;
            });
        }
    }
}
