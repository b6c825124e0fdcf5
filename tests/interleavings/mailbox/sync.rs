//! In the place of `logic-server/src/sync.rs`: loom's.

pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
