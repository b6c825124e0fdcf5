//! L2: after the heal every device attaches again, and what it sent is acknowledged.
//!
//! All of it is seen from the devices' side: what they tell of their waits, of their sessions and of
//! what is not acknowledged. Their waits are held to the contract (section 5) on the way, so that a
//! device that waits longer than it may is found out, and none is excused by it.
//!
//! Beyond the bound of the promise a device has time for what the heal does not end at once:
//!
//! | what | how long |
//! | --- | --- |
//! | its session is gone and it has not noticed | until its own time of silence is over |
//! | its stream stalls | until what is on its way has arrived |
//! | its account was changed, and that is not in effect everywhere | 5 s, in which its session may still end and it may be told `disabled`: then its longest wait |
//! | another device had its account | 5 s, in which the older session ends |
//! | its clock was set by a conn server whose own was wrong | once more a step: the right one sets it again, and the contract has it back off from the second `clock_skew` in a row |
//! | it sends what it has kept | as long as that takes by its window |
//! | the store finds records that it refuses | from the last of them on |

use std::collections::BTreeSet;

use protocols::rcu::code::{AttachStatus, LoginStatus};
use simulator::device::{Event, Fault, Wait};

use super::Broken;

/// From the end of the longest step in force until it is attached; from there until all is acknowledged.
const ATTACHED_WITHIN_MS: u64 = 60_000;
const ACKNOWLEDGED_WITHIN_MS: u64 = 60_000;
/// A device that was without a session for less than this is back without waiting out a step.
const SHORT_FAULT_MS: u64 = 10_000;
/// After so long on one connection a device's failed tries count no more.
const SETTLED_MS: u64 = 60_000;
const STEP_MS: u64 = 1_000;
const STEP_MS_MAX: u64 = 300_000;
const TOLD_MS_MAX: u64 = 3_600_000;

/// A login that a conn server judged before the heal is answered by then, and a change of an account
/// is in effect.
const SETTLES_MS: u64 = 11_000;

/// How things stand with a device at the heal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    pub standing: Standing,
    /// Until when something that began before the heal may still end its session: what its stream
    /// still stalls, a change of its account that is not in effect everywhere, another device with
    /// its account.
    pub hurt_until_ms: u64,
    /// What it takes at least to send what is not acknowledged, a window at a time.
    pub backlog_ms: u64,
}

/// How things stand with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A session that both sides have, and nothing wrong with what joins them.
    Whole,
    /// It believes that it is attached; it will notice that it is not, at the latest then.
    Deaf { notices_at_ms: u64 },
    /// It knows that it has to come back.
    Away,
    /// It will not come back, and nobody waits for it.
    Gone,
}

/// What a device tells of itself.
#[derive(Clone, Debug, Default)]
struct Device {
    /// Failed tries in a row.
    attempt: u32,
    attached_at_ms: Option<u64>,
    /// Since when it has been without a session, and how many tries had failed before.
    away: Option<(u64, u32)>,
    /// The longest that the present wait, or the next after one more failure, can take.
    step_ms: u64,
    /// Since it was attached last it was told how long to stay away, or that it is not wanted.
    is_sent_away: bool,
    is_at_rest: bool,
    /// At the heal it had not noticed that its session was gone.
    is_deaf: bool,
    /// The last answer to a login was that its clock is off.
    is_skewed: bool,
    /// From the heal on.
    healed: Option<Healed>,
}

/// What a device may still meet of what was before the heal.
#[derive(Clone, Copy, Debug)]
struct Healed {
    loses_until_ms: u64,
    settles_ms: u64,
    backlog_ms: u64,
    /// Its clock was set by a conn server whose own was wrong. The right one sets it once more, and
    /// of two in a row the contract has it back off from the second.
    may_be_skewed: bool,
    /// That has happened: the wait that comes now counts from here.
    waits_for_skew: bool,
}

impl Device {
    fn step_limit_ms(&self) -> u64 {
        (STEP_MS << self.attempt.min(9)).min(STEP_MS_MAX)
    }
}

#[derive(Debug)]
pub(super) struct Recovery {
    devices: Vec<Device>,
    healed_at_ms: Option<u64>,
    /// When the store last refused a record: until it has found the last one, faults go on.
    refused_at_ms: u64,
    /// Of devices that have still to attach or to come to rest.
    due: BTreeSet<(u64, usize)>,
}

