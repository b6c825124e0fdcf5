//! Carries out what gates, shards and writers ask for, and shows the judge what the devices get.

use std::vec::Drain;

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::message::{Figures, GrantVerdict, Kicked, Message};
use common::link::{Asker, LinkId};
use logic_server::adapter::Protocol;
use logic_server::ask::{Answer, Ask};
use logic_server::batch::Batch;
use logic_server::gate;
use logic_server::ids::{ConnId, ListenerIndex, Slot};
use logic_server::presence::Presence;
use logic_server::shard;
use logic_server::wire::goodbye::Goodbye;
use logic_server::writer::{self, WriteResult};
use protocols::rcu::attach::AttachVerdict;
use protocols::rcu::code::{AckStatus, CloseReason};
use protocols::rcu::frame::{self, Parsed};
use protocols::rcu::kind;
use protocols::rcu::message::FromCluster;
use rand::RngExt;

use crate::hostile::Overheard;
use crate::links::{LinkMail, Part};
use crate::logic::{
    BATCHES_COMING_MAX, GateMail, Loop, OVERLOAD_RETRY_MS, Place, ShardMail, Unattached,
};
use crate::model::{Admission, Broken, Keeper};
use crate::network::{Client, Read, Side, Stream};
use crate::process::{Mail, Process, Thread};
use crate::socket::{Kernel, Socket};
use crate::store::Fate;
use crate::world::{Event, World};

/// A shard's effects on their way out.
struct Leaving<'a> {
    world: &'a mut World,
    node: usize,
    shard: usize,
    judged: Result<(), Broken>,
}

impl shard::Outlets for Leaving<'_> {
    fn overload_retry_ms(&self) -> u32 {
        OVERLOAD_RETRY_MS
    }

    fn tell(&mut self, lines: Drain<'_, Presence>) {
        let Self { world, node, .. } = self;
        let now_ms = world.now(Process::logic(*node)).ms;
        for line in lines {
            if world.logic[*node].lines.push(line, now_ms) {
                world.arm_writer(*node);
            }
        }
    }

    fn submit(&mut self, batch: Batch) -> Result<(), Batch> {
        let world = &mut *self.world;
        let soon = world.soon();
        let logic = &mut world.logic[self.node];
        if logic.batches_coming == BATCHES_COMING_MAX {
            return Err(batch);
        }
        logic.batches_coming += 1;
        let at_ms = logic.shards[self.shard].writer_at(soon);
        world.mail(
            Process::logic(self.node),
            at_ms,
            Mail::Batch(Box::new(batch)),
        );
        Ok(())
    }

    fn send(&mut self, slot: Slot, bytes: &[u8]) -> Option<shard::Input<'static>> {
        let sent = self.world.shard_sends(self.node, self.shard, slot, bytes);
        sent.unwrap_or_else(|broken| {
            self.judged = Err(broken);
            None
        })
    }

    fn close(&mut self, slot: Slot) {
        let Self {
            world, node, shard, ..
        } = self;
        let slots = &world.logic[*node].shards[*shard].slots;
        let Some(stream) = slots.get(slot.0 as usize).map(|socket| socket.stream) else {
            return;
        };
        let socket = world.leave(*node, stream);
        world.model.ended(stream);
        let unsent = socket.map(|socket| socket.output.into_rest());
        let of = Loop::Shard(*shard);
        world.part(*node, of, stream, unsent.unwrap_or_default());
    }

    fn end(&mut self, ended: shard::Ended) {
        let world = &mut *self.world;
        let soon = world.soon();
        let at_ms = world.logic[self.node].shards[self.shard].gate_at(soon);
        world.mail(Process::logic(self.node), at_ms, Mail::Gate(ended));
    }

    fn answer(&mut self, answer: Answer) {
        let part = Part::Answer { id: answer.request };
        let me = Process::logic(self.node);
        self.world.says(answer.link, me, part, answer.message);
    }
}

/// Bytes of one read of a session.
const READ_BYTES: usize = 16 * 1_024;

