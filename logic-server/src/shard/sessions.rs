//! Pure. The sessions of a shard by slot, and the slot of each.
//!
//! ```text
//! SessionId ──▶ 0 1 2 … 92 │ 93 …      chunks that never move: a table that doubles has what it holds twice for a
//!   a table     ─ a chunk ─┘           moment, and afterwards room for as many again
//!   of slots
//! ```

use hashbrown::HashTable;

use super::session::Session;
use crate::ids::{SessionId, Slot};

/// Two pages, so that the allocator has no more of a chunk than the chunk needs.
const CHUNK_BYTES: usize = 8_192;
const CHUNK: usize = CHUNK_BYTES / size_of::<Option<Session>>();

#[derive(Debug, Default)]
pub(super) struct Sessions {
    chunks: Vec<Vec<Option<Session>>>,
    /// Of the sessions, by their ids, which stand in the sessions themselves.
    slots: HashTable<Slot>,
}

impl Sessions {
    /// Sessions.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Slots that were ever used.
    pub(super) fn slots(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Session> {
        let chunk = self.chunks.get(slot.index() / CHUNK)?;
        chunk.get(slot.index() % CHUNK)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Session> {
        let chunk = self.chunks.get_mut(slot.index() / CHUNK)?;
        chunk.get_mut(slot.index() % CHUNK)?.as_mut()
    }

    pub(super) fn slot_of(&self, session: SessionId) -> Option<Slot> {
        let is_it = |&slot: &Slot| self.get(slot).is_some_and(|it| it.id == session);
        self.slots.find(hash(session), is_it).copied()
    }

    /// # Panics
    /// The slot is in use.
    pub(super) fn insert(&mut self, slot: Slot, session: Session) {
        let id = session.id;
        let place = self.place(slot);
        assert!(place.is_none(), "{slot:?} is in use");
        *place = Some(session);
        let chunks = &self.chunks;
        let hash_of = |&slot: &Slot| {
            let session = chunks[slot.index() / CHUNK][slot.index() % CHUNK].as_ref();
            hash(session.expect("a slot of the table has a session").id)
        };
        self.slots.insert_unique(hash(id), slot, hash_of);
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Session> {
        let chunk = self.chunks.get_mut(slot.index() / CHUNK)?;
        let session = chunk.get_mut(slot.index() % CHUNK)?.take()?;
        let found = self.slots.find_entry(hash(session.id), |it| *it == slot);
        found.expect("its slot is in the table").remove();
        Some(session)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Session)> {
        let places = self.chunks.iter().flatten();
        let sessions = (0..).map(Slot).zip(places);
        sessions.filter_map(|(slot, place)| Some((slot, place.as_ref()?)))
    }

    fn place(&mut self, slot: Slot) -> &mut Option<Session> {
        let (chunk, index) = (slot.index() / CHUNK, slot.index() % CHUNK);
        // All but the last are full, and none grows beyond what it was made for.
        for behind in self.chunks.len().saturating_sub(1)..=chunk {
            let places = match behind {
                _ if behind < chunk => CHUNK,
                _ => index + 1,
            };
            if self.chunks.len() == behind {
                self.chunks.push(Vec::with_capacity(CHUNK));
            }
            let chunk = &mut self.chunks[behind];
            if chunk.len() < places {
                chunk.resize_with(places, || None);
            }
        }
        &mut self.chunks[chunk][index]
    }
}

/// Ids are counted up, so any odd number spreads them; this one also into the high bits, which the table looks at first.
fn hash(session: SessionId) -> u64 {
    session.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use common::time::Now;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::shard::tests::bench::seed;

    fn session(id: u64) -> Session {
        let now = Now { ms: 0, unix_ms: 0 };
        Session::new(&seed(id), 1, now)
    }

    #[test]
    fn every_session_is_found_by_its_slot_and_by_its_id_until_it_is_removed() {
        let mut rng = SmallRng::seed_from_u64(7);
        let (mut sessions, mut model) = (Sessions::default(), BTreeMap::new());
        for id in 1..=10_000 {
            // Also far beyond what there was.
            let reach = rng.random_range(0..=5 * CHUNK as u32);
            let slot = Slot(rng.random_range(0..=reach));
            match model.remove(&slot) {
                Some(known) => {
                    assert_eq!(sessions.slot_of(SessionId(known)), Some(slot));
                    assert_eq!(sessions.remove(slot).map(|it| it.id.0), Some(known));
                    assert_eq!(sessions.slot_of(SessionId(known)), None);
                    assert!(sessions.get(slot).is_none() && sessions.remove(slot).is_none());
                }
                None => {
                    sessions.insert(slot, session(id));
                    model.insert(slot, id);
                }
            }
            assert_eq!(sessions.len(), model.len());
        }
        let there: BTreeMap<Slot, u64> =
            sessions.iter().map(|(slot, it)| (slot, it.id.0)).collect();
        assert_eq!(there, model);
        assert!(sessions.slots() <= 5 * CHUNK + 1);
        assert!(sessions.get_mut(Slot(u32::MAX)).is_none());
    }
}
