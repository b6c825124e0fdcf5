//! Processes that stand still for a while, and ways between processes on which nothing arrives.
//!
//! A process that is stopped loses nothing: its peers' bytes wait in the kernel, and its own threads'
//! mail in their mailboxes. When it goes on it finds all that, and its timers, in any order but that
//! of each connection. Its peers, and whoever is cut off, hear nothing, and give their links up.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use common::link::{ATTEMPT_MS_MAX, LinkId, PAUSE_MS_MAX, SILENT_MS_MAX};
use rand::RngExt;

use crate::links::LinkMail;
use crate::model::Broken;
use crate::process::{Lane, Mail, Pause, Process};
use crate::world::{Event, World};

/// From the beginning of a silence until a peer gives the link up; it may have heard the last word a
/// second before.
const GIVEN_UP_MS: RangeInclusive<u64> = 1_500..=SILENT_MS_MAX;

/// When a connection that had no answer is tried again, within one attempt.
const KNOCK_MS: u64 = 1_000;

/// What a process works off in one go after it was stopped, and the time until the next.
const AT_ONCE_MAX: usize = 32;
const GO_MS: RangeInclusive<u64> = 0..=3;

/// Why one end of a link hears nothing of the other.
#[derive(Clone, Copy, Debug)]
pub enum Silence {
    Stopped { since_ms: u64 },
    Cut(u64),
}

impl World {
    // ---- processes that are stopped -----------------------------------------------------------

    /// SIGSTOP.
    pub fn stop(&mut self, process: Process, for_ms: u64) {
        let since_ms = self.now_ms;
        let life = self.life_mut(process);
        if !life.is_up || life.pause.is_some() {
            return;
        }
        life.pause = Some(Pause {
            began_ms: since_ms,
            is_over: false,
            held: VecDeque::new(),
        });
        self.trace_fault(None, || format!("{process} is stopped for {for_ms} ms"));
        self.network.hurt_all(process);
        self.operator.excuse(process);
        self.model.stopped(process);
        for (link, ends) in self.links.standing_of(process) {
            let by = ends[usize::from(ends[0] == process)];
            self.watch(link, by, Silence::Stopped { since_ms });
        }
        self.note_health();
        let at_ms = since_ms + for_ms;
        self.schedule(at_ms, Event::Resume { process, since_ms });
    }

    /// SIGCONT: it goes on where it was, and finds what came meanwhile.
    pub fn resume(&mut self, process: Process, since_ms: u64) {
        if self.stopped_since(process) != Some(since_ms) {
            return;
        }
        self.trace_process(process, "goes on");
        let Some(pause) = &mut self.life_mut(process).pause else {
            return;
        };
        pause.is_over = true;
        let mut held = std::mem::take(&mut pause.held);
        let now_ms = self.now_ms;
        self.life_mut(process).went_on_ms = Some(now_ms);
        if self.now_ms - since_ms >= PAUSE_MS_MAX {
            // It knows that it is taken for dead, before it reads what was said to it.
            held.retain(|mail| match mail {
                Mail::Link { mail, .. } => matches!(**mail, LinkMail::Down),
                _ => true,
            });
            for (link, _) in self.links.standing_of(process) {
                let (now_ms, deliveries) = (self.now_ms, &mut self.link_deliveries);
                self.links.give_up(link, process, now_ms, deliveries);
            }
        } else {
            self.watch_all(process);
        }
        let held = self.in_any_order(held);
        let generation = self.life(process).generation;
        if let Some(pause) = &mut self.life_mut(process).pause {
            pause.held = held;
        }
        let go = Event::WorkOff {
            process,
            generation,
        };
        self.schedule(self.now_ms, go);
    }

    /// Some of what waited for a process that was stopped. What comes meanwhile waits behind it.
    pub fn work_off(&mut self, process: Process, generation: u32) -> Result<(), Broken> {
        for _ in 0..self.rng.random_range(1..=AT_ONCE_MAX) {
            let life = self.life_mut(process);
            if !life.is_current(generation) {
                return Ok(());
            }
            let Some(pause) = &mut life.pause else {
                return Ok(());
            };
            let Some(mail) = pause.held.pop_front() else {
                life.pause = None;
                self.model.went_on(process, self.now_ms);
                self.note_health();
                return Ok(());
            };
            self.take(process, mail)?;
        }
        let at_ms = self.now_ms + self.rng.random_range(GO_MS);
        let go = Event::WorkOff {
            process,
            generation,
        };
        self.schedule(at_ms, go);
        Ok(())
    }

    /// Mixes connections, mailboxes and timers; each keeps its own order.
    fn in_any_order(&mut self, held: VecDeque<Mail>) -> VecDeque<Mail> {
        let mut lanes: BTreeMap<Lane, VecDeque<Mail>> = BTreeMap::new();
        for mail in held {
            lanes.entry(mail.lane()).or_default().push_back(mail);
        }
        let mut lanes: Vec<_> = lanes.into_values().collect();
        let mut mixed = VecDeque::new();
        while !lanes.is_empty() {
            let which = self.rng.random_range(0..lanes.len());
            mixed.extend(lanes[which].pop_front());
            if lanes[which].is_empty() {
                lanes.swap_remove(which);
            }
        }
        mixed
    }

