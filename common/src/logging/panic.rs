//! A panic in any thread or task is logged, and ends the process: half a node would answer some
//! devices and be deaf to others, and no supervisor would know.

use std::panic::{self, PanicHookInfo};
use std::process;
use std::thread;

use super::Workers;
use crate::codes::Code;

/// Also where the profile unwinds, as that of the tests does.
pub(super) fn log_and_end(workers: Workers) {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        log(info);
        workers.finish();
        // To standard error, with the backtrace that RUST_BACKTRACE asks for. It may end the process.
        tell(info);
        process::abort();
    }));
}

fn log(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string);
    tracing::error!(
        code = Code::Panicked.number(),
        place = place.unwrap_or_default(),
        why = info.payload_as_str().unwrap_or("unknown"),
        thread = thread::current().name().unwrap_or("unnamed"),
        "panicked: the process ends"
    );
}
