//! The smallest plan that still breaks the same promise.
//!
//! Something is taken away and the rest is run again; if the same promise breaks, the rest is the
//! new plan. In this order, until nothing more can be taken: what comes after the failure, fault
//! classes (halves, quarters, one by one), narrow limits, devices, processes; then time.
//!
//! All faults of a world share its random numbers, so a plan with one class less is another story
//! from the first event on. A candidate therefore gets several seeds before it counts as holding,
//! and time: few devices need longer than many to have the same bad luck. What is searched is the
//! smallest *set of circumstances* under which the promise breaks; time is taken away last.

use crate::limits;
use crate::plan::{Class, Plan};
use crate::run::Failure;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Runs in all.
    pub tries_max: u32,
    /// Seeds of one candidate.
    pub seeds_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tries_max: 1_000,
            seeds_max: 6,
        }
    }
}

/// What was left.
#[derive(Clone, Debug)]
pub struct Shrunk {
    pub plan: Plan,
    pub failure: Failure,
    pub tries: u32,
    /// Nothing more can be taken away; otherwise the tries or the time ran out.
    pub is_smallest: bool,
    /// Other promises that broke on the way, once each: other cases.
    pub others: Vec<(Plan, Failure)>,
}

/// Where faults break the promise, a candidate has at least so long to do it.
const EXPOSURE_MS: u64 = 240_000;
/// Faults that last shorter are hard to tell from none.
const FAULTS_MS_MIN: u64 = 1_000;

struct Shrinker<'a> {
    limits: Limits,
    /// Runs a plan. `None`: there is no time for more.
    #[allow(clippy::type_complexity)]
    attempt: &'a mut dyn FnMut(&Plan) -> Option<Option<Failure>>,
    progress: &'a mut dyn FnMut(&Plan, u32),
    tries: u32,
    is_out: bool,
    exposure_ms: u64,
    plan: Plan,
    failure: Failure,
    others: Vec<(Plan, Failure)>,
}

/// `attempt` runs a plan and says how it failed, or `None` when there is no time for more;
/// `progress` hears of every smaller plan, with the tries so far.
pub fn shrink(
    plan: Plan,
    failure: Failure,
    limits: Limits,
    attempt: &mut dyn FnMut(&Plan) -> Option<Option<Failure>>,
    progress: &mut dyn FnMut(&Plan, u32),
) -> Shrunk {
    let mut shrinker = Shrinker {
        limits,
        attempt,
        progress,
        tries: 0,
        is_out: false,
        exposure_ms: plan.faults_ms.max(EXPOSURE_MS),
        plan,
        failure,
        others: vec![],
    };
    loop {
        let before = shrinker.plan.clone();
        shrinker.take_the_end();
        shrinker.take_classes();
        shrinker.take_limits();
        shrinker.take_devices();
        shrinker.take_processes();
        if shrinker.is_out || same_size(&shrinker.plan, &before) {
            break;
        }
    }
    shrinker.take_time();
    Shrunk {
        plan: shrinker.plan,
        failure: shrinker.failure,
        tries: shrinker.tries,
        is_smallest: !shrinker.is_out,
        others: shrinker.others,
    }
}

/// Another seed alone is no progress, nor is another time.
fn same_size(a: &Plan, b: &Plan) -> bool {
    let Plan {
        seed, faults_ms, ..
    } = *a;
    *a == Plan {
        seed,
        faults_ms,
        ..b.clone()
    }
}

