//! A private PostgreSQL, databases on it, and whom programs come to them as.
//!
//! ```text
//! test ──stdin──▶ sh ──▶ postgres      sh reads until the test closes its end, also by dying;
//!                  └───▶ rm -r         then it stops the server and removes what it left
//! ```
//!
//! `scripts/test` starts one server for all tests and names it in `RCU_TEST_POSTGRES`: then a test
//! makes a database on that one, which costs a tenth of a server of its own.
//!
//! A database is one as docs/operate.md makes it: of an owner who is no superuser, with the rights that
//! `roles.sql` gives to the others. Nobody gets at the superuser but the test itself, by `sql`: what is
//! tried as somebody who may everything says nothing about what will run in earnest.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use common::database::{DatabaseError, DatabaseUrl, Postgres};
use tempfile::TempDir;

use crate::disk::on_disk;
use crate::programs;

/// Holds the URL of a superuser on a server that runs; `servers COMMAND` sets it.
pub const SHARED: &str = "RCU_TEST_POSTGRES";

/// The superuser; [`Role`] has the others. All may in through the socket as they are, and over TCP with the
/// password.
const ADMINISTRATOR: &str = "postgres";
const PASSWORD: &str = "it is only a test";
const PASSWORD_IN_URL: &str = "it%20is%20only%20a%20test";

/// Whom a server runs as where the test is root: it refuses root. Debian's `nobody`.
const NOBODY: u32 = 65_534;

/// In which whoever makes databases is meanwhile.
const ADMINISTRATION: &str = "postgres";

const ROLES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../config/schema/postgres/roles.sql"
);

/// A server that has not started, or not ended, after this time never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Stops the server and removes its directory when the pipe to it is closed. SIGQUIT ends it at once; the
/// test is over, and nothing of it is needed.
const KEEPER: &str = r#"
"$1/postgres" -D "$2/data" </dev/null >>"$2/log" 2>&1 &
read -r _
kill -QUIT "$(head -n 1 "$2/data/postmaster.pid" 2>/dev/null)" 2>/dev/null
wait
rm -rf "$2/data" "$2/log"
"#;

/// Whom a program comes to the database as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `rcu db` and `rcu device`.
    Owner,
    /// Conn servers.
    Login,
    /// Logic servers.
    Telemetry,
    /// Analysts, and the checker of the simulator.
    Read,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Owner, Self::Login, Self::Telemetry, Self::Read];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "rcu_owner",
            Self::Login => "rcu_login",
            Self::Telemetry => "rcu_telemetry",
            Self::Read => "rcu_read",
        }
    }
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    directory: TempDir,
    port: u16,
    /// Of a disk of its own.
    disk_bytes: Option<u64>,
    keeper: Child,
}

/// A database that is removed when this is dropped, and its server if it has none other.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    at: Place,
}

