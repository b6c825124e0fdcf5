//! One server of each tier, linked: the smallest cluster of processes.

use std::process::Command;

use servers::PostgresServer;

use crate::site::{Said, Server, Site, Tier, command};

/// The variable with the database of a server.
pub const DATABASE: &str = "RCU_DATABASE__URL";

/// Devices come in here, and their records end in one database.
#[derive(Debug)]
pub struct Cluster {
    pub logic: Server,
    pub conn: Server,
    pub balancer: Server,
}

impl Cluster {
    /// On SQLite; `environment`: what each is started with, but for the tables of the others, which it does
    /// not know and would say so.
    pub fn start(site: &Site, environment: &[(&str, &str)]) -> Self {
        Self::start_with(site, |server, tier| {
            let of = |other: &Tier| format!("RCU_{}__", other.table().to_uppercase());
            let is_known = |name: &str| {
                let mut others = Tier::ALL.iter().filter(|other| **other != tier);
                !others.any(|other| name.starts_with(&of(other)))
            };
            let environment = environment.iter().copied();
            server.envs(environment.filter(|(name, _)| is_known(name)));
        })
    }

    /// On this database of a PostgreSQL, each server as who it is there.
    pub fn start_on(site: &Site, server: &PostgresServer, name: &str) -> Self {
        Self::start_with(site, |program, tier| {
            if let Some(role) = tier.role() {
                program.env(DATABASE, server.tcp_url(name, role));
            }
        })
    }

    fn start_with(site: &Site, prepare: impl Fn(&mut Command, Tier)) -> Self {
        let free = "listen = \"127.0.0.1:0\"";
        let start = |tier: Tier, node, more: &str| {
            let config = site.config(tier, node, more);
            let mut program = command(tier.program());
            prepare(&mut program, tier);
            site.start_command(&config, &mut program)
        };
        let logic = start(Tier::LogicServer, "logic-1", free);
        let link = logic.link();
        let conn = start(
            Tier::ConnServer,
            "conn-1",
            &format!("logic_servers = {link:?}"),
        );
        let link = conn.link();
        let more = format!("{free}\nconn_servers = {link:?}");
        let balancer = start(Tier::Balancer, "balancer-1", &more);
        Self {
            logic,
            conn,
            balancer,
        }
    }

    /// From the outside in, as `scripts/cluster` does.
    pub fn stop(self, site: &Site) -> [Said; 3] {
        [self.balancer, self.conn, self.logic].map(|server| {
            let said = site.stop(server);
            said.expect_success();
            said
        })
    }
}
