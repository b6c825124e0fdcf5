//! Frames a second through a shard, beside a bare loop that does no more than the wire asks for.
//!
//! `loopback` is LIMITS.md G3 (one frame per acknowledgement) and G4 (bursts of 16): TCP sockets,
//! mio, one write per read; only the server's turn is timed, the devices' writes and reads are
//! not. The bare loop finds the frame, checks its crc and sends a fixed ack; the shard decodes,
//! collects, and acknowledges from a batch that a store accepts at once. The goal is the ratio of
//! the two. `memory` is the same without sockets: what the core itself costs.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::epoch::Epoch;
use common::ids::AccountId;
use common::secret::Secret;
use common::time::Now;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use logic_server::adapter::Protocol;
use logic_server::batch::{BatchOutcome, Limits};
use logic_server::ids::{SessionId, ShardIndex, Slot};
use logic_server::shard::{Effects, Input, SessionSeed, Settings, Shard};
use mio::{Events, Interest, Poll, Token};
use protocols::rcu::code::AckStatus;
use protocols::rcu::frame::{self, FRAME_BYTES_MAX, Parsed};
use protocols::rcu::telemetry::{TelemetryAck, TelemetryWriter};
use records::{Gps, Record};

const CONNECTIONS: usize = 256;
const BURSTS: [usize; 2] = [1, 16];

const NOW: Now = Now {
    ms: 1_000,
    unix_ms: 1_767_225_600_000,
};

/// A device's Telemetry frames with a position each.
fn frames(count: usize) -> Vec<u8> {
    let gps = Record::Gps(Gps {
        latitude: Some(311_234_567),
        longitude: Some(1_214_567_890),
        altitude_cm: Some(-1_250),
        speed_cm_s: Some(1_389),
        heading: Some(27_015),
        satellites: Some(9),
        hdop: Some(8),
    });
    let mut out = vec![];
    for id in 1..=count as u16 {
        let mut writer = TelemetryWriter::default();
        writer.begin(id.into(), NOW.unix_ms);
        writer.push(NOW.unix_ms, &gps).unwrap();
        writer.telemetry().unwrap().encode(id, &mut out);
    }
    out
}

fn ack() -> Vec<u8> {
    let mut out = vec![];
    let ack = TelemetryAck {
        base_seq: 1,
        count: 1,
        status: AckStatus::Stored,
        retry_after_ms: 0,
    };
    ack.encode(1, &mut out);
    out
}

/// What a server does with what it read, and what it writes.
trait Serve {
    fn received(&mut self, connection: usize, bytes: &[u8]);
    /// The turn is over: hands out what each connection gets.
    fn finish(&mut self, send: &mut dyn FnMut(usize, &[u8]));
}

struct Bare {
    ack: Vec<u8>,
    out: Vec<u8>,
    sends: Vec<(usize, usize)>,
}

impl Bare {
    fn new() -> Self {
        Self {
            ack: ack(),
            out: vec![],
            sends: vec![],
        }
    }
}

impl Serve for Bare {
    fn received(&mut self, connection: usize, mut bytes: &[u8]) {
        while let Ok(Parsed::Frame { consumed, .. }) = frame::parse(bytes, FRAME_BYTES_MAX) {
            self.out.extend_from_slice(&self.ack);
            bytes = &bytes[consumed..];
        }
        self.sends.push((connection, self.out.len()));
    }

    fn finish(&mut self, send: &mut dyn FnMut(usize, &[u8])) {
        let mut start = 0;
        for (connection, end) in self.sends.drain(..) {
            send(connection, &self.out[start..end]);
            start = end;
        }
        self.out.clear();
    }
}

struct Core {
    shard: Shard,
    effects: Effects,
    returned: Effects,
}

impl Core {
    fn new() -> Self {
        let settings = Settings {
            shard: ShardIndex(0),
            window: 64,
            unsent_bytes_max: 65_536,
            batch: Limits {
                rows_max: 5_000,
                bytes_max: 1 << 20,
                age_ms_max: 20,
            },
            overload_retry_ms: 1_000,
            shutdown_spread_ms: 1_000,
        };
        let mut core = Self {
            shard: Shard::new(settings, 1),
            effects: Effects::default(),
            returned: Effects::default(),
        };
        for index in 0..CONNECTIONS {
            let seed = SessionSeed {
                session: SessionId(1 + index as u64),
                protocol: Protocol::Rcu,
                account_id: AccountId(1 + index as i64),
                epoch: Epoch::at_ms(1),
                session_key: Secret::new([1; 32]),
                ticket: Secret::new([2; 16]),
                source: IpAddr::V4(Ipv4Addr::LOCALHOST),
                claim_frame_id: 1,
                heartbeat_s: 60,
                attached_unix_ms: 1,
            };
            let slot = Slot(index as u32);
            let unread = &[];
            let input = Input::Adopt { slot, seed, unread };
            core.shard.apply(input, NOW, &mut core.effects);
        }
        core.finish(&mut |_, _| ());
        core
    }
}