impl Recovery {
    pub(super) fn new(devices: usize) -> Self {
        Self {
            devices: vec![Device::default(); devices],
            healed_at_ms: None,
            refused_at_ms: 0,
            due: BTreeSet::new(),
        }
    }

    /// A device tells what happened to it.
    pub(super) fn told(&mut self, index: usize, told: &Event, now_ms: u64) -> Result<(), Broken> {
        let device = &mut self.devices[index];
        match told {
            Event::Waits { ms, why } => {
                let ms = *ms;
                let (least_ms, most_ms) = match why {
                    Wait::Told => (0, TOLD_MS_MAX),
                    Wait::Backoff => (0, device.step_limit_ms()),
                    Wait::Longest => (STEP_MS_MAX / 2, STEP_MS_MAX),
                    Wait::Overloaded => return Ok(()),
                };
                if ms < least_ms || ms > most_ms {
                    return Err(Broken::new(
                        "contract, section 5",
                        format_args!(
                            "device {index} waits {ms} ms ({why:?}) after {} failed tries",
                            device.attempt
                        ),
                    ));
                }
                device.step_ms = match why {
                    Wait::Told => ms,
                    _ => most_ms,
                };
                let step_ms = device.step_ms;
                device.is_sent_away |= matches!(why, Wait::Told | Wait::Longest);
                if *why != Wait::Told {
                    device.attempt = device.attempt.saturating_add(1);
                }
                if let Some(healed) = &mut device.healed {
                    // Whether it is wanted again shows after its longest wait only.
                    let is_unwanted = *why == Wait::Longest && now_ms <= healed.settles_ms;
                    if std::mem::take(&mut healed.waits_for_skew) || is_unwanted {
                        self.expect(index, now_ms + step_ms + ATTACHED_WITHIN_MS);
                    }
                }
                Ok(())
            }
            Event::LoginAnswered { status, .. } => {
                device.is_skewed = *status == LoginStatus::ClockSkew;
                if let Some(healed) = &mut device.healed {
                    healed.waits_for_skew = device.is_skewed && healed.may_be_skewed;
                    healed.may_be_skewed = device.is_skewed && now_ms <= healed.settles_ms;
                }
                Ok(())
            }
            Event::AttachAnswered {
                status: AttachStatus::Ok,
                ..
            } => {
                device.attached_at_ms = Some(now_ms);
                device.away = None;
                device.is_sent_away = false;
                let backlog_ms = device.healed.map_or(0, |healed| healed.backlog_ms);
                self.expect(index, now_ms + ACKNOWLEDGED_WITHIN_MS + backlog_ms);
                Ok(())
            }
            Event::Ended { .. } | Event::Restarted { .. } => self.lost(index, told, now_ms),
            _ => Ok(()),
        }
    }

    fn lost(&mut self, index: usize, told: &Event, now_ms: u64) -> Result<(), Broken> {
        let device = &mut self.devices[index];
        device.is_deaf = false;
        if let Some(attached_at_ms) = device.attached_at_ms.take() {
            if now_ms >= attached_at_ms + SETTLED_MS {
                device.attempt = 0;
            }
            device.away = Some((now_ms, device.attempt));
            device.step_ms = device.step_limit_ms();
        }
        let Some(healed) = device.healed else {
            return Ok(());
        };
        // One that starts again was told to.
        let was_told = matches!(
            told,
            Event::Restarted { .. }
                | Event::Ended {
                    why: Fault::Restarted
                }
        );
        if now_ms > healed.loses_until_ms && !was_told {
            return Err(Broken::new(
                "L2",
                format_args!("device {index} lost its session long after the heal: {told:?}"),
            ));
        }
        let due_ms = now_ms + device.step_limit_ms() + ATTACHED_WITHIN_MS;
        self.expect(index, due_ms);
        Ok(())
    }

    /// Whether it is attached and waits for no acknowledgement.
    pub(super) fn rests(&mut self, index: usize, is_at_rest: bool) {
        let device = &mut self.devices[index];
        device.is_at_rest = is_at_rest;
        if is_at_rest && !device.is_deaf {
            self.due.retain(|(_, other)| *other != index);
        }
    }

