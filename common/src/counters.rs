//! Pure. One number for everything that is taken, refused, closed or shed, and for what stands at this
//! moment; each tier declares its own, once for all who show them.

/// Declares what a tier counts, with the names that metrics show, and what each is, which they show too; one that
/// says nothing of itself does not compile:
///
/// ```
/// common::counters! {
///     /// Whole Logins.
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
    ($($(#[doc = $doc:literal])+ $counter:ident = $name:literal,)+) => {
        $crate::named! {
            /// What is counted.
            Counter { $($(#[doc = $doc])+ $counter = $name,)+ }
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

            /// Adds what another one counted.
            pub fn merge(&mut self, other: &Self) {
                for (count, more) in self.0.iter_mut().zip(other.0) {
                    *count += more;
                }
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

/// Declares what of a tier goes up and down, with the names that metrics and operators see. Whoever knows the
/// figures matches on them: one that is added is shown everywhere, or does not compile.
///
/// ```
/// common::gauges! {
///     /// Live sessions.
///     Sessions = "sessions",
/// }
///
/// let figures = Gauge::figures(|gauge| match gauge {
///     Gauge::Sessions => 7,
/// });
/// assert_eq!(figures[Gauge::Sessions as usize], 7);
/// ```
#[macro_export]
macro_rules! gauges {
    ($($(#[doc = $doc:literal])+ $gauge:ident = $name:literal,)+) => {
        $crate::named! {
            /// What stands at a moment.
            Gauge { $($(#[doc = $doc])+ $gauge = $name,)+ }
        }

        impl Gauge {
            /// In the order of [`Gauge::ALL`].
            pub fn figures(figure: impl Fn(Self) -> u64) -> [u64; Self::ALL.len()] {
                ::std::array::from_fn(|index| figure(Self::ALL[index]))
            }
        }

        #[test]
        fn every_gauge_has_a_name_of_its_own() {
            let names = Gauge::ALL.iter().map(|gauge| gauge.name());
            let distinct: ::std::collections::BTreeSet<_> = names.collect();
            assert_eq!(distinct.len(), Gauge::ALL.len());
        }
    };
}

/// An enum of figures, each with the name that it is shown under and what it is.
#[macro_export]
macro_rules! named {
    ($(#[doc = $what:literal])* $Kind:ident { $($(#[doc = $doc:literal])+ $it:ident = $name:literal,)+ }) => {
        $(#[doc = $what])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Kind { $($(#[doc = $doc])+ $it,)+ }

        impl $Kind {
            /// In the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$it,)+];

            /// As it is shown.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$it => $name,)+ }
            }

            /// What its documentation says: never nothing.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$it => concat!($($doc),*).trim_ascii(),)+ }
            }
        }

        impl $crate::figures::Figure for $Kind {
            const EACH: &'static [Self] = Self::ALL;

            fn index(self) -> usize {
                self as usize
            }

            fn shown(self) -> &'static str {
                self.name()
            }

            fn told(self) -> &'static str {
                self.help()
            }
        }
    };
}

#[cfg(test)]
#[allow(unreachable_pub)]
mod tests {
    counters! {
        /// Counted one at a time.
        First = "first",
        /// Counted many at a time.
        Second = "second",
        /// Counted once.
        Third = "third",
    }

    gauges! {
        /// It goes up and down.
        Low = "low",
        /// It does as well.
        High = "high",
    }

    #[test]
    fn gauges_stand_in_their_order() {
        let figures = Gauge::figures(|gauge| match gauge {
            Gauge::High => 9,
            Gauge::Low => 1,
        });
        assert_eq!(figures, [1, 9]);
        assert_eq!(Gauge::Low.help(), "It goes up and down.");
        assert_eq!(Gauge::ALL[1].name(), "high");
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
        let mut both = counters.clone();
        both.merge(&counters);
        assert_eq!(*both.figures(), [0, 12, 2]);
        assert_eq!(Counter::Second.help(), "Counted many at a time.");
        assert_eq!(Counter::First.help(), "Counted one at a time.");
    }
}
