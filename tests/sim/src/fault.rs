//! What goes wrong, how often, and how it ends.

use std::ops::RangeInclusive;

use rand::RngExt;

use crate::balancer::BalancerNode;
use crate::clock::Clock;
use crate::logic::LogicNode;
use crate::marks::Mark;
use crate::model::Broken;
use crate::network::{self, Read, Side, Stream};
use crate::plan::Class;
use crate::process::{Process, Tier};
use crate::world::{Event, OFF_MS, World, logic_address};

/// F20: how far a wall clock is set forth or back.
pub const CLOCK_STEP_MS: i64 = 3_600_000;

/// What a replayer remembers at most.
const RECORDED_MAX: usize = 1_000;

/// How long the database is ill.
const AILING_MS: RangeInclusive<u64> = 500..=30_000;

/// How long it is away at worst.
const AWAY_MS_MAX: u64 = 30 * 60_000;

/// How long a stream stalls.
const STALL_MS: RangeInclusive<u64> = 100..=20_000;

/// How long what one process says to another stalls: as long as TCP takes to send a lost packet again.
const LINK_STALL_MS: RangeInclusive<u64> = 100..=1_000;

/// How long a server is out of file descriptors.
const EXHAUSTED_MS: RangeInclusive<u64> = 100..=10_000;

impl World {
    pub fn begin_faults(&mut self) {
        let classes: Vec<_> = self.plan.faults.classes().collect();
        if classes.contains(&Class::DatabaseAway) && self.rng.random_ratio(1, 3) {
            let until_ms = self.rng.random_range(AILING_MS);
            self.store.goes_away(until_ms);
        }
        for class in classes {
            self.schedule_fault(class);
        }
    }

    /// The next fault of a class that comes by time.
    fn schedule_fault(&mut self, class: Class) {
        if let Some(every_ms) = self.plan.faults.every_ms(class) {
            let at_ms = self.now_ms + self.rng.random_range(1..=2 * every_ms);
            self.schedule(at_ms, Event::Fault(class));
        }
    }

    pub fn fault(&mut self, class: Class) -> Result<(), Broken> {
        if self.is_healed {
            return Ok(());
        }
        self.marks.hit(Mark::Fault(class));
        match class {
            Class::Reset => {
                if let Some(stream) = self.any_stream() {
                    self.trace_fault(Some(stream), || format!("stream {} is reset", stream.0));
                    self.network
                        .reset(stream, self.now_ms, &mut self.deliveries);
                }
            }
            Class::Silence => {
                if let Some(stream) = self.any_stream() {
                    self.fall_silent(stream)?;
                }
            }
            Class::SilenceOneWay => {
                if let Some(stream) = self.any_stream() {
                    let to = [Side::Client, Side::Server][self.rng.random_range(0..2)];
                    self.trace_fault(Some(stream), || {
                        format!("stream {} falls silent to the {to:?}", stream.0)
                    });
                    self.network.silence(stream, to);
                }
            }
            Class::Stall => {
                if let Some(stream) = self.any_stream() {
                    let until_ms = self.now_ms + self.rng.random_range(STALL_MS);
                    self.trace_fault(Some(stream), || {
                        format!("stream {} stalls until {until_ms} ms", stream.0)
                    });
                    self.network.stall(stream, until_ms, &mut self.deliveries);
                }
            }
            Class::Descriptors => {
                let mut doors = self.processes();
                doors.retain(|process| process.tier != Tier::Conn);
                let server = doors[self.rng.random_range(0..doors.len())];
                let until_ms = self.now_ms + self.rng.random_range(EXHAUSTED_MS);
                self.trace_process(server, "is out of file descriptors");
                self.network.exhaust(server, until_ms);
            }
            Class::Link => {
                let standing: Vec<_> = self.links.standing().collect();
                if !standing.is_empty() {
                    let (link, _) = standing[self.rng.random_range(0..standing.len())];
                    self.trace_fault(None, || format!("link {} is cut", link.0));
                    self.links.cut(link, self.now_ms, &mut self.link_deliveries);
                    self.model.link_gone(link);
                    self.note_health();
                }
            }
            Class::KillBalancer => self.kill_one(Tier::Balancer),
            Class::KillConn => self.kill_one(Tier::Conn),
            Class::KillLogic => self.kill_one(Tier::Logic),
            Class::Blackout => {
                for process in self.processes() {
                    if self.life(process).is_up {
                        self.kill(process);
                    }
                    // Some hosts have no battery for their clock.
                    if self.plan.faults.has(Class::Clock) {
                        let ahead_ms = self.rng.random_range(-CLOCK_STEP_MS..=CLOCK_STEP_MS);
                        self.set_clock(process, ahead_ms);
                    }
                }
            }
            Class::Pause => {
                let process = self.any_process();
                let for_ms = self.long_ms(60_000);
                self.stop(process, for_ms);
            }
            Class::Partition => {
                let pairs = self.pairs();
                let [a, b] = pairs[self.rng.random_range(0..pairs.len())];
                let ways = [(a, b), (b, a)];
                let ways = match self.rng.random_range(0..4) {
                    0 => &ways[..1],
                    1 => &ways[1..],
                    _ => &ways[..],
                };
                let for_ms = self.long_ms(60_000);
                self.trace_fault(None, || {
                    let ways = ways.iter().map(|(from, to)| format!("{from} to {to}"));
                    let ways: Vec<_> = ways.collect();
                    format!("nothing passes for {for_ms} ms: {}", ways.join(", "))
                });
                self.cut_ways(ways, for_ms);
            }
            Class::LinkStall => {
                let pairs = self.pairs();
                let [a, b] = pairs[self.rng.random_range(0..pairs.len())];
                let (from, to) = [(a, b), (b, a)][self.rng.random_range(0..2)];
                let for_ms = self.rng.random_range(LINK_STALL_MS);
                self.trace_fault(None, || format!("{from} to {to} stalls for {for_ms} ms"));
                self.cut_ways(&[(from, to)], for_ms);
            }
            Class::Clock => {
                let process = self.any_process();
                let ahead_ms = self.rng.random_range(-CLOCK_STEP_MS..=CLOCK_STEP_MS);
                self.set_clock(process, ahead_ms);
            }
            Class::Shutdown => {
                let process = self.any_process();
                self.ask_to_end(process);
            }
            Class::AccountsAway => {
                match self.rng.random_range(0..=self.conns.len()) {
                    0 => self.accounts.is_away = true,
                    conn => self.accounts.is_cut_from = Some(conn - 1),
                }
                self.note_health();
                let at_ms = self.now_ms + self.long_ms(60_000);
                self.schedule(at_ms, Event::AccountsBack);
            }
            Class::AccountChange => self.change_an_account(),
            Class::DeviceClock => {
                let index = self.rng.random_range(0..self.devices.len());
                self.break_device_clock(index)?;
            }
            Class::Replay => self.replay(),
            Class::PowerCut => self.cut_power()?,
            Class::Commands => self.operate()?,
            Class::DatabaseCrash => self.store.crash(self.now_ms),
            Class::DatabaseAway => {
                let until_ms = self.now_ms + self.away_ms();
                self.store.goes_away(until_ms);
            }
            Class::DatabaseRefuses => {
                let until_ms = self.now_ms + self.rng.random_range(AILING_MS);
                self.store.takes_nothing(until_ms);
            }
            Class::DatabaseSlow => {
                let until_ms = self.now_ms + self.rng.random_range(AILING_MS);
                self.store.slows_down(until_ms);
            }
            Class::WriteFails
            | Class::CommitUnknown
            | Class::WriteStalls
            | Class::Poison
            | Class::ByteByByte
            | Class::ConnectFails
            | Class::Flap
            | Class::SlowReader
            | Class::Roaming
            | Class::Clone
            | Class::Hostile => unreachable!("{class:?} does not come by time"),
        }
        self.schedule_fault(class);
        Ok(())
    }

