//! P6: nothing that a core keeps grows beyond what its settings promise.
//!
//! Each core says what it keeps, by name (`held`); the limits stand here, from the plan and the
//! contract. What a core keeps and has no limit here is an error: everything that can grow has one.

use logic_server::presence::LINES_MAX;
use logic_server::writer::CONTRADICTING_TOLD_MAX;

use super::Broken;
use crate::conn::NONCES_MAX;
use crate::firmware::RECORDS_MAX;
use crate::limits::Limits;
use crate::plan::Plan;

/// Who keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    Balancer,
    Conn,
    Gate,
    Shard,
    Writer,
    Device,
}

/// Of the largest frame, and of the most that a device sends before AttachReply, with one byte more.
const FRAME_BYTES_MAX: usize = 12 + 16_384;
const FIRST_FRAME_BYTES_MAX: usize = 513;
/// To a device.
const DEVICE_FRAME_BYTES_MAX: usize = 1_024;
/// A frame carries at most so many records, each of at most so many bytes.
const FRAME_RECORDS_MAX: usize = 255;
const GRANTS_PER_ACCOUNT_MAX: usize = 4;
const COMMANDS_OPEN_MAX: usize = 10_000;
const PAGES_OPEN_MAX: usize = 64;
const OVERVIEWS_OPEN_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Memory {
    accounts: usize,
    places: usize,
    nodes: usize,
    rows_max: usize,
    /// Connections of a balancer, and those of a gate that are not attached.
    pending: usize,
    gate_pending: usize,
    limits: Limits,
}

impl Memory {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            accounts: (plan.devices + plan.hostiles()) as usize,
            places: plan.places_max as usize,
            nodes: plan.logic_servers.into(),
            rows_max: plan.batch_rows_max,
            pending: plan.pending_max,
            gate_pending: plan.gate_connections_max(),
            limits: plan.limits.clone(),
        }
    }

    pub(super) fn check(
        &self,
        keeper: Keeper,
        held: &[(&'static str, usize)],
    ) -> Result<(), Broken> {
        for (what, count) in held {
            let broken = |than: &dyn std::fmt::Display| {
                Err(Broken::new(
                    "P6",
                    format_args!("the {keeper:?} keeps {count} {what}, {than}"),
                ))
            };
            match self.limit(keeper, what) {
                None => return broken(&"which have no limit"),
                Some(limit) if *count > limit => return broken(&format!("more than {limit}")),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn limit(&self, keeper: Keeper, what: &str) -> Option<usize> {
        let limit = match (keeper, what) {
            (Keeper::Balancer, "connections") => self.pending,
            // One is tried to its end though its device has left.
            (Keeper::Balancer, "logins") => self.limits.front_logins_open_max,
            // A new link may stand before the end of the old one is noticed.
            (Keeper::Balancer, "conn_servers") => 2 * 16,

            (Keeper::Conn, "logins") => self.limits.logins_open_max,
            // Each reserves a place until it is answered or must have expired; a device that takes
            // over its own place reserves one more.
            (Keeper::Conn, "grants_asked") => {
                self.limits.logins_open_max + 2 * self.nodes * self.places
            }
            (Keeper::Conn, "commands") => COMMANDS_OPEN_MAX,
            (Keeper::Conn, "pages") => PAGES_OPEN_MAX,
            (Keeper::Conn, "overviews") => OVERVIEWS_OPEN_MAX,
            (Keeper::Conn, "timers") => {
                let asked = COMMANDS_OPEN_MAX + PAGES_OPEN_MAX + OVERVIEWS_OPEN_MAX;
                1_001 + 2 * (2 * self.limits.logins_open_max + 2 * self.nodes * self.places + asked)
            }
            // A new link may stand before the end of the old one is noticed.
            (Keeper::Conn, "links") => 2 * (16 + self.nodes),
            (Keeper::Conn, "balancers") => 2 * 16,
            // Those of its logic servers, also of one that is cut off.
            (Keeper::Conn, "accounts") => self.accounts,
            (Keeper::Conn, "nonces") => NONCES_MAX,
            (Keeper::Conn, "guesses") => self.limits.guesses_max,
            (Keeper::Balancer | Keeper::Conn, "sources") => self.limits.sources_max,

            (Keeper::Gate, "connections") => self.gate_pending,
            (Keeper::Gate, "connection_bytes") => self.gate_pending * FIRST_FRAME_BYTES_MAX,
            (Keeper::Gate, "grants") => self.places * GRANTS_PER_ACCOUNT_MAX,
            (Keeper::Gate, "places") => self.places,
            (Keeper::Gate, "links") => 2 * 16,
            // Of one turn: what it may take of mail and of connections.
            (Keeper::Gate, "notices") => self.pending + self.places * (1 + GRANTS_PER_ACCOUNT_MAX),

            (Keeper::Shard, "sessions" | "commands") => self.places,
            // A replaced session keeps its slot until its device is gone.
            (Keeper::Shard, "slots") => 2 * self.places + self.pending,
            (Keeper::Shard, "partial_bytes") => self.places * FRAME_BYTES_MAX,
            (Keeper::Shard, "rows") => self.rows_max.max(FRAME_RECORDS_MAX),
            (Keeper::Shard, "row_bytes") => (1 << 20) + FRAME_BYTES_MAX,
            (Keeper::Shard, "batches_spare") => 2,

            (Keeper::Writer, "batch_bytes") => 64 << 20,
            // A batch takes a row at least.
            (Keeper::Writer, "batches") => (64 << 20) / 32,
            (Keeper::Writer, "presence") => LINES_MAX,
            (Keeper::Writer, "contradicting_told") => CONTRADICTING_TOLD_MAX,

            (Keeper::Device, "records") => RECORDS_MAX,
            (Keeper::Device, "frames_open") => 64,
            // It reads past a longer Command.
            (Keeper::Device, "partial_bytes") => FRAME_BYTES_MAX.max(DEVICE_FRAME_BYTES_MAX),
            _ => return None,
        };
        Some(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_beyond_its_limit_or_has_none_is_named() {
        let plan = Plan::fleet(1, 10, 1_000);
        let memory = Memory::new(&plan);
        let check = |held| memory.check(Keeper::Gate, &[held]);
        assert!(check(("places", 10)).is_ok());
        assert!(check(("places", 11)).is_err_and(|it| it.0.contains("11 places, more than 10")));
        assert!(check(("dreams", 0)).is_err_and(|it| it.0.contains("no limit")));
    }
}
