//! The simulated cluster: every core of the product, on one event heap.
//!
//! Time moves only by taking the next event from the heap; of two at the same time the one that was
//! put there first comes first. All randomness comes from the plan's seed. The modules beside this
//! one carry out what the cores ask for: they are the shells of this world.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use common::ids::AccountId;
use common::link::LinkId;
use logic_server::batch::Batch;
use logic_server::ids::Now;
use logic_server::writer::Work;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::balancer::BalancerNode;
use crate::conn::{ConnMail, ConnNode};
use crate::device::DeviceNode;
use crate::links::{self, End, LinkMail, Links};
use crate::logic::{GateMail, LogicNode, ShardMail};
use crate::model::{Broken, Model};
use crate::network::{self, Arrival, Network, Side, Stream};
use crate::plan::{Class, Plan};
use crate::store::{Fate, Store};

/// Where the simulated wall clock stands at the beginning: 2026-01-01T00:00:00Z.
const EPOCH_UNIX_MS: u64 = 1_767_225_600_000;

/// Who is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Core {
    Device(usize),
    Balancer,
    Conn {
        generation: u32,
    },
    Gate {
        node: usize,
        generation: u32,
    },
    Shard {
        node: usize,
        generation: u32,
        shard: usize,
    },
    Writer {
        node: usize,
        generation: u32,
    },
}

/// Everything that can happen in the world.
#[derive(Debug)]
pub enum Event {
    Wake(Core),
    /// The answer to a device's look-up of the cluster's name.
    Resolved {
        device: usize,
    },
    /// A connection reaches its server.
    Reaches {
        stream: Stream,
    },
    Arrives {
        stream: Stream,
        to: Side,
        arrival: Arrival,
    },
    Link {
        link: LinkId,
        to: End,
        mail: LinkMail,
    },
    /// The upper tier looks after its link to the lower one.
    Dial {
        ends: [End; 2],
    },
    ToConn {
        generation: u32,
        mail: ConnMail,
    },
    ToGate {
        node: usize,
        generation: u32,
        mail: GateMail,
    },
    ToShard {
        node: usize,
        generation: u32,
        shard: usize,
        mail: ShardMail,
    },
    ToWriter {
        node: usize,
        generation: u32,
        batch: Box<Batch>,
    },
    Written {
        node: usize,
        generation: u32,
        work: Box<Work>,
        fate: Fate,
    },
    Restart(End),
    Fault(Class),
    /// Faults end; what was broken comes back.
    Heal,
}

#[derive(Debug)]
struct Scheduled {
    at_ms: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The earliest is the greatest, because the heap gives the greatest first.
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.order).cmp(&(self.at_ms, self.order))
    }
}

