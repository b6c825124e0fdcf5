//! Devices that do not keep the contract, each with an account and its right key.
//!
//! One of them plays one trick after the other, and judges what it is told by what the contract has
//! due ([`tricks`]): another answer breaks the run, and so does none on a connection
//! that nothing happened to. It is nobody's friend: the others must come right beside it, and it may
//! take its one place and no more.
//!
//! ```text
//! Door(trick) ────────────────────────────────▶ over
//! Login ──ok──▶ Gate(trick) ──(wrong proof)───▶ Attach ──▶ over
//!        ╰────▶ Attach ──ok──▶ Session(trick) ──▶ over
//!                    ╰───────▶ Gate(Replay) ────▶ over
//! ```

mod hearing;
mod speech;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use common::ids::{AccountId, Nonce, Ticket};
use common::secret::SessionKey;
use protocols::rcu::attach::Attach;
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::clock::true_unix_ms;
use crate::device::account_name;
use crate::model::Broken;
use crate::network::{Client, Side, Stream};
use crate::plan::Plan;
use crate::process::{Process, Tier};
use crate::tricks::{self, AtDoor, AtGate, Due, InSession, Trick};
use crate::world::{Event, World, account_of};

/// From the connect until what is due must have come: the front door answers within 6 s, and lets
/// half a frame wait for 5 s; the way there and back takes two seconds at most.
const ANSWERED_MS: u64 = 15_000;

/// The most that a stream is late which nothing happens to: there, through a window that was closed
/// for a round, and back.
const LATE_MS: u64 = 3_200;

/// A session is watched so long for what may not come; shorter than any silence that ends it.
const WATCHED_MS: u64 = 8_000;

/// Whoever does not read is sent away before: by then the slowest network has filled the largest
/// buffers.
const DEAF_MS: u64 = 240_000;

/// Between two tricks.
const PAUSE_MS: RangeInclusive<u64> = 10..=10_000;

/// Between LoginReply and what follows it.
const SOON_MS: RangeInclusive<u64> = 0..=500;

/// A reader that stops asks so often, so much at once.
const FLOOD_EVERY_MS: u64 = 50;
const FLOOD_HEARTBEATS: u16 = 400;

/// Tickets on the black market.
const OVERHEARD_MAX: usize = 64;

/// A ticket that somebody saw on its way to its device.
#[derive(Clone, Debug)]
pub struct Overheard {
    pub node: usize,
    pub source: IpAddr,
    pub ticket: Ticket,
}

/// What a login earned.
#[derive(Clone, Debug)]
struct Earned {
    /// Of the conn server that granted it, where there is but one: another does not know the login.
    generation: Option<u32>,
    node: usize,
    ticket: Ticket,
    session_key: SessionKey,
}

#[derive(Debug)]
pub struct HostileNode {
    account: usize,
    rng: SmallRng,
    wakes_at_ms: u64,
    visits: u64,
    records: u64,
    trick: Trick,
    /// What the present trick does on its next connection.
    next: Act,
    visit: Option<Visit>,
    /// The last login that was right, with its nonce, and what it earned.
    login: Vec<u8>,
    nonce: Nonce,
    earned: Option<Earned>,
    /// What the cluster's clock is ahead of the world's.
    clock_offset_ms: i64,
    /// How often each trick was answered as the contract has it.
    pub answered: BTreeMap<Trick, u64>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Rest,
    Door(AtDoor),
    Login,
    Attach,
    Gate(AtGate),
    Session(InSession),
}

#[derive(Debug)]
struct Visit {
    stream: Stream,
    number: u64,
    act: Act,
    due: Due,
    /// What was due has come.
    is_answered: bool,
    /// Whether the server has a grant for this address; where not, nothing is said to it.
    has_grant: bool,
    connected_at_ms: Option<u64>,
    attached_at_ms: u64,
    until_ms: u64,
    heard: Vec<u8>,
    unsent: Vec<u8>,
    sent: usize,
    window: u16,
    /// Telemetry frames answered `overloaded`, one after another.
    overloaded: u32,
    /// The Attach that it sent.
    attach: Option<Attach>,
}

impl HostileNode {
    /// The one with this number among them, and with the account of this number.
    pub fn new(account: usize, rng: SmallRng) -> Self {
        Self {
            account,
            rng,
            wakes_at_ms: 0,
            visits: 0,
            records: 0,
            trick: Trick::Door(AtDoor::Nothing),
            next: Act::Rest,
            visit: None,
            login: vec![],
            nonce: Nonce([0; 16]),
            earned: None,
            clock_offset_ms: 0,
            answered: BTreeMap::new(),
        }
    }

