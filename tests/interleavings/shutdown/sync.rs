//! In the place of `logic-server/src/sync.rs`: shuttle's.

pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};
