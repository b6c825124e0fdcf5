//! Pure. The catalogue of events: every line of INFO and above that the product logs has a number, which stays.
//!
//! ```text
//! tracing::warn!(code = Code::LinkRefused.number(), %address, why, "link refused");
//!                              │
//!        a line of the log ◀───┴───▶ docs/codes.md, `rcu explain code 1103`, `rcu logs stats`
//! ```
//!
//! A number is never given to another event, also when its own is gone: whoever counts them by
//! number over years would count two things as one. `tests/tests/codes.rs` holds that every call of
//! the product names its code, at the level that stands here, and that no code stands here in vain.

use std::fmt;

/// What a line is about, by its number.
macro_rules! codes {
    ($($number:literal $code:ident $level:ident $text:literal $action:literal,)+) => {
        /// An event of the product.
        ///
        /// Its number says who speaks: 1000 every process, 2000 the balancer, 3000 the conn server,
        /// 4000 the logic server, 5000 the command `rcu`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Code { $(#[doc = $text] $code = $number,)+ }

        impl Code {
            /// In the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$code,)+];

            /// As it is called in the source and in every list.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => stringify!($code),)+ }
            }

            pub const fn level(self) -> Level {
                match self { $(Self::$code => Level::$level,)+ }
            }

            /// What happened.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$code => $text,)+ }
            }

            /// What an operator does about it.
            pub const fn action(self) -> &'static str {
                match self { $(Self::$code => $action,)+ }
            }
        }
    };
}

