//! What a device that does not keep the contract is told, judged by the contract.

use protocols::rcu::attach::{AttachReply, AttachVerdict, Credential};
use protocols::rcu::code::{AckStatus, CloseReason};
use protocols::rcu::frame::{self, FRAME_BYTES_MAX, Parsed};
use protocols::rcu::limit;
use protocols::rcu::login::{LoginReply, LoginVerdict};
use protocols::rcu::message::FromCluster;
use protocols::rcu::proof::session_key;
use rand::RngExt;
use simulator::device::SentRecord;
use simulator::digest::digest;

use super::{ANSWERED_MS, Act, DEAF_MS, Earned, LATE_MS, WATCHED_MS};
use crate::clock::true_unix_ms;
use crate::device::device_key;
use crate::model::Broken;
use crate::network::{Read, Side};
use crate::process::Process;
use crate::tricks::{self, AtDoor, AtGate, Due, Fit, Heard, InSession, Trick};
use crate::world::{World, logic_address};

impl World {
    pub fn hostile_ready(&mut self, index: usize, number: u64) -> Result<(), Broken> {
        self.hostile_flushes(index);
        loop {
            let Some(visit) = self.hostile_visit(index, number) else {
                return Ok(());
            };
            if visit.act == Act::Session(InSession::Deaf) {
                return Ok(());
            }
            let stream = visit.stream;
            let (now_ms, deliveries) = (self.now_ms, &mut self.deliveries);
            match self
                .network
                .read(stream, Side::Client, 4_096, now_ms, deliveries)
            {
                Read::Bytes(bytes) => {
                    if let Some(visit) = self.hostile_visit(index, number) {
                        visit.heard.extend(bytes);
                    }
                    self.hostile_hears(index, number)?;
                }
                Read::Nothing => return Ok(()),
                Read::End => return self.hostile_ended(index, false),
                Read::Reset => return self.hostile_ended(index, true),
            }
        }
    }

    /// Takes the frames that are whole.
    fn hostile_hears(&mut self, index: usize, number: u64) -> Result<(), Broken> {
        while let Some(visit) = self.hostile_visit(index, number) {
            let heard = std::mem::take(&mut visit.heard);
            let wrong = |what: String| Broken(format!("a hostile device was sent {what}"));
            match frame::parse(&heard, FRAME_BYTES_MAX) {
                Ok(Parsed::Incomplete { .. }) => {
                    visit.heard = heard;
                    return Ok(());
                }
                Err(error) => return Err(wrong(error.to_string())),
                Ok(Parsed::Frame { frame, consumed }) => {
                    visit.heard = heard[consumed..].to_vec();
                    let message = FromCluster::decode(&frame)
                        .map_err(|error| wrong(format!("nonsense: {error}")))?;
                    self.hostile_judges(index, &message)?;
                }
            }
        }
        Ok(())
    }

    fn hostile_judges(&mut self, index: usize, message: &FromCluster<'_>) -> Result<(), Broken> {
        let heard = Heard::of(message);
        let now_ms = self.now_ms;
        let Some(visit) = &mut self.hostile[index].visit else {
            return Ok(());
        };
        if !visit.has_grant && !self.network.is_hurt(visit.stream) {
            return Err(
                self.unlike_the_contract(index, &format!("told {heard:?}, without a grant"))
            );
        }
        // What follows the answer: the rest of a session that is not watched any more.
        if visit.is_answered && !visit.due.is_session && visit.due.one_of.contains(&heard) {
            return Err(self.unlike_the_contract(index, &format!("told {heard:?} once more")));
        }
        match visit.due.fit(heard) {
            // What the network held back did not come in time.
            Fit::Wrong
                if heard == Heard::Close(CloseReason::AttachTimeout)
                    && self.network.is_hurt(visit.stream) =>
            {
                visit.due.one_of.clear();
                return Ok(());
            }
            Fit::Wrong => {
                return Err(self.unlike_the_contract(index, &format!("told {heard:?}")));
            }
            Fit::Uncalled => {
                if matches!(heard, Heard::Close(_)) {
                    visit.due.one_of.clear();
                }
                return Ok(());
            }
            Fit::Beside => {}
            Fit::Due => {
                visit.is_answered = true;
                let early_ms = self.too_early(index, heard);
                if let Some(early_ms) = early_ms {
                    return Err(self.unlike_the_contract(
                        index,
                        &format!("told {heard:?} {early_ms} ms too early"),
                    ));
                }
            }
        }
        let Some(visit) = &mut self.hostile[index].visit else {
            return Ok(());
        };
        match (message, heard) {
            (_, Heard::Ack(AckStatus::Overloaded)) => visit.overloaded += 1,
            (_, Heard::Ack(_)) => visit.overloaded = 0,
            (_, Heard::Close(CloseReason::ProtocolError))
                if visit.act == Act::Session(InSession::Overrun) =>
            {
                if visit.overloaded < limit::OVERLOADED_WINDOWS * u32::from(visit.window) {
                    return Err(self.unlike_the_contract(index, "sent away within its windows"));
                }
                visit.due.one_of.clear();
            }
            (FromCluster::LoginReply(reply), _) => return self.hostile_logged_in(index, reply),
            (FromCluster::AttachReply(reply), _)
                if matches!(reply.verdict, AttachVerdict::Ok { .. }) =>
            {
                return self.hostile_attached(index, reply);
            }
            _ => {}
        }
        self.hostile_has_enough(index, now_ms)
    }

