//! Pure. The packed fields of a body: little-endian integers, `str8`, `bytes16`.

use super::error::MessageError;

/// What `vectors.json` calls a body with a byte too many or too few.
pub(super) const LENGTH: MessageError = MessageError::Body("length of body");

/// Takes fields off the front of a body.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(LENGTH)?;
        self.rest = rest;
        Ok(*array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, MessageError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, MessageError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A byte that is 0 or 1; anything else is reported under the field's name.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, MessageError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(MessageError::Body(field)),
        }
    }

    pub(super) fn str8(&mut self) -> Result<&'a [u8], MessageError> {
        let length = self.u8()?;
        self.bytes(length.into())
    }

    pub(super) fn bytes16(&mut self) -> Result<&'a [u8], MessageError> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], MessageError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(LENGTH)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// A body has exactly its fields.
    pub(super) fn end(self) -> Result<(), MessageError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(LENGTH)
        }
    }
}

/// Where fields are written to: a frame, or the hash that signs them. A message names the
/// fields "up to here" once and writes them to either.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    /// Text or bytes of at most 255; more is a bug of the caller.
    fn put_str8(&mut self, bytes: &[u8]) {
        let length = u8::try_from(bytes.len()).expect("a str8 of at most 255 bytes");
        self.put(&[length]);
        self.put(bytes);
    }

    /// At most 65,535 bytes; more is a bug of the caller.
    fn put_bytes16(&mut self, bytes: &[u8]) {
        let length = u16::try_from(bytes.len()).expect("a bytes16 of at most 65,535 bytes");
        self.put(&length.to_le_bytes());
        self.put(bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
