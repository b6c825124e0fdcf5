//! Logins as fast as they go: how many a second, and what each cost the servers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll};

use super::exchange::Refusal;
use super::logins::Logins;
use super::sources::Sources;
use crate::error::{BenchError, Result, Tried as _};
use crate::fleet::Device;
use crate::net::wait;
use crate::usage::CpuTime;

/// Full logins under way at once.
const SLOTS: usize = 256;
/// For the first round of logins, in which every device comes once.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(60);
/// A login that takes longer counts as one of a minute.
const TOOK_US_MAX: u64 = 60_000_000;
const TICK: Duration = Duration::from_millis(100);

/// What one storm came to.
#[derive(Clone, Debug)]
pub(crate) struct Storm {
    /// Full logins a second, once every device has logged in before.
    pub(crate) logins_per_s: f64,
    /// CPU of all server processes together, per full login.
    pub(crate) server_us_per_login: f64,
    /// CPU of the load, per full login.
    pub(crate) load_us_per_login: f64,
    /// Full logins a second in the first round: every account is new to the servers.
    pub(crate) first_round_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Refused or lost, and tried again.
    pub(crate) refused: u64,
}

/// Every device logs in once; then devices log in, in turn, for `window`, which is measured.
/// `servers` are the processes whose CPU counts.
pub(crate) fn storm(
    balancer: SocketAddr,
    devices: &[Device],
    sources: Sources,
    window: Duration,
    servers: &[u32],
) -> Result<Storm> {
    let mut storm = Run {
        poll: Poll::new().tried("poll")?,
        logins: Logins::new(balancer, devices, sources, SLOTS),
        took_us: Histogram::new_with_max(TOOK_US_MAX, 3).map_err(BenchError::failed)?,
    };
    storm.logins.want(u64::MAX);

    let first_round = devices.len() as u64;
    let begun = Instant::now();
    let done = storm.run(|done, since| done >= first_round || since > FIRST_ROUND_MAX)?;
    if done < first_round {
        return Err(storm.too_slow(done, first_round));
    }
    let first_round_per_s = per_s(done, begun.elapsed());

    storm.took_us.reset();
    let refused_before = storm.refused();
    let load = std::process::id();
    let (servers_before, load_before) = (CpuTime::of_all(servers)?, CpuTime::of(load)?);
    let begun = Instant::now();
    let done = storm.run(|_, since| since >= window)?;
    let took = begun.elapsed();
    let servers_took = CpuTime::of_all(servers)?.since(&servers_before);
    let load_took = CpuTime::of(load)?.since(&load_before);
    if done == 0 {
        return Err(storm.too_slow(done, 1));
    }

    let us_per_login = |cpu: Duration| cpu.as_secs_f64() * 1e6 / done as f64;
    Ok(Storm {
        logins_per_s: per_s(done, took),
        server_us_per_login: us_per_login(servers_took),
        load_us_per_login: us_per_login(load_took),
        first_round_per_s,
        p50_ms: storm.took_us.value_at_quantile(0.50) as f64 / 1e3,
        p99_ms: storm.took_us.value_at_quantile(0.99) as f64 / 1e3,
        refused: storm.refused() - refused_before,
    })
}

fn per_s(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

struct Run<'a> {
    poll: Poll,
    logins: Logins<'a>,
    took_us: Histogram<u64>,
}

impl Run<'_> {
    /// Plays until `enough` of the logins done and the time that they took; returns how many.
    fn run(&mut self, enough: impl Fn(u64, Duration) -> bool) -> Result<u64> {
        let mut events = Events::with_capacity(SLOTS * 2);
        let begun = Instant::now();
        let mut done = 0;
        let mut tick_at = begun;
        loop {
            let now = Instant::now();
            if enough(done, now - begun) {
                return Ok(done);
            }
            if now >= tick_at {
                self.logins.tick(self.poll.registry(), now)?;
                tick_at = now + TICK;
            }
            wait(&mut self.poll, &mut events, Some(TICK))?;
            let now = Instant::now();
            for event in &events {
                let slot = event.token().0;
                let registry = self.poll.registry();
                if let Some(login) = self.logins.ready(slot, registry, now)? {
                    done += 1;
                    self.took_us
                        .saturating_record(login.took.as_micros() as u64);
                    // The device has seen all it came for.
                    drop(login.stream);
                    self.logins.next(slot, registry, now)?;
                }
            }
        }
    }

    fn refused(&self) -> u64 {
        self.logins.refused().values().sum()
    }

    fn too_slow(&self, done: u64, wanted: u64) -> BenchError {
        let refused: Vec<String> = self
            .logins
            .refused()
            .iter()
            .map(|(why, count): (&Refusal, _)| format!("{why:?} {count}"))
            .collect();
        BenchError::failed(format!(
            "{done} of {wanted} logins done; refused or lost: {}",
            refused.join(", ")
        ))
    }
}
