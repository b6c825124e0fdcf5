//! Pure. What a wrong message means.

use thiserror::Error;

/// Why a frame is no message of its direction. Whether that closes the connection depends on
/// who reads, and in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum MessageError {
    /// After attach ignored and counted, before it `Close(protocol_error)`.
    #[error("unknown kind")]
    UnknownKind,
    /// `Close(protocol_error)`.
    #[error("a kind of the other direction")]
    WrongDirection,
    /// The field that is wrong, or "length of body". A Login is answered `malformed`,
    /// anything else `Close(protocol_error)`.
    #[error("wrong {0}")]
    Body(&'static str),
    /// A Telemetry of 17 bytes or more that cannot be cut into records: acknowledged
    /// `malformed`, with the figures as sent.
    #[error("telemetry cannot be cut into records: {what}")]
    TelemetryCannotBeCut {
        base_seq: u64,
        count: u8,
        what: &'static str,
    },
}