#[derive(Debug)]
enum Place {
    Own(PostgresServer),
    /// The URL is the administrator's.
    Shared {
        programs: PathBuf,
        url: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(
        "there is no PostgreSQL here, and these tests need it: install Debian's package postgresql (scripts/test does, where it may)"
    )]
    Missing,
    #[error(
        "there is no pgbouncer here, and these tests need it: install Debian's package pgbouncer (scripts/test does, where it may)"
    )]
    NoPooler,
    #[error("cannot {what}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot make its tables")]
    Migrate(#[from] DatabaseError),
    #[error("{what} failed:\n{told}")]
    Failed { what: &'static str, told: String },
}

impl PostgresServer {
    /// Makes a server with all roles and no database of theirs, and starts it, with whatever else
    /// `settings` say (lines of postgresql.conf).
    pub fn start(settings: &str) -> Result<Self, ServerError> {
        Self::start_with(settings, None)
    }

    /// Likewise one that sees a small disk, with nothing on it, at [`PostgresServer::disk`]. What is put
    /// there is gone when the server ends.
    pub fn start_with_disk(settings: &str, disk_bytes: u64) -> Result<Self, ServerError> {
        Self::start_with(settings, Some(disk_bytes))
    }

    fn start_with(settings: &str, disk_bytes: Option<u64>) -> Result<Self, ServerError> {
        let programs = programs::postgres().ok_or(ServerError::Missing)?;
        let directory = tempfile::Builder::new()
            .prefix("rcu-postgres-")
            .tempdir()
            .map_err(|source| io_error("make a directory", source))?;
        let owner = make_owned(directory.path())?;
        let port = free_port()?;
        let data = directory.path().join("data");
        let password = directory.path().join("password");
        fs::write(&password, PASSWORD).map_err(|source| io_error("write a file", source))?;
        run(
            "initdb",
            as_user(Command::new(programs.join("initdb")), owner)
                .args([
                    "--no-sync",
                    "--no-instructions",
                    "--encoding=UTF8",
                    "--locale=C",
                ])
                .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
                .args(["--username", ADMINISTRATOR])
                .arg("--pwfile")
                .arg(&password)
                .arg("-D")
                .arg(&data),
        )?;
        let mut conf = String::new();
        let socket = directory.path().display();
        let _ = write!(
            conf,
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{socket}'\n{settings}\n"
        );
        fs::write(data.join("postgresql.auto.conf"), conf)
            .map_err(|source| io_error("write its configuration", source))?;
        let keeper = start_keeper(&programs, directory.path(), owner, disk_bytes)?;
        let server = Self {
            programs,
            directory,
            port,
            disk_bytes,
            keeper,
        };
        server.wait_until_it_answers()?;
        for role in Role::ALL {
            let make = format!("CREATE ROLE {} LOGIN PASSWORD '{PASSWORD}'", role.name());
            server.sql(ADMINISTRATION, &make)?;
        }
        Ok(server)
    }

    /// Through the Unix socket; `name` is a database.
    pub fn url(&self, name: &str, role: Role) -> String {
        self.socket_url(name, role.name())
    }

    /// Likewise over TCP, with the role's password.
    pub fn tcp_url(&self, name: &str, role: Role) -> String {
        let (role, port) = (role.name(), self.port);
        format!("postgres://{role}:{PASSWORD_IN_URL}@127.0.0.1:{port}/{name}")
    }

    /// Of the superuser, to whatever is there at first.
    pub fn administrator_url(&self) -> String {
        self.socket_url(ADMINISTRATION, ADMINISTRATOR)
    }

    /// Makes a database with all tables and rights.
    pub fn make_database(&self, name: &str) -> Result<(), ServerError> {
        make_database(&self.programs, &self.administrator_url(), name, "")
    }

    /// Likewise one that sees its disk, where it has a tablespace.
    pub fn make_database_in(&self, name: &str, tablespace: &str) -> Result<(), ServerError> {
        let place = format!("TABLESPACE {tablespace}");
        make_database(&self.programs, &self.administrator_url(), name, &place)
    }

    /// One in which there is nothing.
    pub fn make_empty_database(&self, name: &str) -> Result<(), ServerError> {
        make_empty_database(&self.programs, &self.administrator_url(), name, "")
    }

    /// Runs `roles.sql`, as an administrator does.
    pub fn grant(&self, name: &str) -> Result<(), ServerError> {
        grant(
            &self.programs,
            &of_database(&self.administrator_url(), name),
        )
    }

    /// Runs statements as the superuser and gives what they print, one row a line.
    pub fn sql(&self, name: &str, statements: &str) -> Result<String, ServerError> {
        psql(
            &self.programs,
            &self.socket_url(name, ADMINISTRATOR),
            statements,
        )
    }

    fn socket_url(&self, name: &str, role: &str) -> String {
        let socket = self.directory.path().display();
        let port = self.port;
        format!("postgres:///{name}?host={socket}&port={port}&user={role}")
    }

    /// Where a pooler finds its databases.
    pub(crate) fn connection_string(&self) -> String {
        let (socket, port) = (self.directory.path().display(), self.port);
        format!("host={socket} port={port}")
    }

    /// Has `pg_restore` read a dump into a database that is there and empty, as its owner.
    pub fn restore(&self, name: &str, dump: &Path) -> Result<(), ServerError> {
        let url = self.url(name, Role::Owner);
        let mut restore = Command::new(self.programs.join("pg_restore"));
        let restore = restore.args(["--exit-on-error", "--dbname", &url]);
        run("pg_restore", restore.arg(dump)).map(drop)
    }

    /// From now on who comes over TCP must speak TLS. Returns the file with the server's certificate, which
    /// nobody but itself has signed, and which is for `localhost` alone.
    pub fn require_tls(&self) -> Result<PathBuf, ServerError> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let data = self.directory.path().join("data");
        let owner = owner_of(&data)?;
        let key = made.signing_key.serialize_pem();
        let access = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        for (name, text) in [
            ("server.crt", made.cert.pem()),
            ("server.key", key),
            ("pg_hba.conf", access.to_owned()),
        ] {
            let path = data.join(name);
            fs::write(&path, text)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
                .and_then(|()| chown(&path, Some(owner), Some(owner)))
                .map_err(|source| io_error("write a file", source))?;
        }
        self.sql("postgres", "ALTER SYSTEM SET ssl = on")?;
        self.sql("postgres", "SELECT pg_reload_conf()")?;
        let deadline = Instant::now() + PATIENCE;
        while self.sql("postgres", "SHOW ssl")?.trim() != "on" {
            if Instant::now() > deadline {
                return Err(self.failed("TLS"));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(data.join("server.crt"))
    }

    /// Ends it as a crash does: nothing is written any more, every connection breaks.
    pub fn crash(&mut self) -> Result<(), ServerError> {
        self.signal("QUIT")?;
        let deadline = Instant::now() + PATIENCE;
        while self.directory.path().join("data/postmaster.pid").exists() {
            if Instant::now() > deadline {
                return Err(self.failed("the end of postgres"));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Starts it again after [`PostgresServer::crash`].
    pub fn start_again(&mut self) -> Result<(), ServerError> {
        self.end_keeper(false);
        let owner = owner_of(self.directory.path())?;
        let (programs, directory) = (&self.programs, self.directory.path());
        self.keeper = start_keeper(programs, directory, owner, self.disk_bytes)?;
        self.wait_until_it_answers()
    }

    /// Stops it in its tracks, as the fault of a disk or a machine does: nobody is told anything.
    pub fn freeze(&self) -> Result<(), ServerError> {
        self.signal_all("STOP")
    }

    pub fn thaw(&self) -> Result<(), ServerError> {
        self.signal_all("CONT")
    }

    /// Where it sees its small disk.
    pub fn disk(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    /// Makes a tablespace on its disk.
    pub fn make_tablespace(&self, name: &str) -> Result<(), ServerError> {
        let place = self.disk().join(name);
        let place = place.display();
        self.shell(&format!("mkdir {place}"))?;
        let make = format!("CREATE TABLESPACE {name} LOCATION '{place}'");
        self.sql("postgres", &make).map(drop)
    }

    /// Something else takes all that is left of its disk.
    pub fn fill_disk(&self) -> Result<(), ServerError> {
        let ballast = self.disk().join("ballast");
        self.shell(&format!(
            "dd if=/dev/zero of={} bs=4096 2>/dev/null; true",
            ballast.display()
        ))
    }

    /// Somebody makes room again.
    pub fn clear_disk(&self) -> Result<(), ServerError> {
        self.shell(&format!("rm {}", self.disk().join("ballast").display()))
    }

    /// Runs a command as the server, who alone sees its disk.
    fn shell(&self, command: &str) -> Result<(), ServerError> {
        let run =
            format!("CREATE TEMPORARY TABLE said (line text); COPY said FROM PROGRAM '{command}'");
        self.sql("postgres", &run).map(drop)
    }

    fn signal(&self, signal: &str) -> Result<(), ServerError> {
        kill(signal, &self.postmaster()?)
    }

    /// The server, then its backends, of which each is a process. Some of them may end meanwhile; new
    /// ones there are none once the server stands still.
    fn signal_all(&self, signal: &str) -> Result<(), ServerError> {
        let postmaster = self.postmaster()?;
        kill(signal, &postmaster)?;
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = fs::read_to_string(children)
            .map_err(|source| io_error("list the processes of postgres", source))?;
        for child in children.split_whitespace() {
            let _ = kill(signal, child);
        }
        Ok(())
    }

    fn postmaster(&self) -> Result<String, ServerError> {
        let mut text = String::new();
        File::open(self.directory.path().join("data/postmaster.pid"))
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_err(|source| io_error("find the process of postgres", source))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    fn wait_until_it_answers(&self) -> Result<(), ServerError> {
        let deadline = Instant::now() + PATIENCE;
        while self.sql("postgres", "SELECT 1").is_err() {
            if Instant::now() > deadline {
                return Err(self.failed("the start of postgres"));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What it has written into its log since it was made.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn failed(&self, what: &'static str) -> ServerError {
        let told = self.log();
        ServerError::Failed { what, told }
    }

    /// `clean`: it removes the server's files, too.
    fn end_keeper(&mut self, clean: bool) {
        if !clean {
            // Its server is gone: it would only remove the files.
            let _ = self.keeper.kill();
        }
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // One that is frozen cannot end.
        let _ = self.thaw();
        self.end_keeper(true);
    }
}

impl TestDatabase {
    /// A database with all tables and rights, on the server of `RCU_TEST_POSTGRES` or on one of its own.
    ///
    /// # Panics
    /// There is no PostgreSQL: a test that would need it must not pass.
    pub fn new() -> Self {
        Self::make(make_database).unwrap_or_else(|error| panic!("{error}"))
    }

    /// One in which there is nothing.
    ///
    /// # Panics
    /// Likewise.
    pub fn empty() -> Self {
        Self::make(make_empty_database).unwrap_or_else(|error| panic!("{error}"))
    }

    fn make(make: MakeDatabase) -> Result<Self, ServerError> {
        let at = match env::var(SHARED) {
            Ok(url) => Place::Shared {
                programs: programs::postgres().ok_or(ServerError::Missing)?,
                url,
            },
            Err(_) => Place::Own(PostgresServer::start("")?),
        };
        let name = format!("rcu_test_{}_{:08x}", std::process::id(), unlike_others());
        let made = Self { name, at };
        make(
            made.at.programs(),
            &made.at.administrator_url(),
            &made.name,
            "",
        )?;
        Ok(made)
    }

    /// `postgres://…`
    pub fn url(&self, role: Role) -> String {
        let url = of_database(&self.at.administrator_url(), &self.name);
        as_role(&url, role)
    }

    /// Runs statements as the superuser and gives what they print, one row a line.
    pub fn sql(&self, statements: &str) -> Result<String, ServerError> {
        let url = of_database(&self.at.administrator_url(), &self.name);
        psql(self.at.programs(), &url, statements)
    }
}

impl Default for TestDatabase {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Place::Shared { programs, url } = &self.at {
            let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            let _ = psql(programs, url, &drop);
        }
    }
}

impl Place {
    fn programs(&self) -> &Path {
        match self {
            Self::Own(server) => &server.programs,
            Self::Shared { programs, .. } => programs,
        }
    }

    fn administrator_url(&self) -> String {
        match self {
            Self::Own(server) => server.administrator_url(),
            Self::Shared { url, .. } => url.clone(),
        }
    }
}

/// Programs, URL of the administrator, name, and what else to say of the database.
type MakeDatabase = fn(&Path, &str, &str, &str) -> Result<(), ServerError>;

/// The third step of docs/operate.md.
fn make_database(
    programs: &Path,
    administrator: &str,
    name: &str,
    place: &str,
) -> Result<(), ServerError> {
    make_empty_database(programs, administrator, name, place)?;
    let url = of_database(administrator, name);
    migrate(&as_role(&url, Role::Owner))?;
    grant(programs, &url)
}

fn make_empty_database(
    programs: &Path,
    administrator: &str,
    name: &str,
    place: &str,
) -> Result<(), ServerError> {
    let owner = Role::Owner.name();
    let make = format!("CREATE DATABASE {name} OWNER {owner} {place}");
    psql(programs, administrator, &make).map(drop)
}

/// On a thread of its own: whoever makes a database may be in the middle of a runtime.
fn migrate(url: &str) -> Result<(), ServerError> {
    let url: DatabaseUrl = url.parse().expect("a URL made here");
    let migrate = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build();
        let runtime = runtime.map_err(|source| io_error("start a runtime", source))?;
        runtime.block_on(Postgres::migrate(&url))?;
        Ok(())
    };
    thread::scope(|scope| scope.spawn(migrate).join().expect("it does not panic"))
}

fn grant(programs: &Path, administrator: &str) -> Result<(), ServerError> {
    let psql = Command::new(programs.join("psql"));
    run("psql", quiet(psql, administrator).args(["-f", ROLES])).map(drop)
}

/// The same server, another database.
fn of_database(administrator: &str, name: &str) -> String {
    administrator.replace(&format!("/{ADMINISTRATION}?"), &format!("/{name}?"))
}

/// The same database, somebody else.
fn as_role(administrator: &str, role: Role) -> String {
    let user = format!("user={}", role.name());
    administrator.replace(&format!("user={ADMINISTRATOR}"), &user)
}

/// Within a process: names of databases made by the same test.
fn unlike_others() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().subsec_nanos()
}

fn start_keeper(
    programs: &Path,
    directory: &Path,
    owner: u32,
    disk_bytes: Option<u64>,
) -> Result<Child, ServerError> {
    let mut keeper = match disk_bytes {
        None => as_user(Command::new("sh"), owner),
        Some(bytes) => {
            let disk = directory.join("disk");
            fs::create_dir_all(&disk).map_err(|source| io_error("make a directory", source))?;
            let mut keeper = on_disk(&disk, bytes, Some(owner));
            keeper.current_dir("/").arg("sh");
            keeper
        }
    };
    keeper
        .args(["-c", KEEPER, "keeper"])
        .args([programs, directory])
        // A group of its own: what ends a test run as a group must not end who cleans up behind it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| io_error("start sh", source))
}

/// Gives the directory to the user whom the server is to run as; returns his number.
pub(crate) fn make_owned(directory: &Path) -> Result<u32, ServerError> {
    let mine = owner_of(directory)?;
    if mine != 0 {
        return Ok(mine);
    }
    chown(directory, Some(NOBODY), Some(NOBODY))
        .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o755)))
        .map_err(|source| io_error("give a directory away", source))?;
    Ok(NOBODY)
}

fn owner_of(directory: &Path) -> Result<u32, ServerError> {
    fs::metadata(directory)
        .map(|about| about.uid())
        .map_err(|source| io_error("look at a directory", source))
}

pub(crate) fn as_user(mut command: Command, owner: u32) -> Command {
    if owner == NOBODY {
        command.uid(owner).gid(owner);
    }
    // A directory that everybody may enter.
    command.current_dir("/");
    command
}

/// Nobody else gets it before the server does, unless by bad luck: then the start fails.
pub(crate) fn free_port() -> Result<u16, ServerError> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| io_error("find a free port", source))
}

fn psql(programs: &Path, url: &str, statements: &str) -> Result<String, ServerError> {
    let psql = Command::new(programs.join("psql"));
    run("psql", quiet(psql, url).args(["-c", statements]))
}

/// Nobody's own settings, nothing but values, and an end at the first error.
fn quiet(mut psql: Command, url: &str) -> Command {
    psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", url])
        .env_remove("PGOPTIONS");
    psql
}

fn kill(signal: &str, process: &str) -> Result<(), ServerError> {
    run(
        "kill",
        Command::new("kill").args([&format!("-{signal}"), process]),
    )
    .map(drop)
}

fn run(what: &'static str, command: &mut Command) -> Result<String, ServerError> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| io_error("run a program of PostgreSQL", source))?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => Err(ServerError::Failed {
            what,
            told: String::from_utf8_lossy(&done.stderr).into_owned(),
        }),
    }
}

pub(crate) fn io_error(what: &'static str, source: io::Error) -> ServerError {
    ServerError::Io { what, source }
}
