//! Carries out what gates, shards and writers ask for, and shows the judge what the devices get.

use common::device::attach::AttachVerdict;
use common::device::code::{AckStatus, CloseReason};
use common::device::frame::{self, Parsed};
use common::device::message::FromCluster;
use common::link::LinkId;
use common::link::message::{GrantVerdict, Message};
use logic_server::gate;
use logic_server::ids::{ConnId, Slot};
use logic_server::shard;
use logic_server::writer::{self, WriteResult};
use rand::RngExt;

use crate::links::{LinkMail, Part};
use crate::logic::{GateMail, Place, ShardMail, Unattached};
use crate::model::Broken;
use crate::network::{Arrival, Client, Side, Stream};
use crate::process::{Mail, Process, Thread};
use crate::store::Fate;
use crate::world::{Event, World, account_of};

impl World {
    // ---- streams ------------------------------------------------------------------------------

    pub fn logic_accepts(&mut self, node: usize, stream: Stream) -> Result<(), Broken> {
        let Some(source) = self
            .network
            .connection(stream)
            .map(|connection| connection.source)
        else {
            return Ok(());
        };
        let logic = &mut self.logic[node];
        let conn = ConnId(logic.conns.insert(stream) as u32);
        logic.places.insert(stream, Place::Gate(conn));
        logic.unattached.insert(stream, Unattached::default());
        self.gate(node, gate::Input::Accepted { conn, source })
    }

    pub fn logic_hears(
        &mut self,
        node: usize,
        stream: Stream,
        arrival: Arrival,
    ) -> Result<(), Broken> {
        let logic = &mut self.logic[node];
        let Some(place) = logic.places.get(&stream).copied() else {
            return Ok(());
        };
        match (place, arrival) {
            (Place::Gate(conn), Arrival::Bytes(bytes)) => {
                let Some(unattached) = logic.unattached.get_mut(&stream) else {
                    return Ok(());
                };
                let read = unattached.read(&bytes);
                if read.is_empty() {
                    return Ok(());
                }
                self.gate(node, gate::Input::Received { conn, bytes: &read })
            }
            (Place::Gate(conn), Arrival::End) => {
                self.leave(node, stream);
                self.gate(node, gate::Input::Disconnected { conn })
            }
            (Place::Moving, arrival) => {
                if let Some(unattached) = logic.unattached.get_mut(&stream) {
                    match arrival {
                        Arrival::Bytes(bytes) => unattached.waiting.extend(bytes),
                        Arrival::End => unattached.ended = true,
                    }
                }
                Ok(())
            }
            (Place::Shard(shard, slot), Arrival::Bytes(bytes)) => self.shard(
                node,
                shard,
                shard::Input::Received {
                    slot,
                    bytes: &bytes,
                },
            ),
            (Place::Shard(shard, slot), Arrival::End) => {
                self.leave(node, stream);
                self.model.ended(stream);
                self.shard(node, shard, shard::Input::Disconnected { slot })
            }
        }
    }

    /// The server is done with a stream.
    fn leave(&mut self, node: usize, stream: Stream) {
        let logic = &mut self.logic[node];
        logic.unattached.remove(&stream);
        match logic.places.remove(&stream) {
            Some(Place::Gate(conn)) => {
                logic.conns.remove(conn.0 as usize);
            }
            Some(Place::Shard(shard, slot)) => {
                logic.shards[shard].slots.remove(slot.0 as usize);
            }
            Some(Place::Moving) | None => {}
        }
    }

    // ---- the gate -----------------------------------------------------------------------------

    pub fn gate(&mut self, node: usize, input: gate::Input<'_>) -> Result<(), Broken> {
        let now = self.now(Process::logic(node));
        let mut effects = vec![];
        self.logic[node].gate.apply(input, now, &mut effects);
        for effect in effects {
            self.gate_effect(node, effect)?;
        }
        self.arm_gate(node);
        Ok(())
    }

    pub fn gate_timer(&mut self, node: usize) -> Result<(), Broken> {
        if self.logic[node].gate_timer.fires(self.now_ms) {
            self.gate(node, gate::Input::Tick)?;
        }
        Ok(())
    }

    fn arm_gate(&mut self, node: usize) {
        let me = Process::logic(node);
        let clock = self.life(me).clock;
        let logic = &mut self.logic[node];
        let deadline_ms = logic.gate.next_deadline().map(|ms| clock.world_ms(ms));
        if let Some(at_ms) = logic.gate_timer.arm(deadline_ms, self.now_ms) {
            self.mail(me, at_ms, Mail::Wake(Thread::Gate));
        }
    }

