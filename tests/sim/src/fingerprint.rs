//! What happened in a run, as one number: who, what, and which bytes.
//!
//! Two runs of the same seed and the same code have the same one; any difference that a device, a
//! server or the store could have seen shows in it.

use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};

use logic_server::batch::{Batch, Row};

use crate::logic::ShardMail;
use crate::network::{Side, Stream};
use crate::process::Mail;
use crate::world::Event;

/// Not for strangers' input: fast, and spread enough to tell two runs apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fingerprint(u64);

/// 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

impl Fingerprint {
    pub fn value(self) -> u64 {
        self.0
    }

    pub fn join(&mut self, other: Self) {
        self.word(other.0);
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(SPREAD);
    }

    /// Bytes that somebody reads of a stream.
    pub fn bytes(&mut self, stream: Stream, side: Side, bytes: &[u8]) {
        stream.hash(self);
        self.word(side as u64);
        self.write(bytes);
    }

    /// An event, with all that it carries.
    pub fn event(&mut self, now_ms: u64, event: &Event) {
        self.word(now_ms);
        std::mem::discriminant(event).hash(self);
        match event {
            // The many. They are taken apart here because it is quicker.
            Event::WakeDevice(device) => self.word(*device as u64),
            Event::Arrives { stream, to } => {
                stream.hash(self);
                self.word(*to as u64);
            }
            Event::Mail {
                to,
                generation,
                mail,
            } => {
                to.hash(self);
                self.word((*generation).into());
                self.mail(mail);
            }
            Event::Written { to, work, fate, .. } => {
                to.hash(self);
                self.debug(fate);
                for (row, payload) in work.rows() {
                    self.row(row, payload);
                }
                self.word(work.is_careful().into());
            }
            // The few, whatever they are.
            event => self.debug(event),
        }
    }

    fn mail(&mut self, mail: &Mail) {
        match mail {
            Mail::Wake(thread) => thread.hash(self),
            Mail::Batch(batch) => self.batch(batch),
            Mail::Shard { shard, mail } => {
                self.word(*shard as u64);
                match mail.as_ref() {
                    ShardMail::Finished { batch, outcome } => {
                        self.batch(batch);
                        self.debug(outcome);
                    }
                    mail => self.debug(mail),
                }
            }
            mail => self.debug(mail),
        }
    }

    fn batch(&mut self, batch: &Batch) {
        self.word(batch.id);
        for row in &batch.rows {
            self.row(row, batch.payload(row));
        }
        for ack in &batch.acks {
            self.word(ack.base_seq);
            self.word(u64::from(ack.frame_id) << 8 | u64::from(ack.count));
        }
    }

    fn row(&mut self, row: &Row, payload: &[u8]) {
        self.word(row.account_id.0 as u64);
        self.word(row.seq as u64);
        self.word(row.recorded_at_ms as u64);
        self.word(row.kind.into());
        self.write(payload);
    }

    fn debug(&mut self, what: &impl fmt::Debug) {
        // Writing into a number never fails.
        let _ = write!(self, "{what:?}");
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    fn write_u8(&mut self, word: u8) {
        self.word(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.word(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.word(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.word(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.word(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Write for Fingerprint {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(now_ms: u64, event: &Event) -> u64 {
        let mut fingerprint = Fingerprint::default();
        fingerprint.event(now_ms, event);
        fingerprint.value()
    }

    fn arrives(stream: u64, to: Side) -> Event {
        Event::Arrives {
            stream: Stream(stream),
            to,
        }
    }

    fn read(stream: u64, side: Side, bytes: &[u8]) -> u64 {
        let mut fingerprint = Fingerprint::default();
        fingerprint.bytes(Stream(stream), side, bytes);
        fingerprint.value()
    }

    #[test]
    fn time_who_and_what_all_show() {
        let told = of(7, &arrives(1, Side::Client));
        assert_eq!(told, of(7, &arrives(1, Side::Client)));
        for other in [
            of(8, &arrives(1, Side::Client)),
            of(7, &arrives(2, Side::Client)),
            of(7, &arrives(1, Side::Server)),
            of(7, &Event::WakeDevice(1)),
            of(7, &Event::Resolved { device: 1 }),
        ] {
            assert_ne!(told, other);
        }
        assert_ne!(
            of(7, &Event::Resolved { device: 1 }),
            of(7, &Event::Resolved { device: 2 })
        );
    }

    #[test]
    fn who_reads_and_which_bytes_show() {
        let stored = read(1, Side::Client, b"stored");
        assert_eq!(stored, read(1, Side::Client, b"stored"));
        for other in [
            read(2, Side::Client, b"stored"),
            read(1, Side::Server, b"stored"),
            read(1, Side::Client, b"storee"),
            read(1, Side::Client, b"stored\0"),
        ] {
            assert_ne!(stored, other);
        }
    }
}
