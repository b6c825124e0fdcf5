//! The simulated cluster: every core of the product, on one event heap.
//!
//! Time moves only by taking the next event from the heap; of two at the same time the one that was
//! put there first comes first. All randomness comes from the plan's seed. The modules beside this
//! one carry out what the cores ask for: they are the shells of this world.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::LinkId;
use common::link::message::Message;
use common::time::Now;
use logic_server::writer::Work;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::accounts::{Accounts, Request};
use crate::balancer::BalancerNode;
use crate::conn::{ConnMail, ConnNode};
use crate::device::DeviceNode;
use crate::fingerprint::Fingerprint;
use crate::heap::Heap;
use crate::hostile::{self, HostileNode, Overheard};
use crate::links::{self, LinkMail, Links, Part};
use crate::logic::LogicNode;
use crate::marks::{Mark, Marks};
use crate::model::{Broken, Model};
use crate::network::{self, Network, Side, Stream};
use crate::operator::Operator;
use crate::plan::{Class, Plan};
use crate::process::{Life, Mail, Process, Thread, Tier};
use crate::stillness::Silence;
use crate::store::{Fate, Store};
use crate::trace::Tracer;

/// More events at one moment are a loop that never lets time go on.
const EVENTS_AT_ONCE_MAX: u64 = 5_000_000;

/// How many devices use the account of another one, where any does.
const CLONES: RangeInclusive<u32> = 1..=3;

/// How far a wall clock is off that is kept.
pub const OFF_MS: RangeInclusive<i64> = -500..=500;
// An event is moved into its place and out of it; a large one has a box.
const _: () = assert!(size_of::<Event>() <= 128);

/// Once everything is quiet the table of sessions is right within so long.
const PRESENCE_MS: u64 = 10_000;

/// Everything that can happen in the world.
#[derive(Debug)]
pub enum Event {
    WakeDevice(usize),
    WakeHostile(usize),
    /// The answer to a device's look-up of the cluster's name.
    Resolved {
        device: usize,
    },
    /// A connection is lost, and its server is not told.
    Flaps {
        stream: Stream,
    },
    /// A connection reaches its server.
    Reaches {
        stream: Stream,
    },
    /// An end of a stream is worth a look.
    Arrives {
        stream: Stream,
        to: Side,
    },
    Link {
        link: LinkId,
        to: Process,
        mail: Box<LinkMail>,
    },
    /// An end of a link has heard nothing for too long, if the reason lasts.
    Silent {
        link: LinkId,
        by: Process,
        silence: Silence,
    },
    /// A process that was stopped then goes on.
    Resume {
        process: Process,
        since_ms: u64,
    },
    /// A process that goes on finds what waited for it.
    WorkOff {
        process: Process,
        generation: u32,
    },
    /// A cut is over.
    Open {
        cut: u64,
    },
    /// Within a process, or from its database.
    Mail {
        to: Process,
        generation: u32,
        mail: Mail,
    },
    /// A transaction ends. Of one whose process died meanwhile nobody hears, but it may have been
    /// committed all the same, until the process starts again.
    Written {
        to: Process,
        generation: u32,
        work: Box<Work>,
        fate: Fate,
    },
    /// The accounts database comes to a conn server's request.
    Asked {
        to: Process,
        generation: u32,
        request: Request,
    },
    /// It is back.
    AccountsBack,
    /// A device is given the key of its account.
    KeyGiven {
        device: usize,
    },
    Restart(Process),
    Fault(Class),
    /// Faults end; what was broken comes back.
    Heal,
}

