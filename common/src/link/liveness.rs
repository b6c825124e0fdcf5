//! Pure. Whether a link still lives.
//!
//! Silence is counted in checks and not in milliseconds, so that a pause of our own, in which the
//! peer's bytes waited in the socket, is not taken for the peer's.

/// How often [`Liveness::check`] is called.
pub(super) const CHECK_MS: u64 = 250;

/// A second without a word of ours is ended by a Ping.
const PING_CHECKS: u32 = 4;

/// 2.75 s: with the check's own grain a silent peer is given up within 3 s.
const SILENT_CHECKS: u32 = 11;

/// Beyond it, with the check's own grain, a silent peer is a dead one.
pub const SILENT_MS_MAX: u64 = 3_000;

/// A process that stood still so long takes itself for dead.
pub const PAUSE_MS_MAX: u64 = SILENT_CHECKS as u64 * CHECK_MS;

#[derive(Debug)]
pub(super) struct Liveness {
    checked_at: u64,
    checks_since_heard: u32,
    checks_since_sent: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Alive,
    /// Nothing was said for a second: say Ping.
    Ping,
    /// Give the link up.
    Dead(&'static str),
}

/// What the connection is doing when it is checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Activity {
    /// Bytes wait for the socket to take them.
    pub(super) unsent: bool,
    /// False while the owner's queue is full: then what the peer says waits unheard.
    pub(super) reading: bool,
}

impl Liveness {
    pub(super) fn new(now: u64) -> Self {
        Self {
            checked_at: now,
            checks_since_heard: 0,
            checks_since_sent: 0,
        }
    }

    pub(super) fn heard(&mut self) {
        self.checks_since_heard = 0;
    }

    pub(super) fn sent(&mut self) {
        self.checks_since_sent = 0;
    }

    pub(super) fn check(&mut self, activity: Activity, now: u64) -> Verdict {
        let paused_ms = now.saturating_sub(self.checked_at);
        self.checked_at = now;
        self.checks_since_sent += 1;
        if activity.reading {
            self.checks_since_heard += 1;
        }
        if paused_ms >= PAUSE_MS_MAX {
            // What waits in our socket was said to a process that is taken for dead by now.
            Verdict::Dead("this process stood still, and the peer has given it up")
        } else if self.checks_since_heard >= SILENT_CHECKS {
            Verdict::Dead("silent for 3 s")
        } else if activity.unsent && self.checks_since_sent >= SILENT_CHECKS {
            Verdict::Dead("it takes no bytes for 3 s")
        } else if !activity.unsent && self.checks_since_sent >= PING_CHECKS {
            Verdict::Ping
        } else {
            Verdict::Alive
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Activity = Activity {
        unsent: false,
        reading: true,
    };

    /// Checks each 250 ms until the verdict is neither Alive nor, where it is sent, Ping.
    fn verdict_after(activity: Activity, mut each: impl FnMut(&mut Liveness)) -> (u64, Verdict) {
        let mut liveness = Liveness::new(0);
        for now in (CHECK_MS..60_000).step_by(CHECK_MS as usize) {
            match liveness.check(activity, now) {
                Verdict::Alive => {}
                Verdict::Ping => liveness.sent(),
                dead => return (now, dead),
            }
            each(&mut liveness);
        }
        (60_000, Verdict::Alive)
    }

    #[test]
    fn a_peer_that_falls_silent_is_given_up_within_3_s() {
        let (at, verdict) = verdict_after(IDLE, |_| ());
        assert_eq!(verdict, Verdict::Dead("silent for 3 s"));
        assert!((2_500..=SILENT_MS_MAX).contains(&at), "{at}");
    }

    #[test]
    fn an_idle_link_lives_by_pings() {
        let (_, verdict) = verdict_after(IDLE, Liveness::heard);
        assert_eq!(verdict, Verdict::Alive);
        let mut liveness = Liveness::new(0);
        let pings: Vec<u64> = (1..=12)
            .map(|n| n * CHECK_MS)
            .filter(|&now| {
                liveness.heard();
                let ping = liveness.check(IDLE, now) == Verdict::Ping;
                if ping {
                    liveness.sent();
                }
                ping
            })
            .collect();
        assert_eq!(pings, [1_000, 2_000, 3_000]);
    }

    #[test]
    fn a_peer_that_takes_no_bytes_is_given_up_though_it_talks() {
        let stuck = Activity {
            unsent: true,
            reading: true,
        };
        let (at, verdict) = verdict_after(stuck, Liveness::heard);
        assert_eq!(verdict, Verdict::Dead("it takes no bytes for 3 s"));
        assert!(at <= SILENT_MS_MAX, "{at}");
    }

    #[test]
    fn silence_is_not_counted_while_nobody_listens() {
        let deaf = Activity {
            unsent: false,
            reading: false,
        };
        let (_, verdict) = verdict_after(deaf, |_| ());
        assert_eq!(verdict, Verdict::Alive);
    }

    #[test]
    fn a_pause_of_our_own_ends_the_link_when_the_peer_has_given_it_up_and_not_before() {
        let mut liveness = Liveness::new(0);
        assert_eq!(liveness.check(IDLE, 2_000), Verdict::Alive);
        let verdict = liveness.check(IDLE, 22_000);
        assert!(matches!(verdict, Verdict::Dead(why) if why.contains("stood still")));
    }
}
