//! The balancer of the simulated cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use balancer::intake::{self, Intake};
use balancer::pending::ConnectionId;
use balancer::route::{Core as Decisions, Effect, End as Ending, Input, Now, RouteSettings};
use common::config::Policy;
use common::device::code::CloseReason;
use common::device::limit;
use common::link::message::Message;
use common::link::{LinkEvent, LinkId, Peer, Role};
use common::pacing::Rate;

use crate::links::{End, LinkMail, Part};
use crate::network::{Arrival, Server, Side, Stream};
use crate::timer::Timer;
use crate::world::{Core, Event, World};

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
    pub fn new(seed: u64) -> Self {
        let settings = RouteSettings {
            conn_servers: vec![conn_address().to_string()],
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

/// Where the balancer links to.
fn conn_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 10_100))
}

impl World {
    pub fn balancer_accepts(&mut self, stream: Stream, source: IpAddr) {
        self.balancer.connections += 1;
        let connection = ConnectionId(self.balancer.connections);
        self.balancer.fronts.insert(
            connection,
            Front {
                stream,
                source,
                bytes: vec![],
                deadline_ms: self.now_ms + limit::FIRST_FRAME_MS,
                is_asked: false,
            },
        );
        self.balancer_apply(Input::Accepted { connection, source });
    }

    pub fn balancer_hears(&mut self, stream: Stream, arrival: Arrival) {
        let Some(connection) = self.balancer.connection_of(stream) else {
            return;
        };
        match arrival {
            Arrival::Bytes(bytes) => self.balancer_reads(connection, &bytes),
            Arrival::End => {
                self.balancer.fronts.remove(&connection);
                self.balancer_apply(Input::Ended {
                    connection,
                    how: Ending::Gone,
                });
            }
        }
    }

    fn balancer_reads(&mut self, connection: ConnectionId, bytes: &[u8]) {
        let Some(front) = self
            .balancer
            .fronts
            .get_mut(&connection)
            .filter(|front| !front.is_asked)
        else {
            return;
        };
        front.bytes.extend_from_slice(bytes);
        match intake::judge(&front.bytes) {
            Intake::Incomplete => {}
            Intake::Breach => self.balancer_closes(connection, CloseReason::ProtocolError),
            Intake::Login { frame_id, body } => {
                front.is_asked = true;
                let (source, body) = (front.source, front.bytes[body].to_vec());
                self.recorded
                    .push((Server::Balancer, source, front.bytes.clone()));
                self.balancer_apply(Input::Login {
                    connection,
                    source,
                    frame_id,
                    body,
                });
            }
        }
    }

    fn balancer_closes(&mut self, connection: ConnectionId, reason: CloseReason) {
        self.balancer_answers(connection, &intake::close(reason));
        let how = match reason {
            CloseReason::AttachTimeout => Ending::AttachTimeout,
            _ => Ending::ProtocolError,
        };
        self.balancer_apply(Input::Ended { connection, how });
    }

    /// Sends a last frame and leaves.
    fn balancer_answers(&mut self, connection: ConnectionId, frame: &[u8]) {
        if let Some(Front { stream, .. }) = self.balancer.fronts.remove(&connection) {
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

    pub fn balancer_link(&mut self, link: LinkId, mail: LinkMail) {
        self.note_health();
        let event = match mail {
            LinkMail::Up => LinkEvent::Up {
                link,
                peer: Peer {
                    role: Role::Conn,
                    node: "conn-1".parse().expect("a valid name"),
                    version: 1,
                    address: conn_address(),
                    target: Some(conn_address().to_string()),
                },
            },
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
        self.balancer_apply(Input::Link(event));
    }

    pub fn balancer_timer(&mut self) {
        if !self.balancer.timer.fires(self.now_ms) {
            return;
        }
        let slow: Vec<_> = self
            .balancer
            .fronts
            .iter()
            .filter(|(_, front)| !front.is_asked && front.deadline_ms <= self.now_ms)
            .map(|(connection, _)| *connection)
            .collect();
        for connection in slow {
            self.balancer_closes(connection, CloseReason::AttachTimeout);
        }
        self.balancer_apply(Input::Tick);
    }

    fn balancer_apply(&mut self, input: Input) {
        let now = Now {
            ms: self.now_ms,
            unix_ms: self.unix_ms(),
        };
        let mut effects = vec![];
        self.balancer.core.apply(input, now, &mut effects);
        for effect in effects {
            self.balancer_effect(effect);
        }
        let deadline_ms = self.balancer.next_deadline();
        if let Some(at_ms) = self.balancer.timer.arm(deadline_ms, self.now_ms) {
            self.schedule(at_ms, Event::Wake(Core::Balancer));
        }
    }

    fn balancer_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Drop { connection } => {
                if let Some(Front { stream, .. }) = self.balancer.fronts.remove(&connection) {
                    self.network
                        .close(stream, Side::Server, self.now_ms, &mut self.deliveries);
                }
            }
            Effect::Reply { connection, frame } => {
                self.balancer_answers(connection, &frame);
                let how = Ending::Replied;
                self.balancer_apply(Input::Ended { connection, how });
            }
            Effect::Request {
                link,
                id,
                deadline_ms,
                login,
            } => {
                let part = Part::Request { id, deadline_ms };
                let message = Message::Login(login);
                self.links.say(
                    link,
                    End::Balancer,
                    part,
                    message,
                    self.now_ms,
                    &mut self.link_deliveries,
                );
            }
        }
    }
}
