//! A private pgbouncer before a PostgreSQL.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use tempfile::TempDir;

use crate::postgres::{
    PATIENCE, PostgresServer, Role, ServerError, as_user, free_port, io_error, make_owned,
};
use crate::programs;

/// Set, tests that need a pooler are left out: for whoever has none and may install none. `scripts/test` sets
/// it where that is so, and says it.
const LEFT_OUT: &str = "RCU_TEST_WITHOUT_POOLER";

/// Ends the pooler and removes its files when the pipe to it is closed, also by a test that dies.
const KEEPER: &str = r#"
"$1" -q "$2/pgbouncer.ini" </dev/null >>"$2/log" 2>&1 &
pooler=$!
read -r _
kill -KILL $pooler 2>/dev/null
wait
rm -f "$2/pgbouncer.ini" "$2/users" "$2/log"
"#;

/// A pooler that runs until this is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    keeper: Child,
    _directory: TempDir,
}

/// Whether whoever runs the tests has asked to leave those with a pooler out.
pub fn poolers_are_left_out() -> bool {
    std::env::var_os(LEFT_OUT).is_some()
}

impl PgBouncer {
    /// One that lends sessions of `server` by this `pool_mode`, with whatever else `settings` say (lines of
    /// pgbouncer.ini).
    pub fn start(
        server: &PostgresServer,
        pool_mode: &str,
        settings: &str,
    ) -> Result<Self, ServerError> {
        let program = programs::pgbouncer().ok_or(ServerError::NoPooler)?;
        let directory = tempfile::Builder::new()
            .prefix("rcu-pgbouncer-")
            .tempdir()
            .map_err(|source| io_error("make a directory", source))?;
        let owner = make_owned(directory.path())?;
        let port = free_port()?;
        let origin = server.connection_string();
        let users = directory.path().join("users");
        let ini = format!(
            "[databases]\n* = {origin}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {pool_mode}\n{settings}\n",
            users.display()
        );
        let roles = Role::ALL.map(|role| format!("\"{}\" \"\"\n", role.name()));
        fs::write(users, roles.concat())
            .and_then(|()| fs::write(directory.path().join("pgbouncer.ini"), ini))
            .map_err(|source| io_error("write its configuration", source))?;
        let keeper = as_user(Command::new("sh"), owner)
            .args(["-c", KEEPER, "keeper"])
            .args([&program, directory.path()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| io_error("start sh", source))?;
        let pooler = Self {
            port,
            keeper,
            _directory: directory,
        };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                return Err(ServerError::Failed {
                    what: "the start of pgbouncer",
                    told: String::new(),
                });
            }
            sleep(std::time::Duration::from_millis(10));
        }
        Ok(pooler)
    }

    /// Through the pooler.
    pub fn url(&self, name: &str, role: Role) -> String {
        let (role, port) = (role.name(), self.port);
        format!("postgres://{role}@127.0.0.1:{port}/{name}")
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