    pub fn account_id(&self) -> AccountId {
        account_of(self.account)
    }

    fn address(&self) -> IpAddr {
        IpAddr::from([12, (self.account >> 8) as u8, self.account as u8, 1])
    }

    /// From which nobody ever logged in.
    fn other_address(&mut self) -> IpAddr {
        let [a, b] = self.rng.random();
        IpAddr::from([13, self.account as u8, a, b])
    }

    /// The next trick, and its first connection.
    fn begin(&mut self) {
        // Who guesses keys goes on for a while.
        let goes_on = self.trick == Trick::Door(AtDoor::WrongProof);
        if !goes_on || self.rng.random_ratio(1, 20) {
            self.trick = Trick::draw(&mut self.rng);
        }
        self.next = match self.trick {
            Trick::Door(AtDoor::Replay) if self.login.is_empty() => Act::Login,
            Trick::Door(trick) => Act::Door(trick),
            Trick::Gate(_) | Trick::Session(_) => Act::Login,
        };
    }
}

impl World {
    /// The device that does not keep the contract, with its tricks and where they stand.
    pub fn wake_hostile(&mut self, index: usize) -> Result<(), Broken> {
        if self.hostile[index].wakes_at_ms > self.now_ms {
            return Ok(());
        }
        if let Some(visit) = &self.hostile[index].visit {
            if self.now_ms >= visit.until_ms {
                return self.hostile_waited(index);
            }
            if visit.act == Act::Session(InSession::Deaf) {
                self.flood(index)?;
            }
        } else {
            self.hostile_visits(index);
        }
        self.arm_hostile(index);
        Ok(())
    }

    fn arm_hostile(&mut self, index: usize) {
        let hostile = &mut self.hostile[index];
        let at_ms = match &hostile.visit {
            Some(visit) if visit.act == Act::Session(InSession::Deaf) => {
                visit.until_ms.min(self.now_ms + FLOOD_EVERY_MS)
            }
            Some(visit) => visit.until_ms,
            None => return,
        };
        hostile.wakes_at_ms = at_ms;
        self.schedule(at_ms.max(self.now_ms), Event::WakeHostile(index));
    }

    /// Nothing is done until then.
    fn hostile_rests(&mut self, index: usize, pause_ms: RangeInclusive<u64>) {
        let hostile = &mut self.hostile[index];
        let at_ms = self.now_ms + hostile.rng.random_range(pause_ms);
        hostile.wakes_at_ms = at_ms;
        self.schedule(at_ms, Event::WakeHostile(index));
    }

    // ---- connecting ---------------------------------------------------------------------------

