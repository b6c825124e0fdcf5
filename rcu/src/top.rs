//! `rcu top`: a running cluster, live.

mod picture;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use common::process::clock::unix_ms;
use common::process::signals::Stop;

use self::picture::{Look, Picture, Shown, Trends};
use crate::operator::{Failure, Operator, Target, json_line};
use crate::screen::{self, Colours, Screen, Stderr};

/// Figures of half a second ago are told as those of now.
const EVERY_MIN: Duration = Duration::from_millis(500);

/// Shows a running cluster, live: nodes, sessions, logins, refusals and records per second.
///
/// A conn server is asked, over and over: it tells of itself, its logic servers and the balancers
/// linked to it. Rates are between two looks. On a terminal they are a picture, until q or Ctrl-C; elsewhere
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
    #[command(flatten)]
    colours: Colours,
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
        let begun = Instant::now();
        if self.once {
            let before = look(operator, begun).await?;
            tokio::time::sleep(self.every).await;
            let picture = Picture::new(&before, &look(operator, begun).await?);
            return match self.target.json {
                true => Ok(json_line(&picture)?),
                false => Ok(screen::print(&Shown::of(picture))?),
            };
        }
        let mut stop = Stop::listen()?;
        if self.target.json {
            return tokio::select! {
                broken = self.print(operator, begun) => broken,
                () = stop.wait() => Ok(()),
            };
        }
        // Of a cluster that does not answer there is nothing to be seen.
        let first = tokio::select! {
            first = look(operator, begun) => first?,
            () = stop.wait() => return Ok(()),
        };
        let mut screen = Screen::open(self.colours, &Stderr::default());
        let show = self.show(operator, (begun, first), &mut stop, &mut screen);
        let done = show.await;
        screen.close()?;
        done
    }

    /// An object for each look; ends only where it fails.
    async fn print(&self, operator: &mut Operator, begun: Instant) -> Result<(), Failure> {
        let mut before = look(operator, begun).await?;
        loop {
            tokio::time::sleep(self.every).await;
            let now = look(operator, begun).await?;
            json_line(&Picture::new(&before, &now))?;
            before = now;
        }
    }

    /// A picture for each look.
    async fn show(
        &self,
        operator: &mut Operator,
        (begun, first): (Instant, Look),
        stop: &mut Stop,
        screen: &mut Screen<Shown>,
    ) -> Result<(), Failure> {
        let mut trends = Trends::default();
        let mut before = first;
        if screen.is_live() {
            // At once: what there is, without rates.
            let nothing = Look {
                nodes: vec![],
                ..before.clone()
            };
            screen.show(Shown::of(Picture::new(&nothing, &before)))?;
        }
        loop {
            let next = async {
                tokio::time::sleep(self.every).await;
                look(operator, begun).await
            };
            let now = tokio::select! {
                now = next => now?,
                ended = screen.ended(stop) => return Ok(ended?),
            };
            let picture = Picture::new(&before, &now);
            trends.apply(&picture);
            screen.show(Shown {
                picture,
                trends: trends.clone(),
            })?;
            before = now;
        }
    }
}

async fn look(operator: &mut Operator, begun: Instant) -> Result<Look, Failure> {
    Ok(Look {
        nodes: operator.nodes().await?,
        at: begun.elapsed(),
        unix_ms: unix_ms(),
    })
}
