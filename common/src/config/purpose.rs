//! Pure. What a configuration is read for: what it asks of the machine must be free, or need not be.

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To start with it: what it needs of the machine must be free now, for this process.
    Start,
    /// To look at it: a process may run with it already, or will under limits of its own.
    Check,
}