    /// A device has attached: perhaps not for long.
    pub fn may_flap(&mut self, stream: Stream) {
        let flaps = self.rng.random_range(0..1_000) < self.plan.faults.of_1000(Class::Flap);
        if flaps && !self.is_healed {
            let at_ms = self.now_ms + self.rng.random_range(0..=1_000);
            self.schedule(at_ms, Event::Flaps { stream });
        }
    }

    /// Nothing arrives on it any more. Its device may know at once, as when its radio tells it, and log
    /// in again while the server believes in the old connection.
    pub fn fall_silent(&mut self, stream: Stream) -> Result<(), Broken> {
        let client = self.network.connection(stream).map(|it| it.client);
        self.trace_fault(Some(stream), || format!("stream {} falls silent", stream.0));
        self.network.silence(stream, Side::Client);
        self.network.silence(stream, Side::Server);
        match client {
            Some(network::Client::Device { index, conn }) if self.rng.random_ratio(1, 2) => {
                self.device_lost(index, conn)
            }
            _ => Ok(()),
        }
    }

    /// For seconds, and one time in eight for minutes.
    fn away_ms(&mut self) -> u64 {
        match self.rng.random_ratio(1, 8) {
            true => self.rng.random_range(60_000..=AWAY_MS_MAX),
            false => self.rng.random_range(AILING_MS),
        }
    }

    /// From a tenth of a second to this, short times as often as long ones.
    fn long_ms(&mut self, most_ms: u64) -> u64 {
        let bound_ms = [1_000, 5_000, most_ms][self.rng.random_range(0..3)];
        self.rng.random_range(100..=bound_ms)
    }

    /// Somebody sets a host's wall clock.
    fn set_clock(&mut self, process: Process, ahead_ms: i64) {
        self.trace_fault(None, || {
            format!("the wall clock of {process} is set to {ahead_ms} ms ahead")
        });
        self.life_mut(process).clock.ahead_ms = ahead_ms;
        if process.tier == Tier::Conn {
            self.conns[process.index].forget_skews();
        }
    }

    pub fn accounts_back(&mut self) {
        self.accounts.is_away = false;
        self.accounts.is_cut_from = None;
        self.note_health();
    }

    fn any_process(&mut self) -> Process {
        let processes = self.processes();
        processes[self.rng.random_range(0..processes.len())]
    }

