//! P1, P2, P3: what devices sent, what they were told, and what the store holds of it.

use std::collections::{BTreeMap, BTreeSet};

use common::ids::AccountId;
use simulator::device::SentRecord;

use super::Broken;
use crate::store::{Key, Store, Stored};

/// A record, from its first sending on.
#[derive(Debug)]
struct Record {
    sent: SentRecord,
    is_acknowledged: bool,
    /// Its device may be gone before it is acknowledged.
    is_in_vain: bool,
}

#[derive(Debug, Default)]
pub(super) struct Records {
    /// Of each account by sequence number, in which devices send most of them.
    of_account: BTreeMap<AccountId, Vec<Record>>,
    sent: usize,
}

impl Records {
    /// `is_in_vain`: if it is stored it is what was sent, and nobody waits for it.
    pub(super) fn sent(&mut self, account_id: AccountId, sent: SentRecord, is_in_vain: bool) {
        let record = Record {
            sent,
            is_acknowledged: false,
            is_in_vain,
        };
        let of_account = self.of_account.entry(account_id).or_default();
        let Err(at) = search(of_account, sent.seq) else {
            panic!("the simulated device used a sequence number twice");
        };
        of_account.insert(at, record);
        self.sent += 1;
    }

    pub(super) fn row_stored(
        &mut self,
        key: Key,
        stored: Stored,
        store: &Store,
    ) -> Result<(), Broken> {
        let Some(record) = self.find(key.account_id, key.seq) else {
            return Err(Broken::new("P3", format_args!("{key:?} was never sent")));
        };
        let sent = &record.sent;
        if sent.recorded_at_ms != key.recorded_at_ms || sent.digest != stored.digest {
            return Err(Broken::new(
                "P3",
                format_args!("{key:?} is not what was sent: {sent:?}"),
            ));
        }
        if store.rows_of(key.account_id, key.seq).count() != 1 {
            return Err(Broken::new("P2", format_args!("{key:?} has two rows")));
        }
        Ok(())
    }

    pub(super) fn acknowledged(
        &mut self,
        account_id: AccountId,
        base_seq: u64,
        count: u8,
        store: &Store,
    ) -> Result<(), Broken> {
        for seq in base_seq..base_seq + u64::from(count) {
            let Some(record) = self.find(account_id, seq) else {
                return Err(Broken::new(
                    "P1",
                    format_args!("{account_id} {seq} is acknowledged and was never sent"),
                ));
            };
            let key = Key {
                account_id,
                seq,
                recorded_at_ms: record.sent.recorded_at_ms,
            };
            // The store is asked, and not what it once told: a row that it lost counts as lost.
            if store.row(&key).is_none() {
                return Err(Broken::new(
                    "P1",
                    format_args!("{key:?} is acknowledged and not stored"),
                ));
            }
            record.is_acknowledged = true;
        }
        Ok(())
    }

    /// `removed`: accounts whose devices are not let in any more to send the rest.
    pub(super) fn check_at_rest(
        &self,
        removed: &BTreeSet<AccountId>,
        store: &Store,
    ) -> Result<(), Broken> {
        let mut rows = 0;
        for (account_id, records) in &self.of_account {
            for record in records {
                let key = Key {
                    account_id: *account_id,
                    seq: record.sent.seq,
                    recorded_at_ms: record.sent.recorded_at_ms,
                };
                let is_stored = store.row(&key).is_some();
                rows += usize::from(is_stored);
                if record.is_in_vain || removed.contains(account_id) {
                    continue;
                }
                if !is_stored {
                    return Err(Broken::new(
                        "L2",
                        format_args!("{key:?} was sent and is not stored at the end"),
                    ));
                }
                if !record.is_acknowledged {
                    return Err(Broken::new(
                        "L2",
                        format_args!("{key:?} was never acknowledged"),
                    ));
                }
            }
        }
        if rows != store.len() {
            return Err(Broken::new(
                "P2",
                format_args!("{rows} records were sent, {} rows are stored", store.len()),
            ));
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.sent
    }

    fn find(&mut self, account_id: AccountId, seq: u64) -> Option<&mut Record> {
        let of_account = self.of_account.get_mut(&account_id)?;
        let at = search(of_account, seq).ok()?;
        of_account.get_mut(at)
    }
}

/// Where the record is, or belongs. Most are among the last.
fn search(records: &[Record], seq: u64) -> Result<usize, usize> {
    let mut begin = records.len().saturating_sub(16);
    if records
        .get(begin)
        .is_some_and(|record| record.sent.seq > seq)
    {
        begin = 0;
    }
    let found = records[begin..].binary_search_by_key(&seq, |record| record.sent.seq);
    found.map(|at| begin + at).map_err(|at| begin + at)
}