codes! {
    // ---- every process ----
    1001 ProcessStops Info
        "The process was told to stop (SIGINT or SIGTERM, or its terminal was closed) and ends in order."
        "Nothing.",
    1002 Panicked Error
        "The program found a mistake of its own and ends at once: its state cannot be trusted."
        "Let the supervisor start it again, and report the line: it names the place in the source. What devices sent and got no answer to, they send again.",
    1003 LogLinesDropped Warn
        "Lines were not written to the log file: the disk was full or failed, today's file had reached `bytes_max`, or they came faster than they could be written. The line says how many, and how many of them tell what an operator did (`audit_lines`)."
        "Look at the disk of `[log] directory`; raise `bytes_max`, or log less (`filter`). Nothing but the lines is lost.",
    1004 MetricsShown Info
        "Metrics, /healthz and /readyz are served at the address of the line."
        "Nothing.",
    1005 MetricsAcceptFailed Warn
        "A connection to the metrics port could not be accepted. The line comes once until one could be."
        "Look for a process that is out of file descriptors (`LimitNOFILE`, `ulimit -n`).",
    1006 Failed Error
        "The process does not start, or ends for want of something. The line says why."
        "Mend what the line names, and start it again.",
    1007 DatabaseNotDurable Warn
        "PostgreSQL runs with `fsync` or `full_page_writes` off: what was acknowledged may be lost, or the database be damaged, when its machine goes down. The line comes once, at the start."
        "Switch both on in postgresql.conf and restart PostgreSQL, unless all of it may be lost.",
    1008 ClocksDiffer Warn
        "The clock of the database differs by more than 5 s from that of this machine; `ahead_s` says by how much, below 0: it is behind. Times that one writes and the other compares are off by as much: `received_at`, `last_login_at`, the days that get partitions. The line comes once, at the start."
        "Have both machines follow a time server (`timedatectl`), then restart.",
    1009 LibraryTold Warn
        "A library that the program uses has something to say, at a level of its own choosing: `library` is its module, mostly that of the database's driver. A statement that took longer than a second (`summary`, `elapsed`), a connection that broke while nobody used it, a notice of PostgreSQL. From the same place in its source the line comes once a minute, and all of them once a second at most; `untold` counts those in between."
        "Where a code of ours stands beside it, follow that one. Slow statements: look at the load and the locks of the database (`pg_stat_activity`).",
    1013 DatabaseFileLost Error
        "The SQLite file, or one of the two that belong to it, was removed, moved away or replaced while it is open. Nothing is stored or acknowledged any more, and nobody logs in by it: what is written to it would be lost with the process. The line comes again each minute; `failures` counts since the last one."
        "Put the same files back under their names (a mount that went away: mount it again), and it goes on by itself. If the file is to be another one, stop the process first, move `rcu.db-wal` and `rcu.db-shm` away, put the file there, start it: docs/operate.md, Restore.",
    1014 DatabaseFileBack Info
        "The file of the database is under its name again, and is written to."
        "Nothing.",
    1019 HangupIgnored Info
        "SIGHUP came to a server that no terminal controls. It runs on, with the configuration that it has."
        "To have it take up a configuration that was changed, restart it.",
    1020 EndHastened Warn
        "The process was told to stop a second time while it ended, and leaves what can be left: it waits for no database, and for five seconds at most."
        "Nothing: what was not stored was not acknowledged, and its devices send it again. Where an end takes long, look at the database.",

    1101 LinkUp Info
        "A link to another process of the cluster stands."
        "Nothing.",
    1102 LinkDown Info
        "A link to another process of the cluster is gone: `peer` is its name, `role` what it is. The side that dialled dials again."
        "Nothing, where that process was stopped; else look at its log, and at the network between the two.",
    1103 LinkRefused Warn
        "Somebody who wanted to link was turned away: wrong key, wrong role, wrong version, or too many at once. For the same reason from the same address the line comes once a minute, and once a second at most; `untold` counts those in between."
        "If the address is one of the cluster, compare the key files and versions of both. If it is not, keep strangers off the link port.",
    1104 LinkAcceptFailed Warn
        "A link could not be accepted. The line comes once until one could be."
        "Look for a process that is out of file descriptors (`LimitNOFILE`, `ulimit -n`).",
    1105 LinkNotMade Warn
        "A process of the cluster cannot be linked to; `peer` is its name, where a link to it stood before. It is dialled again and again; for the same reason the line comes once a minute, and `untold` counts the attempts in between."
        "Look whether the process runs at that address, and whether both have the same key files.",
    1106 LinksOpenAtEnd Warn
        "At the end of the process, links had not sent all that was queued for them within three seconds."
        "Nothing, if the peer was gone. What was not sent is asked again by whoever waits for it.",

    1107 EpochNotBelieved Warn
        "A conn server or a logic server told of epochs that lie more than a day ahead of this machine's clock (`ahead_s`). They are not believed: whoever follows one has to go beyond it with every later login. The line comes once for each link; line 1101 of the same `link` names the peer."
        "Compare the clocks of both machines, and have them follow a time server. Was the peer's clock ahead for a while, it makes such epochs until the time has caught up with them; a device that got one logs in through other conn servers when its session has ended.",

    // ---- balancer ----
    2001 BalancerRuns Info
        "The balancer accepts devices."
        "Nothing.",
    2002 BalancerEnded Info
        "The balancer has ended."
        "Nothing.",
    2003 BalancerAcceptFailed Warn
        "A device could not be accepted. The line comes once until one could be."
        "Look at the reason in the line. Devices try again by themselves.",
    2004 BalancerWithoutDescriptors Warn
        "The balancer is out of file descriptors: devices are closed unseen. The line comes once until one could be accepted again; `no_descriptor` counts them."
        "Raise `LimitNOFILE` (`ulimit -n`) above `connections_pending_max`, or lower that.",

    // ---- conn server ----
    3001 ConnServerRuns Info
        "The conn server accepts balancers and operators."
        "Nothing.",
    3002 ConnServerEnded Info
        "The conn server has ended."
        "Nothing.",
    3003 LinkClosed Warn
        "The conn server closed a link because it could not work with the peer. The line says why."
        "Two logic servers of one name, or two balancers that name the same address differently, are mistakes of the configuration; else see the lines before.",
    3004 ChangeUnknown Error
        "The database holds a change of an account that this version does not know; it was passed over."
        "Run the same version of `rcu` and of the conn servers.",
    3005 AccountUnreadable Error
        "The key of an account cannot be opened, so its device cannot log in."
        "Look whether the conn server has the master key that the account was made with; else give the device a new key (`rcu device rotate-key`).",
    3006 AccountsUnreadable Warn
        "The accounts cannot be read from the database. Logins of accounts that are not remembered are answered `busy`. The line comes again each minute; `failures` counts since the last one."
        "Look at the database. Where the line says `permission denied`, run `config/schema/postgres/roles.sql` again. Devices come again by themselves.",
    3007 AccountsReadable Info
        "The accounts can be read again."
        "Nothing.",
    3008 MarkNotStored Warn
        "The mark above the epochs could not be stored. After a minute of it no new session can be admitted. The line comes again each minute; `failures` counts since the last one."
        "Look at the database: is it writable for the conn server? Where the line says `permission denied`, run `config/schema/postgres/roles.sql` again.",
    3009 LastLoginsNotNoted Warn
        "Who logged in last could not be written. Only `last_login_at` and its neighbours in `accounts` are out of date. The line comes again each minute; `failures` counts since the last one."
        "Look at the database: is it writable for the conn server? Where the line says `permission denied`, run `config/schema/postgres/roles.sql` again.",

    3010 OperatorKicked Info
        "An operator asked for the end of a session. The line says who (by the name of its link), whose session, on which logic server (`node`), and what came of it."
        "Nothing; it stands here for whoever asks later.",
    3011 OperatorCommanded Info
        "An operator sent a command to a device. The line says who (by the name of its link), to whom, on which logic server (`node`), which one, and what came of it; not what it said."
        "Nothing; it stands here for whoever asks later.",
    3012 MarkStored Info
        "The mark above the epochs is stored again."
        "Nothing.",
    3013 LastLoginsNoted Info
        "Who logged in last is written again."
        "Nothing.",

    3014 DatabaseWentBack Error
        "The database is an older one than it was: it was restored from a backup, or failed over to a copy that lacked the last transactions. What was known of the accounts is read anew, and every session and open grant is compared with them; whoever has no such account any more, or another key, is out within seconds."
        "If a backup was restored, go on as docs/operate.md says in Restore. If nobody restored anything, find out why the database lost transactions: what was acknowledged since then is gone.",

    // ---- logic server ----
    4001 LogicServerRuns Info
        "The logic server accepts devices."
        "Nothing.",
    4002 LogicServerEnded Info
        "The logic server has ended: what it acknowledged is stored."
        "Nothing.",
    4003 SessionsRepaired Warn
        "The last run of this node crashed. Its sessions were ended in the table `sessions`, with the reason `crash`."
        "Look in the log of the last run for the reason.",
    4004 LogicWithoutDescriptors Warn
        "The logic server is out of file descriptors: devices are closed unseen. The line comes once until one could be accepted again; `dropped_without_descriptor` counts them."
        "Raise `LimitNOFILE` (`ulimit -n`), or lower `max_connections`.",
    4005 LogicAcceptFailed Warn
        "Devices cannot be accepted; they wait. The line comes once until one could be accepted again."
        "Look at the reason in the line: memory, mostly.",
    4006 SocketNotWatched Warn
        "The socket of a session cannot be watched; its device was let go and comes again."
        "Look at the reason in the line: memory, mostly.",
    4007 BatchesNotTaken Warn
        "The database does not take batches. They are kept and repeated; when too many wait, devices are answered `overloaded` and keep their records. The line comes again each minute; `failures` counts since the last one."
        "Look at the database. Nothing that was acknowledged is lost.",
    4008 BatchesTaken Info
        "The database takes batches again."
        "Nothing.",
    4009 ShutdownTooLong Warn
        "The shutdown took longer than `shutdown_deadline_ms`. What was not stored was not acknowledged: its devices send it again."
        "Look at the database, or raise `shutdown_deadline_ms`.",
    4010 PartitionsMade Info
        "Every day to come has its tables in PostgreSQL: some were made, or they could not be made before."
        "Nothing.",
    4011 PartitionsNotMade Warn
        "Tables for days to come cannot be made in PostgreSQL. Records of such days go to the default partition, and are moved when the day is made. It is tried again each minute."
        "Look at the database: does it run? Where the line says `permission denied`, run `config/schema/postgres/roles.sql` again.",
    4012 NumbersUsedAgain Warn
        "A device sent records whose number and time were used before, for something else. What was stored first is kept, and the device was told `stored`: its later records are not in the database. Mostly its counter started again while it has no clock, which the contract forbids. The line comes once for an account while the process runs, and for 1,000 accounts at most; `records_contradicting` counts all."
        "`SELECT name FROM accounts WHERE id = …` says who it is; `rcu session show` how many of them its session had. Mend its firmware: the boot counter must be kept over restarts, and grow.",
    4013 WriteForbidden Error
        "The database does not let the logic server write: its user lacks a right, which `error` names. Batches are kept and repeated, in vain; devices are answered `overloaded` and keep their records. The line comes again each minute; `failures` counts since the last one."
        "Run `config/schema/postgres/roles.sql` again, as after each `rcu db migrate`, and see that the URL is that of `rcu_telemetry`. Nothing that was acknowledged is lost; what waits is written as soon as it may be.",
    4014 TablesDiffer Error
        "The tables of the database are not those that the logic server needs; `error` says what it misses. Batches are kept and repeated, in vain; devices are answered `overloaded` and keep their records. The line comes again each minute; `failures` counts since the last one."
        "`rcu db status` says which version the schema has; `rcu db migrate` makes it the right one. Where somebody changed or dropped a table by hand, change it back. Nothing that was acknowledged is lost.",
    4016 RepetitionsNotCompared Warn
        "Records that come again cannot be compared with those that are kept; `error` says why. They are stored once as always, and all count as the same: a device that uses its numbers again is not noticed. The line comes again each minute; `failures` counts since the last one."
        "Run `rcu db migrate`, then `config/schema/postgres/roles.sql` again.",

    // ---- rcu ----
    5001 ClusterRuns Info
        "All tiers of `rcu up` run and found one another."
        "Nothing.",
    5003 ClusterMade Info
        "`rcu up` found no database in its data directory, and made a new one: a cluster without accounts."
        "Nothing, if it was to be a new one. Else end it, and see why the database is not there: a disk that is not mounted, mostly.",
    5004 AddressesNotPrinted Warn
        "Standard output did not take the addresses of `rcu up`, because the disk was full, for example. The cluster runs."
        "Nothing: the addresses stand in `up.json` of the data directory. Where its disk is full, make room.",
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Data is lost, or a person must act.
    Error,
    /// Unexpected, and nothing is lost.
    Warn,
    /// A node changes its state.
    Info,
}

