//! The terminal while a picture has it: its other screen, which keeps nothing of what was shown, and its keys.

use std::future::poll_fn;
use std::io::{self, Stdout};
use std::panic;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::process::output;
use crossterm::cursor;
use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use futures_core::Stream;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;

use super::held::Stderr;

/// What whoever looks at the picture did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// It is to end.
    End,
    /// The terminal has another size.
    Resized,
}

/// The other screen, until this is dropped, or the process panics.
pub(super) struct Live {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    /// `None`: they cannot be read any more; signals end it still.
    keys: Option<EventStream>,
    taken: Taken,
}

impl Live {
    /// # Errors
    /// There is no terminal that does as it is told.
    pub(super) fn open(stderr: Stderr) -> io::Result<Self> {
        let taken = Taken::take(stderr)?;
        taken.give_back_on_panic();
        // What is drawn has judged of colours already, NO_COLOR among the reasons.
        crossterm::style::force_color_output(true);
        let terminal = Terminal::new(CrosstermBackend::new(output::screen()));
        Ok(Self {
            terminal: terminal.inspect_err(|_| taken.give_back())?,
            keys: Some(EventStream::new()),
            taken,
        })
    }

    pub(super) fn draw(&mut self, picture: impl FnOnce(&mut Buffer)) -> io::Result<()> {
        self.terminal.draw(|frame| picture(frame.buffer_mut()))?;
        Ok(())
    }

    /// The next that is of interest.
    pub(super) async fn input(&mut self) -> Input {
        loop {
            let Some(keys) = &mut self.keys else {
                return std::future::pending().await;
            };
            match poll_fn(|context| Pin::new(&mut *keys).poll_next(context)).await {
                Some(Ok(event)) => match meaning(&event) {
                    Some(input) => return input,
                    None => continue,
                },
                Some(Err(_)) | None => self.keys = None,
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Its thread reads no more before the terminal is somebody else's.
        self.keys = None;
        self.taken.give_back();
    }
}

/// In raw mode Ctrl-C is a key like others, and no signal.
fn meaning(event: &Event) -> Option<Input> {
    match event {
        Event::Resize(..) => Some(Input::Resized),
        Event::Key(key) if key.kind != KeyEventKind::Release => {
            let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
            match (key.code, is_control) {
                (KeyCode::Char('q' | 'Q') | KeyCode::Esc, false) => Some(Input::End),
                (KeyCode::Char('c'), true) => Some(Input::End),
                _ => None,
            }
        }
        _ => None,
    }
}

/// That the terminal is ours; given back once, by whoever comes first.
#[derive(Clone, Debug)]
struct Taken {
    is_taken: Arc<AtomicBool>,
    stderr: Stderr,
}

impl Taken {
    fn take(stderr: Stderr) -> io::Result<Self> {
        enable_raw_mode()?;
        let taken = Self {
            is_taken: Arc::new(AtomicBool::new(true)),
            stderr,
        };
        taken.stderr.hold();
        let entered = execute!(output::screen(), EnterAlternateScreen, cursor::Hide);
        entered.inspect_err(|_| taken.give_back())?;
        Ok(taken)
    }

    /// Where it fails, there is no terminal left to care for.
    fn give_back(&self) {
        if self.is_taken.swap(false, Ordering::SeqCst) {
            let _ = execute!(output::screen(), LeaveAlternateScreen, cursor::Show);
            let _ = disable_raw_mode();
            self.stderr.release();
        }
    }

    /// Before anything is told: what is written to the other screen goes with it, and the process aborts
    /// without dropping anything.
    fn give_back_on_panic(&self) {
        let (taken, tell) = (self.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            taken.give_back();
            tell(info);
        }));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::env;
    use std::process::Command;

    use crossterm::event::KeyEvent;

    use super::*;

    /// Set in the process that a test starts of its own program.
    const CHILD: &str = "RCU_TEST_PANICS";

    /// Not a test of its own: what [`a_panic_is_told_on_the_terminal_that_was_before`] starts.
    #[test]
    fn a_picture_that_panics() {
        if env::var_os(CHILD).is_some() {
            // Not dropped, as in a process that aborts.
            std::mem::forget(Live::open(Stderr::default()).unwrap());
            panic!("lost the picture");
        }
    }

    #[test]
    fn a_panic_is_told_on_the_terminal_that_was_before() {
        let name = "screen::terminal::tests::a_picture_that_panics";
        let program = env::current_exe().unwrap();
        let shell = format!(
            "\"{}\" --exact --nocapture {name}; stty -a",
            program.display()
        );
        let shown = Command::new("script")
            .args(["--quiet", "--command", &shell, "/dev/null"])
            .env(CHILD, "1")
            .env("TERM", "xterm")
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout);
        let (_, after) = shown.split_once("\x1b[?1049l").expect(&shown);
        assert!(after.contains("lost the picture"), "{shown}");
        assert!(after.split_whitespace().any(|it| it == "icanon"), "{shown}");
    }

    #[test]
    fn q_and_ctrl_c_end_it_and_other_keys_do_nothing() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        let none = KeyModifiers::NONE;
        for (event, expected) in [
            (key(KeyCode::Char('q'), none), Some(Input::End)),
            (
                key(KeyCode::Char('Q'), KeyModifiers::SHIFT),
                Some(Input::End),
            ),
            (key(KeyCode::Esc, none), Some(Input::End)),
            (
                key(KeyCode::Char('c'), KeyModifiers::CONTROL),
                Some(Input::End),
            ),
            (Event::Resize(80, 24), Some(Input::Resized)),
            (key(KeyCode::Char('c'), none), None),
            (key(KeyCode::Char('q'), KeyModifiers::CONTROL), None),
            (key(KeyCode::Enter, none), None),
            (Event::FocusLost, None),
        ] {
            assert_eq!(meaning(&event), expected, "{event:?}");
        }
    }
}
