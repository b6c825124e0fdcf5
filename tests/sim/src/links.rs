//! The fake links between the tiers: messages in order, later or never, and who dials whom when.
//!
//! A link is a TCP connection with an end in two processes. While the way from one end to the other
//! is blocked, what is said waits, as TCP does; the end that hears nothing for three seconds gives the
//! link up. A link that is given up or broken is noticed by each end in its own time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use common::epoch::Epoch;
use common::link::message::Message;
use common::link::{Dialler, LinkId, SILENT_MS_MAX, VERSION, VERSION_OLDEST, stamp};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::process::Process;

/// What a message is in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Request { id: u64, deadline_ms: u32 },
    Answer { id: u64 },
    Notice,
}

/// What arrives at an end of a link.
#[derive(Debug)]
pub enum LinkMail {
    Up,
    Down,
    Said {
        part: Part,
        message: Message,
        epoch: Epoch,
    },
}

#[derive(Debug)]
struct Link {
    ends: [Process; 2],
    /// When the last mail on its way arrives, by receiving end, for control and bulk.
    last_at_ms: [[u64; 2]; 2],
    /// What waits for its way to be open again, by receiving end.
    stalled: [Vec<LinkMail>; 2],
    is_broken: bool,
    broke_at_ms: Option<u64>,
    /// Which ends were told that it stands, and not yet that it is broken.
    is_up: [bool; 2],
    /// Which ends need not be told any more that it is broken: they were, or are dead.
    is_told: [bool; 2],
    since_ms: u64,
}

impl Link {
    fn side(&self, end: Process) -> usize {
        usize::from(self.ends[1] == end)
    }
}

/// A mail at its time.
#[derive(Debug)]
pub struct Delivery {
    pub at_ms: u64,
    pub link: LinkId,
    pub to: Process,
    pub mail: LinkMail,
}

/// How a process keeps a link to another one up.
#[derive(Debug)]
pub struct Dialling {
    dialler: Dialler,
    /// Of the present attempt; `None`: the last one became a link, or was given up.
    pub begun_ms: Option<u64>,
    /// The next knock has its time.
    pub waits: bool,
}

/// A broken link is noticed within the silence that makes a peer a dead one.
const NOTICED_MS: RangeInclusive<u64> = 0..=SILENT_MS_MAX;

/// What was stalled is sent again within so long after its way is open.
const SENT_AGAIN_MS: RangeInclusive<u64> = 0..=1_000;

#[derive(Debug)]
pub struct Links {
    delay_ms: RangeInclusive<u64>,
    rng: SmallRng,
    next: u64,
    links: BTreeMap<LinkId, Link>,
    /// From whom to whom nothing arrives, with the number of the cut that did it.
    blocked: BTreeMap<(Process, Process), u64>,
    diallings: BTreeMap<[Process; 2], Dialling>,
    /// The highest epoch that each process made or heard of: stamped on all it says.
    highest: BTreeMap<Process, Epoch>,
    /// The newest version of the link that each process speaks: clusters are upgraded node by node.
    versions: BTreeMap<Process, u16>,
}