impl Serve for Core {
    fn received(&mut self, connection: usize, bytes: &[u8]) {
        let slot = Slot(connection as u32);
        let input = Input::Received { slot, bytes };
        self.shard.apply(input, NOW, &mut self.effects);
    }

    fn finish(&mut self, send: &mut dyn FnMut(usize, &[u8])) {
        let read_until_ms = NOW.ms;
        self.shard
            .apply(Input::Tick { read_until_ms }, NOW, &mut self.effects);
        for batch in self.effects.batches.drain(..) {
            let outcome = BatchOutcome::Stored;
            let input = Input::Finished { batch, outcome };
            self.shard.apply(input, NOW, &mut self.returned);
        }
        assert!(self.effects.closes.is_empty());
        for it in &self.returned.sends {
            send(it.slot.0 as usize, &self.returned.out[it.bytes.clone()]);
        }
        self.effects.clear();
        self.returned.clear();
    }
}

/// Devices and a server in one thread, so that nothing waits for a wake-up.
struct Loopback {
    poll: Poll,
    events: Events,
    served: Vec<mio::net::TcpStream>,
    devices: Vec<TcpStream>,
    buffer: Vec<u8>,
}

impl Loopback {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let poll = Poll::new().unwrap();
        let (mut served, mut devices) = (vec![], vec![]);
        for index in 0..CONNECTIONS {
            let device = TcpStream::connect(address).unwrap();
            device.set_nodelay(true).unwrap();
            devices.push(device);
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            let mut stream = mio::net::TcpStream::from_std(stream);
            let token = Token(index);
            poll.registry()
                .register(&mut stream, token, Interest::READABLE)
                .unwrap();
            served.push(stream);
        }
        Self {
            poll,
            events: Events::with_capacity(CONNECTIONS),
            served,
            devices,
            buffer: vec![0; 65_536],
        }
    }

    /// Every device sends its burst; how long the server takes to answer all.
    fn round(&mut self, burst: &[u8], acks_bytes: usize, server: &mut dyn Serve) -> Duration {
        for device in &mut self.devices {
            device.write_all(burst).unwrap();
        }
        let start = Instant::now();
        let mut left = CONNECTIONS * acks_bytes;
        while left > 0 {
            self.poll
                .poll(&mut self.events, Some(Duration::from_secs(10)))
                .unwrap();
            assert!(!self.events.is_empty(), "everything was sent");
            for event in &self.events {
                let Token(index) = event.token();
                match self.served[index].read(&mut self.buffer) {
                    Ok(count) => server.received(index, &self.buffer[..count]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            let served = &mut self.served;
            server.finish(&mut |index, bytes| {
                served[index].write_all(bytes).unwrap();
                left -= bytes.len();
            });
        }
        let took = start.elapsed();
        for device in &mut self.devices {
            device.read_exact(&mut self.buffer[..acks_bytes]).unwrap();
        }
        took
    }
}

fn servers() -> [(&'static str, Box<dyn Serve>); 2] {
    [
        ("bare", Box::new(Bare::new())),
        ("shard", Box::new(Core::new())),
    ]
}

fn memory(criterion: &mut Criterion) {
    for burst in BURSTS {
        let mut group = criterion.benchmark_group(format!("memory/{burst} frames"));
        group.throughput(Throughput::Elements((CONNECTIONS * burst) as u64));
        let bytes = frames(burst);
        for (name, mut server) in servers() {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    for connection in 0..CONNECTIONS {
                        server.received(connection, black_box(&bytes));
                    }
                    server.finish(&mut |_, bytes| {
                        black_box(bytes);
                    });
                });
            });
        }
    }
}

fn loopback(criterion: &mut Criterion) {
    for burst in BURSTS {
        let mut group = criterion.benchmark_group(format!("loopback/{burst} frames"));
        group.throughput(Throughput::Elements((CONNECTIONS * burst) as u64));
        let (bytes, acks_bytes) = (frames(burst), ack().len() * burst);
        for (name, mut server) in servers() {
            let mut loopback = Loopback::new();
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|rounds| {
                    let round = |_| loopback.round(&bytes, acks_bytes, &mut *server);
                    (0..rounds).map(round).sum()
                });
            });
        }
    }
}

criterion_group!(benches, memory, loopback);
criterion_main!(benches);