    fn hostile_visits(&mut self, index: usize) {
        let unix_ms = true_unix_ms(self.now_ms);
        let overheard = self.overheard.len();
        let doors = self.balancers.len();
        let hostile = &mut self.hostile[index];
        let door = Process::balancer(hostile.rng.random_range(0..doors));
        if hostile.next == Act::Rest {
            hostile.begin();
        }
        let act = std::mem::replace(&mut hostile.next, Act::Rest);
        let mut source = hostile.address();
        let earned = hostile.earned.clone();
        let own = earned
            .as_ref()
            .map(|earned| Attach::sign(earned.ticket, &earned.session_key));
        let (server, due, bytes) = match (act, &earned, own) {
            (Act::Door(trick), ..) => (
                door,
                Due::at_door(trick),
                hostile.door_bytes(trick, unix_ms),
            ),
            (Act::Login, ..) => (door, Due::login(), hostile.right_login(unix_ms)),
            (Act::Attach, Some(earned), Some(own)) => {
                let node = Process::logic(earned.node);
                (node, Due::attach(), tricks::attach(&own))
            }
            (Act::Gate(trick), Some(earned), Some(own)) => {
                let mut node = earned.node;
                let mut due = Due::at_gate(trick);
                let mut stolen = None;
                match trick {
                    AtGate::Stolen | AtGate::StolenNearby if overheard > 0 => {
                        let other = &self.overheard[hostile.rng.random_range(0..overheard)];
                        stolen = Some(other.ticket);
                        node = other.node;
                        if trick == AtGate::StolenNearby {
                            source = other.source;
                        }
                    }
                    AtGate::Elsewhere => {
                        // From where nobody comes, or from where another is waited for.
                        let model = &self.model;
                        let is_waited_for = |it: &&Overheard| {
                            let is_other = it.node == node && it.source != source;
                            is_other && model.admits_from(node, it.source, self.now_ms)
                        };
                        let waited_for: Vec<_> =
                            self.overheard.iter().filter(is_waited_for).collect();
                        source = match waited_for.len() {
                            0 => hostile.other_address(),
                            count => waited_for[hostile.rng.random_range(0..count)].source,
                        };
                        if !self.plan.source_exact {
                            due = Due::attach();
                        }
                    }
                    _ => {}
                }
                let bytes = hostile.gate_bytes(trick, &own, stolen);
                (Process::logic(node), due, bytes)
            }
            (Act::Rest | Act::Session(_) | Act::Attach | Act::Gate(_), ..) => {
                return self.hostile_rests(index, PAUSE_MS);
            }
        };
        hostile.visits += 1;
        let number = hostile.visits;
        let client = Client::Hostile {
            index,
            visit: number,
        };
        let stream = self.network.open(client, server, source);
        let hostile = &mut self.hostile[index];
        hostile.visit = Some(Visit {
            stream,
            number,
            act,
            due,
            is_answered: false,
            has_grant: true,
            connected_at_ms: None,
            attached_at_ms: 0,
            until_ms: self.now_ms + ANSWERED_MS,
            heard: vec![],
            unsent: bytes,
            sent: 0,
            window: 0,
            overloaded: 0,
            attach: own,
        });
        let at_ms = self.now_ms + self.network.delay_ms();
        self.schedule(at_ms, Event::Reaches { stream });
    }

    /// The server has accepted; what it makes of the address it makes now.
    pub fn hostile_connected(&mut self, index: usize, number: u64) -> Result<(), Broken> {
        let stream = self.hostile_visit(index, number).map(|visit| visit.stream);
        let Some(connection) = stream.and_then(|stream| self.network.connection(stream)) else {
            return Ok(());
        };
        let Process { tier, index: node } = connection.server;
        let source = connection.source;
        let has_grant = tier != Tier::Logic || self.model.admits_from(node, source, self.now_ms);
        let now_ms = self.now_ms;
        if let Some(visit) = self.hostile_visit(index, number) {
            visit.connected_at_ms = Some(now_ms);
            visit.has_grant = has_grant;
            if matches!(
                visit.act,
                Act::Door(AtDoor::Nothing) | Act::Gate(AtGate::Nothing)
            ) {
                return self.hostile_is_done(index, true);
            }
        }
        self.hostile_flushes(index);
        Ok(())
    }

    fn hostile_visit(&mut self, index: usize, number: u64) -> Option<&mut Visit> {
        let visit = self.hostile[index].visit.as_mut();
        visit.filter(|visit| visit.number == number)
    }

    /// Sends what its kernel takes; `false`: the connection is gone.
    fn hostile_flushes(&mut self, index: usize) -> bool {
        let Some(visit) = &mut self.hostile[index].visit else {
            return false;
        };
        let (now_ms, deliveries) = (self.now_ms, &mut self.deliveries);
        let taken = self.network.write(
            visit.stream,
            Side::Client,
            &visit.unsent,
            now_ms,
            deliveries,
        );
        let taken_bytes = taken.unwrap_or_default();
        visit.sent += taken_bytes;
        visit.unsent.drain(..taken_bytes);
        taken.is_some()
    }

    /// A reader that stopped asks on.
    fn flood(&mut self, index: usize) -> Result<(), Broken> {
        if let Some(visit) = &mut self.hostile[index].visit
            && visit.unsent.len() < 64 * 1_024
        {
            for id in 1..=FLOOD_HEARTBEATS {
                visit.unsent.extend(tricks::heartbeat(id));
            }
        }
        match self.hostile_flushes(index) {
            true => Ok(()),
            // It was sent away.
            false => self.hostile_is_done(index, true),
        }
    }

    // ---- the end of a connection --------------------------------------------------------------