impl Links {
    pub fn new(delay_ms: RangeInclusive<u64>, rng: SmallRng) -> Self {
        Self {
            delay_ms,
            rng,
            next: 1,
            links: BTreeMap::new(),
            blocked: BTreeMap::new(),
            diallings: BTreeMap::new(),
            highest: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    pub fn heal(&mut self) {
        self.delay_ms = 0..=5;
    }

    // ---- dialling -----------------------------------------------------------------------------

    /// The first process begins to keep a link to the second one.
    pub fn keep(&mut self, ends: [Process; 2]) {
        for end in ends {
            let drawn = self.rng.random_range(VERSION_OLDEST..=VERSION);
            self.versions.entry(end).or_insert(drawn);
        }
        let dialler = Dialler::new(self.rng.random());
        let dialling = Dialling {
            dialler,
            begun_ms: None,
            waits: false,
        };
        self.diallings.insert(ends, dialling);
    }

    pub fn dialling(&mut self, ends: [Process; 2]) -> Option<&mut Dialling> {
        self.diallings.get_mut(&ends)
    }

    /// How long the dialling end waits for its next attempt.
    pub fn next_wait_ms(&mut self, ends: [Process; 2]) -> u64 {
        let dialling = self.diallings.get_mut(&ends);
        dialling.map_or(0, |dialling| {
            dialling.begun_ms = None;
            dialling.dialler.next_wait_ms()
        })
    }

    /// An attempt has succeeded. Both ends hear of it when their part of the handshake is done.
    pub fn connect(&mut self, ends: [Process; 2], now_ms: u64, deliveries: &mut Vec<Delivery>) {
        let link = LinkId(self.next);
        self.next += 1;
        self.links.insert(
            link,
            Link {
                ends,
                last_at_ms: [[0; 2]; 2],
                stalled: [vec![], vec![]],
                is_broken: false,
                broke_at_ms: None,
                is_up: [false; 2],
                is_told: [false; 2],
                since_ms: now_ms,
            },
        );
        if let Some(dialling) = self.diallings.get_mut(&ends) {
            dialling.begun_ms = None;
        }
        for to in ends {
            self.schedule(link, to, LinkMail::Up, now_ms, deliveries);
        }
    }

    // ---- what stands --------------------------------------------------------------------------

    /// Whether a link stands between them, both know of it, and its way is open.
    pub fn stands(&self, a: Process, b: Process) -> bool {
        let stands = |link: &Link| {
            !link.is_broken
                && link.is_up == [true; 2]
                && (link.ends == [a, b] || link.ends == [b, a])
        };
        self.is_open(a, b) && self.links.values().any(stands)
    }

    /// Links that stand, in order.
    pub fn standing(&self) -> impl Iterator<Item = (LinkId, [Process; 2])> {
        let standing = self.links.iter().filter(|(_, link)| !link.is_broken);
        standing.map(|(id, link)| (*id, link.ends))
    }

    pub fn standing_of(&self, process: Process) -> Vec<(LinkId, [Process; 2])> {
        let of = |ends: &[Process; 2]| ends.contains(&process);
        self.standing().filter(|(_, ends)| of(ends)).collect()
    }

    pub fn is_standing(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| !link.is_broken)
    }

    /// Whether the dialling end, which is the first, has a link, as far as it knows.
    pub fn is_dialled(&self, ends: [Process; 2]) -> bool {
        let mut links = self.links.values();
        links.any(|link| link.ends == ends && (!link.is_broken || link.is_up[0]))
    }

    pub fn ends(&self, link: LinkId) -> Option<[Process; 2]> {
        self.links.get(&link).map(|link| link.ends)
    }

    pub fn other_end(&self, link: LinkId, than: Process) -> Option<Process> {
        self.ends(link)?.into_iter().find(|end| *end != than)
    }

    // ---- ways ---------------------------------------------------------------------------------

    /// Whether something passes from each of them to the other.
    pub fn is_open(&self, a: Process, b: Process) -> bool {
        !self.blocked.contains_key(&(a, b)) && !self.blocked.contains_key(&(b, a))
    }

    /// From now on nothing passes this way. False where it was blocked already.
    pub fn block(&mut self, from: Process, to: Process, cut: u64) -> bool {
        if self.blocked.contains_key(&(from, to)) {
            return false;
        }
        self.blocked.insert((from, to), cut);
        true
    }

    /// Which cut blocks this way.
    pub fn blocking(&self, from: Process, to: Process) -> Option<u64> {
        self.blocked.get(&(from, to)).copied()
    }

    /// What this cut blocked is open again: TCP sends again what had no answer.
    pub fn unblock(&mut self, cut: u64, now_ms: u64, deliveries: &mut Vec<Delivery>) {
        let open: BTreeSet<_> = self
            .blocked
            .extract_if(.., |_, blocking| *blocking == cut)
            .map(|(way, _)| way)
            .collect();
        let mut again = vec![];
        for (id, link) in &mut self.links {
            for side in 0..2 {
                let (from, to) = (link.ends[1 - side], link.ends[side]);
                if open.contains(&(from, to)) {
                    let mails = std::mem::take(&mut link.stalled[side]);
                    again.extend(mails.into_iter().map(|mail| (*id, to, mail)));
                }
            }
        }
        let at_ms = now_ms + self.rng.random_range(SENT_AGAIN_MS);
        for (link, to, mail) in again {
            self.schedule(link, to, mail, at_ms, deliveries);
        }
    }

    /// Every cut that is not over.
    pub fn cuts(&self) -> BTreeSet<u64> {
        self.blocked.values().copied().collect()
    }

    // ---- messages -----------------------------------------------------------------------------

    /// When it broke. One that nobody knows of any more broke long ago.
    pub fn broke_at_ms(&self, link: LinkId) -> Option<u64> {
        self.links.get(&link).map_or(Some(0), |it| it.broke_at_ms)
    }

    /// What two processes speak with one another.
    pub fn version(&self, one: Process, other: Process) -> u16 {
        let of = |process| self.versions.get(&process).copied().unwrap_or(VERSION);
        of(one).min(of(other))
    }

    pub fn say(
        &mut self,
        link: LinkId,
        from: Process,
        part: Part,
        message: Message,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) {
        let Some(to) = self.other_end(link, from) else {
            return;
        };
        let version = self.version(from, to);
        let message = message.to_version(version);
        assert!(
            message.since_version() <= version,
            "{to} does not know {message:?}"
        );
        let message = message.renewed();
        let highest = self.highest(from);
        // No clock here is wrong by a day: what counts is who says it.
        let epoch = stamp::counts(from.role(), highest, highest.unix_ms()).unwrap_or_default();
        self.schedule(
            link,
            to,
            LinkMail::Said {
                part,
                message,
                epoch,
            },
            now_ms,
            deliveries,
        );
    }

    /// What is under way is lost; each end notices in its own time.
    pub fn cut(&mut self, link: LinkId, now_ms: u64, deliveries: &mut Vec<Delivery>) {
        for to in self.ends(link).into_iter().flatten() {
            let at_ms = now_ms + self.rng.random_range(NOTICED_MS);
            self.down(link, to, [now_ms, at_ms], deliveries);
        }
    }

    /// One end takes the other for dead, which hears of it where its way is open.
    pub fn give_up(
        &mut self,
        link: LinkId,
        by: Process,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) {
        self.down(link, by, [now_ms; 2], deliveries);
        if let Some(other) = self.other_end(link, by) {
            let at_ms = now_ms + self.rng.random_range(NOTICED_MS);
            self.down(link, other, [now_ms, at_ms], deliveries);
        }
    }

    fn down(
        &mut self,
        link: LinkId,
        to: Process,
        [now_ms, at_ms]: [u64; 2],
        deliveries: &mut Vec<Delivery>,
    ) {
        if let Some(link) = self.links.get_mut(&link) {
            link.is_broken = true;
            link.broke_at_ms.get_or_insert(now_ms);
            link.stalled = [vec![], vec![]];
        }
        deliveries.push(Delivery {
            at_ms,
            link,
            to,
            mail: LinkMail::Down,
        });
    }

    /// Whether this mail is delivered: nothing passes a broken link but the news that it is broken.
    pub fn arrives(&mut self, link: LinkId, to: Process, mail: &LinkMail, now_ms: u64) -> bool {
        let Some(state) = self.links.get_mut(&link) else {
            return false;
        };
        let side = state.side(to);
        let is_up = &mut state.is_up[side];
        match mail {
            LinkMail::Down => {
                let was_up = std::mem::replace(is_up, false);
                state.is_told[side] = true;
                let (ends, lasted_ms) = (state.ends, now_ms - state.since_ms);
                if ends[0] == to
                    && let Some(dialling) = self.diallings.get_mut(&ends)
                {
                    dialling.dialler.lost(lasted_ms);
                }
                // The dialling end may not have heard yet that it ever stood: it has to dial again.
                if state.is_broken && state.is_told == [true; 2] {
                    self.links.remove(&link);
                }
                was_up
            }
            LinkMail::Up => {
                *is_up = !state.is_broken;
                *is_up
            }
            LinkMail::Said { epoch, .. } => {
                let arrives = !state.is_broken && *is_up;
                if arrives {
                    self.observe(to, *epoch);
                }
                arrives
            }
        }
    }

    pub fn observe(&mut self, end: Process, epoch: Epoch) {
        let highest = self.highest.entry(end).or_default();
        *highest = (*highest).max(epoch);
    }

    pub fn highest(&self, end: Process) -> Epoch {
        self.highest.get(&end).copied().unwrap_or_default()
    }

    /// A process died: it remembers no epoch and hears of no old link.
    pub fn forget(&mut self, end: Process) {
        self.highest.remove(&end);
        for link in self.links.values_mut() {
            for side in 0..2 {
                link.is_up[side] &= link.ends[side] != end;
                link.is_told[side] |= link.ends[side] == end;
            }
        }
    }

    fn schedule(
        &mut self,
        link: LinkId,
        to: Process,
        mail: LinkMail,
        now_ms: u64,
        deliveries: &mut Vec<Delivery>,
    ) {
        let delay_ms = self.rng.random_range(self.delay_ms.clone());
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        let side = state.side(to);
        if state.is_broken {
            return;
        }
        if self.blocked.contains_key(&(state.ends[1 - side], to)) {
            state.stalled[side].push(mail);
            return;
        }
        // Control messages overtake bulk ones, and each class keeps its order. Up comes before both.
        let lanes: &[usize] = match &mail {
            LinkMail::Said { message, .. } if is_bulk(message) => &[1],
            LinkMail::Said { .. } => &[0],
            LinkMail::Up | LinkMail::Down => &[0, 1],
        };
        let last = &mut state.last_at_ms[side];
        let mut at_ms = now_ms + delay_ms;
        for lane in lanes {
            at_ms = at_ms.max(last[*lane]);
        }
        for lane in lanes {
            last[*lane] = at_ms;
        }
        deliveries.push(Delivery {
            at_ms,
            link,
            to,
            mail,
        });
    }
}

/// As the real link has it.
fn is_bulk(message: &Message) -> bool {
    matches!(
        message,
        Message::Adopt(_)
            | Message::Attached(_)
            | Message::Ended(_)
            | Message::SessionPage(_)
            | Message::SessionsAnswer(_)
            | Message::Figures(_)
            | Message::NodesAnswer(_)
    )
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_link_that_breaks_before_its_dialler_heard_of_it_is_known_until_it_has() {
        let ends = [Process::balancer(0), Process::conn(0)];
        let mut links = Links::new(0..=5, SmallRng::seed_from_u64(1));
        links.connect(ends, 0, &mut vec![]);
        let (link, _) = links.standing().next().expect("it stands");
        assert!(links.arrives(link, ends[1], &LinkMail::Up, 1));
        links.cut(link, 2, &mut vec![]);
        assert!(links.arrives(link, ends[1], &LinkMail::Down, 3));
        assert_eq!(links.ends(link), Some(ends));
        assert!(!links.arrives(link, ends[0], &LinkMail::Down, 4));
        assert_eq!(links.ends(link), None);
    }
}
