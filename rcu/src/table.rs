//! Pure. Tables that fit: where there is no room, columns are left out that matter less, then texts are shortened.

use clap::Args;
use ratatui::text::{Line, Span};

/// Between two columns.
const GAP: usize = 2;

/// A text is shortened to no less.
const SHORT: usize = 8;

/// How wide lists may be.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Wide {
    /// All columns and whole texts, also where the terminal is narrower; what is no terminal gets them anyway.
    #[arg(long)]
    wide: bool,
}

impl Wide {
    /// What a table has to fit, where `terminal` has so many columns; `None`: it is none.
    pub(crate) fn width(self, terminal: Option<usize>) -> Option<usize> {
        terminal.filter(|_| !self.wide)
    }
}

/// What is said of a column once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    side: Side,
    /// The highest is left out first; 0: it stays.
    leaves: u8,
    /// Its texts may be shortened: names and addresses, never figures.
    shortens: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Column {
    pub(crate) const fn left(title: &'static str) -> Self {
        Self {
            title,
            side: Side::Left,
            leaves: 0,
            shortens: false,
        }
    }

    /// Of figures.
    pub(crate) const fn right(title: &'static str) -> Self {
        Self {
            side: Side::Right,
            ..Self::left(title)
        }
    }

    pub(crate) const fn leaves(self, leaves: u8) -> Self {
        Self { leaves, ..self }
    }

    pub(crate) const fn shortens(self) -> Self {
        Self {
            shortens: true,
            ..self
        }
    }
}

/// A table that grows by pages: its columns become wider, never narrower.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [Column; N],
    /// The longest text of each column, and its title.
    longest: [usize; N],
    /// `None`: as wide as it has to be.
    width: Option<usize>,
    is_headed: bool,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(columns: [Column; N], width: Option<usize>) -> Self {
        Self {
            columns,
            longest: columns.map(|column| chars(column.title)),
            width,
            is_headed: false,
        }
    }

    /// The next rows as text, below the titles where they are the first.
    pub(crate) fn page(&mut self, rows: &[[String; N]]) -> String {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| row.each_ref().map(|text| Span::raw(text.as_str())))
            .collect();
        let lines = self.lines(&rows);
        let skipped = usize::from(std::mem::replace(&mut self.is_headed, true));
        let lines = lines.iter().skip(skipped);
        lines
            .map(|line| line.to_string().trim_end().to_owned() + "\n")
            .collect()
    }

    /// Titles and rows, all of the same width, as a terminal shows them.
    pub(crate) fn lines<'a>(&mut self, rows: &[[Span<'a>; N]]) -> Vec<Line<'a>> {
        for row in rows {
            for (longest, cell) in self.longest.iter_mut().zip(row) {
                *longest = (*longest).max(chars(&cell.content));
            }
        }
        let widths = self.widths();
        let titles = self.columns.map(|column| Span::raw(column.title));
        let head = self.line(&widths, titles);
        let rows = rows.iter().map(|row| self.line(&widths, row.clone()));
        std::iter::once(head).chain(rows).collect()
    }

    fn line<'a>(&self, widths: &[Option<usize>; N], cells: [Span<'a>; N]) -> Line<'a> {
        let mut spans = vec![];
        for ((cell, column), width) in cells.into_iter().zip(&self.columns).zip(widths) {
            let Some(width) = *width else { continue };
            if !spans.is_empty() {
                spans.push(Span::raw(" ".repeat(GAP)));
            }
            let style = cell.style;
            let text = shortened(&cell.content, width);
            let text = match column.side {
                Side::Left => format!("{text:<width$}"),
                Side::Right => format!("{text:>width$}"),
            };
            spans.push(Span::styled(text, style));
        }
        spans.into()
    }

    /// Of each column; `None`: it is left out.
    fn widths(&self) -> [Option<usize>; N] {
        let mut widths = self.longest.map(Some);
        let Some(room) = self.width else {
            return widths;
        };
        while total(&widths) > room {
            let kept = (0..N).filter(|&at| widths[at].is_some());
            let leaving = kept.filter(|&at| self.columns[at].leaves > 0);
            match leaving.max_by_key(|&at| self.columns[at].leaves) {
                Some(at) => widths[at] = None,
                None => break,
            }
        }
        while total(&widths) > room {
            let long = widths.iter_mut().zip(&self.columns);
            let long =
                long.filter_map(|(width, column)| width.as_mut().filter(|_| column.shortens));
            match long.max() {
                Some(width) if *width > SHORT => *width -= 1,
                _ => break,
            }
        }
        widths
    }
}

fn total(widths: &[Option<usize>]) -> usize {
    let kept = widths.iter().flatten();
    kept.clone().sum::<usize>() + GAP * kept.count().saturating_sub(1)
}

/// Names, addresses and figures are of characters that are one cell wide each.
pub(crate) fn chars(text: &str) -> usize {
    text.chars().count()
}

/// In the midst: names of a fleet differ at their ends, addresses by their ports.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    let length = chars(text);
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let (head, tail) = (kept / 2, kept - kept / 2);
    let mut short: String = text.chars().take(head).collect();
    short.push('…');
    short.extend(text.chars().skip(length - tail));
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::left("account").shortens(),
        Column::right("id").leaves(1),
        Column::left("node").shortens(),
        Column::left("epoch").leaves(2),
    ];

    fn rows(account: &str) -> [[String; 4]; 2] {
        [
            [account, "1", "logic-1", "3821947190272000001"].map(String::from),
            ["truck-000002", "20", "logic-2", "3821947190272000002"].map(String::from),
        ]
    }

    fn text(width: Option<usize>, account: &str) -> String {
        Table::new(COLUMNS, width).page(&rows(account))
    }

    #[test]
    fn a_table_is_as_wide_as_it_has_to_be() {
        let expected = "\
account       id  node     epoch
truck-000001   1  logic-1  3821947190272000001
truck-000002  20  logic-2  3821947190272000002
";
        assert_eq!(text(None, "truck-000001"), expected);
        assert_eq!(text(Some(80), "truck-000001"), expected);
    }

    #[test]
    fn where_there_is_no_room_columns_leave_and_then_texts_are_shortened() {
        let long = "a-fleet-of-a-long-name-00000000001";
        let expected = "\
account                             id  node
a-fleet-of-a-long-name-00000000001   1  logic-1
truck-000002                        20  logic-2
";
        assert_eq!(text(Some(60), long), expected);
        let longer = "a-fleet-of-which-the-name-goes-on-and-on-and-on-00000000001";
        let expected = "\
account                                              node
a-fleet-of-which-the-name…and-on-and-on-00000000001  logic-1
truck-000002                                         logic-2
";
        assert_eq!(text(Some(60), longer), expected);
        assert!(text(None, longer).contains(longer));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [60, 61, 79, 80, 200] {
            for length in 1..=200 {
                let text = text(Some(width), &"x".repeat(length));
                assert!(text.lines().all(|line| chars(line) <= width), "{text}");
            }
        }
    }

    #[test]
    fn later_pages_have_no_titles_and_the_widths_of_the_earlier_ones() {
        let mut table = Table::new(COLUMNS, None);
        let first = table.page(&rows("a-long-name-of-a-truck"));
        let second = table.page(&rows("b"));
        assert!(first.starts_with("account"), "{first}");
        assert!(
            second.starts_with("b                        1  logic-1"),
            "{second}"
        );
        assert_eq!(table.page(&[]), "");
    }
}
