//! F5: a server whose shard panics is gone at once, and its log says why. No switch of the product makes a
//! shard panic: here it is whoever listens to the span that the shard's thread enters.

#![allow(clippy::unwrap_used)]

use std::env;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};
use std::thread;

use common::database::Database;
use common::link::{Key, Keys};
use common::logging::{self, LogSettings};
use common::process;
use common::secret::Secret;
use logic_server::{LogicServer, Settings};
use rustix::process::Signal;
use tests::site::PATIENCE;
use tracing::Subscriber;
use tracing::span::Id;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Set in the process that the test starts of its own program.
const CHILD: &str = "RCU_TEST_SHARD_PANICS";

/// The thread that panics.
const SHARD: &str = "shard-0";

/// Panics in [`SHARD`], which enters the span that its node was started in.
struct Trap;

impl<S: Subscriber> Layer<S> for Trap {
    fn on_enter(&self, _: &Id, _: Context<'_, S>) {
        assert_ne!(thread::current().name(), Some(SHARD), "trapped");
    }
}

/// Starts a logic server as its program does, on a log of its own, into the trap.
async fn start() -> LogicServer {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&directory.path().join("rcu.db")).await;
    let loopback = "127.0.0.1:0".parse().unwrap();
    let settings = Settings {
        listen: vec![loopback],
        link_listen: loopback,
        max_connections: Some(10),
        ..Settings::default()
    };
    let keys = Keys {
        cluster: vec![Key::new(Secret::new([1; 32]))],
        operator: vec![],
    };
    let node = "logic-1".parse().unwrap();
    let started = LogicServer::start(settings, node, keys, &database.unwrap()).await;
    started.unwrap()
}

/// Not a test of its own: what [`a_panic_in_a_shard_ends_the_process_with_a_coded_line`] starts.
#[test]
fn a_server_whose_shard_panics() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let code = process::run("logic-server", || {
        let node = "logic-1".parse()?;
        let _log = logging::start(&LogSettings::default(), &node)?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build()?;
        let trap = tracing_subscriber::registry().with(Trap);
        let _server = tracing::subscriber::with_default(trap, || runtime.block_on(start()));
        thread::sleep(PATIENCE);
        Ok(ExitCode::SUCCESS)
    });
    assert_eq!(code, ExitCode::SUCCESS);
}

#[test]
fn a_panic_in_a_shard_ends_the_process_with_a_coded_line() {
    let done = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_server_whose_shard_panics", "--nocapture"])
        .env(CHILD, "1")
        .env_remove(logging::FILTER_VARIABLE)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.signal(), Some(Signal::ABORT.as_raw()), "{said}");
    let coded = said
        .lines()
        .find(|line| line.contains("ERROR 1002 logic-1"));
    let coded = coded.unwrap_or_else(|| panic!("no coded line in:\n{said}"));
    for part in ["trapped", SHARD, "panicked: the process ends"] {
        assert!(coded.contains(part), "{part:?} is not in {coded}");
    }
}
