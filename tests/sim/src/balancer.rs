//! The balancers of the simulated cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use balancer::pending::ConnectionId;
use balancer::route::{Core as Decisions, Effect, Input, RouteSettings};
use balancer::visit::{Step, Visit};
use common::config::Policy;
use common::link::message::Message;
use common::link::{LinkEvent, LinkId, Peer, Role};
use common::time::Now;
use logic_server::wire::{Sink as _, Wire as _};
use protocols::rcu::frame::{self, Parsed};
use protocols::rcu::limit;
use protocols::rcu::message::FromCluster;

use crate::limits::pace;
use crate::links::{LinkMail, Part};
use crate::marks::{Mark, Marks};
use crate::model::Keeper;
use crate::network::{Read, Side, Stream};
use crate::plan::Plan;
use crate::process::{Mail, Process, Thread, Tier};
use crate::socket::Kernel;
use crate::timer::Timer;
use crate::world::{World, conn_address};

/// A device at the front door.
#[derive(Debug)]
struct Front {
    stream: Stream,
    source: IpAddr,
    visit: Visit,
    /// What the kernel has not taken of the last word.
    unsaid: Option<Vec<u8>>,
}

#[derive(Debug)]
pub struct BalancerNode {
    core: Decisions,
    timer: Timer,
    fronts: BTreeMap<ConnectionId, Front>,
    connection_of: BTreeMap<Stream, ConnectionId>,
    connections: u64,
}

impl BalancerNode {
    pub fn start(plan: &Plan, seed: u64) -> Self {
        let limits = &plan.limits;
        let conn_servers = (0..plan.conn_servers.into()).map(conn_address);
        let settings = RouteSettings {
            conn_servers: conn_servers.map(|address| address.to_string()).collect(),
            policy: Policy::LeastLoaded,
            connections_max: plan.pending_max,
            connections_per_source_max: limits.connections_per_source_max,
            logins_open_max: limits.front_logins_open_max,
            logins_at_full_max: limits.logins_at_full_max,
            in_all: pace(limits.front_per_s),
            per_source: pace(limits.front_per_source_per_s),
            sources_max: limits.sources_max,
        };
        Self {
            core: Decisions::new(settings, seed),
            timer: Timer::default(),
            fronts: BTreeMap::new(),
            connection_of: BTreeMap::new(),
            connections: 0,
        }
    }

    /// Adds what this process counted.
    pub fn count_into(&self, marks: &mut Marks) {
        let counted = self.core.counters().iter();
        marks.counted(Tier::Balancer, counted.map(|(it, n)| (it.name(), n)));
    }

    fn forget(&mut self, connection: ConnectionId) -> Option<Front> {
        let front = self.fronts.remove(&connection)?;
        self.connection_of.remove(&front.stream);
        Some(front)
    }

    /// The core's deadline, or the first of a connection.
    fn next_deadline(&self) -> Option<u64> {
        let fronts = self.fronts.values();
        let fronts = fronts.filter_map(|front| front.visit.deadline_ms()).min();
        self.core.next_deadline().into_iter().chain(fronts).min()
    }
}

impl World {
    pub fn balancer_accepts(&mut self, index: usize, stream: Stream) {
        let Some(source) = self
            .network
            .connection(stream)
            .map(|connection| connection.source)
        else {
            return;
        };
        let deadline_ms = self.now(Process::balancer(index)).ms + limit::FIRST_FRAME_MS;
        self.balancers[index].connections += 1;
        let connection = ConnectionId(self.balancers[index].connections);
        self.balancers[index]
            .connection_of
            .insert(stream, connection);
        self.balancers[index].fronts.insert(
            connection,
            Front {
                stream,
                source,
                visit: Visit::new(deadline_ms),
                unsaid: None,
            },
        );
        self.balancer_apply(index, Input::Accepted { connection, source });
        // It may have said something by now.
        self.balancer_ready(index, stream);
    }

    pub fn balancer_shuts_down(&mut self, index: usize) {
        self.balancer_apply(index, Input::Shutdown);
    }

