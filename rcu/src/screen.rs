//! Where a run is shown: as a picture on a terminal, line by line elsewhere.

pub(crate) mod frame;
mod held;
pub(crate) mod parts;
mod terminal;

use std::env;
use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, ValueEnum};
use common::logging;
use common::process::output::{self, OutputError};
use common::process::signals::Stop;
use rcu::columns;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use self::frame::Picture;
pub(crate) use self::held::Stderr;
use self::terminal::{Input, Live};

/// How often a terminal gets a new picture.
const REDRAW: Duration = Duration::from_millis(500);
/// How often a line is printed where there is no terminal.
const LINE: Duration = Duration::from_secs(1);

/// Of text that is not shown on a terminal.
const TEXT_WIDTH: usize = 80;

/// Whether pictures have colours.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Colours {
    /// Whether the picture has colours; auto: unless NO_COLOR is set.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    color: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

impl Colours {
    fn are_welcome(self) -> bool {
        match self.color {
            When::Auto => logging::may_colour(),
            When::Always => true,
            When::Never => false,
        }
    }
}

/// Whether a picture can be in one place: not where standard output goes to a file, nor where the terminal
/// is one that only types.
fn can_draw() -> bool {
    let term = env::var("TERM").unwrap_or_default();
    output::screen().is_terminal() && !["", "dumb"].contains(&&*term)
}

/// A run that is shown, until it is closed.
pub(crate) struct Screen<P> {
    /// `None`: lines are printed.
    live: Option<Live>,
    colours: Colours,
    stderr: Stderr,
    last: Option<P>,
}

impl<P: Picture> Screen<P> {
    /// `stderr`: what takes the lines of the log.
    pub(crate) fn open(colours: Colours, stderr: &Stderr) -> Self {
        let live = can_draw().then(|| Live::open(stderr.clone()));
        Self {
            // Where a terminal refuses, lines do.
            live: live.and_then(Result::ok),
            colours,
            stderr: stderr.clone(),
            last: None,
        }
    }

    /// Whether it is a picture, and not lines.
    pub(crate) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Shows what `draw` makes, again and again, until someone ends it or `run_for` has passed.
    pub(crate) async fn run(
        &mut self,
        stop: &mut Stop,
        run_for: Option<Duration>,
        mut draw: impl FnMut() -> P,
    ) -> Result<(), OutputError> {
        let mut tick = interval(if self.is_live() { REDRAW } else { LINE });
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = run_for.map(|run_for| Instant::now() + run_for);
        loop {
            tokio::select! {
                ended = self.ended(stop) => return ended,
                () = wait_until(end) => return Ok(()),
                _ = tick.tick() => self.show(draw())?,
            }
        }
    }

    /// Shows a picture in the place of the one before, or its line below the line of that.
    pub(crate) fn show(&mut self, picture: P) -> Result<(), OutputError> {
        if !self.is_live() {
            return output::print(&(picture.line() + "\n"));
        }
        self.last = Some(picture);
        self.redraw()
    }

    /// Returns when someone ends it. Meanwhile the picture follows the size of the terminal.
    pub(crate) async fn ended(&mut self, stop: &mut Stop) -> Result<(), OutputError> {
        loop {
            let input = async {
                match &mut self.live {
                    Some(live) => live.input().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.wait() => return Ok(()),
                input = input => match input {
                    Input::End => return Ok(()),
                    Input::Resized => self.redraw()?,
                }
            }
        }
    }

    fn redraw(&mut self) -> Result<(), OutputError> {
        let (Some(live), Some(picture)) = (&mut self.live, &self.last) else {
            return Ok(());
        };
        let log = self.stderr.lines(frame::LOG_LINES);
        let coloured = self.colours.are_welcome();
        Ok(live.draw(|buffer| frame::draw(buffer, picture, &log, coloured))?)
    }

    /// Gives the terminal back; the last picture stays on it as text.
    pub(crate) fn close(self) -> Result<(), OutputError> {
        let Some(live) = self.live else { return Ok(()) };
        drop(live);
        match self.last {
            Some(picture) => print(&picture),
            None => Ok(()),
        }
    }
}

/// Prints a picture once, as text.
pub(crate) fn print(picture: &impl Picture) -> Result<(), OutputError> {
    let width = columns::of_stdout().unwrap_or(TEXT_WIDTH);
    output::print(&frame::text(picture, width))
}

/// Until someone ends it or `run_for` has passed, with nothing to be seen.
pub(crate) async fn wait(stop: &mut Stop, run_for: Option<Duration>) {
    let end = run_for.map(|run_for| Instant::now() + run_for);
    tokio::select! {
        () = stop.wait() => {}
        () = wait_until(end) => {}
    }
}

async fn wait_until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