    pub fn gate_mail(&mut self, node: usize, mail: GateMail) -> Result<(), Broken> {
        let input = gate::Input::SessionEnded {
            account_id: mail.account_id,
            epoch: mail.epoch,
        };
        self.gate(node, input)
    }

    fn gate_effect(&mut self, node: usize, effect: gate::Effect) -> Result<(), Broken> {
        let me = Process::logic(node);
        match effect {
            gate::Effect::Refuse { conn, reply } => {
                let stream = self.logic[node].conns[conn.0 as usize];
                self.leave(node, stream);
                if !reply.is_empty() {
                    self.network.send(
                        stream,
                        Side::Server,
                        &reply,
                        self.now_ms,
                        &mut self.deliveries,
                    );
                }
                self.network
                    .close(stream, Side::Server, self.now_ms, &mut self.deliveries);
            }
            gate::Effect::Admit {
                conn,
                shard,
                seed,
                unread,
            } => {
                let logic = &mut self.logic[node];
                let stream = logic.conns.remove(conn.0 as usize);
                logic.places.insert(stream, Place::Moving);
                self.model.proven(seed.account_id, seed.epoch, self.now_ms);
                self.note_attach(node, stream);
                let mail = ShardMail::Adopt {
                    stream,
                    seed: Box::new(seed),
                    unread,
                };
                self.mail_shard(node, shard.0.into(), mail);
            }
            effect @ gate::Effect::EndSession { shard, .. } => {
                self.mail_shard(node, shard.0.into(), ShardMail::End { effect });
            }
            gate::Effect::CommandTo { .. } => {}
            gate::Effect::Answer {
                link,
                request,
                message,
            } => {
                self.says(link, me, Part::Answer { id: request }, message);
            }
            gate::Effect::Notice { link, message } => {
                self.says(link, me, Part::Notice, message);
            }
            gate::Effect::Broadcast { message } => {
                for link in self.logic[node].links.clone() {
                    self.says(link, me, Part::Notice, message.clone());
                }
            }
        }
        Ok(())
    }

    /// A used Attach may come again.
    fn note_attach(&mut self, node: usize, stream: Stream) {
        let heard = self.logic[node]
            .unattached
            .get(&stream)
            .map(|unattached| unattached.heard.clone());
        if let (Some(heard), Some(connection)) = (heard, self.network.connection(stream)) {
            self.recorded
                .push((connection.server, connection.source, heard));
        }
    }

    pub fn logic_link(&mut self, node: usize, link: LinkId, mail: LinkMail) -> Result<(), Broken> {
        let links = &mut self.logic[node].links;
        let input = match mail {
            LinkMail::Up => {
                links.push(link);
                gate::Input::LinkUp { link }
            }
            LinkMail::Down => {
                links.retain(|other| *other != link);
                gate::Input::LinkDown { link }
            }
            LinkMail::Said { part, message, .. } => match (part, message) {
                (Part::Request { id, .. }, Message::Grant(grant)) => {
                    return self.grant(node, link, id, grant);
                }
                (Part::Request { id, .. }, Message::GrantCheck(check)) => gate::Input::GrantCheck {
                    link,
                    request: id,
                    check,
                },
                (_, Message::End(end)) => gate::Input::End(end),
                (_, Message::Revoke(revoke)) => {
                    let (account_id, below) = (revoke.account_id, revoke.below_version);
                    self.model.grants_revoked(node, account_id, below);
                    gate::Input::Revoke(revoke)
                }
                _ => return Ok(()),
            },
        };
        self.gate(node, input)
    }

    /// The judge hears of a grant when the node says that it stands.
    fn grant(
        &mut self,
        node: usize,
        link: LinkId,
        request: u64,
        grant: common::link::message::Grant,
    ) -> Result<(), Broken> {
        let now = self.now(Process::logic(node));
        let mut effects = vec![];
        let input = gate::Input::Grant {
            link,
            request,
            grant: grant.clone(),
        };
        self.logic[node].gate.apply(input, now, &mut effects);
        let granted = effects.iter().any(|effect| {
            matches!(effect, gate::Effect::Answer { message: Message::GrantAnswer(answer), .. }
                if answer.verdict == GrantVerdict::Granted)
        });
        if granted {
            self.model.granted(node, &grant, self.now_ms)?;
        }
        for effect in effects {
            self.gate_effect(node, effect)?;
        }
        self.arm_gate(node);
        Ok(())
    }

    // ---- the shards ---------------------------------------------------------------------------

    pub fn mail_shard(&mut self, node: usize, shard: usize, mail: ShardMail) {
        // A mailbox keeps its order: what is posted later does not arrive earlier.
        let soon = self.soon();
        let at_ms = self.logic[node].shards[shard].mailbox_at(soon);
        self.mail(Process::logic(node), at_ms, Mail::Shard { shard, mail });
    }

