//! A second reading of docs/protocol.md, for the targets to hold the product to: written from the
//! contract's tables, plainly and slowly, and sharing no code with the decoders.

/// Where a stream's frames end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In a frame of which more is to come; so long it is in all, as far as it is known.
    Incomplete {
        needed: usize,
    },
    /// With a wrong header field.
    Magic,
    Version,
    Length,
    Crc,
}

/// A frame of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub id: u16,
    pub body: Vec<u8>,
}

/// What a body is, section 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// It has exactly its fields.
    Right,
    Wrong,
    /// A Telemetry of 17 bytes or more that cannot be cut into records.
    Uncuttable,
}

/// Which way a kind goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToCluster,
    ToDevice,
    /// The contract does not list it.
    Unlisted,
}

/// CRC-32C bit by bit: reflected 0x82F63B78, initial and final FFFFFFFF.
pub fn crc(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in parts.iter().copied().flatten() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (if crc & 1 == 1 { 0x82F6_3B78 } else { 0 });
        }
    }
    !crc
}

/// A frame with the right crc.
pub fn sealed(kind: u8, id: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x52, 0x43, 1, kind];
    frame.extend(id.to_le_bytes());
    frame.extend((body.len() as u16).to_le_bytes());
    frame.extend(crc(&[&frame, body]).to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

/// The frames of a stream, read by somebody who takes frames of `frame_bytes_max` at most.
pub fn frames(stream: &[u8], frame_bytes_max: usize) -> (Vec<Frame>, End) {
    let mut frames = vec![];
    let mut rest = stream;
    loop {
        match front(rest, frame_bytes_max) {
            Ok((frame, consumed)) => {
                frames.push(frame);
                rest = &rest[consumed..];
            }
            Err(end) => return (frames, end),
        }
    }
}

fn front(bytes: &[u8], frame_bytes_max: usize) -> Result<(Frame, usize), End> {
    if bytes.first().is_some_and(|&byte| byte != 0x52)
        || bytes.get(1).is_some_and(|&byte| byte != 0x43)
    {
        return Err(End::Magic);
    }
    if bytes.get(2).is_some_and(|&byte| byte != 1) {
        return Err(End::Version);
    }
    if bytes.len() < 12 {
        return Err(End::Incomplete { needed: 12 });
    }
    let length = usize::from(bytes[6]) + 256 * usize::from(bytes[7]);
    let needed = 12 + length;
    if length > 16_384 || needed > frame_bytes_max {
        return Err(End::Length);
    }
    if bytes.len() < needed {
        return Err(End::Incomplete { needed });
    }
    let body = &bytes[12..needed];
    if crc(&[&bytes[..8], body]).to_le_bytes() != bytes[8..12] {
        return Err(End::Crc);
    }
    let frame = Frame {
        kind: bytes[3],
        id: u16::from(bytes[4]) + 256 * u16::from(bytes[5]),
        body: body.to_vec(),
    };
    Ok((frame, needed))
}

/// Which way a kind goes, by the two tables of section 3.
pub fn direction(kind: u8) -> Direction {
    match kind {
        0x01 | 0x03 | 0x05 | 0x07 | 0x09 | 0x0B | 0x22 => Direction::ToCluster,
        0x02 | 0x04 | 0x06 | 0x08 | 0x0A | 0x21 | 0x2D | 0x2F => Direction::ToDevice,
        _ => Direction::Unlisted,
    }
}

/// Whether a kind may bear this id: whoever asks chooses one that is not 0, Close and Redirect
/// bear 0, and an answer's is for the asker to match.
pub fn id_is_right(kind: u8, id: u16) -> bool {
    match kind {
        0x01 | 0x03 | 0x05 | 0x07 | 0x09 | 0x0B | 0x21 => id != 0,
        0x2D | 0x2F => id == 0,
        _ => true,
    }
}

/// Statuses and reasons that are not listed, and what they are taken for: the byte of the body
/// that holds it, and that number.
pub fn taken_for(kind: u8, body: &[u8]) -> Option<(usize, u8)> {
    let (at, listed, taken) = match kind {
        0x02 => (0, 0..=6, 5),
        0x04 => (0, 0..=3, 1),
        0x08 => (9, 0..=2, 2),
        0x2F => (0, 1..=8, 2),
        _ => return None,
    };
    body.get(at)
        .filter(|status| !listed.contains(*status))
        .map(|_| (at, taken))
}

/// Whether a body of this kind has exactly its fields; of a listed kind.
pub fn body(kind: u8, body: &[u8]) -> Body {
    let mut fields = Fields { rest: body };
    if kind == 0x07 {
        return telemetry(body);
    }
    let right = match kind {
        0x01 => fields.str8(is_account) && fields.str8(is_firmware) && fields.skip(8 + 16 + 32),
        0x02 => match fields.u8() {
            Some(0) => fields.skip(12) && fields.target() && fields.skip(32),
            Some(2 | 3) => fields.skip(12 + 32),
            Some(_) => fields.skip(12),
            None => false,
        },
        0x03 => fields.skip(16 + 32),
        0x04 => match fields.u8() {
            Some(0) => fields.skip(12 + 4) && fields.resumption() && fields.skip(32),
            Some(_) => fields.skip(12),
            None => false,
        },
        0x05 => true,
        0x06 => fields.skip(8),
        0x08 => fields.skip(8 + 1 + 1 + 4),
        0x09 => fields.bytes16().is_some(),
        0x0A => fields.skip(16),
        0x0B => fields.skip(32),
        0x21 => fields.skip(8 + 8 + 2) && fields.bytes16().is_some(),
        0x22 => {
            fields.skip(8)
                && fields.u8().is_some_and(|status| status <= 4)
                && fields.u8().is_some_and(|more| more <= 1)
                && fields.bytes16().is_some()
        }
        0x2D => {
            fields.skip(5)
                && match fields.u8() {
                    Some(0) => true,
                    Some(1) => fields.target() && fields.skip(32),
                    _ => false,
                }
        }
        0x2F => fields.skip(5),
        _ => false,
    };
    match right && fields.rest.is_empty() {
        true => Body::Right,
        false => Body::Wrong,
    }
}

/// A record of a Telemetry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub seq: u64,
    pub recorded_at_ms: u64,
    pub kind: u8,
    pub payload: Vec<u8>,
}