    fn any_stream(&mut self) -> Option<Stream> {
        let streams = self.network.streams().count();
        if streams == 0 {
            return None;
        }
        let which = self.rng.random_range(0..streams);
        self.network.streams().nth(which).map(|(stream, _)| stream)
    }

    fn kill_one(&mut self, tier: Tier) {
        let of_tier = |process: &Process| process.tier == tier && self.life(*process).is_up;
        let alive: Vec<_> = self.processes().into_iter().filter(of_tier).collect();
        if !alive.is_empty() {
            let process = alive[self.rng.random_range(0..alive.len())];
            self.kill(process);
        }
    }

    /// kill -9: its connections are reset, its links break, its memory is gone.
    fn kill(&mut self, process: Process) {
        self.trace_fault(None, || format!("{process} is killed"));
        let life = self.life_mut(process);
        life.is_up = false;
        life.pause = None;
        self.keep_counted(process);
        self.model.died(process);
        if process.tier == Tier::Logic {
            self.model.node_died(process.index);
        }
        let streams = self.network.streams();
        let streams: Vec<_> = streams
            .filter(|(_, connection)| connection.server == process)
            .map(|(stream, _)| stream)
            .collect();
        for stream in streams {
            self.network
                .orphan(stream, self.now_ms, &mut self.deliveries);
        }
        for (link, _) in self.links.standing_of(process) {
            self.links.cut(link, self.now_ms, &mut self.link_deliveries);
            self.model.link_gone(link);
        }
        self.links.forget(process);
        self.note_health();
        let at_ms = self.now_ms + self.rng.random_range(100..=20_000);
        self.schedule(at_ms, Event::Restart(process));
    }

    /// A killed process begins anew: nothing in memory, its monotonic clock at 0.
    pub fn restart(&mut self, process: Process) -> Result<(), Broken> {
        if self.life(process).is_up {
            return Ok(());
        }
        if process.tier == Tier::Logic && !self.store.repair(process.index, self.now_ms) {
            let at_ms = self.now_ms + self.rng.random_range(100..=5_000);
            self.schedule(at_ms, Event::Restart(process));
            return Ok(());
        }
        let life = self.life_mut(process);
        life.is_up = true;
        life.is_closing = false;
        life.generation += 1;
        self.trace_process(process, "starts again");
        let life = self.life_mut(process);
        let ahead_ms = life.clock.ahead_ms;
        self.life_mut(process).clock = Clock {
            started_at_ms: self.now_ms,
            origin_ms: 0,
            ahead_ms,
        };
        let seed = self.rng.random();
        let index = process.index;
        match process.tier {
            Tier::Balancer => self.balancers[index] = BalancerNode::start(&self.plan, seed),
            Tier::Conn => {
                if !self.start_conn(index, seed)? {
                    self.life_mut(process).is_up = false;
                    return Ok(());
                }
            }
            Tier::Logic => {
                self.logic[index] = LogicNode::start(&self.plan, logic_address(index), seed);
            }
        }
        self.keep_links(process);
        Ok(())
    }

    /// Somebody sends what a device sent before, from the device's address.
    fn replay(&mut self) {
        if self.recorded.is_empty() {
            return;
        }
        if self.recorded.len() > RECORDED_MAX {
            self.recorded.drain(..RECORDED_MAX / 2);
        }
        let which = self.rng.random_range(0..self.recorded.len());
        let (server, source, bytes) = self.recorded[which].clone();
        let stream = self.network.open(network::Client::Replayer, server, source);
        self.trace_fault(None, || {
            let bytes = bytes.len();
            format!("stream {} replays {bytes} bytes of {source}", stream.0)
        });
        let at_ms = self.now_ms + self.network.delay_ms();
        self.schedule(at_ms, Event::Reaches { stream });
        self.network
            .write(stream, Side::Client, &bytes, at_ms, &mut self.deliveries);
    }

    /// It waits for no answer, and leaves with whoever it talks to.
    pub fn replayer_ready(&mut self, stream: Stream) {
        loop {
            let (now_ms, deliveries) = (self.now_ms, &mut self.deliveries);
            match self
                .network
                .read(stream, Side::Client, 1_024, now_ms, deliveries)
            {
                Read::Bytes(_) => {}
                Read::Nothing => return,
                Read::End | Read::Reset => {
                    return self.network.close(stream, Side::Client, now_ms, deliveries);
                }
            }
        }
    }

    /// Faults end, devices make no more records: now everything has to come right.
    pub fn heal(&mut self) -> Result<(), Broken> {
        self.is_healed = true;
        self.network.heal();
        self.links.heal();
        self.store.heal();
        for cut in self.links.cuts() {
            self.open_ways(cut);
        }
        self.accounts_back();
        self.enable_everybody()?;
        for process in self.processes() {
            self.restart(process)?;
            if let Some(pause) = &self.life(process).pause {
                self.resume(process, pause.began_ms);
            }
            let ahead_ms = self.rng.random_range(OFF_MS);
            self.set_clock(process, ahead_ms);
        }
        self.devices_settle()
    }
}
