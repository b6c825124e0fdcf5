//! Pure. A walk over the bytes of a frame that writes a line for each field.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use protocols::rcu::telemetry::RECORDED_AT_MS_MAX;
use serde::Serialize;

use super::hex::hex;
use super::proofs::Verdict;

const BYTES_PER_LINE: usize = 8;
const NOT_READ_BYTES_SHOWN_MAX: usize = 32;
const NAME_WIDTH: usize = 15;

/// What stands beside the bytes of a field.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) text: String,
    /// What is wrong with it; told again below the frame.
    pub(super) wrong: Option<String>,
}

impl Told {
    pub(super) fn right(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            wrong: None,
        }
    }

    /// Wrong for this reason unless `right`.
    pub(super) fn unless(self, right: bool, wrong: impl Into<String>) -> Self {
        Self {
            wrong: if right {
                self.wrong
            } else {
                Some(wrong.into())
            },
            ..self
        }
    }
}

#[derive(Debug)]
enum Line {
    Heading(String),
    Field {
        offset: usize,
        bytes: Vec<u8>,
        name: String,
        told: Told,
    },
}

/// The walk cannot go on: a field runs past the end.
#[derive(Debug)]
pub(super) struct Stop;

/// Lines for the fields of a frame, in order. Offsets count from the frame's first byte.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
    /// Bytes of the frame that have not come yet.
    to_come: usize,
    /// Of the frame's proof; `None`: nobody gave a key.
    pub(super) proof: Option<Verdict>,
    lines: Vec<Line>,
    wrong: Vec<String>,
}

