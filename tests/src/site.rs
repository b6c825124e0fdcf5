//! A place where the product's programs run as their users run them: a directory with keys and
//! configurations, on free ports. Whatever a program says there is searched for the keys.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use servers::leaks::Search;
use servers::{Role, said};
use tempfile::TempDir;

/// Nothing here takes as long; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the environment of a test may hold and that of a program must not.
const OVERRIDES: &str = "RCU_";

/// A server's tier, with its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Balancer,
    ConnServer,
    LogicServer,
}

impl Tier {
    pub const ALL: [Self; 3] = [Self::Balancer, Self::ConnServer, Self::LogicServer];

    pub const fn program(self) -> &'static str {
        match self {
            Self::Balancer => "balancer",
            Self::ConnServer => "conn-server",
            Self::LogicServer => "logic-server",
        }
    }

    /// Whom it comes to the database as.
    pub const fn role(self) -> Option<Role> {
        match self {
            Self::Balancer => None,
            Self::ConnServer => Some(Role::Login),
            Self::LogicServer => Some(Role::Telemetry),
        }
    }

    /// The table of its settings.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Balancer => "balancer",
            Self::ConnServer => "conn_server",
            Self::LogicServer => "logic_server",
        }
    }
}

/// The directory, and what must never be said.
#[derive(Debug)]
pub struct Site {
    directory: TempDir,
    secrets: Vec<String>,
}

/// What a program that has ended said, on both streams.
#[derive(Debug)]
pub struct Said {
    pub status: ExitStatus,
    pub text: String,
}

impl Said {
    /// It failed, as every program of the product fails, and said all of this.
    pub fn expect_failure(&self, parts: &[&str]) {
        let Self { status, text } = self;
        assert_eq!(status.code(), Some(1), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }

    pub fn expect_success(&self) {
        assert!(self.status.success(), "{}\n{}", self.status, self.text);
    }
}

impl Site {
    /// With keys of its own.
    pub fn new() -> Self {
        let mut site = Self {
            directory: tempfile::tempdir().expect("a directory"),
            secrets: vec![],
        };
        let keys = site.path("keys");
        site.run("rcu", &["keys", "new", &text(&keys)])
            .expect_success();
        for name in ["cluster", "operator", "master"] {
            let key = fs::read_to_string(keys.join(name)).expect("a key");
            site.keep_secret(name, key.trim());
        }
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// From now on nobody may say this: a key in hex, or a password. `kind`: one of
    /// [`servers::leaks::KINDS`].
    pub fn keep_secret(&mut self, kind: &str, secret: &str) {
        said::secret(kind, secret);
        self.secrets.push(secret.to_owned());
    }

    /// A configuration that works, on free ports and SQLite, with these lines at the end: they go to
    /// the table of the tier, and may open others.
    pub fn config(&self, tier: Tier, node: &str, more: &str) -> PathBuf {
        let keys = self.path("keys");
        let keys = keys.display();
        let database = format!(
            "[database]\nurl = \"sqlite:{}\"\n",
            self.path("rcu.db").display()
        );
        let (keys, database) = match tier {
            Tier::Balancer => (format!("cluster = \"{keys}/cluster\""), String::new()),
            Tier::LogicServer => (format!("cluster = \"{keys}/cluster\""), database),
            Tier::ConnServer => (
                format!(
                    "cluster = \"{keys}/cluster\"\noperator = \"{keys}/operator\"\nmaster = \"{keys}/master\""
                ),
                database,
            ),
        };
        let table = tier.table();
        self.write(
            &format!("{node}.toml"),
            &format!("[node]\nname = \"{node}\"\n[keys]\n{keys}\n{database}[{table}]\n{more}\n"),
        )
    }

    pub fn write(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).expect("written");
        path
    }

    /// Runs a program to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Said {
        self.run_command(command(program).args(arguments))
    }

    /// Starts a server with a configuration that is wrong in some way, and waits for its end.
    pub fn run_server(&self, tier: Tier, config: &Path) -> Said {
        self.run(tier.program(), &["--config", &text(config)])
    }

    /// Likewise with what the test has made of [`command`].
    pub fn run_command(&self, command: &mut Command) -> Said {
        let log = self.log("run");
        // What an earlier one said was looked at.
        let _ = fs::remove_file(&log);
        let child = spawn(command, &log);
        self.ended(child, &log)
    }