    /// For want of a descriptor.
    pub fn balancer_turns_away_unseen(&mut self, index: usize) {
        self.balancer_apply(index, Input::Unseen);
    }

    /// The front door's end of a stream is worth a look.
    pub fn balancer_ready(&mut self, index: usize, stream: Stream) {
        let connection = self.balancers[index].connection_of.get(&stream);
        if let Some(connection) = connection.copied() {
            self.balancer_says(index, connection);
            self.balancer_reads(index, connection);
        }
    }

    fn balancer_reads(&mut self, index: usize, connection: ConnectionId) {
        let ms = self.now(Process::balancer(index)).ms;
        while let Some(front) = self.balancers[index].fronts.get_mut(&connection) {
            let Some(room) = front.visit.room() else {
                return;
            };
            let (now_ms, deliveries) = (self.now_ms, &mut self.deliveries);
            let read =
                self.network
                    .read(front.stream, Side::Server, room.len(), now_ms, deliveries);
            let step = match read {
                Read::Bytes(bytes) => {
                    room[..bytes.len()].copy_from_slice(&bytes);
                    front.visit.read(bytes.len(), ms)
                }
                Read::Nothing => return,
                Read::End => front.visit.read(0, ms),
                Read::Reset => front.visit.lost(),
            };
            self.balancer_steps(index, connection, step);
        }
    }

    fn balancer_steps(&mut self, index: usize, connection: ConnectionId, step: Step) {
        let Some(front) = self.balancers[index].fronts.get_mut(&connection) else {
            return;
        };
        match step {
            Step::Wait => self.arm_balancer(index),
            Step::Ask { frame_id, body } => {
                let bytes = front.visit.bytes();
                let (source, login) = (front.source, bytes[..body.end].to_vec());
                let body = bytes[body].to_vec();
                self.model.login_read(index, front.stream, self.now_ms);
                self.recorded
                    .push((Process::balancer(index), source, login));
                self.balancer_apply(
                    index,
                    Input::Login {
                        connection,
                        source,
                        frame_id,
                        body,
                    },
                );
            }
            Step::Say(frame) => {
                front.unsaid = Some(frame);
                self.balancer_says(index, connection);
                self.arm_balancer(index);
            }
            Step::Over(how) => {
                let stream = front.stream;
                self.balancers[index].forget(connection);
                self.model.login_gone(index, stream);
                self.network
                    .close(stream, Side::Server, self.now_ms, &mut self.deliveries);
                self.balancer_apply(index, Input::Ended { connection, how });
            }
        }
    }

    /// Writes what the kernel has room for of a last word; shuts down behind it.
    fn balancer_says(&mut self, index: usize, connection: ConnectionId) {
        let ms = self.now(Process::balancer(index)).ms;
        let Some(front) = self.balancers[index].fronts.get_mut(&connection) else {
            return;
        };
        let Some(unsaid) = &mut front.unsaid else {
            return;
        };
        let mut kernel = Kernel {
            network: &mut self.network,
            deliveries: &mut self.deliveries,
            stream: front.stream,
            now_ms: self.now_ms,
        };
        let said = kernel.write(unsaid);
        let step = match said {
            Some(count) if count < unsaid.len() => {
                unsaid.drain(..count);
                return;
            }
            Some(_) => {
                kernel.shut_down_writing();
                front.visit.said(ms)
            }
            None => front.visit.lost(),
        };
        front.unsaid = None;
        self.balancer_steps(index, connection, step);
        self.balancer_reads(index, connection);
    }

    fn judge_login_reply(&mut self, index: usize, stream: Stream, bytes: &[u8]) {
        let Ok(Parsed::Frame { frame, .. }) = frame::parse(bytes, frame::FRAME_BYTES_MAX) else {
            return;
        };
        if let Ok(FromCluster::LoginReply(reply)) = FromCluster::decode(&frame) {
            self.marks.hit(Mark::LoginReply(reply.status()));
            self.model
                .login_answered(index, stream, reply.status(), reply.retry_after_ms);
        }
    }

