//! Pure. What counts of the epoch that comes with every message. Whoever believed any would have to exceed it
//! with every login from then on, until none is left.

use super::Role;
use crate::epoch::Epoch;

/// The clocks of a cluster differ by less.
const AHEAD_MS_MAX: u64 = 24 * 3_600_000;

/// An epoch that nobody's clock can have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFarAhead {
    pub ahead_ms: u64,
}

/// Who makes no epochs, and keeps no sessions by them, has nothing to say of them: what counts is 0.
///
/// # Errors
/// It is too far ahead of our clock.
pub fn counts(from: Role, epoch: Epoch, unix_ms: u64) -> Result<Epoch, TooFarAhead> {
    match from {
        Role::Balancer | Role::Operator => Ok(Epoch::ZERO),
        Role::Conn | Role::Logic => match epoch.unix_ms().saturating_sub(unix_ms) {
            ..=AHEAD_MS_MAX => Ok(epoch),
            ahead_ms => Err(TooFarAhead { ahead_ms }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_makes_or_keeps_epochs_is_heard_and_only_near_the_clock() {
        let now_ms = 5_000_000_000;
        let hours = |hours: u64| Epoch::at_ms(now_ms + hours * 3_600_000);
        for role in [Role::Conn, Role::Logic] {
            assert_eq!(counts(role, Epoch::ZERO, now_ms), Ok(Epoch::ZERO));
            assert_eq!(counts(role, hours(24), now_ms), Ok(hours(24)));
            let ahead_ms = 25 * 3_600_000;
            assert_eq!(
                counts(role, hours(25), now_ms),
                Err(TooFarAhead { ahead_ms })
            );
        }
        for role in [Role::Balancer, Role::Operator] {
            assert_eq!(counts(role, hours(0), now_ms), Ok(Epoch::ZERO));
            assert_eq!(counts(role, hours(99), now_ms), Ok(Epoch::ZERO));
        }
    }
}
