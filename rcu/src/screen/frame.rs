//! Pure. From a picture to the cells of a terminal of some size, or to text.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use super::parts::{BAD, ODD, QUIET, TITLE};
use crate::table::chars;

/// A smaller terminal is told so.
pub(crate) const WIDTH_MIN: u16 = 60;
pub(crate) const HEIGHT_MIN: u16 = 20;

/// Cells at either side.
const MARGIN: u16 = 1;

/// Lines of the log that are shown.
pub(super) const LOG_LINES: usize = 3;

const HINT: &str = "q or Ctrl-C ends it";

/// What is shown again and again while something runs.
pub(crate) trait Picture {
    /// What this is, and of when.
    fn title(&self) -> String;
    /// All of it, of which no line is wider than `width`; where `rows` are given, in no more.
    fn lines(&self, width: usize, rows: Option<usize>) -> Vec<Line<'static>>;
    /// One line, for a log or a pipe.
    fn line(&self) -> String;
}

/// Lines of the log that came while a picture was in their place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogLines {
    pub(crate) all: u64,
    /// The oldest first, without colours.
    pub(crate) last: Vec<String>,
}

/// Draws all of `buffer`.
pub(crate) fn draw(buffer: &mut Buffer, picture: &impl Picture, log: &LogLines, coloured: bool) {
    let area = buffer.area;
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        let (width, height) = (area.width, area.height);
        let told = format!(
            "{width}x{height} is too small for this: {WIDTH_MIN}x{HEIGHT_MIN} at least. {HINT}.\n\n{}",
            picture.line()
        );
        let told = Paragraph::new(told).wrap(Wrap { trim: true });
        told.render(area, buffer);
        return;
    }
    let inner = Rect {
        x: area.x + MARGIN,
        width: area.width - 2 * MARGIN,
        ..area
    };
    let (width, log) = (usize::from(inner.width), log_lines(log));
    let mut lines = vec![title(&picture.title(), width), rule(width)];
    let rows = usize::from(area.height).saturating_sub(lines.len() + log.len());
    let mut body = picture.lines(width, Some(rows));
    body.resize(rows, Line::default());
    lines.append(&mut body);
    lines.extend(log);
    Paragraph::new(lines).render(inner, buffer);
    if !coloured {
        for cell in &mut buffer.content {
            cell.set_fg(Color::Reset);
        }
    }
}

/// The same as text, for whoever reads on when it is over.
pub(crate) fn text(picture: &impl Picture, width: usize) -> String {
    let mut text = picture.title() + "\n\n";
    for line in picture.lines(width, None) {
        text += line.to_string().trim_end();
        text.push('\n');
    }
    text
}

fn title(title: &str, width: usize) -> Line<'static> {
    let room = width.saturating_sub(chars(title) + chars(HINT));
    let title = Span::styled(title.to_owned(), TITLE);
    let hint = Span::styled(HINT, QUIET);
    vec![title, " ".repeat(room).into(), hint].into()
}

fn rule(width: usize) -> Line<'static> {
    Span::styled("─".repeat(width), QUIET).into()
}

fn log_lines(log: &LogLines) -> Vec<Line<'static>> {
    if log.last.is_empty() {
        return vec![];
    }
    let lines = log.last.iter();
    let lines = lines.skip(log.last.len().saturating_sub(LOG_LINES));
    let what = match log.all {
        1 => "log, 1 line; it follows at the end".into(),
        all => format!("log, {all} lines; they follow at the end"),
    };
    let head = Span::styled(what, QUIET).into();
    let shown = lines.map(|line| {
        let style = if line.contains(" ERROR ") { BAD } else { ODD };
        Span::styled(line.clone(), style).into()
    });
    std::iter::once(head).chain(shown).collect()
}