    /// The other side is done with it.
    fn hostile_ended(&mut self, index: usize, by_reset: bool) -> Result<(), Broken> {
        let Some(visit) = &self.hostile[index].visit else {
            return Ok(());
        };
        let is_due = !visit.due.one_of.is_empty() && !visit.is_answered && visit.has_grant;
        // A reset may overtake the answer to more than the server had to read.
        let may_be_lost = by_reset && visit.sent > self.plan.receive_bytes;
        // Where too many wait, the oldest has to go without a word.
        let may_be_shed = !visit.due.is_session && self.plan.sheds();
        let is_hurt = self.network.is_hurt(visit.stream);
        if is_due && !may_be_lost && !may_be_shed && !is_hurt {
            return Err(self.unlike_the_contract(index, "left without an answer"));
        }
        let as_due = !is_hurt && (visit.is_answered || !visit.has_grant);
        self.hostile_is_done(index, as_due)
    }

    /// It has waited long enough.
    fn hostile_waited(&mut self, index: usize) -> Result<(), Broken> {
        let Some(visit) = &self.hostile[index].visit else {
            return Ok(());
        };
        let is_hurt = self.network.is_hurt(visit.stream);
        // Of the others the server makes an end.
        let may_stay = matches!(
            visit.act,
            Act::Session(InSession::Overrun) | Act::Gate(AtGate::EarlyFits | AtGate::EarlyTooMuch)
        );
        let is_over = may_stay && visit.is_answered;
        if !is_over && !is_hurt {
            return Err(self.unlike_the_contract(index, "neither answered nor closed in time"));
        }
        self.hostile_is_done(index, is_over && !is_hurt)
    }

    /// Goes; what comes next begins after a while.
    fn hostile_is_done(&mut self, index: usize, as_due: bool) -> Result<(), Broken> {
        let hostile = &mut self.hostile[index];
        let Some(visit) = hostile.visit.take() else {
            return Ok(());
        };
        let is_the_trick = match hostile.trick {
            Trick::Door(trick) => visit.act == Act::Door(trick),
            Trick::Gate(trick) => visit.act == Act::Gate(trick),
            Trick::Session(trick) => visit.act == Act::Session(trick),
        };
        if is_the_trick && as_due {
            *hostile.answered.entry(hostile.trick).or_default() += 1;
        }
        if visit.act == Act::Gate(AtGate::WrongProof) {
            hostile.next = Act::Attach;
        }
        self.network.close(
            visit.stream,
            Side::Client,
            self.now_ms,
            &mut self.deliveries,
        );
        let pause_ms = match self.hostile[index].next {
            Act::Rest => PAUSE_MS,
            _ => SOON_MS,
        };
        self.hostile_rests(index, pause_ms);
        Ok(())
    }

    fn unlike_the_contract(&self, index: usize, what: &str) -> Broken {
        let hostile = &self.hostile[index];
        Broken(format!(
            "contract: {} in {:?} is {what}: {:?}",
            account_name(hostile.account),
            hostile.trick,
            hostile.visit
        ))
    }

    /// A ticket is on its way to its device, in the clear.
    pub fn overhear(&mut self, overheard: Overheard) {
        if self.overheard.len() >= OVERHEARD_MAX {
            let which = self.rng.random_range(0..OVERHEARD_MAX);
            self.overheard.swap_remove(which);
        }
        self.overheard.push(overheard);
    }
}

/// Those of a plan.
pub fn hostiles(plan: &Plan, mut fork: impl FnMut() -> SmallRng) -> Vec<HostileNode> {
    (0..plan.hostiles())
        .map(|index| HostileNode::new((plan.devices + index) as usize, fork()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Class, Overrides};

    /// A trick that nobody ever plays to its end shows nothing.
    #[test]
    fn every_trick_is_answered_as_the_contract_has_it() {
        let mut answered: BTreeMap<Trick, u64> = BTreeMap::new();
        for seed in 0..30 {
            let overrides = Overrides {
                devices: Some(20),
                faults_ms: Some(300_000),
                classes: Some(vec![Class::Hostile, Class::ByteByByte]),
            };
            let plan = Plan::draw(seed, &overrides);
            if plan.hostiles() == 0 {
                continue;
            }
            let mut world = World::new(plan);
            world
                .run()
                .unwrap_or_else(|broken| panic!("seed {seed}: {}", broken.0));
            for hostile in &world.hostile {
                for (trick, times) in &hostile.answered {
                    *answered.entry(*trick).or_default() += times;
                }
            }
        }
        let never: Vec<_> = Trick::all()
            .into_iter()
            .filter(|trick| !answered.contains_key(trick))
            .collect();
        assert!(never.is_empty(), "never answered: {never:?}");
    }
}
