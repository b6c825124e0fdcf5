//! Pure. Which logins were seen before: a Login that somebody recorded and sends again reserves nothing.
//!
//! Remembered are logins whose proof was right and that reserved a place, for 600 s: as long as one
//! Login can pass the judgement of its clock. Beyond `nonces_max` the oldest is forgotten first: then
//! a replay costs a place for the life of one grant, and still admits nobody without the account's key.

use std::collections::{HashMap, VecDeque};

use common::epoch::Epoch;
use common::ids::{AccountId, Nonce};

/// How long a login is remembered.
pub const REMEMBERED_MS: u64 = 600_000;

/// What became of a login that was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is being decided.
    Undecided,
    /// It got the grant of this epoch, which may be open still or not.
    Granted(Epoch),
}

type Key = (AccountId, Nonce);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Serial(u64);

#[derive(Debug)]
pub struct Nonces {
    nonces_max: usize,
    seen: HashMap<Key, (Serial, Seen)>,
    /// When each was remembered, oldest first. The serial number of one that was forgotten early is
    /// not that in `seen`.
    order: VecDeque<(u64, Serial, Key)>,
    last: Serial,
}

impl Nonces {
    pub fn new(nonces_max: usize) -> Self {
        Self {
            nonces_max,
            seen: HashMap::new(),
            order: VecDeque::new(),
            last: Serial::default(),
        }
    }

    pub fn seen(&mut self, account_id: AccountId, nonce: Nonce, now_ms: u64) -> Option<Seen> {
        self.forget_old(now_ms);
        self.seen.get(&(account_id, nonce)).map(|(_, seen)| *seen)
    }

    /// A login that was not seen before asks for a place.
    pub fn remember(&mut self, account_id: AccountId, nonce: Nonce, now_ms: u64) {
        let key = (account_id, nonce);
        while self.order.len() >= self.nonces_max.max(1) {
            self.forget_oldest();
        }
        self.last.0 += 1;
        self.order.push_back((now_ms, self.last, key));
        self.seen.insert(key, (self.last, Seen::Undecided));
    }

    pub fn granted(&mut self, account_id: AccountId, nonce: Nonce, epoch: Epoch) {
        if let Some((_, seen)) = self.seen.get_mut(&(account_id, nonce)) {
            *seen = Seen::Granted(epoch);
        }
    }

    /// The login ended without a grant: it has reserved nothing, and may be repeated.
    pub fn forget(&mut self, account_id: AccountId, nonce: Nonce) {
        self.seen.remove(&(account_id, nonce));
    }

    /// Logins remembered; never more than `nonces_max`.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn forget_old(&mut self, now_ms: u64) {
        while self
            .order
            .front()
            .is_some_and(|(at_ms, ..)| at_ms + REMEMBERED_MS <= now_ms)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, serial, key)) = self.order.pop_front() else {
            return;
        };
        if self.seen.get(&key).is_some_and(|(at, _)| *at == serial) {
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> Key {
        (AccountId(i64::from(n % 3)), Nonce([n; 16]))
    }

    fn epoch(n: u64) -> Epoch {
        Epoch::at_ms(n)
    }

    #[test]
    fn a_login_is_remembered_for_600_s_with_what_it_got() {
        let mut nonces = Nonces::new(8);
        let (account, nonce) = key(1);
        assert_eq!(nonces.seen(account, nonce, 5), None);
        nonces.remember(account, nonce, 5);
        assert_eq!(nonces.seen(account, nonce, 5), Some(Seen::Undecided));
        nonces.granted(account, nonce, epoch(9));
        let last = 5 + REMEMBERED_MS - 1;
        assert_eq!(
            nonces.seen(account, nonce, last),
            Some(Seen::Granted(epoch(9)))
        );
        assert_eq!(nonces.seen(account, nonce, last + 1), None);
    }

    #[test]
    fn the_same_nonce_of_another_account_is_another_login() {
        let mut nonces = Nonces::new(8);
        let (account, nonce) = key(1);
        nonces.remember(account, nonce, 5);
        assert_eq!(nonces.seen(AccountId(77), nonce, 5), None);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Login { n: u8, granted: bool },
        Wait { ms: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0u8..12, any::<bool>()).prop_map(|(n, granted)| Step::Login { n, granted }),
            1 => (0u64..300_000).prop_map(|ms| Step::Wait { ms }),
        ];
        prop::collection::vec(step, 1..200)
    }

    /// The same memory as a plain list, oldest first: when, which login, and what it got unless
    /// it was forgotten.
    #[derive(Default)]
    struct Model(Vec<(u64, Key, Option<Epoch>)>);

    impl Model {
        fn expire(&mut self, now_ms: u64) {
            self.0.retain(|(at_ms, ..)| at_ms + REMEMBERED_MS > now_ms);
        }

        fn push(&mut self, now_ms: u64, key: Key, got: Option<Epoch>, nonces_max: usize) {
            self.0.push((now_ms, key, got));
            let surplus = self.0.len().saturating_sub(nonces_max);
            self.0.drain(..surplus);
        }

        fn seen(&self, key: Key) -> Option<Seen> {
            let mut same = self.0.iter().filter(|(_, known, _)| *known == key);
            same.find_map(|(_, _, got)| *got).map(Seen::Granted)
        }
    }

    proptest! {
        #[test]
        fn it_remembers_what_a_plain_list_remembers(steps in steps(), nonces_max in 1usize..20) {
            let mut nonces = Nonces::new(nonces_max);
            let mut model = Model::default();
            let mut now_ms = 0;
            for (index, step) in steps.into_iter().enumerate() {
                let (n, granted) = match step {
                    Step::Wait { ms } => {
                        now_ms += ms;
                        continue;
                    }
                    Step::Login { n, granted } => (n, granted),
                };
                let (account, nonce) = key(n);
                model.expire(now_ms);
                let seen = nonces.seen(account, nonce, now_ms);
                prop_assert_eq!(seen, model.seen(key(n)));
                if seen.is_some() {
                    continue;
                }
                nonces.remember(account, nonce, now_ms);
                let got = granted.then(|| epoch(index as u64));
                match got {
                    Some(epoch) => nonces.granted(account, nonce, epoch),
                    None => nonces.forget(account, nonce),
                }
                model.push(now_ms, key(n), got, nonces_max);
                prop_assert!(nonces.order.len() <= nonces_max);
                prop_assert!(nonces.seen.len() <= nonces.order.len());
            }
        }
    }
}
