//! Pure. Pacing, not banning: how many may come in, by key and in all, and when the others shall
//! ask again.
//!
//! A [`Bucket`] is a token bucket in its shortest form (GCRA): one instant, the one at which it will
//! be full again. Beside it stands the end of a virtual queue: whoever is refused gets the next
//! place at the admitted rate and is told to come back then. Nobody's name is kept for that: who
//! comes back is judged like anybody else, and finds room because the others were sent to other instants.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Nobody is sent away for longer: as long as the longest step of the contract's backoff.
pub const WAIT_MS_MAX: u32 = 300_000;

/// Whoever comes back sooner costs more in connections than it wins.
const WAIT_MS_MIN: u32 = 100;

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;

/// So many a second on average, and so many at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// 0: no limit.
    pub per_s: u32,
    /// At least 1 counts, whatever it says.
    pub burst: u32,
}

impl Rate {
    pub const UNLIMITED: Self = Self { per_s: 0, burst: 0 };

    /// Between two at the average rate.
    fn interval_ns(self) -> u64 {
        NS_PER_S.checked_div(self.per_s.into()).unwrap_or(0)
    }

    /// How far ahead of the average rate a burst may run.
    fn tolerance_ns(self) -> u64 {
        self.interval_ns() * u64::from(self.burst.saturating_sub(1))
    }
}

/// Full when new. 16 bytes, so that one for every source is affordable.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at_ns: u64,
    /// The last place given in the virtual queue; in the past when nobody waits.
    queue_end_ns: u64,
}

impl Bucket {
    pub fn has_room(&self, rate: Rate, now: u64) -> bool {
        self.next_room_ns(rate) <= now * NS_PER_MS
    }

    /// Takes a token whether or not there is one.
    pub fn take(&mut self, rate: Rate, now: u64) {
        self.full_at_ns = self.full_at_ns.max(now * NS_PER_MS) + rate.interval_ns();
    }

    /// The next place in the queue, as a wait in milliseconds from now.
    pub fn queue(&mut self, rate: Rate, now: u64) -> u32 {
        let now_ns = now * NS_PER_MS;
        let last_ns = now_ns + u64::from(WAIT_MS_MAX) * NS_PER_MS;
        self.queue_end_ns = (self.queue_end_ns + rate.interval_ns())
            .max(self.next_room_ns(rate))
            .clamp(now_ns, last_ns);
        let wait_ms = (self.queue_end_ns - now_ns).div_ceil(NS_PER_MS);
        u32::try_from(wait_ms).unwrap_or(WAIT_MS_MAX)
    }

    fn next_room_ns(&self, rate: Rate) -> u64 {
        self.full_at_ns.saturating_sub(rate.tolerance_ns())
    }
}

/// A bucket for each key, in bounded memory.
///
/// ```text
/// take ──▶ young ──turn──▶ old ──turn──▶ forgotten
///            ▲──── used again ────┘
/// ```
///
/// A turn comes after the time in which an empty bucket fills, so that an idle one is forgotten
/// without loss. Under a flood of keys it comes sooner, and then debts of keys that were quiet
/// meanwhile are forgiven: for that the limit in all is there.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    keys_max: usize,
    young: HashMap<K, Bucket>,
    old: HashMap<K, Bucket>,
    turned_at: u64,
}

impl<K: Eq + Hash> Buckets<K> {
    pub fn new(rate: Rate, keys_max: usize) -> Self {
        Self {
            rate,
            keys_max,
            young: HashMap::new(),
            old: HashMap::new(),
            turned_at: 0,
        }
    }

    /// Makes no bucket for a key that has none.
    pub fn has_room(&self, key: &K, now: u64) -> bool {
        let bucket = self.young.get(key).or_else(|| self.old.get(key));
        bucket.is_none_or(|bucket| bucket.has_room(self.rate, now))
    }

    pub fn take(&mut self, key: K, now: u64) {
        let rate = self.rate;
        self.bucket(key, now).take(rate, now);
    }

    /// See [`Bucket::queue`].
    pub fn queue(&mut self, key: K, now: u64) -> u32 {
        let rate = self.rate;
        self.bucket(key, now).queue(rate, now)
    }

    /// Keys remembered now; never more than `keys_max`, or 2 where that is less.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn bucket(&mut self, key: K, now: u64) -> &mut Bucket {
        let fill_ms = (self.rate.tolerance_ns() + self.rate.interval_ns()) / NS_PER_MS;
        let crowded = self.young.len() >= (self.keys_max / 2).max(1);
        if crowded || now.saturating_sub(self.turned_at) > fill_ms.max(1_000) {
            self.old = std::mem::take(&mut self.young);
            self.turned_at = now;
        }
        let remembered = self.old.remove(&key).unwrap_or_default();
        self.young.entry(key).or_insert(remembered)
    }
}

/// Whose limit it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Source,
    InAll,
}

/// Not now; in so many milliseconds, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paced {
    pub limit: Limit,
    pub retry_after_ms: u32,
}

/// Limits per source and in all: what comes before anything is looked at.
#[derive(Debug)]
pub struct Pacer {
    in_all: (Rate, Bucket),
    sources: Buckets<Source>,
    random: SmallRng,
}

