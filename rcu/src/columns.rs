//! How wide the terminal is that people read on.

use console::Term;

/// Whoever has a narrower terminal reads lines that wrap.
pub const COLUMNS_MIN: usize = 60;

/// Of the terminal that standard output is; `None`: it is none, and nothing is fitted to it.
pub fn of_stdout() -> Option<usize> {
    let stdout = Term::stdout();
    let size = stdout.is_term().then(|| stdout.size_checked()).flatten();
    size.map(|(_, columns)| usize::from(columns).max(COLUMNS_MIN))
}