    /// Everything stands again.
    pub(super) fn healed(&mut self, now_ms: u64, situation: impl Fn(usize) -> Situation) {
        self.healed_at_ms = Some(now_ms);
        for index in 0..self.devices.len() {
            let Situation {
                standing,
                hurt_until_ms,
                backlog_ms,
            } = situation(index);
            let hurt_until_ms = hurt_until_ms.max(now_ms);
            let device = &mut self.devices[index];
            let attached_due_ms = match standing {
                Standing::Whole => hurt_until_ms,
                Standing::Gone => continue,
                Standing::Deaf { notices_at_ms } => {
                    now_ms.max(notices_at_ms) + device.step_limit_ms() + ATTACHED_WITHIN_MS
                }
                Standing::Away => {
                    let was_short = device.away.is_some_and(|(since_ms, failed)| {
                        failed == 0 && !device.is_sent_away && now_ms - since_ms < SHORT_FAULT_MS
                    });
                    // What it waits at present, or the step after the try that is under way.
                    let step_ms = if was_short {
                        0
                    } else {
                        device.step_ms.max(device.step_limit_ms())
                    };
                    now_ms + step_ms + ATTACHED_WITHIN_MS
                }
            };
            device.healed = Some(Healed {
                loses_until_ms: attached_due_ms,
                settles_ms: hurt_until_ms.max(now_ms + SETTLES_MS),
                backlog_ms,
                may_be_skewed: device.is_skewed,
                waits_for_skew: false,
            });
            device.is_deaf = matches!(standing, Standing::Deaf { .. });
            let is_at_rest = device.is_at_rest;
            match standing {
                Standing::Whole if is_at_rest => {}
                Standing::Whole => {
                    self.expect(index, hurt_until_ms + ACKNOWLEDGED_WITHIN_MS + backlog_ms);
                }
                Standing::Deaf { .. } | Standing::Away => self.expect(index, attached_due_ms),
                Standing::Gone => {}
            }
        }
    }

    /// Nothing is expected of any device any more.
    pub(super) fn is_over(&self) -> bool {
        self.healed_at_ms.is_some() && self.due.is_empty()
    }

    /// The store refused a write for what is in it.
    pub(super) fn refused(&mut self, now_ms: u64) {
        self.refused_at_ms = now_ms;
    }

    pub(super) fn check(&mut self, now_ms: u64) -> Result<(), Broken> {
        let Some((due_ms, index)) = self.due.first().copied() else {
            return Ok(());
        };
        if now_ms <= due_ms {
            return Ok(());
        }
        let device = &self.devices[index];
        let put_off_ms = self.refused_at_ms + ACKNOWLEDGED_WITHIN_MS;
        if device.attached_at_ms.is_some() && put_off_ms >= now_ms {
            self.expect(index, put_off_ms);
            return Ok(());
        }
        let is_what = match device.attached_at_ms {
            Some(at_ms) => format!("has records unacknowledged, attached at {at_ms} ms"),
            None => format!("is not attached, {} failed tries", device.attempt),
        };
        Err(Broken::new(
            "L2",
            format_args!(
                "device {index} {is_what}, all stands since {} ms",
                self.healed_at_ms.unwrap_or_default()
            ),
        ))
    }

