//! The balancers of the simulated cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use balancer::intake::{self, Intake};
use balancer::pending::ConnectionId;
use balancer::route::{Core as Decisions, Effect, End as Ending, Input, Now, RouteSettings};
use common::config::Policy;
use common::device::code::CloseReason;
use common::device::limit;
use common::link::message::Message;
use common::link::{LinkEvent, LinkId, Peer, Role};
use common::pacing::Rate;

use crate::links::{LinkMail, Part};
use crate::network::{Arrival, Side, Stream};
use crate::plan::Plan;
use crate::process::{Mail, Process, Thread};
use crate::timer::Timer;
use crate::world::{World, conn_address};

/// A device at the front door.
#[derive(Debug)]
struct Front {
    stream: Stream,
    source: IpAddr,
    bytes: Vec<u8>,
    deadline_ms: u64,
    /// Its Login is with the core; nothing more is read.
    is_asked: bool,
}

#[derive(Debug)]
pub struct BalancerNode {
    core: Decisions,
    timer: Timer,
    fronts: BTreeMap<ConnectionId, Front>,
    connections: u64,
}

impl BalancerNode {
    pub fn start(plan: &Plan, seed: u64) -> Self {
        let conn_servers = (0..plan.conn_servers.into()).map(conn_address);
        let settings = RouteSettings {
            conn_servers: conn_servers.map(|address| address.to_string()).collect(),
            policy: Policy::LeastLoaded,
            connections_max: 10_000,
            connections_per_source_max: 10_000,
            logins_open_max: 10_000,
            logins_at_full_max: 64,
            in_all: Rate::UNLIMITED,
            per_source: Rate::UNLIMITED,
            sources_max: 10_000,
        };
        Self {
            core: Decisions::new(settings, seed),
            timer: Timer::default(),
            fronts: BTreeMap::new(),
            connections: 0,
        }
    }

    fn connection_of(&self, stream: Stream) -> Option<ConnectionId> {
        let mut fronts = self.fronts.iter();
        fronts
            .find(|(_, front)| front.stream == stream)
            .map(|(connection, _)| *connection)
    }

    /// The core's deadline, or the first of a Login that is not whole.
    fn next_deadline(&self) -> Option<u64> {
        let slow = self.fronts.values().filter(|front| !front.is_asked);
        let slow = slow.map(|front| front.deadline_ms).min();
        self.core.next_deadline().into_iter().chain(slow).min()
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
        self.balancers[index].fronts.insert(
            connection,
            Front {
                stream,
                source,
                bytes: vec![],
                deadline_ms,
                is_asked: false,
            },
        );
        self.balancer_apply(index, Input::Accepted { connection, source });
    }

    pub fn balancer_shuts_down(&mut self, index: usize) {
        self.balancer_apply(index, Input::Shutdown);
    }

    pub fn balancer_hears(&mut self, index: usize, stream: Stream, arrival: Arrival) {
        let Some(connection) = self.balancers[index].connection_of(stream) else {
            return;
        };
        match arrival {
            Arrival::Bytes(bytes) => self.balancer_reads(index, connection, &bytes),
            Arrival::End => {
                self.balancers[index].fronts.remove(&connection);
                self.balancer_apply(
                    index,
                    Input::Ended {
                        connection,
                        how: Ending::Gone,
                    },
                );
            }
        }
    }

    fn balancer_reads(&mut self, index: usize, connection: ConnectionId, bytes: &[u8]) {
        let Some(front) = self.balancers[index]
            .fronts
            .get_mut(&connection)
            .filter(|front| !front.is_asked)
        else {
            return;
        };
        front.bytes.extend_from_slice(bytes);
        match intake::judge(&front.bytes) {
            Intake::Incomplete => {}
            Intake::Breach => self.balancer_closes(index, connection, CloseReason::ProtocolError),
            Intake::Login { frame_id, body } => {
                front.is_asked = true;
                let (source, body) = (front.source, front.bytes[body].to_vec());
                self.recorded
                    .push((Process::balancer(index), source, front.bytes.clone()));
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
        }
    }

    fn balancer_closes(&mut self, index: usize, connection: ConnectionId, reason: CloseReason) {
        self.balancer_answers(index, connection, &intake::close(reason));
        let how = match reason {
            CloseReason::AttachTimeout => Ending::AttachTimeout,
            _ => Ending::ProtocolError,
        };
        self.balancer_apply(index, Input::Ended { connection, how });
    }

    /// Sends a last frame and leaves.
    fn balancer_answers(&mut self, index: usize, connection: ConnectionId, frame: &[u8]) {
        if let Some(Front { stream, .. }) = self.balancers[index].fronts.remove(&connection) {
            self.network.send(
                stream,
                Side::Server,
                frame,
                self.now_ms,
                &mut self.deliveries,
            );
            self.network
                .close(stream, Side::Server, self.now_ms, &mut self.deliveries);
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
                    version: 1,
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
        let slow: Vec<_> = self.balancers[index]
            .fronts
            .iter()
            .filter(|(_, front)| !front.is_asked && front.deadline_ms <= now_ms)
            .map(|(connection, _)| *connection)
            .collect();
        for connection in slow {
            self.balancer_closes(index, connection, CloseReason::AttachTimeout);
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
        let clock = self.life(me).clock;
        let balancer = &mut self.balancers[index];
        let deadline_ms = balancer.next_deadline().map(|ms| clock.world_ms(ms));
        if let Some(at_ms) = balancer.timer.arm(deadline_ms, self.now_ms) {
            self.mail(me, at_ms, Mail::Wake(Thread::Main));
        }
    }

    fn balancer_effect(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Drop { connection } => {
                if let Some(Front { stream, .. }) = self.balancers[index].fronts.remove(&connection)
                {
                    self.network
                        .close(stream, Side::Server, self.now_ms, &mut self.deliveries);
                }
            }
            Effect::Reply { connection, frame } => {
                self.balancer_answers(index, connection, &frame);
                let how = Ending::Replied;
                self.balancer_apply(index, Input::Ended { connection, how });
            }
            Effect::Request {
                link,
                id,
                deadline_ms,
                login,
            } => {
                let part = Part::Request { id, deadline_ms };
                let message = Message::Login(login);
                self.says(link, Process::balancer(index), part, message);
            }
        }
    }
}
