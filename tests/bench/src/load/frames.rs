//! Telemetry as fast as it is acknowledged: on each session a burst of frames, then their
//! acknowledgements, then the next burst.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Poll};
use protocols::rcu::code::AckStatus;
use protocols::rcu::frame::{self, FRAME_BYTES_TO_DEVICE_MAX, Parsed};
use protocols::rcu::message::FromCluster;
use protocols::rcu::telemetry::TelemetryWriter;
use records::{Gps, Record};

use crate::clock;
use crate::error::{BenchError, Result, Tried as _};
use crate::net::{is_not_yet, wait, watch_each};

const TICK: Duration = Duration::from_millis(100);
const BUFFER_BYTES: usize = 4_096;

const GPS: Record<'_> = Record::Gps(Gps {
    latitude: Some(487_654_321),
    longitude: Some(91_234_567),
    altitude_cm: Some(52_000),
    speed_cm_s: Some(2_500),
    heading: Some(9_000),
    satellites: Some(9),
    hdop: Some(11),
});

/// Sessions that send bursts.
pub(crate) struct Bursts {
    poll: Poll,
    sessions: Vec<Session>,
    frames_in_burst: usize,
    writer: TelemetryWriter,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

struct Session {
    stream: TcpStream,
    /// Of the next frame.
    seq: u64,
    /// Frames of the burst under way without an acknowledgement.
    open: usize,
    /// The beginning of a frame whose end has not come.
    received: Vec<u8>,
}

impl Bursts {
    /// Over these connections; `frames_in_burst` is not more than the window.
    pub(crate) fn new(mut streams: Vec<TcpStream>, frames_in_burst: usize) -> Result<Self> {
        let poll = Poll::new().tried("poll")?;
        watch_each(poll.registry(), &mut streams)?;
        let sessions = streams
            .into_iter()
            .map(|stream| Session {
                stream,
                seq: 1,
                open: 0,
                received: Vec::new(),
            })
            .collect();
        Ok(Self {
            poll,
            sessions,
            frames_in_burst,
            writer: TelemetryWriter::default(),
            out: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Plays for so long; returns how many frames were acknowledged. `each_turn` is called after
    /// each turn of the loop.
    pub(crate) fn run(&mut self, window: Duration, mut each_turn: impl FnMut()) -> Result<u64> {
        let mut events = Events::with_capacity(1_024);
        let begun = Instant::now();
        let mut acknowledged = 0;
        for index in 0..self.sessions.len() {
            if self.sessions[index].open == 0 {
                self.send(index)?;
            }
        }
        while begun.elapsed() < window {
            wait(&mut self.poll, &mut events, Some(TICK))?;
            for event in &events {
                acknowledged += self.ready(event.token().0)?;
            }
            each_turn();
        }
        Ok(acknowledged)
    }

    /// A burst of frames of one GPS record each.
    fn send(&mut self, index: usize) -> Result<()> {
        let session = &mut self.sessions[index];
        let now_ms = clock::unix_ms();
        self.out.clear();
        for _ in 0..self.frames_in_burst {
            self.writer.begin(session.seq, now_ms);
            self.writer.push(now_ms, &GPS).map_err(BenchError::failed)?;
            if let Some(telemetry) = self.writer.telemetry() {
                // Ids need be unique among the frames under way only.
                telemetry.encode(session.seq as u16 | 1 << 15, &mut self.out);
            }
            session.seq += 1;
        }
        session.open = self.frames_in_burst;
        session.stream.write_all(&self.out).tried("send a burst")
    }

    /// Takes acknowledgements, and sends the next burst when all have come.
    fn ready(&mut self, index: usize) -> Result<u64> {
        let session = &mut self.sessions[index];
        let length = match session.stream.read(&mut self.buffer) {
            Ok(0) => return Err(BenchError::failed("the server closed a connection")),
            Ok(length) => length,
            Err(error) if is_not_yet(&error) => return Ok(0),
            Err(error) => return Err(error).tried("read acknowledgements"),
        };
        let received = &self.buffer[..length];
        let acknowledged = if session.received.is_empty() {
            let (count, taken) = stored(received)?;
            session.received.extend_from_slice(&received[taken..]);
            count
        } else {
            session.received.extend_from_slice(received);
            let (count, taken) = stored(&session.received)?;
            session.received.drain(..taken);
            count
        };
        session.open = session
            .open
            .checked_sub(acknowledged)
            .ok_or_else(|| BenchError::failed("more acknowledgements than frames"))?;
        if session.open == 0 {
            self.send(index)?;
        }
        Ok(acknowledged as u64)
    }
}

/// How many acknowledgements there are at the front of `bytes`, and the bytes that they take.
/// Anything but `stored` is no work done.
fn stored(bytes: &[u8]) -> Result<(usize, usize)> {
    let (mut count, mut rest) = (0, bytes);
    while let Parsed::Frame { frame, consumed } =
        frame::parse(rest, FRAME_BYTES_TO_DEVICE_MAX).map_err(BenchError::failed)?
    {
        match FromCluster::decode(&frame).map_err(BenchError::failed)? {
            FromCluster::TelemetryAck(ack) if ack.status == AckStatus::Stored => count += 1,
            other => return Err(BenchError::failed(format!("not stored: {other:?}"))),
        }
        rest = &rest[consumed..];
    }
    Ok((count, bytes.len() - rest.len()))
}