impl Shrinker<'_> {
    /// Whether the candidate breaks the same promise under one of its seeds; then it is the plan.
    fn accepts(&mut self, candidate: Plan) -> bool {
        for roll in 0..self.limits.seeds_max {
            if self.tries >= self.limits.tries_max || self.is_out {
                self.is_out = true;
                return false;
            }
            let mut candidate = candidate.clone();
            candidate.seed = other_seed(candidate.seed, roll);
            self.tries += 1;
            let Some(outcome) = (self.attempt)(&candidate) else {
                self.is_out = true;
                return false;
            };
            match outcome {
                Some(failure) if failure.promise == self.failure.promise => {
                    self.plan = candidate;
                    self.failure = failure;
                    (self.progress)(&self.plan, self.tries);
                    return true;
                }
                Some(failure) => self.note_other(candidate, failure),
                None => {}
            }
        }
        false
    }

    fn note_other(&mut self, plan: Plan, failure: Failure) {
        let is_known = |(_, known): &(Plan, Failure)| known.promise == failure.promise;
        if !self.others.iter().any(is_known) {
            self.others.push((plan, failure));
        }
    }

    /// The same for a plan that may need longer; then what comes after the failure is cut off.
    fn accepts_sometime(&mut self, mut candidate: Plan) -> bool {
        if self.failure.at_ms < self.plan.faults_ms {
            candidate.faults_ms = self.exposure_ms;
        }
        let accepts = self.accepts(candidate);
        if accepts {
            self.take_the_end();
        }
        accepts
    }

    /// Nothing that happens after the failure belongs to it, and until then nothing changes.
    fn take_the_end(&mut self) {
        let faults_ms = (self.failure.at_ms + 1).max(FAULTS_MS_MIN);
        if faults_ms < self.plan.faults_ms {
            let candidate = Plan {
                faults_ms,
                ..self.plan.clone()
            };
            self.accepts(candidate);
        }
    }

    fn take_classes(&mut self) {
        let mut chunk = self.plan.faults.classes().count();
        while chunk > 0 {
            let mut at = 0;
            loop {
                let classes: Vec<Class> = self.plan.faults.classes().collect();
                if at >= classes.len() {
                    break;
                }
                let end = (at + chunk).min(classes.len());
                let kept: Vec<Class> = [&classes[..at], &classes[end..]].concat();
                let mut candidate = self.plan.clone();
                candidate.faults.keep(&kept);
                // What was taken made room for the next at the same place.
                if !self.accepts_sometime(candidate) {
                    at = end;
                }
            }
            chunk /= 2;
        }
    }

    fn take_limits(&mut self) {
        let limits = limits::Limits::default();
        if self.plan.limits != limits {
            let candidate = Plan {
                limits,
                ..self.plan.clone()
            };
            self.accepts_sometime(candidate);
        }
    }

    fn take_devices(&mut self) {
        self.ascend(
            |plan| plan.devices.into(),
            |plan, devices| with_devices(plan, devices as u32),
            Self::accepts_sometime,
        );
    }

    fn take_processes(&mut self) {
        for count in COUNTS {
            self.ascend(
                |plan| count(&mut plan.clone()).to_owned().into(),
                |plan, few| {
                    let mut plan = plan.clone();
                    *count(&mut plan) = few as u16;
                    with_room(plan)
                },
                Self::accepts_sometime,
            );
        }
    }

    /// In seconds: how many ms exactly is of no interest.
    fn take_time(&mut self) {
        self.ascend(
            |plan| plan.faults_ms / FAULTS_MS_MIN,
            |plan, s| Plan {
                faults_ms: s * FAULTS_MS_MIN,
                ..plan.clone()
            },
            Self::accepts,
        );
        self.take_the_end();
    }

    /// The least of a number that still fails: from 1 upwards in growing steps, so that the cheap
    /// candidates come first, then down again from the first that fails.
    fn ascend(
        &mut self,
        number: impl Fn(&Plan) -> u64,
        with: impl Fn(&Plan, u64) -> Plan,
        accepts: impl Fn(&mut Self, Plan) -> bool,
    ) {
        let most = number(&self.plan);
        let mut held = 0;
        let mut few = 1;
        while few < most && !self.is_out {
            let candidate = with(&self.plan, few);
            if accepts(self, candidate) {
                break;
            }
            held = few;
            few += few.div_ceil(2);
        }
        // Between what held and what fails.
        while !self.is_out {
            let fails = number(&self.plan);
            if fails <= held + 1 {
                break;
            }
            let candidate = with(&self.plan, held + (fails - held) / 2);
            let middle = number(&candidate);
            if !accepts(self, candidate) {
                held = middle;
            }
        }
    }
}

/// Of what there may be fewer, down to one.
const COUNTS: &[fn(&mut Plan) -> &mut u16] = &[
    |plan| &mut plan.balancers,
    |plan| &mut plan.conn_servers,
    |plan| &mut plan.logic_servers,
    |plan| &mut plan.shards,
];

/// Fewer devices leave about as much of the cluster free as there was.
fn with_devices(plan: &Plan, devices: u32) -> Plan {
    let spare = u64::from(plan.places_max) * u64::from(devices) / u64::from(plan.devices.max(1));
    with_room(Plan {
        devices,
        places_max: spare as u32,
        ..plan.clone()
    })
}

/// Every device must find a place.
fn with_room(plan: Plan) -> Plan {
    let fair = plan.devices.div_ceil(plan.logic_servers.into()).max(1);
    Plan {
        places_max: plan.places_max.max(fair),
        ..plan
    }
}

/// The plan's own first, then others that follow from it.
fn other_seed(seed: u64, roll: u32) -> u64 {
    let mut seed = seed.wrapping_add(u64::from(roll).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    if roll > 0 {
        seed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        seed ^= seed >> 27;
    }
    seed
}

#[cfg(test)]
mod tests;
