//! What an operator can set on a conn server: the table `[conn_server]`.

use std::net::SocketAddr;

use common::config::{Policy, SourceCheck, is_target};
use common::epoch::NodeNumber;
use common::link::is_public;
use common::pacing::Rate;
use serde::Deserialize;

use crate::desk::Rules;
use crate::throttle::Limits;

/// Sources whose rates are kept apart, and guessed accounts that are slowed down. Beyond it the
/// limit in all still holds.
const SOURCES_MAX: usize = 65_536;

/// A logic server has a number of 16 bits here.
const LOGIC_SERVERS_MAX: usize = 1_000;

/// Every key has a default: an empty table is a whole configuration, but for `logic_servers`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where balancers and operators link to. Port 0: a free one.
    #[serde(deserialize_with = "common::config::address")]
    pub listen: SocketAddr,
    /// Lets `listen` be an address that the whole world may reach.
    pub listen_publicly: bool,
    /// The logic servers, host:port of their links each; their order counts for "fill".
    #[serde(deserialize_with = "common::config::one_or_many")]
    pub logic_servers: Vec<String>,
    /// 0 to 1023, another for each conn server of a cluster: their epochs differ by it.
    pub node_number: u16,
    /// Which logic server a device is sent to: "least-loaded", or "fill": the first that is not full.
    pub policy: Policy,
    /// How long a device may take from LoginReply to Attach, seconds.
    pub grant_ttl_s: u16,
    /// Whether a ticket admits only from the address that logged in: "exact" or "off".
    pub source_check: SourceCheck,
    /// How often devices send a Heartbeat, seconds; unset: as each logic server has it.
    pub heartbeat_s: Option<u16>,
    /// A device's clock further off than this, in seconds, is set first.
    pub clock_skew_max_s: u32,
    /// Logins that are decided, a second on average; the others are told when to come back. 0: no limit.
    pub logins_per_s: u32,
    /// Logins that are decided at once after a rest.
    pub logins_burst: u32,
    /// The same for one source, an IPv4 address or the first 64 bits of an IPv6 one; 0: no limit. A
    /// carrier shares addresses among many devices.
    pub logins_per_source_per_s: u32,
    pub logins_per_source_burst: u32,
    /// Logins that are being decided at a time, about 1 KB each; more are busy.
    pub logins_open_max: usize,
    /// Logins remembered for 600 s, so that a replay reserves nothing; about 100 bytes each.
    pub nonces_max: usize,
    /// Accounts remembered from the database, about 300 bytes each.
    pub cache_entries_max: u64,
    /// Names remembered that are no account.
    pub cache_absent_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            listen_publicly: false,
            logic_servers: Vec::new(),
            node_number: 0,
            policy: Policy::LeastLoaded,
            grant_ttl_s: 30,
            source_check: SourceCheck::Exact,
            heartbeat_s: None,
            clock_skew_max_s: 300,
            logins_per_s: 40_000,
            logins_burst: 40_000,
            logins_per_source_per_s: 20_000,
            logins_per_source_burst: 20_000,
            logins_open_max: 10_000,
            nonces_max: 262_144,
            cache_entries_max: 200_000,
            cache_absent_max: 20_000,
        }
    }
}

impl Settings {
    /// Every mistake, each beginning with its key; empty: they can be used. That `logic_servers`
    /// names any is for [`crate::ConnServer::start`] to see: whoever runs all tiers fills them in.
    pub fn check(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut check = |fine: bool, mistake: &str| {
            if !fine {
                mistakes.push(mistake.to_owned());
            }
        };
        for (index, target) in self.logic_servers.iter().enumerate() {
            let wrong = |what| format!("logic_servers: {target:?} is {what}");
            check(is_target(target), &wrong("not host:port"));
            check(
                !self.logic_servers[..index].contains(target),
                &wrong("named twice"),
            );
        }
        check(
            self.listen_publicly || !is_public(self.listen.ip()),
            &format!(
                "listen: {} may be reached by the world, and links are internal: choose a private \
                 address, or set listen_publicly",
                self.listen
            ),
        );
        check(
            self.logic_servers.len() <= LOGIC_SERVERS_MAX,
            &format!("logic_servers: at most {LOGIC_SERVERS_MAX}"),
        );
        check(
            NodeNumber::new(self.node_number).is_some(),
            &format!("node_number: 0 to {}", NodeNumber::MAX),
        );
        check(
            (1..=600).contains(&self.grant_ttl_s),
            "grant_ttl_s: 1 to 600",
        );
        check(
            self.heartbeat_s.is_none_or(|s| (5..=3_600).contains(&s)),
            "heartbeat_s: 5 to 3600, or unset",
        );
        check(
            (1..=86_400).contains(&self.clock_skew_max_s),
            "clock_skew_max_s: 1 to 86400",
        );
        for (key, rate) in [
            ("logins_burst", self.in_all()),
            ("logins_per_source_burst", self.per_source()),
        ] {
            check(
                rate.per_s == 0 || rate.burst >= 1,
                &format!("{key}: at least 1"),
            );
        }
        check(self.logins_open_max >= 1, "logins_open_max: at least 1");
        check(self.nonces_max >= 1, "nonces_max: at least 1");
        mistakes
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            grant_ttl_ms: u32::from(self.grant_ttl_s) * 1_000,
            clock_skew_max_ms: u64::from(self.clock_skew_max_s) * 1_000,
            source_exact: self.source_check == SourceCheck::Exact,
            heartbeat_s: self.heartbeat_s,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            in_all: self.in_all(),
            per_source: self.per_source(),
            sources_max: SOURCES_MAX,
            guesses_max: SOURCES_MAX,
        }
    }

    fn in_all(&self) -> Rate {
        Rate {
            per_s: self.logins_per_s,
            burst: self.logins_burst,
        }
    }

    fn per_source(&self) -> Rate {
        Rate {
            per_s: self.logins_per_source_per_s,
            burst: self.logins_per_source_burst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(Settings::default().check(), Vec::<String>::new());
    }

    #[test]
    fn all_mistakes_are_told_together() {
        let settings = Settings {
            listen: SocketAddr::from(([0, 0, 0, 0], 10_100)),
            logic_servers: vec!["logic-1".into(), "logic-2:1".into(), "logic-2:1".into()],
            node_number: 1_024,
            grant_ttl_s: 0,
            heartbeat_s: Some(1),
            clock_skew_max_s: 0,
            logins_burst: 0,
            logins_per_source_per_s: 0,
            logins_per_source_burst: 0,
            logins_open_max: 0,
            nonces_max: 0,
            ..Settings::default()
        };
        assert_eq!(
            settings.check(),
            [
                "logic_servers: \"logic-1\" is not host:port",
                "logic_servers: \"logic-2:1\" is named twice",
                "listen: 0.0.0.0:10100 may be reached by the world, and links are internal: choose a \
                 private address, or set listen_publicly",
                "node_number: 0 to 1023",
                "grant_ttl_s: 1 to 600",
                "heartbeat_s: 5 to 3600, or unset",
                "clock_skew_max_s: 1 to 86400",
                "logins_burst: at least 1",
                "logins_open_max: at least 1",
                "nonces_max: at least 1",
            ]
        );
    }
}