    pub fn shard_mail(&mut self, node: usize, shard: usize, mail: ShardMail) -> Result<(), Broken> {
        match mail {
            ShardMail::Adopt {
                stream,
                seed,
                unread,
            } => self.adopt(node, shard, stream, *seed, &unread),
            ShardMail::End { effect } => {
                let gate::Effect::EndSession {
                    session,
                    reason,
                    retry_after_ms,
                    ..
                } = effect
                else {
                    return Ok(());
                };
                self.shard(
                    node,
                    shard,
                    shard::Input::End {
                        session,
                        reason,
                        retry_after_ms,
                    },
                )
            }
            ShardMail::Shutdown => self.shard(node, shard, shard::Input::Shutdown),
            ShardMail::Abandon => self.shard(node, shard, shard::Input::Abandon),
            ShardMail::Finished { batch, outcome } => {
                let batch = *batch;
                self.shard(node, shard, shard::Input::Finished { batch, outcome })
            }
        }
    }

    fn adopt(
        &mut self,
        node: usize,
        shard: usize,
        stream: Stream,
        seed: shard::SessionSeed,
        unread: &[u8],
    ) -> Result<(), Broken> {
        let logic = &mut self.logic[node];
        let slot = Slot(logic.shards[shard].slots.insert(stream) as u32);
        logic.places.insert(stream, Place::Shard(shard, slot));
        self.shard(node, shard, shard::Input::Adopt { slot, seed, unread })?;
        // What came while it moved waits in the kernel.
        let Some(unattached) = self.logic[node].unattached.remove(&stream) else {
            return Ok(());
        };
        if !unattached.waiting.is_empty() {
            self.logic_hears(node, stream, Arrival::Bytes(unattached.waiting))?;
        }
        if unattached.ended {
            self.logic_hears(node, stream, Arrival::End)?;
        }
        Ok(())
    }

    pub fn shard(
        &mut self,
        node: usize,
        shard: usize,
        input: shard::Input<'_>,
    ) -> Result<(), Broken> {
        self.shard_turn(node, shard, input)?;
        match self.logic[node].farewell {
            Some(_) => self.shard_says_goodbye(node, shard),
            None => Ok(()),
        }
    }

    /// Whether the shard has nothing left to do after its goodbye.
    pub fn shard_turn(
        &mut self,
        node: usize,
        shard: usize,
        input: shard::Input<'_>,
    ) -> Result<bool, Broken> {
        let me = Process::logic(node);
        let (now, clock) = (self.now(me), self.life(me).clock);
        let thread = &mut self.logic[node].shards[shard];
        let mut effects = std::mem::take(&mut thread.effects);
        thread.core.apply(input, now, &mut effects);
        let carried_out = self.shard_effects(node, shard, &mut effects);
        let is_done = effects.done;
        effects.clear();
        let thread = &mut self.logic[node].shards[shard];
        thread.effects = effects;
        let deadline_ms = thread.core.next_deadline().map(|ms| clock.world_ms(ms));
        if let Some(at_ms) = thread.timer.arm(deadline_ms, self.now_ms) {
            self.mail(me, at_ms, Mail::Wake(Thread::Shard(shard)));
        }
        carried_out.map(|()| is_done)
    }

    pub fn shard_timer(&mut self, node: usize, shard: usize) -> Result<(), Broken> {
        if self.logic[node].shards[shard].timer.fires(self.now_ms) {
            let life = self.life(Process::logic(node));
            let read_until_ms = life.clock.ms(life.read_until_ms(self.now_ms));
            self.shard(node, shard, shard::Input::Tick { read_until_ms })?;
        }
        Ok(())
    }

    fn shard_effects(
        &mut self,
        node: usize,
        shard: usize,
        effects: &mut shard::Effects,
    ) -> Result<(), Broken> {
        for send in &effects.sends {
            let stream = self.logic[node].shards[shard].slots[send.slot.0 as usize];
            let bytes = &effects.out[send.bytes.clone()];
            self.judge_what_leaves(node, stream, bytes)?;
            self.network.send(
                stream,
                Side::Server,
                bytes,
                self.now_ms,
                &mut self.deliveries,
            );
        }
        for slot in &effects.closes {
            let stream = self.logic[node].shards[shard].slots[slot.0 as usize];
            self.leave(node, stream);
            self.model.ended(stream);
            self.network
                .close(stream, Side::Server, self.now_ms, &mut self.deliveries);
        }
        let me = Process::logic(node);
        for batch in effects.batches.drain(..) {
            let soon = self.soon();
            let at_ms = self.logic[node].shards[shard].writer_at(soon);
            self.mail(me, at_ms, Mail::Batch(Box::new(batch)));
        }
        for ended in effects.ended.drain(..) {
            let soon = self.soon();
            let at_ms = self.logic[node].shards[shard].gate_at(soon);
            self.mail(me, at_ms, Mail::Gate(ended));
        }
        Ok(())
    }

