//! Runs a command with a PostgreSQL for all its tests: `servers COMMAND ARGUMENTS…`. The server is named
//! in `RCU_TEST_POSTGRES`, and gone when the command has ended.

use std::env;
use std::process::{Command, ExitCode};

use servers::PostgresServer;

/// Enough for as many tests as machines have cores, each with some connections.
const SETTINGS: &str = "max_connections = 400";

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("servers COMMAND ARGUMENTS…");
        return ExitCode::from(2);
    };
    let server = match PostgresServer::start(SETTINGS) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let done = Command::new(program)
        .args(arguments)
        .env(servers::SHARED, server.administrator_url())
        .status();
    match done {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot run it: {error}");
            ExitCode::FAILURE
        }
    }
}
