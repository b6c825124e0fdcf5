//! A device of the model: what it says, what it must hear for it, and what it waits for.

use std::collections::BTreeMap;

use common::link::message::{CommandAnswer, Order};
use logic_server::batch::Row;
use logic_server::presence::EndReason;
use protocols::rcu::code::{AckStatus, CommandStatus};

use super::Heard;
use crate::choices::Choices;
use crate::contract::{self, Body, End, Record};

/// A frame that was taken.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) session: u64,
    pub(super) slot: u32,
    pub(super) id: u16,
    pub(super) records: Vec<Record>,
    received_unix_ms: u64,
}

/// Who asked for a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) request: u64,
    pub(super) deadline_at_ms: u64,
}

/// The command under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) asker: Asked,
    order: Order,
    /// Not before the device has read what it was sent.
    is_sent: bool,
}

/// What a step must bring about.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) heard: BTreeMap<u32, Vec<Heard>>,
    pub(super) closes: Vec<u32>,
    pub(super) ended: BTreeMap<u64, EndReason>,
    pub(super) answers: Vec<(u64, CommandAnswer)>,
}

impl Expected {
    pub(super) fn hear(&mut self, slot: u32, heard: Heard) {
        self.heard.entry(slot).or_default().push(heard);
    }

    pub(super) fn answer(&mut self, request: u64, answer: CommandAnswer) {
        self.answers.push((request, answer));
        self.answers.sort_by_key(|(request, _)| *request);
    }

    pub(super) fn add(&mut self, other: Self) {
        for (slot, heard) in other.heard {
            self.heard.entry(slot).or_default().extend(heard);
        }
        self.closes.extend(other.closes);
        self.ended.extend(other.ended);
        for (request, answer) in other.answers {
            self.answer(request, answer);
        }
    }
}

/// What a frame is judged by.
pub(super) struct Rules {
    pub(super) window: u16,
    pub(super) takes_telemetry: bool,
    pub(super) now_ms: u64,
    pub(super) unix_ms: u64,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) session: u64,
    heartbeat_s: u16,
    heard_at_ms: u64,
    /// Said, and not delivered by the network.
    pub(super) stream: Vec<u8>,
    /// Delivered, and not a whole frame.
    kept: Vec<u8>,
    /// Frames that were taken.
    pub(super) unanswered: u16,
    /// Frames beyond the window since one was answered.
    pub(super) beyond: u32,
    pub(super) command: Option<UnderWay>,
    last_command_frame_id: u16,
    pub(super) output_waits: bool,
    next_seq: u64,
}

impl Device {
    pub(super) fn new(session: u64, heartbeat_s: u16, now_ms: u64) -> Self {
        Self {
            session,
            heartbeat_s,
            heard_at_ms: now_ms,
            stream: vec![],
            kept: vec![],
            unanswered: 0,
            beyond: 0,
            command: None,
            last_command_frame_id: 0,
            output_waits: false,
            next_seq: 1,
        }
    }

    /// "Nothing heard for 3 × heartbeat_s since the last, or since AttachReply."
    pub(super) fn idle_at_ms(&self) -> u64 {
        self.heard_at_ms + 3 * 1_000 * u64::from(self.heartbeat_s)
    }

    /// The first time-out of this device.
    pub(super) fn due_at_ms(&self) -> u64 {
        let command = self.command.as_ref();
        command.map_or(self.idle_at_ms(), |it| {
            it.asker.deadline_at_ms.min(self.idle_at_ms())
        })
    }

    pub(super) fn asker_is(&self, request: u64) -> bool {
        let command = self.command.as_ref();
        command.is_some_and(|it| it.asker.request == request)
    }

