//! A logic server alone in a process, with the store that it always has: what it takes is not
//! mixed with what balancer and conn server take. The load gives it its grants (load/grants.rs).

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use common::database::Database;
use common::ids::NodeName;
use common::link::{Key, Keys};
use common::secret::Secret;
use logic_server::{LogicServer, Settings};
use tempfile::TempDir;

use crate::error::{BenchError, Result, Tried as _};
use crate::process::{self, Helper};

const START_MAX: Duration = Duration::from_secs(10);
/// Links between processes of one measurement hide nothing.
const KEY: [u8; 32] = [7; 32];
/// More than any measurement holds, and less than a process may open.
const CONNECTIONS_MAX: u32 = 16_000;
/// Connections on their way in; the rest of the descriptors are the sessions'.
const PENDING_MAX: usize = 1_000;
/// A burst of telemetry is as long as this.
pub(crate) const WINDOW: u16 = 16;
/// What its threads for sessions are called.
pub(crate) const SHARD_THREADS: &str = "shard-";

/// The process, while it runs.
pub(crate) struct Alone {
    helper: Helper,
    pub(crate) link: SocketAddr,
    /// Its database; goes with it.
    _directory: TempDir,
}

impl Alone {
    pub(crate) fn start() -> Result<Self> {
        let directory = TempDir::with_prefix("rcu-bench-").tried("make a directory")?;
        let file = directory.path().join("rcu.db");
        let helper = Helper::start(["alone", "--database", &file.to_string_lossy()])?;
        let link = helper.hear_address(START_MAX)?;
        Ok(Self {
            helper,
            link,
            _directory: directory,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.helper.pid()
    }
}

/// Serves until its parent ends. Says where it takes links; where it takes devices, it tells those
/// that link to it.
pub(crate) fn serve(database: &Path) -> Result<()> {
    process::end_with_parent();
    let runtime = common::process::runtime().tried("make a runtime")?;
    runtime.block_on(async {
        let database = Database::open(database).await.map_err(BenchError::failed)?;
        let server = LogicServer::start(settings(), name("alone"), keys(), &database)
            .await
            .map_err(BenchError::failed)?;
        process::say(&server.addresses().link.to_string())?;
        std::future::pending().await
    })
}

fn settings() -> Settings {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    Settings {
        listen: vec![loopback],
        link_listen: loopback,
        max_connections: Some(CONNECTIONS_MAX),
        pending_max: PENDING_MAX,
        window: WINDOW,
        ..Settings::default()
    }
}

pub(crate) fn keys() -> Keys {
    Keys {
        cluster: vec![Key::new(Secret::new(KEY))],
        operator: Vec::new(),
    }
}

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().expect("lower-case letters")
}
