//! Pure. One number for everything that is taken, refused, closed, shed or set aside. A close
//! reason has the contract's name behind `closed_`. Each core has counters of its own; whoever shows
//! them adds them up. And how much there is of what comes and goes.

use common::device::code::CloseReason;
use common::device::frame::FrameError;

common::counters! {
    // ---- gate: operators ----
    /// Sessions that an operator closed; among those of `closed_replaced`.
    Kicked = "kicked",

    // ---- gate: connections ----
    Accepted = "accepted",
    /// Dropped without a frame: its address holds no grant.
    WithoutGrant = "without_grant",
    /// Dropped without a frame: the oldest of too many that are not attached.
    PendingShed = "pending_shed",
    /// Gone before its first frame was whole.
    PendingDisconnected = "pending_disconnected",
    ClosedAttachTimeout = "closed_attach_timeout",
    Attached = "attached",
    AttachDraining = "attach_draining",
    NotAdmittedTicket = "not_admitted_ticket",
    NotAdmittedSource = "not_admitted_source",
    NotAdmittedProof = "not_admitted_proof",
    /// A newer session of the account was attached here.
    NotAdmittedEpoch = "not_admitted_epoch",
    /// Resumption is off.
    NotAdmittedResume = "not_admitted_resume",

    // ---- gate: grants ----
    Granted = "granted",
    GrantFull = "grant_full",
    GrantDraining = "grant_draining",
    GrantExpired = "grant_expired",
    /// The oldest of five of one account.
    GrantDropped = "grant_dropped",
    /// A newer one of the account was used first.
    GrantSuperseded = "grant_superseded",
    GrantRevoked = "grant_revoked",

    // ---- gate and shard: frames ----
    FrameMagic = "frame_magic",
    FrameVersion = "frame_version",
    FrameLength = "frame_length",
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
    Disconnected = "disconnected",
    ClosedProtocolError = "closed_protocol_error",
    ClosedIdle = "closed_idle",
    ClosedReplaced = "closed_replaced",
    ClosedDisabled = "closed_disabled",
    ClosedShutdown = "closed_shutdown",
    ClosedSlowReader = "closed_slow_reader",
    ClosedCloneSuspected = "closed_clone_suspected",
    Heartbeats = "heartbeats",

    // ---- shard: telemetry, in frames but where it says records ----
    Telemetry = "telemetry",
    TelemetryStored = "telemetry_stored",
    TelemetryMalformed = "telemetry_malformed",
    /// Answered `overloaded`: the store could not take it in time.
    TelemetryOverloaded = "telemetry_overloaded",
    /// Answered `overloaded`: more than `window` were unanswered.
    TelemetryBeyondWindow = "telemetry_beyond_window",
    /// Not taken and not answered any more.
    TelemetryAtShutdown = "telemetry_at_shutdown",
    /// Acks that nobody waited for any more.
    AckDropped = "ack_dropped",
    Records = "records",
    RecordsStored = "records_stored",
    /// Set aside in dead_letter for a wrong length or a value out of range.
    RecordsFlawed = "records_flawed",

    // ---- gate and shard: commands ----
    CommandSent = "command_sent",
    CommandReplied = "command_replied",
    /// A reply to no pending command.
    CommandReplyIgnored = "command_reply_ignored",
    CommandNotAttached = "command_not_attached",
    CommandBusy = "command_busy",
    CommandExpired = "command_expired",
    CommandTooLarge = "command_too_large",
    CommandLost = "command_lost",

    // ---- writer ----
    BatchStored = "batch_stored",
    BatchOverloaded = "batch_overloaded",
    WriteFailed = "write_failed",
    /// Writes that were not carried out because the store refused a value in them.
    WriteRefused = "write_refused",
    /// Set aside in dead_letter because the store refused them.
    RecordsRefused = "records_refused",
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

    /// The counter of a wrong header field.
    pub const fn frame(error: FrameError) -> Self {
        match error {
            FrameError::Magic => Self::FrameMagic,
            FrameError::Version => Self::FrameVersion,
            FrameError::Length => Self::FrameLength,
            FrameError::Crc => Self::FrameCrc,
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