    /// A library that tells whoever is started with it (`LD_PRELOAD`) another wall clock than the kernel's:
    /// `change`, in C, of the seconds `now->tv_sec`.
    pub fn another_clock(&self, change: &str) -> PathBuf {
        let source = self.write(
            "clock.c",
            &format!(
                "#include <time.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n\
                 int clock_gettime(clockid_t id, struct timespec *now) {{\n\
                 int done = syscall(SYS_clock_gettime, id, now);\n\
                 if (id == CLOCK_REALTIME) {{ {change}; }}\n\
                 return done;\n}}\n"
            ),
        );
        let library = self.path("clock.so");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source]);
        self.run_command(&mut compiler).expect_success();
        library
    }

    /// Starts a server, and waits until it says where it is reached.
    pub fn start(&self, tier: Tier, config: &Path) -> Server {
        self.start_command(config, &mut command(tier.program()))
    }

    /// Likewise with what the test has made of [`command`].
    pub fn start_command(&self, config: &Path, command: &mut Command) -> Server {
        let node = config.file_stem().expect("a name").to_string_lossy();
        let said = self.path(&format!("{node}.json"));
        let log = self.log(&node);
        let command = command.arg("--config").arg(config);
        let mut child = spawn(command.arg("--addresses").arg(&said), &log);
        let begun = Instant::now();
        while !said.exists() {
            let ended = child.try_wait().expect("a child");
            let is_late = begun.elapsed() > PATIENCE;
            assert!(ended.is_none() && !is_late, "{node}: {}", told(&log));
            sleep(Duration::from_millis(10));
        }
        let addresses = fs::read(&said).expect("addresses");
        Server {
            child: Some(child),
            addresses: serde_json::from_slice(&addresses).expect("JSON"),
            said,
            log,
        }
    }

    /// Has a server end as its supervisor does, and gives what it said.
    pub fn stop(&self, server: Server) -> Said {
        server.signal(Signal::TERM);
        self.wait(server)
    }

    /// Waits for the end of a server, and gives what it said.
    pub fn wait(&self, mut server: Server) -> Said {
        let child = server.child.take().expect("a server that runs");
        let said = self.ended(child, &server.log);
        assert!(!server.said.exists(), "its addresses are still there");
        said
    }

    /// What a server that runs has said until now.
    pub fn said_by(&self, server: &Server) -> String {
        self.without_secrets(told(&server.log))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    fn ended(&self, mut child: Child, log: &Path) -> Said {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                panic!("it did not end: {}", told(log));
            }
            sleep(Duration::from_millis(5));
        };
        let text = self.without_secrets(told(log));
        said::keep(log);
        Said { status, text }
    }

    /// P8: whatever is looked at was searched.
    pub fn without_secrets(&self, text: String) -> String {
        let secrets: Vec<_> = self.secrets.iter().map(String::as_str).collect();
        let search = Search::new(&secrets).expect("a search for some secrets");
        if let Some((_, at)) = search.find(text.as_bytes()) {
            // Not repeated here: what a test says is searched, too.
            let before = String::from_utf8_lossy(&text.as_bytes()[..at]);
            panic!("a secret in what was said, behind:\n{before}");
        }
        text
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Where a test has its servers write files.
        said::keep_all(&self.path("logs"));
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

/// A server that runs; killed where the test fails before it ends it.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    addresses: Value,
    said: PathBuf,
    log: PathBuf,
}

impl Server {
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a server that runs");
        kill_process(Pid::from_child(child), signal).expect("it runs");
    }

    /// Where the tier above links to.
    pub fn link(&self) -> String {
        self.address("/link")
    }

    /// Where devices connect.
    pub fn devices(&self) -> String {
        self.address("/devices/0")
    }

    /// What it answers at its metrics port, with the head.
    pub fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address("/metrics")).expect("a metrics port");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn address(&self, pointer: &str) -> String {
        let address = self.addresses.pointer(pointer).and_then(Value::as_str);
        address.expect("an address").to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Fails where it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program of the product, with no more of this process's environment than others need.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(binary(program));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(OVERRIDES) {
            command.env_remove(name);
        }
    }
    // What `rcu` remembers is not for whoever runs this.
    command.env_remove("XDG_STATE_HOME").env_remove("HOME");
    command
}

/// Where a program of the product was built: beside the directory of this test's own.
///
/// # Panics
/// It was not built.
pub fn binary(program: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test");
    let built = test.parent().and_then(Path::parent).expect("deps");
    let path = built.join(program);
    assert!(
        path.exists(),
        "{} is missing: cargo build --workspace --bins",
        path.display()
    );
    path
}

/// Waits for what must come to be.
///
/// # Panics
/// It does not.
pub fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < PATIENCE, "waited for {what}");
        sleep(Duration::from_millis(10));
    }
}

/// A path as an argument or in a configuration.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Both streams to the end of one file, in the order in which they are written.
fn spawn(command: &mut Command, log: &Path) -> Child {
    let open = || -> io::Result<File> { File::options().create(true).append(true).open(log) };
    let (out, err) = (open().expect("a log"), open().expect("a log"));
    let command = command.stdin(Stdio::null()).stdout(out).stderr(err);
    command.spawn().expect("a program that can be run")
}

fn told(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}
