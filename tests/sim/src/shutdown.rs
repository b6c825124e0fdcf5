//! SIGTERM: a process says goodbye and ends, as its own shutdown in the product goes.
//!
//! ```text
//! logic server: gate takes no grants ─▶ shards: last batches, acks, Close(shutdown) ─▶ writer is done
//!               ─▶ it ends; after its deadline the shards say goodbye whatever is not stored
//! conn server, balancer: those that wait are answered `busy` ─▶ it ends
//! ```

use std::ops::RangeInclusive;

use logic_server::{gate, shard, writer};
use rand::RngExt;

use crate::logic::ShardMail;
use crate::model::Broken;
use crate::network::Side;
use crate::process::{Mail, Process, Tier};
use crate::world::{Event, World};

/// What a logic server waits for its database, drawn; beyond it the time for the last words.
const DEADLINE_MS: RangeInclusive<u64> = 500..=10_000;
const GOODBYE_MS: u64 = 2_000;

/// Until the last answers of the others are sent.
const LAST_ANSWERS_MS: u64 = 1_000;

/// From the end to the next start.
const AWAY_MS: RangeInclusive<u64> = 100..=20_000;

/// How far a logic server's farewell is.
#[derive(Debug)]
pub struct Farewell {
    /// By shard: nothing is left to do.
    pub done: Vec<bool>,
}

/// A part of a shutdown that has its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM.
    Asked,
    /// The store has had its time.
    Abandon,
    /// Everybody has had theirs.
    Over,
}

impl World {
    pub fn ask_to_end(&mut self, process: Process) {
        self.trace_process(process, "is asked to end");
        if self.life(process).is_up && !self.life(process).is_closing {
            self.mail(process, self.now_ms, Mail::End(Ending::Asked));
        }
    }

    pub fn end(&mut self, process: Process, ending: Ending) -> Result<(), Broken> {
        let index = process.index;
        // What still waits there may be let go without a word.
        self.network.hurt_all(process);
        match (ending, process.tier) {
            (Ending::Asked, _) if self.life(process).is_closing => {}
            (Ending::Asked, Tier::Logic) => {
                self.life_mut(process).is_closing = true;
                self.note_health();
                self.model.closing(index);
                let done = vec![false; self.logic[index].shards.len()];
                self.logic[index].farewell = Some(Farewell { done });
                self.gate(index, gate::Input::Shutdown)?;
                self.gate(index, gate::Input::Tick)?;
                for shard in 0..self.logic[index].shards.len() {
                    self.mail_shard(index, shard, ShardMail::Shutdown);
                }
                let at_ms = self.now_ms + self.rng.random_range(DEADLINE_MS);
                self.mail(process, at_ms, Mail::End(Ending::Abandon));
            }
            (Ending::Asked, Tier::Conn) => {
                self.life_mut(process).is_closing = true;
                self.note_health();
                self.conn_shuts_down(index)?;
                let at_ms = self.now_ms + LAST_ANSWERS_MS;
                self.mail(process, at_ms, Mail::End(Ending::Over));
            }
            (Ending::Asked, Tier::Balancer) => {
                self.life_mut(process).is_closing = true;
                self.note_health();
                self.balancer_shuts_down(index);
                let at_ms = self.now_ms + LAST_ANSWERS_MS;
                self.mail(process, at_ms, Mail::End(Ending::Over));
            }
            (Ending::Abandon, _) => {
                for shard in 0..self.logic[index].shards.len() {
                    self.mail_shard(index, shard, ShardMail::Abandon);
                }
                let at_ms = self.now_ms + GOODBYE_MS;
                self.mail(process, at_ms, Mail::End(Ending::Over));
            }
            (Ending::Over, _) => self.leave_for_good(process)?,
        }
        Ok(())
    }

    /// A shard of a server that shuts down has done something: its turn ends.
    pub fn shard_says_goodbye(&mut self, node: usize, shard: usize) -> Result<(), Broken> {
        let me = Process::logic(node);
        let life = self.life(me);
        let read_until_ms = life.clock.ms(life.read_until_ms(self.now_ms));
        let tick = shard::Input::Tick { read_until_ms };
        let is_done = self.shard_turn(node, shard, tick)?;
        if let Some(farewell) = &mut self.logic[node].farewell {
            farewell.done[shard] |= is_done;
        }
        self.end_when_done(node);
        Ok(())
    }

    /// All shards are done, and then the writer.
    pub fn end_when_done(&mut self, node: usize) {
        let is_done = |farewell: &Farewell| farewell.done.iter().all(|done| *done);
        if !self.logic[node].farewell.as_ref().is_some_and(is_done) {
            return;
        }
        self.writer(node, writer::Input::Close);
        let logic = &mut self.logic[node];
        if logic.writer.is_idle(&logic.lines) {
            logic.farewell = None;
            // Its last words linger.
            let at_ms = self.now_ms + LAST_ANSWERS_MS;
            self.mail(Process::logic(node), at_ms, Mail::End(Ending::Over));
        }
    }

    /// The process ends: what it sent arrives, its links close.
    fn leave_for_good(&mut self, process: Process) -> Result<(), Broken> {
        self.trace_process(process, "leaves for good");
        if process.tier == Tier::Logic {
            self.model.left(process.index)?;
        }
        let streams = self.network.streams();
        let streams: Vec<_> = streams
            .filter(|(_, connection)| connection.server == process)
            .map(|(stream, _)| stream)
            .collect();
        for stream in streams {
            let (now_ms, deliveries) = (self.now_ms, &mut self.deliveries);
            self.network.close(stream, Side::Server, now_ms, deliveries);
        }
        for (link, _) in self.links.standing_of(process) {
            let (now_ms, deliveries) = (self.now_ms, &mut self.link_deliveries);
            self.links.give_up(link, process, now_ms, deliveries);
            self.model.link_gone(link);
        }
        self.links.forget(process);
        let life = self.life_mut(process);
        life.is_up = false;
        life.pause = None;
        self.keep_counted(process);
        self.model.died(process);
        self.note_health();
        let at_ms = self.now_ms + self.rng.random_range(AWAY_MS);
        self.schedule(at_ms, Event::Restart(process));
        Ok(())
    }
}
