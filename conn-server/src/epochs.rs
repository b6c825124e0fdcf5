//! Pure. The epochs of this conn server: above everything that it published before, whatever the wall clock says.
//!
//! A mark ahead of the clock is stored in the database. Only epochs below the stored mark are
//! published, and a new start begins above it; so a restart with the wall clock set back makes no epoch twice.
//!
//! A database that is restored holds an older mark. While we run, a new one is stored before anything more is
//! published ([`Epochs::mark_lost`]). A conn server that starts on it begins above the older one and the wall
//! clock; what else was published, by a clock that was ahead, it hears from the logic servers before any of
//! them takes a grant of it: an epoch that nobody holds any more needs not be exceeded.

use common::epoch::{Epoch, EpochClock, NodeNumber};

/// How far ahead of the clock the stored mark is set.
const MARK_AHEAD_MS: u64 = 60_000;
/// A new mark is stored when the present one is nearer than this.
const MARK_RENEWED_MS: u64 = 30_000;

#[derive(Debug)]
pub struct Epochs {
    clock: EpochClock,
    /// What the database holds; nothing at or above it is published.
    stored: Epoch,
    /// A mark is on its way to the database.
    storing: bool,
}

impl Epochs {
    /// `mark` is what the database held at the start. Nothing is published before a mark above it is stored.
    pub fn new(node: NodeNumber, mark: Epoch) -> Self {
        Self {
            clock: EpochClock::new(node, mark),
            stored: mark,
            storing: false,
        }
    }

    /// The next epoch; `None` while no mark above it is stored.
    pub fn next_epoch(&mut self, unix_ms: u64) -> Option<Epoch> {
        let epoch = self.clock.tick(unix_ms);
        (epoch < self.stored).then_some(epoch)
    }

    /// Takes note of an epoch that another process knows.
    pub fn observe(&mut self, heard: Epoch) {
        self.clock.observe(heard);
    }

    /// The mark to store now, if it is time; then [`Epochs::mark_stored`] says what came of it.
    pub fn mark_to_store(&mut self, unix_ms: u64) -> Option<Epoch> {
        let ahead = unix_ms.max(self.clock.highest().unix_ms());
        if self.storing || self.stored >= Epoch::at_ms(ahead + MARK_RENEWED_MS) {
            return None;
        }
        self.storing = true;
        Some(Epoch::at_ms(ahead + MARK_AHEAD_MS))
    }

    /// `None`: it could not be stored; the next [`Epochs::mark_to_store`] tries again.
    pub fn mark_stored(&mut self, mark: Option<Epoch>) {
        self.storing = false;
        self.stored = self.stored.max(mark.unwrap_or_default());
    }

    /// The database went back, and the mark with it: nothing is published before one is stored anew.
    pub fn mark_lost(&mut self) {
        self.stored = Epoch::ZERO;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epochs(mark: Epoch) -> Epochs {
        Epochs::new(NodeNumber::new(5).unwrap(), mark)
    }

    #[test]
    fn nothing_is_published_before_a_mark_is_stored() {
        let mut epochs = epochs(Epoch::ZERO);
        assert_eq!(epochs.next_epoch(1_000), None);
        let mark = epochs.mark_to_store(1_000);
        assert_eq!(epochs.next_epoch(1_000), None);
        assert_eq!(epochs.mark_to_store(1_000), None, "one is on its way");
        epochs.mark_stored(mark);
        assert!(epochs.next_epoch(1_000).unwrap() < mark.unwrap());
    }

    #[test]
    fn a_mark_that_could_not_be_stored_is_tried_again() {
        let mut epochs = epochs(Epoch::ZERO);
        assert!(epochs.mark_to_store(1_000).is_some());
        epochs.mark_stored(None);
        assert_eq!(epochs.next_epoch(1_000), None);
        assert!(epochs.mark_to_store(2_000).is_some());
    }

    /// Else it would believe for an hour that the mark is there, and a restart would begin below it.
    #[test]
    fn a_mark_that_was_lost_is_stored_anew_also_where_the_clock_was_ahead() {
        let mut epochs = epochs(Epoch::ZERO);
        let mark = epochs.mark_to_store(3_600_000);
        epochs.mark_stored(mark);
        let before = epochs.next_epoch(3_600_000).unwrap();
        assert_eq!(epochs.mark_to_store(0), None);
        epochs.mark_lost();
        assert_eq!(epochs.next_epoch(0), None);
        let anew = epochs.mark_to_store(0);
        assert!(anew.unwrap() > before);
        epochs.mark_stored(anew);
        assert!(epochs.next_epoch(0).unwrap() > before);
    }

    #[test]
    fn a_mark_is_renewed_before_the_clock_reaches_it() {
        let mut epochs = epochs(Epoch::ZERO);
        let mark = epochs.mark_to_store(0);
        epochs.mark_stored(mark);
        for second in 1..600 {
            let mark = epochs.mark_to_store(second * 1_000);
            if mark.is_some() {
                epochs.mark_stored(mark);
            }
            assert!(epochs.next_epoch(second * 1_000).is_some());
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Login,
        Hear(u64),
        StoreMark {
            arrives: bool,
        },
        /// The database is restored, and that is noticed before anything is published.
        Restore,
        Crash,
        SetClock(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => Just(Step::Login),
            1 => (0u64..10_000_000).prop_map(Step::Hear),
            4 => any::<bool>().prop_map(|arrives| Step::StoreMark { arrives }),
            1 => Just(Step::Restore),
            1 => Just(Step::Crash),
            1 => (0u64..10_000_000).prop_map(Step::SetClock),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        /// Across crashes, clocks set anywhere and epochs heard from others, published epochs grow,
        /// and a later start makes greater ones than any that was published before.
        #[test]
        fn published_epochs_grow(steps in steps()) {
            let (mut stored, mut unix_ms, mut last) = (Epoch::ZERO, 5_000_000, Epoch::ZERO);
            let mut epochs = epochs(stored);
            for step in steps {
                match step {
                    Step::Login => {
                        if let Some(epoch) = epochs.next_epoch(unix_ms) {
                            prop_assert!(epoch > last);
                            prop_assert!(epoch < stored);
                            last = epoch;
                        }
                    }
                    Step::Hear(ahead) => epochs.observe(Epoch::at_ms(ahead)),
                    Step::StoreMark { arrives } => {
                        if let Some(mark) = epochs.mark_to_store(unix_ms) {
                            prop_assert!(mark > stored, "it only grows");
                            if arrives {
                                stored = mark;
                            }
                            epochs.mark_stored(arrives.then_some(mark));
                        }
                    }
                    Step::Restore => {
                        stored = Epoch::ZERO;
                        epochs.mark_lost();
                    }
                    // One that crashes on a restored database before it stored its mark has lost it.
                    Step::Crash if stored == Epoch::ZERO => {}
                    Step::Crash => epochs = Epochs::new(NodeNumber::new(5).unwrap(), stored),
                    Step::SetClock(to) => unix_ms = to,
                }
            }
        }
    }
}
