//! Pure. Figures and the one table that they end in.

use std::fmt::Write as _;

/// What LIMITS asks of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Standard {
    /// Of the limit measured in the same run, as a share of one.
    ShareOfLimit { goal: f64, refused_below: f64 },
    /// As often as the limit measured in the same run: for costs.
    TimesLimit { goal: f64 },
    /// Of the figure itself, in its unit.
    AtMost {
        goal: f64,
        refused_above: Option<f64>,
    },
    /// Told, not judged.
    Told,
}

/// What was measured beside a figure, in the same unit.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    pub(crate) name: &'static str,
    pub(crate) runs: Vec<f64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// As in LIMITS: `G1`.
    pub(crate) goal: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) runs: Vec<f64>,
    pub(crate) beside: Option<Beside>,
    pub(crate) standard: Standard,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Figure(Figure),
    Missing {
        goal: &'static str,
        what: &'static str,
        why: String,
    },
}

impl Line {
    pub(crate) fn goal(&self) -> &'static str {
        match self {
            Self::Figure(figure) => figure.goal,
            Self::Missing { goal, .. } => goal,
        }
    }
}

/// The middle value; of an even number of values the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[half],
        _ => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

const HEAD: &str = "\
| # | figure | measured | beside it, same run | ratio | goal | refused | stands | n |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

/// The table, in Markdown. Medians; smallest and largest run in brackets.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut table = HEAD.to_owned();
    for line in lines {
        match line {
            Line::Figure(figure) => table.push_str(&figure.row()),
            Line::Missing { goal, what, why } => {
                let why = why.replace('|', "/").replace('\n', " ");
                // Writing to a String does not fail.
                let _ = writeln!(
                    table,
                    "| {goal} | {what} | not measured: {why} | | | | | | |"
                );
            }
        }
    }
    table
}

impl Figure {
    fn row(&self) -> String {
        let Self {
            goal,
            what,
            unit,
            runs,
            ..
        } = self;
        let measured = summary(runs, unit);
        let beside = self.beside.as_ref().map_or(String::new(), |beside| {
            format!("{}: {}", beside.name, summary(&beside.runs, unit))
        });
        let ratio = self.ratio().map_or(String::new(), ratio_text);
        let (asked, refused) = self.standard.texts(unit);
        let stands = self.stands();
        let n = runs.len();
        format!(
            "| {goal} | {what} | {measured} | {beside} | {ratio} | {asked} | {refused} | {stands} | {n} |\n"
        )
    }

    fn ratio(&self) -> Option<f64> {
        let beside = self.beside.as_ref()?;
        let ratio = median(&self.runs) / median(&beside.runs);
        // Nothing measured, or nothing beside it: nothing to say.
        ratio.is_finite().then_some(ratio)
    }

    fn stands(&self) -> &'static str {
        let figure = median(&self.runs);
        let limit = self.beside.as_ref().map(|beside| median(&beside.runs));
        match (self.standard, self.ratio()) {
            _ if self.runs.is_empty() => "",
            (Standard::Told, _) => "",
            (Standard::ShareOfLimit { goal, .. }, Some(ratio)) if ratio >= goal => MET,
            (Standard::ShareOfLimit { refused_below, .. }, Some(ratio))
                if ratio < refused_below =>
            {
                REFUSED
            }
            (Standard::TimesLimit { goal }, Some(ratio)) if ratio <= goal => MET,
            (Standard::ShareOfLimit { .. } | Standard::TimesLimit { .. }, None) => "",
            (Standard::AtMost { goal, .. }, _) if figure <= goal => MET,
            (
                Standard::AtMost {
                    refused_above: Some(refused),
                    ..
                },
                _,
            ) if figure > refused => REFUSED,
            (Standard::AtMost { goal, .. }, _) if limit.is_some_and(|limit| limit > goal) => {
                // Nothing could meet it here: a slower machine than that of LIMITS, or a busy one.
                "the limit is above the goal"
            }
            _ => "below the goal",
        }
    }
}

const MET: &str = "met";
const REFUSED: &str = "REFUSED";

