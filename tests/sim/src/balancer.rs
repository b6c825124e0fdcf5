//! The balancer of the simulated cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use common::device::frame::{self, Parsed};
use common::device::kind;
use common::link::LinkId;
use common::link::message::{Login, Message};

use crate::links::{End, LinkMail, Part};
use crate::network::{Arrival, Server, Side, Stream};
use crate::world::World;

#[derive(Debug, Default)]
struct Front {
    bytes: Vec<u8>,
    frame_id: u16,
    asked: Option<u64>,
}

#[derive(Debug)]
pub struct BalancerNode {
    fronts: BTreeMap<Stream, Front>,
    conn: Option<LinkId>,
    last_id: u64,
}

impl BalancerNode {
    pub fn new(_seed: u64) -> Self {
        Self {
            fronts: BTreeMap::new(),
            conn: None,
            last_id: 0,
        }
    }
}

impl World {
    pub fn wake_balancer(&mut self) {}
    pub fn balancer_timer(&mut self) {}

    pub fn balancer_accepts(&mut self, stream: Stream, _source: IpAddr) {
        self.balancer.fronts.insert(stream, Front::default());
    }

    pub fn balancer_hears(&mut self, stream: Stream, arrival: Arrival) {
        let Some(front) = self.balancer.fronts.get_mut(&stream) else {
            return;
        };
        match arrival {
            Arrival::Bytes(bytes) => {
                if front.asked.is_some() {
                    return;
                }
                front.bytes.extend(bytes);
                let Ok(Parsed::Frame { frame, .. }) = frame::parse(&front.bytes, 512) else {
                    return;
                };
                let body = frame.body.to_vec();
                front.frame_id = frame.id;
                self.balancer.last_id += 1;
                let id = self.balancer.last_id;
                front.asked = Some(id);
                let bytes = front.bytes.clone();
                let Some(source) = self.network.connection(stream).map(|c| c.source) else {
                    return;
                };
                self.recorded.push((Server::Balancer, source, bytes));
                let Some(link) = self.balancer.conn else {
                    return;
                };
                let message = Message::Login(Login { source, body });
                self.links.say(
                    link,
                    End::Balancer,
                    Part::Request {
                        id,
                        deadline_ms: 2_500,
                    },
                    message,
                    self.now_ms,
                    &mut self.link_deliveries,
                );
            }
            Arrival::End => {
                self.balancer.fronts.remove(&stream);
            }
        }
    }

    pub fn balancer_link(&mut self, link: LinkId, mail: LinkMail) {
        self.note_health();
        match mail {
            LinkMail::Up => self.balancer.conn = Some(link),
            LinkMail::Down => {
                if self.balancer.conn == Some(link) {
                    self.balancer.conn = None
                }
            }
            LinkMail::Said {
                part: Part::Answer { id },
                message: Message::LoginAnswer(answer),
                ..
            } => {
                let found = self
                    .balancer
                    .fronts
                    .iter()
                    .find(|(_, f)| f.asked == Some(id))
                    .map(|(s, f)| (*s, f.frame_id));
                if let Some((stream, frame_id)) = found {
                    let mut out = vec![];
                    frame::write(kind::LOGIN_REPLY, frame_id, &mut out, |o| {
                        o.extend_from_slice(&answer.body)
                    });
                    self.balancer.fronts.remove(&stream);
                    self.network.send(
                        stream,
                        Side::Server,
                        &out,
                        self.now_ms,
                        &mut self.deliveries,
                    );
                    self.network
                        .close(stream, Side::Server, self.now_ms, &mut self.deliveries);
                }
            }
            LinkMail::Said { .. } => {}
        }
    }
}
