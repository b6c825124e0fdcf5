//! Pure. Random grants, devices, thieves and times, against a model written from the contract.
//!
//! The model is lists that are searched: which grants are open, which session of an account is
//! current. It holds the gate to P4 (no session without an open grant of the account, used once,
//! with its proof, from its address), P5 (the newest epoch is current, and epochs only grow) and
//! P9 (places in use = accounts with a session or an open grant, within the limit).

use std::collections::{BTreeMap, BTreeSet};

use common::link::message::{GrantVerdict, RevokeReason};
use common::secret::Secret;
use protocols::rcu::attach::Attach;
use protocols::rcu::code::AttachStatus;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::bench::*;
use crate::gate::*;

const ACCOUNTS: i64 = 6;
const PLACES: u32 = 4;
const HOSTS: u8 = 3;

struct Model {
    bench: Bench,
    rng: SmallRng,
    /// Open, in the order in which they came, with the time when they expire.
    open: Vec<(message::Grant, u64)>,
    /// Every grant ever made, for who presents an old one.
    all: Vec<message::Grant>,
    /// The current session of an account.
    current: BTreeMap<AccountId, SessionSeed>,
    /// The newest epoch that was published while the account had a place.
    published: BTreeMap<AccountId, Epoch>,
    /// Sessions that are over or replaced, whose end the gate may yet be told.
    old: Vec<SessionSeed>,
    epochs: u64,
    draining: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let settings = Settings {
            places_max: PLACES,
            ..settings()
        };
        Self {
            bench: Bench::new(settings),
            rng: SmallRng::seed_from_u64(seed),
            open: vec![],
            all: vec![],
            current: BTreeMap::new(),
            published: BTreeMap::new(),
            old: vec![],
            epochs: 100,
            draining: false,
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..1_000) {
            0..350 => self.grant(),
            350..750 => self.attach(),
            750..850 => self.pass(),
            850..930 => self.session_ends(),
            930..960 => self.end(),
            960..998 => self.revoke(),
            _ => {
                self.draining = true;
                self.bench.apply(Input::Shutdown);
            }
        }
        self.check();
    }

    fn account(&mut self) -> AccountId {
        AccountId(self.rng.random_range(1..=ACCOUNTS))
    }

    fn host(&mut self) -> IpAddr {
        address(self.rng.random_range(1..=HOSTS))
    }

    fn places(&self) -> BTreeSet<AccountId> {
        let granted = self.open.iter().map(|(grant, _)| grant.account_id);
        granted.chain(self.current.keys().copied()).collect()
    }

    fn grant(&mut self) {
        let account_id = self.account();
        self.epochs += 1;
        // Grants of two conn servers may overtake one another.
        let mut granted = grant(account_id.0, self.epochs);
        granted.epoch = Epoch::at_ms(10 * self.epochs - self.rng.random_range(0..40));
        granted.source = self.rng.random_bool(0.9).then(|| self.host());
        granted.account_version = self.rng.random_range(1..4);
        granted.ttl_ms = self.rng.random_range(1..40_000);

        let places = self.places();
        let expected = if self.draining {
            GrantVerdict::Draining
        } else if places.contains(&account_id) || places.len() < PLACES as usize {
            GrantVerdict::Granted
        } else {
            GrantVerdict::Full
        };
        assert_eq!(self.bench.grant(&granted), expected);
        self.all.push(granted.clone());
        if expected == GrantVerdict::Granted {
            let expires_at_ms = self.bench.now.ms + u64::from(granted.ttl_ms);
            self.open.push((granted, expires_at_ms));
            let of_account =
                |(_, it): &(usize, &(message::Grant, u64))| it.0.account_id == account_id;
            let open = self.open.iter().enumerate().filter(of_account);
            if open.clone().count() > 4 {
                let (oldest, _) = open.min_by_key(|(_, it)| it.0.epoch).unwrap();
                self.open.remove(oldest);
            }
        }
    }

    fn attach(&mut self) {
        if self.all.is_empty() {
            return;
        }
        let recent = self.all.len().saturating_sub(12);
        let presented = self.all[self.rng.random_range(recent..self.all.len())].clone();
        let from = match presented.source {
            Some(source) if self.rng.random_bool(0.8) => source,
            _ => self.host(),
        };
        let is_proof_right = self.rng.random_bool(0.8);
        let session_key = match is_proof_right {
            true => presented.session_key,
            false => Secret::new([0xEE; 32]),
        };
        let open = self
            .open
            .iter()
            .position(|(it, _)| it.ticket == presented.ticket);
        let allows = |grant: &message::Grant| grant.source.is_none_or(|it| it == from);

        let conn = self.bench.connect(from);
        let holds_grant = self.open.iter().any(|(grant, _)| allows(grant));
        assert_eq!(
            conn.is_some(),
            holds_grant,
            "closed at once without a frame"
        );
        let Some(conn) = conn else {
            return;
        };
        let mut bytes = vec![];
        Attach::sign(presented.ticket, &session_key).encode(7, &mut bytes);
        for piece in bytes.chunks(self.rng.random_range(1..80)) {
            self.bench.receive(conn, piece);
        }

        let account_id = presented.account_id;
        let newest = self.published.get(&account_id).copied();
        let status = match open {
            Some(index) if is_proof_right && allows(&presented) => {
                self.open.remove(index);
                if self.draining {
                    AttachStatus::Draining
                } else if newest.is_some_and(|newest| presented.epoch <= newest) {
                    AttachStatus::NotAdmitted
                } else {
                    return self.attached(&presented, from);
                }
            }
            _ => AttachStatus::NotAdmitted,
        };
        let heard = Heard::Reply { id: 7, status };
        assert_eq!(self.bench.refusals(), [(conn, heard)]);
        assert!(self.bench.admitted().is_none());
    }

    fn attached(&mut self, grant: &message::Grant, from: IpAddr) {
        let account_id = grant.account_id;
        let (_, seed, unread) = self.bench.admitted().expect("admitted");
        assert_eq!((seed.account_id, seed.epoch), (account_id, grant.epoch));
        assert_eq!((seed.source, unread.len()), (from, 0));
        let replaced = self.current.insert(account_id, seed);
        let endings: Vec<_> = replaced
            .iter()
            .map(|it| (it.session, CloseReason::Replaced))
            .collect();
        assert_eq!(self.bench.endings(), endings);
        self.old.extend(replaced);
        self.published.insert(account_id, grant.epoch);
        let is_older = |it: &message::Grant| it.account_id == account_id && it.epoch < grant.epoch;
        self.open.retain(|(it, _)| !is_older(it));
    }

    fn pass(&mut self) {
        self.bench.pass(self.rng.random_range(0..15_000));
        let now_ms = self.bench.now.ms;
        self.open
            .retain(|&(_, expires_at_ms)| expires_at_ms > now_ms);
    }

    /// A shard tells of a session that is over, the current one or, late, an older one.
    fn session_ends(&mut self) {
        let account_id = self.account();
        let ended = if !self.old.is_empty() && self.rng.random_bool(0.5) {
            let index = self.rng.random_range(0..self.old.len());
            self.old[index].clone()
        } else if let Some(current) = self.current.remove(&account_id) {
            self.old.push(current.clone());
            current
        } else {
            return;
        };
        self.bench.session_ended(&ended);
    }

    fn end(&mut self) {
        let account_id = self.account();
        let below = Epoch::at_ms(10 * self.epochs - self.rng.random_range(0..40));
        self.bench.apply(Input::End(End { account_id, below }));
        let current = self.current.get(&account_id).filter(|it| it.epoch < below);
        let endings: Vec<_> = current
            .iter()
            .map(|it| (it.session, CloseReason::Replaced))
            .collect();
        assert_eq!(self.bench.endings(), endings);
    }

    fn revoke(&mut self) {
        let account_id = self.account();
        let below_version = self.rng.random_range(1..4);
        self.bench.apply(Input::Revoke(Revoke {
            account_id,
            below_version,
            why: RevokeReason::Disabled,
        }));
        self.open.retain(|(grant, _)| {
            grant.account_id != account_id || grant.account_version >= below_version
        });
        let version = |seed: &SessionSeed| {
            let granted = self.all.iter().find(|it| it.ticket == seed.ticket);
            granted.map(|it| it.account_version)
        };
        let current = self.current.get(&account_id);
        let endings: Vec<_> = current
            .filter(|it| version(it) < Some(below_version))
            .iter()
            .map(|it| (it.session, CloseReason::Disabled))
            .collect();
        assert_eq!(self.bench.endings(), endings);
    }

    fn check(&mut self) {
        let places = self.places();
        let used = self.bench.places_used();
        assert!(used <= PLACES, "P9");
        assert_eq!(used as usize, places.len(), "P9");
        self.published
            .retain(|account_id, _| places.contains(account_id));
        for (account_id, seed) in &self.current {
            let current = self.bench.core.register.current(*account_id);
            let current = current.map(|it| (it.session, it.epoch));
            assert_eq!(current, Some((seed.session, seed.epoch)), "P5");
        }
        assert!(self.bench.effects.is_empty(), "{:?}", self.bench.effects);
    }
}

fn run(seed: u64) {
    let mut model = Model::new(seed);
    for _ in 0..600 {
        model.step();
    }
}

#[test]
fn nobody_comes_in_but_as_the_contract_says() {
    for seed in 0..300 {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}
