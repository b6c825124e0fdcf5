//! What an operator can set on a balancer: the table `[balancer]`.

use std::net::SocketAddr;

use common::config::{Policy, is_target};
use common::pacing::Rate;
use protocols::rcu::PORT_PLAIN;
use protocols::rcu::limit;
use serde::Deserialize;

use crate::route::RouteSettings;

/// Sources whose rates are kept apart: 32 bytes each. Beyond it the limit in all still holds.
const SOURCES_MAX: usize = 65_536;

/// Every key has a default: an empty table is a whole configuration, but for `conn_servers`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where devices log in; several, where the machine has several addresses. Port 0: a free one.
    #[serde(deserialize_with = "common::config::addresses")]
    pub listen: Vec<SocketAddr>,
    /// The conn servers, host:port each, at least one.
    #[serde(deserialize_with = "common::config::one_or_many")]
    pub conn_servers: Vec<String>,
    /// Which conn server gets a login: "least-loaded", or "fill": the first that is not full.
    pub policy: Policy,
    /// Connections that are not done yet; beyond it the oldest that has not said a whole Login goes.
    pub connections_pending_max: usize,
    /// The same for one source: an IPv4 address, or the first 64 bits of an IPv6 one. A carrier
    /// shares addresses among many devices.
    pub connections_per_source_max: usize,
    /// From a connection's being accepted until its Login is complete, milliseconds.
    pub login_deadline_ms: u64,
    /// Logins that are forwarded, a second on average; the others are told when to come back. 0: no limit.
    pub logins_per_s: u32,
    /// Logins that are forwarded at once after a rest.
    pub logins_burst: u32,
    /// The same for one source; 0: no limit.
    pub logins_per_source_per_s: u32,
    pub logins_per_source_burst: u32,
    /// Logins forwarded at a time while every conn server is full, for devices that may take over
    /// the place of their own old session.
    pub logins_at_full_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], PORT_PLAIN))],
            conn_servers: Vec::new(),
            policy: Policy::LeastLoaded,
            connections_pending_max: 5_000,
            connections_per_source_max: 2_500,
            login_deadline_ms: limit::FIRST_FRAME_MS,
            logins_per_s: 20_000,
            logins_burst: 20_000,
            logins_per_source_per_s: 10_000,
            logins_per_source_burst: 10_000,
            logins_at_full_max: 64,
        }
    }
}

impl Settings {
    /// Every mistake, each beginning with its key; empty: they can be used. That `conn_servers`
    /// names any is for [`crate::Balancer::start`] to see: whoever runs all tiers fills them in.
    pub fn check(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut check = |fine: bool, mistake: &str| {
            if !fine {
                mistakes.push(mistake.to_owned());
            }
        };
        check(!self.listen.is_empty(), "listen: at least one address");
        let twice = |(index, address): (usize, &SocketAddr)| {
            address.port() != 0 && self.listen[..index].contains(address)
        };
        check(
            !self.listen.iter().enumerate().any(twice),
            "listen: an address twice",
        );
        check(
            self.connections_pending_max >= 1,
            "connections_pending_max: at least 1",
        );
        check(
            self.connections_per_source_max >= 1,
            "connections_per_source_max: at least 1",
        );
        check(
            (100..=600_000).contains(&self.login_deadline_ms),
            "login_deadline_ms: 100 to 600000",
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
        for target in self.conn_servers.iter().filter(|it| !is_target(it)) {
            check(false, &format!("conn_servers: {target:?} is not host:port"));
        }
        mistakes
    }

    pub(crate) fn route(&self) -> RouteSettings {
        RouteSettings {
            conn_servers: self.conn_servers.clone(),
            policy: self.policy,
            connections_max: self.connections_pending_max,
            connections_per_source_max: self.connections_per_source_max,
            logins_open_max: self.connections_pending_max,
            logins_at_full_max: self.logins_at_full_max,
            in_all: self.in_all(),
            per_source: self.per_source(),
            sources_max: SOURCES_MAX,
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
        let address = SocketAddr::from(([127, 0, 0, 1], 10_000));
        let settings = Settings {
            listen: vec![address, address],
            conn_servers: vec!["conn-1".into(), "conn-1:10100".into(), ":1".into()],
            connections_pending_max: 0,
            connections_per_source_max: 0,
            login_deadline_ms: 5,
            logins_burst: 0,
            logins_per_source_per_s: 0,
            logins_per_source_burst: 0,
            ..Settings::default()
        };
        assert_eq!(
            settings.check(),
            [
                "listen: an address twice",
                "connections_pending_max: at least 1",
                "connections_per_source_max: at least 1",
                "login_deadline_ms: 100 to 600000",
                "logins_burst: at least 1",
                "conn_servers: \"conn-1\" is not host:port",
                "conn_servers: \":1\" is not host:port",
            ]
        );
    }
}
