//! Pure. Records that no acknowledgement has released: waiting, or on their way in open frames.
//!
//! ```text
//! Report ──▶ queue ──▶ open frames ── stored, malformed ──▶ forgotten
//!              ▲            │
//!              └────────────┴── overloaded, or the connection was lost
//! ```
//!
//! A record keeps its number, and from its first sending on its time; only its company in a
//! frame may be another the next time.

use std::collections::VecDeque;

use protocols::rcu::code::AckStatus;
use protocols::rcu::telemetry::{TelemetryAck, TelemetryWriter};
use rand::rngs::SmallRng;

use super::backoff::{self, Backoff};
use super::clock::Clock;
use super::effect::{ConnId, Effects, Event, SentRecord};
use super::{Measurement, Settings, elapsed_ms};
use crate::digest::digest;

/// A Telemetry frame that is not answered by then is taken for a lost connection.
pub(super) const UNANSWERED_MS: u64 = 60_000;

#[derive(Debug)]
pub(super) struct Outbox {
    /// By sequence number.
    queue: VecDeque<Record>,
    /// In the order in which they were sent.
    open: Vec<OpenFrame>,
    /// No Telemetry at all before.
    held_until_ms: u64,
    /// Counted apart from the connection's.
    overloaded: Backoff,
}

#[derive(Debug)]
struct Record {
    seq: u64,
    recorded: Recorded,
    sent: bool,
    kind: u8,
    payload: Box<[u8]>,
}

#[derive(Clone, Copy, Debug)]
enum Recorded {
    /// Unix milliseconds.
    At(u64),
    /// By the monotonic clock, before the time was known.
    Uptime(u64),
}

#[derive(Debug)]
struct OpenFrame {
    id: u16,
    sent_ms: u64,
    /// At least one, with consecutive numbers.
    records: Vec<Record>,
}

impl OpenFrame {
    fn is_answered_by(&self, id: u16, ack: &TelemetryAck) -> bool {
        let first = self.records.first().map(|record| record.seq);
        self.id == id && first == Some(ack.base_seq) && self.records.len() == usize::from(ack.count)
    }
}

