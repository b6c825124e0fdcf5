//! Pure. What survives a power cut: non-volatile memory, written rarely and in small pieces.

use std::num::NonZeroU32;

use protocols::rcu::command::CommandId;

/// Boot counters stay below this: sequence numbers are positive in a BIGINT.
const BOOT_COUNTER_END: u32 = 1 << 31;
/// How many commands that must not be done twice are remembered over a restart.
const COMMANDS_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct NonVolatile {
    pub(super) sequence: Sequence,
    /// By command; `None`: the default.
    pub(super) report_interval_ms: Option<NonZeroU32>,
    commands: Vec<CommandId>,
}

impl NonVolatile {
    pub(super) fn new(boot_counter: u32) -> Self {
        Self {
            sequence: Sequence { boot_counter, n: 0 },
            report_interval_ms: None,
            commands: Vec::new(),
        }
    }

    /// Before a command is begun that must not be done twice.
    pub(super) fn note(&mut self, command_id: CommandId) {
        if self.commands.len() == COMMANDS_MAX {
            self.commands.remove(0);
        }
        self.commands.push(command_id);
    }

    pub(super) fn knows(&self, command_id: CommandId) -> bool {
        self.commands.contains(&command_id)
    }
}

/// Makes sequence numbers, boot counter × 2^32 + n: no two records of a device's life share one.
#[derive(Debug)]
pub(super) struct Sequence {
    boot_counter: u32,
    n: u32,
}

impl Sequence {
    pub(super) fn boot_counter(&self) -> u32 {
        self.boot_counter
    }

    /// Begins anew above every number that was made: at a start, and where n comes to its end.
    pub(super) fn raise(&mut self) {
        self.boot_counter = self.boot_counter.saturating_add(1);
        self.n = 0;
    }

    /// The next number; `None` after the last one there is.
    pub(super) fn next(&mut self) -> Option<u64> {
        if self.boot_counter >= BOOT_COUNTER_END {
            return None;
        }
        let seq = u64::from(self.boot_counter) << 32 | u64::from(self.n);
        match self.n.checked_add(1) {
            Some(n) => self.n = n,
            None => self.raise(),
        }
        Some(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_with_the_next_boot_counter_and_never_repeat() {
        let mut sequence = Sequence {
            boot_counter: 7,
            n: u32::MAX - 1,
        };
        let seqs: Vec<_> = std::iter::repeat_with(|| sequence.next()).take(3).collect();
        assert_eq!(
            seqs,
            [
                Some((7 << 32) + 0xFFFF_FFFE),
                Some((7 << 32) + 0xFFFF_FFFF),
                Some(8 << 32)
            ]
        );
        sequence.raise();
        assert_eq!(sequence.next(), Some(9 << 32));
    }

    #[test]
    fn the_last_number_is_below_2_to_the_63() {
        let mut sequence = Sequence {
            boot_counter: BOOT_COUNTER_END - 1,
            n: u32::MAX,
        };
        assert_eq!(sequence.next(), Some((1 << 63) - 1));
        assert_eq!(sequence.next(), None);
        sequence.raise();
        assert_eq!(sequence.next(), None);
    }

    #[test]
    fn the_last_four_commands_are_known() {
        let mut memory = NonVolatile::new(1);
        for id in 0..6 {
            memory.note(CommandId(id));
        }
        let known: Vec<bool> = (0..6).map(|id| memory.knows(CommandId(id))).collect();
        assert_eq!(known, [false, false, true, true, true, true]);
    }
}
