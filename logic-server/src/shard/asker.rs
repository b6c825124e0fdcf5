//! Pure. A command under way, and who waits for its replies.

use common::device::command::CommandId;
use common::link::LinkId;

/// Who asked for a command, and how long the answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) link: LinkId,
    /// The id of the request on its link.
    pub(super) request: u64,
    /// Monotonic.
    pub(super) deadline_at_ms: u64,
}

/// The command under way on a session.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) command_id: CommandId,
    pub(super) asker: Asker,
}