    /// Before the heal nothing is expected, and never of one that is gone.
    fn expect(&mut self, index: usize, due_ms: u64) {
        if self.devices[index].healed.is_some() {
            self.due.retain(|(_, other)| *other != index);
            self.due.insert((due_ms, index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Event = Event::AttachAnswered {
        status: AttachStatus::Ok,
        resumed: false,
    };
    const LOST: Event = Event::Ended { why: Fault::Lost };

    fn one() -> Recovery {
        Recovery::new(1)
    }

    /// Nothing that began before the heal hurts it any more.
    fn only(standing: Standing) -> impl Fn(usize) -> Situation {
        move |_| Situation {
            standing,
            hurt_until_ms: 0,
            backlog_ms: 0,
        }
    }

    fn backoff(ms: u64) -> Event {
        Event::Waits {
            ms,
            why: Wait::Backoff,
        }
    }

    /// When the check fails first, if it held before.
    fn due_at(recovery: &mut Recovery) -> Option<u64> {
        let due_ms = recovery.due.first().map(|(due_ms, _)| *due_ms)?;
        assert!(recovery.check(due_ms).is_ok());
        assert!(recovery.check(due_ms + 1).is_err());
        Some(due_ms)
    }

    #[test]
    fn a_wait_is_held_to_the_number_of_failed_tries() {
        let mut recovery = one();
        assert!(recovery.told(0, &backoff(1_000), 0).is_ok());
        assert!(recovery.told(0, &backoff(2_000), 0).is_ok());
        assert!(recovery.told(0, &backoff(4_001), 0).is_err());
        // A minute attached: the next failure is the first.
        let mut recovery = one();
        (0..5).for_each(|_| assert!(recovery.told(0, &backoff(5), 0).is_ok()));
        assert!(recovery.told(0, &OK, 10).is_ok());
        assert!(recovery.told(0, &LOST, 60_010).is_ok());
        assert!(recovery.told(0, &backoff(1_001), 60_010).is_err());
    }

    #[test]
    fn after_a_long_fault_a_device_has_its_longest_step_and_a_minute() {
        let mut recovery = one();
        assert!(recovery.told(0, &OK, 0).is_ok());
        assert!(recovery.told(0, &LOST, 100_000).is_ok());
        for ms in [900, 1_500, 3_000, 7_000] {
            assert!(recovery.told(0, &backoff(ms), 100_000).is_ok());
        }
        recovery.healed(120_000, only(Standing::Away));
        // The wait of 8 s is under way; the step after one more failure would be 16 s.
        assert_eq!(due_at(&mut recovery), Some(120_000 + 16_000 + 60_000));
        // Attached, it has a minute for what is not acknowledged.
        assert!(recovery.told(0, &OK, 130_000).is_ok());
        assert_eq!(due_at(&mut recovery), Some(190_000));
        assert!(!recovery.is_over());
        recovery.rests(0, true);
        assert!(recovery.is_over());
    }

    #[test]
    fn after_a_short_fault_it_has_a_minute() {
        let mut recovery = one();
        assert!(recovery.told(0, &OK, 0).is_ok());
        assert!(recovery.told(0, &LOST, 100_000).is_ok());
        assert!(recovery.told(0, &backoff(800), 100_000).is_ok());
        recovery.healed(109_000, only(Standing::Away));
        assert_eq!(due_at(&mut recovery), Some(169_000));
    }

    #[test]
    fn one_that_was_sent_away_has_its_wait_however_short_the_fault() {
        let mut recovery = one();
        assert!(recovery.told(0, &OK, 0).is_ok());
        assert!(recovery.told(0, &LOST, 100_000).is_ok());
        let longest = Event::Waits {
            ms: 242_127,
            why: Wait::Longest,
        };
        assert!(recovery.told(0, &longest, 100_000).is_ok());
        recovery.healed(104_000, only(Standing::Away));
        assert_eq!(due_at(&mut recovery), Some(104_000 + 300_000 + 60_000));
    }

    #[test]
    fn while_the_store_still_finds_records_that_it_refuses_nobody_is_late() {
        let mut recovery = one();
        recovery.healed(0, only(Standing::Away));
        assert!(recovery.told(0, &OK, 5_000).is_ok());
        recovery.refused(30_000);
        assert!(recovery.check(65_001).is_ok());
        assert_eq!(due_at(&mut recovery), Some(90_000));
        // Whoever is not attached does not wait for the store.
        let mut recovery = one();
        recovery.healed(0, only(Standing::Away));
        recovery.refused(60_500);
        assert_eq!(due_at(&mut recovery), Some(61_000));
    }

    #[test]
    fn one_that_is_deaf_has_until_it_notices() {
        let mut recovery = one();
        assert!(recovery.told(0, &OK, 0).is_ok());
        recovery.rests(0, true);
        recovery.healed(
            100_000,
            only(Standing::Deaf {
                notices_at_ms: 115_000,
            }),
        );
        assert_eq!(due_at(&mut recovery), Some(115_000 + 1_000 + 60_000));
        assert!(recovery.told(0, &LOST, 112_000).is_ok());
        assert_eq!(due_at(&mut recovery), Some(173_000));
    }

    #[test]
    fn until_what_began_before_the_heal_is_over_a_session_may_be_lost() {
        let hurt = |_| Situation {
            standing: Standing::Whole,
            hurt_until_ms: 105_000,
            backlog_ms: 0,
        };
        let mut recovery = one();
        assert!(recovery.told(0, &OK, 0).is_ok());
        recovery.rests(0, true);
        recovery.healed(100_000, hurt);
        assert!(recovery.told(0, &LOST, 105_000).is_ok());
        assert_eq!(due_at(&mut recovery), Some(105_000 + 1_000 + 60_000));
        let mut recovery = one();
        assert!(recovery.told(0, &OK, 0).is_ok());
        recovery.healed(100_000, hurt);
        assert!(recovery.told(0, &LOST, 105_001).is_err());
    }

    #[test]
    fn of_one_that_is_gone_nothing_is_expected() {
        let mut recovery = one();
        recovery.healed(0, only(Standing::Gone));
        assert!(recovery.told(0, &OK, 5_000).is_ok());
        assert!(recovery.told(0, &LOST, 6_000).is_ok());
        assert_eq!(due_at(&mut recovery), None);
    }

    #[test]
    fn one_that_restarts_was_told_to() {
        let mut recovery = one();
        assert!(recovery.told(0, &OK, 0).is_ok());
        recovery.rests(0, true);
        recovery.healed(100_000, only(Standing::Whole));
        let restarts = Event::Ended {
            why: Fault::Restarted,
        };
        assert!(recovery.told(0, &restarts, 150_000).is_ok());
        assert_eq!(due_at(&mut recovery), Some(150_000 + 1_000 + 60_000));
    }

    #[test]
    fn who_is_told_soon_after_the_heal_that_it_is_unwanted_has_its_longest_wait() {
        let longest = Event::Waits {
            ms: 200_000,
            why: Wait::Longest,
        };
        let mut recovery = one();
        recovery.healed(0, only(Standing::Away));
        assert!(recovery.told(0, &longest, 11_000).is_ok());
        assert_eq!(due_at(&mut recovery), Some(11_000 + 300_000 + 60_000));
        let mut recovery = one();
        recovery.healed(0, only(Standing::Away));
        assert!(recovery.told(0, &longest, 11_001).is_ok());
        assert_eq!(due_at(&mut recovery), Some(1_000 + 60_000));
    }

    #[test]
    fn a_clock_that_was_set_wrong_before_the_heal_costs_one_more_step() {
        let skewed = Event::LoginAnswered {
            status: LoginStatus::ClockSkew,
            after_ms: 5,
        };
        let mut recovery = one();
        assert!(recovery.told(0, &skewed, 0).is_ok());
        recovery.healed(10_000, only(Standing::Away));
        assert!(recovery.told(0, &skewed, 40_000).is_ok());
        assert!(recovery.told(0, &backoff(900), 40_000).is_ok());
        assert_eq!(due_at(&mut recovery), Some(40_000 + 1_000 + 60_000));
        // By then its clock is right.
        assert!(recovery.told(0, &skewed, 41_000).is_ok());
        assert!(recovery.told(0, &backoff(900), 41_000).is_ok());
        assert_eq!(due_at(&mut recovery), Some(40_000 + 1_000 + 60_000));
        // Whose clock was not set wrong before has no such step.
        let mut recovery = one();
        recovery.healed(10_000, only(Standing::Away));
        assert!(recovery.told(0, &skewed, 40_000).is_ok());
        assert!(recovery.told(0, &backoff(900), 40_000).is_ok());
        assert_eq!(due_at(&mut recovery), Some(10_000 + 1_000 + 60_000));
    }

    #[test]
    fn what_it_has_kept_is_acknowledged_as_fast_as_it_sends_it() {
        let mut recovery = one();
        recovery.healed(0, |_| Situation {
            standing: Standing::Away,
            hurt_until_ms: 0,
            backlog_ms: 7_000,
        });
        assert!(recovery.told(0, &OK, 5_000).is_ok());
        assert_eq!(due_at(&mut recovery), Some(5_000 + 60_000 + 7_000));
    }

    #[test]
    fn a_session_that_is_lost_when_all_should_be_well_is_an_error() {
        let mut recovery = one();
        assert!(recovery.told(0, &OK, 0).is_ok());
        recovery.rests(0, true);
        recovery.healed(100_000, only(Standing::Whole));
        assert!(recovery.is_over());
        assert!(recovery.told(0, &LOST, 100_001).is_err());
    }
}
