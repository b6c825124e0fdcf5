//! Pure. What a balancer counts: every way in which a login or a connection can end. And how much there is of
//! what comes and goes.

use protocols::rcu::code::LoginStatus;

common::counters! {
    /// Connections of devices that were accepted.
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
    /// Answered `ok`: let in, and told where to.
    Ok = "ok",
    /// Answered `refused`: no such account, a wrong proof, or a nonce that was used before.
    Refused = "refused",
    /// Answered `disabled`: the account is switched off.
    Disabled = "disabled",
    /// Answered `clock_skew`: the device's clock is too far off.
    ClockSkew = "clock_skew",
    /// Answered `full`: no place is free.
    Full = "full",
    /// Answered `busy`: come again; why, other counters say.
    Busy = "busy",
    /// Answered `malformed`: a Login frame whose body is none.
    Malformed = "malformed",
    // Why they were answered `busy` here.
    /// `busy`: more logins from one source than it may forward.
    PacedSource = "paced_source",
    /// `busy`: more logins than may be forwarded in all.
    PacedInAll = "paced_in_all",
    /// As many logins as may be were being decided.
    TooManyOpen = "too_many_open",
    /// Every conn server is full, and as many logins as may be were trying their luck.
    TooManyAtFull = "too_many_at_full",
    /// No conn server was linked, or none was left to try.
    NoConnServer = "no_conn_server",
    /// The conn servers that were asked did not answer in time.
    NoAnswer = "no_answer",
    /// `busy`, or dropped: the process is ending.
    ShuttingDown = "shutting_down",
    // What happened to tries.
    /// Logins forwarded to a conn server for the first time.
    Forwarded = "forwarded",
    /// Forwarded once more, to another conn server.
    Retried = "retried",
    /// Not answered by the conn server in time.
    TriesTimedOut = "tries_timed_out",
    /// The link to the conn server broke before its answer.
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
