//! Where a run is shown: redrawn in place on a terminal, line by line elsewhere.

use std::io;
use std::time::Duration;

use common::process::signals::Stop;
use console::Term;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// How often a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(500);
/// How often a line is printed where there is no terminal.
const LINE: Duration = Duration::from_secs(1);

pub(crate) struct Screen {
    term: Term,
    /// Lines of the last picture.
    drawn: usize,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            term: Term::stdout(),
            drawn: 0,
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.term.is_term()
    }

    /// Shows a picture in the place of the one before; each line is one line of the terminal.
    pub(crate) fn show(&mut self, picture: &str) -> io::Result<()> {
        if self.is_terminal() {
            self.term.clear_last_lines(self.drawn)?;
            self.drawn = picture.lines().count();
        }
        self.term.write_str(picture)?;
        self.term.flush()
    }

    /// Shows what `draw` paints, again and again, until someone ends it or `run_for` has passed.
    /// `draw` is given whether it paints for a terminal.
    pub(crate) async fn run(
        &mut self,
        stop: &mut Stop,
        run_for: Option<Duration>,
        mut draw: impl FnMut(bool) -> String,
    ) -> io::Result<()> {
        let is_terminal = self.is_terminal();
        let mut tick = interval(if is_terminal { REDRAW } else { LINE });
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = run_for.map(|run_for| Instant::now() + run_for);
        loop {
            tokio::select! {
                () = stop.wait() => return Ok(()),
                () = wait_until(end) => return Ok(()),
                _ = tick.tick() => self.show(&draw(is_terminal))?,
            }
        }
    }
}

async fn wait_until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
