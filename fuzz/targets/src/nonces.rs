//! A sequence of operations on the memory of logins that were seen before.

use common::epoch::Epoch;
use common::ids::{AccountId, Nonce};
use conn_server::nonces::{Nonces, REMEMBERED_MS, Seen};

use crate::choices::Choices;

/// A login of the model.
struct Login {
    key: (AccountId, Nonce),
    at_ms: u64,
    seen: Seen,
    is_forgotten: bool,
}

pub fn nonces(data: &[u8]) {
    let mut choices = Choices::new(data);
    let nonces_max = choices.pick(&[4, 0, 1, 64]);
    let mut nonces = Nonces::new(nonces_max);
    let mut logins: Vec<Login> = vec![];
    let mut now_ms = 0;
    while choices.next_step() {
        let account_id = AccountId(choices.below(3).into());
        let nonce = Nonce([choices.below(4) as u8; 16]);
        let key = (account_id, nonce);
        let seen = nonces.seen(account_id, nonce, now_ms);
        let remembered = logins
            .iter()
            .rposition(|it| it.key == key && !it.is_forgotten);
        match (seen, remembered) {
            (None, None) => {}
            (None, Some(index)) => {
                // Forgotten for its age, or for so many that came after it.
                let is_old = logins[index].at_ms + REMEMBERED_MS <= now_ms;
                let after = logins.len() - 1 - index;
                assert!(is_old || after >= nonces_max.max(1), "forgotten early");
                logins[index].is_forgotten = true;
            }
            (Some(seen), Some(index)) => {
                assert!(logins[index].at_ms + REMEMBERED_MS > now_ms, "for 600 s");
                assert_eq!(seen, logins[index].seen);
            }
            (Some(seen), None) => panic!("{seen:?} of a login that was not remembered"),
        }
        match choices.below(8) {
            0..4 if seen.is_none() => {
                nonces.remember(account_id, nonce, now_ms);
                logins.push(Login {
                    key,
                    at_ms: now_ms,
                    seen: Seen::Undecided,
                    is_forgotten: false,
                });
            }
            0..4 => {
                let epoch = Epoch::at_ms(logins.len() as u64);
                nonces.granted(account_id, nonce, epoch);
                let known = logins
                    .iter_mut()
                    .rfind(|it| it.key == key && !it.is_forgotten);
                known.unwrap().seen = Seen::Granted(epoch);
            }
            4 => {
                nonces.forget(account_id, nonce);
                logins
                    .iter_mut()
                    .filter(|it| it.key == key)
                    .for_each(|it| it.is_forgotten = true);
            }
            5..7 => now_ms += u64::from(choices.u16()),
            _ => now_ms += REMEMBERED_MS - 1 + u64::from(choices.below(2)),
        }
    }
}
