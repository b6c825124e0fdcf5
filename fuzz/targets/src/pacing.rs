//! A sequence of logins at the limits per source and in all, against buckets that are counted in
//! tokens: what is let through, who is refused, and how long it is told to wait.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::pacing::{Buckets, Limit, Pacer, Rate, Source, WAIT_MS_MAX};

use crate::choices::Choices;

/// Fuller than this it is not, and each admission takes `interval_ns` of it.
struct Tokens {
    interval_ns: u128,
    full_ns: u128,
    left_ns: u128,
    at_ms: u64,
}

impl Tokens {
    fn new(rate: Rate) -> Self {
        let interval_ns = 1_000_000_000_u128
            .checked_div(rate.per_s.into())
            .unwrap_or(0);
        let full_ns = interval_ns * u128::from(rate.burst.max(1));
        Self {
            interval_ns,
            full_ns,
            left_ns: full_ns,
            at_ms: 0,
        }
    }

    fn has_room(&mut self, now_ms: u64) -> bool {
        let passed_ns = u128::from(now_ms - self.at_ms) * 1_000_000;
        self.at_ms = now_ms;
        self.left_ns = (self.left_ns + passed_ns).min(self.full_ns);
        self.left_ns >= self.interval_ns
    }
}

pub fn pacing(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut rate = || Rate {
        per_s: choices.pick(&[1, 0, 3, 1_000, u32::MAX]),
        burst: choices.pick(&[1, 0, 4, u32::MAX]),
    };
    let (in_all, per_source) = (rate(), rate());
    // Room for all sources, so that none is forgotten and every one is judged exactly.
    let mut pacer = Pacer::new(in_all, per_source, 1_000, 1);
    let mut all = Tokens::new(in_all);
    let mut sources: Vec<_> = (0..4).map(|_| Tokens::new(per_source)).collect();
    let mut now_ms = 1_000_000;
    let keys_max = choices.pick(&[2, 0, 1, 9]);
    let mut buckets = Buckets::new(per_source, keys_max);
    while choices.next_step() {
        let index = choices.below(4) as usize;
        let refused_by = if !sources[index].has_room(now_ms) {
            Some(Limit::Source)
        } else if !all.has_room(now_ms) {
            Some(Limit::InAll)
        } else {
            None
        };
        let judged = pacer.admit(source(index, &mut choices), now_ms);
        assert_eq!(judged.err().map(|paced| paced.limit), refused_by);
        match judged {
            Ok(()) => {
                all.left_ns -= all.interval_ns;
                sources[index].left_ns -= sources[index].interval_ns;
            }
            Err(paced) => {
                let longest_ms = WAIT_MS_MAX + WAIT_MS_MAX / 4;
                assert!((100..=longest_ms).contains(&paced.retry_after_ms));
                // Coming back then is worth it, as far as this one limit goes.
                let tokens = match paced.limit {
                    Limit::Source => &sources[index],
                    Limit::InAll => &all,
                };
                let missing_ns = tokens.interval_ns - tokens.left_ns;
                let told_ns = u128::from(paced.retry_after_ms) * 1_000_000;
                let longest_ns = u128::from(WAIT_MS_MAX) * 1_000_000;
                assert!(
                    told_ns >= missing_ns.min(longest_ns),
                    "sent to come back in vain"
                );
            }
        }
        let key = choices.u8();
        if buckets.has_room(&key, now_ms) {
            buckets.take(key, now_ms);
        } else {
            assert!(buckets.queue(key, now_ms) <= WAIT_MS_MAX);
        }
        assert!(buckets.len() <= keys_max.max(2), "P6");
        if choices.once_in(3) {
            now_ms += u64::from(choices.u16()) % choices.pick(&[10, 1_500, 60_000]);
        }
    }
}

/// Different addresses of one source are one source.
fn source(index: usize, choices: &mut Choices<'_>) -> Source {
    let host = u16::from(choices.u8());
    let address: IpAddr = match index {
        0 => Ipv4Addr::new(192, 0, 2, 1).into(),
        1 => Ipv4Addr::new(192, 0, 2, 2).to_ipv6_mapped().into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0, index as u16, host, 0, 0, host).into(),
    };
    address.into()
}
