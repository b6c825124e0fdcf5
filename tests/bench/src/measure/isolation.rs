//! P7: what the heartbeats of a fleet wait for, while one peer costs the logic server as much as it
//! can, beside the same fleet alone.

use std::time::Duration;

use super::{Plan, block};
use crate::alone::Alone;
use crate::error::{Result, Tried as _};
use crate::load::attach::{Session, attach_some};
use crate::load::grants::Grants;
use crate::load::peers::Peer;
use crate::load::quiet::Quiet;
use crate::load::sources::Sources;
use crate::report::{Beside, Figure, Line, Standard};

const RUNS: usize = 3;
/// One heartbeat a millisecond among them: each comes about every second.
const SESSIONS: usize = 1_000;
const WARM_UP: Duration = Duration::from_secs(1);
/// From its beginning until its load is what it stays.
const SETTLE: Duration = Duration::from_millis(300);
const PERCENTILE: f64 = 99.0;
/// Of the quiet fleet's own.
const TWICE: Standard = Standard::TimesLimit { goal: 2.0 };

/// What one peer does.
type Makes = fn(&mut Grants, &mut Sources) -> Result<Peer>;

const PEERS: [(&str, Makes); 3] = [
    ("one session floods", |grants, sources| {
        Ok(Peer::Floods(session(grants, sources)?))
    }),
    ("one session floods and never reads", |grants, sources| {
        Ok(Peer::NeverReads(session(grants, sources)?))
    }),
    (
        "one address opens connections and says nothing",
        |grants, sources| {
            let source = sources.next();
            let granted = grants.grant(&[source.ip()])?.remove(0);
            Ok(Peer::OpensSilently { granted, source })
        },
    ),
];

pub(crate) fn measure(plan: &Plan) -> Result<Vec<Line>> {
    let window = Duration::from_secs(if plan.quick { 1 } else { 5 });
    let server = Alone::start()?;
    let mut grants = Grants::dial(server.link)?;
    let mut sources = Sources::new(block::QUIET, rand::random());
    let mut streams = Vec::new();
    while streams.len() < SESSIONS {
        let attached = attach_some(&mut grants, &mut sources, SESSIONS - streams.len())?;
        streams.extend(attached.into_iter().map(|session| session.stream));
    }
    let mut fleet = Quiet::new(streams)?;
    fleet.run(WARM_UP, || grants.listen())?;

    let mut peers = Sources::new(block::PEER, rand::random());
    let mut lines = Vec::new();
    for (what, make) in PEERS {
        let (mut beside, mut quiet) = (Vec::new(), Vec::new());
        for run in 1..=RUNS {
            let waited = fleet.run(window, || grants.listen())?;
            quiet.push(waited.value_at_percentile(PERCENTILE) as f64);
            let peer = make(&mut grants, &mut peers)?.start();
            fleet.run(SETTLE, || grants.listen())?;
            let waited = fleet.run(window, || grants.listen())?;
            let did = peer.end()?;
            beside.push(waited.value_at_percentile(PERCENTILE) as f64);
            eprintln!(
                "P7 run {run}: {what}, {did} times: {:?} µs, quiet {:?} µs",
                beside.last(),
                quiet.last()
            );
        }
        lines.push(Line::Figure(Figure {
            goal: "P7",
            what: format!("heartbeats of {SESSIONS} others wait, p99, while {what}"),
            unit: "µs",
            runs: beside,
            beside: Some(Beside {
                name: "alone",
                runs: quiet,
            }),
            standard: TWICE,
        }));
    }
    Ok(lines)
}

/// A session of the peer's own, on a socket that blocks.
fn session(grants: &mut Grants, sources: &mut Sources) -> Result<std::net::TcpStream> {
    let Session { stream, .. } = attach_some(grants, sources, 1)?.remove(0);
    let stream = std::net::TcpStream::from(stream);
    stream.set_nonblocking(false).tried("use a socket")?;
    Ok(stream)
}
