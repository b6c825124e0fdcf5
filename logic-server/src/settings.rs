//! What an operator can set on a logic server: the table `[logic_server]`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use common::config::SourceCheck;
use common::link::{HANDSHAKES_MAX, Role, is_public, links_max};
use common::process::listen::takes_ipv4;
use protocols::rcu::limit;
use serde::Deserialize;

use crate::adapter::Protocol;
use crate::batch;
use crate::gate;
use crate::ids::{ListenerIndex, ShardIndex};
use crate::shard;
use crate::writer;

/// Where nothing else is known of the machine, a logic server holds this many devices.
const CONNECTIONS_DEFAULT: u32 = 10_000;

/// Descriptors that it needs whatever its limits are: 64 for listeners, epoll and eventfd of each loop, the
/// reserve of the gate and the database's files; and those for links.
const DESCRIPTORS_FIXED: u64 = 64 + (links_max(Role::Logic) + HANDSHAKES_MAX) as u64;

/// The longest that a device waits, whatever it is told.
const WAIT_MS_MAX: u64 = 3_600_000;

/// The addresses of `listen` are one listener.
const LISTENERS: [gate::Listener; 1] = [gate::Listener {
    protocol: Protocol::Rcu,
}];
pub(crate) const RCU_LISTENER: ListenerIndex = ListenerIndex(0);

/// No upper bound.
const ANY: u64 = u64::MAX;

/// Every key has a default: an empty table is a whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where devices connect, at most one address per family. Port 0: a free one.
    #[serde(deserialize_with = "common::config::addresses")]
    pub listen: Vec<SocketAddr>,
    /// Where devices are told to connect, at most one address per family; port 0: that of `listen`.
    /// Empty: the addresses of `listen`, which then must name an interface.
    #[serde(deserialize_with = "common::config::addresses")]
    pub advertise: Vec<SocketAddr>,
    /// Where conn servers connect. Port 0: a free one.
    #[serde(deserialize_with = "common::config::address")]
    pub link_listen: SocketAddr,
    /// Lets `link_listen` be an address that the whole world may reach.
    pub link_listen_publicly: bool,
    /// Event loops for sessions; 0: one per core.
    pub threads: u16,
    /// Devices: accounts with a session or an open grant. Absent: the lesser of 10,000 and what
    /// the descriptors of the process leave.
    pub max_connections: Option<u32>,
    /// How often a device says that it is there, seconds, 5 to 3600; after three times as long
    /// without a frame its session is closed. A grant may say otherwise.
    pub heartbeat_s: u16,
    /// Telemetry frames that a device may have unanswered at once.
    pub window: u16,
    /// Whether a ticket admits only from the address that logged in.
    pub source_check: SourceCheck,
    /// From a connection's being accepted until its Attach is complete, milliseconds.
    pub attach_deadline_ms: u64,
    /// Connections that are not attached yet; beyond it the oldest of the address that has most is dropped.
    pub pending_max: usize,
    /// Output that a device does not read, bytes; beyond it the session is closed `slow_reader`.
    pub output_bytes_max: usize,
    /// Records in one batch.
    pub batch_rows_max: usize,
    /// Payload in one batch, bytes.
    pub batch_bytes_max: usize,
    /// A batch waits this long for more records, milliseconds.
    pub batch_age_ms_max: u64,
    /// One attempt to write a batch takes at most this long, milliseconds; then it is repeated.
    pub write_deadline_ms: u64,
    /// Batches that wait for the database, bytes; beyond it devices are told `overloaded`.
    pub queue_bytes_max: usize,
    /// How long a batch is retried, milliseconds; then its devices are told `overloaded`.
    pub keep_ms_max: u64,
    /// Devices that are told `overloaded` come again after this time, spread, milliseconds.
    pub overload_retry_ms: u32,
    /// Devices that are sent away at shutdown come back within this time, spread, milliseconds.
    pub shutdown_spread_ms: u32,
    /// A shutdown waits so long for the database, milliseconds; what it has not acknowledged by then,
    /// the devices send again.
    pub shutdown_deadline_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let writer = writer::Settings::default();
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 20_000))],
            advertise: Vec::new(),
            link_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            link_listen_publicly: false,
            threads: 0,
            max_connections: None,
            heartbeat_s: 60,
            window: 8,
            source_check: SourceCheck::Exact,
            attach_deadline_ms: limit::FIRST_FRAME_MS,
            pending_max: 5_000,
            output_bytes_max: 65_536,
            batch_rows_max: 5_000,
            batch_bytes_max: 1 << 20,
            batch_age_ms_max: 20,
            write_deadline_ms: 2_000,
            queue_bytes_max: writer.queue_bytes_max,
            keep_ms_max: writer.keep_ms_max,
            overload_retry_ms: writer.overload_retry_ms,
            shutdown_spread_ms: 10_000,
            shutdown_deadline_ms: 10_000,
        }
    }
}

