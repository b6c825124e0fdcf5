//! Pure. One number for everything that is taken, refused, closed or shed; each tier declares its own.

/// Declares what a tier counts, with the names that metrics show, and where it is counted:
///
/// ```
/// common::counters! {
///     Logins = "logins",
///     /// As many logins as may be were being decided.
///     TooManyOpen = "too_many_open",
/// }
///
/// let mut counters = Counters::default();
/// counters.count(Counter::Logins);
/// assert_eq!(counters.of(Counter::Logins), 1);
/// assert_eq!(Counter::TooManyOpen.name(), "too_many_open");
/// ```
#[macro_export]
macro_rules! counters {
    ($($(#[doc = $doc:literal])* $counter:ident = $name:literal,)+) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[doc = $doc])* $counter,)+ }

        impl Counter {
            /// In the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$counter,)+];

            /// As it is shown.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$counter => $name,)+ }
            }

            /// What its documentation says; empty where the name says it all.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$counter => concat!($($doc),*).trim_ascii(),)+ }
            }
        }

        /// One figure for each [`Counter`], since this was made.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Counters([u64; Counter::ALL.len()]);

        impl Default for Counters {
            fn default() -> Self {
                Self([0; _])
            }
        }

        impl Counters {
            /// Counts one.
            pub fn count(&mut self, counter: Counter) {
                self.add(counter, 1);
            }

            /// Counts `n` at once.
            pub fn add(&mut self, counter: Counter, n: u64) {
                self.0[counter as usize] += n;
            }

            pub fn of(&self, counter: Counter) -> u64 {
                self.0[counter as usize]
            }

            /// In the order of [`Counter::ALL`], for whoever publishes them.
            pub const fn figures(&self) -> &[u64; Counter::ALL.len()] {
                &self.0
            }

            /// In the order of [`Counter::ALL`].
            pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> {
                Counter::ALL.iter().copied().zip(self.0)
            }
        }

        #[test]
        fn every_counter_has_a_name_of_its_own() {
            let names = Counter::ALL.iter().map(|counter| counter.name());
            let distinct: ::std::collections::BTreeSet<_> = names.collect();
            assert_eq!(distinct.len(), Counter::ALL.len());
        }
    };
}

#[cfg(test)]
#[allow(unreachable_pub)]
mod tests {
    counters! {
        First = "first",
        /// Counted many at a time.
        Second = "second",
        Third = "third",
    }

    #[test]
    fn each_is_counted_for_itself() {
        let mut counters = Counters::default();
        counters.count(Counter::Third);
        counters.add(Counter::Second, 5);
        counters.count(Counter::Second);
        assert_eq!(counters.of(Counter::Second), 6);
        let shown: Vec<_> = counters
            .iter()
            .map(|(counter, count)| (counter.name(), count))
            .collect();
        assert_eq!(shown, [("first", 0), ("second", 6), ("third", 1)]);
        assert_eq!(*counters.figures(), [0, 6, 1]);
        assert_eq!(Counter::Second.help(), "Counted many at a time.");
        assert_eq!(Counter::First.help(), "");
    }
}