/// What an acknowledgement came to.
#[derive(Debug)]
pub(super) struct Answered {
    /// How long the frame was open.
    pub(super) after_ms: u32,
    /// How long Telemetry now waits, where it was `overloaded`.
    pub(super) wait_ms: Option<u64>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            open: Vec::new(),
            held_until_ms: 0,
            overloaded: Backoff::default(),
        }
    }

    /// Records that no acknowledgement has released.
    pub(super) fn unacknowledged(&self) -> usize {
        let open: usize = self.open.iter().map(|frame| frame.records.len()).sum();
        self.queue.len() + open
    }

    pub(super) fn open_frames(&self) -> usize {
        self.open.len()
    }

    pub(super) fn record(
        &mut self,
        seq: u64,
        measurement: &Measurement<'_>,
        clock: &Clock,
        now_ms: u64,
    ) {
        let recorded = clock
            .unix_ms(now_ms)
            .map_or(Recorded::Uptime(now_ms), Recorded::At);
        self.queue.push_back(Record {
            seq,
            recorded,
            sent: false,
            kind: measurement.kind,
            payload: measurement.payload.into(),
        });
    }

    pub(super) fn is_open(&self, id: u16) -> bool {
        self.open.iter().any(|frame| frame.id == id)
    }

    /// Whether a frame may be sent now, with `window` of them open at once.
    pub(super) fn may_send(&self, window: u16, now_ms: u64) -> bool {
        !self.queue.is_empty() && self.open.len() < window.into() && now_ms >= self.held_until_ms
    }

    /// Sends the next frame. [`Self::may_send`] was true.
    pub(super) fn send(
        &mut self,
        conn: ConnId,
        id: u16,
        settings: &Settings,
        clock: &Clock,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let count = self.fill(&mut effects.writer, settings, clock);
        let mut records: Vec<Record> = self.queue.drain(..count).collect();
        for record in records.iter_mut().filter(|record| !record.sent) {
            record.sent = true;
            let recorded_at_ms = record.recorded_at_ms(clock);
            record.recorded = Recorded::At(recorded_at_ms);
            effects.tell(Event::FirstSent(SentRecord {
                seq: record.seq,
                recorded_at_ms,
                kind: record.kind,
                digest: digest(recorded_at_ms, record.kind, &record.payload),
            }));
        }
        effects.send_telemetry(conn, id);
        self.open.push(OpenFrame {
            id,
            sent_ms: now_ms,
            records,
        });
    }

    /// Writes the longest frame that the front of the queue allows and says how many records it
    /// holds. A gap, an older record and one of time 0 begin a new frame.
    fn fill(&self, writer: &mut TelemetryWriter, settings: &Settings, clock: &Clock) -> usize {
        let Some(first) = self.queue.front() else {
            return 0;
        };
        writer.begin(first.seq, first.recorded_at_ms(clock));
        let records_max = usize::from(settings.frame_records_max.max(1));
        let mut count = 0;
        for (record, seq) in self.queue.iter().zip(first.seq..).take(records_max) {
            let recorded_at_ms = record.recorded_at_ms(clock);
            let timeless = count > 0 && recorded_at_ms == 0;
            if record.seq != seq
                || timeless
                || writer
                    .push_raw(recorded_at_ms, record.kind, &record.payload)
                    .is_err()
            {
                break;
            }
            count += 1;
        }
        assert!(count > 0, "a frame holds any one record");
        count
    }

    /// `None`: the acknowledgement of no open frame.
    pub(super) fn answer(
        &mut self,
        id: u16,
        ack: &TelemetryAck,
        now_ms: u64,
        rng: &mut SmallRng,
    ) -> Option<Answered> {
        let index = self
            .open
            .iter()
            .position(|frame| frame.is_answered_by(id, ack))?;
        let frame = self.open.remove(index);
        let after_ms = elapsed_ms(frame.sent_ms, now_ms);
        let wait_ms = match ack.status {
            AckStatus::Stored => {
                self.overloaded.reset();
                None
            }
            AckStatus::Malformed => None,
            AckStatus::Overloaded => {
                self.queue.extend(frame.records);
                self.sort();
                let wait_ms =
                    backoff::told(ack.retry_after_ms).unwrap_or_else(|| self.overloaded.step(rng));
                // Of several, the latest end counts.
                self.held_until_ms = self.held_until_ms.max(now_ms + wait_ms);
                Some(wait_ms)
            }
        };
        Some(Answered { after_ms, wait_ms })
    }

    /// The connection is gone: what it did not acknowledge will be sent again.
    pub(super) fn reopen(&mut self) {
        let open = std::mem::take(&mut self.open);
        self.queue
            .extend(open.into_iter().flat_map(|frame| frame.records));
        self.sort();
    }

    /// The device starts anew. Records are in non-volatile memory; what the monotonic clock said
    /// of their time means nothing any more, and neither does what the waits were counted by.
    pub(super) fn restart(&mut self) {
        self.reopen();
        for record in &mut self.queue {
            if let Recorded::Uptime(_) = record.recorded {
                record.recorded = Recorded::At(0);
            }
        }
        self.held_until_ms = 0;
        self.overloaded.reset();
    }

    /// When the oldest open frame has been open for too long.
    pub(super) fn unanswered_ms(&self) -> Option<u64> {
        let oldest = self.open.iter().map(|frame| frame.sent_ms).min()?;
        Some(oldest + UNANSWERED_MS)
    }

    /// When Telemetry that is held back may go on.
    pub(super) fn held_until_ms(&self, now_ms: u64) -> Option<u64> {
        let held = !self.queue.is_empty() && self.held_until_ms > now_ms;
        held.then_some(self.held_until_ms)
    }

    /// Nearly sorted already: frames went out in order.
    fn sort(&mut self) {
        self.queue
            .make_contiguous()
            .sort_by_key(|record| record.seq);
    }
}

impl Record {
    /// Unix milliseconds; 0 where the time is not known.
    fn recorded_at_ms(&self, clock: &Clock) -> u64 {
        match self.recorded {
            Recorded::At(unix_ms) => unix_ms,
            Recorded::Uptime(uptime_ms) => clock.unix_ms(uptime_ms).unwrap_or(0),
        }
    }
}