impl<'a> Walk<'a> {
    /// From the first of these bytes; they may hold more than the frame, or less.
    pub(super) fn new(bytes: &'a [u8], proof: Option<Verdict>) -> Self {
        Self {
            bytes,
            at: 0,
            end: bytes.len(),
            to_come: 0,
            proof,
            lines: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// How long the frame is, as far as it is known; the walk does not go beyond it.
    pub(super) fn frame_bytes(&mut self, frame_bytes: usize) {
        self.end = self.bytes.len().min(frame_bytes);
        self.to_come = frame_bytes.saturating_sub(self.bytes.len());
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn heading(&mut self, text: String) {
        self.lines.push(Line::Heading(text));
    }

    /// A field of `length` bytes.
    pub(super) fn bytes(
        &mut self,
        name: &str,
        length: usize,
        tell: impl FnOnce(&'a [u8]) -> Told,
    ) -> Result<&'a [u8], Stop> {
        let left = &self.bytes[self.at..self.end];
        let Some(field) = left.get(..length) else {
            let told = if self.to_come > 0 {
                Told::right(format!(
                    "{} of {length} bytes, the rest is to come",
                    left.len()
                ))
            } else {
                let wrong = format!("needs {}, {} left", count(length, "byte"), are(left.len()));
                Told::default().unless(false, wrong)
            };
            self.push(name, left.len(), told);
            return Err(Stop);
        };
        self.push(name, length, tell(field));
        Ok(field)
    }

    /// A field of `N` bytes, as an array.
    pub(super) fn array<const N: usize>(
        &mut self,
        name: &str,
        tell: impl FnOnce([u8; N]) -> Told,
    ) -> Result<[u8; N], Stop> {
        let mut array = [0; N];
        self.bytes(name, N, |bytes| {
            array.copy_from_slice(bytes);
            tell(array)
        })?;
        Ok(array)
    }

    pub(super) fn u8(&mut self, name: &str, tell: impl FnOnce(u8) -> Told) -> Result<u8, Stop> {
        let bytes = self.array(name, |bytes| tell(u8::from_le_bytes(bytes)))?;
        Ok(u8::from_le_bytes(bytes))
    }

    pub(super) fn u16(&mut self, name: &str, tell: impl FnOnce(u16) -> Told) -> Result<u16, Stop> {
        let bytes = self.array(name, |bytes| tell(u16::from_le_bytes(bytes)))?;
        Ok(u16::from_le_bytes(bytes))
    }

    pub(super) fn u32(&mut self, name: &str, tell: impl FnOnce(u32) -> Told) -> Result<u32, Stop> {
        let bytes = self.array(name, |bytes| tell(u32::from_le_bytes(bytes)))?;
        Ok(u32::from_le_bytes(bytes))
    }

    pub(super) fn u64(&mut self, name: &str, tell: impl FnOnce(u64) -> Told) -> Result<u64, Stop> {
        let bytes = self.array(name, |bytes| tell(u64::from_le_bytes(bytes)))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A `str8` as one field: its length byte, then its bytes, which `tell` gets.
    pub(super) fn str8(
        &mut self,
        name: &str,
        tell: impl FnOnce(&'a [u8]) -> Told,
    ) -> Result<(), Stop> {
        let length = self.bytes[self.at..self.end].first().copied();
        let length = 1 + usize::from(length.unwrap_or(0));
        self.bytes(name, length, |field| tell(&field[1..]))?;
        Ok(())
    }

    /// A `bytes16` as one field.
    pub(super) fn bytes16(
        &mut self,
        name: &str,
        tell: impl FnOnce(&'a [u8]) -> Told,
    ) -> Result<(), Stop> {
        let length = self.bytes[self.at..self.end].first_chunk().copied();
        let length = 2 + usize::from(length.map_or(0, u16::from_le_bytes));
        self.bytes(name, length, |field| tell(&field[2..]))?;
        Ok(())
    }

    /// What is left after the last field; it should be nothing.
    pub(super) fn end(&mut self) {
        let left = self.end - self.at;
        if left > 0 {
            let wrong = format!("{} left over after the last field", count(left, "byte"));
            self.push("", left, Told::default().unless(false, wrong));
        }
    }

    /// Everything that is left, as it is.
    pub(super) fn skip_rest(&mut self, name: &str, tell: impl FnOnce(&[u8]) -> String) {
        let left = &self.bytes[self.at..self.end];
        if !left.is_empty() {
            self.push(name, left.len(), Told::right(tell(left)));
        }
    }

    /// Everything that is left of the bytes, however much: the first few of them.
    pub(super) fn not_read(&mut self) {
        let left = &self.bytes[self.at..];
        if !left.is_empty() {
            let shown = left.len().min(NOT_READ_BYTES_SHOWN_MAX);
            let told = Told::right(format!("{}, not read", count(left.len(), "byte")));
            self.push("", shown, told);
        }
    }

    /// Walks the next `length` bytes as if nothing followed them.
    pub(super) fn within(
        &mut self,
        name: &str,
        length: usize,
        walk: impl FnOnce(&mut Self, &'a [u8]) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let Some(bytes) = self.bytes[self.at..self.end].get(..length) else {
            return self.bytes(name, length, |_| Told::default()).map(|_| ());
        };
        let end = std::mem::replace(&mut self.end, self.at + length);
        let walked = walk(self, bytes);
        self.end = end;
        walked
    }

    fn push(&mut self, name: &str, length: usize, told: Told) {
        if let Some(wrong) = &told.wrong {
            self.wrong.push(match name {
                "" => format!("byte {}: {wrong}", self.at),
                name => format!("byte {}, {name}: {wrong}", self.at),
            });
        }
        self.lines.push(Line::Field {
            offset: self.at,
            bytes: self.bytes[self.at..self.at + length].to_vec(),
            name: name.to_owned(),
            told,
        });
        self.at += length;
    }

    /// Something that is wrong with no field in particular.
    pub(super) fn wrong(&mut self, wrong: String) {
        self.wrong.push(wrong);
    }

    /// The lines, and everything that is wrong.
    pub(super) fn finish(self) -> (Lines, Vec<String>) {
        (Lines(self.lines), self.wrong)
    }
}

/// The lines of a walk, to be shown.
#[derive(Debug)]
pub(super) struct Lines(Vec<Line>);

/// For programs: a field, with the heading that it stands under.
#[derive(Debug, Serialize)]
pub(super) struct Field<'a> {
    section: Option<&'a str>,
    /// From the frame's first byte.
    offset: usize,
    bytes: String,
    name: &'a str,
    text: &'a str,
    wrong: Option<&'a str>,
}

impl Lines {
    pub(super) fn fields(&self) -> Vec<Field<'_>> {
        let (mut fields, mut section) = (vec![], None);
        for line in &self.0 {
            match line {
                Line::Heading(text) => section = Some(&**text),
                Line::Field {
                    offset,
                    bytes,
                    name,
                    told,
                } => fields.push(Field {
                    section,
                    offset: *offset,
                    bytes: hex(bytes),
                    name,
                    text: &told.text,
                    wrong: told.wrong.as_deref(),
                }),
            }
        }
        fields
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            match line {
                Line::Heading(text) => writeln!(f, "  {text}")?,
                Line::Field {
                    offset,
                    bytes,
                    name,
                    told,
                } => field(f, *offset, bytes, name, told)?,
            }
        }
        Ok(())
    }
}

/// ```text
///     37  a0 a1 a2 a3 a4 a5 a6 a7  nonce           a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
///         a8 a9 aa ab ac ad ae af
/// ```
fn field(
    f: &mut fmt::Formatter<'_>,
    offset: usize,
    bytes: &[u8],
    name: &str,
    told: &Told,
) -> fmt::Result {
    let wrong = told.wrong.iter().map(|wrong| format!("<-- wrong: {wrong}"));
    let mut beside = told.text.lines().map(str::to_owned).chain(wrong);
    let mut rows = bytes.chunks(BYTES_PER_LINE);
    let mut first = true;
    loop {
        let (row, beside) = (rows.next(), beside.next());
        if row.is_none() && beside.is_none() && !first {
            return Ok(());
        }
        let row: Vec<String> = row
            .unwrap_or_default()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let (offset, name) = if first {
            (offset.to_string(), name)
        } else {
            (String::new(), "")
        };
        let line = format!(
            "{offset:>6}  {:<width$}  {name:<NAME_WIDTH$} {}",
            row.join(" "),
            beside.unwrap_or_default(),
            width = 3 * BYTES_PER_LINE - 1,
        );
        writeln!(f, "{}", line.trim_end())?;
        first = false;
    }
}

pub(super) fn number(value: impl ToString) -> Told {
    Told::right(value.to_string())
}

/// `1 byte`, `2 bytes`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// `1 is`, `2 are`.
fn are(number: usize) -> String {
    let verb = if number == 1 { "is" } else { "are" };
    format!("{number} {verb}")
}

/// Bytes as text between quotes where all of them are printable, else as hex.
pub(super) fn text(bytes: &[u8]) -> String {
    if !bytes.is_empty() && bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        format!("{:?}", String::from_utf8_lossy(bytes))
    } else {
        hex(bytes)
    }
}

/// Unix milliseconds with the time that they mean.
pub(super) fn time(unix_ms: u64) -> String {
    if unix_ms > RECORDED_AT_MS_MAX {
        return format!("{unix_ms}, after the year 9999");
    }
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms);
    let seconds = if (1_000_000_000..100_000_000_000).contains(&unix_ms) {
        " (seconds? times are in milliseconds)"
    } else {
        ""
    };
    format!(
        "{unix_ms} = {}{seconds}",
        humantime::format_rfc3339_millis(time)
    )
}
