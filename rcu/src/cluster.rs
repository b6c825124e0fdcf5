//! All tiers in one process: one balancer, one conn server, some logic servers, on one database.

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use balancer::Balancer;
use common::database::{Database, DatabaseError};
use common::ids::NodeName;
use common::metrics::Source;
use common::process::descriptors::{Budget, raise_limit};
use conn_server::ConnServer;
use logic_server::{Hurry, LogicServer};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::data::{DataDir, DataError};

/// Logic servers of `up` and `demo`.
pub(crate) const LOGIC_SERVERS: u16 = 2;

/// The tiers find one another within this time, or something is wrong.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// The part of the descriptors that connections may take which are not attached yet. Beyond it the
/// oldest of them go first.
const PENDING_SHARE: u64 = 8;

pub(crate) struct Cluster {
    balancer: Balancer,
    conn_server: ConnServer,
    logic_servers: Vec<(NodeName, LogicServer)>,
    /// Of each logic server.
    max_connections: u32,
    database: Database,
}

/// Where the cluster is reached; `up.json` in the data directory.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Addresses {
    /// Of the process.
    pub(crate) pid: u32,
    /// Where devices log in.
    pub(crate) balancer: Vec<SocketAddr>,
    /// Where balancers and operators link to.
    pub(crate) conn_server: SocketAddr,
    pub(crate) logic_servers: Vec<LogicAddress>,
    /// Where the metrics are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<SocketAddr>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct LogicAddress {
    pub(crate) name: String,
    /// Where devices are sent to.
    pub(crate) device: SocketAddr,
    /// Where conn servers link to.
    pub(crate) link: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("another cluster runs on {0}; end it, or choose another --data")]
    Locked(String),
    #[error("cannot lock the data directory")]
    Lock(#[source] io::Error),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("logic_server.max_connections: {0}")]
    Connections(String),
    #[error("the balancer does not start")]
    Balancer(#[from] balancer::StartError),
    #[error("the conn server does not start")]
    ConnServer(#[from] conn_server::StartError),
    #[error("logic server {0} does not start")]
    LogicServer(NodeName, #[source] logic_server::StartError),
    #[error("the tiers did not find one another within {} s", READY_WITHIN.as_secs())]
    NotReady,
}

impl Cluster {
    /// Starts the tiers from the inside out and waits until a login can go through all of them.
    /// `devices`: descriptors that simulated devices of the same process need.
    pub(crate) async fn start(
        data: &DataDir,
        config: Config,
        devices: u64,
    ) -> Result<Self, ClusterError> {
        let Config {
            mut balancer,
            mut conn_server,
            mut logic_server,
            ..
        } = config;
        let max_connections = share_descriptors(&mut balancer, &mut logic_server, devices)
            .map_err(ClusterError::Connections)?;
        let database = Database::open(&data.database_path()).await?;
        let keys = data.link_keys()?;

        let mut logic_servers = Vec::new();
        for index in 0..LOGIC_SERVERS {
            let name = node(&format!("logic-{}", index + 1));
            let settings = nth(&logic_server, index);
            let started = LogicServer::start(settings, name.clone(), keys.clone(), &database).await;
            let started =
                started.map_err(|error| ClusterError::LogicServer(name.clone(), error))?;
            conn_server
                .logic_servers
                .push(started.addresses().link.to_string());
            logic_servers.push((name, started));
        }
        let conn_server = ConnServer::start(
            conn_server,
            node("conn-1"),
            keys.clone(),
            database.clone(),
            data.master_key()?,
        )
        .await?;
        balancer
            .conn_servers
            .push(conn_server.address().to_string());
        let balancer = Balancer::start(balancer, node("balancer-1"), keys)?;

        let cluster = Self {
            balancer,
            conn_server,
            logic_servers,
            max_connections,
            database,
        };
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    async fn wait_until_ready(&self) -> Result<(), ClusterError> {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.is_ready() {
            if Instant::now() >= deadline {
                return Err(ClusterError::NotReady);
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// A login would find its way: the balancer knows of places on every logic server.
    fn is_ready(&self) -> bool {
        self.conn_server
            .stats()
            .gauge(conn_server::counters::Gauge::Nodes)
            == self.logic_servers.len() as u64
            && self
                .balancer
                .stats()
                .gauge(balancer::counters::Gauge::PlacesFree)
                > 0
    }

    pub(crate) fn addresses(&self) -> Addresses {
        let logic_servers = self
            .logic_servers
            .iter()
            .map(|(name, server)| LogicAddress {
                name: name.to_string(),
                device: server.addresses().advertised[0],
                link: server.addresses().link,
            });
        Addresses {
            pid: std::process::id(),
            balancer: self.balancer.addresses().to_vec(),
            conn_server: self.conn_server.address(),
            logic_servers: logic_servers.collect(),
            metrics: None,
        }
    }

    /// The figures of all tiers, for the metrics of the process.
    pub(crate) fn metrics(&self) -> Vec<Box<dyn Source>> {
        let mut sources: Vec<Box<dyn Source>> = vec![
            Box::new(self.balancer.metrics()),
            Box::new(self.conn_server.metrics()),
        ];
        for (_, server) in &self.logic_servers {
            sources.push(Box::new(server.metrics()));
        }
        sources
    }

    pub(crate) fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    pub(crate) fn conn_server(&self) -> &ConnServer {
        &self.conn_server
    }

    pub(crate) fn logic_servers(&self) -> impl Iterator<Item = (&NodeName, &LogicServer)> {
        self.logic_servers
            .iter()
            .map(|(name, server)| (name, server))
    }

    /// Places of each logic server.
    pub(crate) fn max_connections(&self) -> u32 {
        self.max_connections
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// What hastens the shutdown.
    pub(crate) fn hurries(&self) -> Vec<Hurry> {
        self.logic_servers
            .iter()
            .map(|(_, server)| server.hurry())
            .collect()
    }

    /// No new logins and grants; then every logic server has its last batches stored and acknowledged and says
    /// goodbye to its devices; the database stays open for whoever still reads it.
    pub(crate) async fn shutdown(self) -> Database {
        let Self {
            balancer,
            conn_server,
            logic_servers,
            database,
            ..
        } = self;
        balancer.shutdown().await;
        conn_server.shutdown().await;
        let leaving: Vec<_> = logic_servers
            .into_iter()
            .map(|(_, server)| tokio::spawn(server.shutdown()))
            .collect();
        for left in leaving {
            // A task that panicked has ended the process.
            let _ = left.await;
        }
        database
    }
}

/// One cluster on one data directory, for as long as the file is held: two would send devices to each
/// other's logic servers.
pub(crate) fn lock(data: &Path) -> Result<File, ClusterError> {
    let file = File::create(data.join("up.lock")).map_err(ClusterError::Lock)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ClusterError::Locked(data.display().to_string())),
        Err(TryLockError::Error(error)) => Err(ClusterError::Lock(error)),
    }
}

/// Names that stand in the source are right.
pub(crate) fn node(name: &str) -> NodeName {
    name.parse().expect("a node name")
}

/// The settings of the logic server `index` of several in one process: ports that are named count up,
/// free ones stay free.
pub(crate) fn nth(settings: &logic_server::Settings, index: u16) -> logic_server::Settings {
    let mut settings = settings.clone();
    let shifted = settings.listen.iter_mut().chain(&mut settings.advertise);
    for address in shifted.chain([&mut settings.link_listen]) {
        if address.port() != 0 {
            address.set_port(address.port().saturating_add(index));
        }
    }
    settings
}

/// Sees to it that what the tiers may open together fits the process; returns the connections of each
/// logic server.
fn share_descriptors(
    balancer: &mut balancer::Settings,
    logic_server: &mut logic_server::Settings,
    devices: u64,
) -> Result<u32, String> {
    let limit = raise_limit();
    if let Some(limit) = limit {
        let tiers = u64::from(LOGIC_SERVERS) + 1;
        let each = usize::try_from(limit / PENDING_SHARE / tiers)
            .unwrap_or(usize::MAX)
            .max(1);
        balancer.connections_pending_max = balancer.connections_pending_max.min(each);
        logic_server.pending_max = logic_server.pending_max.min(each);
    }
    let budget = Budget {
        limit,
        own: balancer.connections_pending_max as u64
            + u64::from(LOGIC_SERVERS) * logic_server.descriptors(),
        devices,
    };
    let connections = budget.max_connections(logic_server.max_connections, LOGIC_SERVERS.into())?;
    logic_server.max_connections = Some(connections);
    Ok(connections)
}
