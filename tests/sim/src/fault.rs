//! What goes wrong, how often, and how it ends.

use rand::RngExt;

use crate::conn::ConnNode;
use crate::links::End;
use crate::logic::LogicNode;
use crate::model::Broken;
use crate::network::{self, Side, Stream};
use crate::plan::Class;
use crate::world::{Event, World, logic_address};

/// What a replayer remembers at most.
const RECORDED_MAX: usize = 1_000;

impl World {
    pub fn begin_faults(&mut self) {
        let classes: Vec<_> = self.plan.faults.classes().collect();
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
        match class {
            Class::Reset => {
                if let Some(stream) = self.any_stream() {
                    self.network
                        .reset(stream, self.now_ms, &mut self.deliveries);
                }
            }
            Class::Silence => {
                if let Some(stream) = self.any_stream() {
                    self.network.silence(stream);
                }
            }
            Class::Link => {
                let standing = self.links.standing();
                if !standing.is_empty() {
                    let link = standing[self.rng.random_range(0..standing.len())];
                    self.links.cut(link, self.now_ms, &mut self.link_deliveries);
                    self.note_health();
                }
            }
            Class::KillLogic => {
                let node = self.rng.random_range(0..self.logic.len());
                self.kill(End::Logic(node));
            }
            Class::KillConn => self.kill(End::Conn),
            Class::Replay => self.replay(),
            Class::WriteFails
            | Class::CommitUnknown
            | Class::WriteStalls
            | Class::Poison
            | Class::ByteByByte
            | Class::ConnectFails => unreachable!("{class:?} does not come by time"),
        }
        self.schedule_fault(class);
        Ok(())
    }

    fn any_stream(&mut self) -> Option<Stream> {
        let streams = self.network.streams().count();
        if streams == 0 {
            return None;
        }
        let which = self.rng.random_range(0..streams);
        self.network.streams().nth(which).map(|(stream, _)| stream)
    }

    /// kill -9: its connections are reset, its links break, its memory is gone.
    fn kill(&mut self, end: End) {
        if !self.is_up(end) {
            return;
        }
        match end {
            End::Balancer => return,
            End::Conn => self.conn.is_up = false,
            End::Logic(node) => {
                self.logic[node].is_up = false;
                self.model.node_died(node);
                let streams: Vec<_> = self
                    .network
                    .streams()
                    .filter(|(_, connection)| connection.server == network::Server::Logic { node })
                    .map(|(stream, _)| stream)
                    .collect();
                for stream in streams {
                    self.network
                        .reset(stream, self.now_ms, &mut self.deliveries);
                }
            }
        }
        for link in self.links.standing() {
            if self
                .links
                .ends(link)
                .is_some_and(|ends| ends.contains(&end))
            {
                self.links.cut(link, self.now_ms, &mut self.link_deliveries);
            }
        }
        self.links.forget(end);
        self.note_health();
        let at_ms = self.now_ms + self.rng.random_range(100..=20_000);
        self.schedule(at_ms, Event::Restart(end));
    }

    pub fn restart(&mut self, end: End) -> Result<(), Broken> {
        let seed = self.rng.random();
        match end {
            End::Balancer => {}
            End::Conn => {
                self.conn =
                    ConnNode::start(&self.plan, self.conn.generation + 1, self.conn.mark, seed);
                self.wake_conn()?;
            }
            End::Logic(node) => {
                let generation = self.logic[node].generation + 1;
                self.logic[node] =
                    LogicNode::start(&self.plan, logic_address(node), generation, seed);
            }
        }
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
        let at_ms = self.now_ms + self.network.delay_ms();
        self.schedule(at_ms, Event::Reaches { stream });
        self.network
            .send(stream, Side::Client, &bytes, at_ms, &mut self.deliveries);
    }

    /// Faults end, devices make no more records: now everything has to come right.
    pub fn heal(&mut self) -> Result<(), Broken> {
        self.is_healed = true;
        self.network.heal();
        self.links.heal();
        self.store.heal();
        self.devices_stop_reporting()
    }
}