impl Settings {
    /// Every mistake, each beginning with its key; empty: they can be used.
    pub fn check(&self) -> Vec<String> {
        let addresses = self.address_mistakes();
        let figures = self.figures();
        let addresses = addresses.iter().filter(|(wrong, _)| *wrong);
        let figures = figures
            .iter()
            .filter(|(_, value, fine)| !fine.contains(value));
        addresses
            .map(|&(_, mistake)| mistake.to_owned())
            .chain(
                figures.map(|(key, value, fine)| match (fine.start(), fine.end()) {
                    (least, &ANY) => format!("{key}: {value} is less than {least}"),
                    (least, most) => format!("{key}: {value} is not within {least} to {most}"),
                }),
            )
            .collect()
    }

    /// What may be wrong with the addresses, and whether it is.
    fn address_mistakes(&self) -> [(bool, &'static str); 6] {
        let (listen, advertise) = (&self.listen, &self.advertise);
        let is_no_target = |address: &SocketAddr| address.ip().is_unspecified();
        let has_port = |told: &SocketAddr| {
            told.port() != 0 || listen.iter().any(|bound| takes(bound, listen, told))
        };
        [
            (
                listen.is_empty() || !one_per_family(listen),
                "listen: one address, or one IPv4 and one IPv6 address",
            ),
            (
                !one_per_family(advertise),
                "advertise: at most one IPv4 and one IPv6 address",
            ),
            (
                advertise.iter().any(is_no_target),
                "advertise: an address that a device can connect to",
            ),
            (
                advertise.is_empty() && listen.iter().any(is_no_target),
                "advertise: needed where listen is every interface",
            ),
            (
                !advertise.iter().all(has_port),
                "advertise: port 0 is the port of listen, which has no address of that family",
            ),
            (
                !self.link_listen_publicly && is_public(self.link_listen.ip()),
                "link_listen: an address that the world may reach, and links are internal: choose a \
                 private one, or set link_listen_publicly",
            ),
        ]
    }

    /// Key, value and what it may be.
    #[rustfmt::skip]
    fn figures(&self) -> Vec<(&'static str, u64, RangeInclusive<u64>)> {
        let batch_bytes_max = self.batch_bytes_max as u64;
        vec![
            ("threads", self.threads.into(), 0..=256),
            ("max_connections", self.max_connections.map_or(1, u64::from), 1..=ANY),
            ("heartbeat_s", self.heartbeat_s.into(), 5..=3_600),
            ("window", self.window.into(), 1..=shard::WINDOW_MAX.into()),
            ("attach_deadline_ms", self.attach_deadline_ms, 1..=ANY),
            ("pending_max", self.pending_max as u64, 1..=ANY),
            // An AttachReply and a Close must always fit.
            ("output_bytes_max", self.output_bytes_max as u64, 1_024..=ANY),
            ("batch_rows_max", self.batch_rows_max as u64, 1..=1_000_000),
            ("batch_bytes_max", batch_bytes_max, 1..=1 << 28),
            ("batch_age_ms_max", self.batch_age_ms_max, 0..=60_000),
            ("write_deadline_ms", self.write_deadline_ms, 1..=ANY),
            ("queue_bytes_max", self.queue_bytes_max as u64, batch_bytes_max..=ANY),
            ("keep_ms_max", self.keep_ms_max, self.write_deadline_ms..=ANY),
            ("overload_retry_ms", self.overload_retry_ms.into(), 1..=WAIT_MS_MAX),
            ("shutdown_spread_ms", self.shutdown_spread_ms.into(), 0..=WAIT_MS_MAX),
            ("shutdown_deadline_ms", self.shutdown_deadline_ms, 1..=ANY),
        ]
    }

    /// Descriptors that it needs beside one for each of its `max_connections`.
    pub fn descriptors(&self) -> u64 {
        DESCRIPTORS_FIXED + self.pending_max as u64
    }

    /// Devices' sockets that may be open at a time, attached, on their way in or on their way out.
    pub(crate) fn sockets_max(&self) -> u64 {
        u64::from(self.places_max()) + self.pending_max as u64
    }

    pub(crate) fn places_max(&self) -> u32 {
        self.max_connections.unwrap_or(CONNECTIONS_DEFAULT)
    }

    /// Event loops for sessions.
    pub(crate) fn shards(&self) -> u16 {
        match self.threads {
            0 => std::thread::available_parallelism()
                .ok()
                .and_then(|cores| u16::try_from(cores.get()).ok())
                .unwrap_or(1),
            threads => threads,
        }
    }

    /// `advertise` for these addresses that `listen` became.
    pub(crate) fn advertised(&self, bound: &[SocketAddr]) -> Vec<SocketAddr> {
        if self.advertise.is_empty() {
            return bound.to_vec();
        }
        let with_port = |mut told: SocketAddr| {
            let bound = bound.iter().find(|it| takes(it, bound, &told));
            if let (0, Some(bound)) = (told.port(), bound) {
                told.set_port(bound.port());
            }
            told
        };
        self.advertise.iter().copied().map(with_port).collect()
    }

    pub(crate) fn gate(&self, advertise: Vec<SocketAddr>) -> gate::Settings {
        gate::Settings {
            listeners: LISTENERS.into(),
            shards: self.shards(),
            places_max: self.places_max(),
            pending_max: self.pending_max,
            first_frame_ms: self.attach_deadline_ms,
            heartbeat_s: self.heartbeat_s,
            advertise,
            shutdown_spread_ms: self.shutdown_spread_ms,
        }
    }

    pub(crate) fn shard(&self, shard: ShardIndex) -> shard::Settings {
        shard::Settings {
            shard,
            window: self.window,
            unsent_bytes_max: self.output_bytes_max,
            batch: batch::Limits {
                rows_max: self.batch_rows_max,
                bytes_max: self.batch_bytes_max,
                age_ms_max: self.batch_age_ms_max,
            },
            overload_retry_ms: self.overload_retry_ms,
            shutdown_spread_ms: self.shutdown_spread_ms,
        }
    }

    pub(crate) fn writer(&self) -> writer::Settings {
        writer::Settings {
            queue_bytes_max: self.queue_bytes_max,
            keep_ms_max: self.keep_ms_max,
            overload_retry_ms: self.overload_retry_ms,
            ..writer::Settings::default()
        }
    }
}

/// Whether who connects to `told` comes in at `bound`, one of `all`.
fn takes(bound: &SocketAddr, all: &[SocketAddr], told: &SocketAddr) -> bool {
    match told.is_ipv4() {
        true => takes_ipv4(*bound, all),
        false => bound.is_ipv6(),
    }
}

fn one_per_family(addresses: &[SocketAddr]) -> bool {
    let ipv4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    ipv4 <= 1 && addresses.len() - ipv4 <= 1
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_mistakes() {
        assert_eq!(Settings::default().check(), Vec::<String>::new());
    }

    #[test]
    fn all_mistakes_are_named_by_their_keys() {
        let settings = Settings {
            listen: vec!["0.0.0.0:1".parse().unwrap(), "10.0.0.1:2".parse().unwrap()],
            link_listen: "[::]:20100".parse().unwrap(),
            heartbeat_s: 4,
            window: 0,
            max_connections: Some(0),
            queue_bytes_max: 10,
            ..Settings::default()
        };
        let mistakes = settings.check();
        let keys: Vec<_> = mistakes
            .iter()
            .map(|mistake| mistake.split(':').next().unwrap())
            .collect();
        let expected = [
            "listen",
            "advertise",
            "link_listen",
            "max_connections",
            "heartbeat_s",
            "window",
            "queue_bytes_max",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn what_is_advertised_has_the_port_that_was_bound_unless_it_names_one() {
        let bound = ["127.0.0.1:4000".parse().unwrap()];
        let mut settings = Settings::default();
        assert_eq!(settings.advertised(&bound), bound);
        settings.advertise = vec!["192.0.2.1:0".parse().unwrap()];
        assert_eq!(
            settings.advertised(&bound),
            ["192.0.2.1:4000".parse().unwrap()]
        );
        // Every interface is one for both families.
        let every = ["[::]:4000".parse().unwrap()];
        assert_eq!(
            settings.advertised(&every),
            ["192.0.2.1:4000".parse().unwrap()]
        );
        settings.listen = every.into();
        assert_eq!(settings.check(), Vec::<String>::new());
        settings.advertise = vec!["192.0.2.1:99".parse().unwrap()];
        assert_eq!(settings.advertised(&bound), settings.advertise);
    }
}
