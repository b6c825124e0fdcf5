//! Pure. One number for everything that is refused, closed, shed or set aside.

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)+) => {
        /// What is counted. The names are those of the contract where it has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[$doc])* $variant,)+ }

        impl Counter {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As metrics and `rcu demo` show it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

counters! {
    /// Frames in Telemetry that were taken.
    TelemetryFrames "telemetry_frames",
}

const COUNTERS: usize = Counter::ALL.len();

/// Counted by one core since it was made; each core has its own, the reader adds them up.
#[derive(Clone, Debug)]
pub struct Counters([u64; COUNTERS]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; COUNTERS])
    }
}

impl Counters {
    pub(crate) fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    pub(crate) fn add(&mut self, counter: Counter, n: u64) {
        self.0[counter as usize] += n;
    }

    pub fn of(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// In the order of [`Counter::ALL`].
    pub fn values(&self) -> &[u64] {
        &self.0
    }
}
