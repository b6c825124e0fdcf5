//! G3, G4 on the whole logic server: acknowledged frames per core, beside a bare loop under the
//! same load.
//!
//! Only its threads for sessions count, with all that a frame costs them: socket, decoding, batch,
//! acknowledgement. The store's thread has a figure of its own (G7), but it competes for the cores
//! and its commits set the pace: so this is less than with a store that accepts at once, which the
//! benchmarks of the crates have.

use std::time::Duration;

use mio::net::TcpStream;

use super::{Plan, block};
use crate::alone::{Alone, SHARD_THREADS};
use crate::bare::Bare;
use crate::error::{BenchError, Result, Tried as _};
use crate::load::attach::attach_some;
use crate::load::connect::connect_and_wait;
use crate::load::frames::Bursts;
use crate::load::grants::Grants;
use crate::load::sources::Sources;
use crate::report::{Beside, Figure, Line, Standard};
use crate::usage::CpuTime;

const RUNS: usize = 3;
/// Enough of them to keep the store's batches full.
const SESSIONS: usize = 2_000;
const WARM_UP: Duration = Duration::from_secs(1);

/// One of the two goals.
struct Goal {
    goal: &'static str,
    what: &'static str,
    frames_in_burst: usize,
    standard: Standard,
}

const GOALS: [Goal; 2] = [
    Goal {
        goal: "G3",
        what: "logic server with its store: frames per core-second, one by one",
        frames_in_burst: 1,
        // LIMITS asks it with a store that accepts at once; the crates have that.
        standard: Standard::Told,
    },
    Goal {
        goal: "G4",
        what: "logic server with its store: frames per core-second, in bursts of 16",
        frames_in_burst: 16,
        standard: super::G4,
    },
];

pub(crate) fn measure(plan: &Plan) -> Result<Vec<Line>> {
    let window = Duration::from_secs(if plan.quick { 1 } else { 4 });
    let mut lines = Vec::new();
    for goal in &GOALS {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for run in 1..=RUNS {
            ours.push(through_logic_server(goal.frames_in_burst, window)?);
            bare.push(through_bare_loop(goal.frames_in_burst, window)?);
            eprintln!(
                "{} run {run}: {:?}, bare {:?}",
                goal.goal,
                ours.last(),
                bare.last()
            );
        }
        lines.push(Line::Figure(Figure {
            goal: goal.goal,
            what: goal.what.into(),
            unit: "/s",
            runs: ours,
            beside: Some(Beside {
                name: "bare loop",
                runs: bare,
            }),
            standard: goal.standard,
        }));
    }
    Ok(lines)
}

fn through_logic_server(frames_in_burst: usize, window: Duration) -> Result<f64> {
    let server = Alone::start()?;
    let mut grants = Grants::dial(server.link)?;
    let mut sources = Sources::new(block::FRAMES, rand::random());
    let mut streams = Vec::new();
    while streams.len() < SESSIONS {
        let wanted = SESSIONS - streams.len();
        let attached = attach_some(&mut grants, &mut sources, wanted)?;
        streams.extend(attached.into_iter().map(|session| session.stream));
    }
    let mut bursts = Bursts::new(streams, frames_in_burst)?;
    let mut run = |window| bursts.run(window, || grants.listen());
    run(WARM_UP)?;
    let before = CpuTime::of(server.pid())?;
    let frames = run(window)?;
    let after = CpuTime::of(server.pid())?;
    per_core_second(frames, after.since_in(&before, SHARD_THREADS))
}

fn through_bare_loop(frames_in_burst: usize, window: Duration) -> Result<f64> {
    let server = Bare::start()?;
    let mut sources = Sources::new(block::FRAMES, rand::random());
    let mut streams = Vec::new();
    for _ in 0..SESSIONS {
        let stream = connect_and_wait(sources.next(), server.address).tried("connect")?;
        stream.set_nonblocking(true).tried("use a socket")?;
        streams.push(TcpStream::from_std(stream));
    }
    let mut bursts = Bursts::new(streams, frames_in_burst)?;
    bursts.run(WARM_UP, || {})?;
    let before = CpuTime::of(server.pid())?;
    let frames = bursts.run(window, || {})?;
    let after = CpuTime::of(server.pid())?;
    per_core_second(frames, after.since(&before))
}

fn per_core_second(frames: u64, used: Duration) -> Result<f64> {
    if frames == 0 || used.is_zero() {
        return Err(BenchError::failed(format!("{frames} frames in {used:?}")));
    }
    Ok(frames as f64 / used.as_secs_f64())
}
