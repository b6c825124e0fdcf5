//! What threads share memory with. `tests/interleavings` puts its own types of the same names
//! here, which try one order of events after another; so what it tries is this crate's code.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
