//! Pure. One number for everything that is taken, refused, closed, shed or set aside. A close
//! reason has the contract's name behind `closed_`. Each core has counters of its own; whoever shows
//! them adds them up. And how much there is of what comes and goes.

use protocols::rcu::code::CloseReason;

common::counters! {
    // ---- gate: operators ----
    /// Sessions that an operator closed; among those of `closed_replaced`.
    Kicked = "kicked",

    // ---- gate: connections ----
    /// Connections of devices that were accepted.
    Accepted = "accepted",
    /// Dropped without a frame: its address holds no grant.
    WithoutGrant = "without_grant",
    /// Dropped without a frame: the oldest of too many that are not attached.
    PendingShed = "pending_shed",
    /// Gone before its first frame was whole.
    PendingDisconnected = "pending_disconnected",
    /// `Close(attach_timeout)`: no whole first frame in time.
    ClosedAttachTimeout = "closed_attach_timeout",
    /// Sessions that began.
    Attached = "attached",
    /// Attaches answered `draining`: the node is ending.
    AttachDraining = "attach_draining",
    /// `not_admitted`: the ticket is of no open grant.
    NotAdmittedTicket = "not_admitted_ticket",
    /// `not_admitted`: from an address that its grant does not allow.
    NotAdmittedSource = "not_admitted_source",
    /// `not_admitted`: a wrong proof.
    NotAdmittedProof = "not_admitted_proof",
    /// A newer session of the account was attached here.
    NotAdmittedEpoch = "not_admitted_epoch",
    /// Resumption is off.
    NotAdmittedResume = "not_admitted_resume",

    // ---- gate: grants ----
    /// Grants that were given a place.
    Granted = "granted",
    /// Grants refused: no place was free.
    GrantFull = "grant_full",
    /// Grants refused: the node is ending.
    GrantDraining = "grant_draining",
    /// Grants that nobody used in time.
    GrantExpired = "grant_expired",
    /// The oldest of five of one account.
    GrantDropped = "grant_dropped",
    /// A newer one of the account was used first.
    GrantSuperseded = "grant_superseded",
    /// Grants ended because the account was switched off, removed or re-keyed.
    GrantRevoked = "grant_revoked",

    // ---- gate and shard: frames ----
    /// Frames that do not begin with the protocol's two bytes.
    FrameMagic = "frame_magic",
    /// Frames of a version that is not known.
    FrameVersion = "frame_version",
    /// Frames longer than any may be.
    FrameLength = "frame_length",
    /// Frames whose checksum is wrong.
    FrameCrc = "frame_crc",
    /// A body that does not have exactly its fields, or an id of 0.
    FrameBody = "frame_body",
    /// A known kind in the wrong direction or state; before attach an unknown one too.
    FrameState = "frame_state",
    /// More than 512 bytes before AttachReply.
    FrameEarly = "frame_early",
    /// Ignored: that is how the protocol grows.
    FrameUnknown = "frame_unknown",

    // ---- shard: sessions ----
    /// Sessions that ended because the connection did.
    Disconnected = "disconnected",
    /// `Close(protocol_error)`: a frame that breaks the protocol.
    ClosedProtocolError = "closed_protocol_error",
    /// `Close(idle)`: the device was silent for too long.
    ClosedIdle = "closed_idle",
    /// `Close(replaced)`: a newer session of the account, or an operator, ended it.
    ClosedReplaced = "closed_replaced",
    /// `Close(disabled)`: the account was switched off, removed or re-keyed.
    ClosedDisabled = "closed_disabled",
    /// `Close(shutdown)`: the node is ending.
    ClosedShutdown = "closed_shutdown",
    /// `Close(slow_reader)`: the device does not read what it is sent.
    ClosedSlowReader = "closed_slow_reader",
    /// `Close(clone_suspected)`: two devices use one account.
    ClosedCloneSuspected = "closed_clone_suspected",
    /// Heartbeats of devices.
    Heartbeats = "heartbeats",

    // ---- shard: telemetry, in frames but where it says records ----
    /// Telemetry frames.
    Telemetry = "telemetry",
    /// Answered `stored`.
    TelemetryStored = "telemetry_stored",
    /// Answered `malformed`: cannot be cut into records.
    TelemetryMalformed = "telemetry_malformed",
    /// Answered `overloaded`: the store could not take it in time.
    TelemetryOverloaded = "telemetry_overloaded",
    /// Answered `overloaded`: more than `window` were unanswered.
    TelemetryBeyondWindow = "telemetry_beyond_window",
    /// Not taken and not answered any more.
    TelemetryAtShutdown = "telemetry_at_shutdown",
    /// Acks that nobody waited for any more.
    AckDropped = "ack_dropped",
    /// Records in Telemetry frames that were looked at.
    Records = "records",
    /// Set aside in dead_letter for a wrong length or a value out of range.
    RecordsFlawed = "records_flawed",

    // ---- gate and shard: commands ----
    /// Commands sent to devices.
    CommandSent = "command_sent",
    /// Commands that a device replied to.
    CommandReplied = "command_replied",
    /// A reply to no pending command.
    CommandReplyIgnored = "command_reply_ignored",
    /// Commands for a session that is gone.
    CommandNotAttached = "command_not_attached",
    /// Commands for a session that has one pending.
    CommandBusy = "command_busy",
    /// Commands that were not replied to in time.
    CommandExpired = "command_expired",
    /// Commands that do not fit into a frame.
    CommandTooLarge = "command_too_large",
    /// Commands whose session ended before the reply.
    CommandLost = "command_lost",

    // ---- writer ----
    /// Batches committed.
    BatchStored = "batch_stored",
    /// Batches given up because the store could not take them in time.
    BatchOverloaded = "batch_overloaded",
    /// Writes that failed and are repeated.
    WriteFailed = "write_failed",
    /// Writes that were not carried out because the store refused a value in them.
    WriteRefused = "write_refused",
    /// New in the store, each in its table or in dead_letter.
    RecordsStored = "records_stored",
    /// Set aside in dead_letter because the store refused them.
    RecordsRefused = "records_refused",
    /// There already, and the same: sent again by a device that got no answer, or written again by a server that
    /// did not hear of its COMMIT.
    RecordsRepeated = "records_repeated",
    /// Whose number and time were used before, for something else, which is kept: their device breaks the contract.
    RecordsContradicting = "records_contradicting",
    /// Lines of `sessions` that the next start repairs.
    PresenceDropped = "presence_dropped",
}

