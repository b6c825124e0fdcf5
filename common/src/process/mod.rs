//! What a process is beside the tiers in it: how a server is started and tells where it is reached
//! ([`server`], `arguments`, `supervisor`), what its tasks run on ([`runtime`]), how it is asked to end ([`signals`]), how many
//! files it may open ([`descriptors`]), how it listens ([`mod@listen`]), whether it can trust its [`clock`], and what it says ([`output`]) and
//! returns when it fails.

mod arguments;
pub mod clock;
pub mod descriptors;
pub mod listen;
pub mod output;
pub mod server;
pub mod signals;
mod supervisor;

pub use arguments::{Addresses, AnnounceError, Announced, Arguments, write_atomically};

use std::error::Error;
use std::io;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

/// Why a process could not do what it was started for.
pub type Failure = Box<dyn Error>;

/// What a process ends with that failed; 2 is for wrong usage (clap's own).
pub const EXIT_FAILED: u8 = 1;

/// Does the work of `program`. Where it fails, why goes to standard error, with the causes below it, unless that
/// is that nobody reads its standard output any more ([`output`]).
/// From now on a panic in any thread or task ends the process: a server that lost one of its loops
/// would hold devices that nobody serves, while its supervisor takes it for healthy.
pub fn run(program: &str, work: impl FnOnce() -> Result<ExitCode, Failure>) -> ExitCode {
    end_on_panic();
    match work() {
        Ok(code) => code,
        Err(error) => ExitCode::from(output::failed(program, error.as_ref())),
    }
}

/// What a server runs its tasks on: one thread. The sockets of its devices, where there are many, have loops
/// of their own; the rest is few tasks that speak to one another with every login, and several threads wake
/// each other for it more than they work (docs/performance.md, G1).
///
/// # Errors
/// The system has no thread or no epoll to give.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
}

/// A release build aborts by its profile, and also without this; the others would unwind, and tokio
/// would keep the panic of a task for somebody who asks.
fn end_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the process that a test starts of its own program.
    const CHILD: &str = "RCU_TEST_PANICS_IN";

    /// Not a test of its own: what [`a_panic_in_any_thread_or_task_ends_the_process`] starts.
    #[test]
    fn a_process_that_panics() {
        let Ok(place) = std::env::var(CHILD) else {
            return;
        };
        let code = run("panics", || {
            let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
            match place.as_str() {
                "thread" => drop(std::thread::spawn(|| panic!("lost a loop")).join()),
                "task" => drop(runtime.block_on(runtime.spawn(async { panic!("lost a loop") }))),
                "blocking" => {
                    drop(runtime.block_on(runtime.spawn_blocking(|| panic!("lost a loop"))));
                }
                place => return Err(place.into()),
            }
            eprintln!("half alive");
            Ok(ExitCode::SUCCESS)
        });
        assert_eq!(code, ExitCode::SUCCESS);
    }

    #[test]
    fn a_panic_in_any_thread_or_task_ends_the_process() {
        for place in ["thread", "task", "blocking"] {
            let ended = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "--nocapture",
                    "process::tests::a_process_that_panics",
                ])
                .env(CHILD, place)
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&ended.stderr);
            assert!(
                !ended.status.success()
                    && told.contains("lost a loop")
                    && !told.contains("half alive"),
                "{place}: {told}"
            );
        }
    }
}
