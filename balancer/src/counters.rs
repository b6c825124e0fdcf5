//! Pure. What a balancer counts: every way in which a login or a connection can end. And how much there is of
//! what comes and goes.

use common::device::code::LoginStatus;

common::counters! {
    Connections = "connections",
    // Connections turned away or dropped.
    /// Dropped for a newer one: its source had as many as it may.
    DroppedForSource = "dropped_for_source",
    /// Dropped for a newer one: there were as many as may be in all.
    DroppedInAll = "dropped_in_all",
    /// Turned away: all that its source may have await their reply.
    TurnedAwaySource = "turned_away_source",
    /// Turned away: all that there may be await their reply.
    TurnedAwayInAll = "turned_away_in_all",
    /// Closed unseen: the process had no descriptor left.
    NoDescriptor = "no_descriptor",
    // Connections that ended without a reply.
    /// `Close(attach_timeout)`: no whole Login in time.
    AttachTimeout = "attach_timeout",
    /// `Close(protocol_error)`: something else than one Login.
    ProtocolError = "protocol_error",
    /// The device went away, or the process ended, before a reply.
    Gone = "gone",
    /// Whole Logins.
    Logins = "logins",
    // What they were answered, by status of the contract.
    Ok = "ok",
    Refused = "refused",
    Disabled = "disabled",
    ClockSkew = "clock_skew",
    Full = "full",
    Busy = "busy",
    Malformed = "malformed",
    // Why they were answered `busy` here.
    PacedSource = "paced_source",
    PacedInAll = "paced_in_all",
    /// As many logins as may be were being decided.
    TooManyOpen = "too_many_open",
    /// Every conn server is full, and as many logins as may be were trying their luck.
    TooManyAtFull = "too_many_at_full",
    /// No conn server was linked, or none was left to try.
    NoConnServer = "no_conn_server",
    /// The conn servers that were asked did not answer in time.
    NoAnswer = "no_answer",
    ShuttingDown = "shutting_down",
    // What happened to tries.
    Forwarded = "forwarded",
    /// Forwarded once more, to another conn server.
    Retried = "retried",
    TriesTimedOut = "tries_timed_out",
    TriesLinkLost = "tries_link_lost",
    /// Answered `full` while another conn server had room.
    TriesFull = "tries_full",
    /// Answered after the login was given to another, or with something that is no LoginReply.
    AnswersIgnored = "answers_ignored",
}

common::gauges! {
    /// Connections that are not done yet.
    Pending = "pending",
    /// Logins that conn servers are deciding.
    LoginsOpen = "logins_open",
    /// Conn servers linked.
    ConnServers = "conn_servers",
    /// Places free behind the conn servers, by their reports.
    PlacesFree = "places_free",
}

impl Counter {
    pub(crate) const fn of_status(status: LoginStatus) -> Self {
        match status {
            LoginStatus::Ok => Self::Ok,
            LoginStatus::Refused => Self::Refused,
            LoginStatus::Disabled => Self::Disabled,
            LoginStatus::ClockSkew => Self::ClockSkew,
            LoginStatus::Full => Self::Full,
            LoginStatus::Busy => Self::Busy,
            LoginStatus::Malformed => Self::Malformed,
        }
    }
}