    /// Reads what a shard sends as the device will.
    fn judge_what_leaves(
        &mut self,
        node: usize,
        stream: Stream,
        mut bytes: &[u8],
    ) -> Result<(), Broken> {
        let Some(connection) = self.network.connection(stream) else {
            return Ok(());
        };
        let client = connection.client;
        while let Ok(Parsed::Frame { frame, consumed }) =
            frame::parse(bytes, frame::FRAME_BYTES_MAX)
        {
            bytes = &bytes[consumed..];
            let message = FromCluster::decode(&frame)
                .map_err(|error| Broken(format!("the cluster sent nonsense: {error}")))?;
            match (message, client) {
                (FromCluster::AttachReply(reply), client)
                    if matches!(reply.verdict, AttachVerdict::Ok { .. }) =>
                {
                    let Client::Device { index, .. } = client else {
                        return Err(Broken("P4: a replayer was admitted".into()));
                    };
                    let attach = self.logic[node]
                        .unattached
                        .get(&stream)
                        .and_then(Unattached::attach);
                    self.model.attached(
                        stream,
                        node,
                        account_of(index),
                        attach.as_ref(),
                        self.now_ms,
                    )?;
                    self.may_flap(stream);
                }
                (FromCluster::TelemetryAck(ack), Client::Device { index, .. })
                    if ack.status == AckStatus::Stored =>
                {
                    self.model.ack_leaves(
                        account_of(index),
                        ack.base_seq,
                        ack.count,
                        &self.store,
                    )?;
                }
                (FromCluster::Close(close), _)
                    if close.reason == CloseReason::Idle
                        && self.life(Process::logic(node)).holds(stream) =>
                {
                    let what = format!("L1: {stream:?} is closed as idle, and its bytes wait");
                    return Err(Broken(what));
                }
                (FromCluster::Close(close), _) if close.reason == CloseReason::Replaced => {
                    self.model.replaced(stream)?;
                }
                _ => {}
            }
        }
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(Broken("the cluster sent half a frame".into()))
        }
    }

    // ---- the writer ---------------------------------------------------------------------------

    pub fn submit(&mut self, node: usize, batch: logic_server::batch::Batch) {
        self.writer(node, writer::Input::Submit(batch));
    }

    fn writer(&mut self, node: usize, input: writer::Input) {
        let me = Process::logic(node);
        let now = self.now(me);
        let mut effects = vec![];
        self.logic[node].writer.apply(input, now.ms, &mut effects);
        for effect in effects {
            match effect {
                writer::Effect::Write(work) => {
                    let (fate, stall_ms) = self.store.fate();
                    let took_ms = self.rng.random_range(self.plan.store_ms.clone());
                    let work = Box::new(work);
                    self.schedule(
                        self.now_ms + took_ms + stall_ms,
                        Event::Written {
                            to: me,
                            generation: self.life(me).generation,
                            work,
                            fate,
                        },
                    );
                }
                writer::Effect::Finished { batch, outcome } => {
                    let shard = batch.shard.0.into();
                    let batch = Box::new(batch);
                    self.mail_shard(node, shard, ShardMail::Finished { batch, outcome });
                }
            }
        }
        let clock = self.life(me).clock;
        let logic = &mut self.logic[node];
        let deadline_ms = logic.writer.next_deadline().map(|ms| clock.world_ms(ms));
        if let Some(at_ms) = logic.writer_timer.arm(deadline_ms, self.now_ms) {
            self.mail(me, at_ms, Mail::Wake(Thread::Writer));
        }
    }

    pub fn writer_timer(&mut self, node: usize) {
        if self.logic[node].writer_timer.fires(self.now_ms) {
            self.writer(node, writer::Input::Tick);
        }
    }

    /// What the database does with a transaction.
    pub fn write(&mut self, work: &writer::Work, fate: Fate) -> Result<WriteResult, Broken> {
        let mut new = vec![];
        let result = self.store.write(work, fate, &mut new);
        for (key, stored) in new {
            self.model.row_stored(key, stored, &self.store)?;
        }
        Ok(result)
    }

    pub fn written(&mut self, node: usize, work: writer::Work, result: WriteResult) {
        self.writer(node, writer::Input::Done { work, result });
        self.end_when_done(node);
    }
}
