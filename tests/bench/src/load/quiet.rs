//! Sessions that heartbeat at an even pace, and how long each waits for its reply.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Poll};
use protocols::rcu::frame::{self, FRAME_BYTES_TO_DEVICE_MAX, Frame, Parsed};
use protocols::rcu::kind;
use protocols::rcu::message::FromDevice;

use crate::error::{BenchError, Result, Tried as _};
use crate::net::{is_not_yet, wait, watch_each};

/// Between two heartbeats of the fleet.
const PACE: Duration = Duration::from_millis(1);
/// After so many heartbeats one session says something else: a loop that hears nothing but heartbeats lets them gather
/// for 40 ms, and beside that nothing else would be seen. Odd: sessions go to the loops in turn.
const ELSE_EACH: u64 = 101;
/// Of no kind that there is; ignored.
const UNKNOWN: Frame<'_> = Frame {
    kind: 0x7F,
    id: 1,
    body: &[],
};
/// A heartbeat that is not answered by then is lost, and so is the measurement.
const ANSWERED_MAX: Duration = Duration::from_secs(10);

/// Sessions that keep the contract.
pub(crate) struct Quiet {
    poll: Poll,
    sessions: Vec<Session>,
    /// Whose turn it is.
    next: usize,
    /// Heartbeats asked for.
    asked: u64,
}

struct Session {
    stream: TcpStream,
    id: u16,
    /// Of the heartbeat that is not answered.
    asked: Option<Instant>,
    received: Vec<u8>,
}

impl Quiet {
    pub(crate) fn new(mut streams: Vec<TcpStream>) -> Result<Self> {
        let poll = Poll::new().tried("poll")?;
        watch_each(poll.registry(), &mut streams)?;
        let sessions = streams
            .into_iter()
            .map(|stream| Session {
                stream,
                id: 0,
                asked: None,
                received: Vec::new(),
            })
            .collect();
        Ok(Self {
            poll,
            sessions,
            next: 0,
            asked: 0,
        })
    }

    /// Heartbeats for so long; returns the microseconds that each waited for its reply. `each_turn`
    /// is called after each turn of the loop.
    pub(crate) fn run(
        &mut self,
        window: Duration,
        mut each_turn: impl FnMut(),
    ) -> Result<Histogram<u64>> {
        let mut waited_us = Histogram::new(3).map_err(BenchError::failed)?;
        let mut events = Events::with_capacity(1_024);
        let begun = Instant::now();
        let mut due = begun;
        let mut open = 0;
        while due < begun + window || open > 0 {
            while due <= Instant::now() && due < begun + window {
                open += usize::from(self.ask_next()?);
                due += PACE;
            }
            let pause = due.saturating_duration_since(Instant::now()).max(PACE);
            wait(&mut self.poll, &mut events, Some(pause))?;
            for event in &events {
                open -= self.ready(event.token().0, &mut waited_us)?;
            }
            each_turn();
            if begun.elapsed() > window + ANSWERED_MAX {
                return Err(BenchError::failed(format!("{open} heartbeats unanswered")));
            }
        }
        Ok(waited_us)
    }

    /// False: the session whose turn it is still waits for an answer.
    fn ask_next(&mut self) -> Result<bool> {
        let count = self.sessions.len();
        self.asked += 1;
        if self.asked.is_multiple_of(ELSE_EACH) {
            let mut unknown = Vec::with_capacity(frame::HEADER_BYTES);
            UNKNOWN.encode(&mut unknown);
            let session = &mut self.sessions[(self.next + count / 2) % count];
            let sent = session.stream.write_all(&unknown);
            sent.tried("send something else")?;
        }
        let session = &mut self.sessions[self.next];
        self.next = (self.next + 1) % count;
        if session.asked.is_some() {
            return Ok(false);
        }
        session.id = session.id.wrapping_add(1).max(1);
        let mut heartbeat = Vec::with_capacity(frame::HEADER_BYTES);
        FromDevice::Heartbeat.encode(session.id, &mut heartbeat);
        session.asked = Some(Instant::now());
        let sent = session.stream.write_all(&heartbeat);
        sent.tried("send a heartbeat")?;
        Ok(true)
    }

    /// Takes a reply; returns how many came.
    fn ready(&mut self, index: usize, waited_us: &mut Histogram<u64>) -> Result<usize> {
        let session = &mut self.sessions[index];
        let mut buffer = [0; FRAME_BYTES_TO_DEVICE_MAX];
        match session.stream.read(&mut buffer) {
            Ok(0) => return Err(BenchError::failed("a quiet session was closed")),
            Ok(length) => session.received.extend_from_slice(&buffer[..length]),
            Err(error) if is_not_yet(&error) => return Ok(0),
            Err(error) => return Err(error).tried("read a reply"),
        }
        let parsed = frame::parse(&session.received, FRAME_BYTES_TO_DEVICE_MAX);
        let consumed = match parsed.map_err(BenchError::failed)? {
            Parsed::Incomplete { .. } => return Ok(0),
            Parsed::Frame { frame, consumed } if frame.kind == kind::HEARTBEAT_REPLY => consumed,
            Parsed::Frame { frame, .. } => {
                return Err(BenchError::failed(format!("kind {:#04x}", frame.kind)));
            }
        };
        session.received.drain(..consumed);
        let asked = session.asked.take();
        let waited = asked.ok_or_else(|| BenchError::failed("a reply to nothing"))?;
        waited_us
            .record(waited.elapsed().as_micros() as u64)
            .map_err(BenchError::failed)?;
        Ok(1)
    }
}