    /// One thing that a device may say, well behaved or not.
    pub(super) fn say(&mut self, choices: &mut Choices<'_>) -> Vec<u8> {
        let id = u16::from(choices.u8()) % 8;
        match choices.below(16) {
            0..6 => {
                let body = self.telemetry(choices);
                contract::sealed(0x07, id.max(1), &body)
            }
            6..8 => contract::sealed(0x05, id.max(1), &[]),
            8..11 => self.command_reply(choices),
            11 => contract::sealed(0x30 + choices.u8() % 16, id, choices.bytes(20)),
            // Records that cannot be cut.
            12 => contract::sealed(0x07, id.max(1), &[choices.u8(); 23]),
            13 => contract::sealed(choices.u8(), id, choices.bytes(4)),
            14 => {
                let mut frame = contract::sealed(0x05, 1, &[]);
                frame[choices.below(12) as usize] ^= 1 << choices.below(8);
                frame
            }
            _ => {
                let length = usize::from(choices.u8());
                contract::sealed(0x3F, id, &vec![9; length * 64])
            }
        }
    }

    fn telemetry(&mut self, choices: &mut Choices<'_>) -> Vec<u8> {
        // Now and then what was sent before is sent again.
        let base_seq = match choices.below(8) {
            7 => self.next_seq.saturating_sub(2),
            6 => (1 << 63) - u64::from(choices.below(4)),
            _ => self.next_seq,
        };
        let count = choices.pick(&[1, 2, 3, 12]);
        self.next_seq = self.next_seq.saturating_add(count);
        let mut body = base_seq.to_le_bytes().to_vec();
        body.extend((1_767_225_600_000_u64 + choices.below(2) as u64).to_le_bytes());
        body.push(count as u8);
        for _ in 0..count {
            let kind = choices.below(7) as u8;
            let length = choices.pick(&[0, 18, 14, 12, 2, 40]);
            let mut payload = choices.bytes(length).to_vec();
            payload.resize(length, 0);
            body.extend([kind, length as u8, choices.u8(), 0, 0, 0]);
            body.extend(payload);
        }
        body
    }

    fn command_reply(&mut self, choices: &mut Choices<'_>) -> Vec<u8> {
        let last = self.last_command_frame_id;
        let under_way = self.command.as_ref().map(|it| (last, it.order.command_id));
        let (frame_id, command_id) = match choices.below(4) {
            // To an earlier question, or to none.
            0 => (1, u64::from(choices.below(3))),
            _ => under_way.unwrap_or((0, 0)),
        };
        let mut body = command_id.to_le_bytes().to_vec();
        body.extend([choices.below(6) as u8 % 5, choices.below(2) as u8, 3, 0]);
        body.extend(b"yes");
        contract::sealed(0x22, frame_id, &body)
    }

    /// Bytes reach the session: what it must hear, what is taken of it, and whether that ends it.
    pub(super) fn receive(
        &mut self,
        slot: u32,
        bytes: &[u8],
        rules: &Rules,
        expected: &mut Expected,
        taken: &mut Vec<Frame>,
    ) -> bool {
        self.kept.extend_from_slice(bytes);
        let (frames, end) = contract::frames(&self.kept, 16_396);
        let read: usize = frames.iter().map(|it| 12 + it.body.len()).sum();
        self.kept.drain(..read);
        for frame in &frames {
            self.heard_at_ms = rules.now_ms;
            if self.frame(slot, frame, rules, expected, taken) {
                return true;
            }
        }
        !matches!(end, End::Incomplete { .. })
    }

    /// Whether this frame ends the session.
    fn frame(
        &mut self,
        slot: u32,
        frame: &contract::Frame,
        rules: &Rules,
        expected: &mut Expected,
        taken: &mut Vec<Frame>,
    ) -> bool {
        let id = frame.id;
        if contract::direction(frame.kind) == contract::Direction::Unlisted {
            return false;
        }
        let body = match contract::id_is_right(frame.kind, id) {
            true => contract::body(frame.kind, &frame.body),
            false => Body::Wrong,
        };
        match (frame.kind, body) {
            (0x05, Body::Right) => {
                let server_time_ms = rules.unix_ms;
                expected.hear(slot, Heard::Heartbeat { id, server_time_ms });
                false
            }
            (0x07, Body::Right | Body::Uncuttable) if !rules.takes_telemetry => false,
            (0x07, Body::Right | Body::Uncuttable) => {
                let ack = |status| Heard::Ack {
                    id,
                    base_seq: u64::from_le_bytes(*frame.body.first_chunk().unwrap()),
                    count: frame.body[16],
                    status,
                };
                if self.unanswered >= rules.window {
                    expected.hear(slot, ack(AckStatus::Overloaded));
                    self.beyond += 1;
                    return self.beyond == 3 * u32::from(rules.window);
                }
                match contract::records(&frame.body) {
                    Some(records) => {
                        self.unanswered += 1;
                        taken.push(Frame {
                            session: self.session,
                            slot,
                            id,
                            records,
                            received_unix_ms: rules.unix_ms,
                        });
                    }
                    None => expected.hear(slot, ack(AckStatus::Malformed)),
                }
                false
            }
            (0x22, Body::Right) => {
                self.reply(id, &frame.body, expected);
                false
            }
            _ => true,
        }
    }