    pub fn balancer_link(&mut self, index: usize, link: LinkId, mail: LinkMail) {
        let event = match mail {
            LinkMail::Up => {
                let Some(conn) = self.links.other_end(link, Process::balancer(index)) else {
                    return;
                };
                let address = conn_address(conn.index);
                let peer = Peer {
                    role: Role::Conn,
                    node: conn.to_string().parse().expect("a valid name"),
                    version: self.links.version(Process::balancer(index), conn),
                    address,
                    target: Some(address.to_string()),
                };
                LinkEvent::Up { link, peer }
            }
            LinkMail::Down => LinkEvent::Down {
                link,
                why: "simulated".into(),
            },
            LinkMail::Said {
                part,
                message,
                epoch,
            } => match part {
                Part::Answer { id } => LinkEvent::Answer {
                    link,
                    id,
                    message,
                    epoch,
                },
                Part::Notice => LinkEvent::Notice {
                    link,
                    message,
                    epoch,
                },
                Part::Request { .. } => return,
            },
        };
        self.balancer_apply(index, Input::Link(event));
    }

    pub fn balancer_timer(&mut self, index: usize) {
        if !self.balancers[index].timer.fires(self.now_ms) {
            return;
        }
        let now_ms = self.now(Process::balancer(index)).ms;
        let is_late = |front: &Front| front.visit.deadline_ms().is_some_and(|at| at <= now_ms);
        let late: Vec<_> = self.balancers[index]
            .fronts
            .iter()
            .filter(|(_, front)| is_late(front))
            .map(|(connection, _)| *connection)
            .collect();
        for connection in late {
            if let Some(front) = self.balancers[index].fronts.get_mut(&connection) {
                let step = front.visit.late(now_ms);
                self.balancer_steps(index, connection, step);
            }
        }
        self.balancer_apply(index, Input::Tick);
    }

    fn balancer_apply(&mut self, index: usize, input: Input) {
        let me = Process::balancer(index);
        let now = self.now(me);
        let now = Now {
            ms: now.ms,
            unix_ms: now.unix_ms,
        };
        let mut effects = vec![];
        self.balancers[index].core.apply(input, now, &mut effects);
        for effect in effects {
            self.balancer_effect(index, effect);
        }
        self.model
            .note_held(Keeper::Balancer, &self.balancers[index].core.held());
        self.arm_balancer(index);
    }

    fn arm_balancer(&mut self, index: usize) {
        let me = Process::balancer(index);
        let clock = self.life(me).clock;
        let balancer = &mut self.balancers[index];
        let deadline_ms = balancer.next_deadline().map(|ms| clock.world_ms(ms));
        if let Some(at_ms) = balancer.timer.arm(deadline_ms, self.now_ms) {
            self.mail(me, at_ms, Mail::Wake(Thread::Main));
        }
    }

    fn balancer_effect(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Explain { .. } => {}
            Effect::Drop { connection } => {
                if let Some(Front { stream, .. }) = self.balancers[index].forget(connection) {
                    self.model.login_gone(index, stream);
                    self.network
                        .close(stream, Side::Server, self.now_ms, &mut self.deliveries);
                }
            }
            Effect::Reply { connection, frame } => {
                let ms = self.now(Process::balancer(index)).ms;
                if let Some(front) = self.balancers[index].fronts.get(&connection) {
                    self.judge_login_reply(index, front.stream, &frame);
                }
                if let Some(front) = self.balancers[index].fronts.get_mut(&connection) {
                    let step = front.visit.replied(Some(frame), ms);
                    self.balancer_steps(index, connection, step);
                }
            }
            Effect::Request {
                link,
                id,
                deadline_ms,
                login,
            } => {
                let broke_at_ms = self.links.broke_at_ms(link);
                self.model.login_given(index, broke_at_ms, self.now_ms);
                let part = Part::Request { id, deadline_ms };
                let message = Message::Login(login);
                self.says(link, Process::balancer(index), part, message);
            }
        }
    }
}
