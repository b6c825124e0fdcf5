//! Pure. What `rcu demo` shows: a picture of the cluster at one moment, as text.

use std::fmt::Write;
use std::time::Duration;

/// The cluster at one moment. Rates are over the time since the picture before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) elapsed: Duration,
    /// `None`: until someone ends it.
    pub(crate) planned: Option<Duration>,
    pub(crate) balancer: Front,
    pub(crate) conn_server: Front,
    pub(crate) nodes: Vec<Node>,
    pub(crate) devices: Devices,
}

/// A tier that decides logins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Front {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) logins: u64,
    pub(crate) logins_per_s: f64,
}

/// A logic server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) sessions: u64,
    pub(crate) places_max: u64,
    pub(crate) stored: u64,
    pub(crate) stored_per_s: f64,
    pub(crate) overloaded: u64,
}

/// What the simulated devices say of themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Devices {
    pub(crate) total: u64,
    pub(crate) attached: u64,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) ack_p50: Duration,
    pub(crate) ack_p99: Duration,
}

impl Picture {
    /// Several lines, for a terminal that redraws them in place.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let planned = self
            .planned
            .map_or(String::new(), |planned| format!(" of {}", clock(planned)));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "RCU demo   {}{planned}   Ctrl-C ends it\n",
            clock(self.elapsed)
        );
        let _ = writeln!(
            text,
            "  {:<14} {:<22} {:>12} {:>10}",
            "front door", "address", "logins", "logins/s"
        );
        for front in [&self.balancer, &self.conn_server] {
            let _ = writeln!(
                text,
                "  {:<14} {:<22} {:>12} {:>10.1}",
                front.name, front.address, front.logins, front.logins_per_s
            );
        }
        let _ = writeln!(
            text,
            "\n  {:<14} {:<22} {:>12} {:>10} {:>12} {:>10}",
            "logic server", "address", "sessions", "of", "rows stored", "rows/s"
        );
        for node in &self.nodes {
            let _ = writeln!(
                text,
                "  {:<14} {:<22} {:>12} {:>10} {:>12} {:>10.1}",
                node.name,
                node.address,
                node.sessions,
                node.places_max,
                node.stored,
                node.stored_per_s
            );
        }
        let devices = &self.devices;
        let _ = writeln!(
            text,
            "\n  devices {}   attached {}   records sent {}   acknowledged {}   overloaded {}",
            devices.total,
            devices.attached,
            devices.sent,
            devices.acknowledged,
            self.nodes.iter().map(|node| node.overloaded).sum::<u64>()
        );
        let _ = writeln!(
            text,
            "  ack latency, as the devices see it: p50 {}   p99 {}",
            milliseconds(devices.ack_p50),
            milliseconds(devices.ack_p99)
        );
        text
    }

    /// One line, for a log or a pipe.
    pub(crate) fn line(&self) -> String {
        let sessions: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("{} {}", node.name, node.sessions))
            .collect();
        format!(
            "{} sessions {} | logins/s {:.1} | records sent {} acknowledged {} | rows/s {:.1} | ack p50 {} p99 {}",
            clock(self.elapsed),
            sessions.join(" "),
            self.balancer.logins_per_s,
            self.devices.sent,
            self.devices.acknowledged,
            self.nodes.iter().map(|node| node.stored_per_s).sum::<f64>(),
            milliseconds(self.devices.ack_p50),
            milliseconds(self.devices.ack_p99),
        )
    }
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Events per second between two readings of a counter.
pub(crate) fn rate(before: u64, after: u64, over: Duration) -> f64 {
    if over.is_zero() {
        return 0.0;
    }
    after.saturating_sub(before) as f64 / over.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_every_node_and_fits_a_terminal() {
        let node = |name: &str| Node {
            name: name.into(),
            address: "127.0.0.1:20000".into(),
            sessions: 100,
            ..Node::default()
        };
        let picture = Picture {
            planned: Some(Duration::from_secs(90)),
            nodes: vec![node("logic-1"), node("logic-2")],
            ..Picture::default()
        };
        let table = picture.table();
        assert!(
            table.contains("logic-1") && table.contains("logic-2") && table.contains("of 1:30")
        );
        assert!(table.lines().all(|line| line.len() <= 100), "{table}");
        assert_eq!(picture.line().lines().count(), 1);
    }

    #[test]
    fn a_rate_is_per_second() {
        assert_eq!(rate(10, 40, Duration::from_millis(500)), 60.0);
        assert_eq!(rate(10, 40, Duration::ZERO), 0.0);
    }
}
