//! `rcu top`: a running cluster, live.

mod picture;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use common::process::clock::unix_ms;
use common::process::output::{self, OutputError};
use common::process::signals::Stop;

use self::picture::{Look, Picture};
use crate::operator::{Failure, Operator, Target, json_line};
use crate::screen::Screen;

use crate::time;

/// Figures of half a second ago are told as those of now.
const EVERY_MIN: Duration = Duration::from_millis(500);

/// Shows a running cluster, live: nodes, sessions, logins, refusals and records per second.
///
/// A conn server is asked, over and over: it tells of itself, its logic servers and the balancers
/// linked to it. Rates are between two looks. On a terminal the table is redrawn in place; elsewhere
/// there is a line for each look.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu top                             of `rcu up` on ./rcu-data
  rcu top --cluster 10.0.0.5:10100 --every 5s
  rcu top --once --json               one object, with rates over a second
  rcu top --json | jq .records_per_s  one object for each look

Exit codes: 0 done, 1 failed, or the link to the conn server broke, 2 wrong usage.")]
pub(crate) struct Top {
    #[command(flatten)]
    target: Target,
    /// Time between two looks, for example 5s; half a second at least.
    #[arg(long, value_name = "D", default_value = "1s", value_parser = every)]
    every: Duration,
    /// Shows one picture, and ends.
    #[arg(long)]
    once: bool,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match every {
        every if every < EVERY_MIN => Err("500ms at least".into()),
        every => Ok(every),
    }
}

impl Top {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        self.target
            .run(async |operator| self.watch(operator).await)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn watch(&self, operator: &mut Operator) -> Result<(), Failure> {
        let mut stop = Stop::listen()?;
        let mut screen = Screen::new();
        let begun = Instant::now();
        let mut before = look(operator, begun).await?;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                () = stop.wait() => return Ok(()),
            }
            let now = look(operator, begun).await?;
            self.show(&Picture::new(&before, &now), &mut screen)?;
            if self.once {
                return Ok(());
            }
            before = now;
        }
    }

    fn show(&self, picture: &Picture, screen: &mut Screen) -> Result<(), Failure> {
        if self.target.json {
            return Ok(json_line(picture)?);
        }
        if self.once {
            return Ok(output::print(&picture.table())?);
        }
        let text = match screen.is_terminal() {
            true => picture.table(),
            false => format!("{} {}", time::date(picture.at_ms), picture.line()),
        };
        Ok(screen.show(&text).map_err(OutputError::from)?)
    }
}

async fn look(operator: &mut Operator, begun: Instant) -> Result<Look, Failure> {
    Ok(Look {
        nodes: operator.nodes().await?,
        at: begun.elapsed(),
        unix_ms: unix_ms(),
    })
}
