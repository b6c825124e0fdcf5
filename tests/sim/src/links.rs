//! The fake links between the tiers: messages in order, later or never.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use common::epoch::Epoch;
use common::link::LinkId;
use common::link::message::Message;
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
    is_broken: bool,
    /// Which ends were told that it stands, and not yet that it is broken.
    is_up: [bool; 2],
}

/// A mail at its time.
#[derive(Debug)]
pub struct Delivery {
    pub at_ms: u64,
    pub link: LinkId,
    pub to: Process,
    pub mail: LinkMail,
}

/// A broken link is noticed within the silence that makes a peer a dead one.
const NOTICED_MS: RangeInclusive<u64> = 0..=3_000;

#[derive(Debug)]
pub struct Links {
    delay_ms: RangeInclusive<u64>,
    rng: SmallRng,
    next: u64,
    links: BTreeMap<LinkId, Link>,
    /// The highest epoch that each process made or heard of: stamped on all it says.
    highest: BTreeMap<Process, Epoch>,
}

impl Links {
    pub fn new(delay_ms: RangeInclusive<u64>, rng: SmallRng) -> Self {
        Self {
            delay_ms,
            rng,
            next: 1,
            links: BTreeMap::new(),
            highest: BTreeMap::new(),
        }
    }

    pub fn heal(&mut self) {
        self.delay_ms = 0..=5;
    }

    pub fn connect(&mut self, ends: [Process; 2], now_ms: u64, deliveries: &mut Vec<Delivery>) {
        let link = LinkId(self.next);
        self.next += 1;
        self.links.insert(
            link,
            Link {
                ends,
                last_at_ms: [[0; 2]; 2],
                is_broken: false,
                is_up: [false; 2],
            },
        );
        for to in ends {
            self.schedule(link, to, LinkMail::Up, now_ms, deliveries);
        }
    }

    /// The link between two processes, if it stands.
    pub fn between(&self, a: Process, b: Process) -> Option<LinkId> {
        let mut links = self.links.iter();
        links
            .find(|(_, link)| !link.is_broken && (link.ends == [a, b] || link.ends == [b, a]))
            .map(|(id, _)| *id)
    }

    /// Whether the dialling end, which is the first, has no reason to dial: its link stands, or it
    /// has not noticed yet that it does not.
    pub fn is_dialled(&self, ends: [Process; 2]) -> bool {
        let mut links = self.links.values();
        links.any(|link| link.ends == ends && (!link.is_broken || link.is_up[0]))
    }

    /// Links that stand, in order.
    pub fn standing(&self) -> Vec<LinkId> {
        let standing = self.links.iter().filter(|(_, link)| !link.is_broken);
        standing.map(|(id, _)| *id).collect()
    }

    pub fn ends(&self, link: LinkId) -> Option<[Process; 2]> {
        self.links.get(&link).map(|link| link.ends)
    }

    pub fn other_end(&self, link: LinkId, than: Process) -> Option<Process> {
        self.ends(link)?.into_iter().find(|end| *end != than)
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
        let Some(ends) = self.ends(link) else { return };
        let to = if ends[0] == from { ends[1] } else { ends[0] };
        let epoch = self.highest(from);
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
        let Some(ends) = self.ends(link) else { return };
        for to in ends {
            let at_ms = now_ms + self.rng.random_range(NOTICED_MS);
            deliveries.push(Delivery {
                at_ms,
                link,
                to,
                mail: LinkMail::Down,
            });
        }
        if let Some(link) = self.links.get_mut(&link) {
            link.is_broken = true;
        }
    }

    /// Whether this mail is delivered: nothing passes a broken link but the news that it is broken.
    pub fn arrives(&mut self, link: LinkId, to: Process, mail: &LinkMail) -> bool {
        let Some(state) = self.links.get_mut(&link) else {
            return false;
        };
        let is_up = &mut state.is_up[usize::from(state.ends[1] == to)];
        match mail {
            LinkMail::Down => std::mem::replace(is_up, false),
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
        let receiver = usize::from(state.ends[1] == to);
        let last = &mut state.last_at_ms[receiver];
        // Control messages overtake bulk ones, and each class keeps its order. Up comes before both.
        let lanes: &[usize] = match &mail {
            LinkMail::Said { message, .. } if is_bulk(message) => &[1],
            LinkMail::Said { .. } => &[0],
            LinkMail::Up | LinkMail::Down => &[0, 1],
        };
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
        Message::Adopt(_) | Message::Attached(_) | Message::Ended(_)
    )
}