    /// Where an answer is not the end, there is nothing more to see.
    fn hostile_has_enough(&mut self, index: usize, now_ms: u64) -> Result<(), Broken> {
        let Some(visit) = &mut self.hostile[index].visit else {
            return Ok(());
        };
        match visit.act {
            Act::Session(InSession::Overrun) if visit.is_answered => {
                visit.until_ms = visit.until_ms.max(now_ms + WATCHED_MS);
                Ok(())
            }
            Act::Session(
                InSession::MalformedTelemetry | InSession::UnknownKind | InSession::ReplyToNothing,
            ) if visit.is_answered => self.hostile_is_done(index, true),
            _ => Ok(()),
        }
    }

    /// By how much a Close for silence comes before its time.
    fn too_early(&self, index: usize, heard: Heard) -> Option<u64> {
        let visit = self.hostile[index].visit.as_ref()?;
        let due_ms = match heard {
            Heard::Close(CloseReason::AttachTimeout) => {
                visit.connected_at_ms? + limit::FIRST_FRAME_MS
            }
            // It knows of its AttachReply later than the server does, and much later where the network
            // held that back.
            Heard::Close(CloseReason::Idle) if !self.network.is_hurt(visit.stream) => {
                let idle_ms = limit::SILENT_HEARTBEATS * u64::from(self.plan.heartbeat_s) * 1_000;
                (visit.attached_at_ms + idle_ms).saturating_sub(LATE_MS)
            }
            _ => return None,
        };
        due_ms.checked_sub(self.now_ms).filter(|early| *early > 0)
    }

    fn hostile_logged_in(&mut self, index: usize, reply: &LoginReply<'_>) -> Result<(), Broken> {
        let unix_ms = true_unix_ms(self.now_ms);
        let hostile = &mut self.hostile[index];
        let (account, nonce) = (hostile.account, hostile.nonce);
        let act = hostile.visit.as_ref().map(|visit| visit.act);
        let key = device_key(account, 1);
        match (&reply.verdict, act) {
            (LoginVerdict::Ok(signed), Some(act @ (Act::Login | Act::Door(AtDoor::Replay)))) => {
                if !reply.verify(nonce, &key) {
                    return Err(self.unlike_the_contract(index, "told ok with a wrong proof"));
                }
                let earned = Earned {
                    generation: (self.conns.len() == 1)
                        .then(|| self.life(Process::conn(0)).generation),
                    node: self.node_at(signed.target.host, signed.target.port)?,
                    ticket: signed.target.ticket,
                    session_key: session_key(&key, nonce, &signed.target.ticket),
                };
                let hostile = &mut self.hostile[index];
                let is_same = hostile
                    .earned
                    .as_ref()
                    .filter(|before| {
                        before.generation.is_some() && before.generation == earned.generation
                    })
                    .is_none_or(|before| before.ticket == earned.ticket);
                if act == Act::Door(AtDoor::Replay) && !is_same {
                    return Err(
                        self.unlike_the_contract(index, "given another grant for the same login")
                    );
                }
                hostile.earned = Some(earned);
                if act == Act::Login {
                    hostile.next = match hostile.trick {
                        Trick::Gate(AtGate::Replay) | Trick::Session(_) => Act::Attach,
                        Trick::Gate(trick) => Act::Gate(trick),
                        Trick::Door(trick) => Act::Door(trick),
                    };
                }
            }
            (LoginVerdict::ClockSkew { .. }, _) => {
                hostile.clock_offset_ms = reply.server_time_ms as i64 - unix_ms as i64;
            }
            _ => {}
        }
        Ok(())
    }

