//! Pure. What `rcu simulate` shows: the devices at one moment, as they see the cluster.

use std::time::Duration;

use ratatui::text::Line;
use simulator::driver::Stats;

use crate::screen::frame;
use crate::screen::parts::{
    BAD, FLOW, GOOD, ODD, Trend, bar_row, clock, fault_style, row, trend_row,
};

pub(super) struct Picture {
    pub(super) planned: Option<Duration>,
    pub(super) stats: Stats,
    pub(super) acknowledged_per_s: f64,
    /// Of the same.
    pub(super) trend: Trend,
}

impl frame::Picture for Picture {
    fn title(&self) -> String {
        let planned = self
            .planned
            .map_or(String::new(), |planned| format!(" of {}", clock(planned)));
        format!("RCU simulate   {}{planned}", clock(self.stats.elapsed))
    }

    fn lines(&self, width: usize, _: Option<usize>) -> Vec<Line<'static>> {
        let stats = &self.stats;
        let attached = (stats.attached.into(), stats.devices.into());
        let style = if attached.0 == attached.1 { GOOD } else { ODD };
        let figure = |name, value: u64, style| {
            row(
                name,
                vec![ratatui::text::Span::styled(format!("{value:>9}"), style)],
            )
        };
        let plain = fault_style(true);
        let times = |p50_ms: u64, p99_ms: u64| format!("      p50 {p50_ms} ms   p99 {p99_ms} ms");
        let faults: u64 = stats.login_faults.values().sum();
        let attach_faults: u64 = stats.attach_faults.values().sum();
        let ends: u64 = stats.ends.values().sum();
        let faulty = |count: u64| if count == 0 { plain } else { BAD };
        vec![
            bar_row("devices", attached, style, "attached", width),
            figure("connecting", stats.connecting.into(), plain),
            Line::default(),
            figure("records sent", stats.records_sent, plain),
            figure("acknowledged", stats.records_acknowledged, plain),
            figure("open", stats.unacknowledged, plain),
            figure(
                "overloaded",
                stats.frames_overloaded,
                fault_style(stats.frames_overloaded == 0),
            ),
            trend_row(
                "records/s",
                Some(self.acknowledged_per_s),
                FLOW,
                &self.trend,
                width,
            ),
            Line::default(),
            row(
                "login",
                vec![times(stats.login_ms.p50_ms, stats.login_ms.p99_ms).into()],
            ),
            row(
                "answer",
                vec![times(stats.ack_ms.p50_ms, stats.ack_ms.p99_ms).into()],
            ),
            figure("no login", faults, faulty(faults)),
            figure("no attach", attach_faults, faulty(attach_faults)),
            figure("sessions lost", ends, fault_style(ends == 0)),
        ]
    }

    fn line(&self) -> String {
        let stats = &self.stats;
        format!(
            "{:>4} s  attached {} of {}  connecting {}  records sent {} acknowledged {}  ack p50 {} ms p99 {} ms",
            stats.elapsed.as_secs(),
            stats.attached,
            stats.devices,
            stats.connecting,
            stats.records_sent,
            stats.records_acknowledged,
            stats.ack_ms.p50_ms,
            stats.ack_ms.p99_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::frame::{LogLines, golden};

    #[test]
    fn simulated_devices_fit_every_terminal() {
        let mut trend = Trend::default();
        (0..40).for_each(|at| trend.push(f64::from(at * 7 % 40 + 100)));
        let picture = Picture {
            planned: Some(Duration::from_secs(60)),
            stats: Stats {
                elapsed: Duration::from_secs(7),
                devices: 1_000,
                attached: 988,
                connecting: 12,
                unacknowledged: 31,
                records_sent: 12_345,
                records_acknowledged: 12_314,
                ..Stats::default()
            },
            acknowledged_per_s: 172.0,
            trend,
        };
        golden::compare("simulate", &picture, &LogLines::default());
    }
}
