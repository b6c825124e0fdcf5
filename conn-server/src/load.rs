//! Pure. What balancers are told of this conn server's load: on change, but not for every login,
//! and each second.

use common::link::LinkId;
use common::link::message::ConnLoad;

use crate::effect::Effect;

/// Changes within this time are told as one.
const COALESCED_MS: u64 = 50;
const REPEATED_MS: u64 = 1_000;

/// The balancers that are linked, and what they know.
#[derive(Debug, Default)]
pub struct Bulletin {
    readers: Vec<LinkId>,
    told: ConnLoad,
    told_at_ms: u64,
    /// Something happened since that may have changed the load.
    news: bool,
}

impl Bulletin {
    /// Balancers that are linked.
    pub fn readers(&self) -> usize {
        self.readers.len()
    }

    /// A balancer is told at once.
    pub fn join(&mut self, link: LinkId, load: ConnLoad, effects: &mut Vec<Effect>) {
        self.readers.push(link);
        effects.push(notice(link, load));
    }

    pub fn leave(&mut self, link: LinkId) {
        self.readers.retain(|reader| *reader != link);
    }

    pub fn something_happened(&mut self) {
        self.news = true;
    }

    /// When [`Bulletin::publish`] has something to do.
    pub fn due_ms(&self) -> u64 {
        let wait_ms = if self.news { COALESCED_MS } else { REPEATED_MS };
        self.told_at_ms + wait_ms
    }

    pub fn publish(&mut self, load: ConnLoad, now_ms: u64, effects: &mut Vec<Effect>) {
        if now_ms < self.due_ms() {
            return;
        }
        self.news = false;
        if load == self.told && now_ms < self.told_at_ms + REPEATED_MS {
            return;
        }
        self.told = load;
        self.told_at_ms = now_ms;
        effects.extend(self.readers.iter().map(|link| notice(*link, load)));
    }
}

fn notice(link: LinkId, load: ConnLoad) -> Effect {
    Effect::Notice {
        link,
        message: load.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(places_free: u32) -> ConnLoad {
        ConnLoad {
            places_free,
            ..ConnLoad::default()
        }
    }

    /// When, and how much, one balancer is told while the load changes each millisecond until `busy_ms`.
    fn told(busy_ms: u64, until_ms: u64) -> Vec<(u64, u32)> {
        let mut bulletin = Bulletin::default();
        let mut effects = Vec::new();
        bulletin.join(LinkId(1), load(0), &mut effects);
        let mut told = vec![];
        for now_ms in 1_000..until_ms {
            let free = u32::try_from(now_ms.min(busy_ms)).unwrap_or_default();
            if now_ms <= busy_ms {
                bulletin.something_happened();
            }
            effects.clear();
            bulletin.publish(load(free), now_ms, &mut effects);
            for effect in &effects {
                let Effect::Notice { message, .. } = effect else {
                    panic!("{effect:?}");
                };
                assert_eq!(*message, load(free).into());
                told.push((now_ms, free));
            }
        }
        told
    }

    #[test]
    fn changes_are_told_soon_and_together() {
        let told = told(1_500, 1_600);
        assert_eq!(told.len(), 11, "{told:?}");
        assert!(told.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 50));
        assert_eq!(told.last(), Some(&(1_500, 1_500)));
    }

    #[test]
    fn a_quiet_load_is_told_each_second() {
        let told = told(1_000, 5_500);
        let at: Vec<_> = told.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, [1_000, 2_000, 3_000, 4_000, 5_000]);
    }
}