/// What tests compare pictures with: the files `golden/*.txt`, screens as they are shown.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod golden {
    use std::{env, fs};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    /// Sizes that every picture has a golden screen of.
    pub(crate) const SIZES: [(u16, u16); 3] = [(60, 20), (80, 24), (120, 40)];

    pub(crate) fn screen(picture: &impl Picture, log: &LogLines, size: (u16, u16)) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        let drawn = terminal.draw(|frame| draw(frame.buffer_mut(), picture, log, true));
        drawn.unwrap().buffer.clone()
    }

    pub(crate) fn rows(buffer: &Buffer) -> Vec<String> {
        let width = usize::from(buffer.area.width);
        let rows = buffer.content.chunks(width);
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect())
            .collect()
    }

    /// `RCU_GOLDEN=write` writes the file instead: look at what changed before you commit it.
    pub(crate) fn compare(name: &str, picture: &impl Picture, log: &LogLines) {
        for (width, height) in SIZES {
            let screen = screen(picture, log, (width, height));
            let text: String = rows(&screen)
                .iter()
                .map(|row| row.trim_end().to_owned() + "\n")
                .collect();
            let file = format!(
                "{}/src/screen/golden/{name}-{width}x{height}.txt",
                env!("CARGO_MANIFEST_DIR")
            );
            if env::var("RCU_GOLDEN").is_ok_and(|it| it == "write") {
                fs::write(&file, &text).unwrap();
            }
            let expected = fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(text, expected, "{file}; see RCU_GOLDEN");
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::style::Color;

    use super::golden::{rows, screen};
    use super::*;

    struct Tall;

    impl Picture for Tall {
        fn title(&self) -> String {
            "RCU test   0:01".into()
        }

        fn lines(&self, width: usize, rows: Option<usize>) -> Vec<Line<'static>> {
            let line = Span::styled("x".repeat(width), BAD);
            vec![line.into(); rows.unwrap_or(100)]
        }

        fn line(&self) -> String {
            "0:01 all is well".into()
        }
    }

    fn log() -> LogLines {
        LogLines {
            all: 7,
            last: ["a WARN 1", "b WARN 2", "c ERROR 3", "d WARN 4"]
                .map(String::from)
                .into(),
        }
    }

    #[test]
    fn the_last_lines_of_the_log_have_a_place_of_their_own() {
        let screen = screen(&Tall, &log(), (60, 20));
        let rows = rows(&screen);
        assert!(rows[0].starts_with(" RCU test   0:01 "), "{rows:?}");
        assert!(rows[0].ends_with(" q or Ctrl-C ends it "), "{rows:?}");
        assert_eq!(rows[15].trim(), "x".repeat(58));
        assert_eq!(rows[16].trim(), "log, 7 lines; they follow at the end");
        let shown: Vec<_> = rows[17..].iter().map(|row| row.trim()).collect();
        assert_eq!(shown, ["b WARN 2", "c ERROR 3", "d WARN 4"]);
        assert_eq!(screen[(1, 18)].fg, Color::Red);
    }

    #[test]
    fn a_terminal_that_is_too_small_is_told_so_and_shows_what_fits() {
        for size in [(59, 20), (60, 19), (20, 9), (3, 1), (1, 1)] {
            let screen = screen(&Tall, &log(), size);
            let all = rows(&screen).join(" ");
            let all: Vec<_> = all.split_whitespace().collect();
            let all = all.join(" ");
            let told = format!("{}x{} is too small", size.0, size.1);
            if size.0 >= 20 {
                assert!(all.contains(&told) && all.contains("60x20"), "{all}");
                assert!(all.contains("0:01 all is well"), "{all}");
            }
        }
    }

    #[test]
    fn without_colours_nothing_but_the_colours_is_missing() {
        let area = Rect::new(0, 0, 60, 20);
        let (mut with, mut without) = (Buffer::empty(area), Buffer::empty(area));
        draw(&mut with, &Tall, &log(), true);
        draw(&mut without, &Tall, &log(), false);
        assert_eq!(rows(&with), rows(&without));
        assert!(with.content.iter().any(|cell| cell.fg != Color::Reset));
        assert!(without.content.iter().all(|cell| cell.fg == Color::Reset));
        assert_eq!(with[(1, 0)].modifier, without[(1, 0)].modifier);
    }

    #[test]
    fn as_text_it_is_whole_and_tells_of_no_keys() {
        let text = text(&Tall, 80);
        assert_eq!(text.lines().count(), 102);
        assert!(!text.contains(HINT), "{text}");
    }
}
