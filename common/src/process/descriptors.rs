//! File descriptors: what the process may open, and how many of them are left for devices.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For what belongs to no tier: standard streams, database files, the runtime, the balancer's listeners.
pub const PROCESS: u64 = 64;

/// Raises the soft limit to the hard one and returns it: how many descriptors this process may
/// have open. `None`: no limit.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // A kernel that refuses to raise it leaves the soft limit in force.
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// How the descriptors of a process are shared out.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// What the process may open in all; `None`: no limit.
    pub limit: Option<u64>,
    /// What the tiers need beside the long connections: pending ones, listeners, event loops.
    pub own: u64,
    /// What simulated devices in the same process need.
    pub devices: u64,
}

/// A logic server holds this many devices unless it is told otherwise.
const CONNECTIONS_DEFAULT: u32 = 10_000;

impl Budget {
    /// Descriptors left for long connections.
    fn left(&self) -> u64 {
        self.limit.map_or(u64::MAX, |limit| {
            limit.saturating_sub(PROCESS + self.own + self.devices)
        })
    }

    /// `max_connections` of each of `logic_servers`: the figure that was asked for, else the lesser
    /// of 10,000 and an equal share of what the descriptors leave.
    ///
    /// # Errors
    /// The figure asked for does not fit, or nothing is left: what to do, to stand behind the key.
    pub fn max_connections(&self, asked: Option<u32>, logic_servers: u32) -> Result<u32, String> {
        let share = self.left() / u64::from(logic_servers.max(1));
        let limit = self.limit.unwrap_or(u64::MAX);
        match asked {
            Some(asked) if u64::from(asked) > share => Err(format!(
                "{asked} for each logic server of the process do not fit: it may open {limit} files, \
                 which leaves {share} connections for each; lower it or `pending_max`, or raise the limit (ulimit -n, \
                 LimitNOFILE)"
            )),
            Some(asked) => Ok(asked),
            None if share == 0 => Err(format!(
                "the process may open {limit} files, which leaves none for devices; \
                 raise the limit (ulimit -n, LimitNOFILE)"
            )),
            None => Ok(u32::try_from(share)
                .map_or(CONNECTIONS_DEFAULT, |share| share.min(CONNECTIONS_DEFAULT))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: u64) -> Budget {
        Budget {
            limit: Some(limit),
            own: 1_000,
            devices: 0,
        }
    }

    #[test]
    fn connections_are_the_lesser_of_the_default_and_the_share() {
        assert_eq!(budget(1_000_000).max_connections(None, 2), Ok(10_000));
        assert_eq!(budget(20_064).max_connections(None, 2), Ok(9_500));
        assert_eq!(
            Budget {
                limit: None,
                ..budget(0)
            }
            .max_connections(None, 2),
            Ok(10_000)
        );
    }

    #[test]
    fn a_figure_that_does_not_fit_is_refused() {
        assert_eq!(budget(20_064).max_connections(Some(9_500), 2), Ok(9_500));
        assert!(budget(20_064).max_connections(Some(9_501), 2).is_err());
        assert!(budget(500).max_connections(None, 2).is_err());
    }
}