impl Pacer {
    pub fn new(in_all: Rate, per_source: Rate, sources_max: usize, seed: u64) -> Self {
        Self {
            in_all: (in_all, Bucket::default()),
            sources: Buckets::new(per_source, sources_max),
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Sources remembered now; see [`Buckets::len`].
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Lets one of this source in, or says when to come back. A refusal takes no token of either limit.
    pub fn admit(&mut self, source: Source, now: u64) -> Result<(), Paced> {
        let (rate, in_all) = &mut self.in_all;
        let (limit, wait_ms) = if !self.sources.has_room(&source, now) {
            (Limit::Source, self.sources.queue(source, now))
        } else if !in_all.has_room(*rate, now) {
            (Limit::InAll, in_all.queue(*rate, now))
        } else {
            in_all.take(*rate, now);
            self.sources.take(source, now);
            return Ok(());
        };
        let retry_after_ms = jittered(wait_ms, &mut self.random);
        Err(Paced {
            limit,
            retry_after_ms,
        })
    }
}

/// A wait not shorter than asked, and up to a quarter longer, so that those who were sent away
/// together do not return together. At least 100 ms, so that it is never 0.
pub fn jittered(wait_ms: u32, random: &mut SmallRng) -> u32 {
    let wait_ms = wait_ms.clamp(WAIT_MS_MIN, WAIT_MS_MAX);
    wait_ms + random.random_range(0..=wait_ms / 4)
}

/// Where a device comes from, as far as limits and `source_check` tell sources apart: IPv6 by its
/// first 64 bits, an IPv4-mapped address as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate {
        per_s: 10,
        burst: 5,
    };

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = Bucket::default();
        let mut admitted = Vec::new();
        for now in (50_000..51_000).step_by(10) {
            if bucket.has_room(RATE, now) {
                bucket.take(RATE, now);
                admitted.push(now - 50_000);
            }
        }
        assert_eq!(
            admitted,
            [
                0, 10, 20, 30, 40, 100, 200, 300, 400, 500, 600, 700, 800, 900
            ]
        );
    }

    #[test]
    fn those_refused_together_are_told_places_one_interval_apart() {
        let mut bucket = Bucket::default();
        (0..5).for_each(|_| bucket.take(RATE, 1_000));
        let waits: Vec<u32> = (0..4).map(|_| bucket.queue(RATE, 1_000)).collect();
        assert_eq!(waits, [100, 200, 300, 400]);
        assert_eq!(bucket.queue(RATE, 1_450), 50, "the queue moves on");
    }

    #[test]
    fn no_wait_is_longer_than_the_bound_however_long_the_queue() {
        let rate = Rate { per_s: 1, burst: 1 };
        let mut bucket = Bucket::default();
        bucket.take(rate, 0);
        let longest = (0..1_000_000).map(|_| bucket.queue(rate, 0)).max();
        assert_eq!(longest, Some(WAIT_MS_MAX));
    }

    #[test]
    fn no_limit_admits_everything() {
        let mut pacer = Pacer::new(Rate::UNLIMITED, Rate::UNLIMITED, 16, 1);
        for _ in 0..100_000 {
            assert_eq!(pacer.admit(source("10.0.0.1"), 5), Ok(()));
        }
    }

    #[test]
    fn one_source_does_not_use_up_the_room_of_another() {
        let in_all = Rate {
            per_s: 1_000,
            burst: 1_000,
        };
        let mut pacer = Pacer::new(in_all, RATE, 16, 1);
        let (greedy, modest) = (source("10.0.0.1"), source("10.0.0.2"));
        let refused = (0..10_000)
            .filter_map(|_| pacer.admit(greedy, 0).err())
            .filter(|paced| paced.limit == Limit::Source);
        assert_eq!(refused.count(), 10_000 - 5);
        assert_eq!(pacer.admit(modest, 0), Ok(()));
    }

    #[test]
    fn a_storm_that_follows_what_it_is_told_is_in_at_about_the_rate() {
        let in_all = Rate {
            per_s: 1_000,
            burst: 1_000,
        };
        let mut pacer = Pacer::new(in_all, Rate::UNLIMITED, 16, 1);
        let mut due: std::collections::BTreeSet<(u64, u32)> = (0..10_000).map(|n| (0, n)).collect();
        let (mut asked, mut last) = (0, 0);
        while let Some((now, device)) = due.pop_first() {
            asked += 1;
            last = now;
            if let Err(paced) = pacer.admit(source("10.0.0.1"), now) {
                due.insert((now + u64::from(paced.retry_after_ms), device));
            }
        }
        assert!(last < 13_000, "the last one was in after {last} ms");
        assert!(asked < 25_000, "{asked} logins were asked for");
    }

    #[test]
    fn sources_are_told_apart_as_the_contract_says() {
        assert_eq!(source("::ffff:10.1.2.3"), source("10.1.2.3"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    }

    #[test]
    fn a_quiet_key_is_forgotten_and_a_busy_one_is_not() {
        let mut buckets = Buckets::new(RATE, 1_000);
        buckets.take("quiet", 0);
        for now in (0..10_000).step_by(20) {
            buckets.take("busy", now);
            assert!(now < 1_000 || !buckets.has_room(&"busy", now), "at {now}");
        }
        assert_eq!(buckets.len(), 1);
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_the_limit_in_all_holds_whatever_comes(
            seed: u64,
            logins in prop::collection::vec((0u32..200, 0u64..20), 1..2_000),
        ) {
            let in_all = Rate { per_s: 100, burst: 20 };
            let mut pacer = Pacer::new(in_all, RATE, 64, seed);
            let (mut now, mut admitted) = (0, 0);
            for (host, gap_ms) in logins {
                now += gap_ms;
                let verdict = pacer.admit(Source::V4(host.into()), now);
                admitted += u64::from(verdict.is_ok());
                prop_assert!(pacer.sources.len() <= 64);
                prop_assert!(admitted <= 20 + now / 10);
                if let Err(paced) = verdict {
                    prop_assert!((100..=WAIT_MS_MAX + WAIT_MS_MAX / 4).contains(&paced.retry_after_ms));
                }
            }
        }
    }
}
