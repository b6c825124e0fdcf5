//! Pure. Records on their way: Telemetry, cut but not yet decoded, and TelemetryAck.
//!
//! ```text
//! base_seq u64 | base_time_ms u64 | count u8 | count × (kind u8 | length u8 | offset_ms u32 | payload)
//! ```
//!
//! Decoding walks the records once and refuses what cannot be cut; [`Telemetry::records`] walks
//! them again without a failure left. A payload that is wrong in itself is not found here but by
//! `Record::decode`, one record at a time, for the others of the frame are stored.

use thiserror::Error;

use super::body::{Reader, Sink};
use super::code::AckStatus;
use super::error::MessageError;
use super::frame::{self, BODY_BYTES_MAX};
use super::kind;
use records::{RawRecord, Record};

/// Sequence numbers are below this: they are positive BIGINTs.
pub const SEQ_END: u64 = 1 << 63;
/// 9999-12-31T23:59:59.999Z, the latest time that a record can bear.
pub const RECORDED_AT_MS_MAX: u64 = 253_402_300_799_999;
/// Sequence number, time and count.
const FIXED_BYTES: usize = 17;
/// Kind, length and offset of a record.
const RECORD_HEADER_BYTES: usize = 6;

/// `count` records with consecutive sequence numbers from `base_seq`; proven to be cuttable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telemetry<'a> {
    base_seq: u64,
    base_time_ms: u64,
    count: u8,
    records: &'a [u8],
}

impl<'a> Telemetry<'a> {
    /// Fewer than 17 bytes are a wrong body; anything else that is wrong is
    /// [`MessageError::TelemetryCannotBeCut`].
    #[inline]
    pub fn decode_body(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let base_seq = body.u64()?;
        let base_time_ms = body.u64()?;
        let count = body.u8()?;
        let records = body.rest();
        match check(base_seq, base_time_ms, count, records) {
            None => Ok(Self {
                base_seq,
                base_time_ms,
                count,
                records,
            }),
            Some(what) => Err(MessageError::TelemetryCannotBeCut {
                base_seq,
                count,
                what,
            }),
        }
    }

    pub fn base_seq(&self) -> u64 {
        self.base_seq
    }

    pub fn base_time_ms(&self) -> u64 {
        self.base_time_ms
    }

    /// 1..=255.
    pub fn count(&self) -> u8 {
        self.count
    }

    pub fn records(&self) -> Records<'a> {
        Records {
            seq: self.base_seq,
            base_time_ms: self.base_time_ms,
            rest: self.records,
        }
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::TELEMETRY, id, out, |out| {
            out.put(&self.base_seq.to_le_bytes());
            out.put(&self.base_time_ms.to_le_bytes());
            out.put(&[self.count]);
            out.put(self.records);
        });
    }
}

/// What makes a frame one that cannot be cut into records.
fn check(base_seq: u64, base_time_ms: u64, count: u8, records: &[u8]) -> Option<&'static str> {
    if count == 0 {
        return Some("count");
    }
    if base_seq > SEQ_END - u64::from(count) {
        return Some("base_seq");
    }
    let Some(offset_max) = RECORDED_AT_MS_MAX.checked_sub(base_time_ms) else {
        return Some("base_time_ms");
    };
    let mut rest = records;
    for _ in 0..count {
        let Some((record, after)) = cut(rest) else {
            return Some("length of a record");
        };
        if u64::from(record.offset_ms) > offset_max {
            return Some("offset_ms of a record");
        }
        rest = after;
    }
    (!rest.is_empty()).then_some("length of body")
}

struct Cut<'a> {
    kind: u8,
    offset_ms: u32,
    payload: &'a [u8],
}

/// The record at the front, and what follows it.
#[inline]
fn cut(records: &[u8]) -> Option<(Cut<'_>, &[u8])> {
    let (&[kind, length, offset @ ..], rest) =
        records.split_first_chunk::<RECORD_HEADER_BYTES>()?;
    let (payload, rest) = rest.split_at_checked(length.into())?;
    let offset_ms = u32::from_le_bytes(offset);
    Some((
        Cut {
            kind,
            offset_ms,
            payload,
        },
        rest,
    ))
}

/// The records of a frame, in order.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    seq: u64,
    base_time_ms: u64,
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = RawRecord<'a>;

    #[inline]
    fn next(&mut self) -> Option<RawRecord<'a>> {
        let (cut, rest) = cut(self.rest)?;
        let record = RawRecord {
            seq: self.seq,
            recorded_at_ms: self.base_time_ms + u64::from(cut.offset_ms),
            kind: cut.kind,
            payload: cut.payload,
        };
        self.seq += 1;
        self.rest = rest;
        Some(record)
    }
}

