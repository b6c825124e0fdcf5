//! Pure. What `rcu demo` shows: the cluster at one moment, tier by tier.

use std::time::Duration;

use ratatui::text::{Line, Span};

use crate::screen::frame;
use crate::screen::parts::{
    FLOW, GOOD, ODD, QUIET, Trend, bar, bar_row, clock, fault_style, milliseconds, places_style,
    row, trend_row,
};
use crate::table::{Column, Table};

/// Cells of a bar in a table.
const BAR_WIDTH: usize = 8;

/// The cluster at one moment. Rates are over the time since the picture before.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    pub(super) elapsed: Duration,
    /// `None`: until someone ends it.
    pub(super) planned: Option<Duration>,
    pub(super) balancer: Front,
    pub(super) conn_server: Front,
    pub(super) nodes: Vec<Node>,
    /// Rows per second of all nodes.
    pub(super) stored_trend: Trend,
    pub(super) devices: Devices,
}

/// A tier that decides logins.
#[derive(Clone, Debug, Default)]
pub(super) struct Front {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) logins: u64,
    pub(super) logins_per_s: f64,
    pub(super) trend: Trend,
}

/// A logic server.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) sessions: u64,
    pub(super) places_max: u64,
    pub(super) stored: u64,
    pub(super) stored_per_s: f64,
    pub(super) overloaded: u64,
    pub(super) trend: Trend,
}

/// What the simulated devices say of themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct Devices {
    pub(super) total: u64,
    pub(super) attached: u64,
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) ack_p50: Duration,
    pub(super) ack_p99: Duration,
}

impl Picture {
    pub(super) fn stored_per_s(&self) -> f64 {
        self.nodes.iter().map(|node| node.stored_per_s).sum()
    }

    fn overloaded(&self) -> u64 {
        self.nodes.iter().map(|node| node.overloaded).sum()
    }

    fn fronts(&self, width: usize) -> Vec<Line<'static>> {
        let columns = [
            Column::left("front door").shortens(),
            Column::left("address").leaves(1),
            Column::right("logins"),
            Column::right("logins/s"),
        ];
        let fronts = [&self.balancer, &self.conn_server];
        let rows = fronts.map(|front| {
            [
                front.name.clone().into(),
                Span::styled(front.address.clone(), QUIET),
                front.logins.to_string().into(),
                format!("{:.1}", front.logins_per_s).into(),
            ]
        });
        let trends = fronts.map(|front| &front.trend);
        beside(
            Table::new(columns, Some(width)).lines(&rows),
            &trends,
            width,
        )
    }

    fn logic_servers(&self, width: usize) -> Vec<Line<'static>> {
        let columns = [
            Column::left("logic server").shortens(),
            Column::left("address").leaves(2),
            Column::left("places").leaves(1),
            Column::right("sessions"),
            Column::right("of"),
            Column::right("rows stored"),
            Column::right("rows/s"),
        ];
        let rows: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let (used, max) = (node.sessions, node.places_max);
                [
                    node.name.clone().into(),
                    Span::styled(node.address.clone(), QUIET),
                    Span::styled(bar(used, max, BAR_WIDTH), places_style(used, max)),
                    used.to_string().into(),
                    max.to_string().into(),
                    node.stored.to_string().into(),
                    format!("{:.1}", node.stored_per_s).into(),
                ]
            })
            .collect();
        let trends: Vec<_> = self.nodes.iter().map(|node| &node.trend).collect();
        beside(
            Table::new(columns, Some(width)).lines(&rows),
            &trends,
            width,
        )
    }

    fn devices(&self, width: usize) -> Vec<Line<'static>> {
        let devices = &self.devices;
        let overloaded = self.overloaded();
        let attached = (devices.attached, devices.total);
        let style = if attached.0 == attached.1 { GOOD } else { ODD };
        vec![
            bar_row("devices", attached, style, "attached", width),
            row("records sent", vec![format!("{:>9}", devices.sent).into()]),
            row(
                "acknowledged",
                vec![
                    format!("{:>9}", devices.acknowledged).into(),
                    Span::styled("   after ", QUIET),
                    format!("p50 {}", milliseconds(devices.ack_p50)).into(),
                    format!("   p99 {}", milliseconds(devices.ack_p99)).into(),
                ],
            ),
            row(
                "overloaded",
                vec![Span::styled(
                    format!("{overloaded:>9}"),
                    fault_style(overloaded == 0),
                )],
            ),
            trend_row(
                "rows/s",
                Some(self.stored_per_s()),
                FLOW,
                &self.stored_trend,
                width,
            ),
        ]
    }
}

