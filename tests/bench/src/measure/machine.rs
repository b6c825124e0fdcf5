//! How fast the machine is at what a server does most: figures in µs of one machine say little on
//! another without it.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::Plan;
use crate::error::{Result, Tried as _};
use crate::report::{Figure, Line, Standard};
use crate::usage::CpuTime;

const RUNS: usize = 3;
const PAIRS: u32 = 3_000;

pub(crate) fn measure(_: &Plan) -> Result<Vec<Line>> {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(pair_us()?);
    }
    Ok(vec![Line::Figure(Figure {
        goal: "",
        what: "the machine: connect, accept and close over loopback, in one thread".into(),
        unit: "µs",
        runs,
        beside: None,
        standard: Standard::Told,
    })])
}

/// CPU of both sides of a connection that carries nothing.
fn pair_us() -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").tried("listen")?;
    let address = listener.local_addr().tried("listen")?;
    let me = std::process::id();
    let before = CpuTime::of(me)?;
    for _ in 0..PAIRS {
        let near = TcpStream::connect(address).tried("connect")?;
        let (far, _) = listener.accept().tried("accept")?;
        drop(near);
        drop(far);
    }
    let used: Duration = CpuTime::of(me)?.since(&before);
    Ok(used.as_secs_f64() * 1e6 / f64::from(PAIRS))
}