/// Collects the records of one frame on a device. Kept and cleared from frame to frame, it
/// stops allocating.
#[derive(Clone, Debug, Default)]
pub struct TelemetryWriter {
    base_seq: u64,
    base_time_ms: u64,
    count: u8,
    records: Vec<u8>,
}

/// Why a record begins a new frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DoesNotFit {
    #[error("a frame has at most 255 records")]
    Count,
    #[error("the frame would be too long")]
    Bytes,
    #[error("recorded before the frame's base time, or too long after it")]
    Time,
    #[error("sequence numbers have come to an end")]
    Seq,
}

impl TelemetryWriter {
    /// Forgets the records and begins a frame with these numbers.
    pub fn begin(&mut self, base_seq: u64, base_time_ms: u64) {
        self.base_seq = base_seq;
        self.base_time_ms = base_time_ms;
        self.count = 0;
        self.records.clear();
    }

    /// Adds the record that follows in sequence.
    pub fn push(&mut self, recorded_at_ms: u64, record: &Record<'_>) -> Result<(), DoesNotFit> {
        self.push_with(recorded_at_ms, record.kind(), |out| {
            record.encode_payload(out);
        })
    }

    /// Adds the record that follows in sequence, as it is.
    pub fn push_raw(
        &mut self,
        recorded_at_ms: u64,
        kind: u8,
        payload: &[u8],
    ) -> Result<(), DoesNotFit> {
        self.push_with(recorded_at_ms, kind, |out| out.extend_from_slice(payload))
    }

    /// On an error the frame is as it was.
    fn push_with(
        &mut self,
        recorded_at_ms: u64,
        kind: u8,
        write_payload: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), DoesNotFit> {
        let count = self.count.checked_add(1).ok_or(DoesNotFit::Count)?;
        if self.base_seq > SEQ_END - u64::from(count) {
            return Err(DoesNotFit::Seq);
        }
        let offset_ms = recorded_at_ms
            .checked_sub(self.base_time_ms)
            .filter(|_| recorded_at_ms <= RECORDED_AT_MS_MAX)
            .and_then(|offset_ms| u32::try_from(offset_ms).ok())
            .ok_or(DoesNotFit::Time)?;

        let start = self.records.len();
        self.records.extend_from_slice(&[kind, 0]);
        self.records.extend_from_slice(&offset_ms.to_le_bytes());
        write_payload(&mut self.records);
        let length = u8::try_from(self.records.len() - start - RECORD_HEADER_BYTES).ok();
        let fits = FIXED_BYTES + self.records.len() <= BODY_BYTES_MAX;
        let Some(length) = length.filter(|_| fits) else {
            self.records.truncate(start);
            return Err(DoesNotFit::Bytes);
        };
        self.records[start + 1] = length;
        self.count = count;
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The length of the frame with what is in it, header included.
    pub fn frame_bytes(&self) -> usize {
        frame::HEADER_BYTES + FIXED_BYTES + self.records.len()
    }

    /// The message; `None` while there is no record in it.
    pub fn telemetry(&self) -> Option<Telemetry<'_>> {
        (!self.is_empty()).then_some(Telemetry {
            base_seq: self.base_seq,
            base_time_ms: self.base_time_ms,
            count: self.count,
            records: &self.records,
        })
    }
}

/// Answers a Telemetry with its own figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelemetryAck {
    pub base_seq: u64,
    pub count: u8,
    pub status: AckStatus,
    /// Of `Overloaded`: no Telemetry before it has passed; 0: the device uses its backoff.
    pub retry_after_ms: u32,
}

impl TelemetryAck {
    /// A status that the contract does not list is `Overloaded`.
    pub fn decode_body(body: &[u8]) -> Result<Self, MessageError> {
        let mut body = Reader::new(body);
        let ack = Self {
            base_seq: body.u64()?,
            count: body.u8()?,
            status: AckStatus::from_code(body.u8()?).unwrap_or(AckStatus::Overloaded),
            retry_after_ms: body.u32()?,
        };
        body.end()?;
        Ok(ack)
    }

