//! Who runs on which cores: a load of another machine takes none of the server's.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::{BenchError, Result};

/// The cores of this process in two halves. The thread that made it may use all of them again once this
/// is dropped; what it started stays where it is.
pub(crate) struct Halves {
    all: CpuSet,
    server: CpuSet,
    load: CpuSet,
}

impl Halves {
    pub(crate) fn new() -> Result<Self> {
        let all = sched_getaffinity(None).map_err(failed)?;
        let cores: Vec<_> = (0..CpuSet::MAX_CPU)
            .filter(|&core| all.is_set(core))
            .collect();
        if cores.len() < 2 {
            return Err(BenchError::failed("a server and its load need a core each"));
        }
        let (server, load) = cores.split_at(cores.len() / 2);
        Ok(Self {
            all,
            server: set(server),
            load: set(load),
        })
    }

    /// Has this thread, and what it starts from now on, run on the server's half.
    pub(crate) fn be_server(&self) -> Result<()> {
        sched_setaffinity(None, &self.server).map_err(failed)
    }

    /// Likewise on the other one.
    pub(crate) fn be_load(&self) -> Result<()> {
        sched_setaffinity(None, &self.load).map_err(failed)
    }
}

impl Drop for Halves {
    fn drop(&mut self) {
        // It could before.
        let _ = sched_setaffinity(None, &self.all);
    }
}

fn set(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    set
}

fn failed(error: rustix::io::Errno) -> BenchError {
    BenchError::failed(format!("cannot choose cores: {error}"))
}