/// A table whose rows have trends; the line of titles has none.
fn beside(lines: Vec<Line<'static>>, trends: &[&Trend], width: usize) -> Vec<Line<'static>> {
    let mut lines = lines.into_iter();
    let titles = lines.next().map(|titles| titles.style(QUIET));
    let rows = lines
        .zip(trends)
        .map(|(row, trend)| trend.beside(row, width));
    titles.into_iter().chain(rows).collect()
}

impl frame::Picture for Picture {
    fn title(&self) -> String {
        let planned = self
            .planned
            .map_or(String::new(), |planned| format!(" of {}", clock(planned)));
        format!("RCU demo   {}{planned}", clock(self.elapsed))
    }

    /// The tiers of a demo are few: they fit the smallest terminal.
    fn lines(&self, width: usize, _: Option<usize>) -> Vec<Line<'static>> {
        let blank = || vec![Line::default()];
        [
            self.fronts(width),
            blank(),
            self.logic_servers(width),
            blank(),
            self.devices(width),
        ]
        .concat()
    }

    fn line(&self) -> String {
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
            self.stored_per_s(),
            milliseconds(self.devices.ack_p50),
            milliseconds(self.devices.ack_p99),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::frame::{LogLines, Picture as _, golden};

    fn trend(values: impl IntoIterator<Item = u32>) -> Trend {
        let mut trend = Trend::default();
        values
            .into_iter()
            .for_each(|value| trend.push(f64::from(value)));
        trend
    }

    fn picture() -> Picture {
        let front = |name: &str, port: u16| Front {
            name: name.into(),
            address: format!("127.0.0.1:{port}"),
            logins: 200,
            logins_per_s: 0.0,
            trend: trend([0, 120, 80, 0, 0, 0, 0, 0]),
        };
        let node = |name: &str, port: u16, stored| Node {
            name: name.into(),
            address: format!("127.0.0.1:{port}"),
            sessions: 100,
            places_max: 8_362,
            stored,
            stored_per_s: 173.4,
            overloaded: 0,
            trend: trend((0..50).map(|at| at * 7 % 40 + 100)),
        };
        Picture {
            elapsed: Duration::from_secs(24),
            planned: Some(Duration::from_secs(90)),
            balancer: front("balancer-1", 37_849),
            conn_server: front("conn-1", 39_007),
            nodes: vec![
                node("logic-1", 35_037, 3_472),
                node("logic-2", 44_233, 3_494),
            ],
            stored_trend: trend((0..50).map(|at| at * 7 % 40 + 300)),
            devices: Devices {
                total: 200,
                attached: 199,
                sent: 6_980,
                acknowledged: 6_966,
                ack_p50: Duration::from_millis(1),
                ack_p99: Duration::from_millis(21),
            },
        }
    }

    #[test]
    fn the_demo_fits_every_terminal() {
        let log = LogLines {
            all: 1,
            last: vec![
                "2026-12-01T04:00:00.000Z WARN 4007 logic-1 the database does not take batches"
                    .into(),
            ],
        };
        golden::compare("demo", &picture(), &log);
    }

    #[test]
    fn what_stays_after_the_demo_is_text() {
        let text = frame::text(&picture(), 80);
        assert!(text.starts_with("RCU demo   0:24 of 1:30\n\n"), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert_eq!(picture().line().lines().count(), 1);
    }
}