    pub fn encode(&self, id: u16, out: &mut Vec<u8>) {
        frame::write(kind::TELEMETRY_ACK, id, out, |out| {
            out.put(&self.base_seq.to_le_bytes());
            out.put(&[self.count, self.status.code()]);
            out.put(&self.retry_after_ms.to_le_bytes());
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn telemetry_is_cut_or_refused(
            base_seq in prop_oneof![0_u64..9, SEQ_END - 9..=u64::MAX],
            base_time_ms in prop_oneof![0_u64..9, RECORDED_AT_MS_MAX - 9..=u64::MAX],
            miscount in prop_oneof![4 => Just(0_i8), 1 => -1..=1_i8],
            lengths in vec(0_usize..4, 0..5),
            offset_ms in prop_oneof![0_u32..12, any::<u32>()],
            slack in prop_oneof![4 => Just(0_isize), 1 => -1..=1_isize],
        ) {
            let count = (lengths.len() as u8).saturating_add_signed(miscount);
            let mut body = [&base_seq.to_le_bytes()[..], &base_time_ms.to_le_bytes(), &[count]].concat();
            for &length in &lengths {
                body.extend_from_slice(&[9, length as u8]);
                body.extend_from_slice(&offset_ms.to_le_bytes());
                body.resize(body.len() + length, 0xEE);
            }
            body.resize(body.len().saturating_add_signed(slack), 0);
            let offset_ms = if lengths.is_empty() { 0 } else { offset_ms };
            let right = slack == 0
                && count >= 1
                && lengths.len() == usize::from(count)
                && u128::from(base_seq) + u128::from(count) <= 1 << 63
                && u128::from(base_time_ms) + u128::from(offset_ms) <= u128::from(RECORDED_AT_MS_MAX);
            match Telemetry::decode_body(&body) {
                Ok(telemetry) => {
                    prop_assert!(right);
                    let records: Vec<_> = telemetry.records().collect();
                    prop_assert_eq!(records.len(), usize::from(count));
                    for (i, (record, length)) in records.iter().zip(lengths).enumerate() {
                        prop_assert_eq!(record.seq, base_seq + i as u64);
                        prop_assert_eq!(record.recorded_at_ms, base_time_ms + u64::from(offset_ms));
                        prop_assert_eq!(record.payload, vec![0xEE; length]);
                    }
                }
                Err(MessageError::TelemetryCannotBeCut { base_seq: seq, count: n, .. }) => {
                    prop_assert!(!right);
                    prop_assert_eq!((seq, n), (base_seq, count));
                }
                Err(error) => {
                    prop_assert_eq!(error, MessageError::Body("length of body"));
                    prop_assert!(body.len() < 17);
                }
            }
        }
    }

    #[test]
    fn a_writer_stops_where_a_frame_ends() {
        let mut writer = TelemetryWriter::default();
        assert_eq!(writer.telemetry(), None);

        writer.begin(5, 1_000);
        assert_eq!(writer.push_raw(999, 9, &[]), Err(DoesNotFit::Time));
        assert_eq!(
            writer.push_raw(1_000 + (1 << 32), 9, &[]),
            Err(DoesNotFit::Time)
        );
        for _ in 0..255 {
            assert_eq!(writer.push_raw(1_000, 9, &[]), Ok(()));
        }
        assert_eq!(writer.push_raw(1_000, 9, &[]), Err(DoesNotFit::Count));

        writer.begin(5, 1_000);
        while writer.push_raw(1_000, 9, &[0; 255]).is_ok() {}
        assert_eq!(writer.push_raw(1_000, 9, &[0; 255]), Err(DoesNotFit::Bytes));
        assert!(writer.frame_bytes() <= frame::FRAME_BYTES_MAX);
        assert!(writer.frame_bytes() + 6 + 255 > frame::FRAME_BYTES_MAX);
        let mut bytes = Vec::new();
        writer.telemetry().expect("records").encode(1, &mut bytes);
        assert_eq!(bytes.len(), writer.frame_bytes());

        writer.begin(5, 1_000);
        assert_eq!(writer.push_raw(1_000, 9, &[0; 256]), Err(DoesNotFit::Bytes));
        assert!(writer.is_empty());
        writer.begin(SEQ_END - 1, RECORDED_AT_MS_MAX);
        assert_eq!(
            writer.push_raw(RECORDED_AT_MS_MAX + 1, 9, &[]),
            Err(DoesNotFit::Time)
        );
        assert_eq!(writer.push_raw(RECORDED_AT_MS_MAX, 9, &[]), Ok(()));
        assert_eq!(
            writer.push_raw(RECORDED_AT_MS_MAX, 9, &[]),
            Err(DoesNotFit::Seq)
        );
    }
}