    fn reply(&mut self, frame_id: u16, body: &[u8], expected: &mut Expected) {
        let command_id = u64::from_le_bytes(*body.first_chunk().unwrap());
        let was_asked = (1..=self.last_command_frame_id).contains(&frame_id);
        let Some(command) = &self.command else { return };
        if !was_asked || command.order.command_id != command_id {
            return;
        }
        let (status, more) = (body[8], body[9] == 1);
        assert!(CommandStatus::from_code(status).is_some());
        let payload = body[12..].to_vec();
        let answer = CommandAnswer::Replied {
            status,
            more,
            payload,
        };
        expected.answer(command.asker.request, answer);
        if !more {
            self.command = None;
        }
    }

    /// Somebody asks for a command.
    pub(super) fn ask(
        &mut self,
        slot: u32,
        asked: Asked,
        order: &Order,
        rules: &Rules,
        expected: &mut Expected,
    ) {
        // A Command of at most 1,024 bytes, header included.
        let is_too_large = 12 + 8 + 8 + 2 + 2 + order.payload.len() > 1_024;
        let is_too_late = asked.deadline_at_ms <= rules.now_ms
            || (order.deadline_ms != 0 && rules.unix_ms > order.deadline_ms);
        let refused = if is_too_large {
            Some(CommandAnswer::TooLarge)
        } else if is_too_late {
            Some(CommandAnswer::Expired)
        } else {
            self.command.as_ref().map(|_| CommandAnswer::Busy)
        };
        if let Some(answer) = refused {
            return expected.answer(asked.request, answer);
        }
        self.command = Some(UnderWay {
            asker: asked,
            order: order.clone(),
            is_sent: false,
        });
        self.hear_command(slot, rules, expected);
    }

    /// The kernel takes no more, or has taken all.
    pub(super) fn output_waits(
        &mut self,
        slot: u32,
        waits: bool,
        rules: &Rules,
        expected: &mut Expected,
    ) {
        self.output_waits = waits;
        self.hear_command(slot, rules, expected);
    }

    fn hear_command(&mut self, slot: u32, rules: &Rules, expected: &mut Expected) {
        let Some(command) = self.command.as_mut().filter(|it| !it.is_sent) else {
            return;
        };
        if self.output_waits {
            return;
        }
        let order = &command.order;
        if order.deadline_ms != 0 && rules.unix_ms > order.deadline_ms {
            expected.answer(command.asker.request, CommandAnswer::Expired);
            self.command = None;
            return;
        }
        command.is_sent = true;
        self.last_command_frame_id += 1;
        expected.hear(
            slot,
            Heard::Command {
                id: self.last_command_frame_id,
                command_id: order.command_id,
                payload: order.payload.len(),
            },
        );
    }
}

/// P3: a row is what the authenticated device sent.
pub(super) fn check_row(row: &Row, payload: &[u8], record: &Record, frame: &Frame) {
    let account_id = super::seed(frame.session, 60).account_id;
    assert_eq!(row.account_id, account_id);
    assert_eq!(row.seq, record.seq as i64);
    assert_eq!(row.recorded_at_ms, record.recorded_at_ms as i64);
    assert_eq!(row.received_at_ms, frame.received_unix_ms as i64);
    assert_eq!((row.kind, payload), (record.kind, &record.payload[..]));
    let flaw = row.flaw.map(|flaw| flaw.name());
    assert_eq!(flaw, contract::flaw(row.kind, payload));
}
