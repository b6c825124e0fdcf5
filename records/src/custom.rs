//! Pure. Kind 5, the fleet's own bytes, and every kind that the contract does not list.

use super::{Column, ColumnType, Flaw, Row, integer, small_int};

/// `u16 channel`, then bytes that mean something to the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Custom<'a> {
    pub channel: u16,
    pub data: &'a [u8],
}

/// A record of a kind that the contract does not list, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown<'a> {
    pub kind: u8,
    pub payload: &'a [u8],
}

impl<'a> Custom<'a> {
    pub const KIND: u8 = 5;
    pub const TABLE: &'static str = "telemetry_custom";
    /// `channel` is NULL for unknown kinds; `payload` is without the channel for kind 5.
    pub const COLUMNS: &'static [Column] = &[
        small_int("kind"),
        integer("channel"),
        Column {
            name: "payload",
            column_type: ColumnType::Bytes,
        },
    ];

    #[inline]
    pub fn decode(payload: &'a [u8]) -> Result<Self, Flaw> {
        let (&channel, data) = payload.split_first_chunk().ok_or(Flaw::Length)?;
        Ok(Self {
            channel: u16::from_le_bytes(channel),
            data,
        })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.channel.to_le_bytes());
        out.extend_from_slice(self.data);
    }

    pub fn columns(&self, row: &mut impl Row) {
        row.integer(Self::KIND.into());
        row.integer(self.channel.into());
        row.bytes(self.data);
    }
}

impl Unknown<'_> {
    pub fn columns(&self, row: &mut impl Row) {
        row.integer(self.kind.into());
        row.null();
        row.bytes(self.payload);
    }
}