/// A shard goes through its sessions to say what it keeps: not after every event.
const SHARD_LOOKED_AT_EACH: u64 = 16;

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
        self.gate(
            node,
            gate::Input::Accepted {
                conn,
                listener: ListenerIndex(0),
                source,
            },
        )?;
        // It may have said something by now.
        self.logic_ready(node, stream)
    }

    /// A server's end of a stream is worth a look.
    pub fn logic_ready(&mut self, node: usize, stream: Stream) -> Result<(), Broken> {
        match self.logic[node].places.get(&stream).copied() {
            Some(Place::Gate(conn)) => self.gate_reads(node, stream, conn),
            Some(Place::Shard(shard, slot)) => {
                self.shard_flushes(node, shard, slot)?;
                self.shard_reads(node, shard, slot, stream)
            }
            Some(Place::Leaving(of, key)) => {
                self.leaves_on(node, of, key);
                Ok(())
            }
            // Nobody reads it.
            Some(Place::Moving) | None => Ok(()),
        }
    }

    /// Reads no more than it must; the rest is the shard's.
    fn gate_reads(&mut self, node: usize, stream: Stream, conn: ConnId) -> Result<(), Broken> {
        while let Some(unattached) = self.logic[node].unattached.get(&stream) {
            let bytes_max = Protocol::Rcu.read_bytes_max();
            let room = bytes_max.saturating_sub(unattached.heard.len());
            if room == 0 || self.logic[node].places.get(&stream) != Some(&Place::Gate(conn)) {
                return Ok(());
            }
            match self.server_reads(stream, room) {
                Read::Bytes(bytes) => {
                    if let Some(unattached) = self.logic[node].unattached.get_mut(&stream) {
                        unattached.heard.extend_from_slice(&bytes);
                    }
                    let bytes = &bytes;
                    self.gate(node, gate::Input::Received { conn, bytes })?;
                }
                Read::Nothing => return Ok(()),
                Read::End | Read::Reset => {
                    self.leave(node, stream);
                    self.close(stream);
                    return self.gate(node, gate::Input::Disconnected { conn });
                }
            }
        }
        Ok(())
    }

    fn shard_reads(
        &mut self,
        node: usize,
        shard: usize,
        slot: Slot,
        stream: Stream,
    ) -> Result<(), Broken> {
        while self.logic[node].places.get(&stream) == Some(&Place::Shard(shard, slot)) {
            match self.server_reads(stream, READ_BYTES) {
                Read::Bytes(bytes) => {
                    self.model.session_reads(stream, &bytes, self.now_ms);
                    let bytes = &bytes;
                    self.shard(node, shard, shard::Input::Received { slot, bytes })?;
                }
                Read::Nothing => return Ok(()),
                Read::End | Read::Reset => return self.gone(node, shard, slot),
            }
        }
        Ok(())
    }

    fn server_reads(&mut self, stream: Stream, bytes_max: usize) -> Read {
        let (now_ms, deliveries) = (self.now_ms, &mut self.deliveries);
        self.network
            .read(stream, Side::Server, bytes_max, now_ms, deliveries)
    }

    fn shard_flushes(&mut self, node: usize, shard: usize, slot: Slot) -> Result<(), Broken> {
        let socket = &mut self.logic[node].shards[shard].slots[slot.0 as usize];
        let mut kernel = Kernel {
            network: &mut self.network,
            deliveries: &mut self.deliveries,
            stream: socket.stream,
            now_ms: self.now_ms,
        };
        match socket.output.flush(&mut kernel) {
            Some(true) => self.shard(node, shard, shard::Input::Drained { slot }),
            Some(false) => Ok(()),
            None => self.gone(node, shard, slot),
        }
    }

    /// The device of a session went.
    fn gone(&mut self, node: usize, shard: usize, slot: Slot) -> Result<(), Broken> {
        let slots = &self.logic[node].shards[shard].slots;
        let Some(stream) = slots.get(slot.0 as usize).map(|socket| socket.stream) else {
            return Ok(());
        };
        self.leave(node, stream);
        self.close(stream);
        self.model.ended(stream);
        self.shard(node, shard, shard::Input::Disconnected { slot })
    }

    /// The server is done with a stream.
    fn leave(&mut self, node: usize, stream: Stream) -> Option<Socket> {
        let logic = &mut self.logic[node];
        logic.unattached.remove(&stream);
        match logic.places.remove(&stream)? {
            Place::Gate(conn) => {
                logic.conns.remove(conn.0 as usize);
                None
            }
            Place::Shard(shard, slot) => logic.shards[shard].slots.try_remove(slot.0 as usize),
            Place::Moving | Place::Leaving(..) => None,
        }
    }

    fn close(&mut self, stream: Stream) {
        self.network
            .close(stream, Side::Server, self.now_ms, &mut self.deliveries);
    }

    // ---- goodbyes -----------------------------------------------------------------------------

    /// Closes a stream after `unsent`, as the product parts from a device.
    fn part(&mut self, node: usize, of: Loop, stream: Stream, unsent: Vec<u8>) {
        let mut goodbye = Goodbye::new(unsent, self.now(Process::logic(node)).ms);
        let mut kernel = Kernel {
            network: &mut self.network,
            deliveries: &mut self.deliveries,
            stream,
            now_ms: self.now_ms,
        };
        if goodbye.go_on(&mut kernel).is_none() {
            return self.close(stream);
        }
        let lingering = self.logic[node].lingering(of);
        let key = lingering.insert(stream, goodbye);
        let surplus = lingering.pop_surplus();
        self.logic[node]
            .places
            .insert(stream, Place::Leaving(of, key));
        if let Some(surplus) = surplus {
            self.logic[node].places.remove(&surplus);
            self.close(surplus);
        }
    }

    /// There is room, or something to read away.
    fn leaves_on(&mut self, node: usize, of: Loop, key: usize) {
        let Some((stream, goodbye)) = self.logic[node].lingering(of).get_mut(key) else {
            return;
        };
        let stream = *stream;
        let mut kernel = Kernel {
            network: &mut self.network,
            deliveries: &mut self.deliveries,
            stream,
            now_ms: self.now_ms,
        };
        if goodbye.go_on(&mut kernel).is_none() {
            self.logic[node].lingering(of).remove(key);
            self.logic[node].places.remove(&stream);
            self.close(stream);
        }
    }

    /// Closes those whose time is over.
    fn expire_goodbyes(&mut self, node: usize, of: Loop) {
        let now_ms = self.now(Process::logic(node)).ms;
        while let Some(stream) = self.logic[node].lingering(of).pop_late(now_ms) {
            self.logic[node].places.remove(&stream);
            self.close(stream);
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
        self.model
            .holds(Keeper::Gate, &self.logic[node].gate.held())?;
        self.arm_gate(node);
        Ok(())
    }

    pub fn gate_timer(&mut self, node: usize) -> Result<(), Broken> {
        if self.logic[node].gate_timer.fires(self.now_ms) {
            self.expire_goodbyes(node, Loop::Gate);
            self.gate(node, gate::Input::Tick)?;
        }
        Ok(())
    }

    fn arm_gate(&mut self, node: usize) {
        let me = Process::logic(node);
        let clock = self.life(me).clock;
        let logic = &mut self.logic[node];
        let deadlines = [logic.gate.next_deadline(), logic.lingering.next_deadline()];
        let deadline_ms = deadlines.into_iter().flatten().min();
        let deadline_ms = deadline_ms.map(|ms| clock.world_ms(ms));
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
            gate::Effect::Explain { .. } => {}
            gate::Effect::Refuse { conn, reply } => {
                // One that went is let go by the core a moment later.
                let Some(stream) = self.logic[node].conns.get(conn.0 as usize).copied() else {
                    return Ok(());
                };
                self.marks.bytes_leave(&reply);
                self.judge_refusal(node, stream, &reply)?;
                self.leave(node, stream);
                if reply.is_empty() {
                    self.close(stream);
                } else {
                    self.part(node, Loop::Gate, stream, reply);
                }
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
                self.judge_admission(node, stream, seed.account_id, seed.epoch)?;
                self.note_attach(node, stream);
                let mail = ShardMail::Adopt {
                    stream,
                    seed: Box::new(seed),
                    unread,
                };
                self.mail_shard(node, shard.0.into(), mail);
            }
            effect @ gate::Effect::EndSession { shard, .. } => {
                self.mail_shard(
                    node,
                    shard.0.into(),
                    ShardMail::End {
                        effect: Box::new(effect),
                    },
                );
            }
            gate::Effect::Ask {
                shard,
                session,
                ask,
            } => {
                let ask = Box::new(ask);
                self.mail_shard(node, shard.0.into(), ShardMail::Ask { session, ask });
            }
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

    /// Whether a connection that is admitted may be.
    fn judge_admission(
        &mut self,
        node: usize,
        stream: Stream,
        admitted: AccountId,
        epoch: Epoch,
    ) -> Result<(), Broken> {
        let Some(connection) = self.network.connection(stream) else {
            return Err(Broken(format!("P4: {stream:?} is admitted and gone")));
        };
        let source = connection.source;
        let Some(account_id) = self.account_of(connection.client) else {
            return Err(Broken("P4: a replayer was admitted".into()));
        };
        if account_id != admitted {
            let what = format!("P4: {stream:?} of {account_id} is admitted as {admitted}");
            return Err(Broken(what));
        }
        let unattached = self.logic[node].unattached.get(&stream);
        let attach = unattached.and_then(Unattached::attach);
        let who = Admission {
            stream,
            node,
            account_id,
            source,
            epoch,
        };
        self.model.admitted(who, attach.as_ref(), self.now_ms)
    }

    /// Whether a connection that is not admitted should have been.
    fn judge_refusal(&self, node: usize, stream: Stream, reply: &[u8]) -> Result<(), Broken> {
        let attach = self.logic[node]
            .unattached
            .get(&stream)
            .and_then(Unattached::attach);
        let connection = self.network.connection(stream);
        let (Some(attach), Some(connection)) = (attach, connection) else {
            return Ok(());
        };
        match frame::parse(reply, frame::FRAME_BYTES_MAX) {
            Ok(Parsed::Frame { frame, .. }) if frame.kind == kind::ATTACH_REPLY => {
                match FromCluster::decode(&frame) {
                    Ok(FromCluster::AttachReply(reply))
                        if reply.verdict == AttachVerdict::NotAdmitted =>
                    {
                        self.model
                            .turned_away(node, connection.source, &attach, self.now_ms)
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
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
                (Part::Request { id, .. }, Message::SessionPageAsk(ask)) => {
                    gate::Input::SessionPageAsk {
                        link,
                        request: id,
                        ask,
                    }
                }
                (Part::Request { id, .. }, Message::FiguresAsk(_)) => {
                    let figures = Figures::default();
                    let me = Process::logic(node);
                    self.says(link, me, Part::Answer { id }, figures.into());
                    return Ok(());
                }
                (_, Message::End(end)) => gate::Input::End(end),
                (_, Message::Revoke(revoke)) => {
                    let (account_id, below) = (revoke.account_id, revoke.below_version);
                    self.model.grants_revoked(node, account_id, below);
                    gate::Input::Revoke(revoke)
                }
                (Part::Request { id, deadline_ms }, message) => {
                    let now_ms = self.now(Process::logic(node)).ms;
                    let asker = Asker::new(link, id, deadline_ms, now_ms);
                    match Ask::of(asker, message) {
                        Ok(ask) => gate::Input::Ask(ask),
                        Err(_) => return Ok(()),
                    }
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
            if let Some(source) = grant.source {
                self.overhear(Overheard {
                    node,
                    source,
                    ticket: grant.ticket,
                });
            }
            self.model.granted(node, &grant, self.now_ms)?;
        }
        for effect in effects {
            self.gate_effect(node, effect)?;
        }
        self.model
            .holds(Keeper::Gate, &self.logic[node].gate.held())?;
        self.arm_gate(node);
        Ok(())
    }

    // ---- the shards ---------------------------------------------------------------------------

    pub fn mail_shard(&mut self, node: usize, shard: usize, mail: ShardMail) {
        // A mailbox keeps its order: what is posted later does not arrive earlier.
        let soon = self.soon();
        let at_ms = self.logic[node].shards[shard].mailbox_at(soon);
        self.mail(
            Process::logic(node),
            at_ms,
            Mail::Shard {
                shard,
                mail: Box::new(mail),
            },
        );
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
                } = *effect
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
            ShardMail::Ask { session, ask } => {
                let ask = *ask;
                self.shard(node, shard, shard::Input::Ask { session, ask })
            }
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
        let slot = Slot(logic.shards[shard].slots.insert(Socket::new(stream)) as u32);
        logic.places.insert(stream, Place::Shard(shard, slot));
        self.shard(node, shard, shard::Input::Adopt { slot, seed, unread })?;
        self.model.session_reads(stream, unread, self.now_ms);
        self.logic[node].unattached.remove(&stream);
        // What came while it moved waits in the kernel.
        self.logic_ready(node, stream)
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
        if self.events.is_multiple_of(SHARD_LOOKED_AT_EACH) {
            self.model.holds(Keeper::Shard, &thread.core.held())?;
        }
        let carried_out = self.shard_effects(node, shard, &mut effects);
        let is_done = effects.done;
        effects.clear();
        let thread = &mut self.logic[node].shards[shard];
        thread.effects = effects;
        let deadlines = [
            thread.core.next_deadline(),
            thread.lingering.next_deadline(),
        ];
        let deadline_ms = deadlines.into_iter().flatten().min();
        let deadline_ms = deadline_ms.map(|ms| clock.world_ms(ms));
        if let Some(at_ms) = thread.timer.arm(deadline_ms, self.now_ms) {
            self.mail(me, at_ms, Mail::Wake(Thread::Shard(shard)));
        }
        carried_out.map(|()| is_done)
    }

    pub fn shard_timer(&mut self, node: usize, shard: usize) -> Result<(), Broken> {
        if self.logic[node].shards[shard].timer.fires(self.now_ms) {
            self.expire_goodbyes(node, Loop::Shard(shard));
            let life = self.life(Process::logic(node));
            let read_until_ms = life.clock.ms(life.read_until_ms(self.now_ms));
            self.shard(node, shard, shard::Input::Tick { read_until_ms })?;
        }
        Ok(())
    }

    /// What a shard asks for leaves it in the product's own order.
    fn shard_effects(
        &mut self,
        node: usize,
        shard: usize,
        effects: &mut shard::Effects,
    ) -> Result<(), Broken> {
        for answer in &effects.answers {
            if let Message::Kicked(Kicked { epoch: Some(epoch) }) = &answer.message {
                self.model.kicked(*epoch);
            }
        }
        let mut back = vec![];
        let mut leaving = Leaving {
            world: self,
            node,
            shard,
            judged: Ok(()),
        };
        effects.leave(&mut leaving, &mut back);
        leaving.judged?;
        for input in back {
            match input {
                shard::Input::Disconnected { slot } => self.gone(node, shard, slot)?,
                shard::Input::Unsent { slot, bytes } => {
                    if self.waiting(node, shard, slot).is_some() {
                        self.shard(node, shard, shard::Input::Unsent { slot, bytes })?;
                    }
                    self.judge_what_waits(node, shard, slot)?;
                }
                input => self.shard(node, shard, input)?,
            }
        }
        Ok(())
    }

    /// Output of the session in a slot that its kernel has not taken; `None`: nobody is there.
    fn waiting(&self, node: usize, shard: usize, slot: Slot) -> Option<usize> {
        let socket = self.logic[node].shards[shard].slots.get(slot.0 as usize);
        socket.map(|socket| socket.output.waiting())
    }

    /// A reader that stops costs the server its high-water mark and no more.
    fn judge_what_waits(&self, node: usize, shard: usize, slot: Slot) -> Result<(), Broken> {
        let most = self.plan.unsent_bytes_max;
        match self.waiting(node, shard, slot) {
            Some(waiting) if waiting > most => Err(Broken(format!(
                "P6: a session has {waiting} bytes unsent, beyond {most}, and is not closed"
            ))),
            _ => Ok(()),
        }
    }

    /// What the core has to be told of it: that the kernel did not take all, or that the device went.
    fn shard_sends(
        &mut self,
        node: usize,
        shard: usize,
        slot: Slot,
        bytes: &[u8],
    ) -> Result<Option<shard::Input<'static>>, Broken> {
        let slots = &self.logic[node].shards[shard].slots;
        let Some(stream) = slots.get(slot.0 as usize).map(|socket| socket.stream) else {
            return Ok(None);
        };
        self.judge_what_leaves(node, stream, bytes)?;
        let socket = &mut self.logic[node].shards[shard].slots[slot.0 as usize];
        let mut kernel = Kernel {
            network: &mut self.network,
            deliveries: &mut self.deliveries,
            stream,
            now_ms: self.now_ms,
        };
        Ok(match socket.output.send(bytes, &mut kernel) {
            Some(0) => None,
            Some(bytes) => Some(shard::Input::Unsent { slot, bytes }),
            None => Some(shard::Input::Disconnected { slot }),
        })
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
            self.marks.leaves(&message);
            let account_id = self.account_of(client);
            match (message, account_id) {
                (FromCluster::AttachReply(reply), _) => {
                    if let AttachVerdict::Ok { terms, .. } = &reply.verdict {
                        self.model
                            .attached(stream, terms.heartbeat_s, self.now_ms)?;
                        self.may_flap(stream);
                    }
                }
                (FromCluster::Command(command), _) => {
                    self.judge_command(node, command.deadline_ms)?
                }
                (FromCluster::TelemetryAck(ack), Some(account_id))
                    if ack.status == AckStatus::Stored =>
                {
                    self.model
                        .ack_leaves(account_id, ack.base_seq, ack.count, &self.store)?;
                }
                (FromCluster::Close(close), _)
                    if close.reason == CloseReason::Idle
                        && self.life(Process::logic(node)).holds(stream)
                        && self.network.has_unread(stream, Side::Server) =>
                {
                    let what = format!("L1: {stream:?} is closed as idle, and its bytes wait");
                    return Err(Broken(what));
                }
                (FromCluster::Close(close), Some(account_id))
                    if close.reason == CloseReason::ProtocolError
                        && matches!(client, Client::Device { .. }) =>
                {
                    let what = "keeps the contract, and is told protocol_error";
                    return Err(Broken(format!("contract: {account_id} {what}")));
                }
                (FromCluster::Close(close), _) => {
                    self.model.closes(stream, close.reason, self.now_ms)?;
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

    /// Whose device made a connection; a replayer is nobody's.
    fn account_of(&self, client: Client) -> Option<AccountId> {
        match client {
            Client::Device { index, .. } => Some(self.devices[index].account_id()),
            Client::Hostile { index, .. } => Some(self.hostile[index].account_id()),
            Client::Replayer => None,
        }
    }

    // ---- the writer ---------------------------------------------------------------------------

    pub fn submit(&mut self, node: usize, batch: logic_server::batch::Batch) {
        self.logic[node].batches_coming -= 1;
        self.writer(node, writer::Input::Submit(batch));
    }

    pub fn writer(&mut self, node: usize, input: writer::Input) {
        let me = Process::logic(node);
        let now = self.now(me);
        let mut effects = vec![];
        let logic = &mut self.logic[node];
        logic
            .writer
            .apply(input, now.ms, &mut logic.lines, &mut effects);
        for effect in effects {
            match effect {
                writer::Effect::Write(work) => {
                    let usual_ms = self.rng.random_range(self.plan.store_ms.clone());
                    let (fate, took_ms) = self.store.fate(usual_ms, self.now_ms);
                    let work = Box::new(work);
                    self.schedule(
                        self.now_ms + took_ms,
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
                // For the log; counted, and a surprise among the marks.
                writer::Effect::Contradicts { .. } => {}
            }
        }
        let logic = &self.logic[node];
        let held = logic.writer.held(&logic.lines);
        self.model.note_held(Keeper::Writer, &held);
        self.arm_writer(node);
    }

    fn arm_writer(&mut self, node: usize) {
        let me = Process::logic(node);
        let clock = self.life(me).clock;
        let logic = &mut self.logic[node];
        let deadline_ms = logic.writer.next_deadline(&logic.lines);
        let deadline_ms = deadline_ms.map(|ms| clock.world_ms(ms));
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
    pub fn write(
        &mut self,
        node: usize,
        work: &writer::Work,
        fate: Fate,
    ) -> Result<WriteResult, Broken> {
        let mut new = vec![];
        let result = self.store.write(node, work, fate, &mut new);
        if let WriteResult::Refused { .. } = &result {
            self.model.store_refused(self.now_ms);
        }
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