#[derive(Debug)]
pub struct World {
    pub plan: Plan,
    pub now_ms: u64,
    heap: BinaryHeap<Scheduled>,
    order: u64,
    pub rng: SmallRng,
    pub network: Network,
    pub links: Links,
    pub store: Store,
    pub model: Model,
    pub devices: Vec<DeviceNode>,
    pub balancer: BalancerNode,
    pub conn: ConnNode,
    pub logic: Vec<LogicNode>,
    /// What a replayer heard: where to, from which address, which bytes.
    pub recorded: Vec<(network::Server, IpAddr, Vec<u8>)>,
    /// Since when every process and every link stands.
    pub healed_at_ms: Option<u64>,
    pub is_healed: bool,
    pub events: u64,
    trace: DefaultHasher,
    pub deliveries: Vec<network::Delivery>,
    pub link_deliveries: Vec<links::Delivery>,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x5EED);
        let mut fork = || SmallRng::seed_from_u64(rng.random());
        let network = Network::new(
            plan.network_ms.clone(),
            plan.faults.of_1000(Class::ByteByByte),
            fork(),
        );
        let links = Links::new(plan.link_ms.clone(), fork());
        let store = Store::new(plan.faults.clone(), fork());
        let devices = (0..plan.devices as usize)
            .map(|index| DeviceNode::new(&plan, index, fork()))
            .collect();
        let logic = (0..plan.logic_servers.into())
            .map(|node| LogicNode::start(&plan, logic_address(node), 0, fork().random()))
            .collect();
        let conn = ConnNode::start(&plan, 0, common::epoch::Epoch::ZERO, fork().random());
        let balancer = BalancerNode::new(fork().random());
        let mut world = Self {
            now_ms: 0,
            heap: BinaryHeap::new(),
            order: 0,
            rng: fork(),
            network,
            links,
            store,
            model: Model::new(plan.places_max),
            devices,
            balancer,
            conn,
            logic,
            recorded: vec![],
            healed_at_ms: Some(0),
            is_healed: false,
            events: 0,
            trace: DefaultHasher::new(),
            deliveries: vec![],
            link_deliveries: vec![],
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.dial([End::Balancer, End::Conn]);
        for node in 0..self.logic.len() {
            self.dial([End::Conn, End::Logic(node)]);
        }
        for device in 0..self.devices.len() {
            let at_ms = self.rng.random_range(0..5_000);
            self.schedule(at_ms, Event::Wake(Core::Device(device)));
        }
        self.begin_faults();
        self.schedule(self.plan.faults_ms, Event::Heal);
        self.flush();
    }

    /// Runs until the faults are over, everything is healed, and every record is stored and acknowledged.
    ///
    /// # Errors
    /// A promise was broken, with the time.
    pub fn run(&mut self) -> Result<(), Broken> {
        let end_ms = self.plan.faults_ms + self.plan.heal_ms;
        while let Some(scheduled) = self.heap.pop() {
            self.now_ms = scheduled.at_ms;
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
            (self.now_ms, std::mem::discriminant(&scheduled.event)).hash(&mut self.trace);
            self.happen(scheduled.event)
                .and_then(|()| self.model.check(self.now_ms, self.healed_at_ms))
                .map_err(|broken| Broken(format!("at {} ms: {}", self.now_ms, broken.0)))?;
            if self.is_healed && self.is_at_rest() {
                return self.model.check_at_rest(&self.store);
            }
        }
        Err(Broken(
            "the world stopped: nothing is left to happen".into(),
        ))
    }

    /// The same for the same seed and the same code.
    pub fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    /// Every device is attached and has no record that waits for an acknowledgement.
    fn is_at_rest(&self) -> bool {
        self.devices.iter().all(DeviceNode::is_at_rest)
    }

    pub fn now(&self) -> Now {
        Now {
            ms: self.now_ms,
            unix_ms: self.unix_ms(),
        }
    }

    pub fn unix_ms(&self) -> u64 {
        EPOCH_UNIX_MS + self.now_ms
    }

    /// `at_ms` is not in the past.
    pub fn schedule(&mut self, at_ms: u64, event: Event) {
        debug_assert!(at_ms >= self.now_ms);
        self.heap.push(Scheduled {
            at_ms,
            order: self.order,
            event,
        });
        self.order += 1;
    }

    /// The time that a mailbox between two threads takes.
    pub fn soon(&mut self) -> u64 {
        self.now_ms + self.rng.random_range(0..=2)
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Wake(core) => self.wake(core)?,
            Event::Resolved { device } => self.resolved(device)?,
            Event::Reaches { stream } => self.reaches(stream)?,
            Event::Arrives {
                stream,
                to,
                arrival,
            } => {
                if let Some((client, server)) = self.network.arrives(stream, to, &arrival) {
                    self.arrives(stream, to, client, server, arrival)?;
                }
            }
            Event::Link { link, to, mail } => {
                if self.links.arrives(link, to, &mail) {
                    self.link_mail(link, to, mail)?;
                }
            }
            Event::Dial { ends } => self.dial(ends),
            Event::ToConn { generation, mail } => {
                if self.conn.is_current(generation) {
                    self.conn_mail(mail)?;
                }
            }
            Event::ToGate {
                node,
                generation,
                mail,
            } => {
                if self.is_current(node, generation) {
                    self.gate_mail(node, mail)?;
                }
            }
            Event::ToShard {
                node,
                generation,
                shard,
                mail,
            } => {
                if self.is_current(node, generation) {
                    self.shard_mail(node, shard, mail)?;
                }
            }
            Event::ToWriter {
                node,
                generation,
                batch,
            } => {
                if self.is_current(node, generation) {
                    self.submit(node, *batch);
                }
            }
            Event::Written {
                node,
                generation,
                work,
                fate,
            } => self.written(node, generation, *work, fate)?,
            Event::Restart(end) => self.restart(end)?,
            Event::Fault(class) => self.fault(class)?,
            Event::Heal => self.heal()?,
        }
        self.flush();
        Ok(())
    }

    fn wake(&mut self, core: Core) -> Result<(), Broken> {
        match core {
            Core::Device(device) => self.wake_device(device),
            Core::Balancer => {
                self.balancer_timer();
                Ok(())
            }
            Core::Conn { generation } => {
                if self.conn.is_current(generation) {
                    self.conn_timer()?;
                }
                Ok(())
            }
            Core::Gate { node, generation } if self.is_current(node, generation) => {
                self.gate_timer(node)
            }
            Core::Shard {
                node,
                generation,
                shard,
            } if self.is_current(node, generation) => self.shard_timer(node, shard),
            Core::Writer { node, generation } if self.is_current(node, generation) => {
                self.writer_timer(node);
                Ok(())
            }
            Core::Gate { .. } | Core::Shard { .. } | Core::Writer { .. } => Ok(()),
        }
    }

    /// Puts what the fake networks took into the heap.
    pub fn flush(&mut self) {
        for delivery in std::mem::take(&mut self.deliveries) {
            let network::Delivery {
                at_ms,
                stream,
                to,
                arrival,
            } = delivery;
            self.schedule(
                at_ms,
                Event::Arrives {
                    stream,
                    to,
                    arrival,
                },
            );
        }
        for delivery in std::mem::take(&mut self.link_deliveries) {
            let links::Delivery {
                at_ms,
                link,
                to,
                mail,
            } = delivery;
            self.schedule(at_ms, Event::Link { link, to, mail });
        }
    }

    // ---- the internet -------------------------------------------------------------------------

    /// A connection comes to its server, which may not be there.
    fn reaches(&mut self, stream: Stream) -> Result<(), Broken> {
        let Some(connection) = self.network.connection(stream) else {
            return Ok(());
        };
        let (client, server, source) = (connection.client, connection.server, connection.source);
        let is_up = match server {
            network::Server::Balancer => true,
            network::Server::Logic { node } => self.logic[node].is_up,
        };
        if !is_up
            || (!self.is_healed
                && self.rng.random_range(0..1_000) < self.plan.faults.of_1000(Class::ConnectFails))
        {
            self.network
                .reset(stream, self.now_ms, &mut self.deliveries);
            return Ok(());
        }
        match server {
            network::Server::Balancer => self.balancer_accepts(stream, source),
            network::Server::Logic { node } => self.logic_accepts(node, stream, source)?,
        }
        if let network::Client::Device { index, conn } = client {
            self.device_connected(index, conn)?;
        }
        Ok(())
    }

    fn arrives(
        &mut self,
        stream: Stream,
        to: Side,
        client: network::Client,
        server: network::Server,
        arrival: Arrival,
    ) -> Result<(), Broken> {
        match (to, client, server) {
            (Side::Client, network::Client::Device { index, conn }, _) => {
                self.device_hears(index, conn, arrival)
            }
            (Side::Client, network::Client::Replayer, _) => Ok(()),
            (Side::Server, _, network::Server::Balancer) => {
                self.balancer_hears(stream, arrival);
                Ok(())
            }
            (Side::Server, _, network::Server::Logic { node }) => {
                self.logic_hears(node, stream, arrival)
            }
        }
    }

    // ---- the links ----------------------------------------------------------------------------

    /// The upper tier looks after its link to the lower one, and will again.
    fn dial(&mut self, ends: [End; 2]) {
        if ends.iter().all(|end| self.is_up(*end)) && !self.links.is_dialled(ends) {
            self.links
                .connect(ends, self.now_ms, &mut self.link_deliveries);
        }
        let most = if self.is_healed { 500 } else { 5_000 };
        let at_ms = self.now_ms + self.rng.random_range(50..=most);
        self.schedule(at_ms, Event::Dial { ends });
    }

    fn link_mail(&mut self, link: LinkId, to: End, mail: LinkMail) -> Result<(), Broken> {
        match to {
            End::Balancer => {
                self.balancer_link(link, mail);
                Ok(())
            }
            End::Conn => self.conn_link(link, mail),
            End::Logic(node) => self.logic_link(node, link, mail),
        }
    }

    pub fn is_up(&self, end: End) -> bool {
        match end {
            End::Balancer => true,
            End::Conn => self.conn.is_up,
            End::Logic(node) => self.logic[node].is_up,
        }
    }

    pub fn is_current(&self, node: usize, generation: u32) -> bool {
        self.logic[node].is_up && self.logic[node].generation == generation
    }

    /// Keeps `healed_at_ms` true: called when a process or a link goes or comes.
    pub fn note_health(&mut self) {
        let stands = |a, b| self.links.between(a, b).is_some();
        let is_whole = self.conn.is_up
            && stands(End::Balancer, End::Conn)
            && (0..self.logic.len())
                .all(|node| self.logic[node].is_up && stands(End::Conn, End::Logic(node)));
        if !is_whole {
            self.healed_at_ms = None;
        } else if self.healed_at_ms.is_none() {
            self.healed_at_ms = Some(self.now_ms);
        }
    }
}

/// Where devices reach a logic server.
pub fn logic_address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, node as u8], 20_000))
}

/// Where devices reach the balancer.
pub fn balancer_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 10_000))
}

/// Accounts are numbered as their devices are.
pub fn account_of(device: usize) -> AccountId {
    AccountId(device as i64 + 1)
}
