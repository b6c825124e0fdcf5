//! The least that a session can cost: one mio loop, a slab of connections, no login and no
//! decisions. It answers heartbeats, and acknowledges telemetry without keeping it.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use protocols::rcu::code::AckStatus;
use protocols::rcu::frame::{self, FRAME_BYTES_MAX, Parsed};
use protocols::rcu::message::{FromDevice, HeartbeatReply};
use protocols::rcu::telemetry::TelemetryAck;
use records::Record;
use slab::Slab;

use crate::clock;
use crate::error::{BenchError, Result, Tried as _};
use crate::net::{accept_each, address_of, is_not_yet, listen, wait};
use crate::process::{self, Helper};

const LISTENER: Token = Token(0);
const CONNECTIONS: usize = 1;
const BUFFER_BYTES: usize = 64 * 1_024;
const START_MAX: Duration = Duration::from_secs(10);

/// The bare server as a process of its own.
pub(crate) struct Bare {
    helper: Helper,
    pub(crate) address: SocketAddr,
}

impl Bare {
    pub(crate) fn start() -> Result<Self> {
        let helper = Helper::start(["bare"])?;
        let address = helper.hear_address(START_MAX)?;
        Ok(Self { helper, address })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.helper.pid()
    }
}

/// All that is kept of a connection.
struct Session {
    stream: TcpStream,
    /// A server that closes silent connections cannot do without.
    heard_at_s: u32,
}

/// Serves until its parent ends.
pub(crate) fn serve() -> Result<()> {
    process::end_with_parent();
    let mut poll = Poll::new().tried("poll")?;
    let listener = listen(poll.registry(), LISTENER)?;
    process::say(&address_of(&listener)?)?;

    let mut sessions = Slab::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut out = Vec::new();
    let mut events = Events::with_capacity(1_024);
    loop {
        wait(&mut poll, &mut events, None)?;
        let now_ms = clock::unix_ms();
        for event in &events {
            if event.token() == LISTENER {
                accept_each(&listener, |mut stream, _| {
                    let entry = sessions.vacant_entry();
                    let token = Token(CONNECTIONS + entry.key());
                    poll.registry()
                        .register(&mut stream, token, Interest::READABLE)
                        .tried("register a connection")?;
                    entry.insert(Session {
                        stream,
                        heard_at_s: (now_ms / 1_000) as u32,
                    });
                    Ok(())
                })?;
                continue;
            }
            let key = event.token().0 - CONNECTIONS;
            let Some(session) = sessions.get_mut(key) else {
                continue;
            };
            session.heard_at_s = (now_ms / 1_000) as u32;
            let ended = match session.stream.read(&mut buffer) {
                Ok(0) => true,
                Ok(length) => {
                    out.clear();
                    answer(&buffer[..length], now_ms, &mut out)?;
                    // One write a read; the load never lets answers pile up.
                    session.stream.write_all(&out).is_err() || event.is_read_closed()
                }
                Err(error) => !is_not_yet(&error),
            };
            if ended {
                sessions.remove(key);
            }
        }
    }
}

/// Answers each whole frame. The load sends frames in one piece: what is cut is an error of ours.
fn answer(mut bytes: &[u8], now_ms: u64, out: &mut Vec<u8>) -> Result<()> {
    while !bytes.is_empty() {
        let parsed = frame::parse(bytes, FRAME_BYTES_MAX).map_err(BenchError::failed)?;
        let Parsed::Frame { frame, consumed } = parsed else {
            return Err(BenchError::failed("a frame in pieces"));
        };
        match FromDevice::decode(&frame).map_err(BenchError::failed)? {
            FromDevice::Heartbeat => HeartbeatReply {
                server_time_ms: now_ms,
            }
            .encode(frame.id, out),
            FromDevice::Telemetry(telemetry) => {
                for record in telemetry.records() {
                    // A server that stored it would need it decoded.
                    let _ = black_box(Record::decode(record.kind, record.payload));
                }
                TelemetryAck {
                    base_seq: telemetry.base_seq(),
                    count: telemetry.count(),
                    status: AckStatus::Stored,
                    retry_after_ms: 0,
                }
                .encode(frame.id, out);
            }
            _ => return Err(BenchError::failed("neither heartbeat nor telemetry")),
        }
        bytes = &bytes[consumed..];
    }
    Ok(())
}