    fn node_at(&self, host: &str, port: u16) -> Result<usize, Broken> {
        let node = (0..self.logic.len()).find(|node| {
            let address = logic_address(*node);
            address.ip().to_string() == host && address.port() == port
        });
        node.ok_or_else(|| Broken(format!("a login leads to {host}:{port}, where nobody is")))
    }

    fn hostile_attached(&mut self, index: usize, reply: &AttachReply<'_>) -> Result<(), Broken> {
        let hostile = &mut self.hostile[index];
        let (Some(visit), Some(earned)) = (&mut hostile.visit, &hostile.earned) else {
            return Ok(());
        };
        let AttachVerdict::Ok { terms, .. } = reply.verdict else {
            return Ok(());
        };
        if !reply.verify(Credential::Ticket(earned.ticket), &earned.session_key) {
            return Err(self.unlike_the_contract(index, "admitted with a wrong proof"));
        }
        visit.attached_at_ms = self.now_ms;
        let Some(attach) = visit.attach else {
            return Ok(());
        };
        match (visit.act, hostile.trick) {
            (Act::Attach, Trick::Session(trick)) => {
                visit.act = Act::Session(trick);
                visit.due = Due::in_session(trick);
                visit.is_answered = false;
                visit.window = terms.window;
                let silent_ms = limit::SILENT_HEARTBEATS * u64::from(self.plan.heartbeat_s) * 1_000;
                visit.until_ms = self.now_ms
                    + match trick {
                        InSession::Mute | InSession::HalfFrame => silent_ms + 1_000 + LATE_MS,
                        InSession::Deaf => DEAF_MS,
                        _ => ANSWERED_MS,
                    };
                let bytes = hostile.session_bytes(trick, &attach);
                if let Some(visit) = &mut hostile.visit {
                    visit.unsent.extend(bytes);
                }
                if trick == InSession::Leaves {
                    return self.hostile_is_done(index, true);
                }
                if trick == InSession::Overrun {
                    self.overrun(index, terms.window);
                }
                self.hostile_flushes(index);
                self.arm_hostile(index);
                Ok(())
            }
            // Its early heartbeats are answered behind it.
            (Act::Gate(AtGate::EarlyFits | AtGate::EarlyTooMuch), _) => {
                visit.due.is_session = true;
                visit.until_ms = self.now_ms + LATE_MS;
                self.arm_hostile(index);
                Ok(())
            }
            (Act::Attach, Trick::Gate(AtGate::Replay)) => {
                self.hostile_is_done(index, true)?;
                self.hostile[index].next = Act::Gate(AtGate::Replay);
                Ok(())
            }
            _ => self.hostile_is_done(index, true),
        }
    }

    /// Four windows of frames behind a heartbeat, without waiting.
    fn overrun(&mut self, index: usize, window: u16) {
        let unix_ms = true_unix_ms(self.now_ms);
        let hostile = &mut self.hostile[index];
        let account_id = hostile.account_id();
        for id in 1..=4 * window {
            let payload: [u8; 12] = hostile.rng.random();
            let seq = hostile.records;
            hostile.records += 1;
            self.model.record_sent_in_vain(
                account_id,
                SentRecord {
                    seq,
                    recorded_at_ms: unix_ms,
                    kind: tricks::RECORD_KIND,
                    digest: digest(unix_ms, tricks::RECORD_KIND, &payload),
                },
            );
            if let Some(visit) = &mut hostile.visit {
                let frame = tricks::telemetry(id, seq, unix_ms, &payload);
                visit.unsent.extend(frame);
            }
        }
    }
}