    fn stopped_since(&self, process: Process) -> Option<u64> {
        let pause = self.life(process).pause.as_ref()?;
        (!pause.is_over).then_some(pause.began_ms)
    }

    // ---- ways that are cut --------------------------------------------------------------------

    /// Nothing arrives on these ways between two processes any more.
    pub fn cut_ways(&mut self, ways: &[(Process, Process)], for_ms: u64) {
        self.cuts += 1;
        let cut = self.cuts;
        for (from, to) in ways {
            if !self.links.block(*from, *to, cut) {
                continue;
            }
            for (link, ends) in self.links.standing_of(*from) {
                if ends.contains(to) {
                    self.watch(link, *to, Silence::Cut(cut));
                }
            }
        }
        self.note_health();
        self.schedule(self.now_ms + for_ms, Event::Open { cut });
    }

    pub fn open_ways(&mut self, cut: u64) {
        let (now_ms, deliveries) = (self.now_ms, &mut self.link_deliveries);
        self.links.unblock(cut, now_ms, deliveries);
        self.note_health();
    }

    // ---- links --------------------------------------------------------------------------------

    /// This end hears nothing from now on: unless that ends soon, it gives the link up.
    fn watch(&mut self, link: LinkId, by: Process, silence: Silence) {
        let at_ms = self.now_ms + self.rng.random_range(GIVEN_UP_MS);
        self.schedule(at_ms, Event::Silent { link, by, silence });
    }

    /// What a process that goes on hears nothing of.
    fn watch_all(&mut self, process: Process) {
        for (link, ends) in self.links.standing_of(process) {
            let other = ends[usize::from(ends[0] == process)];
            if let Some(since_ms) = self.stopped_since(other) {
                self.watch(link, process, Silence::Stopped { since_ms });
            }
            if let Some(cut) = self.links.blocking(other, process) {
                self.watch(link, process, Silence::Cut(cut));
            }
        }
    }

    pub fn silent(&mut self, link: LinkId, by: Process, silence: Silence) {
        let Some(other) = self.links.other_end(link, by) else {
            return;
        };
        let lasts = match silence {
            Silence::Stopped { since_ms } => self.stopped_since(other) == Some(since_ms),
            Silence::Cut(cut) => self.links.blocking(other, by) == Some(cut),
        };
        let judges = self.life(by).is_up && !self.life(by).is_stopped();
        if lasts && judges && self.links.is_standing(link) {
            let (now_ms, deliveries) = (self.now_ms, &mut self.link_deliveries);
            self.links.give_up(link, by, now_ms, deliveries);
            self.note_health();
        }
    }

    /// A process begins to keep its links up.
    pub fn keep_links(&mut self, process: Process) {
        for ends in self.pairs() {
            if ends[0] == process {
                self.links.keep(ends);
                self.dial_after(ends, 0);
            }
        }
    }

    /// The dialling end has lost its link.
    pub fn redial(&mut self, ends: [Process; 2]) {
        let dialling = self.links.dialling(ends);
        let waits = dialling.is_none_or(|dialling| dialling.waits);
        if !waits && !self.links.is_dialled(ends) {
            let wait_ms = self.links.next_wait_ms(ends);
            self.dial_after(ends, wait_ms);
        }
    }

    fn dial_after(&mut self, ends: [Process; 2], wait_ms: u64) {
        if let Some(dialling) = self.links.dialling(ends) {
            dialling.waits = true;
        }
        let [from, to] = ends;
        self.mail(from, self.now_ms + wait_ms, Mail::Dial { to });
    }

    /// Knocks, once more if nobody refuses, until the time of an attempt is over.
    pub fn dial(&mut self, from: Process, to: Process) {
        let (ends, now_ms) = ([from, to], self.now_ms);
        let Some(dialling) = self.links.dialling(ends) else {
            return;
        };
        dialling.waits = false;
        let begun_ms = *dialling.begun_ms.get_or_insert(now_ms);
        let is_open = self.links.is_open(from, to);
        let life = self.life(to);
        if is_open && life.is_up && !life.is_stopped() {
            self.links.connect(ends, now_ms, &mut self.link_deliveries);
            return;
        }
        let is_refused = is_open && !life.is_up;
        let over_ms = begun_ms + ATTEMPT_MS_MAX;
        if is_refused || now_ms >= over_ms {
            let wait_ms = self.links.next_wait_ms(ends);
            self.dial_after(ends, wait_ms);
        } else {
            self.dial_after(ends, KNOCK_MS.min(over_ms - now_ms));
        }
    }
}
