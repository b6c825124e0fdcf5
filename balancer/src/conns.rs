//! Pure. The conn servers: which are linked, what they say of their load, which one is next.
//!
//! Loads are reports of a moment ago. What was forwarded since counts as if it took a place, so
//! that a storm between two reports does not all go to the one that was least loaded.

use std::cmp::Reverse;

use common::config::Policy;
use common::link::LinkId;
use common::link::message::ConnLoad;

/// Where a login goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    pub link: LinkId,
    /// It has no place free, as far as is known: nobody else has one either.
    pub at_full: bool,
}

#[derive(Debug)]
pub struct Conns {
    policy: Policy,
    linked: Vec<Conn>,
}

#[derive(Debug)]
struct Conn {
    link: LinkId,
    /// Its place in the configuration.
    order: usize,
    /// `None`: it has not said yet.
    load: Option<ConnLoad>,
    /// It answered `full` since its last report.
    answered_full: bool,
    forwarded_since_report: u32,
    /// It left a login without an answer, and has said nothing since.
    unresponsive: bool,
}

/// What speaks against a conn server; the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Room,
    /// It has not reported yet.
    Unheard,
    Full,
    Unresponsive,
}

impl Conn {
    fn standing(&self) -> Standing {
        if self.unresponsive {
            Standing::Unresponsive
        } else if self.answered_full || self.load.is_some_and(|load| load.places_free == 0) {
            Standing::Full
        } else if self.load.is_none() {
            Standing::Unheard
        } else {
            Standing::Room
        }
    }

    /// The share of places in use, in parts of 2^16, so that it can be compared exactly.
    fn used_share(&self) -> u64 {
        let load = self.load.unwrap_or_default();
        let forwarded = u64::from(self.forwarded_since_report);
        let used = u64::from(load.places_max.saturating_sub(load.places_free)) + forwarded;
        // Without places it is the last choice even among full ones: there is none to take over.
        (used << 16)
            .checked_div(load.places_max.into())
            .unwrap_or(u64::MAX)
    }
}

impl Conns {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            linked: Vec::new(),
        }
    }

    /// A link to the conn server that stands at `order` in the configuration.
    pub fn up(&mut self, link: LinkId, order: usize) {
        self.linked.push(Conn {
            link,
            order,
            load: None,
            answered_full: false,
            forwarded_since_report: 0,
            unresponsive: false,
        });
    }

    pub fn down(&mut self, link: LinkId) {
        self.linked.retain(|conn| conn.link != link);
    }

    pub fn report(&mut self, link: LinkId, load: ConnLoad) {
        if let Some(conn) = self.find(link) {
            conn.load = Some(load);
            conn.answered_full = false;
            conn.forwarded_since_report = 0;
            conn.unresponsive = false;
        }
    }

    pub fn answered(&mut self, link: LinkId, full: bool) {
        if let Some(conn) = self.find(link) {
            conn.answered_full |= full;
            conn.unresponsive = false;
        }
    }

    pub fn timed_out(&mut self, link: LinkId) {
        if let Some(conn) = self.find(link) {
            conn.unresponsive = true;
        }
    }

    pub fn forwarded(&mut self, link: LinkId) {
        if let Some(conn) = self.find(link) {
            conn.forwarded_since_report = conn.forwarded_since_report.saturating_add(1);
        }
    }

    /// The next one, other than `except`. One without room, or without a sign of life, only where
    /// nobody else is.
    pub fn pick(&self, except: Option<LinkId>) -> Option<Pick> {
        let others = self.linked.iter().filter(|conn| Some(conn.link) != except);
        let best = others.min_by_key(|conn| {
            let share = match self.policy {
                Policy::LeastLoaded => conn.used_share(),
                Policy::Fill => 0,
            };
            (conn.standing(), share, conn.order, Reverse(conn.link))
        })?;
        Some(Pick {
            link: best.link,
            at_full: best.standing() == Standing::Full,
        })
    }

    /// Whether one other than `except` is known to have room.
    pub fn has_room_besides(&self, except: LinkId) -> bool {
        let mut others = self.linked.iter().filter(|conn| conn.link != except);
        others.any(|conn| conn.standing() == Standing::Room)
    }

    pub fn len(&self) -> usize {
        self.linked.len()
    }

    pub fn is_empty(&self) -> bool {
        self.linked.is_empty()
    }

    /// By the reports of those that are linked.
    pub fn places_free(&self) -> u64 {
        let loads = self.linked.iter().filter_map(|conn| conn.load);
        loads.map(|load| u64::from(load.places_free)).sum()
    }

    fn find(&mut self, link: LinkId) -> Option<&mut Conn> {
        self.linked.iter_mut().find(|conn| conn.link == link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);
    const C: LinkId = LinkId(3);

    fn load(places_free: u32, places_max: u32) -> ConnLoad {
        ConnLoad {
            places_free,
            places_max,
            logins_open: 0,
        }
    }

    fn conns(policy: Policy, loads: &[(LinkId, ConnLoad)]) -> Conns {
        let mut conns = Conns::new(policy);
        for (order, &(link, load)) in loads.iter().enumerate() {
            conns.up(link, order);
            conns.report(link, load);
        }
        conns
    }

    fn picked(conns: &Conns) -> Option<LinkId> {
        conns.pick(None).map(|pick| pick.link)
    }

    #[test]
    fn least_loaded_is_by_share_and_counts_what_was_forwarded_since() {
        let mut conns = conns(
            Policy::LeastLoaded,
            &[(A, load(50, 100)), (B, load(600, 1_000)), (C, load(5, 10))],
        );
        let mut forwarded = [0; 3];
        for _ in 0..110 {
            let link = picked(&conns).expect("one");
            conns.forwarded(link);
            forwarded[link.0 as usize - 1] += 1;
        }
        // B takes 100 until it is at one half too; then they share by size.
        assert_eq!(forwarded, [1, 108, 1]);
        conns.report(B, load(1_000, 1_000));
        assert_eq!(picked(&conns), Some(B));
    }

    #[test]
    fn fill_takes_the_first_that_is_not_full() {
        let mut conns = conns(Policy::Fill, &[(A, load(1, 100)), (B, load(100, 100))]);
        assert_eq!(picked(&conns), Some(A));
        conns.report(A, load(0, 100));
        assert_eq!(picked(&conns), Some(B));
    }

    #[test]
    fn the_full_the_unheard_and_the_silent_are_passed_over_while_another_has_room() {
        let mut conns = conns(Policy::LeastLoaded, &[(A, load(5, 10)), (B, load(9, 10))]);
        conns.answered(B, true);
        assert_eq!(picked(&conns), Some(A), "B answered full");
        conns.report(B, load(9, 10));
        assert_eq!(picked(&conns), Some(B), "B reported room again");
        conns.timed_out(B);
        assert_eq!(picked(&conns), Some(A), "B is silent");
        conns.answered(B, false);
        assert_eq!(picked(&conns), Some(B), "B spoke");
        conns.down(B);
        conns.up(C, 1);
        assert_eq!(picked(&conns), Some(A), "C has not reported");
        conns.report(A, load(0, 10));
        assert_eq!(picked(&conns), Some(C), "A is full");
        conns.report(C, load(0, 0));
        assert_eq!(
            conns.pick(None),
            Some(Pick {
                link: A,
                at_full: true
            })
        );
        assert_eq!(conns.pick(Some(A)).map(|pick| pick.link), Some(C));
        conns.down(C);
        assert_eq!(conns.pick(Some(A)), None);
    }
}