/// The records of a body that is [`Body::Right`].
pub fn records(body: &[u8]) -> Option<Vec<Record>> {
    let base_seq = u64::from_le_bytes(*body.first_chunk()?);
    let base_time_ms = u64::from_le_bytes(body.get(8..16)?.try_into().ok()?);
    let count = *body.get(16)?;
    if count == 0 || u128::from(base_seq) + u128::from(count) > 1 << 63 {
        return None;
    }
    let mut rest = &body[17..];
    let mut records = vec![];
    for index in 0..u64::from(count) {
        let [kind, length, a, b, c, d, after @ ..] = rest else {
            return None;
        };
        let offset_ms = u32::from_le_bytes([*a, *b, *c, *d]);
        let recorded_at_ms = u128::from(base_time_ms) + u128::from(offset_ms);
        // 9999-12-31T23:59:59.999Z.
        if recorded_at_ms > 253_402_300_799_999 {
            return None;
        }
        records.push(Record {
            seq: base_seq + index,
            recorded_at_ms: recorded_at_ms as u64,
            kind: *kind,
            payload: after.get(..usize::from(*length))?.to_vec(),
        });
        rest = &after[usize::from(*length)..];
    }
    rest.is_empty().then_some(records)
}

/// Why a record of a known kind goes to dead_letter, by the table of record kinds.
pub fn flaw(kind: u8, payload: &[u8]) -> Option<&'static str> {
    let u16_at = |at: usize| i64::from(u16::from_le_bytes([payload[at], payload[at + 1]]));
    let i32_at = |at: usize| {
        let bytes = payload[at..at + 4].try_into().unwrap();
        i64::from(i32::from_le_bytes(bytes))
    };
    let not_available = |value: i64, bits: u32| value == (1 << bits) - 1;
    let length = payload.len();
    match kind {
        1 if length != 18 => Some("length"),
        1 if i32_at(0).abs() > 900_000_000 && i32_at(0) != -(1 << 31) => Some("latitude"),
        1 if i32_at(4).abs() > 1_800_000_000 && i32_at(4) != -(1 << 31) => Some("longitude"),
        1 if u16_at(16 - 2) >= 36_000 && !not_available(u16_at(14), 16) => Some("heading"),
        2 if length != 14 => Some("length"),
        2 if u16_at(0) > 10_000 && !not_available(u16_at(0), 16) => Some("level"),
        2 if payload[13] >= 0x80 && payload[6..] != [0xFF; 8] => Some("used"),
        3 if length != 12 => Some("length"),
        4 if length < 12 || length != 12 + 2 * usize::from(payload[11]) => Some("length"),
        5 if length < 2 => Some("length"),
        _ => None,
    }
}

fn telemetry(body: &[u8]) -> Body {
    match records(body) {
        _ if body.len() < 17 => Body::Wrong,
        Some(_) => Body::Right,
        None => Body::Uncuttable,
    }
}

fn is_account(bytes: &[u8]) -> bool {
    let allowed = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";
    (1..=32).contains(&bytes.len()) && bytes.iter().all(|byte| allowed.contains(byte))
}

fn is_firmware(bytes: &[u8]) -> bool {
    bytes.len() <= 32 && bytes.iter().all(|&byte| (0x20..0x7F).contains(&byte))
}

/// "An IPv4 or IPv6 address in text, without brackets or zone."
fn is_host(bytes: &[u8]) -> bool {
    let text = str::from_utf8(bytes).unwrap_or("");
    text.parse::<std::net::Ipv4Addr>().is_ok() || text.parse::<std::net::Ipv6Addr>().is_ok()
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.rest.get(..length)?;
        self.rest = &self.rest[length..];
        Some(taken)
    }

    fn skip(&mut self, length: usize) -> bool {
        self.take(length).is_some()
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn str8(&mut self, is_right: impl FnOnce(&[u8]) -> bool) -> bool {
        let length = self.u8();
        let text = length.and_then(|length| self.take(length.into()));
        text.is_some_and(is_right)
    }

    fn bytes16(&mut self) -> Option<&'a [u8]> {
        let length = self.take(2)?;
        self.take(usize::from(length[0]) + 256 * usize::from(length[1]))
    }

    fn target(&mut self) -> bool {
        self.str8(is_host) && self.skip(2 + 16 + 2)
    }

    /// `resume_ttl_s` and what it allows.
    fn resumption(&mut self) -> bool {
        let Some(&[ttl_0, ttl_1]) = self.take(2) else {
            return false;
        };
        let off = (ttl_0, ttl_1) == (0, 0);
        let resumption = self.bytes16();
        resumption.is_some_and(|it| it.len() <= 256 && (!off || it.is_empty()))
    }
}
