//! Telemetry as fast as it is acknowledged: on each connection a burst of frames, then their
//! acknowledgements, then the next burst.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::device::frame::HEADER_BYTES;
use common::device::record::{Gps, Record};
use common::device::telemetry::TelemetryWriter;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::connect::connect;
use super::sources::Sources;
use crate::clock;
use crate::error::{BenchError, Result, Tried as _};
use crate::net::{is_not_yet, wait};
use crate::usage::CpuTime;

const CONNECTIONS: usize = 100;
const ACK_BYTES: usize = HEADER_BYTES + 14;
const WARM_UP: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

struct Connection {
    stream: TcpStream,
    /// Of acknowledgements of the burst under way.
    bytes_due: usize,
}

/// CPU of the process `server` per acknowledged frame, in µs.
pub(crate) fn server_us_per_frame(
    address: SocketAddr,
    server: u32,
    frames_in_burst: usize,
    mut sources: Sources,
    window: Duration,
) -> Result<f64> {
    let burst = burst(frames_in_burst)?;
    let mut poll = Poll::new().tried("poll")?;
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for index in 0..CONNECTIONS {
        let mut stream = connect(sources.next(), address).tried("connect")?;
        poll.registry()
            .register(&mut stream, Token(index), Interest::READABLE)
            .tried("register a connection")?;
        stream.write_all(&burst).tried("send a burst")?;
        connections.push(Connection {
            stream,
            bytes_due: frames_in_burst * ACK_BYTES,
        });
    }

    let mut run = |window: Duration| -> Result<u64> {
        let mut events = Events::with_capacity(CONNECTIONS);
        let mut buffer = [0; 4_096];
        let begun = Instant::now();
        let mut bursts = 0;
        while begun.elapsed() < window {
            wait(&mut poll, &mut events, Some(TICK))?;
            for event in &events {
                let connection = &mut connections[event.token().0];
                bursts += u64::from(connection.ready(&mut buffer, &burst)?);
                connection.bytes_due = match connection.bytes_due {
                    0 => frames_in_burst * ACK_BYTES,
                    due => due,
                };
            }
        }
        Ok(bursts)
    };
    run(WARM_UP)?;
    let before = CpuTime::of(server)?;
    let frames = run(window)? * frames_in_burst as u64;
    let used = CpuTime::of(server)?.since(&before);
    if frames == 0 {
        return Err(BenchError::failed("no frame was acknowledged"));
    }
    Ok(used.as_secs_f64() * 1e6 / frames as f64)
}

impl Connection {
    /// Takes acknowledgements. True: the burst was whole and the next one is sent.
    fn ready(&mut self, buffer: &mut [u8], burst: &[u8]) -> Result<bool> {
        let length = match self.stream.read(buffer) {
            Ok(0) => return Err(BenchError::failed("the server closed a connection")),
            Ok(length) => length,
            Err(error) if is_not_yet(&error) => return Ok(false),
            Err(error) => return Err(error).tried("read acknowledgements"),
        };
        self.bytes_due = self
            .bytes_due
            .checked_sub(length)
            .ok_or_else(|| BenchError::failed("more acknowledgements than frames"))?;
        if self.bytes_due > 0 {
            return Ok(false);
        }
        self.stream.write_all(burst).tried("send a burst")?;
        Ok(true)
    }
}

/// Frames of one GPS record each.
fn burst(frames: usize) -> Result<Vec<u8>> {
    let record = Record::Gps(Gps {
        latitude: Some(487_654_321),
        longitude: Some(91_234_567),
        altitude_cm: Some(52_000),
        speed_cm_s: Some(2_500),
        heading: Some(9_000),
        satellites: Some(9),
        hdop: Some(11),
    });
    let now_ms = clock::unix_ms();
    let mut writer = TelemetryWriter::default();
    let mut out = Vec::new();
    for number in 1..=frames {
        writer.begin(number as u64, now_ms);
        writer.push(now_ms, &record).map_err(BenchError::failed)?;
        if let Some(telemetry) = writer.telemetry() {
            telemetry.encode(number as u16, &mut out);
        }
    }
    Ok(out)
}