impl Standard {
    /// What is asked, and where a figure is refused.
    fn texts(self, unit: &str) -> (String, String) {
        match self {
            Self::ShareOfLimit {
                goal,
                refused_below,
            } => (
                format!("≥ {:.0} %", goal * 100.0),
                format!("< {:.0} %", refused_below * 100.0),
            ),
            Self::TimesLimit { goal } => (format!("≤ {goal:.2} ×"), String::new()),
            Self::AtMost {
                goal,
                refused_above,
            } => (
                format!("≤ {goal} {unit}"),
                refused_above.map_or(String::new(), |refused| format!("> {refused} {unit}")),
            ),
            Self::Told => Default::default(),
        }
    }
}

fn ratio_text(ratio: f64) -> String {
    if ratio < 2.0 {
        format!("{:.0} %", ratio * 100.0)
    } else {
        format!("{ratio:.1} ×")
    }
}

fn summary(runs: &[f64], unit: &str) -> String {
    let middle = number(median(runs));
    let (Some(least), Some(most)) = (
        runs.iter().copied().min_by(f64::total_cmp),
        runs.iter().copied().max_by(f64::total_cmp),
    ) else {
        return "not measured".into();
    };
    if runs.len() == 1 {
        format!("{middle} {unit}")
    } else {
        format!("{middle} {unit} ({}–{})", number(least), number(most))
    }
}

/// Three significant digits or a whole number, thousands apart.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() {
        grouped
    } else {
        format!("{grouped}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(runs: &[f64], beside: Option<&[f64]>, standard: Standard) -> Figure {
        Figure {
            goal: "G1",
            what: "full logins".into(),
            unit: "/s",
            runs: runs.to_vec(),
            beside: beside.map(|runs| Beside {
                name: "skeleton",
                runs: runs.to_vec(),
            }),
            standard,
        }
    }

    #[test]
    fn a_row_has_median_spread_ratio_and_standing() {
        let standard = Standard::ShareOfLimit {
            goal: 0.75,
            refused_below: 0.55,
        };
        let row = figure(&[15_000.0, 14_000.0, 16_500.0], Some(&[20_000.0]), standard).row();
        assert_eq!(
            row,
            "| G1 | full logins | 15,000 /s (14,000–16,500) | skeleton: 20,000 /s | 75 % | ≥ 75 % \
             | < 55 % | met | 3 |\n"
        );
    }

    #[test]
    fn a_figure_stands_by_its_ratio_or_by_itself() {
        let share = Standard::ShareOfLimit {
            goal: 0.75,
            refused_below: 0.55,
        };
        for (measured, stands) in [(75.0, "met"), (74.0, "below the goal"), (54.0, "REFUSED")] {
            assert_eq!(figure(&[measured], Some(&[100.0]), share).stands(), stands);
        }
        let most = Standard::AtMost {
            goal: 256.0,
            refused_above: Some(512.0),
        };
        for (measured, stands) in [
            (256.0, "met"),
            (300.0, "below the goal"),
            (513.0, "REFUSED"),
        ] {
            assert_eq!(figure(&[measured], None, most).stands(), stands);
        }
        for (measured, stands) in [(300.0, "the limit is above the goal"), (600.0, "REFUSED")] {
            assert_eq!(figure(&[measured], Some(&[257.0]), most).stands(), stands);
        }
        let times = Standard::TimesLimit { goal: 1.5 };
        for (measured, stands) in [(150.0, "met"), (151.0, "below the goal")] {
            assert_eq!(figure(&[measured], Some(&[100.0]), times).stands(), stands);
        }
        assert_eq!(figure(&[1.0], None, Standard::Told).stands(), "");
        assert_eq!(figure(&[], Some(&[1.0]), share).stands(), "");
    }

    #[test]
    fn numbers_read_well() {
        for (value, text) in [
            (0.2713, "0.271"),
            (5.588, "5.59"),
            (41.02, "41.0"),
            (256.4, "256"),
            (1_234_567.0, "1,234,567"),
            (-1_234.0, "-1,234"),
            (-123.0, "-123"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