#[derive(Debug)]
pub struct World {
    pub plan: Plan,
    pub now_ms: u64,
    heap: Heap<Event>,
    pub rng: SmallRng,
    pub network: Network,
    pub links: Links,
    pub store: Store,
    pub model: Model,
    /// Hit so far; what processes that live count joins at their end.
    pub marks: Marks,
    pub accounts: Accounts,
    pub devices: Vec<DeviceNode>,
    pub hostile: Vec<HostileNode>,
    pub operator: Operator,
    /// Tickets that others saw.
    pub overheard: Vec<Overheard>,
    pub balancers: Vec<BalancerNode>,
    pub conns: Vec<ConnNode>,
    pub logic: Vec<LogicNode>,
    /// By tier and index, as the nodes are.
    lives: [Vec<Life>; 3],
    /// Cuts of ways between processes until now.
    pub cuts: u64,
    /// What a replayer heard: where to, from which address, which bytes.
    pub recorded: Vec<(Process, IpAddr, Vec<u8>)>,
    /// Since when every process and every link stands.
    pub healed_at_ms: Option<u64>,
    pub is_healed: bool,
    /// The judge has been told that everything stands.
    is_recovering: bool,
    pub events: u64,
    trace: Fingerprint,
    /// Devices that are not at rest.
    pub restless: usize,
    /// Whoever wants to read what happens.
    pub tracer: Option<Box<Tracer>>,
    pub deliveries: Vec<network::Delivery>,
    pub link_deliveries: Vec<links::Delivery>,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x5EED);
        let mut fork = || SmallRng::seed_from_u64(rng.random());
        let network = Network::new(&plan, fork());
        let links = Links::new(plan.link_ms.clone(), fork());
        let store = Store::new(plan.faults.clone(), fork());
        let mut devices: Vec<_> = (0..plan.devices as usize)
            .map(|account| DeviceNode::new(&plan, account, fork()))
            .collect();
        for account in 0..plan.devices as usize {
            let mut rng = fork();
            if rng.random_range(0..1_000) < plan.faults.of_1000(Class::Clone) {
                let clones = 1..=rng.random_range(CLONES);
                devices.extend(clones.map(|nth| DeviceNode::clone_of(&plan, account, nth, fork())));
            }
        }
        let devices_in_all = devices.len();
        let hostile = hostile::hostiles(&plan, &mut fork);
        let balancers = (0..plan.balancers.into())
            .map(|_| BalancerNode::start(&plan, fork().random()))
            .collect();
        let conns = (0..plan.conn_servers.into())
            .map(|index| ConnNode::start(&plan, index, Epoch::ZERO, None, fork().random()))
            .collect();
        let logic = (0..plan.logic_servers.into())
            .map(|node| LogicNode::start(&plan, logic_address(node), fork().random()))
            .collect();
        let lives = [plan.balancers, plan.conn_servers, plan.logic_servers].map(|count| {
            (0..count)
                .map(|_| Life::on_host(fork().random_range(OFF_MS)))
                .collect()
        });
        let mut world = Self {
            now_ms: 0,
            heap: Heap::default(),
            rng: fork(),
            network,
            links,
            store,
            model: Model::new(&plan, devices_in_all),
            marks: Marks::default(),
            accounts: Accounts::new((plan.devices + plan.hostiles()) as usize),
            devices,
            hostile,
            operator: Operator::new(fork()),
            overheard: vec![],
            balancers,
            conns,
            logic,
            lives,
            cuts: 0,
            recorded: vec![],
            healed_at_ms: None,
            is_healed: false,
            is_recovering: false,
            events: 0,
            trace: Fingerprint::default(),
            restless: devices_in_all,
            tracer: None,
            deliveries: vec![],
            link_deliveries: vec![],
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for process in self.processes() {
            let at_ms = self.rng.random_range(0..2_000);
            self.schedule(at_ms, Event::Restart(process));
        }
        let mut wakes_at_ms = vec![];
        for device in 0..self.devices.len() {
            // One with the account of another comes with it: of two logins at once one is older.
            let drawn_ms = self.rng.random_range(0..5_000);
            let twin = self.devices[device].twin();
            let at_ms = twin.map_or(drawn_ms, |twin| wakes_at_ms[twin]);
            wakes_at_ms.push(at_ms);
            self.schedule(at_ms, Event::WakeDevice(device));
        }
        for index in 0..self.hostile.len() {
            let at_ms = self.rng.random_range(0..5_000);
            self.schedule(at_ms, Event::WakeHostile(index));
        }
        self.begin_faults();
        self.schedule(self.plan.faults_ms, Event::Heal);
        self.flush();
    }

    /// Runs until the faults are over, everything is healed, and every record is stored and acknowledged.
    ///
    /// # Errors
    /// A promise was broken, now.
    pub fn run(&mut self) -> Result<(), Broken> {
        let end_ms = self.plan.faults_ms + self.plan.heal_ms;
        let mut at_once = 0;
        let mut rest_ms = None;
        while let Some((at_ms, event)) = self.heap.pop() {
            at_once = if at_ms == self.now_ms { at_once + 1 } else { 0 };
            if at_once > EVENTS_AT_ONCE_MAX {
                return Err(Broken(
                    "time stands still: cores wake one another for ever".into(),
                ));
            }
            self.now_ms = at_ms;
            if self.now_ms > end_ms {
                let restless = self.devices.iter().filter(|device| !device.is_at_rest());
                let restless: Vec<_> = restless.map(DeviceNode::state).collect();
                return Err(Broken(format!(
                    "L2: {} s after the heal not at rest: {}",
                    self.plan.heal_ms / 1_000,
                    restless.join("; ")
                )));
            }
            self.events += 1;
            self.trace.event(self.now_ms, &event);
            self.happen(event)?;
            self.model.check(self.now_ms, self.healed_at_ms)?;
            if self.restless > 0 || !self.model.is_recovered() {
                rest_ms = None;
            } else if self.operator.has_open() {
                self.check_answered()?;
            } else if self.has_presence(&mut rest_ms)? {
                return self.model.check_at_rest(&self.store);
            }
        }
        Err(Broken(
            "the world stopped: nothing is left to happen".into(),
        ))
    }

    /// The same for the same seed and the same code.
    pub fn trace_hash(&self) -> u64 {
        let mut trace = self.trace;
        trace.join(self.network.passed);
        trace.value()
    }

    /// What the run has hit, to be asked for at its end.
    pub fn marks(&self) -> Marks {
        let mut marks = self.marks.clone();
        for process in self.processes() {
            if self.life(process).is_up {
                self.count_into(process, &mut marks);
            }
        }
        for class in self.store.came() {
            marks.hit(Mark::Fault(*class));
        }
        if self.network.came_byte_by_byte() {
            marks.hit(Mark::Fault(Class::ByteByByte));
        }
        for hostile in &self.hostile {
            marks.tricks(&hostile.answered);
        }
        marks.answers(&self.operator.answers);
        marks
    }

    /// A process ends: what it has counted would be lost.
    pub fn keep_counted(&mut self, process: Process) {
        let mut marks = std::mem::take(&mut self.marks);
        self.count_into(process, &mut marks);
        self.marks = marks;
    }

    /// Adds what a process has counted in its life.
    fn count_into(&self, process: Process, marks: &mut Marks) {
        match process.tier {
            Tier::Balancer => self.balancers[process.index].count_into(marks),
            Tier::Conn => self.conns[process.index].count_into(marks),
            Tier::Logic => self.logic[process.index].count_into(marks),
        }
    }

    /// Whether the table of sessions has come right; it follows a while after the last one.
    fn has_presence(&self, rest_ms: &mut Option<u64>) -> Result<bool, Broken> {
        let since_ms = *rest_ms.get_or_insert(self.now_ms);
        let last = account_of(self.plan.devices as usize - 1);
        match self.model.check_presence(last, &self.store) {
            Ok(()) => Ok(true),
            Err(broken) if self.now_ms > since_ms + PRESENCE_MS => Err(broken),
            Err(_) => Ok(false),
        }
    }

    /// The time as a process sees it.
    pub fn now(&self, process: Process) -> Now {
        let clock = self.life(process).clock;
        Now {
            ms: clock.ms(self.now_ms),
            unix_ms: clock.unix_ms(self.now_ms),
        }
    }

    /// `at_ms` is not in the past.
    pub fn schedule(&mut self, at_ms: u64, event: Event) {
        debug_assert!(at_ms >= self.now_ms);
        self.heap.push(at_ms, event);
    }

    /// A process says something on a link.
    pub fn says(&mut self, link: LinkId, from: Process, part: Part, message: Message) {
        let (now_ms, deliveries) = (self.now_ms, &mut self.link_deliveries);
        self.links
            .say(link, from, part, message, now_ms, deliveries);
    }

    /// The time that a mailbox between two threads takes.
    pub fn soon(&mut self) -> u64 {
        self.now_ms + self.rng.random_range(0..=2)
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        self.trace_event(&event);
        match event {
            Event::WakeDevice(device) => self.wake_device(device)?,
            Event::WakeHostile(index) => self.wake_hostile(index)?,
            Event::Resolved { device } => self.resolved(device)?,
            Event::Flaps { .. } if self.is_healed => {}
            Event::Flaps { stream } => {
                self.marks.hit(Mark::Fault(Class::Flap));
                self.fall_silent(stream)?;
            }
            Event::Reaches { stream } => self.reaches(stream)?,
            Event::Arrives { stream, to } => {
                let whose = self
                    .network
                    .arrives(stream, to, self.now_ms, &mut self.deliveries);
                if let Some((client, server)) = whose {
                    self.arrives(stream, to, client, server)?;
                }
            }
            Event::Link { link, to, mail } => self.deliver(to, Mail::Link { link, mail })?,
            Event::Silent { link, by, silence } => self.silent(link, by, silence),
            Event::Resume { process, since_ms } => self.resume(process, since_ms),
            Event::WorkOff {
                process,
                generation,
            } => self.work_off(process, generation)?,
            Event::Open { cut } => self.open_ways(cut),
            Event::Mail {
                to,
                generation,
                mail,
            } => self.deliver_to(to, generation, mail)?,
            Event::Written {
                to,
                generation,
                work,
                fate,
            } => {
                if self.life(to).generation == generation {
                    let result = self.write(to.index, &work, fate)?;
                    self.trace_write(to, generation, &work, fate, &result);
                    self.deliver_to(to, generation, Mail::Written { work, result })?;
                }
            }
            Event::Asked {
                to,
                generation,
                request,
            } => {
                let reply = ConnMail::Reply(self.accounts.answer(to.index, request));
                self.deliver_to(to, generation, Mail::Conn(Box::new(reply)))?;
            }
            Event::AccountsBack => self.accounts_back(),
            Event::KeyGiven { device } => self.give_key(device)?,
            Event::Restart(process) => self.restart(process)?,
            Event::Fault(class) => self.fault(class)?,
            Event::Heal => self.heal()?,
        }
        self.flush();
        if self.is_healed && !self.is_recovering && self.healed_at_ms.is_some() {
            self.is_recovering = true;
            let devices = 0..self.devices.len();
            let situations: Vec<_> = devices.map(|index| self.situation(index)).collect();
            self.model.healed(self.now_ms, |index| situations[index]);
        }
        Ok(())
    }

    // ---- the processes ------------------------------------------------------------------------

    pub fn life(&self, process: Process) -> &Life {
        &self.lives[process.tier as usize][process.index]
    }

    pub fn life_mut(&mut self, process: Process) -> &mut Life {
        &mut self.lives[process.tier as usize][process.index]
    }

    /// All of them, tier by tier.
    pub fn processes(&self) -> Vec<Process> {
        let tiers = [Tier::Balancer, Tier::Conn, Tier::Logic];
        let of =
            |tier| (0..self.lives[tier as usize].len()).map(move |index| Process { tier, index });
        tiers.into_iter().flat_map(of).collect()
    }

    /// Mail to a process from within, or from its database, after a while.
    pub fn mail(&mut self, to: Process, at_ms: u64, mail: Mail) {
        let generation = self.life(to).generation;
        self.schedule(
            at_ms,
            Event::Mail {
                to,
                generation,
                mail,
            },
        );
    }

    fn deliver_to(&mut self, to: Process, generation: u32, mail: Mail) -> Result<(), Broken> {
        match self.life(to).is_current(generation) {
            true => self.deliver(to, mail),
            false => {
                self.trace_mail(to, &mail, false);
                Ok(())
            }
        }
    }

    /// Hands over what has come to a process, if there is one and it is not stopped.
    pub fn deliver(&mut self, to: Process, mail: Mail) -> Result<(), Broken> {
        let life = self.life_mut(to);
        if !life.is_up {
            return Ok(());
        }
        match &mut life.pause {
            Some(pause) => {
                pause.held.push_back(mail);
                Ok(())
            }
            None => self.take(to, mail),
        }
    }

    /// A process takes what has come to it.
    pub fn take(&mut self, to: Process, mail: Mail) -> Result<(), Broken> {
        self.trace_mail(to, &mail, true);
        let Process { tier, index } = to;
        match (tier, mail) {
            (_, Mail::Link { link, mail }) => {
                let ends = self.links.ends(link);
                let is_heard = self.links.arrives(link, to, &mail, self.now_ms);
                self.trace_link(link, to, &mail, is_heard);
                if !matches!(*mail, LinkMail::Said { .. }) {
                    self.note_health();
                }
                if matches!(*mail, LinkMail::Down)
                    && let Some(ends) = ends.filter(|ends| ends[0] == to)
                {
                    self.redial(ends);
                }
                if is_heard {
                    match tier {
                        Tier::Balancer => self.balancer_link(index, link, *mail),
                        Tier::Conn => self.conn_link(index, link, *mail)?,
                        Tier::Logic => self.logic_link(index, link, *mail)?,
                    }
                }
            }
            (_, Mail::End(ending)) => self.end(to, ending)?,
            (_, Mail::Dial { to: lower }) => self.dial(to, lower),
            (Tier::Balancer, Mail::Accept { stream }) => self.balancer_accepts(index, stream),
            (Tier::Balancer, Mail::Stream { stream }) => self.balancer_ready(index, stream),
            (Tier::Balancer, Mail::Wake(_)) => self.balancer_timer(index),
            (Tier::Conn, Mail::Conn(mail)) => self.conn_mail(index, *mail)?,
            (Tier::Conn, Mail::Wake(_)) => self.conn_timer(index)?,
            (Tier::Logic, Mail::Accept { stream }) => self.logic_accepts(index, stream)?,
            (Tier::Logic, Mail::Stream { stream }) => self.logic_ready(index, stream)?,
            (Tier::Logic, Mail::Wake(Thread::Shard(shard))) => self.shard_timer(index, shard)?,
            (Tier::Logic, Mail::Wake(Thread::Writer)) => self.writer_timer(index),
            (Tier::Logic, Mail::Wake(_)) => self.gate_timer(index)?,
            (Tier::Logic, Mail::Gate(mail)) => self.gate_mail(index, mail)?,
            (Tier::Logic, Mail::Shard { shard, mail }) => self.shard_mail(index, shard, *mail)?,
            (Tier::Logic, Mail::Batch(batch)) => self.submit(index, *batch),
            (Tier::Logic, Mail::Written { work, result }) => self.written(index, *work, result),
            (tier, mail) => unreachable!("{mail:?} came to a {tier:?}"),
        }
        Ok(())
    }

    /// Puts what the fake networks took into the heap.
    pub fn flush(&mut self) {
        self.trace_sent();
        let mut deliveries = std::mem::take(&mut self.deliveries);
        for delivery in deliveries.drain(..) {
            let network::Delivery { at_ms, stream, to } = delivery;
            self.schedule(at_ms, Event::Arrives { stream, to });
        }
        self.deliveries = deliveries;
        let mut link_deliveries = std::mem::take(&mut self.link_deliveries);
        for delivery in link_deliveries.drain(..) {
            let links::Delivery {
                at_ms,
                link,
                to,
                mail,
            } = delivery;
            let mail = Box::new(mail);
            self.schedule(at_ms, Event::Link { link, to, mail });
        }
        self.link_deliveries = link_deliveries;
    }

    // ---- the internet -------------------------------------------------------------------------

    /// A connection comes to its server, which may not be there.
    fn reaches(&mut self, stream: Stream) -> Result<(), Broken> {
        let Some(connection) = self.network.connection(stream) else {
            return Ok(());
        };
        let (client, server) = (connection.client, connection.server);
        let life = self.life(server);
        // A balancer that ends stops to listen at once; a logic server says when to come again.
        let listens = life.is_up && !(life.is_closing && server.tier == Tier::Balancer);
        let fails = listens
            && !self.is_healed
            && self.rng.random_range(0..1_000) < self.plan.faults.of_1000(Class::ConnectFails);
        if fails {
            self.marks.hit(Mark::Fault(Class::ConnectFails));
        }
        if fails || !listens {
            self.network
                .refuse(stream, self.now_ms, &mut self.deliveries);
            return Ok(());
        }
        if self.network.is_exhausted(server, self.now_ms) {
            self.network
                .refuse(stream, self.now_ms, &mut self.deliveries);
            if server.tier == Tier::Balancer {
                self.balancer_turns_away_unseen(server.index);
            }
            return Ok(());
        }
        let life = self.life(server);
        if life.pause.is_some() || life.is_closing {
            self.network.hurt(stream);
        }
        self.deliver(server, Mail::Accept { stream })?;
        match client {
            network::Client::Device { index, conn } => self.device_connected(index, conn),
            network::Client::Hostile { index, visit } => self.hostile_connected(index, visit),
            network::Client::Replayer => Ok(()),
        }
    }

    fn arrives(
        &mut self,
        stream: Stream,
        to: Side,
        client: network::Client,
        server: Process,
    ) -> Result<(), Broken> {
        match (to, client) {
            (Side::Client, network::Client::Device { index, conn }) => {
                self.device_ready(index, conn, stream)
            }
            (Side::Client, network::Client::Hostile { index, visit }) => {
                self.hostile_ready(index, visit)
            }
            (Side::Client, network::Client::Replayer) => {
                self.replayer_ready(stream);
                Ok(())
            }
            (Side::Server, _) => self.deliver(server, Mail::Stream { stream }),
        }
    }

    // ---- the links ----------------------------------------------------------------------------

    /// The processes that are linked: the upper tier dials.
    pub fn pairs(&self) -> Vec<[Process; 2]> {
        let balancers = (0..self.balancers.len()).map(Process::balancer);
        let conns = || (0..self.conns.len()).map(Process::conn);
        let logic = || (0..self.logic.len()).map(Process::logic);
        let upper = balancers.flat_map(|upper| conns().map(move |lower| [upper, lower]));
        let lower = conns().flat_map(|upper| logic().map(move |lower| [upper, lower]));
        upper.chain(lower).collect()
    }

    /// Keeps `healed_at_ms` true: called when a process or a link goes or comes.
    pub fn note_health(&mut self) {
        for conn in 0..self.conns.len() {
            for node in 0..self.logic.len() {
                let ends = [Process::conn(conn), Process::logic(node)];
                let are_up = ends.iter().all(|end| self.life(*end).runs());
                let is_linked = are_up && self.links.stands(ends[0], ends[1]);
                self.model.linked(conn, node, is_linked, self.now_ms);
            }
        }
        let is_whole = self.accounts.is_there()
            && self.lives.iter().flatten().all(Life::runs)
            && self
                .pairs()
                .into_iter()
                .all(|[a, b]| self.links.stands(a, b));
        if !is_whole {
            self.healed_at_ms = None;
        } else if self.healed_at_ms.is_none() {
            self.healed_at_ms = Some(self.now_ms);
        }
    }
}

/// Where devices reach a logic server.
pub fn logic_address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, node as u8 + 1], 20_000))
}

/// Where devices reach a balancer.
pub fn balancer_address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 10_000))
}

/// Where balancers link to a conn server.
pub fn conn_address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 2, index as u8 + 1], 10_100))
}

/// Accounts are numbered as their devices are.
pub fn account_of(device: usize) -> AccountId {
    AccountId(device as i64 + 1)
}
