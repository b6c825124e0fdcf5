//! Pure. What a conn server counts: every way in which a login can end, and what it did
//! about sessions. And how much there is of what comes and goes.

use protocols::rcu::code::LoginStatus;

common::counters! {
    /// Logins that came from balancers.
    Logins = "logins",
    // How they ended, by status of the contract.
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
    /// Looked up again: the account changed while the login was being decided.
    JudgedAgain = "judged_again",
    // Why they were refused or busy, as far as it can be told apart here.
    /// `refused`: no such account.
    UnknownAccount = "unknown_account",
    /// `refused`: a wrong proof.
    WrongProof = "wrong_proof",
    /// `refused`: the nonce was used before and its grant is not open any more.
    Replayed = "replayed",
    /// `ok` again, with the grant that was open still.
    Repeated = "repeated",
    /// `busy`: more logins from one source than may be decided.
    PacedSource = "paced_source",
    /// `busy`: more logins than may be decided in all.
    PacedInAll = "paced_in_all",
    /// `busy`: too many wrong proofs for one account, or from one source.
    PacedWrongProofs = "paced_wrong_proofs",
    /// `busy`: as many logins as `logins_open_max` were being decided.
    TooManyOpen = "too_many_open",
    /// `busy`: the account could not be looked up in time.
    LookUpFailed = "look_up_failed",
    /// `busy`: no epoch could be made, because the mark above it is not stored.
    NoEpoch = "no_epoch",
    /// `busy`: no logic server takes grants.
    NoNode = "no_node",
    /// `busy`: the process is ending.
    ShuttingDown = "shutting_down",
    // What logic servers answered to grants.
    /// The logic server that was asked had no place free.
    GrantRefusedFull = "grant_refused_full",
    /// The logic server that was asked is ending.
    GrantRefusedDraining = "grant_refused_draining",
    /// No answer to a grant in time.
    GrantTimedOut = "grant_timed_out",
    /// The link to the logic server broke before its answer.
    GrantLinkLost = "grant_link_lost",
    // What was told to logic servers.
    /// Sessions that had to end because a newer one lives elsewhere.
    EndedElsewhere = "ended_elsewhere",
    /// Accounts that were switched off, removed or re-keyed, by node told.
    Revoked = "revoked",
    // What operators asked.
    /// Commands to devices.
    Commands = "commands",
    /// Sessions that were to be closed.
    Kicks = "kicks",
    /// Nodes, pages of sessions, and sessions that were looked at.
    Questions = "questions",
    // How commands, kicks and questions about a session ended that went to no node.
    /// Unknown account, or no session.
    CommandsNotAttached = "commands_not_attached",
    /// Too many at once, or the account could not be looked up in time.
    CommandsShed = "commands_shed",
    // Behind the decisions.
    /// Notes of a last login that found no room and are not written.
    LastLoginsShed = "last_logins_shed",
}

common::gauges! {
    /// Logic servers that take grants.
    Nodes = "nodes",
    /// Accounts with a session on the logic servers.
    Sessions = "sessions",
    /// Logins that are being decided.
    LoginsOpen = "logins_open",
    /// Places free on the logic servers that take grants.
    PlacesFree = "places_free",
    /// Places of the logic servers that take grants.
    PlacesMax = "places_max",
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
