//! Pure. What pictures are made of: bars, trends, rows of names and values.

use std::collections::VecDeque;
use std::time::Duration;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::table::chars;

/// Looks that a trend remembers; no terminal is wider.
const LOOKS_MAX: usize = 512;

/// Less tells nothing of a trend.
const TREND_WIDTH_MIN: usize = 8;

/// Of the names in front of values.
const NAME_WIDTH: usize = 14;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(crate) const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
pub(crate) const QUIET: Style = Style::new().add_modifier(Modifier::DIM);
pub(crate) const GOOD: Style = Style::new().fg(Color::Green);
pub(crate) const ODD: Style = Style::new().fg(Color::Yellow);
pub(crate) const BAD: Style = Style::new().fg(Color::Red);
pub(crate) const FLOW: Style = Style::new().fg(Color::Cyan);

/// What was seen at the last looks, the newest last.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trend(VecDeque<f64>);

impl Trend {
    pub(crate) fn push(&mut self, value: f64) {
        if self.0.len() == LOOKS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The newest looks that there is room for, against the highest of them; those that were not yet are blank.
    pub(crate) fn bars(&self, width: usize) -> Span<'static> {
        let seen = self.0.iter().skip(self.0.len().saturating_sub(width));
        let highest = seen.clone().copied().fold(0.0, f64::max);
        let bar = |&value: &f64| match highest > 0.0 {
            true => BARS[((value / highest * 7.0).round() as usize).min(7)],
            false => BARS[0],
        };
        let text: String = seen.map(bar).collect();
        Span::styled(format!("{text:>width$}"), FLOW)
    }

    /// Behind a row of a table, where there is room beside it.
    pub(crate) fn beside(&self, mut row: Line<'static>, width: usize) -> Line<'static> {
        let left = width.saturating_sub(row.width() + 2);
        if left >= TREND_WIDTH_MIN {
            row.push_span("  ");
            row.push_span(self.bars(left));
        }
        row
    }
}

/// How much of `max` is used, in eighths of a cell: nothing but nothing is shown as nothing.
pub(crate) fn bar(used: u64, max: u64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let cells = width as u64 * 8;
    let share = u128::from(used.min(max)) * u128::from(cells) / u128::from(max.max(1));
    let filled = usize::try_from(share)
        .unwrap_or(0)
        .max(usize::from(used > 0 && max > 0));
    let mut bar = "█".repeat(filled / 8) + EIGHTHS[filled % 8];
    bar.extend(std::iter::repeat_n('░', width - chars(&bar)));
    bar
}

/// A place that is used is well; the last ones are a reason to add a node.
pub(crate) fn places_style(used: u64, max: u64) -> Style {
    match used.saturating_mul(100) {
        percent if percent >= max.saturating_mul(95) => BAD,
        percent if percent >= max.saturating_mul(80) => ODD,
        _ => GOOD,
    }
}

/// A figure that should be 0.
pub(crate) fn fault_style(is_zero: bool) -> Style {
    if is_zero { Style::new() } else { ODD }
}

/// `name          value`.
pub(crate) fn row(name: &'static str, value: Vec<Span<'static>>) -> Line<'static> {
    let name = Span::styled(format!("{name:<NAME_WIDTH$}"), QUIET);
    let mut spans = vec![name];
    spans.extend(value);
    spans.into()
}

/// A figure, where it is known, and the trend of it in what is left of the line.
pub(crate) fn trend_row(
    name: &'static str,
    now: Option<f64>,
    style: Style,
    trend: &Trend,
    width: usize,
) -> Line<'static> {
    let now = now.map_or("-".into(), |now| format!("{now:.1}"));
    trend.beside(
        row(name, vec![Span::styled(format!("{now:>9}"), style)]),
        width,
    )
}

/// A bar as wide as there is room before the text that says the same.
pub(crate) fn bar_row(
    name: &'static str,
    (used, max): (u64, u64),
    style: Style,
    what: &str,
    width: usize,
) -> Line<'static> {
    let text = format!("  {used} of {max} {what}");
    let room = width.saturating_sub(NAME_WIDTH + chars(&text));
    let bar = Span::styled(bar(used, max, room), style);
    row(name, vec![bar, text.into()])
}

/// Minutes and seconds.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

pub(crate) fn milliseconds(time: Duration) -> String {
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
    fn a_trend_shows_the_newest_against_the_highest_of_them() {
        let mut trend = Trend::default();
        assert_eq!(trend.bars(3).content, "   ");
        trend.push(0.0);
        assert_eq!(trend.bars(3).content, "  ▁");
        for value in [70.0, 10.0, 0.0, 5.0] {
            trend.push(value);
        }
        assert_eq!(trend.bars(6).content, " ▁█▂▁▂");
        assert_eq!(trend.bars(3).content, "█▁▅", "70 is out of sight");
        for _ in 0..2 * LOOKS_MAX {
            trend.push(1.0);
        }
        assert_eq!(trend.0.len(), LOOKS_MAX);
    }

    #[test]
    fn a_bar_is_full_only_where_all_is_used_and_empty_where_nothing_is() {
        for (used, max, expected) in [
            (0, 10, "░░░░"),
            (1, 10_000, "▏░░░"),
            (5, 10, "██░░"),
            (9_999, 10_000, "███▉"),
            (10, 10, "████"),
            (11, 10, "████"),
            (0, 0, "░░░░"),
            (u64::MAX, u64::MAX, "████"),
        ] {
            assert_eq!(bar(used, max, 4), expected, "{used} of {max}");
        }
    }

    #[test]
    fn a_rate_is_per_second() {
        assert_eq!(rate(10, 40, Duration::from_millis(500)), 60.0);
        assert_eq!(rate(10, 40, Duration::ZERO), 0.0);
    }

    #[test]
    fn a_row_is_as_wide_as_there_is_room() {
        assert_eq!(bar_row("devices", (1, 2), GOOD, "attached", 60).width(), 60);
        let row = trend_row("rows/s", Some(1.0), FLOW, &Trend::default(), 60);
        assert_eq!(row.width(), 60);
    }
}
