//! Pure. Frames out of the stream from the cluster, within a device's limits.

use common::device::frame::{
    FRAME_BYTES_MAX, FRAME_BYTES_TO_DEVICE_MAX, FrameError, Header, Parsed, parse,
};
use common::device::kind;

/// The frame at the front of the stream. A Command may be as long as the protocol allows: a
/// device that cannot hold it reads it all the same, so that it can answer.
pub(super) fn next_frame(stream: &[u8]) -> Result<Parsed<'_>, FrameError> {
    let frame_bytes_max = match Header::parse(stream)? {
        Some(header) if header.kind == kind::COMMAND => FRAME_BYTES_MAX,
        _ => FRAME_BYTES_TO_DEVICE_MAX,
    };
    parse(stream, frame_bytes_max)
}