common::named! {
    /// What the loops and tasks around the cores count.
    ShellCounter {
        /// Closed unseen: the process had no descriptor left.
        DroppedWithoutDescriptor = "dropped_without_descriptor",
        /// Closed unseen: as many sockets as may be were open.
        DroppedAtLimit = "dropped_at_limit",
        /// Grants and commands not looked at: the gate was too far behind.
        RequestsShed = "requests_shed",
    }
}

common::gauges! {
    /// Live sessions.
    Sessions = "sessions",
    /// Sessions that the node may have.
    PlacesMax = "places_max",
    /// Connections that are not attached yet.
    Pending = "pending",
    /// Conn servers linked.
    ConnServers = "conn_servers",
    /// Bytes of batches that wait or are being written.
    QueueBytes = "queue_bytes",
}

impl Counter {
    /// The counter of a close reason.
    pub const fn closed(reason: CloseReason) -> Self {
        match reason {
            CloseReason::ProtocolError => Self::ClosedProtocolError,
            CloseReason::Idle => Self::ClosedIdle,
            CloseReason::Replaced => Self::ClosedReplaced,
            CloseReason::Disabled => Self::ClosedDisabled,
            CloseReason::Shutdown => Self::ClosedShutdown,
            CloseReason::SlowReader => Self::ClosedSlowReader,
            CloseReason::AttachTimeout => Self::ClosedAttachTimeout,
            CloseReason::CloneSuspected => Self::ClosedCloneSuspected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_session_is_counted_by_the_contracts_name_of_its_reason() {
        for &reason in CloseReason::ALL {
            assert_eq!(
                Counter::closed(reason).name(),
                format!("closed_{}", reason.name())
            );
        }
    }
}