impl Level {
    /// As it stands in a line of the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
        }
    }
}

impl Code {
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// `None`: no event has, or ever had, this number.
    pub fn of(number: u16) -> Option<Self> {
        let index = Self::ALL.binary_search_by_key(&number, |code| code.number());
        Some(Self::ALL[index.ok()?])
    }

    /// Who speaks, by the number.
    pub const fn speaker(self) -> &'static str {
        match self.number() / 1_000 {
            1 => "every process",
            2 => "balancer",
            3 => "conn server",
            4 => "logic server",
            _ => "rcu",
        }
    }
}

/// What `rcu explain code` prints: three lines.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, name, level) = (self.number(), self.name(), self.level().name());
        writeln!(f, "{number} {name} ({level}, {})", self.speaker())?;
        writeln!(f, "  what    {}", self.text())?;
        write!(f, "  do      {}", self.action())
    }
}

/// docs/codes.md, whole.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Codes\n\n\
         Every line of INFO and above that the cluster logs carries one of these numbers; a number never changes \
         its meaning. ERROR: data is lost, or a person must act. WARN: unexpected, and nothing is lost. INFO: a \
         node changes its state. `rcu explain code 4007` prints one of them, `rcu logs stats` counts them \
         ([logs.md](logs.md)).\n\n\
         This page is made from `common/src/codes.rs`: `rcu explain code --markdown > docs/codes.md`.\n",
    );
    let mut speaker = "";
    for code in Code::ALL {
        if code.speaker() != speaker {
            speaker = code.speaker();
            text += &format!(
                "\n## {} ({}000)\n\n| code | level | name | what happened | what to do |\n| --- | --- | --- | --- | --- |\n",
                capitalized(speaker),
                code.number() / 1_000
            );
        }
        text += &format!(
            "| {} | {} | {} | {} | {} |\n",
            code.number(),
            code.level().name(),
            code.name(),
            code.text(),
            code.action()
        );
    }
    text
}

fn capitalized(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_in_the_order_of_their_numbers_and_are_found_by_them() {
        assert!(Code::ALL.is_sorted_by_key(|code| code.number()));
        for &code in Code::ALL {
            assert_eq!(Code::of(code.number()), Some(code));
        }
        assert_eq!(Code::of(0), None);
        assert_eq!(Code::of(9_999), None);
    }

    #[test]
    fn a_person_is_told_what_happened_and_what_to_do() {
        for code in Code::ALL {
            for told in [code.text(), code.action()] {
                assert!(
                    told.ends_with(['.', '?']) && !told.contains('|'),
                    "{code:?}: {told}"
                );
            }
        }
    }

    #[test]
    fn the_documented_list_is_this_one() {
        let documented = include_str!("../../docs/codes.md");
        assert_eq!(
            documented,
            markdown(),
            "make it again, as docs/codes.md says"
        );
    }
}
